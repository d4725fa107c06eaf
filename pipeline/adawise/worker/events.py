"""The typed events of a worker, and the interface of their observers.

The loop, the committer and the recovery publish each event once, to one `Observer`. The log, the live page with its
metrics, the spans and the housekeeping are observers; `Observers` passes every event to several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import structlog

from adawise.errors import AdawiseError, place_of
from adawise.ports import Commit, Head, ServedBy
from adawise.records import BatchTrace, Frame, Gap, ImageBatch, Predictions, Switch, TopicPartition


class Phase(StrEnum):
    """The phases of a worker, from its start to its end. The values are stable: the probes show them."""

    STARTING = "starting"  # settings are read, the topic is looked up
    LOADING_MODEL = "loading_model"  # two checkpoints and the card
    ENCODING_TEXT = "encoding_text"  # heads of the classes, and the first forward
    CHECKING_STORE = "checking_store"  # the store of the output; the worker waits for one that does not answer
    WORKING = "working"  # the loop runs
    STOPPING = "stopping"  # complete rows are written, the worker leaves the group


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """The progress of one partition that this worker owns and reads.

    Attributes:
        lag: messages without a durable row, at the broker and in memory; None if unknown.
        pending: messages that were read and whose batch is not complete.
        rows: complete rows that are not durable yet.
        blocked: True while the partition is blocked, because the next message cannot be read.
        paused: True while backpressure pauses it.
        streams_evicted: streams that lost their place since the partition was recovered.
        oldest_ms: the broker's timestamp of the first message without a durable row, if it was read; else of the newest
            that was read, since the first is no older. None if nothing was read.
        unpublished: rows that wait to be published as results.
        durable: offsets that have durable rows, or never will have any, by the chain's head.
        unread: messages at the broker that were not read; None if unknown.
        passed_by: messages that were read and that another worker serves (`Share`).
        late: streams with a late backlog (`StreamStates.late`).
    """

    lag: int | None
    pending: int
    rows: int
    blocked: bool
    paused: bool
    streams_evicted: int
    oldest_ms: int | None = None
    unpublished: int = 0
    durable: int = 0
    unread: int | None = None
    passed_by: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class PairsProgress:
    """The progress of a worker with its pairs of models.

    Attributes:
        states: by the pair's number, its state and, if it failed, why.
        shadow_images: images that a staged pair has classified in the shadow of the serving one.
        shadow_agreed: those of them on which it agreed with the served label.
        shadow_late: batches whose shadow result came too late to be written.
    """

    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    shadow_images: int = 0
    shadow_agreed: float = 0.0
    shadow_late: int = 0


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """A snapshot of the loop.

    Attributes:
        partitions: the partitions that are read.
        recovering: partitions that this worker owns and does not read yet.
        held_bytes: bytes of messages and images in memory.
        limit_bytes: the bound on `held_bytes`.
        paused: True while all partitions are paused, because the store or the recording is too slow.
        batches_closed_early: batches that were closed early for lack of memory, since the start.
        results_bytes: bytes of results that were sent and are not acknowledged.
        pairs: the progress with pairs of models.
    """

    partitions: Mapping[TopicPartition, PartitionProgress]
    recovering: Sequence[TopicPartition]
    held_bytes: int
    limit_bytes: int
    paused: bool
    batches_closed_early: int
    results_bytes: int = 0
    pairs: PairsProgress = field(default_factory=PairsProgress)


class Event:
    """Something that happened in a worker."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PhaseEntered(Event):
    """The worker has entered a phase."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class ModelLoaded(Event):
    """The pair is loaded: its C class names in the order of indices, and the facts for the line of the log."""

    classes: Sequence[str]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Stepped(Event):
    """The loop has made a step, which it does many times a second. Calling `progress` takes time per partition."""

    progress: Callable[[], WorkerProgress]


@dataclass(frozen=True, slots=True)
class PartitionRecovered(Event):
    """The worker owns a partition, and has followed its chain to `head`."""

    tp: TopicPartition
    head: Head


@dataclass(frozen=True, slots=True)
class PartitionLost(Event):
    """The worker no longer owns a partition, and has dropped what was not committed."""

    tp: TopicPartition


@dataclass(frozen=True, slots=True)
class GapFound(Event):
    """The offsets of this gap will have no rows."""

    tp: TopicPartition
    gap: Gap


@dataclass(frozen=True, slots=True)
class FrameRejected(Event):
    """An image or a whole message was rejected or skipped."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class ProducerMistaken(Event):
    """An image, accepted or not, came with a mistake that its producer should correct (`frame.note`)."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class DeadLetterSent(Event):
    """A message that could not be read was sent as a dead letter, with the reason in `frame`."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class ResultsPublished(Event):
    """Results of `rows` rows were sent to the results topic; an alert has no rows."""

    rows: int


@dataclass(frozen=True, slots=True)
class BatchServed(Event):
    """A batch was adapted and predicted; it is not committed yet.

    `timestamps_ms` are the broker's timestamps of its images. `error` is the exception that its search raised: the
    batch was then served at the first alpha, and its stream starts anew. An observer that keeps the event has to drop
    `batch`, which holds megabytes.
    """

    trace: BatchTrace
    predictions: Predictions
    timestamps_ms: Sequence[int]
    batch: ImageBatch | None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SegmentCommitted(Event):
    """A segment was written, or the race for it was lost (`commit.won`). For `lag` see `PartitionProgress`."""

    tp: TopicPartition
    commit: Commit
    lag: int | None


@dataclass(frozen=True, slots=True)
class PairServes(Event):
    """The pair `by` serves a partition from now on.

    `switch` is where it takes over from another pair, if no segment says so yet; else None.
    """

    tp: TopicPartition
    by: ServedBy
    switch: Switch | None


@dataclass(frozen=True, slots=True)
class RetryScheduled(Event):
    """The operation `what` failed, and is tried again in `wait_s` seconds."""

    what: str
    error: AdawiseError
    wait_s: float


@dataclass(frozen=True, slots=True)
class RetriesEnded(Event):
    """The operation `what`, which had failed before, has succeeded or is not tried any more."""

    what: str


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The worker has ended, in order or by an error. This is the last event."""


class Observer(Protocol):
    """An observer of a worker's events, called in the worker's main thread."""

    def observe(self, event: Event) -> None:
        """Take an event; return quickly and never raise. An observer ignores the events that it does not need."""


class Observers:
    """Passes each event to several observers, in their order.

    An observer that raises does not end the work. Its first error at each type of event is logged.
    """

    def __init__(self, *observers: Observer) -> None:
        self._all = observers
        self._failed: set[tuple[str, str]] = set()

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        for observer in self._all:
            try:
                observer.observe(event)
            except Exception as error:  # noqa: BLE001  # an observer's fault must not end the work
                self._log(observer, event, error)

    def _log(self, observer: Observer, event: Event, error: Exception) -> None:
        names = type(observer).__name__, type(event).__name__
        if names in self._failed:
            return
        self._failed.add(names)
        with suppress(Exception):  # the log may be what failed
            structlog.get_logger("worker").error(
                "observer_failed",
                observer=names[0],
                method=names[1],  # a key of earlier versions, whose observers had a method for each event
                error=f"{type(error).__name__}: {error}",
                where=place_of(error),
                remedy="the work goes on, but this observer's numbers may be incomplete; please report it",
            )
