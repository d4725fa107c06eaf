"""The worker's loop: poll, decode, adapt, predict, append; then flush and commit. Read `run` and `_step` first.

One thread does everything except decoding and the connection to the broker. The module `recovery` finds where reading
begins, and `commit` has the order in which output becomes durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from adawise.errors import AdawiseError, FatalError, RetryableError
from adawise.ports import Head, Source
from adawise.records import DecodedMessage, ImageBatch, Message, TopicPartition
from adawise.worker.attempts import READING, Attempts, Backoff, dead_lettering, writing
from adawise.worker.backpressure import Backpressure, Limits
from adawise.worker.commit import Committer, Outputs
from adawise.worker.decode_pool import Prefetch
from adawise.worker.events import (
    BatchServed,
    FrameRejected,
    GapFound,
    Observer,
    PairServes,
    PartitionLost,
    PartitionProgress,
    Phase,
    PhaseEntered,
    ProducerMistaken,
    Stepped,
    Stopped,
    WorkerProgress,
)
from adawise.worker.pairs import Pairs, ServedBatch, Serving
from adawise.worker.partition import FlushPolicy, PartitionPolicy, PartitionWork
from adawise.worker.recovery import NoStarts, Recovery, Starts
from adawise.worker.share import Share

_IDLE_S = 0.1  # how long a poll waits when there is nothing else to do
_PEEK_S = 0.01  # how long a poll waits when there is only work for spare time
# Where decoding is slow, so many messages are worth a step of the loop, and so long a wait for them.
_COLLECTED, _COLLECT_S = 32, 0.005
_LET_GO_S = 10.0  # for the rest of the work on lost partitions; a store that answers needs a fraction of a second
_LAST_S = 15.0  # for the last segments when the worker stops: five tries of a store that fails at once
_PUBLISH_S = 10.0  # for all dead letters and results when the worker stops
_SILENT_S = 5.0  # a failure that took longer: the store did not answer, and would take as long for the next partition


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """The worker's policy at the two ends of the source's log.

    Attributes:
        skip_gaps: if the log no longer has the next offset, go on where the log begins, and record the gap.
        ends_streams: treat the end of the source as the end of its streams, so that open batches are complete there.
    """

    skip_gaps: bool
    ends_streams: bool = True


@dataclass(frozen=True, slots=True)
class LoopClock:
    """A monotonic clock in seconds, and a function that sleeps by it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Worker:
    """The worker, which owns the loop. Everything else is passed to it.

    Args:
        source: delivers the messages.
        prefetch: the decode pool.
        pairs: which pair of models serves a partition, and the method over it.
        outputs: the sink of rows, and the outputs beside it.
        observer: receives the events.
        policy: how the images of a partition become batches, states and alerts.
        log: the policy at the ends of the source's log.
        flush: when a segment is written.
        limits: bounds on memory.
        starts: remembers which workers were killed.
        share: what this worker serves of partitions that others read too; None for all.
        should_stop: called once a step; True ends the run after a flush.
        failpoint: called with the name of each point between complete rows and a committed offset. Tests kill the
            worker there.
        clock: the loop's clock.
    """

    def __init__(
        self,
        *,
        source: Source,
        prefetch: Prefetch,
        pairs: Pairs,
        outputs: Outputs,
        observer: Observer,
        policy: PartitionPolicy,
        log: LogPolicy,
        flush: FlushPolicy,
        limits: Limits,
        starts: Starts | None = None,
        share: Share | None = None,
        should_stop: Callable[[], bool],
        failpoint: Callable[[str], None] = lambda _: None,
        clock: LoopClock = LoopClock(),
    ) -> None:
        self._source, self._prefetch, self._pairs, self._observer = source, prefetch, pairs, observer
        self._flush, self._round_images, self._ends_streams = flush, limits.round_images, log.ends_streams
        self._share = share
        self._should_stop, self._failpoint, self._clock, self._sleep = should_stop, failpoint, clock.now, clock.sleep
        self._has_spare_work = True
        self._owned: dict[TopicPartition, PartitionWork] = {}
        self._recorder = outputs.recorder
        self._starts = starts = starts or NoStarts()
        self._attempts = Attempts(observer)

        def begin(tp: TopicPartition, head: Head) -> PartitionWork:
            work = PartitionWork(
                tp,
                head,
                policy,
                pairs.at(tp, head),
                queue=prefetch.queue(tp),
                make_ready=partial(prefetch.make_ready, tp),
                image_bytes=prefetch.image_bytes,
                publish_when=outputs.results.when,
                new_attempt=lambda: uuid4().hex,
                now_s=self._clock(),
            )
            work.isolated_until = starts.begin(tp, head.low_water)
            return work

        self._recovery = Recovery(source, outputs, observer, self._attempts, begin=begin, skip_gaps=log.skip_gaps)
        self._committer = Committer(source, outputs, observer, self._attempts, failpoint=failpoint)
        self._reading, self._pressure = Backoff(), Backpressure(limits, source, prefetch, outputs.recorder)

    def run(self) -> None:
        """Work until `should_stop` returns True or the source is exhausted; then flush, commit and leave the group.

        Raises:
            FatalError: the work cannot go on. Nothing more was committed after it.
        """
        with ExitStack() as stack:
            stack.push(self._leave)
            self._observer.observe(PhaseEntered(Phase.WORKING))
            # Called in the reverse order: the decode pool is closed first, `Stopped` is the last event.
            for end in (
                partial(self._observer.observe, Stopped()),
                self._pairs.close,
                self._source.close,
                self._committer.close,
                self._prefetch.close,
            ):
                stack.callback(end)
            ended = False
            while not ended:
                stopped = self._should_stop()
                if not stopped:
                    self._step()
                if stopped or (self._is_at_end and not self._ready):
                    if stopped:
                        self._observer.observe(PhaseEntered(Phase.STOPPING))
                    self._finish()
                    ended = stopped or self._is_at_end  # if not, a race was lost, and there is more to read

    def _leave(self, kind: type[BaseException] | None, *_: object) -> None:
        """Note the end of the worker in `Starts`, unless an unexpected exception ends it.

        A message may have caused that exception, so the start then counts as one of a killed worker.
        """
        if kind is None or issubclass(kind, AdawiseError | KeyboardInterrupt):
            self._starts.close()

    def _step(self) -> None:
        """Make one step: poll; then run the model if batches are ready, else write due segments and gather batches."""
        self._poll()
        if not self._ready:
            self._commit(due_only=True)
            self._gather()
        if self._ready:
            self._adapt_round(self._owned.values())
        elif self._has_spare_work or self._pairs.has_work:
            self._has_spare_work = self._pairs.idle()
        self._committer.publish(self._owned.values(), self._clock())
        self._recorder.turn(self._clock())
        self._pairs.turn()
        self._committer.hint(self._owned.values(), self._clock())
        self._pressure.apply(self._owned)
        self._observer.observe(Stepped(self._progress))

    # -- input: messages and partitions

    def _poll(self) -> None:
        busy = self._ready or not self._prefetch.is_idle
        if not self._reading.due(self._clock()):
            if not busy:
                self._sleep(_IDLE_S)
            return
        try:
            poll = self._source.poll(0.0 if busy else _PEEK_S if self._has_spare_work else _IDLE_S)
        except RetryableError as error:
            self._attempts.failed(READING, error, self._reading.failed(self._clock()))
            return
        self._reading.succeeded()
        if not (poll.assigned or poll.lost):  # partitions are lost also while the broker does not answer
            self._attempts.ended(READING)
        self._let_go(poll.lost)
        self._recovery.add(poll.assigned)
        for begun in self._recovery.advance(self._clock()):
            self._owned[begun.tp] = begun
            if begun.turns.by is not None:
                self._observer.observe(PairServes(begun.tp, begun.turns.by, begun.turns.began))
            self._pressure.begin(begun.tp)
        for message in poll.messages:
            self._recorder.take(message)  # also those whose rows are in the chain already
            work = self._owned.get(message.topic_partition)
            if work is None or not work.offsets.wants(message):
                continue
            if message.missing is not None:
                for gap in work.miss(message, message.missing, self._clock()):
                    self._observer.observe(GapFound(work.tp, gap))
                self._committer.send_dead_letters(work, self._clock())
            else:
                self._starts.reads(work.tp, message.offset)
                isolated = message.offset < work.isolated_until  # it may have killed an earlier worker
                self._read(work, message, isolated=isolated)

    def _read(self, work: PartitionWork, message: Message, *, isolated: bool) -> None:
        now, known = self._clock(), work.head.states
        streams = ours = self._prefetch.streams_of(message, isolated=isolated)
        if self._share is not None:
            ours = self._share.ours(message, streams)
            # What was pending at the head was taken before, and is in a row, pending or among `others` in each segment
            # from then on, even if its streams can no longer be found because it kills the decoder.
            if not (self._share.takes(message, streams) or work.offsets.awaits(message)):
                work.pass_by(message, ours, others=streams - ours)
                return
        _, is_single = self._prefetch.submit(message, known, isolated=isolated, now_s=now, streams=ours)
        work.read(message, ours, now, is_single=is_single, others=streams - ours)

    def _let_go(self, tps: Sequence[TopicPartition]) -> None:
        """Write the complete rows of partitions that leave this worker, so that they need not be computed again.

        No other worker gets a revoked partition before this worker's next poll. A lost partition may have a new owner,
        which wins the race for the segment, or adopts it. The time is bounded, since the rest of the group waits.
        """
        leaving = [self._owned[tp] for tp in tps if tp in self._owned]
        until_s = self._clock() + _LET_GO_S
        while any(work.ready for work in leaving) and self._clock() < until_s:
            self._adapt_round(leaving)
        for work in leaving:
            while work.rows and not work.ready and work.backoff.due(self._clock()) and self._clock() < until_s:
                commit = self._committer.write(work, self._clock(), wait=True)
                if commit is not None and not commit.won:
                    break
        self._committer.publish(leaving, self._clock())
        for tp in tps:
            self._drop(tp)
            self._observer.observe(PartitionLost(tp))

    def _drop(self, tp: TopicPartition) -> None:
        self._owned.pop(tp, None)
        self._recovery.drop(tp)
        self._prefetch.drop(tp)
        self._starts.end(tp)
        self._pairs.lost(tp)
        for what in (writing(tp), dead_lettering(tp)):
            self._attempts.ended(what)

    # -- processing: frames, batches, alphas, predictions

    @property
    def _ready(self) -> bool:
        return any(work.ready for work in self._owned.values())

    def _gather(self) -> None:
        """Take decoded messages, one partition after the other, until there is a round's worth of complete batches."""
        self._prefetch.wait(_IDLE_S / 2.0)
        self._prefetch.wait(_COLLECT_S, _COLLECTED)
        took, works = True, self._owned.values()
        while took and sum(len(b) for work in works for b in work.ready) < self._round_images:
            if self._pressure.is_full(works) and not self._prefetch.is_completing:
                break
            took = False
            for tp, work in self._owned.items():
                taken = self._prefetch.take(tp)
                if taken is not None:
                    took = True
                    self._add(work, *taken)
        now = self._clock()
        for tp, work in self._owned.items():
            if work.is_due(now):  # asking the broker is only worth it then
                work.polled(now, drained=self._source.drained(tp))
        if self._ends_streams and self._source.exhausted and self._prefetch.is_idle:
            for work in works:
                work.gathering.end_streams()

    def _add(self, work: PartitionWork, decoded: DecodedMessage, read_s: float | None) -> None:
        work.add(decoded, self._clock(), read_s)
        for frame in decoded.frames:
            if frame.image is None:
                self._observer.observe(FrameRejected(frame))
            if frame.note is not None:
                self._observer.observe(ProducerMistaken(frame))
        self._committer.send_dead_letters(work, self._clock())

    def _adapt_round(self, works: Iterable[PartitionWork]) -> None:
        """Adapt and predict one batch of every stream that has a ready one; their trials share forwards."""
        for serving, round_ in by_pair(next_round(works)):
            states = [work.state(batch) for work, batch in round_]
            adapted = serving.adaptation.run([batch for _, batch in round_], states)
            for (work, batch), state, result in zip(round_, states, adapted, strict=True):
                trace = work.complete(batch, result, self._clock())
                note = partial(work.shadowed, trace)
                self._pairs.served(ServedBatch(batch, state, serving, result, note))
                stamps = [frame.kafka_timestamp_ms for frame in batch.frames]
                self._observer.observe(BatchServed(trace, result.predictions, stamps, batch, result.error))
        self._failpoint("worker.rows_complete")

    def _switch(self, work: PartitionWork, *, at_end: bool = False) -> bool:
        """Switch a partition to another pair if one is wanted and everything before the switch is served.

        To be called while no batch is ready. Returns True if the pair was switched.
        """
        turn = self._pairs.wanted(work.tp, work.turns.serving)
        if turn is None or not work.comes_to_switch(at_end=at_end):
            return False
        switch = work.switch(turn, self._clock())
        if switch is None:
            return False
        self._failpoint("worker.pair_switched")
        self._pairs.switched(work.tp, turn, switch)
        self._observer.observe(PairServes(work.tp, turn.serving.by, switch))
        return True

    # -- output: segments, then offsets

    def _commit(self, *, due_only: bool) -> None:
        now, crowded = self._clock(), self._pressure.to_write(self._owned.values())
        for work in list(self._owned.values()):
            self._switch(work)
            is_due = work.tp in crowded or self._flush.due(work.rows, now - work.since_s)
            due = not due_only or work.is_sealed or is_due
            if work.rows and due and (work.is_sealed or not work.ready) and work.backoff.due(now):
                self._commit_partition(work, wait=not due_only)
                failed = not work.backoff.due(now)
                if failed and (due_only or self._clock() - now > _SILENT_S):
                    # The store would not answer for the other partitions either. Poll first, or the broker takes this
                    # worker for dead.
                    return

    def _commit_partition(self, work: PartitionWork, *, wait: bool) -> None:
        commit = self._committer.write(work, self._clock(), wait=wait)
        if commit is not None and not commit.won:  # adopt the rows and states of the worker that wrote this segment
            self._source.pause([work.tp])
            self._drop(work.tp)
            self._recovery.add([work.tp])

    # -- progress

    def _progress(self) -> WorkerProgress:
        return WorkerProgress(
            partitions={
                tp: PartitionProgress(
                    lag=work.offsets.lag(self._source),
                    pending=work.gathering.pending,
                    rows=work.rows,
                    blocked=self._source.blocked(tp),
                    paused=self._pressure.is_paused(tp),
                    streams_evicted=work.evicted,
                    oldest_ms=work.offsets.oldest_ms,
                    unpublished=sum(each.rows for each in work.unpublished),
                    durable=work.offsets.durable,
                    unread=self._source.lag(tp),
                    passed_by=work.passed_by,
                    late=work.late,
                )
                for tp, work in self._owned.items()
            },
            recovering=self._recovery.waiting,
            held_bytes=self._pressure.held_bytes(self._owned.values()),
            limit_bytes=self._pressure.limits.inflight_bytes,
            paused=self._pressure.is_all_paused,
            batches_closed_early=self._pressure.closed_early,
            results_bytes=self._committer.in_flight_bytes,
            pairs=self._pairs.progress(),
        )

    # -- the end

    @property
    def _is_at_end(self) -> bool:
        is_done = self._prefetch.is_empty if self._ends_streams else self._prefetch.is_idle
        return self._source.exhausted and is_done and self._recovery.is_done

    def _serve_rest(self) -> list[PartitionWork]:
        """Serve the complete batches, each by the pair whose turn it is; return the partitions with rows to write."""
        while self._ready or (self._is_at_end and self._switch_at_end()):
            self._adapt_round(self._owned.values())
        return [work for work in self._owned.values() if work.rows]

    def _switch_at_end(self) -> bool:
        return sum(self._switch(work, at_end=True) for work in self._owned.values()) > 0

    def _finish(self) -> None:
        """Write everything that is complete; at the end of the streams, open batches are complete too.

        Raises:
            FatalError: the broker or the store did not take the rows in time.
        """
        if self._is_at_end and self._ends_streams:
            for work in self._owned.values():
                work.gathering.close_all()
        if self._is_at_end:
            for work in self._owned.values():
                work.end_share(self._clock())
        self._committer.hurry(_PUBLISH_S)
        began_s, tries = self._clock(), 0
        while waiting := self._serve_rest():
            wait_s = max(0.0, min(work.backoff.again_s for work in waiting) - self._clock()) if tries else 0.0
            who, patience_s = ("broker", _PUBLISH_S) if self._committer.is_unpublished else ("store", _LAST_S)
            if self._clock() + wait_s > began_s + patience_s:
                why = " since the broker accepted none of the records published before them" if who == "broker" else ""
                raise FatalError(
                    f"{sum(work.rows for work in waiting)} rows could not be written in {tries} tries{why}. Nothing is "
                    "lost: their offsets are not committed, and the next run computes them again. See the log for the "
                    f"{who}'s answer."
                )
            self._sleep(wait_s)
            tries += 1
            self._commit(due_only=False)
        self._committer.publish(self._owned.values(), self._clock(), wait=True)


def by_pair(
    round_: Iterable[tuple[PartitionWork, ImageBatch]],
) -> list[tuple[Serving, list[tuple[PartitionWork, ImageBatch]]]]:
    """Return the batches of a round grouped by the pair that serves them, in the order of the round."""
    found: dict[Serving, list[tuple[PartitionWork, ImageBatch]]] = {}
    for work, batch in round_:
        found.setdefault(work.turns.serving, []).append((work, batch))
    return [*found.items()]


def next_round(works: Iterable[PartitionWork]) -> list[tuple[PartitionWork, ImageBatch]]:
    """Take the first ready batch of each stream of each partition; a round has at most one batch of a stream."""
    taken = []
    for work in works:
        streams: set[str] = set()
        for batch in list(work.ready):
            if batch.stream_id not in streams:
                streams.add(batch.stream_id)
                work.ready.remove(batch)
                taken.append((work, batch))
    return taken
