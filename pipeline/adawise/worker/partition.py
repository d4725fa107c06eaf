"""The work in hand of one partition: offsets, images, states and alerts, and the segment that its rows are put into."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from adawise.adapt.state import StreamState
from adawise.errors import Lost
from adawise.ports import Head, Publication, SegmentDraft, Served, When
from adawise.publish.alerts import PartitionAlerts, Rule
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
from adawise.worker.attempts import Backoff
from adawise.worker.batching import BatchPolicy, without_pixels
from adawise.worker.fair_queue import Lanes
from adawise.worker.gathering import PartitionGathering
from adawise.worker.offsets import OffsetLedger
from adawise.worker.pairs import PairTurn, Turns
from adawise.worker.stream_states import StreamStates


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment that is to be written. It stays the same until it is known whether it was committed.

    A store that did not answer may have written it. Only if the next try writes the same again can it be distinguished
    from another worker's segment.

    Attributes:
        draft: the segment's content.
        alerts: the changes of alerts that are published once it is durable.
        rows: the number of rows, gaps and changes of alerts that become durable with it.
    """

    draft: SegmentDraft
    alerts: Sequence[Alert]
    rows: int

    def published(self, when: When | None) -> Iterator[Publication]:
        """Yield what is published once the segment is durable: its rows, unless they were early, and its alerts."""
        draft = self.draft
        if when == "committed":
            rows: list[Served | Frame] = [*draft.accepted, *draft.rejected]
            yield from (Publication(draft.attempt, each, draft.by) for each in rows)
        if when is not None:
            yield from (Publication(draft.attempt, alert) for alert in self.alerts)


@dataclass(slots=True, eq=False)
class OpenSegment:
    """The rows that are done and in no sealed segment, in the order in which they were done.

    Attributes:
        attempt: the name of the draft that they will be.
        accepted: the served batches.
        rejected: the images that were not accepted.
        rows: the number of rows, gaps and changes of alerts that become durable with them.
        since_s: when the first of these was done.
    """

    attempt: str
    accepted: list[Served] = field(default_factory=list)
    rejected: list[Frame] = field(default_factory=list)
    rows: int = 0
    since_s: float = 0.0

    def count(self, rows: int, now_s: float) -> None:
        """Add `rows` rows, gaps or changes of alerts to those that are to become durable."""
        if rows and not self.rows:
            self.since_s = now_s
        self.rows += rows

    def shadow(self, trace: BatchTrace, shadow: Shadow) -> bool:
        """Keep what a staged pair would have served for a batch; return False if the batch is not in this segment."""
        for place, (batch, predictions, kept) in reversed([*enumerate(self.accepted)]):
            if kept is trace:
                self.accepted[place] = batch, predictions, replace(trace, shadow=shadow)
                return True
        return False


_QUIET_POLLS, _POLL_SPACING_S = 2, 0.05


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """The rule by which a segment is written: at `max_rows` rows, or `max_age_s` seconds after the first of them."""

    max_rows: int
    max_age_s: float

    def due(self, rows: int, age_s: float) -> bool:
        """Return True if a segment of `rows` rows, the first of which is `age_s` seconds old, should be written."""
        return rows > 0 and (rows >= self.max_rows or age_s >= self.max_age_s)


@dataclass(frozen=True, slots=True)
class PartitionPolicy:
    """The policy by which the images of a partition become batches, states and alerts.

    Attributes:
        batches: when single images become a batch.
        forget_after_s: seconds of silence after which a stream starts anew (`adawise.worker.stream_states`).
        max_streams: how many streams keep a state (`adawise.worker.stream_table`).
        rules: the rules of alerts.
        epoch_s: what is to be added to the loop's clock for seconds since the epoch. None: no alerts of silent cameras
            are raised, as in a replay.
        is_shared: other workers serve some of its streams.
    """

    batches: BatchPolicy
    forget_after_s: float
    max_streams: int
    rules: Sequence[Rule] = ()
    epoch_s: float | None = None
    is_shared: bool = False


