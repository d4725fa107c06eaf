"""Streams for an evaluation: which images come when. Pure and seeded: equal arguments give an equal stream.

A stream is a tuple of batches, a batch an array of image ids `[batch]`. Ids number the images of all domains
consecutively. Kinds of stream, by how the domain changes:

    short       a new domain every 12 batches, all domains once, in random order
    long        the same, every 50 batches
    stationary  one domain, 50 batches: a stream for each domain
    cycle       day and night: up and down twice through the domains in order of `rank`, 6 batches a visit
    jumps       abrupt: three visits of at least 4 batches to each domain, 24 batches in all, in random order
    mixed       every batch mixes all domains of a class vocabulary: a stream for each vocabulary
    smooth      the share of the second group of domains moves 0 -> 1 -> 0 linearly over 200 batches
    returning   six domains, drawn by seed: each once, and then 12 returns in random order, 12 batches a visit
    calendar    ten days with one domain by day (16 batches) and one by night (12); on about half of the days, one of up
                to four other domains takes half of the daylight

Four kinds are controls: they check that a strategy makes nothing of changes that mean nothing. Each has a stream of 50
batches for each domain:

    exposure    the appearance statistics jump every 12 batches, as with automatic exposure; the content does not change
    brightness  the appearance statistics drift up and down once
    odd         one image in twenty is of another domain of the same vocabulary
    pan         the camera turns between three views every 8 batches; each has a third of the classes and its own look

Orders of the images of a domain: `iid`, or `runs`, as a camera sends them: about eight images of one class in a row. In
both, an image comes again only after all images of its domain have come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Stream = tuple[Ids, ...]

CONTROLS = ("exposure", "brightness", "odd", "pan")
RETURN = ("returning", "calendar")  # conditions come back in these
KINDS = ("short", "long", "stationary", "cycle", "jumps", "mixed", "smooth", *RETURN, *CONTROLS)
ORDERS = ("iid", "runs")
BATCH = 32  # images

_PERIOD = {"short": 12, "long": 50, "stationary": 50, "mixed": 24}  # batches (mixed: for each domain of a stream)
_CYCLES, _CYCLE_BATCHES = 2, 6
_JUMPS, _JUMP_BATCHES = 3, 24  # visits; batches of a domain in total
_SMOOTH_BATCHES = 200
_RETURNING, _RETURNS, _RETURNING_BATCHES = 6, 12, 12  # domains, visits after the first ones, batches of one
_DAYS, _DAY_BATCHES, _NIGHT_BATCHES, _WEATHERS, _WEATHER = 10, 16, 12, 4, 0.5  # the last: share of days with weather
PAN_BATCHES, VIEWS = 8, 3  # batches of one view, in turn
_CONTROL_BATCHES, _EXPOSURE_BATCHES, _ODD = 50, 12, 0.05
_BRIGHTER = np.array([0.6, 0.3, 0.0, 0.0, 0.4])  # added to the statistics, for about twice the light
RUN = (4, 12)  # images of one class, fewest and most; eight on average


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain as streams see it.

    Attributes:
        name: of the domain.
        ids: of its images, `[n]`.
        labels: of its images, `[n]`.
        vocabulary: domains of one vocabulary have the same classes, so that a batch can mix them.
        rank: position of the domain in a cycle.
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
    """Return the streams of a kind and an order.

    `smooth` names the two groups of domains of that kind, which share a vocabulary.
    """
    rng = np.random.default_rng((seed, KINDS.index(kind), ORDERS.index(order)))
    feeds = [_feed(d, order, np.random.default_rng((*d.name.encode(), seed, ORDERS.index(order)))) for d in domains]
    if kind == "stationary":
        return tuple(_visits(feeds, [(d, _PERIOD[kind])], batch) for d in range(len(domains)))
    if kind in CONTROLS:
        return tuple(_control(kind, feeds, domains, d, order, batch, rng) for d in range(len(domains)))
    if kind == "mixed":
        vocabularies = sorted({d.vocabulary for d in domains})
        groups = [[i for i, d in enumerate(domains) if d.vocabulary == v] for v in vocabularies]
        return tuple(_mixed(feeds, group, order, batch, rng) for group in groups)
    if kind == "smooth":
        assert smooth is not None
        return (_smooth(feeds, smooth, order, batch, rng),)
    return (_visits(feeds, _schedule(kind, domains, rng), batch),)


def appearance_shifts(kind: str, batches: int, *, seed: int, stream: int) -> npt.NDArray[np.float64] | None:
    """Return what is added to the statistics of each batch of a control, `[batches, 5]`; None for nothing."""
    rng, at = np.random.default_rng((seed, stream, KINDS.index(kind))), np.arange(batches)
    if kind == "exposure":
        steps = np.cumsum(rng.integers(1, 3, size=batches)) % 3 - 1.0  # each step differs from the one before
        return np.outer(steps[at // _EXPOSURE_BATCHES], _BRIGHTER)
    if kind == "brightness":
        return np.outer(np.sin(2 * np.pi * (at / batches + rng.uniform())), _BRIGHTER)
    if kind == "pan":
        return rng.normal(0.0, 0.25, size=(VIEWS, len(_BRIGHTER)))[at // PAN_BATCHES % VIEWS]
    return None


def share_of_second() -> npt.NDArray[np.float64]:
    """Return the share of the second group in each batch of a smooth stream, `[batches]`.

    It is 0 at both ends and 1 in the middle.
    """
    shares: npt.NDArray[np.float64] = 1.0 - np.abs(np.linspace(-1.0, 1.0, _SMOOTH_BATCHES))
    return shares


def _schedule(kind: str, domains: Sequence[Domain], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return (domain, batches) of each visit, in order."""
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
    if kind == "returning":
        there = [int(d) for d in rng.permutation(D)[:_RETURNING]]
        passed = list(there)
        for _ in range(_RETURNS):
            passed.append(int(rng.choice([d for d in there if d != passed[-1]] or there)))
        return [(d, _RETURNING_BATCHES) for d in passed]
    if kind == "calendar":
        return _calendar(D, rng)
    return [(int(d), _PERIOD[kind]) for d in rng.permutation(D)]


