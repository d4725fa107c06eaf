"""Swings of a measure: daily cycles that begin, end or change, and days on which it goes to and fro within hours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import pairwise

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.find import Change, Sensitivity, by_day, daily_cycle, find_changes
from adawise_drift.changes.times import DAY_US, HOUR_US, local_us, utc_us
from adawise_drift.events.result import Shape

_LEAST_DAYS = 10
_SETTLE_DAYS = 5  # that a cycle must have been there, and not
_LEAST_HOURS = 8  # of a day that says something
_GONE = 0.25  # of the swing: what may be left where there is no cycle
_HELD = 0.75  # of days that are on the side of their own level
_EXPLAINED = 0.5  # of the variance within days: what one shape must explain


@dataclass(frozen=True, slots=True, eq=False)
class Cycles:
    """`changes`: of the swing, peak to peak. `part`: `[points]`, what the cycle adds; 0 without changes."""

    part: Floats
    changes: tuple[Change, ...]

    def explains(self, change: Change) -> bool:
        """Return whether a swing explains a change: nights that become dark change the mean of days, too."""
        return any(
            abs(change.time_us - swing.time_us) <= 1.5 * DAY_US and abs(change.size) < 0.75 * abs(swing.size)
            for swing in self.changes
        )


def named(swing: Change) -> Shape:
    """Return the shape of a change of a swing: begun and ended where little of it is left on one side."""
    less, more = sorted((abs(swing.before), abs(swing.after)))
    if less > _GONE * more:
        return "cycle changed"
    return "cycle begun" if abs(swing.after) == more else "cycle ended"


def cycles(time_us: Integers, values: Floats, sensitivity: Sensitivity, zone: tzinfo = UTC) -> Cycles:
    """Return where the swing of a daily cycle came, went or changed; nothing of fewer than ten days.

    A day is taken for a multiple of one shape, the first singular vector of days by hours (Eckart and Young, 1936).
    """
    nothing = Cycles(np.zeros(len(values)), ())
    if not len(values) or time_us[-1] - time_us[0] < _LEAST_DAYS * DAY_US:
        return nothing
    first_day, days = by_day(time_us, values, zone)
    finite = np.isfinite(days)
    kept = np.flatnonzero(finite.sum(axis=1) >= _LEAST_HOURS)
    if len(kept) < _LEAST_DAYS:
        return nothing
    known = np.where(finite, days, 0.0)[kept]
    shape = np.linalg.svd(known, full_matrices=False)[2][0]
    score = known @ shape / np.maximum((finite[kept] * shape**2).sum(axis=1), 0.1)
    shape, score = shape * np.sign(np.median(score) or 1.0), score * np.sign(np.median(score) or 1.0)
    total, explained = (known**2).sum(), ((score[:, None] * shape * finite[kept]) ** 2).sum()
    if not total or explained < _EXPLAINED * total:
        return nothing
    wide = float(np.ptp(shape))
    swing: Floats = score * wide
    middle_us = ((first_day + kept) * DAY_US + DAY_US // 2).astype(np.int64)
    least = 3.0 * sensitivity.smallest
    found = find_changes(
        middle_us,
        swing,
        sensitivity=Sensitivity(least, least / 4.0, 1.5, 6.0, _SETTLE_DAYS, 6.0, cycle=1.0, ramp=len(swing) + 1),
    )
    bounds = [0, *(change.index for change in found), len(swing)]
    parts = [swing[a:b] for a, b in pairwise(bounds)]
    swings = []
    for change, before, after in zip(found, parts[:-1], parts[1:], strict=True):
        usual = float(np.median(before)), float(np.median(after))
        middle, way = sum(usual) / 2.0, np.sign(usual[1] - usual[0])
        held = [float(np.mean((side - middle) * sign * way > 0)) for side, sign in ((before, -1.0), (after, 1.0))]
        if abs(usual[1] - usual[0]) >= least and min(held) >= _HELD:
            swings.append(
                replace(
                    change,
                    time_us=utc_us(change.time_us - DAY_US // 2, zone),
                    end_us=utc_us(change.time_us - DAY_US // 2, zone),
                    before=usual[0],
                    after=usual[1],
                    interval_us=(
                        utc_us(change.interval_us[0] - DAY_US // 2, zone),
                        utc_us(change.interval_us[1] + DAY_US // 2, zone),
                    ),
                )
            )
    if not swings:
        return nothing
    level = np.concatenate([np.full(len(part), np.median(part)) for part in parts]) / wide
    shown_us = local_us(time_us, zone)
    day = np.clip(np.searchsorted(kept, shown_us // DAY_US - first_day, side="right") - 1, 0, len(kept) - 1)
    around = np.concatenate([shape[-1:], shape, shape[:1]])
    phase = (shown_us % DAY_US) / HOUR_US
    return Cycles(level[day] * np.interp(phase, np.arange(-1, 25) + 0.5, around), tuple(swings))


# -- unrest

_BLOCK_US = DAY_US // 8
_LEAST_BLOCKS = 5  # of a day that says something
_SWING = 3.25  # of the smallest change: how far it must go, as a square wave would that varies as much
_RESTLESS_DAYS = 3


@dataclass(frozen=True, slots=True)
class Restless:
    """Days in which it went to and fro by `swing`, on other days by `usual`; from a midnight to another there."""

    since_us: int
    until_us: int
    usual: float
    swing: float

    def explains(self, change: Change) -> bool:
        """Return whether unrest explains a change: a level that is left again within the day is none."""
        near = self.since_us - DAY_US <= change.time_us <= self.until_us + DAY_US
        return near and abs(change.size) <= 1.25 * self.swing


def restless(time_us: Integers, values: Floats, sensitivity: Sensitivity, zone: tzinfo = UTC) -> tuple[Restless, ...]:
    """Return runs of three such days or more, without the daily cycle, which is no unrest."""
    if not len(values):
        return ()
    x = values - daily_cycle(time_us, values, least=sensitivity.cycle, zone=zone)
    block = local_us(time_us, zone) // _BLOCK_US
    starts = np.flatnonzero(np.diff(block, prepend=block[0] - 1))
    means = np.add.reduceat(x, starts) / np.diff(np.append(starts, len(x)))
    day = block[starts] // (DAY_US // _BLOCK_US)
    first = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    count = np.diff(np.append(first, len(day)))
    mean, square = (np.add.reduceat(part, first) / count for part in (means, means**2))
    swing = 2.0 * np.sqrt(np.maximum(square - mean**2, 0.0))
    known = count >= _LEAST_BLOCKS
    return tuple(_runs(day[first][known], swing[known], _SWING * sensitivity.smallest, zone))


def _runs(day: Integers, swing: Floats, least: float, zone: tzinfo) -> Iterator[Restless]:
    is_far = swing >= least
    edges = np.flatnonzero(np.diff(is_far.astype(np.int8), prepend=0, append=0))
    usual = float(np.median(swing[~is_far])) if not is_far.all() else float("nan")
    runs = [(int(start), int(end)) for start, end in edges.reshape(-1, 2) if end - start >= _RESTLESS_DAYS]
    while runs:
        start, end = runs.pop(0)
        while runs and day[runs[0][0]] - day[end - 1] <= _RESTLESS_DAYS:  # it paused
            _, end = runs.pop(0)
        since_us, until_us = (utc_us(at * DAY_US, zone) for at in (int(day[start]), int(day[end - 1]) + 1))
        yield Restless(since_us, until_us, usual, float(np.median(swing[start:end])))
