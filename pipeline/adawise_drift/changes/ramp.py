"""Steps in one direction that are better told as one slow move.

PELT knows levels only and makes a staircase of a ramp. A run of steps with one sign is tried as one straight line
between two levels; it is a ramp if that leaves less, counted with a price for each number that was fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from adawise.labels.arrays import Floats
from adawise_drift.changes.noise import block_means, levels

_POINTS = 400  # of a run, at most, while its ends are looked for
_CANDIDATES = 40  # ends that are tried


@dataclass(frozen=True)
class Move:
    """From one level to the next: batches `start` and `end`, equal for a step; `first` and `last` bound its levels."""

    first: int
    start: int
    end: int
    last: int
    before: float
    after: float


def moves(x: Floats, bounds: list[int], variance: float, *, price: float, least: int) -> list[Move]:
    """Return the moves between segments with these bounds, steps merged to ramps where that explains more.

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
