"""A worker of the last release beside one of this version: one group, one root, exchanged one by one and back again."""

from __future__ import annotations

import itertools
import os
import queue
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

import pyarrow.compute as pc
import pytest
from kafka import KafkaProducer

from adawise.__main__ import main
from adawise.output.read.rows import read_predictions, read_traces
from tests.brokers import Broker, MakeTopic
from tests.hostile import picture
from tests.models import write_pair
from tests.processes import Started
from tests.replay import runs

REPOSITORY = Path(__file__).parents[1]
RELEASE = "65efc3fff61eb31dcf0c9434b93875487581b6c1"  # 0.2.0
PARTITIONS, CAMERAS, IMAGES = 4, 8, 16  # IMAGES a camera and phase: two batches
BATCH = 8

pytestmark = [pytest.mark.soak, pytest.mark.broker]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the last release, as its tag holds them."""
    archived = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", RELEASE, "pipeline"], capture_output=True, check=False
    )
    if archived.returncode:
        pytest.skip(f"the history of this clone lacks {RELEASE}: {archived.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "pipeline"


@dataclass
class Yard:
    """Workers of both versions, what they say, and the frames that they are sent."""

    broker: Broker
    topic: str
    folder: Path
    sources: Mapping[str, Path]  # by version
    began_ms: int = field(default_factory=lambda: int(time.time() * 1000) - 600_000)
    committed: int = 0
    sent: int = 0
    committed_rows: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)

    @contextmanager
    def worker(self, version: str) -> Iterator[None]:
        """A worker that has partitions at the beginning, is asked to end at the end, and must say 0."""
        has_partitions = threading.Event()
        with Started(
            [sys.executable, "-m", "adawise", "run", "--config", f"{version}.toml"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.sources[version]), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            listener = threading.Thread(target=self._listen, args=(running.stderr, has_partitions))
            listener.start()
            try:
                assert has_partitions.wait(timeout=120)
                yield
                running.send_signal(signal.SIGTERM)
                assert running.wait(timeout=120) == 0
            finally:
                running.kill()
                listener.join()

    def _listen(self, log: IO[str] | None, has_partitions: threading.Event) -> None:
        for event in runs.events(log):
            if event["event"] == "segment_committed":
                self.committed_rows.put(event["rows"])
            elif event["event"] == "partition_recovered":
                has_partitions.set()

    def serve(self, phase: int) -> None:
        """Send each camera's frames, and wait until all that was sent is in segments."""
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap_servers)
        sent = []
        for number, camera in itertools.product(range(IMAGES), range(CAMERAS)):
            stamp = self.began_ms + phase * 60_000 + number * 10
            key, value = f"camera-{camera}".encode(), picture(random.Random(phase * IMAGES + number))
            partition = camera % PARTITIONS
            sent.append(producer.send(self.topic, key=key, value=value, partition=partition, timestamp_ms=stamp))
        producer.close()
        for one in sent:
            one.get(timeout=10)
        self.sent += IMAGES * CAMERAS
        while self.committed < self.sent:
            self.committed += self.committed_rows.get(timeout=120)


def test_workers_of_two_versions_share_a_group_and_are_exchanged_one_by_one_and_back(
    broker: Broker, topic: MakeTopic, tmp_path: Path, release: Path
) -> None:
    yard = Yard(broker, topic(PARTITIONS), tmp_path, {"old": release, "new": REPOSITORY / "pipeline"})
    runs.write_settings(tmp_path, broker.bootstrap_servers, yard.topic, write_pair(tmp_path / "pair"))
    written = (tmp_path / "adawise.toml").rename(tmp_path / "old.toml").read_text()
    found = '[results]\nenabled = true\n[[alerts.rules]]\nname = "quiet"\nsilent_after = "1h"\n'
    (tmp_path / "new.toml").write_text(f"{written}\n{found}")
    with ExitStack() as first:
        first.enter_context(yard.worker("old"))
        with yard.worker("old"):
            yard.serve(0)
        with yard.worker("new"):
            yard.serve(1)
            first.close()
            yard.serve(2)
            with yard.worker("new"):
                yard.serve(3)
        with yard.worker("old"):  # and back, from what the newer ones wrote
            yard.serve(4)
    with yard.worker("new"):
        yard.serve(5)
    root = tmp_path / "live"
    assert main(["verify", str(root)]) == 0
    rows = read_predictions(root).table()
    assert rows.num_rows == yard.sent
    assert len(pc.unique(rows["row_id"])) == yard.sent
    traces = read_traces(root).table()
    assert traces.num_rows == yard.sent // BATCH
    assert not {"start", "settings_changed"} & set(traces["reset"].to_pylist())  # no stream began anew
