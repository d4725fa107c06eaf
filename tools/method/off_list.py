"""How well a camera that sees what its shortlist lacks is found without labels, on tables of logits.

    python -m tools.method.off_list FOLDER DOMAINS... [--seeds N] [--fitted DOMAIN]

A camera sees ten classes of a domain, drawn anew for each seed, in batches of 16 images. It is served by the default
search under a shortlist of all ten, which is right, and under one of nine, which lacks a class. Counted are the images
whose first class among all classes has at least some probability and is not on the list, as a worker does at one of
these probabilities. A camera is named by the rule of `adawise status`. With `--fitted`, probabilities have the
temperatures that a card made of that domain would have.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.objective import DEFAULT, NO_CARD
from adawise.adapt.search import Outcome, Strategy
from adawise.adapt.shortlist import Shortlist, narrowed
from adawise.adapt.strategies import strategy
from adawise.app.parts import exploration
from adawise.card.calibration import fit_temperature
from adawise.records import Selection
from adawise.settings import SearchSettings
from adawise.watch.status.facts import LACKING_IMAGES, LACKING_SHARE
from adawise_lab.evaluate.tables import LogitTable, read_tables

SHOWN, BATCHES, IMAGES = 10, 40, 16
SURE = (0.5, 0.7, 0.8, 0.9, 0.95)  # probabilities from which a first class counts as sure
ALERT_SHARE = 0.05  # of AdawiseShortlistLacks
Indices = npt.NDArray[np.int64]


class ListedCamera(NamedTuple):
    """What is found of a camera under one shortlist.

    Attributes:
        share: images that count, over all.
        of_class: images of the missing class that count, over those of it; nan where none is missing.
        noted: 1 if `adawise status` has a note of it.
        named: 1 if the note names the missing class.
        alerted: 1 if the share is that of the alert or more.
    """

    share: float
    of_class: float
    noted: float
    named: float
    alerted: float


def default_search(alphas: Sequence[float]) -> Strategy:
    """Return the search of a worker without a card, and with the default settings, on this grid."""
    return strategy(
        "warm",
        alphas=tuple(alphas),
        objective=NO_CARD[DEFAULT],
        context=DEFAULT,
        alpha=SearchSettings().alpha,
        exploration=exploration(SearchSettings()),
    )


def outcomes(z: Tensor, searching: Strategy, batches: Sequence[Indices], shortlist: Shortlist) -> Iterator[Outcome]:
    """Yield what the search finds in each batch, one after the other, for logits `[G, n, C]`."""
    state = searching.initial()
    for rows in batches:

        def evaluate(requested: Mapping[int, Sequence[Selection]], rows: Indices = rows) -> dict[int, Tensor]:
            return {j: torch.cat([z[j, rows[part]] for _, part in parts]) for j, parts in requested.items()}

        (outcome,) = search.run([narrowed(searching.search(state, len(rows)), shortlist)], evaluate)
        state = outcome.state
        yield outcome


def off_list(
    z: Tensor, searching: Strategy, batches: Sequence[Indices], shortlist: Shortlist, temperatures: Sequence[float]
) -> Indices:
    """Return the class of each image that counts, else -1, `[len(SURE), images]`, for logits `[G, n, C]`."""
    found = []
    for outcome in outcomes(z, searching, batches, shortlist):
        assert outcome.among_all is not None
        p, first = (outcome.among_all / temperatures[outcome.index]).softmax(-1).max(-1)
        off = ~torch.isin(first, shortlist.columns)
        found.append([torch.where(off & (p >= sure), first, -1).numpy() for sure in SURE])
    return np.concatenate(found, axis=1)


def judged(counted: Indices, labels: Indices, missing: int) -> ListedCamera:
    """Return what the classes that count say; `missing` is -1 if the list is right."""
    of_class, off = labels == missing, counted >= 0
    images = np.bincount(counted[off], minlength=missing + 1)
    noted = images >= max(LACKING_IMAGES, LACKING_SHARE * len(counted))
    return ListedCamera(
        share=float(off.mean()),
        of_class=float(off[of_class].mean()) if of_class.any() else np.nan,
        noted=float(noted.any()),
        named=float(missing >= 0 and noted[missing]),
        alerted=float(off.mean() > ALERT_SHARE),
    )


def camera(
    table: LogitTable, seed: int, searching: Strategy, temperatures: Sequence[float]
) -> list[tuple[ListedCamera, ListedCamera]]:
    """Return what is found under the list that is right, and under the one that lacks a class, for each of `SURE`."""
    rng = np.random.default_rng([seed, SHOWN])
    z, labels = torch.from_numpy(table.logits.astype(np.float32)), np.asarray(table.labels, np.int64)
    own = rng.choice(np.unique(labels), SHOWN, replace=False)
    rows = np.flatnonzero(np.isin(labels, own))
    batches = [rng.choice(rows, IMAGES) for _ in range(BATCHES)]
    shown = labels[np.concatenate(batches)]
    right, lacking = (
        off_list(z, searching, batches, Shortlist.of(kept.tolist(), table.class_names), temperatures)
        for kept in (own, own[1:])
    )
    return [
        (judged(under_right, shown, -1), judged(under_lacking, shown, int(own[0])))
        for under_right, under_lacking in zip(right, lacking, strict=True)
    ]


def main() -> None:
    """Print a row for each probability."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("domains", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--fitted", metavar="DOMAIN")
    args = parser.parse_args()
    tables = read_tables(args.folder, args.domains)
    temperatures = [1.0] * len(tables[0].alphas)
    if args.fitted:
        (fitted,) = read_tables(args.folder, [args.fitted])
        labels = torch.from_numpy(np.asarray(fitted.labels))
        temperatures = [fit_temperature(torch.from_numpy(z.astype(np.float32)), labels) for z in fitted.logits]
        print(f"temperatures {temperatures[0]:.2f} at alpha 0 to {temperatures[-1]:.2f} at alpha 1")
    searching = default_search(tables[0].alphas)
    print(f"{', '.join(t.name for t in tables)}: {args.seeds} cameras each, {BATCHES} batches of {IMAGES}")
    print(
        "| sure from | right: share | worst camera | noted | alert | lacking: share | of that class | noted "
        "| named | alert |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    runs = np.array(
        [[camera(table, seed, searching, temperatures) for seed in range(args.seeds)] for table in tables]
    )  # [domains, cameras, len(SURE), 2, len(ListedCamera)]
    for sure, found in zip(SURE, np.moveaxis(runs, 2, 0), strict=True):
        right, lacking = (
            ListedCamera(*found[:, :, under].reshape(-1, len(ListedCamera._fields)).mean(0)) for under in (0, 1)
        )
        print(
            f"| {sure:g} | {right.share:.3f} | {found[:, :, 0, 0].max():.3f} | {right.noted:.1%} "
            f"| {right.alerted:.1%} | {lacking.share:.3f} | {lacking.of_class:.2f} | {lacking.noted:.0%} "
            f"| {lacking.named:.0%} | {lacking.alerted:.0%} |"
        )


if __name__ == "__main__":
    main()
