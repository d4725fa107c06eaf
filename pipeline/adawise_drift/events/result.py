"""Values that a drift analysis finds: series, events, accuracies, conditions and cameras. `Report` holds them.

Times are in microseconds since the epoch (UTC), alphas, shares and accuracies in [0, 1], objectives in the nats of what
was minimised. A number that cannot be known is nan, which JSON shows as null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adawise.labels.arrays import Flags, Floats, Integers, empty
from adawise.labels.benefit.helped import Interval

PIXELS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A camera over time, in bins of equal width that had batches; every array is `[bins]`.

    Extremes are kept: `alpha_low` and `alpha_high` are of all batches of a bin, `tried_low` and `tried_high` of all
    its trials. `posterior_sd` is the surrogate's at the served alpha: how exactly it knows the objective there, beside
    that of other alphas. `reference` is the card's mean objective at the served alpha. Means are over batches, where
    nothing else is said; a bin without any is not there, and what a bin does not know is nan.
    """

    time_us: Integers  # the begin of the bin
    batches: Integers
    images: Integers
    alpha: Floats  # mean over images
    alpha_low: Floats
    alpha_high: Floats
    tried_low: Floats
    tried_high: Floats
    objective: Floats
    posterior_sd: Floats
    reference: Floats
    forward_equivalents: Floats
    confidence: Floats
    endpoints_agree: Floats  # share of images on which zero-shot and fine-tuned say the same, where both were asked
    rejected: Integers  # images
    luminance: Floats  # this and the next four as the trace has them: natural logarithms
    contrast: Floats
    gradient: Floats
    laplacian: Floats
    colourfulness: Floats


