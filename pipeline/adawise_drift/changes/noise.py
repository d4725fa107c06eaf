"""How much a series moves by itself: long-run variance, robust against the very changes that are looked for.

The alphas of a settled stream are no white noise: the search stays at one alpha for dozens of batches, then at another.
A mean over n of them has the variance of n / memory independent ones, which is what decides whether two levels differ.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from adawise.labels.arrays import Floats

_SQUARED_NORMAL_MEDIAN = 0.4549  # median of the square of a standard normal
_FEWEST_BLOCKS = 12  # of a scale: a median of fewer differences says little
_SHORTEST_BLOCK, _LONGEST_BLOCK = 16, 512  # values; what is kept for longer is a level, not noise


def block_means(x: Floats, width: int) -> Floats:
    """Return `[ceil(n / width)]` means of `width` consecutive values; the last block may be shorter."""
    starts = np.arange(0, len(x), width)
    means: Floats = np.add.reduceat(x, starts) / np.diff(np.append(starts, len(x)))
    return means


def levels(x: Floats, bounds: list[int]) -> Floats:
    """Return `[segments]`: the mean of each, from bound to bound."""
    return np.array([x[start:end].mean() for start, end in pairwise(bounds)])


def long_run_variance(x: Floats, *, prior: float, prior_weight: float) -> float:
    """Return the variance of the mean of n values times n, for large n, in the square of the unit of `x`.

    From the median of squared differences of adjacent block means (Wu and Zhao 2007), which a few steps do not move; at
    the block length where it is largest, because noise with a memory shows all of itself in long blocks alone. A
    short series has few blocks, so `prior` counts as `prior_weight` blocks.
    """
    total = np.concatenate([[0.0], np.cumsum(x)])
    found = prior
    block = _SHORTEST_BLOCK
    while len(x) >= _FEWEST_BLOCKS * block and block <= _LONGEST_BLOCK:
        stride = max(1, block // 4)
        starts = np.arange(0, len(x) - 2 * block + 1, stride)
        differences = (total[starts + 2 * block] - 2.0 * total[starts + block] + total[starts]) / block
        own = float(np.median(differences**2)) / _SQUARED_NORMAL_MEDIAN * block / 2.0
        blocks = len(x) / block
        shrunk = (prior_weight * prior + blocks * own) / (prior_weight + blocks)
        found = shrunk if block == _SHORTEST_BLOCK else max(found, shrunk)
        block *= 2
    return max(found, math.ulp(1.0))
