"""A part of a source: offsets from here to there of some of its partitions, and then it has ended.

By the same contract as the whole, so that the worker cannot tell a bounded topic from a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from adawise.errors import SourceError
from adawise.ports import Poll, Source, TopicIdentity
from adawise.records import Message, TopicPartition

Range = tuple[int, int]  # [from, until) of offsets


class BoundedSource:
    """The messages of [from, until) of each partition, by `adawise.ports.Source`; other partitions are not assigned.

    `seek` may go before `from`: there lies what was pending in the state that reading begins with. What a topic gets
    after its bounds were set is not read.

    Args:
        source: all of it; it is closed with this.
        ranges: of the partitions that are wanted; their ends lie within the log.
        ends_streams: the streams end where the ranges do, so that nothing else will come of what is open there.
        wants: False for a message to be left out, as if the topic had never had it.
    """

    def __init__(
        self,
        source: Source,
        ranges: Mapping[TopicPartition, Range],
        *,
        ends_streams: bool = True,
        wants: Callable[[Message], bool] = lambda _: True,
    ) -> None:
        self._source, self._ranges, self._ends_streams, self._wants = source, ranges, ends_streams, wants
        self._positions: dict[TopicPartition, int] = {}
        self._reached: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()  # by the caller; those that have come to their end are paused by us

    @property
    def exhausted(self) -> bool:
        """True once every partition was delivered up to its end."""
        return self._reached >= self._ranges.keys()

    def poll(self, timeout_s: float) -> Poll:
        """See `Source.poll`."""
        poll = self._source.poll(timeout_s)
        messages = [self._within(message) for message in poll.messages if self._takes(message)]
        if not poll.messages:
            # After the last message of a range may come markers of transactions, which nobody is given.
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

    def identity(self, topic: str) -> TopicIdentity:
        """See `Source.identity`."""
        return self._source.identity(topic)

    def check(self) -> None:
        """See `Source.check`."""
        self._source.check()

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `Source.bounds`: the log's start, because what was pending is there, and the range's end."""
        return self._source.bounds(tp)[0], self._range(tp)[1]

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        """See `Source.timestamps`."""
        return self._source.timestamps(tp, first, until)

    def origin(self, tp: TopicPartition) -> int:
        """See `Source.origin`: where the range begins."""
        return self._range(tp)[0]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `Source.seek`."""
        self._source.seek(tp, offset)
        self._positions[tp] = offset
        if offset >= self._range(tp)[1]:
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
        """See `Source.resume`; a partition that has come to its end stays as it is."""
        self._source.resume([tp for tp in tps if tp not in self._reached])
        self._paused.difference_update(tps)

    def drained(self, tp: TopicPartition) -> bool:
        """See `Source.drained`."""
        return self._ends_streams and tp in self._reached

    def stands(self, tp: TopicPartition) -> bool:
        """See `Source.stands`."""
        return self._source.stands(tp)

    def lag(self, tp: TopicPartition) -> int | None:
        """See `Source.lag`: as offsets, which a topic with holes has more of than messages."""
        position = self._positions.get(tp)
        if position is None:
            return None
        return 0 if tp in self._reached else max(0, self._range(tp)[1] - position)

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Tells nobody: whoever reads a part has no say in what others have done."""

    def close(self) -> None:
        """See `Source.close`."""
        self._reached.clear()
        self._source.close()

    def _takes(self, message: Message) -> bool:
        tp = message.topic_partition
        if tp not in self._ranges or tp in self._reached:
            return False
        until = self._range(tp)[1]
        self._positions[tp] = message.next_offset
        if message.next_offset >= until:
            self._reach(tp)
        if message.missing is not None:
            return message.missing.first < until
        return message.offset < until and self._wants(message)

    def _within(self, message: Message) -> Message:
        """The message; of what is missing, the part before the range's end."""
        until = self._range(message.topic_partition)[1]
        return message if message.offset < until else replace(message, offset=until - 1)

    def _reach(self, tp: TopicPartition) -> None:
        self._reached.add(tp)
        self._source.pause([tp])

    def _range(self, tp: TopicPartition) -> Range:
        try:
            return self._ranges[tp]
        except KeyError:
            raise SourceError(
                f"expected one of the partitions {', '.join(map(str, sorted(self._ranges)))}, asked for was {tp}"
            ) from None
