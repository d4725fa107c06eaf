"""The commit: the complete rows of a partition become durable, and then the offset is committed to the broker.

The order of the steps must not change:

1. The messages that were read are durable in the recording, if there is one.
2. The dead letters are acknowledged.
3. The results are acknowledged: of the served rows (published early) or of the segment before (published once it is
   durable), and the alerts of the segment before.
4. The topic is checked to be still the one that was read.
5. The segment is created.
6. The offset is committed.

Kafka's committed offset is a hint for lag tools: where to go on is read from the chain. Hints are repeated now and
then. A hint that was sent during a rebalance, or to a broker that went away, is lost, and a silent partition has no
next segment that would make up for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from adawise.errors import RetryableError
from adawise.ports import Commit, DeadLetters, Publication, Results, Sink, Source
from adawise.records import Message, TopicPartition
from adawise.worker.attempts import RESULTS, Attempts, Backoff, dead_lettering, writing
from adawise.worker.events import DeadLetterSent, Observer, ResultsPublished, SegmentCommitted
from adawise.worker.partition import PartitionWork


class WriteAheadRecorder(Protocol):
    """A recorder, which takes every delivered message and makes it durable. Called from the main thread."""

    @property
    def share(self) -> float:
        """The share of its memory that is in use; above 1 the source is to be paused."""

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """Return the offset to read from, for a chain that needs `offset` next and a broker's log of [start, end).

        It is not above `offset`: messages before `offset` are for the recording alone. To be called again whenever the
        partition is recovered.

        Raises:
            SourceError: the log and the recording do not belong together.
            StoreUnavailable: the store does not answer.
        """

    def take(self, message: Message) -> None:
        """Take a message; messages come in offset order.

        A message of a partition that was not begun is ignored, as is one that the recording has already.
        """

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """Return True if everything that was taken below `until` is durable; if not, begin to write it.

        With `wait`, return once it is durable.

        Raises:
            StoreUnavailable: the store does not answer.
            BrokerUnavailable: the broker does not answer.
            SourceError: the topic is another one.
        """

    def turn(self, now_s: float) -> None:
        """Do what is due, without waiting; to be called once a step.

        Raises:
            SourceError: the topic and the recording do not belong together.
            SettingsError: the recording cannot be written as it is set.
        """

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Forget partitions that this worker no longer owns: their new owner reads again what is not durable."""

    def close(self) -> None:
        """Free everything. May be called twice."""


class NoRecorder:
    """A recorder that records nothing."""

    share = 0.0

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """See `WriteAheadRecorder`."""
        del tp, log
        return offset

    def take(self, message: Message) -> None:
        """See `WriteAheadRecorder`."""

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """See `WriteAheadRecorder`."""
        del tp, until, wait
        return True

    def turn(self, now_s: float) -> None:
        """See `WriteAheadRecorder`."""

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """See `WriteAheadRecorder`."""

    def close(self) -> None:
        """See `WriteAheadRecorder`."""


_HINT_EVERY_S = 60.0  # how long a lost hint shows a wrong lag; one small request for all partitions


