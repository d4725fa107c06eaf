"""Unrest: days on which a measure goes to and fro within hours, farther than what counts as a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, tzinfo

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.clocks import local_us, utc_us
from adawise_drift.changes.cycle import daily_cycle
from adawise_drift.changes.find import Change, Sensitivity
from adawise_drift.changes.times import DAY_US

_BLOCK_US = DAY_US // 8
_LEAST_BLOCKS = 5  # of a day that says something
_SWING = 3.25  # of the smallest change: how far it must go, as a square wave would that varies as much
_LEAST_DAYS = 3


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
    runs = [(int(start), int(end)) for start, end in edges.reshape(-1, 2) if end - start >= _LEAST_DAYS]
    while runs:
        start, end = runs.pop(0)
        while runs and day[runs[0][0]] - day[end - 1] <= _LEAST_DAYS:  # it paused
            _, end = runs.pop(0)
        since_us, until_us = (utc_us(at * DAY_US, zone) for at in (int(day[start]), int(day[end - 1]) + 1))
        yield Restless(since_us, until_us, usual, float(np.median(swing[start:end])))
