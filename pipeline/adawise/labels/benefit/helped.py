"""Did adapting alpha help? With labels: accuracies and their intervals; without: estimates, which are called so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

SERVED, ZERO_SHOT, FINE_TUNED, BEST, SCENE = "served", "zero-shot", "fine-tuned", "best fixed alpha", "scene_label"
"""Names of arms."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the middle 95 % of its bootstrap, over batches as they come (images of a batch are alike)."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """False of one batch alone: the ends are nan."""
        return not math.isnan(self.low)

    @property
    def sign(self) -> int:
        """1 where all of it is above 0, -1 where all of it is below; 0 where it has 0 in it, or is not known."""
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm: `served`, or what could have been: `zero-shot`, `fine-tuned`, `alpha 0.5`, `scene_label`, and so on.

    `images` are the labelled images for which its answer is known; `gain` is served less this arm on the same images,
    in accuracy; None for `served` itself. `ece` is over 15 bins of confidence; nan where no confidence is known.
    `source` says where its answers are from: the rows, another run, the model on a recording.
    """

    name: str
    alpha: float  # nan for `served`
    images: int
    accuracy: Interval
    ece: float
    gain: Interval | None
    source: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts `[true][served]` over `classes`; those beyond the most frequent are in the last class, `other`."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy that was estimated without labels, and how."""

    name: str
    value: float
    how: str


@dataclass(frozen=True, slots=True)
class Helped:
    """The answer. `arms` is empty without labels; `by_camera` has the arms of each camera with enough labels."""

    labelled: int
    accepted: int
    labels_from: str
    arms: tuple[Arm, ...]
    by_camera: Mapping[str, tuple[Arm, ...]]
    confusion: Mapping[str, Confusion]  # by the arm's name
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...] = ()
