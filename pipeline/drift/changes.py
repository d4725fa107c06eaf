"""Change points of one camera's series, after the fact: when did its alpha (or its objective, ...) move for good.

PELT (Killick 2012, by `ruptures`) with squared error and a penalty in units of the series' long-run variance
(Lavielle and Moulines 2000): for independent noise that is the usual penalty, but alphas are not independent. Before it
a daily cycle is taken out, after it steps in one direction are tried as one ramp, and what is too small to matter goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import ruptures

from pipeline.drift.changes_noise import Series, block_means, long_run_variance

Times = npt.NDArray[np.int64]
Kind = Literal["step", "ramp", "cycle"]


@dataclass(frozen=True)
class Sensitivity:
    """What counts as a change of a series.

    `smallest`: size that matters, in the unit of the series. `memory`: batches that a flat series keeps a value for,
    before it has shown its own memory: 1 for a value measured anew by each batch, dozens for the alpha of a search.
    `penalty`: evidence that a change must bring, in squared standard errors per ln of the independent values.
    `settle`: batches that a level must hold. `prior_weight`: blocks that the first guess of the noise counts for.
    """

    smallest: float = 0.1
    memory: float = 60.0
    penalty: float = 3.0
    settle: int = 16
    prior_weight: float = 6.0


ALPHA = Sensitivity()
"""For alphas; chosen on the development half of `python -m tests.bench changes`."""


def measured_anew(smallest: float) -> Sensitivity:
    """For a series whose values each batch measures anew (objective level, confidence, share of rejects)."""
    return Sensitivity(smallest=smallest, memory=1.0)


@dataclass(frozen=True)
class Change:
    """A change of the level of a series.

    `index` and `time_us` are those of the first batch after a step, and of the first one within a ramp; `end_index` and
    `end_us` the same for a step, and those of the first batch after a ramp. `before`, `after`: mean levels,
    without the daily cycle. `score`: size in standard errors. `interval_us`: where the time lies with 95 % probability.
    """

    index: int
    time_us: int
    end_index: int
    end_us: int
    before: float
    after: float
    kind: Kind
    score: float
    interval_us: tuple[int, int]

    @property
    def size(self) -> float:
        """Signed, in the unit of the series."""
        return self.after - self.before


_MOST_BINS = 4096  # a year of one camera has a bin in two hours
_BAI_95 = 11.0  # of the argmax of a two-sided Brownian motion with drift (Bai 1997)


def find_changes(times_us: Times, values: Series, *, sensitivity: Sensitivity = ALPHA) -> tuple[Change, ...]:
    """The changes of a series, by time.

    Args:
        times_us: `[n]`, capture times, microseconds, not decreasing; silence may lie between any two.
        values: `[n]`; what is not finite is left out.
        sensitivity: what counts as a change.

    Raises:
        ValueError: the two differ in length, or times decrease.
    """
    if len(times_us) != len(values):
        raise ValueError(f"expected as many times as values, got {len(times_us)} and {len(values)}")
    if np.any(np.diff(times_us) < 0):
        raise ValueError("expected times that do not decrease; sort the series by time first")
    kept = np.flatnonzero(np.isfinite(values))
    x = values[kept].astype(np.float64)
    if len(x) < 2 * sensitivity.settle:
        return ()
    prior = sensitivity.smallest**2 * sensitivity.memory
    variance = long_run_variance(x, prior=prior, prior_weight=sensitivity.prior_weight)
    bounds = _pruned(x, _segmented(x, variance, sensitivity), sensitivity.smallest)
    return tuple(_steps(times_us[kept], kept, x, bounds, variance))


def _segmented(x: Series, variance: float, sensitivity: Sensitivity) -> list[int]:
    """Bounds of the segments, 0 and n among them."""
    width = math.ceil(len(x) / _MOST_BINS)
    binned = block_means(x, width)
    independent = max(math.e, len(x) / sensitivity.memory)
    penalty = sensitivity.penalty * variance / width * math.log(independent)
    least = max(1, math.ceil(sensitivity.settle / width))
    if len(binned) < 2 * least:
        return [0, len(x)]
    search = ruptures.KernelCPD(kernel="linear", min_size=least).fit(binned.reshape(-1, 1))
    found = search.predict(pen=penalty)
    return [0, *(int(bound) * width for bound in found[:-1]), len(x)]


def _pruned(x: Series, bounds: list[int], smallest: float) -> list[int]:
    """Without the bounds between levels that differ by less than `smallest`, the least first."""
    bounds = list(bounds)
    while len(bounds) > 2:
        sizes = np.abs(np.diff(levels(x, bounds)))
        least = int(np.argmin(sizes))
        if sizes[least] >= smallest:
            break
        del bounds[least + 1]
    return bounds


def levels(x: Series, bounds: list[int]) -> Series:
    """`[segments]`: mean of each."""
    return np.array([x[start:end].mean() for start, end in pairwise(bounds)])


def _steps(times_us: Times, kept: npt.NDArray[np.int64], x: Series, bounds: list[int], variance: float) -> list[Change]:
    level = levels(x, bounds).tolist()
    changes = []
    for i in range(1, len(bounds) - 1):
        before, at, after = bounds[i - 1 : i + 2]
        size = level[i] - level[i - 1]
        error = math.sqrt(variance * (1.0 / (at - before) + 1.0 / (after - at)))
        score = abs(size) / error
        reach = math.ceil(_BAI_95 * variance / size**2)
        interval = (int(times_us[max(before, at - 1 - reach)]), int(times_us[min(after - 1, at + reach)]))
        time_us, index = int(times_us[at]), int(kept[at])
        changes.append(Change(index, time_us, index, time_us, level[i - 1], level[i], "step", score, interval))
    return changes
