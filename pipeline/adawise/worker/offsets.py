"""The ledger of a partition's offsets: which are durable, read, decoded, awaited or lost. Pure.

Offsets below `next_offset` whose images are in no row yet are *pending*: a segment lists them, and the worker that
recovers the partition reads them again. Messages come back decoded in any order, except that those of each stream come
in the order of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from adawise.errors import LogEndsEarly, Lost, SourceError
from adawise.ports import Head, Source
from adawise.records import Gap, Message, TopicPartition


class OffsetLedger:
    """The offsets of one partition, from the head that it was recovered at.

    At any time `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)`, over the delivered offsets that are
    not gaps.
    """

    def __init__(self, tp: TopicPartition, head: Head) -> None:
        self._tp, self.head = tp, head
        self.next_offset = self._began_at = head.next_offset
        self._awaited = set(head.pending)  # to be read again
        self._undecoded: dict[int, frozenset[str]] = {}  # offset under decode -> the streams that it may have images of
        self._undecoded_of: Counter[str] = Counter()  # how many of them each stream has
        self._in_hand: dict[int, int] = {}  # offset that was read and has no durable row -> the broker's timestamp
        self._log_start = 0  # offsets before it are lost, or were not looked for
        self._log_end = 0  # the log's end when this worker got the partition
        self._gaps: list[Gap] = []
        # The broker's timestamp of the newest message that was read.
        self._read_ms = max((at for at in head.newest.values() if at >= 0), default=None)

    def wants(self, message: Message) -> bool:
        """Return False for a message whose rows are already in the chain.

        Recovery reads on from the oldest pending offset, so it meets such messages.
        """
        if message.missing is not None and any(message.missing.first <= o <= message.offset for o in self._awaited):
            return True
        return message.offset >= self.next_offset or message.offset in self._awaited

    def awaits(self, message: Message) -> bool:
        """Return True for a message that was pending at the head, and is to be read again."""
        return message.offset in self._awaited

    def read(self, message: Message, streams: frozenset[str]) -> bool:
        """Note that a message that may have images of these streams is under decode; return True if it is new.

        A message that is read again, because it was pending at the head, is not new.
        """
        is_new = message.offset >= self.next_offset
        if message.timestamp_ms >= 0:
            self._read_ms = message.timestamp_ms
        self._awaited.discard(message.offset)
        self._in_hand[message.offset] = message.timestamp_ms
        self.next_offset = max(self.next_offset, message.next_offset)
        self._undecoded[message.offset] = streams
        self._undecoded_of.update(streams)
        return is_new

    def pass_by(self, message: Message) -> bool:
        """Note that another worker serves a message, which has no row here; return True if it is new."""
        is_new = message.offset >= self.next_offset
        self._awaited.discard(message.offset)
        self.next_offset = max(self.next_offset, message.next_offset)
        return is_new

    def was_there(self, message: Message) -> bool:
        """Return True for a message that the log had when this worker got the partition."""
        return message.offset < self._log_end

    def decoded(self, message: Message) -> frozenset[str]:
        """Note that a message is decoded, and return the streams of which it may have images."""
        streams = self._undecoded.pop(message.offset)
        for stream in streams:
            self._undecoded_of[stream] -= 1
            if not self._undecoded_of[stream]:
                del self._undecoded_of[stream]
        return streams

    def put_back(self, offset: int, stream: str) -> None:
        """Note that a message, which is an image of the stream, is to be decoded again."""
        self._undecoded[offset] = frozenset([stream])
        self._undecoded_of[stream] += 1

    def leave_out(self, first: int, until: int, reason: Lost) -> list[Gap]:
        """Make gaps of the offsets in [first, until) that are awaited or were never read, and return the gaps.

        The other offsets are in rows.
        """
        lost = sorted(offset for offset in self._awaited if first <= offset < until)
        self._awaited -= set(lost)
        gaps = [Gap(offset, offset + 1, reason) for offset in lost]
        if self.next_offset < until:
            gaps.append(Gap(max(first, self.next_offset), until, reason))
            self.next_offset = until
        self._gaps += gaps
        return gaps

    def find_in(self, log: tuple[int, int], *, skip_gaps: bool) -> int:
        """Return the offset to read on from in a broker's log of [start, end).

        Args:
            log: the first offset that can still be read, and the one after the last.
            skip_gaps: make gaps of the next offsets if the log no longer has them.

        Raises:
            LogEndsEarly: the log ends before the chain does.
            SourceError: the log no longer has the next offsets, and gaps are not to be skipped.
        """
        start, end = log
        self._log_end, head = end, self.head
        if head.next_offset > end:
            raise LogEndsEarly(
                f"{self._tp}: the chain goes on at offset {head.next_offset}, but the broker's log ends at {end}: "
                "the broker lost data, or this is another cluster. Restore the broker, or use another sink.root "
                "(with --sink.begin-anew for one start)."
            )
        if head.low_water < start:
            if not skip_gaps:
                raise SourceError(
                    f"{self._tp}: offsets from {head.low_water} to {start - 1} are needed next, but the broker has "
                    "deleted them (retention). To go on without them and record the gap, set kafka.on_gap=skip."
                )
            self._log_start = start
            self.leave_out(0, start, Lost.DELETED)
        return self.low_water

    def committed(self, head: Head) -> None:
        """Note that all offsets before `head` are durable, except those that are pending there."""
        self.head, pending = head, set(head.pending)
        self._in_hand = {o: at for o, at in self._in_hand.items() if o >= head.next_offset or o in pending}

    def lag(self, source: Source) -> int | None:
        """Return how many messages, at the broker and in memory, have no durable row.

        Messages that are to be read again are not counted twice. None if the number at the broker is not known.
        """
        at_broker = source.lag(self._tp, self.next_offset)
        return None if at_broker is None else at_broker + len(self._in_hand) + len(self._awaited)

    @property
    def oldest_ms(self) -> int | None:
        """The broker's timestamp of the first message that was read and has no durable row.

        If all have one, it is the timestamp of the newest that was read: the next is no older. None if nothing was
        read.
        """
        return next((at for at in self._in_hand.values() if at >= 0), self._read_ms)

    @property
    def low_water(self) -> int:
        """The first offset that is neither durable nor lost, which is what is committed to the broker."""
        return max(self.head.low_water, self._log_start)

    @property
    def durable(self) -> int:
        """The number of offsets that have durable rows, or never will have any."""
        return self.head.next_offset - len(self.head.pending)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The offsets that will have no rows, and are in no draft yet."""
        return tuple(self._gaps)

    def take_gaps(self) -> list[Gap]:
        """Return the gaps for a draft, and forget them; new gaps go into the next draft."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def pending(self, gathered: Iterable[int]) -> tuple[int, ...]:
        """Return, ascending, the offsets that are read and not in rows, or are to be read again.

        The former are those that are `gathered` in batches, or under decode.
        """
        return tuple(sorted({*gathered, *self._awaited, *self._undecoded}))

    @property
    def awaited(self) -> Iterable[int]:
        """The offsets that were pending at the head and are not read again yet, and those that are under decode."""
        return (*self._awaited, *self._undecoded)

    @property
    def undecoded(self) -> Mapping[str, int]:
        """The number of messages under decode that may have images of a stream, by stream."""
        return self._undecoded_of

    @property
    def under_decode(self) -> int:
        """The number of messages under decode."""
        return len(self._undecoded)

    @property
    def is_reading_again(self) -> bool:
        """True while only offsets that were pending at the head were read, and not all of them.

        The streams of the others are not known then.
        """
        return bool(self._awaited) and self.next_offset == self._began_at
