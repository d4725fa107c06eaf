"""A camera's calendar: which of its conditions was when, and what each of them is like.

Conditions are those that the search distinguishes (`adapt/conditions.py`). Their numbers begin anew with the camera's
state; then they are written 1.2, 2.2: condition 2 of the first state, and of the second one.
"""

from __future__ import annotations

from datetime import UTC, tzinfo

import numpy as np

from adawise.labels.arrays import Flags, Floats, Integers
from adawise_drift.changes.times import DAY_US, HOUR_US, bin_width_us, local_us
from adawise_drift.events.result import NO_CALENDAR, Calendar, CameraCondition, Stays

_SHOWN = 12  # conditions that a reader can distinguish by their colours
_BRIEF = 3  # batches: what was shorter, the search does not remember either
_RARE, _OFTEN = 0.01, 3  # of the batches; visits that make a rarer one worth showing, and hours of one worth showing
_DAYS = 2 * DAY_US  # from which on a picture has a column a day
_DAILY, _STRIP = 9_000, 1_500  # cells of either picture at most
_LEAST_US = 900_000_000  # of a cell by days
_LEAST_DAYS = 3  # that a condition must have been seen on, to be one of certain hours
_ANY = 20  # hours: who is seen in so many is seen at any
_RUNS = 2  # such as dusk and dawn
_OPEN = 0.1  # of the busiest hour's time: in emptier hours a batch or two say little


def calendar(stays: Stays, zone: tzinfo = UTC) -> Calendar:
    """Return the calendar of one camera; hours and days are by the clocks of `zone`."""
    if not len(stays.since_us):
        return NO_CALENDAR
    keys, place = np.unique(_keys(stays), return_inverse=True)
    rank, shown = _ranked(np.bincount(place, stays.batches), np.bincount(place, stays.began))
    of, rest = rank[place], len(keys) - shown
    since_us, until_us = stays.since_us, _until(stays)
    is_daily = int(stays.until_us[-1] - since_us[0]) >= _DAYS
    cell_us = _cell_us(int(until_us[-1] - since_us[0]), is_daily)
    cell, of_cell, covered_us = _cells(since_us, until_us, of, cell_us)
    usual = _hours(cell * cell_us, of_cell, covered_us, shown, zone)
    conditions = []
    for number in range(shown + (rest > 0)):
        mine = np.flatnonzero(of == number)
        batches, visits = stays.batches[mine], int(stays.began[mine].sum())
        known = np.isfinite(stays.objective[mine])
        objective = np.average(stays.objective[mine][known], weights=batches[known]) if known.any() else np.nan
        conditions.append(
            CameraCondition(
                name=name_of(stays, int(mine[0])) if number < shown else f"{rest:,} other{'s' * (rest > 1)}",
                number=int(stays.condition[mine[0]]) if number < shown else None,
                batches=int(batches.sum()),
                share=float(batches.sum() / stays.batches.sum()),
                visits=visits,
                returns=int((stays.began & stays.returned)[mine].sum()),
                first_us=int(since_us[mine[0]]),
                last_us=int(stays.until_us[mine].max()),
                alpha=float(np.average(stays.alpha[mine], weights=batches)),
                objective=float(objective),
                alarms=float(stays.alarms[mine].sum() / batches.sum()),
                hours=usual[number] if number < shown and visits >= _OFTEN else (),
            )
        )
    runs = _runs(cell, of_cell, covered_us, cell_us, zone if is_daily else None)
    return Calendar(tuple(conditions), len(keys), shown, is_daily, cell_us, int(cell[0]) * cell_us, runs)


def _ranked(batches: Floats | Integers, visits: Floats | Integers) -> tuple[Integers, int]:
    """Return the place of each condition, the most frequent first, and how many are shown.

    The rest has the place behind these.
    """
    order = np.lexsort((np.arange(len(batches)), -batches))
    often = (batches[order] >= _RARE * batches.sum()) | (visits[order] >= _OFTEN) | (len(batches) <= _SHOWN)
    long = batches[order] >= min(_BRIEF, batches.max())
    chosen = order[often & long][:_SHOWN]
    rank = np.full(len(batches), len(chosen))
    rank[chosen] = np.arange(len(chosen))
    return rank, len(chosen)


