"""Small multiples: alpha of one camera as paths of an SVG, all on the same scales, drawn without a script.

Points are columns of the picture: each keeps the lowest and the highest alpha of the bins under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adawise_drift.events.result import Camera, Series
from adawise_drift.page.packed import longest_gap
from adawise_drift.report import Report

WIDTH, HEIGHT = 480, 100  # units of a picture; alpha 1 is at 0, alpha 0 at HEIGHT
_COLUMNS = 160


@dataclass(frozen=True, slots=True)
class Picture:
    """`mean` and `band` are paths, `levels` lines, `changes` (x, goes up), `silences` (x, width)."""

    mean: str
    band: str
    levels: str
    changes: tuple[tuple[int, bool], ...]
    silences: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """From x to `end` alpha is `mean`, from `low` to `high`; in units of the picture."""

    x: int
    end: int
    mean: int
    low: int
    high: int


def picture(camera: Camera, report: Report) -> Picture:
    """Return the picture of a camera over the span of the whole report."""
    span = (report.since_us, report.until_us + 1)
    levels = " ".join(
        f"M{_x(level.since_us, span)} {_y(level.alpha)}H{_x(level.until_us, span)}"
        for level in camera.levels
        if np.isfinite(level.alpha)
    )
    runs = pieces(camera.series, report.bin_us, span)
    return Picture(
        mean=mean_path(runs),
        band=" ".join(_band(run) for run in runs),
        levels=levels,
        changes=tuple((_x(change.time_us, span), change.size > 0) for change in camera.changes),
        silences=tuple((_x(a, span), max(1, _x(b, span) - _x(a, span))) for a, b in camera.silences),
    )


def together(members: Sequence[Camera], report: Report) -> str:
    """Return the path of the members' mean alpha, each with equal weight."""
    span = (report.since_us, report.until_us + 1)
    total, count = np.zeros(_COLUMNS), np.zeros(_COLUMNS)
    for camera in members:
        held = np.full(_COLUMNS, np.nan)
        for run in pieces(camera.series, report.bin_us, span):
            for piece in run:
                held[piece.x * _COLUMNS // WIDTH : -(-piece.end * _COLUMNS // WIDTH)] = piece.mean
        there = np.isfinite(held)
        total[there] += held[there]
        count[there] += 1
    step = WIDTH // _COLUMNS
    runs: list[list[Piece]] = [[]]
    for column in range(_COLUMNS):
        if count[column]:
            y = round(total[column] / count[column])
            runs[-1].append(Piece(step * column, step * (column + 1), y, y, y))
        elif runs[-1]:
            runs.append([])
    return mean_path(run for run in runs if run)


def mean_path(runs: Iterable[Sequence[Piece]]) -> str:
    """Return the means as steps; each run begins anew."""
    return " ".join(f"M{run[0].x} {_along(run[0].mean, [(p.end - p.x, p.mean) for p in run])}" for run in runs)


def _band(run: Sequence[Piece]) -> str:
    """Return the band of a run: forth along the highest, back along the lowest."""
    forth = _along(run[0].high, [(p.end - p.x, p.high) for p in run])
    back = _along(run[-1].high, [(p.x - p.end, p.low) for p in reversed(run)])
    return f"M{run[0].x} {forth}{back.removeprefix(str(run[-1].high))}z"


def _along(start: int, steps: Sequence[tuple[int, int]]) -> str:
    """Return a path from a height on, equal steps in one: `45h3v-2h6`."""
    parts, y, pending = [str(start)], start, 0
    for across, height in steps:
        if height != y:
            if pending:
                parts.append(f"h{pending}")
            parts.append(f"v{height - y}")
            y, pending = height, 0
        pending += across
    return "".join([*parts, f"h{pending}"])


def pieces(series: Series, bin_us: int, span: tuple[int, int]) -> list[list[Piece]]:
    """Return runs without a gap, of at most 160 pieces together; `span` is [since, until) in microseconds."""
    known = np.isfinite(series.alpha)
    bins = series.time_us[known] // bin_us
    if not len(bins):
        return []
    since, until = span
    column = ((bins * bin_us - since) * _COLUMNS // (until - since)).clip(0, _COLUMNS - 1)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    last = np.append(first[1:], len(bins)) - 1
    weights = np.maximum(series.images[known], 1)
    mean = np.add.reduceat(series.alpha[known] * weights, first) / np.add.reduceat(weights, first)
    low, high = np.fmin.reduceat(series.alpha_low[known], first), np.fmax.reduceat(series.alpha_high[known], first)
    gap, step = longest_gap(bins), WIDTH // _COLUMNS
    runs: list[list[Piece]] = [[]]
    for i, (at, then) in enumerate(pairwise([*column[first], None])):
        held = then is not None and bins[first[i + 1]] - bins[last[i]] <= gap
        width = max(step, round(WIDTH * bin_us / (until - since)))
        end = step * int(then) if held and then is not None else min(WIDTH, step * int(at) + width)
        runs[-1].append(Piece(step * int(at), end, _y(mean[i]), _y(low[i]), _y(high[i])))
        if not held and then is not None:
            runs.append([])
    return runs


def _x(us: int, span: tuple[int, int]) -> int:
    return round(WIDTH * min(1.0, max(0.0, (us - span[0]) / (span[1] - span[0]))))


def _y(alpha: float) -> int:
    return round(HEIGHT * (1.0 - float(alpha)))
