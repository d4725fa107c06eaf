"""Images of several cameras in a topic, what the broker acknowledged of them, and what must have become of them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from kafka import KafkaProducer

from pipeline.adapt.state import StreamState
from pipeline.records import RowId
from pipeline.settings import Settings
from pipeline.sink.read import read_predictions, segment_keys
from pipeline.sink.store import LocalStore
from pipeline.sink.verify import verify
from pipeline.wire import ARROW_STREAM, encode_batch
from tests.brokers import Broker
from tests.hostile import picture
from tests.models import PairFolder
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, wait_until

IMAGES = 8  # of a batch
FLUSH_ROWS = 24
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Shot:
    """A message before it has an offset; `rows` it must leave in the output, and the reason of its rejected ones.

    `dead`: nothing of it can be read, so that it must be among the dead letters.
    """

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Headers = ()
    rows: int = 1
    reason: str | None = None
    dead: bool = False


def single(rng: random.Random, camera: int, partitions: int, at_ms: int | None = None) -> Shot:
    """One JPEG of a camera, in the partition that is its own."""
    return Shot(camera % partitions, b"camera-%d" % camera, picture(rng), at_ms)


def recorded(seed: int, *, cameras: int, each: int, partitions: int) -> Iterator[Shot]:
    """Every kind of message, at times that are written in them: `each` singles of each camera 50 ms apart, with pauses;
    now and then an Arrow batch with a bad row, and one that nobody can read.
    """
    rng = random.Random(seed)
    now_ms = int(time.time() * 1000) - 3_600_000  # not so long ago that the broker's retention would take it
    for n in range(each):
        now_ms += 10_000 if n % 13 == 12 else 50
        for camera in range(cameras):
            yield single(rng, camera, partitions, now_ms)
        if n % 11 == 5:
            camera = n % cameras
            value = encode_batch([picture(rng), b"no image", *(picture(rng) for _ in range(4))])
            headers = (("content-type", ARROW_STREAM.encode()),)
            yield Shot(camera % partitions, b"camera-%d" % camera, value, now_ms, headers, 6, "unsupported_format")
        if n % 9 == 4:
            yield Shot(n % partitions, b"camera-0", b"\xff\xd8\xff broken", now_ms, (), 1, "undecodable_image")


@dataclass
class Topic:
    """A topic and everything in it that was acknowledged."""

    broker: Broker
    name: str
    sent: dict[tuple[int, int], Shot] = field(default_factory=dict)  # (partition, offset)

    def produce(self, shots: Iterable[Shot], *, every_s: float = 0.0) -> None:
        """Send, `every_s` seconds apart, and wait for the acknowledgements; returns when all are there."""
        with _producer(self.broker) as producer:
            for shot in shots:
                sent = producer.send(
                    self.name,
                    shot.value,
                    key=shot.key,
                    headers=list(shot.headers),
                    partition=shot.partition,
                    timestamp_ms=shot.timestamp_ms,
                )
                sent.add_callback(partial(self._acknowledged, shot))
                time.sleep(every_s)
            producer.flush(timeout=DEADLINE_S)

    def _acknowledged(self, shot: Shot, metadata: Any) -> None:
        self.sent[metadata.partition, metadata.offset] = shot

    @property
    def rows(self) -> int:
        """That the output must have."""
        return sum(shot.rows for shot in self.sent.values())

    @property
    def row_ids(self) -> list[str]:
        """The same, each by its id, in the order of partition, offset and index."""
        return [
            str(RowId(self.name, partition, offset, index))
            for (partition, offset), shot in sorted(self.sent.items())
            for index in range(shot.rows)
        ]


@contextmanager
def _producer(broker: Broker) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        linger_ms=5,
        max_request_size=2**21,
        enable_idempotence=False,
        retries=0,
    )
    try:
        yield producer
    finally:
        producer.close()


class Live:
    """Cameras that send all the time, from a thread: whole batches of each, so that no clock has to close one."""

    def __init__(self, topic: Topic, *, cameras: int, partitions: int, every_s: float) -> None:
        self._topic, self._cameras, self._partitions, self._every_s = topic, cameras, partitions, every_s
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._produce)

    def _produce(self) -> None:
        self._topic.produce(self._shots(), every_s=self._every_s)

    def _shots(self) -> Iterator[Shot]:
        rng = random.Random(self._cameras)
        while not self._enough.is_set():
            for _ in range(IMAGES):
                for camera in range(self._cameras):
                    yield single(rng, camera, self._partitions)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def settings_for(topic: Topic, pair: PairFolder, root: Path, group: str, **changes: dict[str, Any]) -> Settings:
    """A worker on the topic with the tiny pair: quick to find out that another is dead, quick to flush."""
    groups: dict[str, dict[str, Any]] = {
        "kafka": {
            "bootstrap_servers": topic.broker.bootstrap_servers,
            "topic": topic.name,
            "group": group,
            "session_timeout_ms": 2_000,
            "max_poll_interval_ms": 60_000,
            "max_poll_records": 40,
        },
        "model": {
            "architecture": pair.theta_0,
            "theta_0": pair.theta_0,
            "theta_1": pair.theta_1,
            "classes": pair.classes,
            "templates": pair.templates,
            "precision": "fp32",
            "device": "cpu",
            "chunk_rows": 8,
            "bank_mib": 64,
            "threads": 1,
        },
        "search": {"budget": 5, "explore_images": 4, "explore_every": 3, "min_images": 4},
        "batch": {"images": IMAGES, "max_age_s": 0.5},
        "decode": {"threads": 1},
        "sink": {"root": str(root), "flush_rows": FLUSH_ROWS, "flush_age_s": 1.0},
    }
    for group_name, values in changes.items():
        groups[group_name] = groups.get(group_name, {}) | values
    return Settings.model_validate(groups)


@dataclass(frozen=True)
class Output:
    """What workers wrote under one root."""

    root: Path
    _counted: dict[str, int] = field(default_factory=dict)

    @property
    def store(self) -> LocalStore:
        """To read it."""
        return LocalStore(self.root)

    @property
    def rows(self) -> int:
        """In segments so far."""
        for _, key in segment_keys(self.store):
            if key not in self._counted:  # a segment never changes
                self._counted[key] = pq.read_metadata(self.root / key).num_rows
        return sum(self._counted.values())

    @property
    def predictions(self) -> pa.Table:
        """In the order of row ids."""
        keys = [(name, "ascending") for name in ("partition", "offset", "index")]
        return read_predictions(self.store).combine_chunks().sort_by(keys)

    @property
    def traces(self) -> list[dict[str, Any]]:
        """The traces dataset without what differs from run to run: durations, and where segments were cut."""
        found = [
            row for path in sorted(self.root.glob("traces/**/*.parquet")) for row in pq.read_table(path).to_pylist()
        ]
        for row in found:
            del row["milliseconds"], row["segment"]
        return sorted(found, key=lambda row: (row["partition"], row["stream_id"], row["batch_number"]))

    def faults(self, topic: Topic, undisturbed: Output | None = None) -> list[str]:
        """All that is not as it must be: each acknowledged image exactly once, chains and traces whole, and every
        alpha, trial, label and probability as in the output of an undisturbed run.
        """
        found = [str(fault) for fault in verify(self.store, read_state=StreamState.from_bytes)]
        predictions, expected = self.predictions, topic.row_ids
        ids = predictions["row_id"].to_pylist()
        if ids != expected:
            missing, foreign = sorted(set(expected) - set(ids)), sorted(set(ids) - set(expected))
            doubled = len(ids) - len(set(ids))
            found.append(f"missing {missing}, foreign {foreign}, doubled {doubled}")
        images = sum(row["images"] for row in self.traces)
        if images != predictions["status"].to_pylist().count("accepted"):
            found.append(f"the traces have {images} images")
        if undisturbed is not None:
            if not predictions.equals(undisturbed.predictions):
                found.append(f"predictions differ from the undisturbed run's: {_first_difference(self, undisturbed)}")
            if repr(self.traces) != repr(undisturbed.traces):  # nan equals nan
                found.append("traces differ from the undisturbed run's")
        return found


def _first_difference(one: Output, other: Output) -> str:
    for mine, theirs in zip(one.predictions.to_pylist(), other.predictions.to_pylist(), strict=False):
        if mine != theirs:
            return f"{mine} instead of {theirs}"
    return "in length"


def run_to_the_end(topic: Topic, pair: PairFolder, root: Path, group: str, **changes: dict[str, Any]) -> Output:
    """One worker from wherever the output ends until everything is in it."""
    output = Output(root)
    with WorkerProcess(Plan(settings_for(topic, pair, root, group, **changes), root.with_suffix(".log"))) as worker:
        wait_until(lambda: output.rows >= topic.rows, worker)
        worker.stop()
    return output