def name_of(stays: Stays, at: int) -> str:
    """Return the name of the condition of a stay: its number, behind that of the state if the camera had several."""
    number = str(int(stays.condition[at]))
    return number if stays.state[0] == stays.state[-1] else f"{stays.state[at] - stays.state[0] + 1}.{number}"


def hours(of: CameraCondition) -> str:
    """Return the hours that a condition is typical for, in words: from 18 h to 6 h."""
    return " and ".join(f"from {since} h to {until} h" for since, until in of.hours)


def _keys(stays: Stays) -> Integers:
    """Return a number for each condition of each state."""
    return (stays.state << 32) | stays.condition


def visits_before(stays: Stays, at: int, since_us: int = 0) -> int:
    """Count how often the camera had come into the condition of a stay before it, as far as is known here."""
    same = stays.began & (_keys(stays) == _keys(stays)[at]) & (stays.since_us >= since_us)
    return int(same[:at].sum())


def _until(stays: Stays) -> Integers:
    """Return until when each stay lasts: until the next one begins, but for pauses."""
    following = np.append(stays.since_us[1:], stays.until_us[-1])
    until: Integers = np.where(following - stays.until_us <= HOUR_US, following, stays.until_us)
    return np.maximum(until, stays.since_us)


def _cell_us(span_us: int, is_daily: bool) -> int:
    if is_daily:
        return max(_LEAST_US, bin_width_us(span_us, _DAILY))
    return bin_width_us(span_us, _STRIP)


def _cells(since_us: Integers, until_us: Integers, of: Integers, cell_us: int) -> tuple[Integers, Integers, Integers]:
    """Return stays cut where cells end: the cell of each part, what it is of, and how long it is."""
    first, last = since_us // cell_us, until_us // cell_us
    counts = last - first + 1
    stay = np.repeat(np.arange(len(first)), counts)
    cell = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[stay]
    covered = np.minimum(until_us[stay], (cell + 1) * cell_us) - np.maximum(since_us[stay], cell * cell_us)
    return cell, of[stay], np.maximum(covered, 1)


def _hours(
    at_us: Integers, of: Integers, covered_us: Integers, count: int, zone: tzinfo
) -> list[tuple[tuple[int, int], ...]]:
    """Return the hours [from, to) that each of the first `count` conditions is typical for.

    Those are the hours in which it has half of its largest share or more.
    """
    shown = local_us(at_us, zone)
    hour, day = shown // HOUR_US % 24, shown // DAY_US
    shares = np.bincount(hour * (count + 1) + of, covered_us, 24 * (count + 1)).reshape(24, count + 1)
    whole = shares.sum(axis=1)
    shares = shares / np.maximum(whole, _OPEN * whole.max())[:, None]
    found = []
    for number in range(count):
        days = len(np.unique(day[of == number]))
        found.append(_circular(shares[:, number] >= shares[:, number].max() / 2) if days >= _LEAST_DAYS else ())
    return found


def _circular(usual: Flags) -> tuple[tuple[int, int], ...]:
    """Return runs of hours around the clock; none if there are many, or if they are nearly all hours."""
    begins = np.flatnonzero(usual & ~np.roll(usual, 1))
    ends = np.flatnonzero(usual & ~np.roll(usual, -1)) + 1
    if not 1 <= len(begins) <= _RUNS or usual.sum() >= _ANY:
        return ()
    return tuple((int(b), int(ends[ends > b].min() if (ends > b).any() else ends.min()) % 24) for b in begins)


def _runs(cell: Integers, of: Integers, covered_us: Integers, cell_us: int, zone: tzinfo | None) -> Integers:
    """Return `[runs, 4]` as `Calendar` has them; a cell counts for the condition that it had for longest."""
    order = np.lexsort((covered_us, cell))
    kept = order[np.flatnonzero(np.diff(cell[order], append=-1))]
    cell, of = cell[kept], of[kept]
    shown = cell * cell_us if zone is None else local_us(cell * cell_us, zone)
    day = np.zeros_like(cell) if zone is None else shown // DAY_US
    fresh = (np.diff(cell, prepend=-2) != 1) | (np.diff(of, prepend=-1) != 0) | (np.diff(day, prepend=-1) != 0)
    starts = np.flatnonzero(fresh)
    minute = np.zeros(len(starts), np.int64) if zone is None else shown[starts] % DAY_US // 60_000_000
    return np.stack([cell[starts] - cell[0], np.diff(starts, append=len(cell)), of[starts], minute], axis=1)
