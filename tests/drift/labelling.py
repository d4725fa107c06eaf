"""Cameras whose accuracy is known and of which some images are labelled, as bins: do bands hold what they promise?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from adawise_drift.events.accuracy import over_time
from adawise_drift.events.measures import Binned

BEGIN_US = 1_780_272_000_000_000  # 2026-06-01, a Monday
HOUR_US = 3_600_000_000
IMAGES = 32


@dataclass(frozen=True)
class Labelling:
    """Batches of 32 images every 15 minutes. `share` of the batches have labels, on `labels` of their images each.

    Accuracy has a mean of `level`, moves by `swing` over the days, and is that of a batch's scene, with `spread` around
    it: images of a batch are right or wrong together.
    """

    days: int
    share: float
    labels: int
    level: float
    swing: float
    spread: float


DESIGNS = {
    "whole batches, now and then": Labelling(30, 0.04, 32, 0.8, 0.1, 0.15),
    "a few images of each batch": Labelling(30, 1.0, 3, 0.7, 0.1, 0.15),
    "three images a day": Labelling(60, 0.01, 3, 0.8, 0.0, 0.1),
    "nearly always right": Labelling(30, 0.05, 16, 0.97, 0.0, 0.03),
    "one day, all images": Labelling(1, 1.0, 32, 0.6, 0.2, 0.15),
}


def binned(at_us: npt.NDArray[np.int64], **columns: Any) -> Binned:
    """A batch a bin, nothing known but what is said."""
    n = len(at_us)
    known: dict[str, Any] = {"time_us": at_us, "last_us": at_us, "batches": np.ones(n, np.int64)}
    counts = {"images": IMAGES, "compared": 0, "agreed": 0, "rejected": 0, "labelled": 0, "correct": 0}
    known |= {name: np.full(n, count) for name, count in counts.items()}
    known |= {each.name: np.full(n, np.nan) for each in fields(Binned) if each.name not in known}
    return Binned(**(known | columns))


def drawn(design: Labelling, rng: np.random.Generator) -> tuple[Binned, npt.NDArray[np.float64]]:
    """A camera, and its accuracy at each batch without what is by chance of the batch."""
    at_us = BEGIN_US + HOUR_US // 4 * np.arange(96 * design.days)
    path = design.level + design.swing * np.sin(np.arange(len(at_us)) / 96 * 2 * np.pi / 9 + rng.uniform(0, 6))
    strength = path * (1 - path) / design.spread**2 - 1
    right = rng.beta(path * strength, (1 - path) * strength)
    labelled = np.where(rng.random(len(at_us)) < design.share, design.labels, 0)
    return binned(at_us, labelled=labelled, correct=rng.binomial(labelled, right)), path


def covered(design: Labelling, seed: int, draws: int) -> tuple[float, float, float]:
    """The share of points whose band has the truth in it, that of bands of independent images, and the mean width."""
    rng = np.random.default_rng(seed)
    held, naive, widths = list[bool](), list[bool](), list[float]()
    for _ in range(draws):
        camera, path = drawn(design, rng)
        for point in over_time([camera]).of("measured"):
            there = (camera.time_us >= point.since_us) & (camera.time_us <= point.until_us)
            truth = float(np.average(path[there], weights=camera.labelled[there]))
            held.append(point.low <= truth <= point.high)
            half = 1.96 * np.sqrt(point.accuracy * (1 - point.accuracy) / point.images)
            naive.append(abs(point.accuracy - truth) <= half)
            widths.append(point.high - point.low)
    return float(np.mean(held)), float(np.mean(naive)), float(np.mean(widths))
