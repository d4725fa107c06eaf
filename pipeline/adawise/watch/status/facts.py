"""The facts that `adawise status` reports, as dataclasses.

Their fields are its JSON, and the comments beside them are its reference (`tools.docs`). Times are ISO 8601 in UTC,
ages and spans are seconds, and null means not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from adawise.output.verify.findings import Finding
from adawise.watch.backlog import BEHIND_S, PartitionLag
from adawise.watch.row import CameraState

VERSION = 1
"""The version of the JSON. It rises only if a field is removed or changes its meaning; fields may be added without."""

STATES = {
    CameraState.FAILING: "messages of its partition wait, and nothing was committed for two minutes",
    CameraState.SILENT: "no image came for a minute, and for ten times its usual pause, although its partition is "
    "read; for an hour if fewer than two came within the window",
    CameraState.REJECTED: "a tenth of its images or more were rejected",
    CameraState.CHANGED: "its alpha over the last minute differs by .10 or more from that over the four minutes "
    "before, or adaptation started anew within the last ten minutes; after a condition that it knows returned, only a "
    "move within that condition counts",
    CameraState.OK: "none of these; for five minutes `why` names a condition that returned",
    CameraState.GONE: "no image came for a day, while other cameras send",
}
"""The states of a camera, the most urgent first."""

STALLED_S = 120.0
"""Seconds without a segment after which a partition in which messages wait is stalled."""


LACKING_SHARE, LACKING_IMAGES = 1 / 40, 10
"""The images of one class that a camera's shortlist lacks, as a share and as a count, from which on it is named."""

LACKING_REMEDY = (
    "where that is right, add the class to scene.shortlists, or remove the camera's list (docs/guide/scene.md)"
)
"""What to do about a camera that shows what its shortlist lacks."""


