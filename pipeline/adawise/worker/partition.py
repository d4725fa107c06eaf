"""What the worker holds of one partition between two segments: results, states, and what was read but is not done."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from adawise.adapt.state import StreamState
from adawise.adapt.state_key import is_of_another_pair
from adawise.errors import LogEndsEarly, Lost, SourceError
from adawise.ports import Head, SegmentDraft
from adawise.records import (
    BatchTrace,
    DecodedMessage,
    Frame,
    Gap,
    ImageBatch,
    Message,
    Missing,
    Predictions,
    RowId,
    TopicPartition,
)
from adawise.worker.adaptation import Adapted
from adawise.worker.backoff import Backoff
from adawise.worker.batching import BatchPolicy, Gatherer, without_pixels
from adawise.worker.expiry import Expiry, PartitionClock
from adawise.worker.stream_table import CROWDED, StreamTable

_States = dict[str, bytes]  # stream -> its state, serialised

_QUIET_POLLS, _POLL_APART_S = 2, 0.05


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """When a segment is written: `max_rows` rows, or `max_age_s` seconds after the first of them was done."""

    max_rows: int
    max_age_s: float

    def due(self, rows: int, age_s: float) -> bool:
        """True if a segment of `rows` rows, the first `age_s` seconds old, should be written."""
        return rows > 0 and (rows >= self.max_rows or age_s >= self.max_age_s)


class PartitionWork:
    """Work in hand of one partition that this worker owns.

    At any time `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)` over the delivered offsets: `draft` is
    that, as a segment. While a draft is sealed, the same holds of what comes after it. A partition is dropped by
    dropping this object.

    What was read comes back decoded in any order, but for that of each stream; until then it is pending.
    """

    def __init__(
        self,
        tp: TopicPartition,
        head: Head,
        policy: BatchPolicy,
        initial: Callable[[], StreamState],
        *,
        forget_after_s: float,
        max_streams: int,
        keeps_states: bool = False,
    ) -> None:
        self.tp, self._keeps_states = tp, keeps_states
        self.apart_until = 0  # messages below are decoded in a process of their own
        self._gatherer = Gatherer(policy)
        self._initial = initial
        self._states: dict[str, StreamState] = {}
        self._changed: set[str] = set()  # streams whose states are not in the head or the sealed draft
        self._clock = PartitionClock(head.states, forget_after_s)
        self._table = StreamTable(max_streams, head.stream_table, head.states)
        self.ready: deque[ImageBatch] = deque()
        self._resets: dict[str, str] = {}  # why the state of the stream in flight is a new one
        self.letters: deque[tuple[Message, Frame]] = deque()  # dead ones, not sent yet
        self.backoff = Backoff()  # of writing: letters and segments
        self.next_offset = self._began_at = head.next_offset
        self.image_bytes = 0
        self._quiet_polls, self._quiet_since_s = 0, 0.0
        self.head = head
        self._awaited = set(head.pending)  # offsets to be read again
        self._undecoded: dict[int, frozenset[str]] = {}  # offsets that were read, and of which streams they may be
        self._undecoded_of: Counter[str] = Counter()  # the same, by stream
        self._log_start = 0  # what lies before it is lost, or was not looked for
        self._accepted: list[tuple[ImageBatch, Predictions, BatchTrace]] = []
        self._rejected: list[Frame] = []
        self._gaps: list[Gap] = []
        self.rows = 0  # not committed; what is missing counts as one, so that it is committed too
        self.since_s = 0.0  # when the first row after the sealed draft was done
        self._sealed: SegmentDraft | None = None
        self._sealed_rows = 0

    def wants(self, message: Message) -> bool:
        """False for a message whose rows are already in the chain: recovery reads on from the oldest pending offset."""
        if message.missing is not None and any(message.missing.first <= o <= message.offset for o in self._awaited):
            return True
        return message.offset >= self.next_offset or message.offset in self._awaited

    def read(self, message: Message, streams: frozenset[str]) -> None:
        """A message that is wanted is under decode, of which these streams may have images; in the order of offsets."""
        if message.offset >= self.next_offset:
            for stream_id in sorted(streams):
                self._table.hear(stream_id, message.offset)
        self._awaited.discard(message.offset)
        self.next_offset = max(self.next_offset, message.next_offset)
        self._undecoded[message.offset] = streams
        self._undecoded_of.update(streams)

    def add(self, decoded: DecodedMessage, now_s: float) -> None:
        """Take a message that was read and is decoded; batches that it completed become ready."""
        for stream in self._undecoded.pop(decoded.message.offset):
            self._undecoded_of[stream] -= 1
            if not self._undecoded_of[stream]:
                del self._undecoded_of[stream]
        rejected = [frame for frame in decoded.frames if frame.image is None]
        if decoded.dead:
            self.letters.append((decoded.message, decoded.frames[0]))
        self._count(len(rejected), now_s)
        self._rejected += rejected
        self.image_bytes += sum(frame.image.nbytes for frame in decoded.frames if frame.image is not None)
        self.ready.extend(self._gatherer.add(decoded, now_s))

    def miss(self, message: Message, missing: Missing, now_s: float) -> None:
        """What nobody can read, and is wanted, becomes a gap and, unless it was compacted away, one dead letter."""
        self._leave_out(missing.first, message.next_offset, missing.reason)
        row_id = RowId(*self.tp, missing.first, 0)
        frame = Frame(row_id, message.timestamp_ms, None, reason=missing.reason, detail=missing.detail)
        if missing.reason != Lost.COMPACTED:
            self.letters.append((message, frame))
        self._count(1, now_s)

    def is_due(self, now_s: float) -> bool:
        """True if a batch has waited long enough to be closed by the clock, once everything was read.

        What is read of its stream and not decoded keeps it open; what is read of others does not.
        """
        return self._gatherer.is_due(now_s, self._undecoded_of)

    def seen(self, now_s: float, *, drained: bool) -> None:
        """Note after a poll whether everything was read; if so again and again, close what silent streams left open.

        One empty poll proves nothing: after a long round it only asks the broker for what has come meanwhile.
        """
        if not drained:
            self._quiet_polls = 0
        elif not self._quiet_polls or now_s - self._quiet_since_s >= _POLL_APART_S:
            self._quiet_polls, self._quiet_since_s = self._quiet_polls + 1, now_s
        if self._quiet_polls >= _QUIET_POLLS:
            self.ready.extend(self._gatherer.close_due(now_s, self._undecoded_of))

    def find_in(self, log: tuple[int, int], *, skip_gaps: bool) -> int:
        """The offset to read on from in a broker's log of [start, end); with `skip_gaps` it need not have them all.

        Raises SourceError if the log does not reach to where the chain ends, or no longer has what comes next.
        """
        start, end = log
        low_water = self.head.low_water
        if self.head.next_offset > end:
            raise LogEndsEarly(
                f"{self.tp}: the chain goes on at offset {self.head.next_offset}, but the broker's log ends at {end}: "
                "the broker lost data, or this is another cluster. Restore the broker, or take "
                "another sink.root (with --sink.begin-anew for one start)."
            )
        if low_water < start:
            if not skip_gaps:
                raise SourceError(
                    f"{self.tp}: offsets from {low_water} to {start - 1} are needed next, but the broker has deleted "
                    "them (retention). To go on without them and record the gap, set kafka.on_gap=skip."
                )
            self._skip_to(start)
        return self.low_water

    @property
    def left_out(self) -> tuple[Gap, ...]:
        """What will have no rows, and is not in a draft yet."""
        return tuple(self._gaps)

    @property
    def low_water(self) -> int:
        """The first offset that is not durable yet and not lost either: what is committed to the broker."""
        return max(self.head.low_water, self._log_start)

    def _skip_to(self, log_start: int) -> None:
        """Go on at `log_start`, the first offset that the broker still has; what lies before it becomes a gap."""
        self._log_start = log_start
        self._leave_out(0, log_start, Lost.DELETED)

    def _leave_out(self, first: int, until: int, reason: Lost) -> None:
        """Of [first, until), what is awaited and what was never read becomes gaps; the rest is in rows."""
        lost = sorted(offset for offset in self._awaited if first <= offset < until)
        self._awaited -= set(lost)
        self._gaps += [Gap(offset, offset + 1, reason) for offset in lost]
        if self.next_offset < until:
            self._gaps.append(Gap(max(first, self.next_offset), until, reason))
            self.next_offset = until

    @property
    def letter_bytes(self) -> int:
        """Of letters that wait for the broker."""
        return sum(len(message.value or b"") for message, _ in self.letters)

    def close_all(self) -> None:
        """Make ready all that is open."""
        self.ready.extend(self._gatherer.close_all())

    def close_oldest(self, nbytes: int) -> int:
        """Make ready the oldest of what is open, `nbytes` of images or all; the number of batches."""
        closed = self._gatherer.close_oldest(nbytes)
        self.ready.extend(closed)
        return len(closed)

    def state(self, batch: ImageBatch) -> StreamState:
        """The adaptation state that the batch's stream goes on from.

        A new one if the stream is new, was silent for too long, may have left its place to another, or if the settings
        that it depends on have changed.
        """
        stream_id = batch.stream_id
        if self._table.begins_anew(batch):
            self._states[stream_id], self._resets[stream_id] = self._initial(), CROWDED
            return self._states[stream_id]
        expiry = self._clock.expiry(stream_id, batch.frames[0].kafka_timestamp_ms)
        if expiry is not None:
            self._states[stream_id] = self._initial()
            if expiry is Expiry.SILENT:
                self._resets[stream_id] = expiry
        elif stream_id not in self._states:
            initial = self._initial()
            data = self.head.states.get(stream_id)
            state = StreamState.from_bytes(data) if data is not None else initial
            if self._keeps_states and is_of_another_pair(state.key, initial.key):
                state = replace(state, key=initial.key)
            if state.key != initial.key:
                state, self._resets[stream_id] = initial, "settings_changed"
            self._states[stream_id] = state
        return self._states[stream_id]

    def complete(self, batch: ImageBatch, adapted: Adapted, now_s: float) -> BatchTrace:
        """Keep the results of a batch; its stream goes on from the new state. The trace as it will be written."""
        reset = self._resets.pop(batch.stream_id, None)
        trace = adapted.trace if reset is None else replace(adapted.trace, reset=reset)
        self._accepted.append((without_pixels(batch), adapted.predictions, trace))
        self._count(len(batch), now_s)
        heard = self._clock.hear(batch.stream_id, batch.frames[-1].kafka_timestamp_ms)
        self._states[batch.stream_id] = replace(adapted.state, heard=heard)
        self._changed.add(batch.stream_id)
        self._table.served(batch)
        self.image_bytes -= batch.images.nbytes
        return trace

    @property
    def evicted(self) -> int:
        """Streams that had to leave their place since this worker has the partition."""
        return self._table.evicted

    @property
    def is_sealed(self) -> bool:
        """True while a draft was made whose fate is not known."""
        return self._sealed is not None

    def draft(self) -> SegmentDraft:
        """Everything since the head, as a segment; until `committed` always the same, whatever is done meanwhile.

        A store that does not answer may have kept it: only the same again can be told from another worker's.
        To be called while no batch is ready: a message's rows go together.
        """
        if self._sealed is None:
            assert not self.ready
            self._sealed_rows = self.rows
            self._sealed = SegmentDraft(
                tp=self.tp,
                next_offset=self.next_offset,
                pending=tuple(sorted(self._pending())),
                states=self._kept_states(),
                stream_table=self._table.stored(self._waiting()),
                accepted=self._accepted,
                rejected=self._rejected,
                gaps=self._gaps,
            )
            self._accepted, self._rejected, self._gaps = [], [], []
        return self._sealed

    def _pending(self) -> set[int]:
        """Read, but not in rows; or in the head's pending, and not read again yet."""
        return {frame.row_id.offset for frame in self._gatherer.frames} | self._awaited | self._undecoded.keys()

    def _waiting(self) -> set[str] | None:
        """Streams of which images were read and are not served; None while nobody knows of which what is awaited is."""
        if self._awaited and self.next_offset == self._began_at:
            return None
        return {*self._gatherer.streams, *self._undecoded_of}

    def _kept_states(self) -> _States:
        """The head's states, the newer ones in their place, without those of streams that are forgotten or left.

        One that has left keeps its state until its last images are served.
        """
        waiting, gone = self._waiting(), set[str]()
        if waiting is not None:
            gone = self._clock.forget(waiting)
            left = {name for name in self.head.states.keys() | self._changed if name not in self._table} - waiting
            self._clock.drop(left)
            gone |= left
        for stream_id in gone:
            self._states.pop(stream_id, None)
            self._changed.discard(stream_id)
        states = {name: data for name, data in self.head.states.items() if name not in gone}
        states.update({name: self._states[name].to_bytes() for name in self._changed})
        self._changed.clear()
        return states

    def committed(self, head: Head) -> None:
        """The draft was written and ends at `head`; what was done since begins the next one."""
        self.head, self._sealed = head, None
        self.rows, self._sealed_rows = self.rows - self._sealed_rows, 0

    def _count(self, rows: int, now_s: float) -> None:
        if rows and self.rows == self._sealed_rows:
            self.since_s = now_s
        self.rows += rows
