"""What a shortlist is worth: points of accuracy where a camera shows few of the names, on tables of logits.

    python -m tools.method.shortlists FOLDER [--seeds N]

A camera sees some classes of a domain, drawn anew for each seed, in batches of 16 images, drawn from those of its
classes. It is served in three ways with the default search: without a shortlist; with one for the prediction alone, at
the alpha that the search chooses among all classes; and with one for search and prediction, as the worker does. Tables
of few classes are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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
from adawise.records import Selection
from adawise.settings import SearchSettings
from adawise_lab.evaluate.tables import LogitTable, read_tables

SIZES = (5, 10, 25, 50)
BATCHES, IMAGES = 40, 16
WAYS = ("none", "prediction", "both")
Indices = npt.NDArray[np.int64]


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


def outcomes(
    z: Tensor, searching: Strategy, batches: Sequence[Indices], shortlist: Shortlist | None
) -> Iterator[Outcome]:
    """Yield what the search finds in each batch, one after the other, for logits `[G, n, C]`."""
    state = searching.initial()
    for rows in batches:

        def evaluate(requested: Mapping[int, Sequence[Selection]], rows: Indices = rows) -> dict[int, Tensor]:
            return {j: torch.cat([z[j, rows[part]] for _, part in parts]) for j, parts in requested.items()}

        (outcome,) = search.run([narrowed(searching.search(state, len(rows)), shortlist)], evaluate)
        state = outcome.state
        yield outcome


def judged(table: LogitTable, size: int, seed: int, searching: Strategy) -> dict[str, tuple[float, float]]:
    """Return (accuracy, forwards an image) of one camera, by the way that it is served."""
    rng = np.random.default_rng([seed, size])
    z, labels = torch.from_numpy(table.logits.astype(np.float32)), np.asarray(table.labels)
    own = rng.choice(np.unique(labels), size, replace=False)
    listed = Shortlist.of(own.tolist(), table.class_names)
    rows = np.flatnonzero(np.isin(labels, own))
    batches = [rng.choice(rows, IMAGES) for _ in range(BATCHES)]
    plain, narrow = (
        [(found.index, found.forward_equivalents) for found in outcomes(z, searching, batches, shortlist)]
        for shortlist in (None, listed)
    )
    among = z[:, :, listed.columns].argmax(-1)
    by_way = {"none": (plain, z.argmax(-1)), "prediction": (plain, listed.columns[among])}
    by_way["both"] = (narrow, listed.columns[among])
    found = {}
    for way, (alphas, predicted) in by_way.items():
        right = [(predicted[j, r].numpy() == labels[r]).mean() for (j, _), r in zip(alphas, batches, strict=True)]
        found[way] = float(np.mean(right)), float(np.mean([fe for _, fe in alphas]))
    return found


def main() -> None:
    """Print a row for each size of shortlist."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    tables = [table for table in read_tables(args.folder) if len(table.class_names) >= 2 * SIZES[-1]]
    searching = default_search(tables[0].alphas)
    print(f"{len(tables)} domains, {args.seeds} cameras each, {BATCHES} batches of {IMAGES}")
    print("| names | none | prediction | both | worst domain, both | forwards: none | both |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        runs = [[judged(table, size, seed, searching) for seed in range(args.seeds)] for table in tables]
        means = {way: np.array([[run[way] for run in domain] for domain in runs]).mean(1) for way in WAYS}
        (none, fe), (prediction, _), (both, fe_of_both) = (means[way].T for way in WAYS)
        gains = [100 * (way - none) for way in (prediction, both)]
        cells = (*(f"{gain.mean():+.1f}" for gain in gains), f"{gains[1].min():+.1f}")
        print(f"| {size} | {none.mean():.3f} | {' | '.join(cells)} | {fe.mean():.2f} | {fe_of_both.mean():.2f} |")


if __name__ == "__main__":
    main()
