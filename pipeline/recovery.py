"""Partitions that are newly ours, until it is known where to read on: the chain is walked, the log compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from pipeline.backoff import Backoff
from pipeline.errors import LogEndsEarly, RetryableError
from pipeline.partition import PartitionWork
from pipeline.ports import Head, Sink, Source
from pipeline.records import TopicPartition
from pipeline.tap import Tap
from pipeline.telemetry import Observer

_log = structlog.get_logger("worker")

_CATCH_UP_S = 30.0  # until a log that ends early is believed

_ADDED = (
    "it is read from its start, since all in it is new; producers send some streams to other partitions from now on: "
    "these begin there with new adaptation states, and what they left in the old partition may be served after it"
)


class Recovery:
    """The partitions that wait to be recovered, in the order in which they came.

    Args:
        source: says how far the partitions reach, and is sent to where the chains end.
        sink: has the chains.
        tap: may have to read from further back.
        observer: told of each partition that is recovered, and of failures.
        begin: the work on a partition whose chain ends at a head.
        skip_gaps: go on where the broker's log begins, and record the gap, if it no longer has what comes next.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        tap: Tap,
        observer: Observer,
        *,
        begin: Callable[[TopicPartition, Head], PartitionWork],
        skip_gaps: bool,
    ) -> None:
        self._source, self._sink, self._tap, self._observer = source, sink, tap, observer
        self._begin, self._skip_gaps = begin, skip_gaps
        self._waiting: list[TopicPartition] = []
        self._early_since: dict[TopicPartition, float] = {}  # when a log was first seen to end before its chain
        self._backoff = Backoff()

    @property
    def is_done(self) -> bool:
        """True if no partition waits."""
        return not self._waiting

    def add(self, tps: Iterable[TopicPartition]) -> None:
        """These are ours, and paused."""
        self._waiting += tps

    def drop(self, tp: TopicPartition) -> None:
        """It is no longer ours."""
        self._waiting = [waiting for waiting in self._waiting if waiting != tp]
        self._early_since.pop(tp, None)
        self._tap.forget([tp])

    def advance(self, now_s: float) -> list[PartitionWork]:
        """The work on each partition that could be recovered now; the source has been sent to where it begins.

        A broker that begins to lead a partition tells an end that lags behind, until it knows how far its replicas (or
        its own log, after a fall) have come. So a log that ends early is asked again for a while.

        Raises:
            FatalError: the chain and the topic do not go together, or the chain is damaged.
        """
        begun: list[PartitionWork] = []
        while self._waiting and self._backoff.due(now_s):
            try:
                begun.append(self._recovered(self._waiting[0]))
            except (RetryableError, LogEndsEarly) as error:
                if isinstance(error, LogEndsEarly) and not self._may_catch_up(self._waiting[0], now_s):
                    raise
                self._observer.retry_scheduled(error, self._backoff.failed(now_s))
                break
            self._backoff.succeeded()
            self._early_since.pop(self._waiting[0], None)
            del self._waiting[0]
        return begun

    def _may_catch_up(self, tp: TopicPartition, now_s: float) -> bool:
        return now_s - self._early_since.setdefault(tp, now_s) < _CATCH_UP_S

    def _recovered(self, tp: TopicPartition) -> PartitionWork:
        identity, log = self._source.identity(tp.topic), self._source.bounds(tp)
        had = self._sink.began(tp.topic, identity).partitions
        is_added = tp.partition >= had
        head = self._sink.recover(tp, identity, log[0] if is_added else self._source.origin(tp))
        if is_added and head.segment is None:
            _log.warning("partition_added", topic=tp.topic, partition=tp.partition, had=had, note=_ADDED)
        work = self._begin(tp, head)
        offset = work.find_in(log, skip_gaps=self._skip_gaps)
        self._source.seek(tp, self._tap.begin(tp, offset, log))
        self._source.commit({tp: offset})  # a partition with nothing new has no segment that would show its lag
        self._observer.partition_recovered(tp, head)
        return work
