"""The worker: poll, decode, adapt, predict, append; then flush and commit. Read `run` and `_step` first.

One thread does everything but decoding and talking to the broker. The order that nothing may change: a segment is
created, then the broker hears of it. Kafka's committed offset is a hint; where to go on is read from the chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.adaptation import Adaptation
from pipeline.errors import FatalError, RetryableError, SourceError
from pipeline.gather import BatchPolicy
from pipeline.partition import FlushPolicy, PartitionWork
from pipeline.ports import DeadLetters, Head, Sink, Source
from pipeline.prefetch import Prefetch
from pipeline.records import ImageBatch, Message, TopicPartition
from pipeline.telemetry import Observer

_IDLE_S = 0.1  # how long a poll waits when there is nothing else to do
_RETRY_S, _RETRY_MAX_S = 1.0, 30.0
_LAST_TRIES = 5  # to write the last segments, when told to stop


@dataclass(frozen=True)
class Limits:
    """What the worker holds at most: bytes under decode or waiting for the model, rows not yet committed.

    `round_images`: images gathered before the model runs, so that forwards are full.
    """

    inflight_bytes: int
    uncommitted_rows: int
    round_images: int


class Worker:
    """Owns the loop; everything else is given to it.

    Args:
        source: where messages come from.
        prefetch: the decode pool.
        adaptation: the method, with the model pair.
        sink: the chain of segments.
        dead_letters: for messages that cannot be read.
        observer: told what happens.
        batches: when single images become a batch.
        flush: when a segment is written.
        limits: of memory.
        skip_gaps: go on where the broker's log begins, and record the gap, if it no longer has what comes next.
        should_stop: asked once a step; True ends the run after a flush.
        at: called with the name of each point between complete rows and a committed offset, for tests that kill there.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        source: Source,
        prefetch: Prefetch,
        adaptation: Adaptation,
        sink: Sink,
        dead_letters: DeadLetters,
        observer: Observer,
        batches: BatchPolicy,
        flush: FlushPolicy,
        limits: Limits,
        skip_gaps: bool,
        should_stop: Callable[[], bool],
        at: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._prefetch, self._adaptation = source, prefetch, adaptation
        self._sink, self._dead_letters, self._observer = sink, dead_letters, observer
        self._batches, self._flush, self._limits = batches, flush, limits
        self._skip_gaps, self._should_stop, self._at, self._clock = skip_gaps, should_stop, at, clock
        self._owned: dict[TopicPartition, PartitionWork] = {}
        self._unrecovered: list[TopicPartition] = []
        self._paused = False
        self._backoff_s = _RETRY_S

    def run(self) -> None:
        """Work until told to stop or the source is exhausted; then flush, commit and leave.

        Raises:
            FatalError: nothing more was committed after it.
        """
        try:
            while not self._should_stop():
                self._step()
                if self._source.exhausted and self._prefetch.is_empty and not self._ready:
                    break
            self._finish()
        finally:
            self._prefetch.close()
            self._dead_letters.close()
            self._source.close()

    def _step(self) -> None:
        """One turn: take in what has come, then either let the model run or see to the segments."""
        self._poll()
        if not self._ready:
            self._gather()
        if self._ready:
            self._adapt_round()
        else:
            self._commit(due_only=True)
        self._hold_back()

    # -- in: messages and partitions

    def _poll(self) -> None:
        busy = self._ready or not self._prefetch.is_empty
        try:
            poll = self._source.poll(0.0 if busy else _IDLE_S)
            self._backoff_s = _RETRY_S
        except RetryableError as error:
            self._observer.retry_scheduled(error, self._backoff_s)
            self._backoff_s = min(2.0 * self._backoff_s, _RETRY_MAX_S)
            return
        for tp in poll.lost:
            self._drop(tp)
            self._observer.partition_lost(tp)
        self._unrecovered += poll.assigned
        self._recover()
        for message in poll.messages:
            self._submit(message)

    def _submit(self, message: Message) -> None:
        work = self._owned.get(message.topic_partition)
        if work is not None and work.wants(message):
            self._prefetch.submit(message)

    def _recover(self) -> None:
        """Walk the chain of each partition that is newly ours, and read on from where it ends."""
        waiting, self._unrecovered = self._unrecovered, []
        for tp in waiting:
            try:
                head = self._sink.recover(tp, self._source.identity(tp.topic), self._source.origin(tp))
                bounds = self._source.bounds(tp)
            except RetryableError as error:
                self._observer.retry_scheduled(error, self._backoff_s)
                self._unrecovered.append(tp)
                continue
            self._begin(tp, head, bounds)
            if not self._paused:
                self._source.resume([tp])
            self._observer.partition_recovered(tp, head)

    def _begin(self, tp: TopicPartition, head: Head, bounds: tuple[int, int]) -> None:
        """Own `tp` from `head` on, whatever was in hand before; see to it that the broker still has what comes next."""
        log_start, log_end = bounds
        if head.next_offset > log_end:
            raise SourceError(
                f"{tp}: the chain goes on at offset {head.next_offset}, but the broker's log ends at {log_end}: the "
                "broker lost data, or this is another cluster. Restore the broker, or take another sink.root."
            )
        work = PartitionWork(tp, head, self._batches, self._adaptation.strategy.initial)
        if head.low_water < log_start:
            if not self._skip_gaps:
                raise SourceError(
                    f"{tp}: offsets from {head.low_water} to {log_start - 1} are needed next, but the broker has "
                    "deleted them (retention). To go on without them and record the gap, set kafka.on_gap=skip."
                )
            work.skip_to(log_start)
        self._drop(tp)
        self._owned[tp] = work
        self._source.seek(tp, max(head.low_water, log_start))

    def _drop(self, tp: TopicPartition) -> None:
        self._owned.pop(tp, None)
        self._unrecovered = [waiting for waiting in self._unrecovered if waiting != tp]
        self._prefetch.drop(tp)

    # -- through: frames, batches, alphas, predictions

    @property
    def _ready(self) -> bool:
        return any(work.ready for work in self._owned.values())

    def _gather(self) -> None:
        """Take decoded messages, one partition after the other, until there is a round's worth of complete batches."""
        if not self._prefetch.is_empty:
            self._prefetch.wait(_IDLE_S / 2.0)
        took = True
        while took and sum(len(b) for work in self._owned.values() for b in work.ready) < self._limits.round_images:
            took = False
            for tp, work in self._owned.items():
                decoded = self._prefetch.take(tp)
                if decoded is not None:
                    took = True
                    work.add(decoded, self._clock())
                    for frame in decoded.frames:
                        if frame.image is None:
                            self._observer.frame_rejected(frame)
                    if decoded.dead:
                        self._dead_letters.send(decoded.message, decoded.frames[0])
        for tp, work in self._owned.items():
            work.seen(self._clock(), drained=self._source.drained(tp) and not self._prefetch.waits(tp))

    def _adapt_round(self) -> None:
        """Adapt and predict one batch of every stream that has one; their trials share forwards."""
        round_ = self._next_round()
        states = [work.state(batch.stream_id) for work, batch in round_]
        adapted = self._adaptation.run([batch for _, batch in round_], states)
        for (work, batch), result in zip(round_, adapted, strict=True):
            self._observer.batch_served(work.complete(batch, result, self._clock()))
        self._at("worker.rows_complete")

    def _next_round(self) -> list[tuple[PartitionWork, ImageBatch]]:
        """The first ready batch of each stream of each partition: one batch of a stream is in flight at a time."""
        round_ = []
        for work in self._owned.values():
            streams: set[str] = set()
            for batch in list(work.ready):
                if batch.stream_id not in streams:
                    streams.add(batch.stream_id)
                    work.ready.remove(batch)
                    round_.append((work, batch))
        return round_

    # -- out: segments, then offsets

    def _commit(self, *, due_only: bool) -> None:
        now = self._clock()
        for work in list(self._owned.values()):
            if (
                work.rows
                and now >= work.retry_at_s
                and (not due_only or self._flush.due(work.rows, now - work.since_s))
            ):
                self._commit_partition(work)

    def _commit_partition(self, work: PartitionWork) -> None:
        try:
            self._dead_letters.flush()
            commit = self._sink.commit(work.draft())
        except RetryableError as error:
            work.retry_at_s = self._clock() + self._backoff_s
            self._observer.retry_scheduled(error, self._backoff_s)
            self._backoff_s = min(2.0 * self._backoff_s, _RETRY_MAX_S)
            return
        self._at("worker.segment_committed")
        if commit.won:
            work.committed(commit.head)
        else:  # another worker wrote this segment: its rows and states are as good as ours
            self._begin(work.tp, commit.head, self._source.bounds(work.tp))
        self._source.commit({work.tp: commit.head.low_water})
        self._at("worker.offset_committed")
        self._observer.segment_committed(work.tp, commit, self._source.lag(work.tp))

    # -- limits and the end

    def _hold_back(self) -> None:
        """Pause every partition while too much is in hand, resume at half of it."""
        in_hand = self._prefetch.bytes + sum(work.image_bytes for work in self._owned.values())
        rows = sum(work.rows for work in self._owned.values())
        share = max(in_hand / self._limits.inflight_bytes, rows / self._limits.uncommitted_rows)
        if not self._paused and share > 1.0:
            self._source.pause(list(self._owned))
            self._paused = True
        elif self._paused and share < 0.5:
            self._source.resume(list(self._owned))
            self._paused = False

    def _finish(self) -> None:
        """Write what is complete. At the end of a recording nothing else will come: open batches are complete too."""
        if self._source.exhausted:
            for work in self._owned.values():
                work.close_all()
        while self._ready:
            self._adapt_round()
        for _ in range(_LAST_TRIES):
            self._commit(due_only=False)
            waiting = [work for work in self._owned.values() if work.rows]
            if not waiting:
                return
            time.sleep(max(0.0, min(work.retry_at_s for work in waiting) - self._clock()))
        rows = sum(work.rows for work in waiting)
        raise FatalError(
            f"{rows} rows could not be written in {_LAST_TRIES} tries. Nothing is lost: their offsets are not "
            "committed, and the next run computes them again. See the log for the store's answer."
        )
