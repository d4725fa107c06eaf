"""The observer that logs a worker's events: one line each, except that floods of rejections are counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from adawise.errors import AdawiseError, StoreFull, place_of
from adawise.ports import Head
from adawise.records import BatchTrace, Frame, TopicPartition
from adawise.worker.events import (
    BatchServed,
    Event,
    FrameRejected,
    ModelLoaded,
    PairServes,
    PartitionLost,
    PartitionRecovered,
    ProducerMistaken,
    RetryScheduled,
    SegmentCommitted,
    Stopped,
)

_IN_FULL = 3  # rejections of a stream and reason that are logged one by one
_EVERY_S = 60.0  # later rejections are counted, in one line per this time
_SWEEP_S = 1.0
_FORGOTTEN_S = 3_600.0  # after this time without a rejection, the next one is logged in full again
_MOST = 100  # streams and reasons with lines of their own; further streams share one line per reason
_COUNTED = "since the previous such line, which names the last of them; the output's rows name all"


def outage_event(error: AdawiseError, event: str) -> str:
    """Return the name of the log's event for a failed try: `event`, or `store_filled`, on which a person has to act."""
    return "store_filled" if isinstance(error, StoreFull) else event


@dataclass(slots=True)
class _Alike:
    """The rejections of one stream for one reason."""

    last: Frame
    last_seen_s: float
    logged_s: float
    in_full: int = 0
    unlogged: int = 0


class Rejections:
    """Decides which rejected frames are logged one by one, and counts the others.

    Its memory is bounded, however many stream names producers make up.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._alike: dict[tuple[str | None, str], _Alike] = {}
        self._swept_s = clock()

    def add(self, frame: Frame) -> bool:
        """Return True if this frame is to be logged in full; otherwise count it."""
        now, key = self._clock(), (frame.stream_id, str(frame.reason))
        if key not in self._alike and len(self._alike) >= _MOST:
            key = ("", key[1])  # no stream's name is empty
        alike = self._alike.setdefault(key, _Alike(frame, now, now))
        alike.last, alike.last_seen_s = frame, now
        if alike.in_full < _IN_FULL:
            alike.in_full, alike.logged_s = alike.in_full + 1, now
            return True
        alike.unlogged += 1
        return False

    def counted(self, *, all_: bool = False) -> Iterator[tuple[str | None, int, Frame]]:
        """Yield the counts that are to be logged: those whose minute is over, or `all_`.

        Yields:
            The stream ("" for several), the number of its rejections that are not logged yet, and the last of them.
        """
        now = self._clock()
        if not all_ and now - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now
        for (stream, reason), alike in list(self._alike.items()):
            if alike.unlogged and (all_ or now - alike.logged_s >= _EVERY_S):
                yield stream, alike.unlogged, alike.last
                alike.unlogged, alike.logged_s = 0, now
            elif now - alike.last_seen_s >= _FORGOTTEN_S:
                del self._alike[stream, reason]


class LogObserver:
    """Logs one line per event: batches at level debug, since there are many, and floods of rejections as counts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("worker")
        self._rejections = Rejections(clock)
        self._noted: set[tuple[str | None, str]] = set()
        self._fallen: set[str] = set()  # streams whose search failed

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        match event:
            case ModelLoaded():
                self._log.info("model_loaded", **event.facts)
            case PartitionRecovered():
                self._recovered(event.tp, event.head)
            case PartitionLost():
                self._log.info("partition_lost", topic=event.tp.topic, partition=event.tp.partition)
            case FrameRejected():
                self._frame_rejected(event.frame)
            case ProducerMistaken():
                self._mistaken(event.frame)
            case BatchServed():
                self._served(event.trace, event.error)
            case SegmentCommitted():
                self._committed(event)
            case PairServes():
                self._pair_serves(event)
            case RetryScheduled():
                error = event.error
                self._log.warning(
                    outage_event(error, "retry_scheduled"), error=str(error), wait_s=round(event.wait_s, 1)
                )
            case Stopped():
                self._log_counted(all_=True)
            case _:
                pass

    def _recovered(self, tp: TopicPartition, head: Head) -> None:
        self._log.info(
            "partition_recovered",
            topic=tp.topic,
            partition=tp.partition,
            next_offset=head.next_offset,
            pending=len(head.pending),
            streams=len(head.states),
            segment=head.segment,
        )

    def _frame_rejected(self, frame: Frame) -> None:
        if self._rejections.add(frame):
            self._rejected("frame_rejected", frame, stream_id=frame.stream_id)
        self._log_counted()

    def _mistaken(self, frame: Frame) -> None:
        """Log each stream and header once, up to a bound."""
        key = frame.stream_id, (frame.note or "").partition(":")[0]
        if key not in self._noted and len(self._noted) < _MOST:
            self._noted.add(key)
            row = frame.row_id
            self._log.warning(
                "producer_mistaken",
                topic=row.topic,
                partition=row.partition,
                offset=row.offset,
                stream_id=frame.stream_id,
                mistake=frame.note,
                note="logged once for each stream",
            )

    def _rejected(self, event: str, frame: Frame, **facts: object) -> None:
        row = frame.row_id
        self._log.warning(
            event,
            topic=row.topic,
            partition=row.partition,
            offset=row.offset,
            index=row.index,
            reason=str(frame.reason),
            detail=frame.detail,
            **facts,
        )

    def _log_counted(self, *, all_: bool = False) -> None:
        for stream, count, last in self._rejections.counted(all_=all_):
            named = f"of more than {_MOST} streams" if stream == "" else stream
            self._rejected("frames_rejected", last, stream_id=named, more=count, note=_COUNTED)

    def _served(self, trace: BatchTrace, error: Exception | None) -> None:
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
        if error is not None:
            self._search_failed(trace, error)

    def _search_failed(self, trace: BatchTrace, error: Exception) -> None:
        """Log each stream once, up to a bound; the metric counts all failures."""
        if trace.stream_id in self._fallen or len(self._fallen) >= _MOST:
            return
        self._fallen.add(trace.stream_id)
        self._log.error(
            "search_failed",
            topic=trace.topic,
            partition=trace.partition,
            stream_id=trace.stream_id,
            offset=trace.last_offset,
            alpha=trace.alpha,
            error=f"{type(error).__name__}: {error}",
            where=place_of(error),
            remedy="the batch was served at the first alpha and its stream starts anew; please report this "
            "with the traces of the stream; logged once for each stream, adawise_state_resets_total "
            "counts all",
        )

    def _committed(self, event: SegmentCommitted) -> None:
        self._log_counted()
        tp, commit = event.tp, event.commit
        self._log.info(
            "segment_committed" if commit.won else "race_lost",
            topic=tp.topic,
            partition=tp.partition,
            rows=commit.rows,
            size_bytes=commit.size_bytes,
            next_offset=commit.head.next_offset,
            segment=commit.head.segment,
            lag=event.lag,
        )

    def _pair_serves(self, event: PairServes) -> None:
        """Log that a pair serves a partition, if that is a switch."""
        switch, tp = event.switch, event.tp
        if switch is None:
            return
        self._log.info(
            "pair_switched",
            topic=tp.topic,
            partition=tp.partition,
            pair=event.by.pair,
            from_offset=switch.first,
            pending=len(switch.pending),
            state="keep" if switch.keeps else "reset",
        )
