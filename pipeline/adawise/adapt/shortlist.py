"""Shortlists: a camera sees few of the model's classes, and everything is decided among those.

A search, its alarm and the predictions see the columns of the shortlist alone, as if the model had no other classes. A
mask of minus infinity would make the objectives nan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.search import Outcome, Search, Strategy, Trial
from adawise.adapt.state import StreamState
from adawise.records import Rows

RESET = "shortlist"
"""The reset of a batch whose camera has another shortlist than before."""

SURE = 0.9
"""The probability among all classes from which on an image's first class counts as sure (`off_list`)."""


def digest_of(classes: Sequence[str]) -> str:
    """Return a hash of these names in their order, 12 hexadecimal digits."""
    return hashlib.sha256("\0".join(classes).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The classes of one or more cameras.

    Attributes:
        columns: int64 `[K]`, ascending indices into the C classes of the model, 2 <= K < C.
        digest: a hash of the names in the order of the model's classes, 12 hexadecimal digits.
    """

    columns: Tensor
    digest: str

    @classmethod
    def of(cls, indices: Sequence[int], classes: Sequence[str]) -> Shortlist:
        """Return the shortlist of the classes at these indices, whose order and repetitions do not matter."""
        ordered = sorted({*indices})
        return cls(torch.tensor(ordered), digest_of([classes[index] for index in ordered]))


@dataclass(frozen=True)
class Shortlists:
    """The shortlists of cameras, by patterns of their stream ids.

    Attributes:
        rules: shell patterns of stream ids with their shortlists; the last one that matches holds. None: all classes.
    """

    rules: tuple[tuple[str, Shortlist | None], ...] = ()
    _known: dict[str, Shortlist | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, stream_id: str) -> Shortlist | None:
        """Return the shortlist of a camera, None if it may show every class."""
        if not self.rules:
            return None
        if stream_id not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            matching = (listed for pattern, listed in reversed(self.rules) if fnmatchcase(stream_id, pattern))
            self._known[stream_id] = next(matching, None)
        return self._known[stream_id]


_MOST_KNOWN = 100_000  # cameras whose shortlist is remembered, as names may be invented without end


def continued(state: StreamState, shortlist: Shortlist | None, strategy: Strategy) -> tuple[StreamState, bool]:
    """Return the state from which a camera goes on under this shortlist, and whether it was reset for it.

    What a state knows of the objective holds among the classes that it was learned with. Under other ones the stream
    starts anew, and its batches are counted from 0; only the alpha to start from, and which alphas have logits that are
    not finite, are kept.
    """
    digest = shortlist.digest if shortlist else ""
    if state.shortlist == digest:
        return state, False
    if not state.batches:
        return replace(state, shortlist=digest), False
    return replace(
        strategy.initial(),
        alpha_index=state.alpha_index,
        broken=state.broken,
        last_seen=state.last_seen,
        shortlist=digest,
    ), True


def narrowed(search: Search, shortlist: Shortlist | None) -> Search:
    """Run a search on the columns of the shortlist alone; its outcome has logits `[n, K]`, and `among_all` `[n, C]`."""
    if shortlist is None:
        return (yield from search)
    sent: list[tuple[Trial, Tensor]] = []
    try:
        requested = next(search)
        while True:
            logits = yield requested
            sent += zip(requested, logits, strict=True)
            requested = search.send([z.index_select(-1, shortlist.columns) for z in logits])
    except StopIteration as stop:
        outcome: Outcome = stop.value
        at_served = [(trial.rows, z) for trial, z in sent if trial.index == outcome.index]
        return replace(outcome, among_all=_of_batch(at_served, len(outcome.logits)))


def _of_batch(trials: Sequence[tuple[Rows, Tensor]], images: int) -> Tensor:
    """Return an alpha's logits `[n, C]` in the order of the batch, from (rows `[m]`, logits `[m, C]`) of trials."""
    rows = np.concatenate([each for each, _ in trials])
    if len(trials) == 1 and np.array_equal(rows, np.arange(images)):
        return trials[0][1]  # mostly; a copy for each camera of a round would cost as much memory as the round's logits
    z = torch.cat([z for _, z in trials])
    ordered = z.new_empty(images, z.shape[-1])
    ordered[torch.from_numpy(rows)] = z  # each row was evaluated, or there would be no outcome
    return ordered


def off_list(logits: Tensor, shortlist: Shortlist, temperature: float) -> Mapping[int, int]:
    """Count the images whose first class among all classes is sure and not on the shortlist, by that class.

    Probabilities are softmax(logits / T) (Guo et al., 2017, section 4.2). An image with a logit that is nan or infinite
    is not counted: nothing is known of that class.

    Args:
        logits: `[n, C]` of a batch at the served alpha, among all classes.
        shortlist: the classes of its camera.
        temperature: the temperature of that alpha, as for what is served.

    Returns:
        Class index -> images, in the order of the classes, without classes that have none.
    """
    confidence, first = (logits / temperature).softmax(dim=-1).max(dim=-1)  # [n]
    rows = ((confidence >= SURE) & ~torch.isin(first, shortlist.columns)).nonzero()[:, 0]
    # Few rows are left to be checked. A logit of minus infinity makes no probability nan, unlike nan and infinity.
    finite = logits[rows].isfinite().all(dim=-1)  # [m]
    classes, images = np.unique(first[rows[finite]].numpy(), return_counts=True)
    return dict(zip(classes.tolist(), images.tolist(), strict=True))
