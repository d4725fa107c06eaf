"""Out: what is complete of a partition becomes durable, and then the broker hears of it.

The order that nothing may change: what was read is in the recording (if there is one), dead letters are acknowledged,
so are results of what is served (told early) or of the segment before (told once they are durable), and the alerts of
the segment before, the topic is still the one that was read, the segment is created, the offset is committed. Kafka's
committed offset is a hint for lag tools; where to go on is read from the chain. Hints are repeated now and then: one
that was sent during a rebalance or to a broker that went away is lost, and a silent partition has no next segment that
would make up for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from adawise.errors import RetryableError
from adawise.ports import Commit, DeadLetters, Results, Sink, Source, Told
from adawise.worker.attempts import RESULTS, Attempts, letters, writing
from adawise.worker.backoff import Backoff
from adawise.worker.events import DeadLetterSent, Observer, ResultsPublished, SegmentCommitted
from adawise.worker.partition import PartitionWork
from adawise.worker.write_ahead import NoRecorder, WriteAheadRecorder

_HINT_EVERY_S = 60.0  # how long a lost hint shows a wrong lag; one small request for all partitions


class NoResults:
    """Nothing is told beside the chain. Implements `ports.Results`."""

    when = None
    in_flight_bytes = 0

    def send(self, told: Told, *, wait: bool) -> bool:
        """Nothing."""
        del told, wait
        return True

    def settled(self, *, wait: bool) -> bool:
        """Nothing is on its way."""
        del wait
        return True

    def hurry(self, within_s: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a worker's output goes.

    Attributes:
        sink: the chains of segments.
        dead_letters: for messages that cannot be read.
        results: for what becomes of images.
        recorder: takes every message, and has it for good before its rows are written.
    """

    sink: Sink
    dead_letters: DeadLetters
    results: Results = field(default_factory=NoResults)
    recorder: WriteAheadRecorder = field(default_factory=NoRecorder)


class Committer:
    """Writes to the dead letters, to the results, to the chain and to the broker's offsets.

    Args:
        source: receives the offsets.
        outputs: receive all else.
        observer: receives what happens.
        attempts: notes failures, and what ends them.
        failpoint: called with the name of each point between complete rows and a committed offset: tests kill there.
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
        self._recorder, self._results, self._telling = outputs.recorder, outputs.results, Backoff()
        self._observer, self._attempts, self._failpoint = observer, attempts, failpoint
        self._hinted_s: float | None = None
        self.is_untold = False
        """Whether the last `write` came to nothing because the broker took no letters or results."""

    def write(self, work: PartitionWork, now_s: float, *, wait: bool) -> Commit | None:
        """A segment of all that is complete, if somebody answers; else None, and `work.backoff` says when again.

        Unless it is to `wait`, None too while the recording is being written, or results are not acknowledged: to be
        called again with the next step. To be called while no batch of it is ready. If the race for the segment was
        lost (`Commit.won`), the work is void: its partition is to be recovered.

        Raises:
            SourceError: the topic is not the one any more that the rows were read from.
            ChainError: the chain is damaged.
        """
        self.is_untold, what = False, writing(work.tp)
        try:
            draft = work.draft()
            if not self._recorder.ensure_durable(work.tp, draft.next_offset, wait=wait):
                return None
            self._failpoint("worker.recorded")
            self.is_untold, what = True, letters(work.tp)
            self._send(work)
            self._dead_letters.flush()
            self._attempts.ended(what)
            if not (wait or self._telling.due(now_s)):
                return None
            what = RESULTS
            some_wait = bool(work.untold) or self._results.in_flight_bytes > 0
            if not (self._told(work, wait=wait) and self._results.settled(wait=wait)):
                return None
            if some_wait:  # else nothing was acknowledged that could end an outage
                self._attempts.ended(what)
            self.is_untold, what = False, writing(work.tp)
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

    def send_letters(self, work: PartitionWork, now_s: float) -> None:
        """Send what cannot be read, so that it does not wait in memory for the segment."""
        if work.letters and work.backoff.due(now_s):
            try:
                self._send(work)
            except RetryableError as error:
                self._attempts.failed(letters(work.tp), error, work.backoff.failed(now_s))

    def tell(self, works: Iterable[PartitionWork], now_s: float, *, wait: bool = False) -> None:
        """Send what is to be told beside the chain, as far as there is room; to be called once a step.

        Unless it is to `wait`, which the last call is: whoever recovers the partitions tells again what was not.
        """
        if self._results.when is None or not (wait or self._telling.due(now_s)):
            return
        try:
            taken = [self._told(work, wait=wait) for work in works]
            all_acknowledged = self._results.settled(wait=wait) and all(taken)
        except RetryableError as error:
            self._attempts.failed(RESULTS, error, self._telling.failed(now_s))
        else:
            self._telling.succeeded()
            if all_acknowledged:
                self._attempts.ended(RESULTS)

    def hurry(self, within_s: float) -> None:
        """The worker ends: from now on all waits for letters, and all for results, take no longer than that."""
        self._dead_letters.hurry(within_s)
        self._results.hurry(within_s)

    @property
    def in_flight_bytes(self) -> int:
        """Of results that were sent, and are not acknowledged."""
        return self._results.in_flight_bytes

    def _told(self, work: PartitionWork, *, wait: bool) -> bool:
        while work.untold:
            if not self._results.send(work.untold[0], wait=wait):
                return False
            self._observer.observe(ResultsPublished(work.untold.popleft().rows))
        return True

    def hint(self, works: Iterable[PartitionWork], now_s: float) -> None:
        """Tell the broker again, now and then, how far the chains are; to be called once a step."""
        if self._hinted_s is None:
            self._hinted_s = now_s
        if now_s - self._hinted_s >= _HINT_EVERY_S:
            self._hinted_s = now_s
            self._source.commit({work.tp: work.offsets.low_water for work in works}, self._sink.root_id)

    def close(self) -> None:
        """Free the dead letters, the results and the recorder."""
        self._recorder.close()
        with suppress(RetryableError):  # who reads on tells again what was not acknowledged
            self._results.close()
        with suppress(RetryableError):  # a letter without a committed segment is sent again by whoever reads on
            self._dead_letters.close()

    def _send(self, work: PartitionWork) -> None:
        while work.letters:
            message, frame = work.letters[0]
            self._dead_letters.send(message, frame)
            self._observer.observe(DeadLetterSent(frame))
            work.letters.popleft()
