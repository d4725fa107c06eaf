"""References for strategies: fixed alphas, oracles that use labels, and the best path of a stream that changes slowly.

They are computed without a search. Gains against oracles are computed from the domains' curves: what counts is the
accuracy, on all images of a domain, of the alphas that were served to it. So it does not matter which images came with
which alpha. Knowing the condition means one alpha for each domain, at one forward per image: the best by its curve
(`domain_oracle`, optimistic), or the best on the other half of its images (`split_half_oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adawise.adapt.objective import Values, reliable
from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.result import Difference, OracleShare
from adawise_lab.evaluate.run import AlphaPath
from adawise_lab.evaluate.score import (
    Score,
    by_domain,
    interval,
    mean,
    pairs_and_changes,
    ratio,
    resampled_accuracies,
    score,
)
from adawise_lab.evaluate.streams import Ids, Smooth, Stream, share_of_second

ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED = "zero_shot", "fine_tuned", "fixed_0.50", "best_fixed"
FIXED = (ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED)
DOMAIN_ORACLE, SPLIT_HALF_ORACLE, BATCH_ORACLE, GRID = (
    "domain_oracle",
    "split_half_oracle",
    "batch_oracle",
    "grid_batch",
)
_SPLITS = 20
_FARTHEST = 0.25  # of the stream: a longer lag does not count as following
_LEAST_CORRELATION = 0.5  # a lower one is noise, not a lag


@dataclass(frozen=True, eq=False)
class Visits:
    """The images of some streams, flat.

    Attributes:
        ids: the images `[V]`.
        batch: the number of each one's batch `[V]`, which never falls.
        follows: whether each came directly after the one before it in one stream, `[V]`.
    """

    ids: Ids
    batch: Ids
    follows: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, streams: tuple[Stream, ...]) -> Visits:
        """Return the visits of streams, one after the other."""
        batches = [ids for stream in streams for ids in stream]
        stream = np.repeat(np.arange(len(streams)), [sum(map(len, stream)) for stream in streams])
        return cls(
            np.concatenate(batches),
            np.repeat(np.arange(len(batches)), [len(ids) for ids in batches]),
            np.diff(stream, prepend=-1) == 0,
        )

    def batch_means(self, values: Floats) -> Floats:
        """Return the means of `values` `[..., V]` over each batch, `[..., batches]`."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.batch) > 0])
        sums: Floats = np.add.reduceat(values, starts, axis=-1)
        means: Floats = sums / np.diff(np.r_[starts, len(self.batch)])
        return means


@dataclass(frozen=True, eq=False)
class Came:
    """The images of some streams, with a bench of what is right of them: that of a shortlist, if they had one.

    Attributes:
        bench: the images and their domains.
        visits: those of each seed.
    """

    bench: Bench
    visits: Sequence[Visits]

    @cached_property
    def times(self) -> Floats:
        """The number of times that each image came, `[N]`."""
        ids = np.concatenate([visits.ids for visits in self.visits])
        return np.bincount(ids, minlength=self.bench.starts[-1]).astype(np.float64)

    def fixed(self, index: Ids | int) -> Score:
        """Return the score at one alpha index, or of each image at its own `[N]`."""
        at = np.broadcast_to(np.asarray(index), len(self.times))
        pairs, changes = np.zeros(len(self.bench.tables)), np.zeros(len(self.bench.tables))
        for visits in self.visits:
            predicted = self.bench.quality.predicted[at[visits.ids], visits.ids]
            found = pairs_and_changes(self.bench, visits.ids, predicted, visits.follows)
            pairs, changes = pairs + found[0], changes + found[1]
        return replace(fixed(self.bench, self.times, index), pairs=pairs, changes=changes)


def fixed(bench: Bench, visits: Floats, index: Ids | int) -> Score:
    """Return the score of images that came `visits` `[N]` times, at one alpha index, or each at its own `[N]`."""
    ids = np.repeat(np.arange(len(visits)), visits.astype(np.int64))
    at = np.broadcast_to(np.asarray(index), len(visits))[ids]
    return score(bench, ids, bench.quality.at(at, ids), 1.0)


def best_fixed(*came: tuple[Bench, Floats]) -> int:
    """Return the index of the alpha that would have served these visits best; the lowest if several are.

    Args:
        came: benches of the same images, and how often each image came with it, `[N]`.
    """
    hits = np.sum([by_domain(bench, bench.quality.correct * visits) for bench, visits in came], axis=0)
    times = np.sum([by_domain(bench, visits) for bench, visits in came], axis=0)
    return int(np.argmax(np.nanmean(ratio(hits, np.broadcast_to(times, hits.shape)), axis=1)))


def domain_oracle(bench: Bench) -> Ids:
    """Return for each image the index of the alpha that is best on all images of its domain, `[N]`.

    The lowest of equals.

    The alpha is chosen on the same images that judge it, so this oracle is optimistic; compare `split_half`.
    """
    best: Ids = bench.accuracy.argmax(axis=1)[bench.domain_of]
    return best


def split_half(bench: Bench) -> Floats:
    """Return how often an image is right at the alpha that is best on the other half of its domain, `[N]`.

    The mean over 20 random splits, seeded by the domain's name.
    """
    rates = np.empty(bench.starts[-1])
    for table, first, last in zip(bench.tables, bench.starts, bench.starts[1:], strict=False):
        correct = bench.quality.correct[:, first:last]
        rng = np.random.default_rng(tuple(table.name.encode()))
        right = np.zeros(last - first)
        for _ in range(_SPLITS):
            shuffled = rng.permutation(last - first)
            halves = np.array_split(shuffled, 2)
            for chosen_on, scored_on in (halves, halves[::-1]):
                best = int(correct[:, chosen_on].mean(axis=1).argmax()) if len(chosen_on) else 0
                right[scored_on] += correct[best, scored_on]
        rates[first:last] = right / _SPLITS
    return rates


