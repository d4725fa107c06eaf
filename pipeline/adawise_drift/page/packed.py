"""A series as the page carries it: sixteen bits a value, in base64, so that a month of fifty cameras is 2 MB.

A column is `[low, step, text]`: value number i is low + step * q, where q is the i-th little-endian unsigned integer of
16 bits in `text`, and 65535 is one that is not known. Steps are a 65534th of the column's range: below what a screen
or a reader can tell apart. `runs` are the bins that are there, as pairs (first, how many).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.events.result import NOTHING_KNOWN, AccuracyOverTime, AccuracyPoint, Calendar, Camera, How, Series
from adawise_drift.page.words import known

_UNKNOWN = 65_535
_ALWAYS = ("batches", "images", "alpha", "alpha_low", "alpha_high", "tried_low", "tried_high", "forward_equivalents")
_IF_KNOWN = ("objective", "posterior_sd", "reference", "confidence", "endpoints_agree", "rejected")
PIXELS = ("luminance", "contrast", "gradient", "laplacian", "colourfulness")  # told in multiples of their medians
_USUAL = 4  # times as long as the middle gap: lines are drawn through gaps up to that


def packed(
    series: Series,
    bin_us: int,
    *,
    accuracy: AccuracyOverTime = NOTHING_KNOWN,
    camera: Camera | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return what a browser needs to draw a series, with the camera's levels and silences.

    Times are in milliseconds.

    `marks` are of its events.
    """
    bins = series.time_us // bin_us
    columns = {}
    for name in (*_ALWAYS, *_IF_KNOWN):
        values = np.asarray(getattr(series, name), dtype=np.float64)
        if known(values) and (name in _ALWAYS or values.any()):
            columns[name] = _column(values)
    columns |= {name: _column(values) for name, values in looks(series).items()}
    return {
        "bin": bin_us / 1e3,
        "runs": _runs(bins),
        "gap": longest_gap(bins),
        "columns": columns,
        **({"levels": [], "silences": []} if camera is None else _stretches(camera)),
        **({} if camera is None or camera.calendar.count < 2 else {"calendar": _calendar(camera.calendar)}),
        "accuracy": {f"accuracy_{how}": [_band(p) for p in accuracy.of(how)] for how in get_args(How)},
        "marks": marks,
    }


def looks(series: Series) -> dict[str, Floats]:
    """Return what is known of the pictures, each measure in multiples of its median."""
    found = {name: getattr(series, name) for name in PIXELS}
    return {name: np.exp(values - np.nanmedian(values)) for name, values in found.items() if known(values)}


def longest_gap(bins: Integers) -> int:
    """Return the longest gap from bin to bin through which lines are drawn."""
    return max(1, int(_USUAL * np.median(np.diff(bins)))) if len(bins) > 1 else 1


def _column(values: Floats) -> list[Any]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    step = (high - low) / (_UNKNOWN - 1)
    scaled = np.zeros_like(values) if step == 0.0 else (values - low) / step
    whole = np.where(np.isfinite(values), np.rint(np.nan_to_num(scaled)), _UNKNOWN).astype("<u2")
    return [_rounded(low), float(f"{step:.9g}"), base64.b64encode(whole.tobytes()).decode()]


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
