"""Change points of one camera's series, after the fact: when did its alpha (or its objective, ...) move for good.

PELT (Killick, Fearnhead and Eckley, 2012; by `ruptures`) with squared error and a penalty in units of the series'
long-run variance (Lavielle and Moulines, 2000): for independent noise that is the usual penalty, but alphas are not
independent. Before it a daily cycle is taken out, after it steps in one direction are tried as one ramp, and what is
too small to matter goes. It is done twice: the second time the noise is that of what the first left unexplained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import groupby, pairwise
from typing import Literal

import numpy as np

from adawise.errors import SettingsError
from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.times import DAY_US, HOUR_US, local_us

try:
    import ruptures
except ImportError as error:
    raise SettingsError(
        f"changes are found by the package {error.name or 'ruptures'}; install it with: pip install 'adawise[report]'"
    ) from error

Kind = Literal["step", "ramp"]


@dataclass(frozen=True)
class Sensitivity:
    """The bounds by which a move of a series counts as a change.

    `smallest`: size that matters, in the unit of the series. `spread`, `memory`: what is thought of a series' noise
    until it has shown its own, standard deviation and batches that a value is kept for: 1 where each batch measures
    anew, dozens for the alpha of a search.
    `penalty`: evidence that a change must bring, in squared standard errors per ln of the independent values.
    `settle`: batches that a level must hold. `prior_weight`: blocks that the first guess of the noise counts for.
    `cycle`: share of the variance within days that a daily cycle must explain on other days. `ramp`: batches that a
    change must take to be called a ramp. `bins`: of how many means, at most, levels are looked for; each step is then
    put where it fits best.

    Example:
        >>> import numpy as np
        >>> times_us, alpha = 60_000_000 * np.arange(400), np.repeat([0.8, 0.5], 200)
        >>> len(adawise.find_changes(times_us, alpha))
        1
        >>> adawise.find_changes(times_us, alpha, sensitivity=adawise.Sensitivity(smallest=0.4))
        ()
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

    Example:
        >>> import numpy as np
        >>> (change,) = adawise.find_changes(60_000_000 * np.arange(400), np.repeat([0.8, 0.2], 200))
        >>> round(change.before, 2), round(change.after, 2), round(change.size, 2)
        (0.8, 0.2, -0.6)
        >>> earliest_us, latest_us = change.interval_us
        >>> earliest_us <= change.time_us <= latest_us
        True
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


_BAI_95 = 11.0  # of the argmax of a two-sided Brownian motion with drift (Bai, 1997)


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

    Example:
        >>> import numpy as np
        >>> times_us, alpha = 60_000_000 * np.arange(400), np.repeat([0.8, 0.2], 200)
        >>> (change,) = adawise.find_changes(times_us, alpha)
        >>> change.kind, change.index, change.time_us
        ('step', 200, 12000000000)

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


# -- noise: how much a series moves by itself

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

    From the median of squared differences of adjacent block means (Wu and Zhao, 2007), which a few steps do not move;
    at the block length where it is largest, because noise with a memory shows all of itself in long blocks alone. A
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


# -- ramps: steps in one direction that are one slow move

_POINTS = 400  # of a run, at most, while its ends are looked for
_CANDIDATES = 40  # ends that are tried


@dataclass(frozen=True)
class Move:
    """A move between two levels: batches `start` and `end`, equal for a step; `first` and `last` bound the levels."""

    first: int
    start: int
    end: int
    last: int
    before: float
    after: float


