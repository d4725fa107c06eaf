"""Change points of one camera's series, after the fact: when did its alpha (or its objective, ...) move for good.

PELT (Killick 2012, by `ruptures`) with squared error and a penalty in units of the series' long-run variance
(Lavielle and Moulines 2000): for independent noise that is the usual penalty, but alphas are not independent. Before it
a daily cycle is taken out, after it steps in one direction are tried as one ramp, and what is too small to matter goes.
It is done twice: the second time the noise is that of what the first left unexplained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Literal

import numpy as np

from adawise.errors import SettingsError
from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.cycle import daily_cycle
from adawise_drift.changes.noise import block_means, levels, long_run_variance
from adawise_drift.changes.ramp import Move, moves

try:
    import ruptures
except ImportError as error:
    raise SettingsError(
        f"changes are found by the package {error.name or 'ruptures'}; install it with: pip install 'adawise[report]'"
    ) from error

Kind = Literal["step", "ramp"]


@dataclass(frozen=True)
class Sensitivity:
    """What counts as a change of a series.

    `smallest`: size that matters, in the unit of the series. `spread`, `memory`: what is thought of a series' noise
    until it has shown its own, standard deviation and batches that a value is kept for: 1 where each batch measures
    anew, dozens for the alpha of a search.
    `penalty`: evidence that a change must bring, in squared standard errors per ln of the independent values.
    `settle`: batches that a level must hold. `prior_weight`: blocks that the first guess of the noise counts for.
    `cycle`: share of the variance within days that a daily cycle must explain on other days. `ramp`: batches that a
    change must take to be called a ramp. `bins`: of how many means, at most, levels are looked for; each step is then
    put where it fits best.
    """

    smallest: float = 0.1
    spread: float = 0.1
    memory: float = 60.0
    penalty: float = 5.0
    settle: int = 32
    prior_weight: float = 12.0
    cycle: float = 0.2
    ramp: int = 60
    bins: int = 4096  # a year of one camera has a bin in two hours


ALPHA = Sensitivity()
"""For alphas; chosen on the development half of `python -m tools.bench changes`."""


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


_BAI_95 = 11.0  # of the argmax of a two-sided Brownian motion with drift (Bai 1997)


def find_changes(
    times_us: Integers,
    values: Floats,
    *,
    batches: Integers | None = None,
    sensitivity: Sensitivity = ALPHA,
    zone: tzinfo = UTC,
) -> tuple[Change, ...]:
    """Return the changes of a series, by time.

    Args:
        times_us: `[n]`, capture times, microseconds, not decreasing; silence may lie between any two.
        values: `[n]`; what is not finite is left out.
        batches: `[n]`, how many batches each value is the mean of; None: one each.
        sensitivity: what counts as a change.
        zone: by whose clocks a daily cycle is.

    Raises:
        ValueError: the arrays differ in length, or times decrease.
    """
    if len(times_us) != len(values) or (batches is not None and len(batches) != len(values)):
        raise ValueError(
            f"expected as many times and counts as values, got {len(times_us)} times, {len(values)} values"
        )
    if np.any(np.diff(times_us) < 0):
        raise ValueError("expected times that do not decrease; sort the series by time first")
    kept = np.flatnonzero(np.isfinite(values))
    if not len(kept):
        return ()
    x, times_us = values[kept].astype(np.float64), times_us[kept]
    scaled = sensitivity if batches is None else _by_point(sensitivity, float(batches[kept].mean()))
    x = x - daily_cycle(times_us, x, least=sensitivity.cycle, zone=zone)
    prior = scaled.spread**2 * scaled.memory
    variance = long_run_variance(x, prior=prior, prior_weight=scaled.prior_weight)
    bounds = _pruned(x, _segmented(x, variance, scaled), scaled.smallest)
    if len(bounds) > 2:  # many changes in a short series count as noise, and hide those between them: look again
        rest = x - np.repeat(levels(x, bounds), np.diff(bounds))
        variance = min(variance, long_run_variance(rest, prior=prior, prior_weight=scaled.prior_weight))
        bounds = _pruned(x, _segmented(x, variance, scaled), scaled.smallest)
    found = moves(x, bounds, variance, price=scaled.penalty, least=scaled.ramp)
    return tuple(_change(move, times_us, kept, variance) for move in found)


def _by_point(sensitivity: Sensitivity, batches: float) -> Sensitivity:
    """Return a sensitivity with `memory`, `settle` and `ramp` in points of so many batches."""
    return replace(
        sensitivity,
        memory=max(1.0, sensitivity.memory / batches),
        settle=max(1, math.ceil(sensitivity.settle / batches)),
        ramp=max(2, math.ceil(sensitivity.ramp / batches)),
    )


def _segmented(x: Floats, variance: float, sensitivity: Sensitivity) -> list[int]:
    """Return the bounds of the segments, 0 and n among them."""
    width = math.ceil(len(x) / sensitivity.bins)
    binned = block_means(x, width)
    least = max(1, math.ceil(sensitivity.settle / width))
    if len(binned) < 2 * least:
        return [0, len(x)]
    independent = max(math.e, len(x) / sensitivity.memory)
    penalty = sensitivity.penalty * variance / width * math.log(independent)
    search = ruptures.KernelCPD(kernel="linear", min_size=least).fit(binned.reshape(-1, 1))
    bounds = [0, *(int(bound) * width for bound in search.predict(pen=penalty)[:-1]), len(x)]
    return bounds if width == 1 else _refined(x, bounds, width)


def _refined(x: Floats, bounds: list[int], width: int) -> list[int]:
    """Return each bound moved by less than `width` to where the squares left are least."""
    total = np.concatenate([[0.0], np.cumsum(x)])
    bounds = list(bounds)
    for i in range(1, len(bounds) - 1):
        first, at, last = bounds[i - 1 : i + 2]
        tried = np.arange(max(first + 1, at - width + 1), min(last, at + width))
        before, after = total[tried] - total[first], total[last] - total[tried]
        bounds[i] = int(tried[np.argmax(before**2 / (tried - first) + after**2 / (last - tried))])
    return bounds


def _pruned(x: Floats, bounds: list[int], smallest: float) -> list[int]:
    """Return the bounds without those between levels that differ by less than `smallest`."""
    bounds = list(bounds)
    while len(bounds) > 2:
        sizes = np.abs(np.diff(levels(x, bounds)))
        least = int(np.argmin(sizes))
        if sizes[least] >= smallest:
            break
        del bounds[least + 1]
    return bounds


def _change(move: Move, times_us: Integers, kept: Integers, variance: float) -> Change:
    size = move.after - move.before
    before, after = max(1, move.start - move.first), max(1, move.last - move.end)
    reach = math.ceil(_BAI_95 * variance / size**2)
    end = min(move.end, len(kept) - 1)
    return Change(
        index=int(kept[move.start]),
        time_us=int(times_us[move.start]),
        end_index=int(kept[end]),
        end_us=int(times_us[end]),
        before=move.before,
        after=move.after,
        kind="step" if move.start == move.end else "ramp",
        score=abs(size) / math.sqrt(variance * (1.0 / before + 1.0 / after)),
        interval_us=(
            int(times_us[max(move.first, move.start - 1 - reach)]),
            int(times_us[min(move.last - 1, move.start + reach)]),
        ),
    )
