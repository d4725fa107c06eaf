"""Streams for an evaluation: which images come when. Pure and seeded: the same arguments, the same stream.

A stream is a tuple of batches, a batch an array of image ids `[batch]`. Ids number the images of all domains through.
Kinds of stream, by how the domain changes:

    short       a new domain every 12 batches, all domains once, in random order
    long        the same, every 50 batches
    stationary  one domain, 50 batches: a stream of its own for each domain
    cycle       day and night: up and down twice through the domains in order of `rank`, 6 batches a visit
    jumps       abrupt: three visits of 4 to 16 batches to each domain, in random order
    mixed       every batch mixes all domains of a class vocabulary: a stream for each vocabulary
    smooth      the share of the second group of domains moves 0 -> 1 -> 0 in a straight line over 200 batches

Orders, by how the images of a domain follow each other: `iid`, or `runs` as a camera sends them: about eight images of
one class after the other. Either way an image comes again only when all of its domain have come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Stream = tuple[Ids, ...]

KINDS = ("short", "long", "stationary", "cycle", "jumps", "mixed", "smooth")
ORDERS = ("iid", "runs")
BATCH = 32  # images

_PERIOD = {"short": 12, "long": 50, "stationary": 50, "mixed": 24}  # batches (mixed: for each domain of a stream)
_CYCLES, _CYCLE_BATCHES = 2, 6
_JUMPS, _JUMP_BATCHES = 3, 24  # visits, batches of a domain in all
_SMOOTH_BATCHES = 200
_RUN = (4, 12)  # images of one class, at least and at most; eight in the mean


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain as streams see it: the `ids` `[n]` of its images and their `labels` `[n]`.

    Domains of one `vocabulary` have the same classes, so that a batch can mix them. `rank` orders a cycle.
    """

    name: str
    ids: Ids
    labels: npt.NDArray[np.int64]
    vocabulary: int = 0
    rank: float = 0.0


Smooth = tuple[tuple[int, ...], tuple[int, ...]]  # indices of the domains of the first and of the second group


def make_streams(
    kind: str, order: str, domains: Sequence[Domain], *, seed: int, smooth: Smooth | None = None, batch: int = BATCH
) -> tuple[Stream, ...]:
    """The streams of a kind and an order. `smooth` names the two groups of that kind, of one vocabulary."""
    rng = np.random.default_rng((seed, KINDS.index(kind), ORDERS.index(order)))
    feeds = [_feed(d, order, np.random.default_rng((*d.name.encode(), seed, ORDERS.index(order)))) for d in domains]
    if kind == "stationary":
        return tuple(_visits(feeds, [(d, _PERIOD[kind])], batch) for d in range(len(domains)))
    if kind == "mixed":
        vocabularies = sorted({d.vocabulary for d in domains})
        groups = [[i for i, d in enumerate(domains) if d.vocabulary == v] for v in vocabularies]
        return tuple(_mixed(feeds, group, order, batch, rng) for group in groups)
    if kind == "smooth":
        assert smooth is not None
        return (_smooth(feeds, smooth, order, batch, rng),)
    return (_visits(feeds, _schedule(kind, domains, rng), batch),)


def share_of_second() -> npt.NDArray[np.float64]:
    """The share of the second group in each batch of a smooth stream, `[batches]`: 0 at both ends, 1 in the middle."""
    shares: npt.NDArray[np.float64] = 1.0 - np.abs(np.linspace(-1.0, 1.0, _SMOOTH_BATCHES))
    return shares


def _schedule(kind: str, domains: Sequence[Domain], rng: np.random.Generator) -> list[tuple[int, int]]:
    """(domain, batches) of one visit after the other."""
    D = len(domains)
    if kind == "cycle":
        up = sorted(range(D), key=lambda d: (domains[d].rank, domains[d].name))
        return [(d, _CYCLE_BATCHES) for _ in range(_CYCLES) for d in (*up, *reversed(up))]
    if kind == "jumps":
        lengths = [_lengths(rng) for _ in range(D)]
        visits: list[tuple[int, int]] = []
        for k in range(_JUMPS):
            order = [int(d) for d in rng.permutation(D)]
            if visits and visits[-1][0] == order[0]:
                order = [*order[1:], order[0]]
            visits += [(d, lengths[d][k]) for d in order]
        return visits
    return [(int(d), _PERIOD[kind]) for d in rng.permutation(D)]


def _lengths(rng: np.random.Generator) -> list[int]:
    """Batches of each visit to a domain: at least 4, 24 in all."""
    first = int(rng.integers(4, 14))
    second = int(rng.integers(4, _JUMP_BATCHES - first - 3))
    return [first, second, _JUMP_BATCHES - first - second]


def _visits(feeds: Sequence[Iterator[int]], schedule: Sequence[tuple[int, int]], batch: int) -> Stream:
    return tuple(_take(feeds[d], batch) for d, batches in schedule for _ in range(batches))


def _mixed(
    feeds: Sequence[Iterator[int]], group: Sequence[int], order: str, batch: int, rng: np.random.Generator
) -> Stream:
    """Every batch has images of the domains of `group` in about equal parts, which part in which batch by chance."""
    batches = []
    for _ in range(_PERIOD["mixed"] * len(group)):
        counts = np.bincount(rng.permutation(np.resize(rng.permutation(len(group)), batch)), minlength=len(group))
        batches.append(_blend([_take(feeds[d], int(k)) for d, k in zip(group, counts, strict=True)], order, rng))
    return tuple(batches)


def _smooth(feeds: Sequence[Iterator[int]], groups: Smooth, order: str, batch: int, rng: np.random.Generator) -> Stream:
    batches = []
    for share in share_of_second():
        second = int(rng.binomial(batch, share))
        parts = []
        for group, count in zip(groups, (batch - second, second), strict=True):
            split = np.bincount(rng.integers(0, len(group), size=count), minlength=len(group))
            parts += [_take(feeds[d], int(k)) for d, k in zip(group, split, strict=True)]
        batches.append(_blend(parts, order, rng))
    return tuple(batches)


def _blend(parts: Sequence[Ids], order: str, rng: np.random.Generator) -> Ids:
    """One batch of several parts: shuffled, or one part after the other where runs must stay runs."""
    ids = np.concatenate(parts)
    return ids if order == "runs" else rng.permutation(ids)


def _take(feed: Iterator[int], count: int) -> Ids:
    return np.fromiter(islice(feed, count), dtype=np.int64, count=count)


def _feed(domain: Domain, order: str, rng: np.random.Generator) -> Iterator[int]:
    """Image ids for ever: all of the domain in random order, then all again in another."""
    while True:
        shuffled = rng.permutation(len(domain.ids))
        if order == "runs":
            shuffled = _in_runs(domain.labels, shuffled, rng)
        yield from (int(i) for i in domain.ids[shuffled])


def _in_runs(labels: npt.NDArray[np.int64], shuffled: Ids, rng: np.random.Generator) -> Ids:
    """The same images in runs of one class; a class comes as often as it has images left."""
    left = {int(c): shuffled[labels[shuffled] == c] for c in np.unique(labels)}
    ordered: list[Ids] = []
    while left:
        classes = list(left)
        counts = np.array([len(left[c]) for c in classes], dtype=np.float64)
        c = classes[int(rng.choice(len(classes), p=counts / counts.sum()))]
        length = int(rng.integers(_RUN[0], _RUN[1] + 1))
        ordered.append(left[c][:length])
        left[c] = left[c][length:]
        if not len(left[c]):
            del left[c]
    return np.concatenate(ordered)
