"""Intervals of accuracies and of their differences: a paired bootstrap over batches.

It is the bootstrap of Efron (1979) over whole clusters (Field and Welsh, 2007), with percentile intervals (Efron and
Tibshirani, 1993, chapter 13).

Images of a batch are alike, and so are the mistakes on them: drawn one by one they would give too narrow intervals. A
batch is drawn whole, with the right answers of both sides, so that what is hard for both cancels. Batches that follow
each other are alike too, which this does not know: where a scene does not change for long, the true interval is wider.

Where images of several cameras are to speak for all of them, cameras are drawn first, and then batches of each camera
(Davison and Hinkley, 1997, section 3.8): what a camera shows is hard in all of its batches.

Only how many batches have which counts matters, so 10^8 images are as quick as 10^4: batches with the same counts are
one kind, and how often a kind is drawn is multinomial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise.labels.benefit.helped import Interval

RESAMPLES = 1000
_TAIL = 2.5  # percent on either side
_DRAWN_AT_ONCE = 4_000_000  # numbers


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Batches by their counts, `[K]`: `times` of them have `images`, `served` right as served and `own` by the arm."""

    images: Integers
    served: Integers
    own: Integers
    times: Integers

    @property
    def batches(self) -> int:
        """Number of batches."""
        return int(self.times.sum())

    @property
    def total(self) -> int:
        """Number of images of all batches."""
        return int(self.times @ self.images)


def intervals(kinds: Kinds, *, seed: int) -> tuple[Interval, Interval]:
    """Return the arm's accuracy, and that of what was served less it, on the same images.

    Of one batch alone nothing is known: then the ends are nan.
    """
    drawn = _drawn(kinds, seed)  # [1000, 3]
    accuracy, gain = drawn[:, 2] / drawn[:, 0], (drawn[:, 1] - drawn[:, 2]) / drawn[:, 0]
    images, served, own = (int(kinds.times @ each) for each in (kinds.images, kinds.served, kinds.own))
    batches = kinds.batches
    return _interval(own / images, accuracy, batches), _interval((served - own) / images, gain, batches)


def gain_over_cameras(cameras: Sequence[Kinds], *, seed: int) -> Interval:
    """Return the arm's accuracy less that of what was served, for cameras such as these.

    Of one camera it is the interval for that camera alone; of one batch alone nothing is known.

    Args:
        cameras: the batches of each camera.
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    n = len(cameras)
    times = rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES)  # [1000, n]
    sums, images, gained = np.zeros((RESAMPLES, 2)), 0, 0
    for kinds, drawn in zip(cameras, times.T, strict=True):
        counts = np.stack([kinds.images, kinds.own - kinds.served], axis=1).astype(np.float64)  # [K, 2]
        sums += rng.multinomial(drawn * kinds.batches, kinds.times / kinds.batches) @ counts
        images += kinds.total
        gained += int(kinds.times @ (kinds.own - kinds.served))
    batches = sum(kinds.batches for kinds in cameras)
    return _interval(gained / images, sums[:, 1] / sums[:, 0], batches)


def _drawn(kinds: Kinds, seed: int) -> Floats:
    """Return sums of images, of those right as served and by the arm, in each resample: `[1000, 3]`."""
    rng = np.random.default_rng(seed)
    counts = np.stack([kinds.images, kinds.served, kinds.own], axis=1).astype(np.float64)  # [K, 3]
    share = kinds.times / kinds.times.sum()
    rows = max(1, _DRAWN_AT_ONCE // len(share))
    parts = [
        rng.multinomial(kinds.batches, share, size=min(rows, RESAMPLES - done)) @ counts
        for done in range(0, RESAMPLES, rows)
    ]
    sums: Floats = np.concatenate(parts)
    return sums


def _interval(value: float, resampled: Floats, batches: int) -> Interval:
    if batches < 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(resampled, [_TAIL, 100.0 - _TAIL])
    return Interval(value, float(low), float(high))
