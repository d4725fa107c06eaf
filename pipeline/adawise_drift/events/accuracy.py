"""Accuracy over time: measured where labels are, estimated without them, each point with a band of 95 %.

Images of a batch are alike, so errors are of clusters: batches, or bins of several. A point is as wide as it has to be
for a band that is worth reading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit

from adawise.labels.arrays import Floats, Integers, concatenated, selected
from adawise.labels.benefit.helped import Interval
from adawise_drift.changes.times import bin_width_us
from adawise_drift.events.measures import Binned
from adawise_drift.events.result import AccuracyOverTime, AccuracyPoint, How

ESTIMATE_ERROR = 0.09
"""Standard error of an accuracy, or of a change of it, that is estimated by confidence, beyond its noise: no less than
what `python -m tools.bench estimates` measures, with a card's temperature and without."""
AGREEMENT_ERROR = 0.06
"""The same of an accuracy that is estimated by the agreement of the endpoints."""
NORMAL = 1.96
"""Standard errors of a band of 95 %, where the error itself is known."""
LEAST = 30
"""Labelled images of a point, or of a side of a change."""

_CLUSTERS = 6  # of a point: of fewer, their spread is not known
_LEAST_ANSWERED = 128
_POINTS = 30  # a month by the day, a day by the hour
_TAIL = 0.975
_NONE: Floats = np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Counts and sums over images that are alike, by time: `[clusters]`."""

    since_us: Integers
    until_us: Integers
    labelled: Floats
    correct: Floats
    answered: Floats
    confidence: Floats  # sum
    compared: Floats
    agreed: Floats


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of sums, with its standard error over so many clusters."""

    value: float
    error: float
    clusters: int

    @property
    def quantile(self) -> float:
        """Quantile of Student's t for a band of 95 %."""
        return float(stdtrit(self.clusters - 1, _TAIL))


def clusters(of: Binned) -> Clusters:
    """Return a camera's bins as clusters; a bin in which no batch ends goes with the next in which one does."""
    ended = np.cumsum(of.batches) - of.batches
    starts = np.flatnonzero(np.diff(ended, prepend=-1))
    ends = np.append(starts, len(ended))[1:] - 1
    answered = of.images * np.isfinite(of.confidence)
    counts = (of.labelled, of.correct, answered, np.nan_to_num(of.confidence) * answered, of.compared, of.agreed)
    sums = (
        [np.add.reduceat(each.astype(np.float64), starts) for each in counts] if len(starts) else [_NONE] * len(counts)
    )
    return Clusters(of.time_us[starts], of.last_us[ends], *sums)


def ratio(part: Floats, whole: Floats) -> Ratio:
    """Return a ratio of sums over clusters, whose images are not independent (Cochran, 1977, section 6.4).

    The error of fewer than two clusters is nan.
    """
    kept = whole > 0
    part, whole = part[kept], whole[kept]
    count, total = len(whole), float(whole.sum())
    if count < 2:
        return Ratio(float(part.sum()) / total if total else math.nan, math.nan, count)
    value = float(part.sum()) / total
    spread = float(((part - value * whole) ** 2).sum()) / total**2 * count / (count - 1)
    return Ratio(value, math.sqrt(spread), count)


def measured(of: Clusters) -> Ratio:
    """Return the accuracy by labels; its error is never below that of as many independent images."""
    found, labels = ratio(of.correct, of.labelled), float(of.labelled.sum())
    smoothed = (found.value * labels + 1.0) / (labels + 2.0)  # all right is not sure to be so
    independent = math.sqrt(smoothed * (1.0 - smoothed) / labels) if labels else math.nan
    return Ratio(found.value, max(found.error, independent), found.clusters)


def over_time(of: Sequence[Binned]) -> AccuracyOverTime:
    """Return the accuracy of one camera, or of several as one, each image with the same weight."""
    parts = [clusters(each) for each in of]
    whole = concatenated(parts)
    ordered = selected(whole, np.argsort(whole.since_us, kind="stable"))
    return AccuracyOverTime(tuple(_points(ordered)), *_off(ordered))


