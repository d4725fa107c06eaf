"""Counts of what was served: enough for accuracy, calibration error, NLL and cost, and to resample the images.

Scores of several streams can be added. Every figure is a mean over domains of equal weight, however many images of each
came. A domain without visits does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adawise_lab.evaluate.bench import Bench, Floats, Quality
from adawise_lab.evaluate.streams import Ids

BINS = 15  # of the calibration error, as on the card


@dataclass(frozen=True, eq=False)
class Score:
    """Sums over what was served of N images in D domains.

    Attributes:
        visits: how often each image came, `[N]`.
        hits: how often each image was right, `[N]`.
        bins: for each domain and bin of confidence, the count and the sum of (right - confidence), `[D, BINS, 2]`.
        nll: sums in nats, `[D]`.
        forwards: passes of the image tower, in images, `[D]`.
    """

    visits: Floats
    hits: Floats
    bins: Floats
    nll: Floats
    forwards: Floats

    def __add__(self, other: Score) -> Score:
        return Score(
            self.visits + other.visits,
            self.hits + other.hits,
            self.bins + other.bins,
            self.nll + other.nll,
            self.forwards + other.forwards,
        )


def score(bench: Bench, ids: Ids, worth: Quality, forwards: Floats | float) -> Score:
    """Return the score of images `ids` `[V]` as they were served, with the quality and the cost of each, `[V]`."""
    N, D = bench.starts[-1], len(bench.tables)
    domain = bench.domain_of[ids]
    right = worth.correct.astype(np.float64)
    bin_of = domain * BINS + np.minimum((worth.confidence * BINS).astype(np.int64), BINS - 1)
    bins = [np.bincount(bin_of, weights, D * BINS).reshape(D, BINS) for weights in (None, right - worth.confidence)]
    return Score(
        visits=np.bincount(ids, minlength=N).astype(np.float64),
        hits=_sums(ids, right, N),
        bins=np.stack(bins, axis=-1).astype(np.float64),
        nll=_sums(domain, worth.nll, D),
        forwards=_sums(domain, np.broadcast_to(forwards, len(ids)), D),
    )


def _sums(index: Ids, values: Floats, length: int) -> Floats:
    """Return the sums of `values` `[V]` with the same index, `[length]`."""
    return np.bincount(index, values, length).astype(np.float64)


def joined(parts: Sequence[Quality]) -> Quality:
    """Concatenate parts."""
    return Quality(
        np.concatenate([part.correct for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.nll for part in parts]),
    )


def total(scores: Sequence[Score]) -> Score:
    """Return the sum, added in the order given, so that it has the same bits each time."""
    result = scores[0]
    for other in scores[1:]:
        result = result + other
    return result


def by_domain(bench: Bench, per_image: Floats) -> Floats:
    """Return the sums of `[..., N]` over the images of each domain, `[..., D]`."""
    sums: Floats = np.add.reduceat(per_image, bench.starts[:-1], axis=-1)
    return sums


def domain_accuracy(bench: Bench, scored: Score) -> Floats:
    """Return the accuracy of each domain, `[D]`; nan without visits."""
    return ratio(by_domain(bench, scored.hits), by_domain(bench, scored.visits))


def calibration_error(bench: Bench, scored: Score) -> Floats:
    """Return the expected calibration error of each domain over 15 equal bins of confidence, `[D]`, in [0, 1]."""
    return ratio(np.abs(scored.bins[..., 1]).sum(axis=1), by_domain(bench, scored.visits))


def pooled_calibration_error(scored: Score) -> float:
    """Return the error over all images as one domain: over-confidence in one domain cancels the opposite in another."""
    return float(np.abs(scored.bins[..., 1].sum(axis=0)).sum() / scored.visits.sum())


def ratio(over: Floats, under: Floats) -> Floats:
    """Return `over / under`; nan where `under` is 0."""
    quotient: Floats = np.divide(over, under, out=np.full(np.shape(over), np.nan), where=under > 0)
    return quotient


def mean(per_domain: npt.NDArray[np.float64], chosen: Sequence[int] | None = None) -> float:
    """Return the mean over the domains with visits (among `chosen`), equally weighted; nan if there is none."""
    values = per_domain if chosen is None else per_domain[list(chosen)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
