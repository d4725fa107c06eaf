"""Which offsets of a partition are durable, read, decoded, awaited or lost: the ledger behind a segment. Pure.

Offsets below `next_offset` whose images are in no row yet are *pending*: a segment lists them, and whoever recovers the
partition reads them again. Messages come back decoded in any order, but for that of each stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from adawise.errors import LogEndsEarly, Lost, SourceError
from adawise.ports import Head, Source
from adawise.records import Gap, Message, TopicPartition


class OffsetLedger:
    """The offsets of one partition, from the head that it was recovered at.

    At any time `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)` over the delivered offsets that are
    no gaps.
    """

    def __init__(self, tp: TopicPartition, head: Head) -> None:
        self._tp, self.head = tp, head
        self.next_offset = self._began_at = head.next_offset
        self._awaited = set(head.pending)  # to be read again
        self._undecoded: dict[int, frozenset[str]] = {}  # what was read, and of which streams it may be
        self._undecoded_of: Counter[str] = Counter()  # the same, by stream
        self._in_hand: dict[int, int] = {}  # what was read and has no durable row, to the broker's timestamp; ascending
        self._log_start = 0  # what lies before it is lost, or was not looked for
        self._log_end = 0  # when this worker got the partition
        self._gaps: list[Gap] = []
        # The broker's timestamp of the newest message that was read.
        self._read_ms = max((at for at in head.newest.values() if at >= 0), default=None)

    def wants(self, message: Message) -> bool:
        """False for a message whose rows are already in the chain: recovery reads on from the oldest pending offset."""
        if message.missing is not None and any(message.missing.first <= o <= message.offset for o in self._awaited):
            return True
        return message.offset >= self.next_offset or message.offset in self._awaited

    def read(self, message: Message, streams: frozenset[str]) -> bool:
        """Note that a message is under decode, which may have images of these streams; True if it was never read."""
        is_new = message.offset >= self.next_offset
        if message.timestamp_ms >= 0:
            self._read_ms = message.timestamp_ms
        self._awaited.discard(message.offset)
        self._in_hand[message.offset] = message.timestamp_ms
        self.next_offset = max(self.next_offset, message.next_offset)
        self._undecoded[message.offset] = streams
        self._undecoded_of.update(streams)
        return is_new

    def was_there(self, message: Message) -> bool:
        """Return True for a message that the log had when this worker got the partition."""
        return message.offset < self._log_end

    def decoded(self, message: Message) -> frozenset[str]:
        """Note that a message is decoded; the streams of which it may have images."""
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
        """Make gaps of what is awaited and what was never read in [first, until), and return them.

        The rest is in rows.
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

        With `skip_gaps`, the log need not have all that comes next.

        Raises SourceError if the log does not reach to where the chain ends, or no longer has what comes next.
        """
        start, end = log
        self._log_end, head = end, self.head
        if head.next_offset > end:
            raise LogEndsEarly(
                f"{self._tp}: the chain goes on at offset {head.next_offset}, but the broker's log ends at {end}: "
                "the broker lost data, or this is another cluster. Restore the broker, or take "
                "another sink.root (with --sink.begin-anew for one start)."
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
        """Note that all before `head` is durable, except what is pending there."""
        self.head, pending = head, set(head.pending)
        self._in_hand = {o: at for o, at in self._in_hand.items() if o >= head.next_offset or o in pending}

    def lag(self, source: Source) -> int | None:
        """Return how many messages, at the broker and in hand, have no durable row; None if the broker's are not known.

        Those that are to be read again are not counted twice.
        """
        at_broker = source.lag(self._tp, self.next_offset)
        return None if at_broker is None else at_broker + len(self._in_hand) + len(self._awaited)

    @property
    def oldest_ms(self) -> int | None:
        """The broker's timestamp of the first message that was read and has no durable row.

        Where all have one, that of the newest that was read: the next is no older. None if nothing was read.
        """
        return next((at for at in self._in_hand.values() if at >= 0), self._read_ms)

    @property
    def low_water(self) -> int:
        """The first offset that is not durable yet and not lost either: what is committed to the broker."""
        return max(self.head.low_water, self._log_start)

    @property
    def durable(self) -> int:
        """How many offsets have durable rows, or never will have any."""
        return self.head.next_offset - len(self.head.pending)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The offsets that will have no rows, and are in no draft yet."""
        return tuple(self._gaps)

    def take_gaps(self) -> list[Gap]:
        """The gaps, for a draft; new ones are for the next."""
        gaps, self._gaps = self._gaps, []
        return gaps

    def pending(self, gathered: Iterable[int]) -> tuple[int, ...]:
        """Return, ascending, what is read and not in rows (`gathered`, or under decode), or is to be read again."""
        return tuple(sorted({*gathered, *self._awaited, *self._undecoded}))

    @property
    def awaited(self) -> Iterable[int]:
        """Offsets that were pending at the head and are not read again, and those that are under decode."""
        return (*self._awaited, *self._undecoded)

    @property
    def undecoded(self) -> Mapping[str, int]:
        """How many messages that may be of a stream are under decode, by stream."""
        return self._undecoded_of

    @property
    def under_decode(self) -> int:
        """How many messages are."""
        return len(self._undecoded)

    @property
    def is_reading_again(self) -> bool:
        """True while nothing but what was pending at the head was read, and not all: nobody knows whose the rest is."""
        return bool(self._awaited) and self.next_offset == self._began_at
