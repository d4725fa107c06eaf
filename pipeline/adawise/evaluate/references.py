"""What strategies are compared with, computed without any search: fixed alphas, and oracles that see the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adawise.adapt.objective import Values, reliable
from adawise.evaluate.bench import Bench, Floats
from adawise.evaluate.score import Score, by_domain, ratio, score
from adawise.evaluate.streams import Ids, Stream

ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED = "zero_shot", "fine_tuned", "fixed_0.50", "best_fixed"
FIXED = (ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED)
DOMAIN_ORACLE, SPLIT_HALF_ORACLE, BATCH_ORACLE, GRID = (
    "domain_oracle",
    "split_half_oracle",
    "batch_oracle",
    "grid_batch",
)
_SPLITS = 20


@dataclass(frozen=True, eq=False)
class Visits:
    """The images of some streams, flat: `ids` `[V]` and the batch of each, `batch` `[V]`, which never goes down."""

    ids: Ids
    batch: Ids

    @classmethod
    def of(cls, streams: tuple[Stream, ...]) -> Visits:
        """Of streams one after the other."""
        batches = [ids for stream in streams for ids in stream]
        return cls(np.concatenate(batches), np.repeat(np.arange(len(batches)), [len(ids) for ids in batches]))

    def batch_means(self, values: Floats) -> Floats:
        """Means over each batch of `[..., V]`."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.batch) > 0])
        sums: Floats = np.add.reduceat(values, starts, axis=-1)
        means: Floats = sums / np.diff(np.r_[starts, len(self.batch)])
        return means


def fixed(bench: Bench, visits: Floats, index: Ids | int) -> Score:
    """Of images that came `visits` `[N]` times, served at a fixed alpha, or each image at its own: `index` `[N]`."""
    ids = np.repeat(np.arange(len(visits)), visits.astype(np.int64))
    at = np.broadcast_to(np.asarray(index), len(visits))[ids]
    return score(bench, ids, bench.quality.at(at, ids), 1.0)


def best_fixed(bench: Bench, visits: Floats) -> int:
    """The index of the alpha that would have served these visits best; the lowest of equals."""
    return int(np.argmax(np.nanmean(fixed_accuracies(bench, visits), axis=1)))


def fixed_accuracies(bench: Bench, visits: Floats) -> Floats:
    """Of each fixed alpha on each domain, `[G, D]`; nan for a domain that did not come."""
    came = by_domain(bench, visits)
    return ratio(
        by_domain(bench, bench.quality.correct * visits), np.broadcast_to(came, (len(bench.alphas), len(came)))
    )


def domain_oracle(bench: Bench) -> Ids:
    """For each image `[N]`, the index of the alpha that is best on all images of its domain; the lowest of equals.

    Chosen on the very images that it is judged by, so it is optimistic: see `split_half`.
    """
    best: Ids = bench.accuracy.argmax(axis=1)[bench.domain_of]
    return best


def split_half(bench: Bench) -> Floats:
    """How often an image is right at the alpha that is best on the half of its domain that it is not in, `[N]`.

    The mean over 20 splits at random, seeded by the domain's name.
    """
    rates = np.empty(bench.starts[-1])
    for table, first, last in zip(bench.tables, bench.starts, bench.starts[1:], strict=False):
        correct = bench.quality.correct[:, first:last]
        rng = np.random.default_rng(tuple(table.name.encode()))
        right = np.zeros(last - first)
        for _ in range(_SPLITS):
            shuffled = rng.permutation(last - first)
            halves = np.array_split(shuffled, 2)
            for chosen_on, judged_on in (halves, halves[::-1]):
                best = int(correct[:, chosen_on].mean(axis=1).argmax()) if len(chosen_on) else 0
                right[judged_on] += correct[best, judged_on]
        rates[first:last] = right / _SPLITS
    return rates


def batch_oracle(bench: Bench, visits: Visits) -> Ids:
    """For each visit `[V]`, the index of the alpha that is best on its batch; it follows the noise of 32 images."""
    right = visits.batch_means(bench.quality.correct[:, visits.ids].astype(np.float64))  # [G, batches]
    best: Ids = right.argmax(axis=0)[visits.batch - visits.batch[0]]
    return best


def grid_batch(bench: Bench, visits: Visits, values: tuple[Values, ...], minimum: int) -> Ids:
    """For each visit `[V]`, the index of the alpha whose objective is lowest on its batch, as the strategy `grid`."""
    index = np.empty(len(visits.ids), dtype=np.int64)
    for batch in np.split(np.arange(len(visits.ids)), np.flatnonzero(np.diff(visits.batch)) + 1):
        ids = visits.ids[batch]
        v = bench.vocabularies[bench.domain_of[ids[0]]]
        seen = values[v][:, bench.row_of[ids]]  # [G, n]
        mask = reliable(list(seen), bench.blocks[v].shape[-1], minimum)
        index[batch] = int(seen[:, mask].mean(axis=1).argmin())
    return index


def served_at(bench: Bench, visits: Visits, index: Ids, forwards: float) -> Score:
    """Of visits served at an alpha each, `[V]`."""
    return score(bench, visits.ids, bench.quality.at(index, visits.ids), forwards)