CauseKind = Literal["silence", "model", "reset", "others", "condition", "incident", "swap", "likely", "known"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Something else that changed at the same time. `kind` is a stable word, `sentence` says it with its numbers."""

    kind: CauseKind
    sentence: str


@dataclass(frozen=True, slots=True)
class Example:
    """A frame near an event, of a recording; `image` is a small JPEG as a `data:` URL."""

    side: Literal["before", "after"]
    time_us: int
    row_id: str
    label: str
    confidence: float
    alpha: float
    image: str


@dataclass(frozen=True, slots=True)
class GalleryFrame:
    """A frame that is shown for what was said of it; `kind` is "least confident", "endpoints disagree" or "class".

    `zero_shot` and `fine_tuned` are None where they were not asked; `image` as of an `Example`.
    """

    kind: str
    stream_id: str
    time_us: int
    row_id: str
    label: str
    zero_shot: str | None
    fine_tuned: str | None
    confidence: float
    image: str


@dataclass(frozen=True, slots=True)
class CameraChange:
    """Alpha moved and stayed: from a level of `before` to one of `after`, between `earliest_us` and `latest_us`.

    `kind` is "step" for a move within the resolution, "ramp" for one that took from `earliest_us` to `latest_us`. What
    else happened then is said by the events.
    """

    time_us: int
    earliest_us: int
    latest_us: int
    before: float
    after: float
    kind: str

    @property
    def size(self) -> float:
        """`after` less `before`."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class AccuracyCost:
    """A change of accuracy that came with an event: in [-1, 1], negative where it cost some, with its 95 % interval.

    `how`: measured, from labels on both sides; estimated, from confidence. `is_doubted`: labels show that such
    estimates are wrong on this camera.
    """

    accuracy: float
    low: float
    high: float
    how: Literal["measured", "estimated"]
    is_doubted: bool = False


How = Literal["measured", "confidence", "agreement"]


@dataclass(frozen=True, slots=True)
class AccuracyPoint:
    """Accuracy of the images of a time, with a band of 95 %.

    `how`: measured, by labels, of which there are `images`; or estimated by the confidence of `images` or by how often
    the endpoints agree on `images`. The band of an estimate has in it how far such estimates were off.
    """

    since_us: int
    until_us: int
    how: How
    accuracy: float
    low: float
    high: float
    images: int


@dataclass(frozen=True, slots=True)
class AccuracyOverTime:
    """`off`: the estimate by confidence less the measured accuracy, on labelled images; None where there are too few.

    `is_wrong`: labels say that the estimate is off by more than its error.
    """

    points: tuple[AccuracyPoint, ...] = ()
    off: Interval | None = None
    is_wrong: bool = False

    def of(self, how: How) -> tuple[AccuracyPoint, ...]:
        """Return the points of one kind, by time."""
        return tuple(point for point in self.points if point.how == how)


NOTHING_KNOWN = AccuracyOverTime()


@dataclass(frozen=True, slots=True, eq=False)
class Stays:
    """The conditions that a camera was in, by time: arrays `[stays]`. One ends with a switch, or a pause of an hour.

    `state`: how often the camera's state had begun anew by then; numbers of conditions are of one state. `began`: it is
    no mere pause that was before. `returned`: the camera had been in this condition before. Two switches within a bin
    (a 20,000th of the time) may be one here.
    """

    since_us: Integers  # of its first batch
    until_us: Integers  # of its last one
    state: Integers
    condition: Integers
    batches: Integers
    alpha: Floats
    objective: Floats
    began: Flags
    returned: Flags
    alarms: Integers  # batches with one


NO_STAYS = empty(Stays)


@dataclass(frozen=True, slots=True)
class CameraCondition:
    """A condition of a camera over the whole time; alpha and objective are means over batches.

    `name`: its number, behind that of the camera's state (from 1) where it had several; many rare ones are one without
    a number. `hours`: those [from, to) of the day that it is typical for, by the camera's clocks; empty if it is seen
    at any, or was on too few days. `alarms`: the share of its batches with an alarm.
    """

    name: str
    number: int | None
    batches: int
    share: float
    visits: int
    returns: int
    first_us: int
    last_us: int
    alpha: float
    objective: float
    alarms: float
    hours: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """A camera's conditions, the most frequent first, and its times in cells of `cell_us` from `begin_us` on.

    `count`: how many there are, of which `shown` are listed one by one and the rest as one. `runs` `[runs, 4]`: first
    cell, how many, place among the conditions, and the minute of the day where it begins; by days (`is_daily`) a run
    ends with its day.
    """

    conditions: tuple[CameraCondition, ...]
    count: int
    shown: int
    is_daily: bool
    cell_us: int
    begin_us: int
    runs: Integers

    @property
    def returns(self) -> int:
        """Number of times that the camera came back into a condition."""
        return sum(condition.returns for condition in self.conditions)

    @property
    def alarms(self) -> float:
        """The share of all batches with an alarm."""
        return sum(condition.share * condition.alarms for condition in self.conditions)


NO_CALENDAR = Calendar((), 0, 0, False, 1, 0, np.empty((0, 4), np.int64))

Shape = Literal[
    "step", "ramp", "spike", "unrest", "cycle begun", "cycle ended", "cycle changed", "silence", "ended", "model"
]
Severity = Literal["failing", "changed", "noted"]
SEVERITIES: tuple[Severity, ...] = ("failing", "changed", "noted")


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """Something that happened to a measure of a camera.

    A step, a new model, a cycle that began or ended: at a time between `earliest_us` and `latest_us`. A ramp, spike,
    silence, unrest: from `since_us` until `until_us`. `before`, `after`: levels in the measure's `unit`; of a spike
    what is usual and what there was instead, of unrest and cycles the swing, of the mix how far it is from the one
    before (total variation); nan where there is none. `score`: size in standard errors, nan where none is known.
    `next`: the command to go on with. `detail`: what the levels do not say, as the classes that came and went.
    `incident`: number of those of one camera and moment, from 1. `examples`: frames of a recording, where it is the
    lead of its incident.
    """

    stream_id: str
    measure: str
    shape: Shape
    since_us: int
    until_us: int
    earliest_us: int
    latest_us: int
    before: float = math.nan
    after: float = math.nan
    unit: str = ""
    score: float = math.nan
    severity: Severity = "changed"
    causes: tuple[Cause, ...] = ()
    cost: AccuracyCost | None = None
    next: str = ""
    incident: int = 0
    detail: str = ""
    examples: tuple[Example, ...] = ()

    @property
    def size(self) -> float:
        """`after` less `before`."""
        return self.after - self.before

    @property
    def state(self) -> str:
        """The severity in the words for a camera's state: silent, where images should have come since."""
        return "silent" if self.shape == "ended" else self.severity


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch between two changes: its mean alpha."""

    since_us: int
    until_us: int
    alpha: float


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One camera. `drift` is the distance between the highest and the lowest of its levels: 0 if nothing changed.

    `class_mix` are shares of the served classes, most frequent first: (class, share over all, in the first and in the
    last quarter of the time). `labels` of rejects are the reasons, with how many.
    """

    stream_id: str
    batches: int
    images: int
    rejected: int
    first_us: int
    last_us: int
    alpha: float  # mean over images
    alpha_low: float
    alpha_high: float
    alpha_last: float  # of the newest batch
    forward_equivalents: float
    confidence: float
    endpoints_agree: float
    drift: float
    travelled: float  # sum of the sizes of the changes, without their signs
    levels: tuple[Stretch, ...]
    changes: tuple[CameraChange, ...]
    class_mix: tuple[tuple[str, float, float, float], ...]
    reasons: Mapping[str, int]
    resets: Mapping[str, int]
    silences: tuple[tuple[int, int], ...]  # [from, until) without an image, longer than what is usual for it
    series: Series
    accuracy: AccuracyOverTime = NOTHING_KNOWN
    calendar: Calendar = NO_CALENDAR
    lacking: tuple[str, ...] = ()  # sentences on the classes that its shortlist lacks


@dataclass(frozen=True, slots=True)
class CameraGroup:
    """Cameras whose alphas move the same way at the same times, `moves` times.

    `chance` is the share of histories, with each camera's moves at times of its own, that have as much of it.
    """

    stream_ids: tuple[str, ...]
    moves: int
    chance: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Model:
    """A pair (or precision, or classes) that served, and when."""

    fingerprint: str
    first_us: int
    last_us: int
    batches: int
