"""The facts that `adawise status` reports, as dataclasses.

Their fields are its JSON, and the comments beside them are its reference (`tools.docs`). Times are ISO 8601 in UTC,
ages and spans are seconds, and null means not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from adawise.output.finding import Finding
from adawise.watch.backlog import BEHIND_S, PartitionLag
from adawise.watch.row import CameraState

VERSION = 1
"""The version of the JSON. It rises only if a field is removed or changes its meaning; fields may be added without."""

STATES = {
    CameraState.FAILING: "messages of its partition wait, and nothing was committed for two minutes",
    CameraState.SILENT: "nothing of it came for a minute, and for ten times its usual pause, although its partition is "
    "read; for an hour where it came less than twice within the window",
    CameraState.REJECTED: "a tenth of its images or more were rejected",
    CameraState.CHANGED: "its alpha over the last minute is .10 or more from that over the four minutes before, or it "
    "began to learn anew within the last ten minutes",
    CameraState.OK: "none of these",
    CameraState.GONE: "nothing of it came for a day; its neighbours go on",
}
"""The states of a camera, the most urgent first."""

STALLED_S = 120.0
"""Seconds without a segment after which a partition in which messages wait is stalled."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A worker: a member of the consumer group, or, where the broker was not asked, who wrote last."""

    client_id: str  # kafka.client_id of its settings; "" if the broker was not asked
    host: str  # as the broker sees it, or of the process that wrote
    member: str  # its id in the group, or HOST:PID of the process that wrote
    partitions: Sequence[int]  # of the topic, that it has


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that is not ready, or waits for something, as it wrote into the root a moment ago."""

    worker: str  # HOST:PID
    age_s: float  # how long ago it wrote that
    status: str  # as of its /readyz: ready, joining, stuck
    reasons: Sequence[str]  # what is wrong, a sentence each
    waits_for: dict[str, float]  # broker, topic, permission, store or log: for how many seconds each has failed
    is_store_full: bool  # it is the store, and that has no room


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition of the topic, with its chain."""

    topic: str
    partition: int
    member: str | None  # of which worker; null if of nobody, or if the broker was not asked
    writer: str | None  # HOST:PID of the process that wrote the newest segment
    log_start: int | None  # first offset that the broker still has
    log_end: int | None  # the offset after its last
    committed: int | None  # what the group has committed: a hint
    next_offset: int | None  # where the chain ends: offsets below are in rows or pending
    pending: int | None  # offsets below that were read, and whose batch is not complete
    lag: int | None  # messages that have no rows yet
    lag_s: float | None  # age of the oldest of them, by its Kafka timestamp; 0 if there is none
    arriving_per_s: float | None  # messages that came over the last five minutes, by their Kafka timestamps
    served_per_s: float | None  # messages that got rows over the last five minutes
    catch_up_s: float | None  # until none waits, at these rates; 0 if none is a minute old; null: never, or not known
    segment: str | None  # the newest
    committed_at: str | None  # when it was written
    commit_age_s: float | None  # and how long ago
    method: str | None  # how alpha was chosen there: what it adapts by, or which alpha is fixed, and who says so
    streams: int | None  # that have a state
    rows: int  # within the window
    reads_s: float  # how far back the newest segments were read; less than the window if there are many
    gaps: Sequence[dict[str, object]]  # offsets without rows within the window: first, last, offsets, reason
    holes: Sequence[str]  # segments that are missing from the chain
    holes_looked_for: bool  # false where the chain is too long to list: `adawise verify` does
    unclean_starts: int  # workers that had it and did not end in order

    @property
    def called(self) -> str:
        """The name of the partition, such as frames/3."""
        return f"{self.topic}/{self.partition}"

    @property
    def backlog(self) -> PartitionLag:
        """The lag of the partition, and how it changes."""
        return PartitionLag(self.lag, self.lag_s, self.arriving_per_s, self.served_per_s)

    @property
    def is_stalled(self) -> bool:
        """True if a worker has the partition, but nothing was committed for two minutes although messages wait.

        If the oldest waiting message is younger than a minute, the partition is not stalled: its segment may be due.
        """
        waits = bool(self.lag) and (self.lag_s is None or self.lag_s > BEHIND_S)
        return waits and self.member is not None and (self.commit_age_s or 0.0) > STALLED_S


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A camera, as the newest segments have it."""

    stream_id: str
    topic: str
    partition: int
    state: CameraState
    why: str  # that, in a sentence; "" if there is nothing to say
    last_seen: str | None  # when its last image was served or rejected, by the worker's clock
    age_s: float | None  # how long ago that was
    alpha: float | None  # that served its last batch
    alphas: Sequence[float]  # of its last batches within the window, a mean for five seconds, oldest first, 120 at most
    alpha_steps: Sequence[int]  # when each was: Unix time over five
    condition: int | None  # that it is in, by the number that its stream gave it
    returns: int  # how often it came back into it
    images: int  # within the window
    images_per_s: float | None  # while it was sending within the window
    rejected: int  # images of it that were, within the window
    reasons: dict[str, int]  # why
    forward_equivalents: float | None  # images through the image tower over images
    agreement: float | None  # share of images of one class by zero-shot and fine-tuned, where both were asked
    top: Sequence[tuple[str, float]]  # classes that were served most, with their shares; three at most
    changed: str | None  # when its conditions changed last within the window


@dataclass(frozen=True, slots=True)
class RejectStatus:
    """Images that were rejected for one reason, within the window."""

    reason: str
    images: int
    streams: int  # that they came from, those without a name as one
    last: str | None  # when the newest was written


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The whole status of a fleet."""

    at: str  # when it was asked
    root: str
    root_id: str | None
    topic: str
    group: str
    purpose: str  # run, or replay, of which the broker knows nothing
    window_s: float  # how far back cameras, gaps and rejects are looked at
    not_asked: dict[str, str]  # root or broker: why it was not, or could not be, asked
    group_state: str | None  # as the broker calls it, such as Stable or PreparingRebalance
    troubles: Sequence[Finding]  # the most urgent first
    members: Sequence[MemberStatus]
    workers: Sequence[WorkerStatus]  # those that said of themselves a moment ago that they are not well
    free_bytes: int | None  # that the file system of the root still takes; null of an object store
    partitions: Sequence[PartitionStatus]
    camera_states: dict[str, int]  # how many cameras are in which state
    cameras: Sequence[CameraStatus]  # troubled ones first
    rejects: Sequence[RejectStatus]
    version: int = field(default=VERSION)

    @property
    def is_well(self) -> bool:
        """True if there are no troubles."""
        return not self.troubles

    def document(self) -> dict[str, object]:
        """Return the status as its JSON document has it (docs/reference/status.md)."""
        document = asdict(self)
        return {"version": document.pop("version"), "well": self.is_well, **document}

    @property
    def methods(self) -> list[str]:
        """The methods by which alpha is chosen; with their partitions if there is more than one method."""
        known: dict[str, list[str]] = {}
        for each in self.partitions:
            if each.method is not None:
                known.setdefault(each.method, []).append(each.called)
        return [*known] if len(known) < 2 else [f"{', '.join(where)}: {method}" for method, where in known.items()]
