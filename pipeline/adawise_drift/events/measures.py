"""The measures that are watched of a camera: each a series in which changes are looked for, and what counts as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from adawise.labels.arrays import Floats, Integers
from adawise_drift.changes.find import ALPHA, Sensitivity
from adawise_drift.changes.times import HOUR_US

Unit = Literal["alpha", "nats", "share", "images an hour", "forwards an image", "log"]

_RATE_BATCHES = 8.0  # of a point of the rate: of fewer, it is the rhythm of batches that is seen


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """A camera in bins that had batches; arrays `[bins]`, nan where a mean is not known.

    `images`, `compared`, `agreed`, `rejected` are counts, `labelled` and `correct` those of labelled images; the rest
    are means over batches, those of pixels as the trace has them (natural logarithms).
    """

    time_us: Integers  # of its first batch
    last_us: Integers  # of its last one
    batches: Integers
    images: Integers
    alpha: Floats
    objective: Floats
    confidence: Floats
    compared: Integers
    agreed: Integers
    rejected: Integers
    forward_equivalents: Floats
    luminance: Floats
    contrast: Floats
    gradient: Floats
    laplacian: Floats
    colourfulness: Floats
    labelled: Integers
    correct: Integers


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A measure over time: `[points]`, each of so many batches. In its unit, but for what `Measure.shown` undoes.

    `end_us`: of the last bin of which something is known.
    """

    time_us: Integers
    values: Floats
    batches: Integers
    end_us: int = 0


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure that is watched.

    `series`: its values, of a camera in bins of equal width. `shown`: from the scale on which changes are looked for to
    its unit. `is_of_counts`: single hours say little of it.
    """

    name: str
    unit: Unit
    sensitivity: Sensitivity
    series: Callable[[Binned, int], Watched]
    shown: Callable[[float], float] = float
    is_of_counts: bool = False


def _mean(column: str) -> Callable[[Binned, int], Watched]:
    def series(of: Binned, bin_us: int) -> Watched:
        del bin_us
        values: Floats = getattr(of, column)
        known = np.isfinite(values)
        return Watched(of.time_us[known], values[known], of.batches[known])

    return series


def _share(part: str, *wholes: str, least: float) -> Callable[[Binned, int], Watched]:
    """Return a measure that is a share of counts, which are added up until there are `least` images."""

    def series(of: Binned, bin_us: int) -> Watched:
        del bin_us
        whole = np.sum([getattr(of, name) for name in wholes], axis=0)
        starts = filled(whole, least)
        if not len(starts):
            return Watched(of.time_us[:0], np.empty(0), of.batches[:0])
        parts, all_of = (np.add.reduceat(counts, starts) for counts in (getattr(of, part), whole))
        end_us = int(of.time_us[np.flatnonzero(whole)[-1]])
        return Watched(of.time_us[starts], parts / all_of, np.add.reduceat(of.batches, starts), end_us)

    return series


def filled(counts: Integers, least: float) -> Integers:
    """Return where each of the runs begins in which there are about `least` counts or more."""
    total = np.cumsum(counts)
    if not len(total) or total[-1] < least:
        return np.empty(0, np.int64)
    runs = max(1, int(total[-1] // least))
    ends = np.searchsorted(total, least * np.arange(1, runs)) + 1
    starts = np.unique(np.concatenate([[0], ends]))
    kept: Integers = starts[(starts == 0) | (total[-1] - total[np.maximum(starts - 1, 0)] >= least)]
    return kept


def _rate(of: Binned, bin_us: int) -> Watched:
    """Return images an hour, as logarithms, also where there were none; a point has hours for some batches."""
    place = of.time_us // bin_us
    span = int(place[-1] - place[0]) + 1
    usual = float(of.batches.sum()) / span
    width = max(1, -(-HOUR_US // bin_us), int(np.ceil(_RATE_BATCHES / usual)))
    points = max(1, span // width)  # the last is as long, or it would be of less
    kept = (place - place[0]) // width < points
    which = (place[kept] - place[0]) // width
    images = np.bincount(which, (of.images + of.rejected)[kept], points)
    batches = np.bincount(which, of.batches[kept], points)
    hours = width * bin_us / HOUR_US
    least = images.sum() / points / 32.0
    time_us = (place[0] + width * np.arange(points, dtype=np.int64)) * bin_us
    return Watched(time_us, np.log((images + least) / hours), np.maximum(1, np.rint(batches)).astype(np.int64))


def _rejects(of: Binned, bin_us: int) -> Watched:
    """Return the share as an angle, 2 arcsin of its root, whose noise is the same everywhere (Bartlett, 1947).

    From 0 to .01 it moves by .2, from .2 to .29 too.
    """
    found = _share("rejected", "images", "rejected", least=128)(of, bin_us)
    return replace(found, values=2.0 * np.arcsin(np.sqrt(found.values)))


_OTHER = Sensitivity(spread=0.1, memory=8.0, penalty=8.0, settle=32, bins=1024)
_PICTURE = replace(_OTHER, smallest=0.25, memory=40.0, penalty=12.0, settle=24)

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            Measure("alpha", "alpha", ALPHA, _mean("alpha")),
            Measure("objective", "nats", replace(_OTHER, smallest=0.15, spread=0.15), _mean("objective")),
            Measure("confidence", "share", replace(_OTHER, smallest=0.06, spread=0.04), _mean("confidence")),
            Measure(
                "agreement",
                "share",
                replace(_OTHER, smallest=0.1, spread=0.15, settle=60),
                _share("agreed", "compared", least=24),
                is_of_counts=True,
            ),
            Measure(
                "rejects",
                "share",
                replace(_OTHER, smallest=0.2, settle=8),
                _rejects,
                lambda value: float(np.sin(min(max(value, 0.0), np.pi) / 2.0) ** 2),
                is_of_counts=True,
            ),
            Measure(
                "rate",
                "images an hour",
                replace(_OTHER, smallest=0.4, spread=0.3, memory=60.0, settle=64),
                _rate,
                lambda value: float(np.exp(value)),
                is_of_counts=True,
            ),
            Measure(
                "forwards",
                "forwards an image",
                replace(_OTHER, smallest=0.25, spread=0.2),
                _mean("forward_equivalents"),
            ),
            Measure("brightness", "log", replace(_PICTURE, smallest=0.35), _mean("luminance")),
            Measure("contrast", "log", _PICTURE, _mean("contrast")),
            Measure("sharpness", "log", replace(_PICTURE, smallest=0.2), _mean("gradient")),
            Measure("noise", "log", replace(_PICTURE, smallest=0.2), _mean("laplacian")),
            Measure("colour", "log", replace(_PICTURE, smallest=0.3), _mean("colourfulness")),
            Measure(
                "accuracy",
                "share",
                replace(_OTHER, smallest=0.1, spread=0.15, settle=60),
                _share("correct", "labelled", least=10),
                is_of_counts=True,
            ),
        )
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """Numbers of images that were served each class, `[bins, labels]`; the last label may be all the others."""

    time_us: Integers
    batches: Integers
    labels: Sequence[str]
    counts: Integers


NO_MIX = Mixed(np.empty(0, np.int64), np.empty(0, np.int64), (), np.empty((0, 0), np.int64))


def joined(one: Mixed, other: Mixed) -> Mixed:
    """Return one after the other; a class that one of them does not name was not served there."""
    labels = sorted({*one.labels, *other.labels})
    counts = []
    for each in (one, other):
        wide = np.zeros((len(each.time_us), len(labels)), np.int64)
        wide[:, [labels.index(name) for name in each.labels]] = each.counts
        counts.append(wide)
    times, batches = (np.concatenate([getattr(one, n), getattr(other, n)]) for n in ("time_us", "batches"))
    return Mixed(times, batches, tuple(labels), np.concatenate(counts))