class PartitionWork:
    """The work in hand of one partition that this worker owns; to drop the partition, drop this object.

    A message is taken by `read` and, once it is decoded, by `add`. A batch that it completes is `ready`. The loop takes
    the batch from there, asks for the `state` that its stream goes on from, and passes the result to `complete`.
    `draft` seals the rows that are done, and `committed` notes that they are durable.

    At any time `rows ∪ pending = head.pending ∪ [head.next_offset, next_offset)` over the delivered offsets. `draft`
    returns these as a segment. While a draft is sealed, the same holds of what comes after it.

    Args:
        tp: the partition.
        head: the end of its chain.
        policy: how its images become batches, states and alerts.
        turn: the pair that serves it, and until where.
        queue: its messages that are not taken from the decode pool.
        make_ready: called with a stream and an offset: its messages below may be decoded even if memory is short.
        image_bytes: bytes of the decoded image of a message that waits for that.
        publish_when: when results are published; None: never.
        new_attempt: makes the name of a draft.
        now_s: the worker's clock when its work on the partition begins.

    Attributes:
        passed_by: the number of messages that were read and that another worker serves.
        isolated_until: messages below this offset are decoded in an isolated process.
        dead_letters: the dead letters that are not sent yet.
        unpublished: results of rows that were served (early) or committed, and alerts of committed segments, in order.
        backoff: the waits after failures to write dead letters and segments.
    """

    def __init__(
        self,
        tp: TopicPartition,
        head: Head,
        policy: PartitionPolicy,
        turn: PairTurn,
        *,
        queue: Lanes | None = None,
        make_ready: Callable[[str, int], None] = lambda _, __: None,
        image_bytes: int = 0,
        publish_when: When | None = None,
        new_attempt: Callable[[], str] = str,
        now_s: float = 0.0,
    ) -> None:
        self.tp, self._publish_when, self._new_attempt, self._epoch_s = tp, publish_when, new_attempt, policy.epoch_s
        self.offsets, self.turns = OffsetLedger(tp, head), Turns(head, turn)
        self.gathering = PartitionGathering(
            tp, policy.batches, self.offsets, self.turns, queue or Lanes(), make_ready, image_bytes=image_bytes
        )
        self.ready = self.gathering.ready
        self._quiet_polls, self._quiet_since_s = 0, 0.0
        self._streams = StreamStates(
            head,
            turn.serving.adaptation.strategy.initial,
            forget_after_s=policy.forget_after_s,
            max_streams=policy.max_streams,
            keeps_states=turn.keeps,
            is_shared=policy.is_shared,
        )
        publishes, classes = publish_when is not None, turn.serving.by.classes
        known = self._streams.last_seen(self._now_ms(now_s)) if policy.epoch_s is not None else None
        self._alerts = PartitionAlerts(tp, policy.rules, classes, head.alerts, published=publishes, known=known)
        self._open = OpenSegment(new_attempt())
        self._others: list[int] = []  # messages that have no row here, which was found out by decoding them
        self._sealed: SealedSegment | None = None
        self.isolated_until = self.passed_by = 0
        self.backoff = Backoff()
        self.dead_letters: deque[tuple[Message, Frame]] = deque()
        self.unpublished: deque[Publication] = deque()
        if publishes:
            # The worker that wrote these may have died before it published them.
            self.unpublished += [Publication(self._alerts.written_by, alert) for alert in self._alerts.written]
            self._open.count(bool(self._alerts.news), 0.0)

    # -- progress

    @property
    def head(self) -> Head:
        """The end of the chain, as far as this worker knows it."""
        return self.offsets.head

    @property
    def rows(self) -> int:
        """The number of rows that are not durable.

        Each gap and change of an alert counts as one too, so that they are committed without rows as well.
        """
        return self._open.rows + (self._sealed.rows if self._sealed is not None else 0)

    @property
    def since_s(self) -> float:
        """The time at which the first row that is not sealed was done."""
        return self._open.since_s

    @property
    def evicted(self) -> int:
        """The number of streams that lost their place since this worker got the partition."""
        return self._streams.table.evicted

    @property
    def late(self) -> int:
        """The number of streams with a late backlog so far (`StreamStates.receive`)."""
        return len(self._streams.late)

    @property
    def dead_letter_bytes(self) -> int:
        """Bytes of dead letters that wait for the broker."""
        return sum(len(message.value or b"") for message, _ in self.dead_letters)

    # -- input

    def read(
        self,
        message: Message,
        streams: frozenset[str],
        now_s: float = 0.0,
        *,
        is_single: bool = False,
        others: frozenset[str] = frozenset(),
    ) -> None:
        """Note that a wanted message is under decode; to be called in the order of offsets, with `pass_by`.

        Args:
            message: the message.
            streams: the streams of which it may have images.
            now_s: the loop's time.
            is_single: it is a single image, which waits until its batch is ready to be decoded, if memory is short.
            others: the streams of its images that another worker serves.
        """
        if self.offsets.read(message, streams):
            came_ms = message.timestamp_ms if self.offsets.was_there(message) and message.timestamp_ms >= 0 else None
            for stream_id in sorted(streams | others):
                self._streams.receive(stream_id, message, is_served=stream_id in streams)
                if self._epoch_s is not None:
                    changes = self._alerts.received(stream_id, message.offset, self._now_ms(now_s), came_ms)
                    self._open.count(bool(changes), now_s)  # counted, so that a segment is written even without rows
        if is_single:
            (stream,) = streams
            self.gathering.readiness.read(stream)

    def pass_by(self, message: Message, streams: frozenset[str], *, others: frozenset[str] = frozenset()) -> None:
        """Note a message of which another worker makes all rows; to be called in the order of offsets.

        Args:
            message: the message.
            streams: the streams of this worker that it names, as a message without a value may. They take places by it.
            others: the streams of another worker that it names.
        """
        self.passed_by += 1
        if self.offsets.pass_by(message):
            for stream_id in sorted(streams | others):
                self._streams.receive(stream_id, message, is_served=stream_id in streams)

    def end_share(self, now_s: float) -> None:
        """Have the last messages of other workers in a segment, so that its chain shows that they were read."""
        if self.passed_by and self.offsets.next_offset > self.head.next_offset:
            self._open.count(1, now_s)

    def miss(self, message: Message, missing: Missing, now_s: float) -> Sequence[Gap]:
        """Make gaps of offsets that cannot be read, and one dead letter unless compaction removed them.

        Returns:
            The new gaps.
        """
        gaps = self.offsets.leave_out(missing.first, message.next_offset, missing.reason)
        if missing.reason != Lost.COMPACTED:
            row_id = RowId(*self.tp, missing.first, 0)
            frame = Frame(row_id, message.timestamp_ms, None, reason=missing.reason, detail=missing.detail)
            self.dead_letters.append((message, frame))
        self._open.count(1, now_s)
        return gaps

    def add(self, decoded: DecodedMessage, now_s: float, read_s: float | None = None) -> None:
        """Take a message that was read and is decoded; the batches that it completes become ready.

        Args:
            decoded: the message.
            now_s: the loop's time.
            read_s: when it was read, if it is a single image.
        """
        message = decoded.message
        streams = self.offsets.decoded(message)
        if not decoded.frames:
            self._others.append(message.offset)
        if decoded.dead:
            self.dead_letters.append((message, decoded.frames[0]))
        self._reject([(frame, frame.stream_id in streams) for frame in decoded.frames if frame.image is None], now_s)
        for stream in streams.intersection(frame.stream_id for frame in decoded.frames if frame.image is not None):
            self._streams.table.accept(stream, message.offset)
        self.gathering.add(decoded, streams, now_s, read_s)

    def _reject(self, frames: Sequence[tuple[Frame, bool]], now_s: float) -> None:
        """Make rows of images that were not accepted, or keep them for the next pair (`Turns.rejected`).

        With each image comes whether its stream was known when its message was read.
        """
        for frame, was_known in frames:
            if self.turns.is_later(frame.row_id.offset):
                self.turns.rejected.append((frame, was_known))
                continue
            self._open.rejected.append(frame)
            self._done(frame, 1, now_s)
            # If its stream was not known, the batches around it may have been served before it was decoded.
            if was_known and frame.stream_id is not None and status_of(frame) == "rejected":
                self._streams.table.reject(frame.stream_id, frame.row_id.offset)

    def is_due(self, now_s: float) -> bool:
        """Return True if something is due once everything was read: a batch to be closed, or the alert of a silence."""
        is_silent = self._epoch_s is not None and self._alerts.is_due(self._now_ms(now_s))
        return is_silent or self.gathering.is_due(now_s)

    def polled(self, now_s: float, *, drained: bool) -> None:
        """Note after a poll whether everything was read (`drained`); after several such polls, do what is due.

        Then the batches of silent streams are closed, and alerts of silent cameras are raised. One empty poll proves
        nothing: after a long round it only asks the broker for the messages that have come meanwhile.
        """
        if not drained:
            self._quiet_polls = 0
        elif not self._quiet_polls or now_s - self._quiet_since_s >= _POLL_SPACING_S:
            self._quiet_polls, self._quiet_since_s = self._quiet_polls + 1, now_s
        if self._quiet_polls >= _QUIET_POLLS:
            self.gathering.close_due(now_s)
            if self._epoch_s is not None:
                silent = self._alerts.silent(self._now_ms(now_s), has_place=self._streams.table.__contains__)
                self._open.count(bool(silent), now_s)

    # -- processing

    def state(self, batch: ImageBatch) -> StreamState:
        """Return the adaptation state that the batch's stream goes on from (`StreamStates.before`)."""
        return self._streams.before(batch, self.head.states)

    def complete(self, batch: ImageBatch, adapted: Adapted, now_s: float) -> BatchTrace:
        """Keep the results of a batch and the new state of its stream; return the trace that is written."""
        anew = self._streams.begins_anew(batch.stream_id)
        reset, rejected = self._streams.served(batch, adapted.state)
        trace = replace(adapted.trace, reset=reset or adapted.trace.reset, rejected=rejected)
        served = without_pixels(batch), adapted.predictions, trace
        self._open.accepted.append(served)
        self._done(served, len(batch), now_s)
        self._alerts.served(served, anew=anew)
        self.gathering.served(batch)
        return trace

    def shadowed(self, trace: BatchTrace, shadow: Shadow) -> bool:
        """Keep what a staged pair would have served for a batch; return False if the batch is sealed already."""
        return self._open.shadow(trace, shadow)

    def _done(self, what: Served | Frame, rows: int, now_s: float) -> None:
        self._open.count(rows, now_s)
        if self._publish_when == "early":
            self.unpublished.append(Publication(self._open.attempt, what, self.turns.by))

    # -- output

    @property
    def is_sealed(self) -> bool:
        """True while a draft is sealed, and it is not known whether it was committed."""
        return self._sealed is not None

    def draft(self) -> SegmentDraft:
        """Return everything since the head as a segment.

        The draft is the same until `committed` is called, whatever is done meanwhile. To be called while no batch is
        ready, so that the rows of a message stay together.
        """
        if self._sealed is None:
            assert not self.ready
            self._sealed, self._open = self._seal(), OpenSegment(self._new_attempt())
        return self._sealed.draft

    def _seal(self) -> SealedSegment:
        waiting = None if self.offsets.is_reading_again else self.gathering.streams  # None: not known yet
        states, stream_table = self._streams.kept(self.head.states, waiting)
        if waiting is not None:
            self._alerts.forget(lambda name: name in self._streams.table or name in waiting)
        changes = self._alerts.news
        draft = SegmentDraft(
            tp=self.tp,
            next_offset=self.offsets.next_offset,
            pending=self.offsets.pending(frame.row_id.offset for frame in self.gathering.unserved),
            states=states,
            stream_table=stream_table,
            alerts=self._alerts.stored(self._open.attempt),
            accepted=self._open.accepted,
            rejected=self._open.rejected,
            gaps=self.offsets.take_gaps(),
            attempt=self._open.attempt,
            publish_when=self._publish_when or "",
            others=tuple(self._others),
            by=self.turns.by,
            switches=self.turns.switches,
        )
        self._others.clear()
        return SealedSegment(draft, changes, self._open.rows)

    def committed(self, head: Head) -> None:
        """Note that the draft is durable and ends at `head`; the rows that were done since begin the next one."""
        if self._sealed is not None:
            self.unpublished.extend(self._sealed.published(self._publish_when))
            self._sealed = None
        self.offsets.committed(head)

    # -- from one pair to the next

    def comes_to_switch(self, *, at_end: bool) -> bool:
        """Return True if everything that comes before the planned switch is served; otherwise make it ready.

        Without a planned switch it is True. To be called while no batch is ready. `at_end`: no other message will come.
        """
        if self.turns.planned is None:
            return True
        is_read = self.turns.comes_to_end(self.offsets.next_offset, at_end=at_end)
        return is_read and self.gathering.close_before_next_pair()

    def switch(self, turn: PairTurn, now_s: float) -> Switch | None:
        """Let another pair serve everything that is in no row yet; this begins a segment, and seals the draft before.

        To be called while no batch is ready, once `comes_to_switch` returns True.

        Returns:
            The switch; None if it has to wait until an earlier draft is written.
        """
        if self._open.rows:
            if self.is_sealed:
                return None
            self.draft()
        switch = self.turns.begin(turn, self.head if self._sealed is None else self._sealed.draft)
        self._streams.go_on_with(turn.serving.adaptation.strategy.initial, keeps_states=turn.keeps)
        self._alerts.count_by(turn.serving.by.classes)
        batches, rejected = self.turns.take_waiting()
        self.gathering.complete(batches)
        self._reject(rejected, now_s)
        return switch

    def _now_ms(self, now_s: float) -> int:
        return int(1_000.0 * (now_s + (self._epoch_s or 0.0)))
