"""The share of the gain of knowing the condition that a strategy reaches, on streams whose conditions return.

Gains are computed from the domains' curves: what counts is the accuracy, on all images of a domain, of the alphas that
were served to it. So it does not matter which images came with which alpha. Knowing the condition means one alpha for
each domain, at one forward per image: the best by its curve (`domain_oracle`, optimistic), or the best on the other
half of its images (`split_half_oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adawise_lab.evaluate import references as ref
from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.bootstrap import interval, resampled_accuracies
from adawise_lab.evaluate.result import Difference, ToldShare
from adawise_lab.evaluate.score import by_domain, mean, ratio
from adawise_lab.evaluate.served import AlphaPath


def ways(
    bench: Bench, base: str, paths: Sequence[AlphaPath], others: Sequence[Sequence[AlphaPath]]
) -> list[dict[str, ToldShare]]:
    """Return, for each of `others`, its share of each oracle's gain over the strategy `base`, which served `paths`."""
    correct = bench.quality.correct
    told = {
        ref.SPLIT_HALF_ORACLE: ref.split_half(bench),
        ref.DOMAIN_ORACLE: correct[ref.domain_oracle(bench), np.arange(correct.shape[1])],
    }
    came = np.isin(bench.domain_of, [d for path in paths for d in path.domain]).astype(np.float64)
    hits = came * np.stack([*(_expected_hits(bench, each) for each in (paths, *others)), *told.values()])
    visits = np.broadcast_to(came, hits.shape)
    accuracies = ratio(by_domain(bench, hits), by_domain(bench, visits))
    gains = [mean(each - accuracies[0]) for each in accuracies]
    samples = resampled_accuracies(bench, hits, visits)
    samples -= samples[0].copy()

    def way(i: int, k: int) -> ToldShare:
        worth = Difference(gains[k], interval(samples[k]))
        if worth.ci[0] <= 0.0:
            return ToldShare(base, worth, None, None)
        return ToldShare(base, worth, gains[i] / gains[k], interval(ratio(samples[i], samples[k])))

    first = 1 + len(others)  # row of the first oracle
    return [{name: way(i, k) for k, name in enumerate(told, first)} for i in range(1, first)]


def _expected_hits(bench: Bench, paths: Sequence[AlphaPath]) -> Floats:
    """Return how often each image `[N]` is right at the alphas that were served to its domain."""
    batches = np.zeros((len(bench.alphas), len(bench.tables)))
    for path in paths:
        np.add.at(batches, ([bench.alphas.index(alpha) for alpha in path.alpha], path.domain), 1.0)
    shares = batches / np.maximum(batches.sum(axis=0), 1.0)
    hits: Floats = (bench.quality.correct * shares[:, bench.domain_of]).sum(axis=0)
    return hits
