"""The part that a replay reads: the range of offsets of each partition of a recording or a topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from adawise.ports import Source, SourceLog, TopicIdentity
from adawise.records import TopicPartition
from adawise.replay.bounded import Range
from adawise.settings.moments import milliseconds


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a recording, or of a topic as it is now. `bounds` are where each partition starts and ends."""

    name: str
    source: Source
    topic: str
    identity: TopicIdentity
    bounds: Mapping[TopicPartition, Range]
    part: Mapping[TopicPartition, Range]  # the offsets between the moments that were asked for
    ends_streams: bool  # True if every partition's part reaches to its end


def whole_of(name: str, source: Source, topic: str, since: datetime | None, until: datetime | None) -> Whole:
    """Return what a source has of its topic, and the part between two moments.

    Raises:
        SourceError: there is no such topic, or the recording is damaged.
        BrokerUnavailable: the broker does not answer.
    """
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