class NoResults:
    """Results that are not published. Implements `ports.Results`."""

    when = None
    in_flight_bytes = 0

    def send(self, publication: Publication, *, wait: bool) -> bool:
        """Take a result, and drop it."""
        del publication, wait
        return True

    def settled(self, *, wait: bool) -> bool:
        """Return True: nothing is in flight."""
        del wait
        return True

    def hurry(self, within_s: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The destinations of a worker's output.

    Attributes:
        sink: the chains of segments.
        dead_letters: for messages that cannot be read.
        results: for the results of images, and alerts.
        recorder: takes every message, and has made it durable before its rows are written.
    """

    sink: Sink
    dead_letters: DeadLetters
    results: Results = field(default_factory=NoResults)
    recorder: WriteAheadRecorder = field(default_factory=NoRecorder)


class Committer:
    """Writes dead letters, results and segments, and commits offsets to the broker.

    Args:
        source: receives the offsets.
        outputs: receive everything else.
        observer: receives the events.
        attempts: notes failures, and the successes that end them.
        failpoint: called with the name of each point between complete rows and a committed offset. Tests kill the
            worker there.
    """

    def __init__(
        self,
        source: Source,
        outputs: Outputs,
        observer: Observer,
        attempts: Attempts,
        *,
        failpoint: Callable[[str], None],
    ) -> None:
        self._source, self._sink, self._dead_letters = source, outputs.sink, outputs.dead_letters
        self._recorder, self._results, self._results_backoff = outputs.recorder, outputs.results, Backoff()
        self._observer, self._attempts, self._failpoint = observer, attempts, failpoint
        self._hinted_s: float | None = None
        self.is_unpublished = False
        """True if the last `write` did not create a segment because the broker took no dead letters or results."""

    def write(self, work: PartitionWork, now_s: float, *, wait: bool) -> Commit | None:
        """Write a segment of everything that is complete in a partition.

        To be called while no batch of the partition is ready. If the race for the segment was lost (`Commit.won`), the
        work is void, and the caller has to recover the partition.

        Args:
            work: the work in hand of the partition.
            now_s: the loop's time.
            wait: wait until the recording is written and results are acknowledged.

        Returns:
            The commit. None if the broker or the store failed: `work.backoff` says when to call again. Without `wait`,
            None also while the recording is being written or results are not acknowledged: call again with the next
            step.

        Raises:
            SourceError: the topic is no longer the one that the rows were read from.
            ChainError: the chain is damaged.
        """
        self.is_unpublished, what = False, writing(work.tp)
        try:
            draft = work.draft()
            if not self._recorder.ensure_durable(work.tp, draft.next_offset, wait=wait):
                return None
            self._failpoint("worker.recorded")
            self.is_unpublished, what = True, dead_lettering(work.tp)
            self._send(work)
            self._dead_letters.flush()
            self._attempts.ended(what)
            if not (wait or self._results_backoff.due(now_s)):
                return None
            what = RESULTS
            some_wait = bool(work.unpublished) or self._results.in_flight_bytes > 0
            if not (self._publish_results(work, wait=wait) and self._results.settled(wait=wait)):
                return None
            if some_wait:  # otherwise the broker acknowledged nothing just now, and an outage may go on
                self._attempts.ended(what)
            self.is_unpublished, what = False, writing(work.tp)
            self._failpoint("worker.results_told")
            self._source.log.check()
            began_s = time.perf_counter()
            commit = replace(self._sink.commit(draft), seconds=time.perf_counter() - began_s)
        except RetryableError as error:
            self._attempts.failed(what, error, work.backoff.failed(now_s))
            return None
        work.backoff.succeeded()
        self._attempts.ended(what)
        self._failpoint("worker.segment_committed")
        if commit.won:
            work.committed(commit.head)
        self._source.commit({work.tp: commit.head.low_water}, self._sink.root_id)
        self._failpoint("worker.offset_committed")
        self._observer.observe(SegmentCommitted(work.tp, commit, work.offsets.lag(self._source)))
        return commit

    def send_dead_letters(self, work: PartitionWork, now_s: float) -> None:
        """Send the dead letters of a partition now, so that they do not wait in memory for the segment."""
        if work.dead_letters and work.backoff.due(now_s):
            try:
                self._send(work)
            except RetryableError as error:
                self._attempts.failed(dead_lettering(work.tp), error, work.backoff.failed(now_s))

    def publish(self, works: Iterable[PartitionWork], now_s: float, *, wait: bool = False) -> None:
        """Publish results and alerts, as far as there is room for them in flight; to be called once a step.

        The last call has to `wait` for room and acknowledgements. Results that were not published by then are published
        by the worker that recovers their partition.
        """
        if self._results.when is None or not (wait or self._results_backoff.due(now_s)):
            return
        try:
            taken = [self._publish_results(work, wait=wait) for work in works]
            all_acknowledged = self._results.settled(wait=wait) and all(taken)
        except RetryableError as error:
            self._attempts.failed(RESULTS, error, self._results_backoff.failed(now_s))
        else:
            self._results_backoff.succeeded()
            if all_acknowledged:
                self._attempts.ended(RESULTS)

    def hurry(self, within_s: float) -> None:
        """Bound the waits of a worker that ends: all for dead letters, and all for results, take at most `within_s`."""
        self._dead_letters.hurry(within_s)
        self._results.hurry(within_s)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of results that were sent and are not acknowledged."""
        return self._results.in_flight_bytes

    def _publish_results(self, work: PartitionWork, *, wait: bool) -> bool:
        while work.unpublished:
            if not self._results.send(work.unpublished[0], wait=wait):
                return False
            self._observer.observe(ResultsPublished(work.unpublished.popleft().rows))
        return True

    def hint(self, works: Iterable[PartitionWork], now_s: float) -> None:
        """Commit the offsets to the broker again, now and then; to be called once a step."""
        if self._hinted_s is None:
            self._hinted_s = now_s
        if now_s - self._hinted_s >= _HINT_EVERY_S:
            self._hinted_s = now_s
            self._source.commit({work.tp: work.offsets.low_water for work in works}, self._sink.root_id)

    def close(self) -> None:
        """Close the dead letters, the results and the recorder."""
        self._recorder.close()
        with suppress(RetryableError):  # the partition's next worker publishes again what was not acknowledged
            self._results.close()
        with suppress(RetryableError):  # it also sends a dead letter again whose segment was not committed
            self._dead_letters.close()

    def _send(self, work: PartitionWork) -> None:
        while work.dead_letters:
            message, frame = work.dead_letters[0]
            self._dead_letters.send(message, frame)
            self._observer.observe(DeadLetterSent(frame))
            work.dead_letters.popleft()
