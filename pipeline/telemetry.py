"""What the worker tells the outside while it runs: an observer's events, and the observer that logs them."""

from __future__ import annotations

from typing import Protocol

import structlog

from pipeline.errors import AdawiseError
from pipeline.ports import Commit, Head
from pipeline.records import BatchTrace, Frame, TopicPartition


class Observer(Protocol):
    """Called from the worker's main thread; must return quickly and never raise."""

    def partition_recovered(self, tp: TopicPartition, head: Head) -> None:
        """A partition is ours, its chain was walked to `head`."""

    def partition_lost(self, tp: TopicPartition) -> None:
        """A partition is no longer ours; what was not committed is dropped."""

    def frame_rejected(self, frame: Frame) -> None:
        """An image or a whole message was rejected or skipped."""

    def batch_served(self, trace: BatchTrace) -> None:
        """A batch was adapted and predicted; not committed yet."""

    def segment_committed(self, tp: TopicPartition, commit: Commit, lag: int | None) -> None:
        """A segment was written, or the race for it was lost (`commit.won`). `lag` in messages, None if unknown."""

    def retry_scheduled(self, error: AdawiseError, wait_s: float) -> None:
        """The broker or the store did not answer; the same is tried again in `wait_s` seconds."""


class LogObserver:
    """One log event per observation; batches at debug level, since there are many."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("worker")

    def partition_recovered(self, tp: TopicPartition, head: Head) -> None:
        """See `Observer`."""
        self._log.info(
            "partition_recovered",
            topic=tp.topic,
            partition=tp.partition,
            next_offset=head.next_offset,
            pending=len(head.pending),
            streams=len(head.states),
            segment=head.segment,
        )

    def partition_lost(self, tp: TopicPartition) -> None:
        """See `Observer`."""
        self._log.info("partition_lost", topic=tp.topic, partition=tp.partition)

    def frame_rejected(self, frame: Frame) -> None:
        """See `Observer`."""
        row = frame.row_id
        self._log.warning(
            "frame_rejected",
            topic=row.topic,
            partition=row.partition,
            offset=row.offset,
            index=row.index,
            stream_id=frame.stream_id,
            reason=str(frame.reason),
            detail=frame.detail,
        )

    def batch_served(self, trace: BatchTrace) -> None:
        """See `Observer`."""
        self._log.debug(
            "batch_served",
            topic=trace.topic,
            partition=trace.partition,
            stream_id=trace.stream_id,
            offset=trace.last_offset,
            images=trace.images,
            alpha=trace.alpha,
            forward_equivalents=round(trace.forward_equivalents, 3),
            trigger=trace.trigger,
        )

    def segment_committed(self, tp: TopicPartition, commit: Commit, lag: int | None) -> None:
        """See `Observer`."""
        self._log.info(
            "segment_committed" if commit.won else "race_lost",
            topic=tp.topic,
            partition=tp.partition,
            rows=commit.rows,
            size_bytes=commit.size_bytes,
            next_offset=commit.head.next_offset,
            segment=commit.head.segment,
            lag=lag,
        )

    def retry_scheduled(self, error: AdawiseError, wait_s: float) -> None:
        """See `Observer`."""
        self._log.warning("retry_scheduled", error=str(error), wait_s=round(wait_s, 1))
