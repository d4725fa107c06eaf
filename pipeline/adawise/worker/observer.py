"""What the worker tells the outside while it runs: an observer's events, and the observer that logs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import structlog
from typing_extensions import override

from adawise.errors import AdawiseError, StoreFull, place_of
from adawise.ports import Commit, Head, ServedBy, Told
from adawise.records import BatchTrace, Frame, Gap, ImageBatch, Predictions, Switch, TopicPartition

_IN_FULL = 3  # rejections of a stream and reason that are told one by one
_EVERY_S = 60.0  # those after them: one line in that time
_SWEEP_S = 1.0
_FORGOTTEN_S = 3_600.0  # without a rejection; the next one is told in full again
_MOST = (
    100  # streams and reasons told apart; of those beyond, reasons alone, or names without end would be as long a log
)
_COUNTED = "since the line before; the last of them is named here, the rows of the output name all"


class Phase(StrEnum):
    """What a worker is doing before its first step, and in the end. The values are stable: the probes tell them."""

    STARTING = "starting"  # settings are read, the topic is looked up
    LOADING_MODEL = "loading_model"  # two checkpoints and the card
    ENCODING_TEXT = "encoding_text"  # heads of the classes, and the first forward
    CHECKING_STORE = "checking_store"  # of the output; a store that does not answer is waited for
    WORKING = "working"  # the loop turns
    STOPPING = "stopping"  # what is complete is written, the group is left


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """One partition that this worker owns and reads.

    `lag` counts the messages without a durable row, at the broker and in memory; None if unknown. `oldest_ms` is the
    broker's timestamp of the first of them if it was read, else of the newest that was read: the first is no older.
    None if nothing was read. `durable` offsets have their rows, or never will, by the chain's head.

    `pending` are messages that were read, of batches that are not complete; `rows` are complete and not in a segment
    yet. It `stands` while what is next cannot be read. Streams are evicted since it was recovered. `untold` are rows
    that wait to be sent as results.
    """

    lag: int | None
    pending: int
    rows: int
    stands: bool
    paused: bool
    streams_evicted: int
    oldest_ms: int | None = None
    untold: int = 0
    durable: int = 0


@dataclass(frozen=True, slots=True)
class PairsProgress:
    """How the worker stands with its pairs: by number what state each is in, and why, if it failed.

    Of the shadow of a staged pair: images that it has classified, those with the served label, and batches that it came
    to too late.
    """

    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    shadow_images: int = 0
    shadow_agreed: float = 0.0
    shadow_late: int = 0


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """Where the loop is, at a moment.

    `recovering` are ours and not read yet. `held_bytes` of messages and images, of `limit_bytes` at most. All are
    `paused` where the store or the recording is too slow. `batches_closed_early` counts from the start. `results_bytes`
    were sent, and are not acknowledged.
    """

    partitions: Mapping[TopicPartition, PartitionProgress]
    recovering: Sequence[TopicPartition]
    held_bytes: int
    limit_bytes: int
    paused: bool
    batches_closed_early: int
    results_bytes: int = 0
    pairs: PairsProgress = field(default_factory=PairsProgress)


def outage_event(error: AdawiseError, event: str) -> str:
    """What a try that failed is called in the log: `event`, or that the store is full, which somebody has to act on."""
    return "store_filled" if isinstance(error, StoreFull) else event


class Observer:
    """Called from the worker's main thread; must return quickly and never raise. This one ignores all."""

    def phase_entered(self, phase: Phase) -> None:
        """What the worker does from now on, before and after its loop."""

    def model_loaded(self, classes: Sequence[str], facts: Mapping[str, object]) -> None:
        """The pair is there: its C class names in the order of indices, and what is worth a line of log."""

    def stepped(self, progress: Callable[[], WorkerProgress]) -> None:
        """The loop has made a turn, which is many times a second; `progress` costs as much as there are partitions."""

    def partition_recovered(self, tp: TopicPartition, head: Head) -> None:
        """A partition is ours, its chain was walked to `head`."""

    def partition_lost(self, tp: TopicPartition) -> None:
        """A partition is no longer ours; what was not committed is dropped."""

    def gap_found(self, tp: TopicPartition, gap: Gap) -> None:
        """These offsets will have no rows."""

    def frame_rejected(self, frame: Frame) -> None:
        """An image or a whole message was rejected or skipped."""

    def frame_noted(self, frame: Frame) -> None:
        """An image, accepted or not, has a mistake that its producer should hear of (`frame.note`)."""

    def letter_sent(self, frame: Frame) -> None:
        """A message that could not be read went to the dead letters, for the reason of `frame`."""

    def result_told(self, told: Told) -> None:
        """What became of images was handed to where it is told beside the chain; whoever keeps it, keeps megabytes."""

    def batch_served(self, trace: BatchTrace) -> None:
        """A batch was adapted and predicted; not committed yet."""

    def search_failed(self, trace: BatchTrace, error: Exception) -> None:
        """The search of this batch raised an error: it was served at the first alpha, and its stream learns anew."""

    def batch_predicted(self, batch: ImageBatch, predictions: Predictions, trace: BatchTrace) -> None:
        """The same batch with its images and what is served for them; whoever keeps it, keeps megabytes."""

    def segment_committed(self, tp: TopicPartition, commit: Commit, lag: int | None) -> None:
        """A segment was written, or the race for it was lost (`commit.won`). `lag`: see `PartitionProgress`."""

    def pair_serves(self, tp: TopicPartition, by: ServedBy, switch: Switch | None) -> None:
        """This pair serves a partition; from the switch on, if another did before, and in no segment yet."""

    def retry_scheduled(self, error: AdawiseError, wait_s: float, what: str) -> None:
        """`what` failed, since the broker or the store did not answer; it is tried again in `wait_s` seconds."""

    def retries_ended(self, what: str) -> None:
        """`what` failed before and succeeded now, or is not to be done any more."""

    def stopped(self) -> None:
        """The worker has ended, in order or by an error; the last call."""


