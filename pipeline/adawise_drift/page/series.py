"""A series on the page: packed for the script that draws it, and as a small picture that needs no script.

What a reader may open is inert text until then: `inert` compresses it, and the page's script reads it. The head is
JSON; a zero and the values of all columns follow it. A value is low + step * q, where a column of the head is
`[low, step]`; q is an unsigned integer of 16 bits, 65535 if the value is not known. All upper bytes of a column precede
its lower ones, which compresses better. A step is a thousandth (of counts one, of multiples of a median .005), or a
65533rd of the range if that is more: no screen resolves less. `runs` are the bins that are there, as pairs
(first, how many).

A small picture is alpha of one camera as paths of an SVG, all on the same scales. Its points are columns: each keeps
the lowest and the highest alpha of the bins under it.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.events.result import (
    NOTHING_KNOWN,
    PIXELS,
    AccuracyOverTime,
    AccuracyPoint,
    Calendar,
    Camera,
    How,
    Series,
)  # fmt: skip
from adawise_drift.report import Report
from adawise_drift.words import known

_UNKNOWN = 65_535
_LEAST, _LEAST_OF_PICTURES = 0.001, 0.005  # steps of what is no count
_COUNTS = frozenset({"batches", "images", "rejected"})
_LOWEST, _HIGHEST = frozenset({"alpha_low", "tried_low"}), frozenset({"alpha_high", "tried_high"})
_POINTS = 80_000  # of all cameras of a page: 4 MB hold as many with every measure
_ALWAYS = ("batches", "images", "alpha", "alpha_low", "alpha_high", "tried_low", "tried_high", "forward_equivalents")
_IF_KNOWN = ("objective", "posterior_sd", "reference", "confidence", "endpoints_agree", "rejected")
_USUAL = 4  # times as long as the middle gap: lines are drawn through gaps up to that


def with_fewer_points(report: Report) -> Report:
    """Return the report with wider bins, where its cameras have more points together than a page carries."""
    points = sum(len(camera.series.time_us) for camera in report.cameras)
    times = -(-points // _POINTS)
    if times <= 1:
        return report
    return replace(
        report,
        bin_us=times * report.bin_us,
        overall=_wider(report.overall, times * report.bin_us),
        cameras=tuple(replace(each, series=_wider(each.series, times * report.bin_us)) for each in report.cameras),
    )


def _wider(series: Series, bin_us: int) -> Series:
    """Return a series in bins of another width, a multiple of its own; extremes stay, means are over batches."""
    if not len(series.time_us):
        return series
    bins = series.time_us // bin_us
    first = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))

    def mean(values: Floats, weights: Integers) -> Floats:
        there = np.isfinite(values)
        with np.errstate(invalid="ignore"):  # nothing is known of a bin
            found: Floats = np.add.reduceat(np.where(there, values * weights, 0.0), first) / np.add.reduceat(
                np.where(there, weights, 0.0), first
            )
        return found

    known: dict[str, Any] = {"time_us": bins[first] * bin_us}
    for each in fields(Series):
        values = getattr(series, each.name)
        if each.name in _COUNTS:
            known[each.name] = np.add.reduceat(values, first)
        elif each.name in _LOWEST | _HIGHEST:
            known[each.name] = (np.fmin if each.name in _LOWEST else np.fmax).reduceat(values, first)
        elif each.name != "time_us":
            known[each.name] = mean(values, series.images if each.name == "alpha" else series.batches)
    return Series(**known)


def packed(
    series: Series,
    bin_us: int,
    *,
    accuracy: AccuracyOverTime = NOTHING_KNOWN,
    camera: Camera | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], bytes]:
    """Return what a browser needs to draw a series, with the camera's levels and silences: a head, and the values.

    Times are in milliseconds. `marks` are of its events.
    """
    bins = series.time_us // bin_us
    columns = {}
    for name in (*_ALWAYS, *_IF_KNOWN):
        values = np.asarray(getattr(series, name), dtype=np.float64)
        if known(values) and (name in _ALWAYS or values.any()):
            columns[name] = _column(values, 1.0 if name in _COUNTS else _LEAST)
    columns |= {name: _column(values, _LEAST_OF_PICTURES) for name, values in appearance(series).items()}
    head = {
        "bin": bin_us / 1e3,
        "runs": _runs(bins),
        "gap": longest_gap(bins),
        "columns": {name: ends for name, (ends, _) in columns.items()},
        **({"levels": [], "silences": []} if camera is None else _stretches(camera)),
        **({} if camera is None or camera.calendar.count < 2 else {"calendar": _calendar(camera.calendar)}),
        "accuracy": {f"accuracy_{how}": [_band(p) for p in accuracy.of(how)] for how in get_args(How)},
        "marks": marks,
    }
    return head, b"".join(values for _, values in columns.values())


def inert(head: Mapping[str, Any], values: bytes = b"") -> str:
    """Return text that no browser reads by itself: in base64, what zlib makes of JSON, and of a zero and values.

    It has no character that ends an element or begins an entity.
    """
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(b"\0".join((text.encode(), values)), 9)).decode()


def appearance(series: Series) -> dict[str, Floats]:
    """Return what is known of the pictures, each measure in multiples of its median."""
    found = {name: getattr(series, name) for name in PIXELS}
    return {name: np.exp(values - np.nanmedian(values)) for name, values in found.items() if known(values)}


def longest_gap(bins: Integers) -> int:
    """Return the longest gap from bin to bin through which lines are drawn."""
    return max(1, int(_USUAL * np.median(np.diff(bins)))) if len(bins) > 1 else 1


def _column(values: Floats, least: float) -> tuple[list[float | None], bytes]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    step = max(least, (high - low) / (_UNKNOWN - 2))
    low = math.floor(low / step) * step  # so that the page rounds a value once
    scaled = np.rint(np.nan_to_num((values - low) / step))
    whole = np.where(np.isfinite(values), scaled, _UNKNOWN).astype(">u2")
    planes = whole.view(np.uint8).reshape(-1, 2).T
    return [_rounded(low), float(f"{step:.9g}")], planes.tobytes()


def _band(point: AccuracyPoint) -> list[float]:
    return [point.since_us / 1e3, point.until_us / 1e3, *(round(v, 4) for v in (point.accuracy, point.low, point.high))]


def _runs(bins: Integers) -> list[list[int]]:
    starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 2) != 1) if len(bins) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(bins))[: len(starts)]
    return [[int(bins[start]), int(end - start)] for start, end in zip(starts, ends, strict=True)]


def _stretches(camera: Camera) -> dict[str, Any]:
    return {
        "levels": [[level.since_us / 1e3, level.until_us / 1e3, _rounded(level.alpha)] for level in camera.levels],
        "silences": [[since / 1e3, until / 1e3] for since, until in camera.silences],
    }


def _calendar(of: Calendar) -> dict[str, Any]:
    """Return a calendar: `names`, then the rest; a run is four whole numbers, one after the other."""
    return {
        "begin": of.begin_us / 1e3,
        "cell": of.cell_us / 1e3,
        "daily": of.is_daily,
        "names": [each.name for each in of.conditions[: of.shown]],
        "runs": of.runs.reshape(-1).tolist(),
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


# -- small pictures

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
    """A piece of the path, from x to `end`: alpha is `mean`, from `low` to `high`; in units of the picture."""

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
        band=" ".join(_outline(run) for run in runs),
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


def _outline(run: Sequence[Piece]) -> str:
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
