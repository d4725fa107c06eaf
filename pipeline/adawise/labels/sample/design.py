"""The draw of a camera's images of one day, with known probabilities: pure, and the same for the same seed.

Images of a batch are alike. So the batches of the day are divided at random into as many groups as images are wanted,
and one image is drawn of each group. The terms of two groups are then independent if batches are, and they are
independent given the day's images in any case.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
By = Literal["uniform", "confidence"]

FLOOR = 0.75
"""The least chance of an image among draws by confidence, as a share of the chance that uniform draws give it."""


@dataclass(frozen=True, slots=True)
class Design:
    """The way in which images are drawn: `per_day` of each camera and day, fewer where it has fewer batches."""

    per_day: int
    by: By = "uniform"
    seed: int = 0

    @property
    def floor(self) -> float:
        """Least ratio of an image's probability to that of a uniform draw, in (0, 1]; weights are 1 / floor at most."""
        return 1.0 if self.by == "uniform" else FLOOR


@dataclass(frozen=True, slots=True, eq=False)
class DrawnImages:
    """The image that was drawn of each group: arrays `[groups]`.

    `place` is among the day's images, `probability` that of the image in its group, which has `images` of a mean
    confidence `mean`.
    """

    place: Integers
    probability: Floats
    images: Integers
    mean: Floats


def draw(confidence: Floats, batch: Integers, design: Design, stream_id: str, day: int) -> DrawnImages:
    """Draw of a camera's images of a day.

    There are so few groups that none has more than twice its part of the images, however batches differ in size.

    Args:
        confidence: of each image, in [0, 1], `[images]`, one image or more.
        batch: the number of its batch, from 0, `[images]`.
        design: how to draw.
        stream_id: the camera; with the day and the seed it decides what is drawn.
        day: days since 1970.
    """
    name = int.from_bytes(sha256(stream_id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    rng, sizes = np.random.default_rng([design.seed, day, name]), np.bincount(batch)
    groups = min(design.per_day, len(sizes), len(confidence) // int(sizes.max()))
    group = divided(sizes, groups, rng)[batch]
    order, counts = np.argsort(group, kind="stable"), np.bincount(group, minlength=groups)
    starts = np.cumsum(counts) - counts
    known = confidence[order]
    ratio = np.ones_like(known)
    if design.by == "confidence":
        # By the standard deviation of a right answer, if confidence is calibrated (Zrnic and Candès, 2024).
        unsure = np.sqrt(known * (1.0 - known))
        mean = np.repeat(np.add.reduceat(unsure, starts) / counts, counts)
        mixed = design.floor + (1.0 - design.floor) * unsure / np.where(mean > 0.0, mean, 1.0)
        ratio = np.where(mean > 0.0, mixed, 1.0)
    probability = ratio / np.repeat(counts, counts)
    edges = np.cumsum(probability)  # those of group g end at g + 1
    picked = np.searchsorted(edges, np.arange(groups) + rng.random(groups), side="right")
    picked = np.clip(picked, starts, starts + counts - 1)  # sums of floats may be off in the last digit
    return DrawnImages(order[picked], probability[picked], counts, np.add.reduceat(known, starts) / counts)


def divided(sizes: Integers, groups: int, rng: np.random.Generator) -> Integers:
    """Return the group of each batch: in random order, each goes to the group with the fewest images `[batches]`.

    With G groups, N images and batches of N / G at most, no group has more than 2 N / G (Graham, 1969).
    """
    order = rng.permutation(len(sizes))
    found = np.empty(len(sizes), np.int64)
    if sizes.min() == sizes.max():
        found[order] = np.arange(len(sizes)) % groups
        return found
    loads = np.zeros(groups, np.int64)
    for each in order:
        found[each] = least = int(loads.argmin())
        loads[least] += sizes[each]
    return found
