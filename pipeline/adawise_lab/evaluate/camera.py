"""Streams as cameras send them: a camera shows some classes of its domains, unevenly, or other ones after some time.

A stream of the module `streams` says which domain comes when; here its images are drawn again, each from the same
domain, by what a camera shows. Pure and seeded: equal arguments give an equal stream.

    all         the images of a domain as they come: the stream stays as it is
    few5        five classes, equally frequent; likewise few1, few2 and so on
    zipf        all classes, of frequencies 1, 1/2, 1/3 and so on
    changing    five classes, equally frequent, and five others after every 192 images of the stream
    rare        six classes: four that are equally frequent, and two of 4 % of the images each

The order in which classes are taken is drawn for each seed, so that a camera shows the same ones by day and by night,
and in every kind and order of streams. A domain shows the first ones of this order that it has images of, and all of
them if it has fewer; so `changing` shows some again where there are fewer than ten. In streams of the kind `pan` each
view has a third of the classes, or all of them in `zipf` and `rare`. An image comes again only after all images of its
domain and class have come.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adawise.errors import SettingsError
from adawise_lab.evaluate.streams import KINDS, ORDERS, PAN_BATCHES, RUN, VIEWS, Domain, Ids, Stream

ALL, ZIPF, CHANGING, RARE = "all", "zipf", "changing", "rare"
EXPECTED = f"{ALL}, {ZIPF}, {CHANGING}, {RARE}, or a number of classes up to 999999 such as few5"

_FEW = re.compile(r"few([1-9][0-9]{0,5})")
_CHANGING_CLASSES, _CHANGING_IMAGES = 5, 192
_RARE_CLASSES, _RARE, _RARE_SHARE = 6, 2, 0.04  # classes that are shown; the rare ones among them; the share of each
_SEED = tuple(b"shows")  # so that no draw is one of `streams`


def check_shows(shows: str, domains: Sequence[Domain] = ()) -> None:
    """Check what a camera is to show.

    Raises:
        SettingsError: it is unknown, or a domain has too few classes for it.
    """
    if shows not in (ALL, ZIPF, CHANGING, RARE) and not _FEW.fullmatch(shows):
        raise SettingsError(f"--shows: a camera cannot show {shows!r}; expected {EXPECTED}. Correct it.")
    for domain in domains:
        if shows == RARE and (found := len(np.unique(domain.labels))) <= _RARE:
            raise SettingsError(
                f"--shows {shows}: expected images of at least {_RARE + 1} classes, {domain.name} has them of {found}. "
                "Leave it out (--domains)."
            )


def in_words(shows: str) -> str:
    """Return what a camera shows as a noun phrase."""
    if few := _FEW.fullmatch(shows):
        return "one class" if few[1] == "1" else f"{few[1]} classes, equally frequent"
    return {
        ALL: "every class, as the images come",
        ZIPF: "every class, of frequencies 1, 1/2, 1/3 and so on",
        CHANGING: f"five classes, and five others after every {_CHANGING_IMAGES} images",
        RARE: "four classes that are equally frequent, and two of 4 % each",
    }[shows]


def shown(
    streams: Sequence[Stream],
    shows: str,
    kind: str,
    order: str,
    domains: Sequence[Domain],
    *,
    seed: int,
    run: tuple[int, int] = RUN,
) -> tuple[Stream, ...]:
    """Return the streams of a kind and an order with the images that a camera shows.

    Args:
        streams: batches of image ids, `[batch]`, of these domains, as `make_streams` returns them.
        shows: see the module.
        kind: of the streams.
        order: of a domain's images.
        domains: those of the streams.
        seed: of the draws.
        run: fewest and most images of one class in a row, where `order` is `runs`.
    """
    if shows == ALL:
        return tuple(streams)
    seeds = (seed, *_SEED, KINDS.index(kind), ORDERS.index(order))
    runs = run if order == "runs" else (1, 1)
    views, classes = VIEWS if kind == "pan" and shows not in (ZIPF, RARE) else 1, _in_order(domains, seed)
    return tuple(
        _drawn(stream, shows, domains, classes, views, runs, np.random.default_rng((*seeds, number)))
        for number, stream in enumerate(streams)
    )


def rare_images(shows: str, domains: Sequence[Domain], *, seed: int) -> Ids:
    """Return the ids of all images of rare classes, `[n]`; empty if what a camera shows has none."""
    if shows != RARE:
        return np.empty(0, dtype=np.int64)
    chosen = [classes[:_RARE_CLASSES][-_RARE:] for classes in _in_order(domains, seed)]
    return np.concatenate([d.ids[np.isin(d.labels, rare)] for d, rare in zip(domains, chosen, strict=True)])


def _in_order(domains: Sequence[Domain], seed: int) -> list[Ids]:
    """Return the classes that each domain has images of, in the order in which a camera takes them."""
    found = []
    for domain in domains:
        present = np.unique(domain.labels)
        # One number for each class index, whichever domains there are.
        drawn = np.random.default_rng((seed, *_SEED)).random(int(present[-1]) + 1)
        found.append(present[np.argsort(drawn[present])])
    return found


def _drawn(
    stream: Stream,
    shows: str,
    domains: Sequence[Domain],
    classes: Sequence[Ids],
    views: int,
    runs: tuple[int, int],
    rng: np.random.Generator,
) -> Stream:
    """Return one stream, with images drawn again."""
    domain_of = {i: d for d, domain in enumerate(domains) for i in domain.ids.tolist()}
    feeds = [_Feed(domain, runs, rng) for domain in domains]
    mixes: dict[tuple[int, int, int], _Mix] = {}
    batches, images = [], 0
    for b, ids in enumerate(stream):
        batch = []
        for i in ids.tolist():
            key = d, view, period = domain_of[i], b // PAN_BATCHES % views, images // _CHANGING_IMAGES
            if key not in mixes:
                mixes[key] = _mix(shows, classes[d], period, view, views)
            batch.append(feeds[d].draw(mixes[key]))
            images += 1
        batches.append(np.array(batch, dtype=np.int64))
    return tuple(batches)


@dataclass(frozen=True)
class _Mix:
    """Classes that are shown, and the sums of their shares up to each of them, which end at 1."""

    classes: tuple[int, ...]
    cumulative: tuple[float, ...]


def _mix(shows: str, classes: Ids, period: int, view: int, views: int) -> _Mix:
    """Return what a camera shows of these classes, `[K]` in order, in one of its views."""
    shares = np.ones(len(classes))
    if shows == ZIPF:
        shares = 1.0 / np.arange(1, len(classes) + 1)
    elif shows == RARE:
        classes = classes[:_RARE_CLASSES]
        common = len(classes) - _RARE
        shares = np.r_[np.full(common, (1.0 - _RARE * _RARE_SHARE) / common), np.full(_RARE, _RARE_SHARE)]
    elif shows == CHANGING:
        count = min(_CHANGING_CLASSES, len(classes))
        classes = np.take(classes, period * count + np.arange(count), mode="wrap")
    else:
        classes = classes[: int(shows.removeprefix("few"))]
    some = slice(view % len(classes), None, views)  # with fewer classes than views, some views show the same
    cumulative = shares[: len(classes)][some].cumsum()
    return _Mix(tuple(classes[some].tolist()), tuple((cumulative / cumulative[-1]).tolist()))


class _Feed:
    """The images of one domain in one stream."""

    def __init__(self, domain: Domain, runs: tuple[int, int], rng: np.random.Generator) -> None:
        self._domain, self._runs, self._rng = domain, runs, rng
        self._images: dict[int, Iterator[int]] = {}  # by class
        self._class, self._left = -1, 0  # of the run that has begun

    def draw(self, mix: _Mix) -> int:
        """Return the id of the next image."""
        if self._left == 0 or self._class not in mix.classes:
            self._class = mix.classes[bisect_right(mix.cumulative, self._rng.random())]
            first, last = self._runs
            self._left = first if first == last else int(self._rng.integers(first, last + 1))
        self._left -= 1
        if self._class not in self._images:
            self._images[self._class] = self._forever(self._domain.ids[self._domain.labels == self._class])
        return next(self._images[self._class])

    def _forever(self, ids: Ids) -> Iterator[int]:
        while True:
            yield from self._rng.permutation(ids).tolist()