def _calendar(D: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    drawn = [int(d) for d in rng.permutation(D)]
    day, night, *weathers = [*drawn, drawn[-1]] if D == 1 else drawn
    passed: list[tuple[int, int]] = []
    for _ in range(_DAYS):
        if weathers and rng.random() < _WEATHER:
            weather, half = int(rng.choice(weathers[:_WEATHERS])), _DAY_BATCHES // 2
            parts = [(day, half), (weather, half)]
            passed += parts if rng.random() < 0.5 else parts[::-1]
        else:
            passed.append((day, _DAY_BATCHES))
        passed.append((night, _NIGHT_BATCHES))
    return passed


def _lengths(rng: np.random.Generator) -> list[int]:
    """Return the batches of each visit to a domain: at least 4 each, 24 in total."""
    first = int(rng.integers(4, 14))
    second = int(rng.integers(4, _JUMP_BATCHES - first - 3))
    return [first, second, _JUMP_BATCHES - first - second]


def _visits(feeds: Sequence[Iterator[int]], schedule: Sequence[tuple[int, int]], batch: int) -> Stream:
    return tuple(_take(feeds[d], batch) for d, batches in schedule for _ in range(batches))


def _mixed(
    feeds: Sequence[Iterator[int]], group: Sequence[int], order: str, batch: int, rng: np.random.Generator
) -> Stream:
    """Return batches with about equal parts of each domain of `group`; which domains get one image more is random."""
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


def _control(
    kind: str,
    feeds: Sequence[Iterator[int]],
    domains: Sequence[Domain],
    d: int,
    order: str,
    batch: int,
    rng: np.random.Generator,
) -> Stream:
    others = [e for e, other in enumerate(domains) if e != d and other.vocabulary == domains[d].vocabulary]
    if kind == "odd" and others:
        return tuple(_odd(feeds, d, others, batch, rng) for _ in range(_CONTROL_BATCHES))
    if kind == "pan":
        classes = rng.permutation(np.unique(domains[d].labels))
        views = [np.isin(domains[d].labels, part) for part in np.array_split(classes, VIEWS)]
        seen = [replace(domains[d], ids=domains[d].ids[v], labels=domains[d].labels[v]) for v in views if v.any()]
        turned = [_feed(view, order, rng) for view in seen]
        return tuple(_take(turned[b // PAN_BATCHES % len(turned)], batch) for b in range(_CONTROL_BATCHES))
    return _visits(feeds, [(d, _CONTROL_BATCHES)], batch)


def _odd(feeds: Sequence[Iterator[int]], d: int, others: Sequence[int], batch: int, rng: np.random.Generator) -> Ids:
    from_where = np.where(rng.random(batch) < _ODD, rng.choice(others, batch), d)
    return np.array([next(feeds[int(e)]) for e in from_where], dtype=np.int64)


def _blend(parts: Sequence[Ids], order: str, rng: np.random.Generator) -> Ids:
    """Return one batch of several parts: shuffled, or one part after the other for `runs`."""
    ids = np.concatenate(parts)
    return ids if order == "runs" else rng.permutation(ids)


def _take(feed: Iterator[int], count: int) -> Ids:
    return np.fromiter(islice(feed, count), dtype=np.int64, count=count)


def _feed(domain: Domain, order: str, rng: np.random.Generator) -> Iterator[int]:
    """Yield image ids forever: all of the domain in random order, then all again in another order."""
    classes = np.unique(domain.labels)
    while True:
        shuffled = rng.permutation(len(domain.ids))
        if order == "runs":
            shuffled = _in_runs(domain.labels, classes, shuffled, rng)
        yield from domain.ids[shuffled].tolist()


def _in_runs(labels: npt.NDArray[np.int64], classes: Ids, shuffled: Ids, rng: np.random.Generator) -> Ids:
    """Return the same images in runs of one class; a class is drawn in proportion to the images that it has left."""
    seen = labels[shuffled]
    images = [shuffled[seen == c] for c in classes]
    taken, left = [0] * len(images), np.array([len(each) for each in images], dtype=np.float64)
    ordered: list[Ids] = []
    missing = len(shuffled)
    while missing:
        # This is `rng.choice` with these probabilities, draw for draw, without its checks, which would take most of the
        # time.
        shares = (left / missing).cumsum()
        c = int((shares / shares[-1]).searchsorted(rng.random(), side="right"))
        run = images[c][taken[c] : taken[c] + int(rng.integers(RUN[0], RUN[1] + 1))]
        ordered.append(run)
        taken[c] += len(run)
        left[c] -= len(run)
        missing -= len(run)
    return np.concatenate(ordered)