def batch_oracle(bench: Bench, visits: Visits) -> Ids:
    """Return for each visit the index of the alpha that is best on its batch, `[V]`; it fits the noise of 32 images."""
    right = visits.batch_means(bench.quality.correct[:, visits.ids].astype(np.float64))  # [G, batches]
    best: Ids = right.argmax(axis=0)[visits.batch - visits.batch[0]]
    return best


def grid_batch(bench: Bench, visits: Visits, values: tuple[Values, ...], minimum: int) -> Ids:
    """Return for each visit the alpha index with the lowest objective on its batch, `[V]`, as the strategy `grid`."""
    index = np.empty(len(visits.ids), dtype=np.int64)
    for batch in np.split(np.arange(len(visits.ids)), np.flatnonzero(np.diff(visits.batch)) + 1):
        ids = visits.ids[batch]
        v = bench.vocabularies[bench.domain_of[ids[0]]]
        of_batch = values[v][:, bench.row_of[ids]]  # [G, n]
        mask = reliable(list(of_batch), bench.blocks[v].shape[-1], minimum)
        index[batch] = int(of_batch[:, mask].mean(axis=1).argmin())
    return index


def served_at(bench: Bench, visits: Visits, index: Ids, forwards: float) -> Score:
    """Return the score of visits, each served at the alpha index given for it, `[V]`."""
    return score(bench, visits.ids, bench.quality.at(index, visits.ids), forwards, visits.follows)


def ways(
    bench: Bench, base: str, paths: Sequence[AlphaPath], others: Sequence[Sequence[AlphaPath]]
) -> list[dict[str, OracleShare]]:
    """Return, for each of `others`, its share of each oracle's gain over the strategy `base`, which served `paths`."""
    correct = bench.quality.correct
    oracles = {
        SPLIT_HALF_ORACLE: split_half(bench),
        DOMAIN_ORACLE: correct[domain_oracle(bench), np.arange(correct.shape[1])],
    }
    came = np.isin(bench.domain_of, [d for path in paths for d in path.domain]).astype(np.float64)
    hits = came * np.stack([*(_expected_hits(bench, each) for each in (paths, *others)), *oracles.values()])
    visits = np.broadcast_to(came, hits.shape)
    accuracies = ratio(by_domain(bench, hits), by_domain(bench, visits))
    gains = [mean(each - accuracies[0]) for each in accuracies]
    samples = resampled_accuracies(bench, hits, visits)
    samples -= samples[0].copy()

    def way(i: int, k: int) -> OracleShare:
        worth = Difference(gains[k], interval(samples[k]))
        if worth.ci[0] <= 0.0:
            return OracleShare(base, worth, None, None)
        return OracleShare(base, worth, gains[i] / gains[k], interval(ratio(samples[i], samples[k])))

    first = 1 + len(others)  # row of the first oracle
    return [{name: way(i, k) for k, name in enumerate(oracles, first)} for i in range(1, first)]


def _expected_hits(bench: Bench, paths: Sequence[AlphaPath]) -> Floats:
    """Return how often each image `[N]` is right at the alphas that were served to its domain."""
    batches = np.zeros((len(bench.alphas), len(bench.tables)))
    for path in paths:
        np.add.at(batches, ([bench.alphas.index(alpha) for alpha in path.alpha], path.domain), 1.0)
    shares = batches / np.maximum(batches.sum(axis=0), 1.0)
    hits: Floats = (bench.quality.correct * shares[:, bench.domain_of]).sum(axis=0)
    return hits


def best_path(bench: Bench, smooth: Smooth) -> Floats:
    """Return the alpha that is best for the mixture of each batch of a smooth stream, `[batches]`.

    The lowest of equals.

    It uses the expected share of each group and the accuracies over all images of the domains, which avoids the
    sampling noise of batches of 32 images.
    """
    first, second = (bench.accuracy[list(group)].mean(axis=0) for group in smooth)  # [G] each
    share = share_of_second()[:, None]
    best: Floats = np.asarray(bench.alphas)[((1.0 - share) * first + share * second).argmax(axis=1)]
    return best


def lag_batches(served: Sequence[Floats], best: Floats) -> float | None:
    """Return by how many batches the `served` paths (one for each seed, `[batches]`) lag behind `best` `[batches]`.

    The lag is the shift at which the mean path correlates most with `best`. None if the path does not follow: one of
    both does not move, or the correlation is below .5 at every shift.
    """
    path = np.mean(served, axis=0)
    T = len(best)
    correlations = {}
    for lag in range(int(T * _FARTHEST) + 1):
        a, b = path[lag:], best[: T - lag]
        if a.std() > 1e-9 and b.std() > 1e-9:
            correlations[lag] = float(np.corrcoef(a, b)[0, 1])
    if max(correlations.values(), default=0.0) < _LEAST_CORRELATION:
        return None
    return float(max(correlations, key=lambda lag: (correlations[lag], -lag)))


def path_error(served: Sequence[Floats], best: Floats) -> float:
    """Return the mean distance between served and best alpha."""
    return float(np.abs(np.stack(served) - best).mean())