class Observers(Observer):
    """Calls several observers in their order: each method of an observer, made below.

    An observer that raises does not end the work: the first error of each of its methods is logged, and it goes on.
    """

    def __init__(self, *observers: Observer) -> None:
        self._all = observers
        self._failed: set[tuple[str, str]] = set()

    def _note(self, observer: Observer, name: str, error: Exception) -> None:
        kind = type(observer).__name__
        if (kind, name) in self._failed:
            return
        self._failed.add((kind, name))
        with suppress(Exception):  # the log may be what failed
            structlog.get_logger("worker").error(
                "observer_failed",
                observer=kind,
                method=name,
                error=f"{type(error).__name__}: {error}",
                where=place_of(error),
                remedy="the work goes on, and what this observer shows may lack something; please report it",
            )


def _to_all(name: str) -> Callable[..., None]:
    def tell(self: Observers, *said: object) -> None:
        for observer in self._all:
            try:
                getattr(observer, name)(*said)
            except Exception as error:  # noqa: BLE001  # what watches the work does not end it
                self._note(observer, name, error)

    return tell


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _name, _to_all(_name))


@dataclass(slots=True)
class _Alike:
    """Rejections of one stream for one reason."""

    last: Frame
    seen_s: float
    told_s: float
    in_full: int = 0
    untold: int = 0


class Rejections:
    """Which rejected frames are told one by one, and how many there were besides. Bounded, whatever a stranger sends.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._alike: dict[tuple[str | None, str], _Alike] = {}
        self._swept_s = clock()

    def add(self, frame: Frame) -> bool:
        """Whether this one is to be told in full; if not, it is counted."""
        now, key = self._clock(), (frame.stream_id, str(frame.reason))
        if key not in self._alike and len(self._alike) >= _MOST:
            key = ("", key[1])  # no stream's name is empty
        alike = self._alike.setdefault(key, _Alike(frame, now, now))
        alike.last, alike.seen_s = frame, now
        if alike.in_full < _IN_FULL:
            alike.in_full, alike.told_s = alike.in_full + 1, now
            return True
        alike.untold += 1
        return False

    def counted(self, *, all_: bool = False) -> Iterator[tuple[str | None, int, Frame]]:
        """(stream, "" for many; rejections not told yet; the last) of those whose minute is over, or of all."""
        now = self._clock()
        if not all_ and now - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now
        for (stream, reason), alike in list(self._alike.items()):
            if alike.untold and (all_ or now - alike.told_s >= _EVERY_S):
                yield stream, alike.untold, alike.last
                alike.untold, alike.told_s = 0, now
            elif now - alike.seen_s >= _FORGOTTEN_S:
                del self._alike[stream, reason]


class LogObserver(Observer):
    """One log event per observation; batches at debug level, since there are many, and floods of rejections counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("worker")
        self._rejections = Rejections(clock)
        self._noted: set[tuple[str | None, str]] = set()
        self._fallen: set[str] = set()  # streams whose search failed

    @override
    def model_loaded(self, classes: Sequence[str], facts: Mapping[str, object]) -> None:
        self._log.info("model_loaded", **facts)

    @override
    def partition_recovered(self, tp: TopicPartition, head: Head) -> None:
        self._log.info(
            "partition_recovered",
            topic=tp.topic,
            partition=tp.partition,
            next_offset=head.next_offset,
            pending=len(head.pending),
            streams=len(head.states),
            segment=head.segment,
        )

    @override
    def partition_lost(self, tp: TopicPartition) -> None:
        self._log.info("partition_lost", topic=tp.topic, partition=tp.partition)

    @override
    def frame_rejected(self, frame: Frame) -> None:
        if self._rejections.add(frame):
            self._rejected("frame_rejected", frame, stream_id=frame.stream_id)
        self._tell_counted()

    @override
    def frame_noted(self, frame: Frame) -> None:
        """See `Observer`; each stream and header once, of so many as are told apart."""
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
                note="told once a stream",
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

    def _tell_counted(self, *, all_: bool = False) -> None:
        for stream, count, last in self._rejections.counted(all_=all_):
            named = f"of more than {_MOST} streams" if stream == "" else stream
            self._rejected("frames_rejected", last, stream_id=named, more=count, note=_COUNTED)

    @override
    def batch_served(self, trace: BatchTrace) -> None:
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

    @override
    def search_failed(self, trace: BatchTrace, error: Exception) -> None:
        """See `Observer`; each stream once, and the metric counts them all."""
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
            remedy="the batch was served at the first alpha and its stream learns anew; please report this with the "
            "traces of the stream; told once a stream, adawise_state_resets_total counts all",
        )

    @override
    def segment_committed(self, tp: TopicPartition, commit: Commit, lag: int | None) -> None:
        self._tell_counted()
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

    @override
    def pair_serves(self, tp: TopicPartition, by: ServedBy, switch: Switch | None) -> None:
        """See `Observer`; a switch alone."""
        if switch is None:
            return
        self._log.info(
            "pair_switched",
            topic=tp.topic,
            partition=tp.partition,
            pair=by.pair,
            from_offset=switch.first,
            pending=len(switch.pending),
            state="keep" if switch.keeps else "reset",
        )

    @override
    def retry_scheduled(self, error: AdawiseError, wait_s: float, what: str) -> None:
        self._log.warning(outage_event(error, "retry_scheduled"), error=str(error), wait_s=round(wait_s, 1))

    @override
    def stopped(self) -> None:
        self._tell_counted(all_=True)
