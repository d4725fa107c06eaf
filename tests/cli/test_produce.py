"""`adawise produce` of a video, to a real broker by the real ffmpeg: the frames have the times of the film."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from adawise.__main__ import main
from tests.brokers import Broker, fresh_name

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")
EIGHT = datetime(2026, 11, 25, 8, tzinfo=UTC)


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seconds of 5 frames a second, which say when they were recorded."""
    monkeypatch.chdir(tmp_path)
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=5:duration=2"]
    tags = ["-metadata", f"creation_time={EIGHT.isoformat()}"]
    path = tmp_path / "yard.mp4"
    subprocess.run(["ffmpeg", "-v", "error", *pattern, *tags, "-c:v", "mpeg4", str(path)], check=True)
    return path


def produced(broker: Broker, video: Path, *flags: str) -> Sequence[datetime]:
    """When the frames were taken, by their headers."""
    topic = fresh_name("film")
    kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", topic]
    assert main(["produce", str(video), "--create-topic", "--partitions", "1", *kafka, *flags]) == 0
    partition = TopicPartition(topic, 0)
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")) as reader:
        reader.assign([partition])
        found: list[datetime] = []
        while len(found) < 10:
            for record in reader.poll(500).get(partition, ()):
                found.append(datetime.fromisoformat(dict(record.headers)["captured-at"].decode()))
        return found


@pytest.mark.parametrize(
    ("flags", "begins"), [([], EIGHT), (["--start", "2026-11-25T09:00:00Z"], EIGHT + timedelta(hours=1))]
)
def test_frames_have_the_times_that_the_film_or_its_producer_says(
    embedded_broker: Broker, video: Path, flags: list[str], begins: datetime
) -> None:
    taken = produced(embedded_broker, video, "--fast", *flags)
    assert [round((at - begins).total_seconds(), 3) for at in taken] == [n / 5 for n in range(10)]


def test_a_film_is_sent_at_its_own_pace(embedded_broker: Broker, video: Path) -> None:
    began = time.monotonic()
    produced(embedded_broker, video, "--speed", "2")
    assert time.monotonic() - began >= 0.9  # its last frame is of 1.8 s
