"""The part of a recording or a topic that a replay reads: ranges of offsets of some partitions, and a source of them.

That source has the same contract as the whole one, so that the worker cannot distinguish a bounded topic from a
recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from adawise.errors import SourceError
from adawise.ports import Poll, Source, SourceLog, TopicIdentity
from adawise.records import Message, TopicPartition
from adawise.settings.moments import milliseconds

Range = tuple[int, int]  # [from, until) of offsets


class _PartLog:
    """A log of which each partition is its range, by `adawise.ports.SourceLog`."""

    def __init__(self, whole: SourceLog, ranges: Mapping[TopicPartition, Range]) -> None:
        self._ranges = ranges
        self._whole = whole
        self.identity, self.check = whole.identity, whole.check
        self.timestamps, self.offset_at = whole.timestamps, whole.offset_at

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `SourceLog.bounds`: the log's start, because pending messages may come before the range, and its end."""
        return self._whole.bounds(tp)[0], self.range_of(tp)[1]

    def origin(self, tp: TopicPartition) -> int:
        """See `SourceLog.origin`: where the range begins."""
        return self.range_of(tp)[0]

    def range_of(self, tp: TopicPartition) -> Range:
        """Return the range. Raises SourceError for a partition that has none."""
        try:
            return self._ranges[tp]
        except KeyError:
            raise SourceError(
                f"expected one of the partitions {', '.join(map(str, sorted(self._ranges)))}, got {tp}"
            ) from None


class BoundedSource:
    """The messages of [from, until) of each partition, by `adawise.ports.Source`; other partitions are not assigned.

    `seek` may go before `from`, to messages that were pending in the state that reading begins with. Messages that a
    topic gets after its bounds were set are not read.

    Args:
        source: the whole source; it is closed with this.
        ranges: the ranges of the partitions to read; their ends lie within the log.
        ends_streams: the streams end where the ranges do, so that open batches there get no more images.
        wants: returns False for a message to be left out, as if the topic had never had it.
    """

    def __init__(
        self,
        source: Source,
        ranges: Mapping[TopicPartition, Range],
        *,
        ends_streams: bool = True,
        wants: Callable[[Message], bool] = lambda _: True,
    ) -> None:
        self._source, self._ends_streams, self._wants = source, ends_streams, wants
        self._ranges = ranges
        self.log = _PartLog(source.log, ranges)
        self._positions: dict[TopicPartition, int] = {}
        self._reached: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()  # by the caller; `_reach` pauses partitions at their end

    @property
    def exhausted(self) -> bool:
        """True once every partition was delivered up to its end."""
        return self._reached >= self._ranges.keys()

    def poll(self, timeout_s: float) -> Poll:
        """See `Source.poll`."""
        poll = self._source.poll(timeout_s)
        messages = [self._within(message) for message in poll.messages if self._takes(message)]
        if not (poll.messages or poll.assigned or poll.lost):  # otherwise an error would lose what this poll has taken
            # After the last message of a range there may be markers of transactions, which are not delivered.
            for tp in self._positions.keys() - self._reached:
                if self._source.drained(tp):
                    self._reach(tp)
        assigned = [tp for tp in poll.assigned if tp in self._ranges]
        lost = [tp for tp in poll.lost if tp in self._ranges]
        for tp in (*lost, *assigned):
            self._positions.pop(tp, None)
            self._reached.discard(tp)
        self._paused = (self._paused - set(lost)) | set(assigned)
        return Poll(messages, assigned, lost)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `Source.seek`."""
        self._source.seek(tp, offset)
        self._positions[tp] = offset
        if offset >= self.log.range_of(tp)[1]:
            self._reach(tp)
        elif tp in self._reached:
            self._reached.discard(tp)
            if tp not in self._paused:
                self._source.resume([tp])

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.pause`."""
        self._paused.update(tps)
        self._source.pause(tps)

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.resume`; a partition that has reached its end stays paused."""
        self._source.resume([tp for tp in tps if tp not in self._reached])
        self._paused.difference_update(tps)

    def drained(self, tp: TopicPartition) -> bool:
        """See `Source.drained`."""
        return self._ends_streams and tp in self._reached

    def blocked(self, tp: TopicPartition) -> bool:
        """See `Source.blocked`."""
        return self._source.blocked(tp)

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """See `Source.lag`: in offsets, of which a topic with holes has more than messages."""
        position = self._positions.get(tp)
        if position is None:
            return None
        return 0 if tp in self._reached else max(0, self.log.range_of(tp)[1] - max(since, position))

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Do nothing: a replay of a part must not change what the group has committed."""

    def close(self) -> None:
        """See `Source.close`."""
        self._reached.clear()
        self._source.close()

    def _takes(self, message: Message) -> bool:
        tp = message.topic_partition
        if tp not in self._ranges or tp in self._reached:
            return False
        until = self.log.range_of(tp)[1]
        self._positions[tp] = message.next_offset
        if message.next_offset >= until:
            self._reach(tp)
        if message.missing is not None:
            return message.missing.first < until
        return message.offset < until and self._wants(message)

    def _within(self, message: Message) -> Message:
        """Return the message; of a range of missing messages, only the part before the range's end."""
        until = self.log.range_of(message.topic_partition)[1]
        return message if message.offset < until else replace(message, offset=until - 1)

    def _reach(self, tp: TopicPartition) -> None:
        self._reached.add(tp)
        self._source.pause([tp])


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