def _points(of: Clusters) -> Iterator[AccuracyPoint]:
    for each in _spans(of, of.labelled, LEAST):
        labels = each.labelled.sum()
        yield _point(each, "measured", _wilson(measured(each), labels), labels)
    for each in _spans(of, of.answered, _LEAST_ANSWERED):
        band = _around(ratio(each.confidence, each.answered), ESTIMATE_ERROR)
        yield _point(each, "confidence", band, each.answered.sum())
    for each in _spans(of, of.compared, _LEAST_ANSWERED):
        band = _around(ratio(each.agreed, each.compared), AGREEMENT_ERROR)
        yield _point(each, "agreement", band, each.compared.sum())


def _point(of: Clusters, how: How, band: Interval, images: float) -> AccuracyPoint:
    return AccuracyPoint(int(of.since_us[0]), int(of.until_us.max()), how, band.value, band.low, band.high, int(images))


def _wilson(of: Ratio, images: float) -> Interval:
    """Return Wilson's interval (1927) for as many independent images as say as much (Korn and Graubard, 1998)."""
    p, z = of.value, of.quantile
    smoothed = (p * images + 1.0) / (images + 2.0)
    n = smoothed * (1.0 - smoothed) / of.error**2
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1.0 - p) / n + z**2 / (4 * n**2))
    scale = 1.0 + z**2 / n
    return Interval(p, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def _around(of: Ratio, error: float) -> Interval:
    half = math.hypot(of.quantile * of.error, NORMAL * error)
    return Interval(of.value, max(0.0, of.value - half), min(1.0, of.value + half))


def _spans(of: Clusters, counts: Floats, least: int) -> Iterator[Clusters]:
    """Yield parts with `least` counts or more, none of which goes over a time without any."""
    of, counts = selected(of, counts > 0), counts[counts > 0]
    if counts.sum() < least:
        return
    length = int(of.until_us.max() - of.since_us[0])
    width = bin_width_us(length, _POINTS)
    bridged = max(width, int(length * least / counts.sum()))  # what so many take on average
    gaps = of.since_us[1:] - np.maximum.accumulate(of.until_us)[:-1] > bridged
    ends = np.flatnonzero(np.append((np.diff(of.since_us // width) > 0) | gaps, True)) + 1
    begin = 0
    for run in np.split(ends, np.flatnonzero(gaps[ends[:-1] - 1]) + 1):
        bounds = [begin]
        for end in run.tolist():
            if counts[bounds[-1] : end].sum() >= least and end - bounds[-1] >= _CLUSTERS:
                bounds.append(end)
        begin = int(run[-1])
        if len(bounds) > 1:
            bounds[-1] = begin  # what is left is too little for a point of its own
        yield from (selected(of, slice(*each)) for each in pairwise(bounds))


def _off(of: Clusters) -> tuple[Interval | None, bool]:
    """Return by how much confidence says more than labels, on the same bins, and whether that is more than its error.

    That may be on average, or now the one way and then the other.
    """
    of = selected(of, (of.labelled > 0) & (of.answered > 0))
    if of.labelled.sum() < LEAST or len(of.labelled) < _CLUSTERS:
        return None, False
    whole = _gap(of)
    half = whole.quantile * whole.error
    parts = [_gap(each) for each in _spans(of, of.labelled, LEAST)] or [whole]
    squares = sum(part.value**2 - part.error**2 for part in parts) / len(parts)
    noise = 2.0 * math.sqrt(2.0 * sum(part.error**4 for part in parts)) / len(parts)
    is_wrong = abs(whole.value) > max(half, ESTIMATE_ERROR) or squares > ESTIMATE_ERROR**2 + noise
    return Interval(whole.value, whole.value - half, whole.value + half), is_wrong


def _gap(of: Clusters) -> Ratio:
    found = ratio(of.confidence / of.answered * of.labelled - of.correct, of.labelled)
    return Ratio(found.value, max(found.error, measured(of).error), found.clusters)
