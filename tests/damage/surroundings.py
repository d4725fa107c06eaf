"""What the commands need beside a root, without a broker: topics, labels, a pair, and an end of what waits."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adawise
from adawise.app import kafka, model, pairs, recording, worker
from adawise.kafka import inquiry
from adawise.ports import Poll, TopicIdentity
from adawise.recording.buffer import FilePolicy
from adawise.recording.recorder import Recorder
from adawise.recording.run import Bounds, record
from adawise.records import Message, TopicPartition
from adawise.worker.attempts import Backoff
from tests.fakes import FakeSource
from tests.pairs.test_orders import document
from tests.watch.status.yard import IDENTITY, OWNER

LABELS = "frames.labels"
_POLLS = 6  # of a worker that has nothing more to read
_FILES = FilePolicy(max_messages=1 << 30, max_bytes=1 << 30, max_age_s=1e9)


class Stops:
    """A signal, once: the second would end the process."""

    def __init__(self) -> None:
        self.is_sent = False

    def __call__(self) -> None:
        """Ask this process to stop, unless it was asked before, or no handler waits for it."""
        if not self.is_sent and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            self.is_sent = True
            signal.raise_signal(signal.SIGTERM)


class GroupSource(FakeSource):
    """A topic as a member of a group reads it, which asks for the end after some polls."""

    is_member, partitions = False, IDENTITY.partitions

    def __init__(self, log: Mapping[str, Any], stop: Callable[[], None]) -> None:
        super().__init__(**log)
        self._stop = stop
        self.committed: Any = dict  # the group's, and not the fake's own

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Nothing."""

    def poll(self, timeout_s: float) -> Poll:
        """As the fake."""
        if self.polls >= _POLLS:
            self._stop()
        return super().poll(timeout_s)


class Topics:
    """What a start asks of the broker before it loads a model."""

    def identity(self, _: str) -> TopicIdentity:
        """The topic's."""
        return IDENTITY

    def committed(self, *_: str) -> dict[TopicPartition, tuple[int, str]]:
        """Nothing: the group is new."""
        return {}

    def close(self) -> None:
        """Nothing."""


def of_root(root: Path) -> Mapping[str, Any]:
    """The topic whose messages the rows of a root are of, and a message more of each partition."""
    rows = adawise.read_predictions(root, columns=["topic", "partition", "offset", "kafka_timestamp", "stream_id"])
    found = {}
    for row in rows.table().sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist():
        at = round(row["kafka_timestamp"].timestamp() * 1e3)
        place = TopicPartition(row["topic"], row["partition"])
        found[*place, row["offset"]] = Message(*place, row["offset"], b"north", b"no image", timestamp_ms=at)
        found[*place, row["offset"] + 1] = Message(*place, row["offset"] + 1, b"north", b"none", timestamp_ms=at)
    messages = [found[key] for key in sorted(found)]
    return {"messages": messages, "topic": OWNER.topic, "partitions": IDENTITY.partitions, "identity": IDENTITY}


def labels_of(root: Path) -> list[Message]:
    """A label of each of some rows."""
    rows = adawise.read_predictions(root, columns=["row_id", "label"]).table().slice(0, 8).to_pylist()
    return [Message(LABELS, 0, n, None, json.dumps(row).encode(), timestamp_ms=n) for n, row in enumerate(rows)]


def write_recording(root: Path, folder: Path) -> None:
    """The recording of the topic of a root."""
    log = of_root(root)
    made = Recorder(str(folder), topic=OWNER.topic, identity=IDENTITY, policy=_FILES, max_buffered_bytes=1 << 30)
    record(FakeSource(**log), made, Bounds(until_drained=True))


@contextmanager
def surroundings(root: Path) -> Iterator[Stops]:
    """Commands within the block find the topic of this root and its labels; a pair is loaded once."""
    stops, log, labels = Stops(), of_root(root), labels_of(root)
    real = model.open_pair

    made: dict[tuple[Any, ...], Any] = {}

    def opened(settings: Any, decode: Any, classes: Any, templates: Any, **options: Any) -> Any:
        key = (settings.theta_0, settings.theta_1, str(settings.card), classes, templates)
        if key not in made:
            made[key] = real(settings, decode, classes, templates, **options)
        return made[key]

    failed = Backoff.failed

    def failed_and_stopped(backoff: Backoff, now_s: float) -> float:
        stops()
        return failed(backoff, now_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "open_pair", opened)
        patch.setattr(pairs, "open_pair", opened)
        patch.setattr(pairs, "checked_document", lambda _: document("staged"))
        patch.setattr(worker, "kafka_source", lambda *_, **__: GroupSource(log, stops))
        patch.setattr(recording, "kafka_source", lambda *_, **__: FakeSource(labels, topic=LABELS))
        patch.setattr(kafka, "kafka_topics", lambda *_, **__: Topics())
        patch.setattr(inquiry, "expect_reachable", lambda *_, **__: None)
        patch.setattr(Backoff, "failed", failed_and_stopped)
        yield stops
