"""Shortlists of the cameras that an evaluation makes up: the classes that a camera shows, with some more or fewer.

A camera is a stream. Its shortlist has, of each vocabulary, the classes of the images that come in it:

    none        no shortlist
    exact       these classes
    exact+5     these, and five others that the camera does not show; likewise another number
    exact-1     all of these but one; likewise another number

Which classes are added or left out is drawn for each seed. A shortlist has two classes at least, so that one of a
camera that shows a single class has another one, too. Where it would have all of them, there is none. Pure and seeded.
"""

from __future__ import annotations

import re

import numpy as np

from adawise.adapt.shortlist import Shortlist
from adawise.errors import SettingsError
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.streams import Ids, Stream

NONE, EXACT = "none", "exact"
EXPECTED = f"{NONE}, {EXACT}, or {EXACT} with a number of classes more or fewer, such as {EXACT}+5 or {EXACT}-1"

_LISTS = re.compile(rf"{EXACT}([+-][1-9][0-9]{{0,5}})?")
_LEAST = 2  # classes of a shortlist: with one there is nothing to distinguish
_SEED = tuple(b"lists")  # so that no draw is one of `streams` or `camera`


def check_lists(lists: str) -> None:
    """Check which shortlists cameras are to have.

    Raises:
        SettingsError: it is unknown.
    """
    if lists != NONE and not _LISTS.fullmatch(lists):
        raise SettingsError(f"--shortlists: there are no shortlists {lists!r}; expected {EXPECTED}. Correct it.")


def in_words(lists: str) -> str:
    """Return what a shortlist has as a noun phrase; "" for none."""
    if lists == NONE:
        return ""
    more = _more(lists)
    others = f"{abs(more)} {'other' if abs(more) == 1 else 'others'}" if more > 0 else f"{-more}"
    return "the classes that a camera shows" + (f" and {others}" if more > 0 else f" but {others}" if more else "")


def shortlists_of(stream: Stream, lists: str, bench: Bench, *, seed: int) -> dict[int, Shortlist]:
    """Return the shortlist of a camera by the index of the vocabulary; those with all classes are left out.

    Args:
        stream: batches of image ids `[batch]`.
        lists: see the module.
        bench: the images and their classes.
        seed: of the draws.
    """
    if lists == NONE:
        return {}
    ids = np.unique(np.concatenate(stream))
    vocabulary = np.asarray(bench.vocabularies)[bench.domain_of[ids]]
    found = {}
    for v, table in dict(zip(bench.vocabularies, bench.tables, strict=True)).items():
        shown = np.unique(bench.labels[ids[vocabulary == v]])
        C = len(table.class_names)
        listed = _listed(shown, _more(lists), np.random.default_rng((seed, *_SEED)).permutation(C))
        if len(shown) and len(listed) < C:
            found[v] = Shortlist.of(listed, table.class_names)
    return found


def _more(lists: str) -> int:
    return int(lists.removeprefix(EXACT) or 0)


def _listed(shown: Ids, more: int, drawn: Ids) -> list[int]:
    """Return the classes of a shortlist, given those shown and all of them in the order in which they are taken."""
    is_shown = np.isin(drawn, shown)
    own, others = list[int](drawn[is_shown]), list[int](drawn[~is_shown])
    kept = own[-more:] if more < 0 else own + others[:more]
    lacking = max(0, _LEAST - len(kept))
    return kept + [c for c in (*others, *own) if c not in kept][:lacking]