def lacking(listed: int, off_list: Mapping[str, int]) -> list[str]:
    """Return sentences that name the classes that a camera's shortlist lacks.

    Args:
        listed: its images under the shortlist.
        off_list: those of them whose sure class is not on it, by that class.
    """
    least = max(LACKING_IMAGES, LACKING_SHARE * listed)
    return [
        f"{images} of {listed} images surely show {label!r}, which is not on its shortlist"
        for label, images in off_list.items()
        if images >= least
    ]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A worker: a member of the consumer group, or, where the broker was not asked, who wrote last."""

    client_id: str  # kafka.client_id of its settings; "" if the broker was not asked
    host: str  # as the broker sees it, or that of the process that wrote
    member: str  # its id in the group, or HOST:PID of the process that wrote
    partitions: Sequence[int]  # its partitions of the topic


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that is not ready, or waits for something, as it wrote into the root a moment ago."""

    worker: str  # HOST:PID
    age_s: float  # how long ago it reported this
    status: str  # as in its /readyz: ready, joining, stuck
    reasons: Sequence[str]  # what is wrong, a sentence each
    waits_for: dict[str, float]  # broker, topic, permission, store or log: for how many seconds each has failed
    is_store_full: bool  # true if the store fails because it is full


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition of the topic, with its chain."""

    topic: str
    partition: int
    member: str | None  # id of its worker; null if it has none, or if the broker was not asked
    writer: str | None  # HOST:PID of the process that wrote the newest segment
    log_start: int | None  # first offset that the broker still has
    log_end: int | None  # the offset after its last
    committed: int | None  # what the group has committed: a hint
    next_offset: int | None  # end of the chain: lower offsets are in rows or pending
    pending: int | None  # lower offsets that were read, but whose batch is not complete
    lag: int | None  # messages that have no rows yet
    lag_s: float | None  # age of the oldest such message, by its Kafka timestamp; 0 if there is none
    arriving_per_s: float | None  # messages that came over the last five minutes, by their Kafka timestamps
    served_per_s: float | None  # messages that got rows over the last five minutes
    catch_up_s: float | None  # seconds until the lag ends at these rates; 0 below a minute; null: never, or unknown
    segment: str | None  # the newest segment
    committed_at: str | None  # when the newest segment was written
    commit_age_s: float | None  # how long ago that was
    method: str | None  # how alpha was chosen: the objective, or the fixed alpha, and the setting or card behind it
    tail_share: float | None  # the cost of an image at a second alpha, as a share of a forward; 1: nothing is shared
    label_column: str | None  # column that results have as label, label or scene_label; null without scene.prior
    streams: int | None  # streams with an adaptation state
    rows: int  # rows within the window
    reads_s: float  # how far back the newest segments were read; less than the window if there are many
    gaps: Sequence[dict[str, object]]  # offsets without rows within the window: first, last, offsets, reason
    holes: Sequence[str]  # segments that are missing from the chain
    holes_looked_for: bool  # false if the chain is too long to list: `adawise verify` checks it
    unclean_starts: int  # workers that had the partition and were killed

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
    why: str  # reason of the state; "" if there is none
    last_seen: str | None  # when its last image was served or rejected, by the worker's clock
    age_s: float | None  # how long ago that was
    alpha: float | None  # alpha of its last batch
    alphas: Sequence[float]  # alphas within the window, means over five seconds, oldest first, at most the last 120
    alpha_steps: Sequence[int]  # time of each: Unix time divided by five
    condition: int | None  # number of its current condition, counted by stream
    returns: int  # how often that condition returned
    images: int  # accepted images within the window
    images_per_s: float | None  # rate while it was sending within the window
    rejected: int  # rejected images within the window
    reasons: dict[str, int]  # rejected images by reason
    forward_equivalents: float | None  # images through the image tower over images
    agreement: float | None  # share of images with one class by zero-shot and fine-tuned, where both were evaluated
    top: Sequence[tuple[str, float]]  # at most three most served classes with their shares
    changed: str | None  # when its conditions changed last within the window
    listed: int = 0  # images within the window under the shortlist of its newest batch; 0 without one
    off_list: dict[str, int] = field(default_factory=dict)  # those whose sure class is not on it, by that class

    @property
    def lacking(self) -> list[str]:
        """Sentences that name the classes that its shortlist lacks: a note, and no trouble.

        One camera in twenty to thirty with a list that is right has such a sentence too (measurements, "Shortlists").
        """
        return lacking(self.listed, self.off_list)


@dataclass(frozen=True, slots=True)
class RejectStatus:
    """Images that were rejected for one reason, within the window."""

    reason: str
    images: int
    streams: int  # streams that sent them; images without a stream count as one
    last: str | None  # when the newest row was written


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The whole status of a fleet."""

    at: str  # when the status was taken
    root: str
    root_id: str | None
    topic: str
    group: str
    purpose: str  # run, or replay, which has no group at the broker
    window_s: float  # time span of cameras, gaps and rejects
    not_asked: dict[str, str]  # root or broker: why it was not asked or did not answer
    group_state: str | None  # the broker's name of it, such as Stable or PreparingRebalance
    troubles: Sequence[Finding]  # the most urgent first
    members: Sequence[MemberStatus]
    workers: Sequence[WorkerStatus]  # workers that just reported a problem
    free_bytes: int | None  # free space of the root's file system; null for an object store
    partitions: Sequence[PartitionStatus]
    camera_states: dict[str, int]  # number of cameras by state
    cameras: Sequence[CameraStatus]  # those in trouble first
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
    def label_columns(self) -> list[str]:
        """The columns that results have as label, where there is a choice."""
        return sorted({each.label_column for each in self.partitions if each.label_column is not None})

    @property
    def methods(self) -> list[str]:
        """The methods by which alpha is chosen; with their partitions if there is more than one method."""
        known: dict[str, list[str]] = {}
        for each in self.partitions:
            if each.method is not None:
                known.setdefault(each.method, []).append(each.called)
        return [*known] if len(known) < 2 else [f"{', '.join(where)}: {method}" for method, where in known.items()]
