"""One pass over all that a topic holds at this moment, for commands that look something up."""

from __future__ import annotations

from collections.abc import Iterator

from adawise.ports import Source
from adawise.records import Message, TopicPartition

_POLL_S = 0.5


def read_whole(source: Source) -> Iterator[Message]:
    """Yield every message that was there when reading began, in offset order within a partition.

    Messages that arrive later are left out, and so is what cannot be read.

    Args:
        source: reads all partitions (no group); the caller closes it.

    Raises:
        BrokerUnavailable, SourceError: as the source raises them.
    """
    ends: dict[TopicPartition, int] = {}
    reached: dict[TopicPartition, int] = {}
    while True:
        poll = source.poll(_POLL_S)
        for tp in poll.assigned:
            start, ends[tp] = source.log.bounds(tp)
            source.seek(tp, max(start, reached.get(tp, start)))  # retention may overtake the reader
            reached.setdefault(tp, start)
        source.resume(poll.assigned)
        for message in poll.messages:
            tp = message.topic_partition
            reached[tp] = message.next_offset
            if message.offset < ends[tp] and message.missing is None:
                yield message
        # The last offsets of a partition may be transaction markers, which are never delivered.
        over = {tp for tp in ends if not poll.messages and (source.drained(tp) or source.stands(tp))}
        if ends and all(reached[tp] >= end or tp in over for tp, end in ends.items()):
            return
