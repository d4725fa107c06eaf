"""What happens in a worker, as typed events, and who observes them.

The loop, the committer and the recovery publish each event once, to one `Observer`. The log, the live page with its
metrics, the spans and the housekeeping are observers; `Observers` gives every event to several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

import structlog

from adawise.errors import AdawiseError, place_of
from adawise.ports import Commit, Head, ServedBy
from adawise.records import BatchTrace, Frame, Gap, ImageBatch, Predictions, Switch, TopicPartition


class Phase(StrEnum):
    """What a worker is doing before its first step, and in the end. The values are stable: the probes show them."""

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


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The worker does this from now on, before and after its loop."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The pair is loaded: its C class names in the order of indices, and the facts that a line of log names."""

    classes: Sequence[str]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Stepped:
    """The loop has made a turn, which is many times a second; `progress` takes time for each partition."""

    progress: Callable[[], WorkerProgress]


@dataclass(frozen=True, slots=True)
class PartitionRecovered:
    """A partition is this worker's, and its chain was followed to `head`."""

    tp: TopicPartition
    head: Head


@dataclass(frozen=True, slots=True)
class PartitionLost:
    """A partition is no longer this worker's; what was not committed is dropped."""

    tp: TopicPartition


@dataclass(frozen=True, slots=True)
class GapFound:
    """The offsets of this gap will have no rows."""

    tp: TopicPartition
    gap: Gap


@dataclass(frozen=True, slots=True)
class FrameRejected:
    """An image or a whole message was rejected or skipped."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class ProducerMistaken:
    """An image, accepted or not, has a mistake that its producer should know of (`frame.note`)."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class DeadLetterSent:
    """A message that could not be read was sent to the dead letters, for the reason of `frame`."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class ResultsPublished:
    """Results of so many rows were given to the results topic; an alert has no rows."""

    rows: int


@dataclass(frozen=True, slots=True)
class BatchServed:
    """A batch was adapted and predicted; it is not committed yet.

    `timestamps_ms` are the broker's, of its images. `error` is what its search raised: the batch was then served at the
    first alpha, and its stream learns anew. An observer that keeps the event drops `batch`, which holds megabytes.
    """

    trace: BatchTrace
    predictions: Predictions
    timestamps_ms: Sequence[int]
    batch: ImageBatch | None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class SegmentCommitted:
    """A segment was written, or the race for it was lost (`commit.won`). `lag`: see `PartitionProgress`."""

    tp: TopicPartition
    commit: Commit
    lag: int | None


@dataclass(frozen=True, slots=True)
class PairServes:
    """This pair serves a partition; from `switch` on, if another one did before, and in no segment yet."""

    tp: TopicPartition
    by: ServedBy
    switch: Switch | None


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """`what` failed, since the broker or the store did not answer; it is tried again in `wait_s` seconds."""

    what: str
    error: AdawiseError
    wait_s: float


@dataclass(frozen=True, slots=True)
class RetriesEnded:
    """`what` failed before and succeeded now, or is not to be done any more."""

    what: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker has ended, in order or by an error; the last event."""


Event: TypeAlias = (
    PhaseEntered
    | ModelLoaded
    | Stepped
    | PartitionRecovered
    | PartitionLost
    | GapFound
    | FrameRejected
    | ProducerMistaken
    | DeadLetterSent
    | ResultsPublished
    | BatchServed
    | SegmentCommitted
    | PairServes
    | RetryScheduled
    | RetriesEnded
    | Stopped
)


class Observer(Protocol):
    """Observes a worker's events, in its main thread."""

    def observe(self, event: Event) -> None:
        """Take an event; return quickly and never raise. Events that are of no use are passed over."""


class Observers:
    """Give each event to several observers in their order; to none, if there are none.

    An observer that raises does not end the work: its first error at each type of event is logged, and it goes on.
    """

    def __init__(self, *observers: Observer) -> None:
        self._all = observers
        self._failed: set[tuple[str, str]] = set()

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        for observer in self._all:
            try:
                observer.observe(event)
            except Exception as error:  # noqa: BLE001  # what watches the work does not end it
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
                method=names[1],  # the key of versions whose observers had a method for each event
                error=f"{type(error).__name__}: {error}",
                where=place_of(error),
                remedy="the work goes on, and what this observer shows may lack something; please report it",
            )
