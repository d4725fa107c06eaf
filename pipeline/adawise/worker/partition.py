"""What the worker holds of one partition between two segments: results, states, and what was read but is not done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from adawise.adapt.state import StreamState
from adawise.alerts.machine import PartitionAlerts
from adawise.alerts.rules import Rule
from adawise.errors import Lost
from adawise.ports import Head, SegmentDraft, Served, ServedBy, Source, Told, When
from adawise.records import (
    Alert,
    BatchTrace,
    DecodedMessage,
    Frame,
    Gap,
    ImageBatch,
    Message,
    Missing,
    RowId,
    Shadow,
    Switch,
    TopicPartition,
    status_of,
)
from adawise.worker.adaptation import Adapted
from adawise.worker.backoff import Backoff
from adawise.worker.batching import BatchPolicy, Gatherer, without_pixels
from adawise.worker.fair_queue import message_bytes
from adawise.worker.offsets import OffsetLedger
from adawise.worker.pairs import PairTurn, Serving
from adawise.worker.ripening import Ripening
from adawise.worker.stream_states import StreamStates

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
    """Work in hand of one partition that this worker owns: its offsets, its streams, its batches, its results.

    At any time `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)` over the delivered offsets: `draft` is
    that, as a segment. While a draft is sealed, the same holds of what comes after it. A partition is dropped by
    dropping this object.

    `serving` is the pair that serves it until `planned`, if there is one: what is served from there on waits for
    `switch`. None: whoever calls has but one.

    `untold` is what is to be told beside the chain and was not sent yet, in order: rows that were served (early) or
    committed, and alerts whose segment was committed. `epoch_s` is what the clock lacks to seconds since the epoch;
    None: no camera is silent by the clock.
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
        ripen: Callable[[str, int], None] = lambda _, __: None,
        image_bytes: int = 0,
        tells: When | None = None,
        new_attempt: Callable[[], str] = str,
        rules: Sequence[Rule] = (),
        classes: Sequence[str] = (),
        epoch_s: float | None = None,
        serving: Serving | None = None,
        planned: Switch | None = None,
    ) -> None:
        self.tp, self.head = tp, head
        self.serving, self.planned = serving, planned
        self.switches = head.switches
        if serving is not None:
            self._note(Switch(head.next_offset, head.pending, serving.pair, keeps_states))
        self.apart_until = 0  # messages below are decoded in a process of their own
        self._offsets = OffsetLedger(tp, head)
        self._streams = StreamStates(
            head, initial, forget_after_s=forget_after_s, max_streams=max_streams, keeps_states=keeps_states
        )
        ends = policy.ends.get(tp, {})
        self._gatherer = Gatherer(policy, ends)
        self._ripening = Ripening(policy, ripen, image_bytes=image_bytes, ends=ends)
        self._cut: dict[str, int] = {}  # streams whose batch is complete once what waits below an offset is decoded
        self.ready: deque[ImageBatch] = deque()
        self._later: list[ImageBatch] = []  # complete, to be served by the next pair
        self._rejected_later: list[tuple[Frame, bool]] = []  # likewise; whether its stream was heard with its message
        self._shadows: dict[tuple[str, int], Shadow] = {}  # of batches in the draft to come
        self.letters: deque[tuple[Message, Frame]] = deque()  # dead ones, not sent yet
        self.backoff = Backoff()  # of writing: letters and segments
        self.image_bytes = 0
        self._quiet_polls, self._quiet_since_s = 0, 0.0
        self._accepted: list[Served] = []
        self._rejected: list[Frame] = []
        self.untold: deque[Told] = deque()
        self._tells, self._new_attempt, self._attempt = tells, new_attempt, new_attempt()
        self._alerts = PartitionAlerts(tp, rules, classes, head.alerts, published=tells is not None)
        self._epoch_s = epoch_s
        self._sealed_alerts: Sequence[Alert] = ()
        self._publish(self._alerts.written_by, self._alerts.written)  # the worker that wrote them may have died first
        # Not committed. What is missing counts as one, so that it is committed; and so do changes of alerts.
        self.rows = int(tells is not None and bool(self._alerts.news))
        self.since_s = 0.0  # when the first row after the sealed draft was done
        self._found_until = 0  # the log's end when this worker got the partition
        # the broker's timestamp of the newest message that was read
        self._read_ms = max((at for at in head.newest.values() if at >= 0), default=None)
        self._sealed: SegmentDraft | None = None
        self._sealed_rows = 0

    @property
    def began_switched(self) -> Switch | None:
        """The switch with which this began, if another pair has served the newest segment."""
        before = self.head.switches
        return self.switches[-1] if before and self.switches != before else None

    @property
    def next_offset(self) -> int:
        """The offset after the newest that was read."""
        return self._offsets.next_offset

    @property
    def low_water(self) -> int:
        """The first offset that is not durable yet and not lost either: what is committed to the broker."""
        return self._offsets.low_water(self.head)

    @property
    def left_out(self) -> tuple[Gap, ...]:
        """What will have no rows, and is not in a draft yet."""
        return self._offsets.gaps

    @property
    def evicted(self) -> int:
        """Streams that had to leave their place since this worker has the partition."""
        return self._streams.evicted

    def lag(self, source: Source) -> int | None:
        """Messages without a durable row: those at the broker, and those in hand; None if the broker's are not known.

        Those that are to be read again are not counted twice.
        """
        at_broker = source.lag(self.tp, self.next_offset)
        return None if at_broker is None else at_broker + self._offsets.in_hand

    @property
    def oldest_ms(self) -> int | None:
        """The broker's timestamp of the first message that was read and has no durable row.

        Of the newest that was read where all have one: the next is no older. None if nothing was read.
        """
        return self._read_ms if (oldest_ms := self._offsets.oldest_ms) is None else oldest_ms

    @property
    def durable(self) -> int:
        """How many offsets have durable rows, or never will have any."""
        return self.head.next_offset - len(self.head.pending)

    @property
    def pending(self) -> int:
        """Messages that were read and whose batch is not complete."""
        return self._offsets.under_decode + sum(1 for _ in self._gatherer.frames)

    @property
    def letter_bytes(self) -> int:
        """Of letters that wait for the broker."""
        return sum(len(message.value or b"") for message, _ in self.letters)

    @property
    def open_bytes(self) -> int:
        """Of the images of batches that are not complete."""
        return self._gatherer.image_bytes

    @property
    def kept_bytes(self) -> int:
        """Of messages that are kept with these images."""
        return self._gatherer.kept_bytes

    @property
    def unripe_bytes(self) -> int:
        """Of messages that complete no batch yet, and need not be decoded."""
        return self._ripening.unripe_bytes

    # -- in

    def find_in(self, log: tuple[int, int], *, skip_gaps: bool) -> int:
        """The offset to read on from in a broker's log of [start, end); with `skip_gaps` it need not have them all.

        Raises SourceError if the log does not reach to where the chain ends, or no longer has what comes next.
        """
        self._offsets.find_in(log, self.head, skip_gaps=skip_gaps)
        self._found_until = log[1]
        return self.low_water

    def wants(self, message: Message) -> bool:
        """False for a message whose rows are already in the chain: recovery reads on from the oldest pending offset."""
        return self._offsets.wants(message)

    def read(self, message: Message, streams: frozenset[str], now_s: float = 0.0, *, is_single: bool = False) -> None:
        """A message that is wanted is under decode, of which these streams may have images; in the order of offsets.

        One that `is_single` waits to be decoded until its batch is ripe, where memory is short.
        """
        if message.timestamp_ms >= 0:
            self._read_ms = message.timestamp_ms
        if self._offsets.read(message, streams):
            was_there = message.offset < self._found_until and message.timestamp_ms >= 0
            came_ms = message.timestamp_ms if was_there else None
            for stream_id in sorted(streams):
                self._streams.hear(stream_id, message.offset)
                if self._epoch_s is not None:
                    heard = self._alerts.heard(stream_id, message.offset, self._now_ms(now_s), came_ms)
                    self._count(bool(heard), now_s)  # a segment without rows keeps it
        if is_single:
            (stream_id,) = streams
            self._ripening.read(stream_id, message.offset, message.timestamp_ms, message_bytes(message), now_s)
        else:
            self._ripening.read_whole(streams, message.offset)

    def add(self, decoded: DecodedMessage, now_s: float) -> None:
        """Take a message that was read and is decoded; batches that it completed become ready."""
        message = decoded.message
        streams = self._offsets.decoded(message)
        read_s = None
        for stream in streams:
            read_s = self._ripening.decoded(stream, message.offset)
        rejected = [(frame, frame.stream_id in streams) for frame in decoded.frames if frame.image is None]
        if decoded.dead:
            self.letters.append((message, decoded.frames[0]))
        if self.planned is not None and self.planned.serves(message.offset):
            self._rejected_later += rejected
        else:
            self._reject(rejected, now_s)
        for stream in streams.intersection(frame.stream_id for frame in decoded.frames if frame.image is not None):
            self._streams.accept(stream, message.offset)
        sizes = [frame.image.nbytes for frame in decoded.frames if frame.image is not None]
        self.image_bytes += sum(sizes)
        kept_bytes = message_bytes(message)
        if read_s is None or decoded.is_batch or kept_bytes >= sum(sizes):
            kept_bytes = 0
        self._complete_all(self._gatherer.add(decoded, now_s if read_s is None else read_s, kept_bytes=kept_bytes))
        for stream in streams:
            if rejected or decoded.is_batch:
                self._ripening.count_again(stream, self._gatherer.part(stream))
            self._after(stream)

    def _after(self, stream: str) -> None:
        """Something of a stream was decoded: it may be complete, or have nothing in hand any more."""
        first = self._ripening.first(stream)
        if stream in self._cut and (first is None or first >= self._cut[stream]):
            del self._cut[stream]
            self._complete_all(self._gatherer.close(stream))
            self._ripening.count_again(stream, None)
        if self._gatherer.part(stream) is None:
            self._ripening.forget(stream)

    def _complete_all(self, batches: Sequence[ImageBatch]) -> None:
        for batch in batches:
            waits = self.planned is not None and self.planned.serves(batch.frames[0].row_id.offset)
            (self._later if waits else self.ready).append(batch)

    def _reject(self, frames: Sequence[tuple[Frame, bool]], now_s: float) -> None:
        self._count(len(frames), now_s)
        for frame, was_heard in frames:
            self._rejected.append(frame)
            # Of what was not heard nobody knows whether the batches around it were served before it was decoded.
            if was_heard and frame.stream_id is not None and status_of(frame) == "rejected":
                self._streams.reject(frame.stream_id, frame.row_id.offset)
            if self._tells == "early":
                self.untold.append(self._told(frame))

    def _told(self, what: Served | Frame) -> Told:
        return Told(self._attempt, what, self._by)

    def miss(self, message: Message, missing: Missing, now_s: float) -> Sequence[Gap]:
        """What nobody can read, and is wanted, becomes a gap and, unless it was compacted away, one dead letter.

        The gaps that are new.
        """
        before = len(self.left_out)
        self._offsets.leave_out(missing.first, message.next_offset, missing.reason)
        row_id = RowId(*self.tp, missing.first, 0)
        frame = Frame(row_id, message.timestamp_ms, None, reason=missing.reason, detail=missing.detail)
        if missing.reason != Lost.COMPACTED:
            self.letters.append((message, frame))
        self._count(1, now_s)
        return self.left_out[before:]

    def is_due(self, now_s: float) -> bool:
        """True if a batch has waited long enough to be closed by the clock, once everything was read.

        What is read of its stream and not decoded keeps it open; what is read of others does not. Likewise if a camera
        has been silent for as long as an alert asks for.
        """
        silent = self._epoch_s is not None and self._alerts.is_due(self._now_ms(now_s))
        open_ = self._gatherer.is_due(now_s, self._offsets.undecoded)
        return silent or open_ or any(True for _ in self._ripening.due(now_s))

    def seen(self, now_s: float, *, drained: bool) -> None:
        """Note after a poll whether everything was read; if so again and again, close what silent streams left open.

        One empty poll proves nothing: after a long round it only asks the broker for what has come meanwhile.
        """
        if not drained:
            self._quiet_polls = 0
        elif not self._quiet_polls or now_s - self._quiet_since_s >= _POLL_APART_S:
            self._quiet_polls, self._quiet_since_s = self._quiet_polls + 1, now_s
        if self._quiet_polls >= _QUIET_POLLS:
            for stream in list(self._ripening.due(now_s)):
                self._ripening.ripen(stream, self.next_offset)
            closed = self._gatherer.close_due(now_s, self._offsets.undecoded)
            self._complete_all(closed)
            for batch in closed:
                self._ripening.closed(batch.stream_id)
            if self._epoch_s is not None:
                silent = self._alerts.silent(self._now_ms(now_s), has_place=self._streams.has_place)
                self._count(bool(silent), now_s)

    def close_all(self) -> None:
        """Make ready all that is open."""
        self._complete_all(self._gatherer.close_all())

    def end_streams(self) -> None:
        """Nothing will ever come: what waits to be ripe is ripe, and what is open then is complete."""
        for stream, _, _ in list(self._ripening.waiting):
            self._complete(stream)

    def close_oldest(self, nbytes: int) -> int:
        """Make ready, as soon as it is decoded, the oldest of what is open or waits, `nbytes` or all; of how many."""
        sizes: dict[str, tuple[float, int]] = {}
        for stream, since_s, size in (*self._gatherer.sizes(), *self._ripening.waiting):
            before_s, before = sizes.get(stream, (since_s, 0))
            sizes[stream] = min(before_s, since_s), before + size
        count = 0
        for stream, (_, size) in sorted(sizes.items(), key=lambda item: item[1][0]):
            if nbytes <= 0:
                break
            nbytes -= size
            count += 1
            self._complete(stream)
        return count

    def _complete(self, stream: str) -> None:
        if self._ripening.first(stream) is None:
            self._complete_all(self._gatherer.close(stream))
            self._ripening.closed(stream)
        else:
            self._cut[stream] = self.next_offset
            self._ripening.ripen(stream, self.next_offset)

    def put_back(self, nbytes: int, give: Callable[[str, Sequence[Message]], bool]) -> int:
        """Let open batches, the newest first, wait as messages again, until `nbytes` of images less are held.

        `give`: takes the messages of a stream, if it can. Returns the bytes.
        """
        freed = 0
        for stream, messages in list(self._gatherer.returnable()):
            if freed >= nbytes:
                break
            if stream in self._cut or self._ripening.is_ripe(stream) or not give(stream, messages):
                continue
            before = self._gatherer.image_bytes
            part = self._gatherer.reopen(stream)
            for message in messages:
                self._offsets.put_back(message.offset, stream)
            again = [(message.offset, message.timestamp_ms, message_bytes(message)) for message in messages]
            self._ripening.put_back(stream, again, part.since_s)
            freed += before - self._gatherer.image_bytes
        self.image_bytes -= freed
        return freed

    # -- through

    def state(self, batch: ImageBatch) -> StreamState:
        """The adaptation state that the batch's stream goes on from: see `StreamStates.before`."""
        return self._streams.before(batch, self.head.states)

    def complete(self, batch: ImageBatch, adapted: Adapted, now_s: float) -> BatchTrace:
        """Keep the results of a batch; its stream goes on from the new state. The trace as it will be written."""
        anew = self._streams.begins_anew(batch.stream_id)
        reset, rejected = self._streams.served(batch, adapted.state)
        trace = replace(adapted.trace, reset=reset or adapted.trace.reset, rejected=rejected)
        served = without_pixels(batch), adapted.predictions, trace
        self._accepted.append(served)
        if self._tells == "early":
            self.untold.append(self._told(served))
        self._alerts.served(served, anew=anew)
        self._count(len(batch), now_s)
        self.image_bytes -= batch.images.nbytes
        return trace

    def shadowed(self, trace: BatchTrace, shadow: Shadow) -> bool:
        """What a staged pair would have served for a batch; False if it is in a draft already, and will not be told."""
        is_here = any(trace is kept for _, _, kept in reversed(self._accepted))
        if is_here:
            self._shadows[trace.stream_id, trace.last_offset] = shadow
        return is_here

    # -- out

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
            self._sealed_rows, self._accepted = self.rows, self._with_shadows()
            pending = self._offsets.pending(frame.row_id.offset for frame in self._unserved)
            waiting = self._waiting()
            states, stream_table = self._streams.kept(self.head.states, waiting)
            if waiting is not None:
                self._alerts.forget(lambda name: self._streams.has_place(name) or name in waiting)
            self._sealed_alerts = self._alerts.news
            self._sealed = SegmentDraft(
                tp=self.tp,
                next_offset=self.next_offset,
                pending=pending,
                states=states,
                stream_table=stream_table,
                alerts=self._alerts.stored(self._attempt),
                accepted=self._accepted,
                rejected=self._rejected,
                gaps=self._offsets.take_gaps(),
                attempt=self._attempt,
                tells=self._tells or "",
                by=self._by,
                switches=self.switches,
            )
            self._accepted, self._rejected, self._attempt = [], [], self._new_attempt()
        return self._sealed

    def _with_shadows(self) -> list[Served]:
        shadows, self._shadows = self._shadows, {}
        if not shadows:
            return self._accepted
        found = []
        for batch, predictions, trace in self._accepted:
            shadow = shadows.get((trace.stream_id, trace.last_offset))
            found.append((batch, predictions, trace if shadow is None else replace(trace, shadow=shadow)))
        return found

    def _waiting(self) -> set[str] | None:
        """Streams of which images were read and are not served; None while nobody knows of which what is awaited is."""
        if self._offsets.is_reading_again:
            return None
        return {*self._gatherer.streams, *self._offsets.undecoded, *(batch.stream_id for batch in self._later)}

    @property
    def _unserved(self) -> Iterator[Frame]:
        """Decoded, and in no row."""
        yield from self._gatherer.frames
        yield from (frame for frame, _ in self._rejected_later)
        for batch in self._later:
            yield from batch.frames

    @property
    def _by(self) -> ServedBy | None:
        return self.serving.by if self.serving is not None and self.serving.pair else None

    # -- from one pair to the next

    def comes_to_switch(self, *, at_end: bool) -> bool:
        """True if all is served that is to be before `planned`; makes ready what is not. At once if nothing is planned.

        To be called while no batch is ready. `at_end`: nothing will ever come that is not read.
        """
        planned = self.planned
        if planned is None:
            return True
        if self.next_offset < planned.first and not (at_end and (self._later or self._rejected_later)):
            return False
        if not all(map(planned.serves, self._offsets.awaited)):
            for stream, _, _ in list(self._ripening.waiting):
                self._ripening.ripen(stream, self.next_offset)
            return False
        before = [frame for frame in self._gatherer.frames if not planned.serves(frame.row_id.offset)]
        for name in dict.fromkeys(frame.stream_id for frame in before):
            assert name is not None  # it is gathered by it
            self._complete_all(self._gatherer.close(name))
            self._ripening.closed(name)
        return not self.ready

    def switch(self, turn: PairTurn, now_s: float) -> Switch | None:
        """Another pair serves what is in no row yet, which begins a segment; None: not yet, others are to be written.

        To be called while no batch is ready, and if `comes_to_switch`. A draft is sealed by it.
        """
        if self.rows > self._sealed_rows:
            if self.is_sealed:
                return None
            self.draft()
        end = self._sealed or self.head
        switch = Switch(end.next_offset, tuple(end.pending), turn.serving.pair, turn.keeps)
        self._note(switch)
        self.serving, self.planned = turn.serving, turn.until
        self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=turn.keeps)
        self._alerts.count_by(turn.serving.by.classes)
        later, self._later, rejected, self._rejected_later = self._later, [], self._rejected_later, []
        self._complete_all(later)
        for frame, was_heard in rejected:
            if self.planned is not None and self.planned.serves(frame.row_id.offset):
                self._rejected_later.append((frame, was_heard))
            else:
                self._reject([(frame, was_heard)], now_s)
        return switch

    def _note(self, switch: Switch) -> None:
        if switch.pair and (not self.switches or self.switches[-1].pair != switch.pair):
            self.switches = (*self.switches, switch)

    def committed(self, head: Head) -> None:
        """The draft was written and ends at `head`; what was done since begins the next one."""
        if (draft := self._sealed) is not None:
            if self._tells == "committed":
                told: list[Served | Frame] = [*draft.accepted, *draft.rejected]
                self.untold.extend(Told(draft.attempt, each, draft.by) for each in told)
            self._publish(draft.attempt, self._sealed_alerts)
        self.head, self._sealed = head, None
        self._offsets.committed(head)
        self.rows, self._sealed_rows = self.rows - self._sealed_rows, 0

    def _publish(self, attempt: str, alerts: Sequence[Alert]) -> None:
        """Alerts that are in the chain. Only these are published: nobody would ever clear one that its worker lost."""
        if self._tells is not None:
            self.untold.extend(Told(attempt, alert) for alert in alerts)

    def _now_ms(self, now_s: float) -> int:
        return int(1_000.0 * (now_s + (self._epoch_s or 0.0)))

    def _count(self, rows: int, now_s: float) -> None:
        if rows and self.rows == self._sealed_rows:
            self.since_s = now_s
        self.rows += rows
