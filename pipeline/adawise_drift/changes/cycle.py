"""The daily cycle of a series: found if days that were not used for it follow it, and then taken out.

Day and night are not drift. The profile is a median over days of what lies above or below the 24 hours around it, so
that a step, which bends one day, does not bend the profile, and so that day and night need not be a sine. Of a long
series each month has a profile of its own: a camera is moved, a night becomes short, alpha comes to its end at 0 or 1.
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from itertools import pairwise

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.times import DAY_US, HOUR_US, local_us

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
