"""Intervals of accuracies and of their differences: a paired bootstrap over batches.

It is the bootstrap of Efron (1979) over whole clusters (Field and Welsh, 2007), with percentile intervals (Efron and
Tibshirani, 1993, chapter 13).

Images of a batch are alike, and so are the mistakes on them: drawn one by one they would give too narrow intervals. A
batch is drawn whole, with the right answers of both sides, so that what is hard for both cancels. Batches that follow
each other are alike too, which this does not know: where a scene does not change for long, the true interval is wider.

Only how many batches have which counts matters, so 10^8 images are as quick as 10^4: batches with the same counts are
one kind, and how often a kind is drawn is multinomial.
"""

from __future__ import annotations

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
    return _interval(own / images, accuracy, kinds), _interval((served - own) / images, gain, kinds)


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


def _interval(value: float, resampled: Floats, kinds: Kinds) -> Interval:
    if kinds.batches < 2:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(resampled, [_TAIL, 100.0 - _TAIL])
    return Interval(value, float(low), float(high))
