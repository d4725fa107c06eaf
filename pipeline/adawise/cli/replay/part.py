"""The part that a replay reads: a recording or a topic, and the range of offsets of each partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime

from adawise.app.kafka import kafka_source
from adawise.ports import Source, SourceLog, TopicIdentity
from adawise.recording.files import Forgotten
from adawise.recording.source import Order, RecordingSource
from adawise.records import TopicPartition
from adawise.replay.bounded import Range
from adawise.settings import Settings
from adawise.settings.moments import milliseconds

_POLL_RECORDS = 512  # messages a poll


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a recording, or of a topic as it is now. `bounds` are where each partition starts and ends."""

    name: str
    source: Source
    topic: str
    identity: TopicIdentity
    bounds: Mapping[TopicPartition, tuple[int, int]]
    part: Mapping[TopicPartition, Range]  # the offsets between the moments that were asked for
    ends_streams: bool  # True if every partition's part reaches to its end


@contextmanager
def opened_recording(
    root: str, since: datetime | None, until: datetime | None, *, order: Order, seed: int, forgotten: Forgotten
) -> Iterator[Whole]:
    """Open a recording.

    Raises:
        SourceError: there is none, or it is damaged.
    """
    opened = RecordingSource(root, order=order, seed=seed, max_poll_records=_POLL_RECORDS, forgotten=forgotten)
    with closing(opened) as source:
        yield _whole(root, source, source.topic, since, until)


@contextmanager
def opened_topic(settings: Settings, since: datetime | None, until: datetime | None) -> Iterator[Whole]:
    """Open the topic of the settings, without a group and without a trace on the broker.

    Raises:
        BrokerUnavailable: the broker does not answer.
        SourceError: there is no such topic.
        SettingsError: the settings cannot be used.
    """
    kafka = settings.kafka
    with closing(kafka_source(kafka, group=False)) as source:
        yield _whole(f"topic {kafka.topic}", source, kafka.topic, since, until)


def _whole(name: str, source: Source, topic: str, since: datetime | None, until: datetime | None) -> Whole:
    log = source.log
    identity = log.identity(topic)
    bounds = {tp: log.bounds(tp) for number in range(identity.partitions) if (tp := TopicPartition(topic, number))}
    part: dict[TopicPartition, Range] = {}
    for tp, (start, end) in bounds.items():
        begin = start if since is None else _offset_at(log, tp, since, end)
        part[tp] = begin, max(begin, end if until is None else _offset_at(log, tp, until, end))
    ends_streams = all(part[tp][1] == end for tp, (_, end) in bounds.items())
    return Whole(name, source, topic, identity, bounds, part, ends_streams)


def _offset_at(log: SourceLog, tp: TopicPartition, moment: datetime, end: int) -> int:
    found = log.offset_at(tp, milliseconds(moment))
    return end if found is None else found