def moves(x: Floats, bounds: list[int], variance: float, *, price: float, least: int) -> list[Move]:
    """Return the moves between segments with these bounds, steps merged to ramps where that explains more.

    Both are compared by squares left plus a price for each number that is fitted, as in a penalised criterion (Lavielle
    and Moulines, 2000). The search for the ramp is our own (docs/decisions/formulas.md).

    Args:
        x: `[n]`.
        bounds: of the segments, 0 and n among them.
        variance: long-run variance of `x`.
        price: of a fitted number, in units of `variance`.
        least: batches below which a ramp is a step.
    """
    level = levels(x, bounds)
    signs = np.sign(np.diff(level))
    found: list[Move] = []
    for _, group in groupby(range(1, len(bounds) - 1), key=lambda i: signs[i - 1]):
        run = list(group)
        segments = bounds[run[0] - 1 : run[-1] + 2]
        ramp = _ramp(x, segments, variance, price, least)
        found += [ramp] if ramp else [_step(x, *bounds[i - 1 : i + 2]) for i in run]
    return found


def _step(x: Floats, first: int, at: int, last: int) -> Move:
    return Move(first, at, at, last, float(x[first:at].mean()), float(x[at:last].mean()))


def _ramp(x: Floats, segments: list[int], variance: float, price: float, least: int) -> Move | None:
    """Return one ramp in place of all steps between these segments, or None if the steps explain more."""
    first, last = segments[0], segments[-1]
    width = max(1, (last - first) // _POINTS)
    y = block_means(x[first:last], width)
    steps = sum(float(np.sum((x[a:b] - x[a:b].mean()) ** 2)) for a, b in pairwise(segments))
    inner = float(np.sum((x[first:last] - np.repeat(y, width)[: last - first]) ** 2))
    left, start, end, before, after = _best_line(y, max(1, least // width))
    start, end = first + start * width, first + end * width
    numbers = 2 * len(segments) - 3  # levels and the bounds between them
    if inner + left * width + 4 * price * variance >= steps + numbers * price * variance:
        return None
    return Move(first, start, min(end, last), last, before, after)


def _best_line(y: Floats, least: int) -> tuple[float, int, int, float, float]:
    """Return squares left, start, end, level before and after of the best line of at least that length."""
    n = len(y)
    t = np.arange(n, dtype=np.float64)
    ends = np.unique(np.linspace(0, n, _CANDIDATES).astype(int))
    best = (np.inf, 0, n, 0.0, 0.0)
    for start in ends:
        later = ends[ends >= start + least]
        if not len(later):
            break
        s = np.clip((t - start) / (later[:, None] - start), 0.0, 1.0)  # [E, n]
        centred, deviation = s - s.mean(axis=1, keepdims=True), y - y.mean()
        slope = (centred @ deviation) / np.maximum((centred**2).sum(axis=1), 1e-12)
        left = (deviation**2).sum() - slope**2 * (centred**2).sum(axis=1)
        i = int(np.argmin(left))
        if left[i] < best[0]:
            before = float(y.mean() - slope[i] * s[i].mean())
            best = (float(left[i]), int(start), int(later[i]), before, before + float(slope[i]))
    return best


_LEAST_HOURS = 48  # with a value, or there is nothing to repeat
_FOLDS = 8  # of days, at most
_MONTH_DAYS = 28
_INFORMATIVE = 0.25  # of the variance of the cycle: how much of it a day must have had to say whether it follows


def daily_cycle(times_us: Integers, x: Floats, *, least: float, zone: tzinfo = UTC) -> Floats:
    """Return `[n]`: what the hour of the day adds to each value, 0 everywhere if there is no cycle.

    Args:
        times_us: `[n]`, not decreasing.
        x: `[n]`.
        least: share of the variance within days that the profile of other days must explain, below 1.
        zone: by whose clocks the hours of a day are.
    """
    cycle = np.zeros(len(x))
    if not len(x):
        return cycle
    months = max(1, round((times_us[-1] - times_us[0]) / (_MONTH_DAYS * DAY_US)))
    starts = np.linspace(times_us[0], times_us[-1] + 1, months + 1).astype(np.int64)
    bounds = np.searchsorted(times_us, starts).tolist()
    for start, end in pairwise(bounds):
        cycle[start:end] = _of_a_month(times_us[start:end], x[start:end], least, zone)
    return cycle


def _of_a_month(times_us: Integers, x: Floats, least: float, zone: tzinfo) -> Floats:
    profile = daily_profile(times_us, x, least=least, zone=zone) if len(x) else None
    if profile is None:
        return np.zeros(len(x))
    shown_us = local_us(times_us, zone)
    phase = (shown_us % DAY_US) / HOUR_US
    around = np.concatenate([profile[-1:], profile, profile[:1]])
    cycle: Floats = np.interp(phase, np.arange(-1, 25) + 0.5, around)
    return _where_followed(shown_us // DAY_US, x, cycle)


def _where_followed(day: Integers, x: Floats, cycle: Floats) -> Floats:
    """Return the cycle on the days that vary less without it, and 0 on others, into which it would put one.

    A day that is not over may have seen nothing but a night, which says nothing of it: it is as the day before.
    """
    number = day - day.min()
    count = np.bincount(number)

    def variation(values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            found: Floats = np.bincount(number, values**2) - np.bincount(number, values) ** 2 / count
        return found

    is_followed = variation(x - cycle) < variation(x)
    # nan where nothing is known of a day
    informative = np.flatnonzero(variation(cycle) > _INFORMATIVE * count * cycle.var())
    if len(informative):
        before = np.searchsorted(informative, np.arange(len(count)), side="right") - 1
        is_followed = is_followed[informative[np.maximum(before, 0)]]
    return np.where(is_followed[number], cycle, 0.0)


def daily_profile(times_us: Integers, x: Floats, *, least: float, zone: tzinfo = UTC) -> Floats | None:
    """Return `[24]`, what each hour of the day adds to the level; None if held-out days say otherwise."""
    _, days = by_day(times_us, x, zone)
    if np.count_nonzero(np.isfinite(days)) < _LEAST_HOURS:
        return None
    folds = np.arange(len(days)) % min(len(days), _FOLDS)
    expected = np.empty_like(days)
    for fold in np.unique(folds):
        expected[folds == fold] = _profile(days[folds != fold])
    finite = np.isfinite(days)
    total, left = float(np.sum(days[finite] ** 2)), float(np.sum((days - expected)[finite] ** 2))
    if total == 0.0 or 1.0 - left / total < least:
        return None
    return _profile(days)


def _profile(days: Floats) -> Floats:
    """Return `[24]` of `[days, 24]`, with mean 0; an hour that was never seen adds nothing."""
    ordered = np.sort(days, axis=0)  # nans come last
    counts = np.count_nonzero(np.isfinite(days), axis=0)
    last, hours = np.maximum(counts - 1, 0), np.arange(24)
    middle = (ordered[last // 2, hours] + ordered[(last + 1) // 2, hours]) / 2.0
    profile = np.where(counts > 0, middle, 0.0)
    profile -= profile.mean()
    return profile


def by_day(times_us: Integers, x: Floats, zone: tzinfo = UTC) -> tuple[int, Floats]:
    """Return the first day (that of 1970 is 0), and `[days, 24]`: means by hour; nan where there is none.

    The means are of values less the mean of the 24 hours around each.
    """
    total = np.concatenate([[0.0], np.cumsum(x)])
    first = np.searchsorted(times_us, times_us - DAY_US // 2)
    end = np.searchsorted(times_us, times_us + DAY_US // 2, side="right")
    above = x - (total[end] - total[first]) / (end - first)
    whole = (times_us - times_us[0] >= DAY_US // 2) & (times_us[-1] - times_us >= DAY_US // 2)
    day, hour = np.divmod(local_us(times_us[whole], zone) // HOUR_US, 24)
    if not len(day):
        return 0, np.full((1, 24), np.nan)
    first_day = int(day.min())  # clocks that are put back may show the day before
    days = int(day.max()) - first_day + 1
    cell = (day - first_day) * 24 + hour
    count = np.bincount(cell, minlength=24 * days).astype(np.float64)
    value = np.bincount(cell, weights=above[whole], minlength=24 * days)
    means = np.divide(value, count, out=np.full_like(count, np.nan), where=count > 0)
    return first_day, means.reshape(days, 24)
