"""Counts of what was served: enough for accuracy, calibration error, NLL, flicker and cost, and to resample the images.

Scores of several streams can be added. Every figure is a mean over domains of equal weight, however many images of each
came. A domain without visits does not count.

Intervals are of a paired bootstrap over images (Efron, 1979; percentiles: Efron and Tibshirani, 1993, chapter 13): all
rows that are compared share the same resampled images. An image is drawn with all of its visits, in all streams and
seeds: 1,600 visits to 400 images are the evidence of 400 images. One photograph under six corruptions is part of six
domains, and is drawn once for all of them, because an image that is hard under one corruption is hard under the others.
Domains are not resampled: the result is about these domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from adawise_lab.evaluate.bench import Bench, Floats, Quality
from adawise_lab.evaluate.streams import Ids

BINS = 15  # of the calibration error, as on the card
RESAMPLES = 1000
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Score:
    """Sums over what was served of N images in D domains.

    Attributes:
        visits: how often each image came, `[N]`.
        hits: how often each image was right, `[N]`.
        bins: for each domain and bin of confidence, the count and the sum of (right - confidence), `[D, BINS, 2]`.
        nll: sums in nats, `[D]`.
        forwards: passes of the image tower, in images, `[D]`.
        pairs: how often an image had the label of the one before it in its stream, `[D]`; nan where the order of the
            images is not known, as is `changes`.
        changes: how often the prediction then was another than before, `[D]`.
    """

    visits: Floats
    hits: Floats
    bins: Floats
    nll: Floats
    forwards: Floats
    pairs: Floats
    changes: Floats

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, sums.name) + getattr(other, sums.name) for sums in fields(Score)))


def score(
    bench: Bench, ids: Ids, worth: Quality, forwards: Floats | float, follows: npt.NDArray[np.bool_] | None = None
) -> Score:
    """Return the score of images as they were served.

    Args:
        bench: the images and their domains.
        ids: the images `[V]`.
        worth: the quality of each, `[V]`.
        forwards: the cost of each, `[V]`.
        follows: whether each came directly after the one before it in one stream, `[V]`; None: that is not known.
    """
    N, D = bench.starts[-1], len(bench.tables)
    domain = bench.domain_of[ids]
    right = worth.correct.astype(np.float64)
    unknown = np.full(D, np.nan), np.full(D, np.nan)
    pairs, changes = unknown if follows is None else pairs_and_changes(bench, ids, worth.predicted, follows)
    bin_of = domain * BINS + np.minimum((worth.confidence * BINS).astype(np.int64), BINS - 1)
    bins = [np.bincount(bin_of, weights, D * BINS).reshape(D, BINS) for weights in (None, right - worth.confidence)]
    return Score(
        visits=np.bincount(ids, minlength=N).astype(np.float64),
        hits=_sums(ids, right, N),
        bins=np.stack(bins, axis=-1).astype(np.float64),
        nll=_sums(domain, worth.nll, D),
        forwards=_sums(domain, np.broadcast_to(forwards, len(ids)), D),
        pairs=pairs,
        changes=changes,
    )


def pairs_and_changes(
    bench: Bench, ids: Ids, predicted: npt.NDArray[np.int32], follows: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return `pairs` and `changes` of a score; a pair counts for the domain of its second image.

    Args:
        bench: the images and their domains.
        ids: the images `[V]`.
        predicted: the class index of each prediction, `[V]`.
        follows: as of `score`.
    """
    D, domain, labels = len(bench.tables), bench.domain_of[ids], bench.labels[ids]
    vocabulary = np.asarray(bench.vocabularies)[domain]
    same = follows[1:] & (labels[1:] == labels[:-1]) & (vocabulary[1:] == vocabulary[:-1])
    changed = same & (predicted[1:] != predicted[:-1])
    return _sums(domain[1:], same, D), _sums(domain[1:], changed, D)


def _sums(index: Ids, values: npt.NDArray[np.generic], length: int) -> Floats:
    """Return the sums of `values` `[V]` with the same index, `[length]`."""
    return np.bincount(index, values, length).astype(np.float64)


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


def mean_nll(bench: Bench, scored: Score) -> Floats:
    """Return the mean NLL of the label on each domain, nats, `[D]` (Guo et al., 2017, section 2)."""
    return ratio(scored.nll, by_domain(bench, scored.visits))


def flicker(scored: Score) -> Floats:
    """Return on each domain the share of pairs of one label whose predictions differ, `[D]`, in [0, 1].

    Pairs are of images that follow one another in a stream. The definition is our own (docs/decisions/formulas.md).
    """
    return ratio(scored.changes, scored.pairs)


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


def resampled_accuracies(bench: Bench, hits: Floats, visits: Floats, *, seed: int = 0) -> Floats:
    """Return the accuracy (mean over domains) of R rows in each of 1,000 resamples, `[R, 1000]`.

    Args:
        bench: the images and their domains.
        hits: how often each image was right in each row, `[R, N]`.
        visits: how often each image came in each row, `[R, N]`. A domain without visits in any row is left out.
        seed: of the resampling.
    """
    parts: dict[int, Floats] = {}
    for domains in bench.sharing:
        drawn = _drawn(max(len(bench.tables[d]) for d in domains), (seed, min(domains)))
        for d in domains:
            images = slice(bench.starts[d], bench.starts[d + 1])
            if not visits[:, images].any():
                continue
            times = drawn[: len(bench.tables[d])]
            came, right = visits[:, images] @ times, hits[:, images] @ times
            parts[d] = np.divide(right, came, out=np.full_like(came, np.nan), where=came > 0)
    accuracies: Floats = np.nanmean(np.stack([parts[d] for d in sorted(parts)]), axis=0)
    return accuracies


def _drawn(images: int, seed: tuple[int, int]) -> Floats:
    """Return how often each source image is drawn, `[n, 1000]`; a domain may have only the first few of them."""
    if not images:
        return np.empty((0, RESAMPLES))
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1.0 / images), size=RESAMPLES)
    return drawn.T.astype(np.float64)


def interval(samples: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle 95 % of resampled values `[1000]`."""
    tail = 50.0 * (1.0 - _LEVEL)
    low, high = np.nanpercentile(samples, [tail, 100.0 - tail])
    return float(low), float(high)
