"""What the guards against over-confident weights do: the cap by disagreement, and the alarm.

    python -m tools.method.guards FOLDER [FOLDER ...] [--objectives tsallis relative] [--slopes 0 -1] [--seeds 1]

A folder holds tables of logits and perhaps the pair's card.json. `slope`: logits are over T(alpha) = exp(slope alpha),
so that -1 makes fine-tuned weights 2.7 times as sure as they are. Streams are `long`, iid and in runs of a class.
Accuracies are by the domains' curves at the served alphas; `raised` is the share of batches with an alarm, and among
those served 5 points or more below the best alpha of their domain.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from adawise.adapt.search import Outcome, Strategy
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Array
from adawise.card.card import Card, read_card
from adawise_lab.evaluate.bench import Bench, Replayed
from adawise_lab.evaluate.candidates import objective_named, parse
from adawise_lab.evaluate.streams import ORDERS, Ids, make_streams
from adawise_lab.evaluate.tables import read_tables
from tools.method.late_labels import heated

CANDIDATES = (
    "warm:disagreement=1,alarm=false",
    "warm:disagreement=1",
    "warm:alarm=false",
    "warm:disagreement=0.3",
    "warm:disagreement=0.4",
    "warm:disagreement=0.45",
    "warm:disagreement=0.5",
    "warm:disagreement=0.6",
)
_FAR = 0.05  # accuracy


def served(
    bench: Bench,
    strategy: Strategy,
    replayed: Replayed,
    stream: Sequence[Ids],
    state: StreamState | None = None,
    offset: Array | None = None,
) -> Iterator[Outcome]:
    """A stream's batches, from a state on (None: the first), with statistics of pixels that are that much `offset`."""
    state = state or strategy.initial()
    for ids in stream:
        replayed.turn_to(bench.vocabularies[bench.domain_of[ids[0]]])
        rows = torch.from_numpy(bench.row_of[ids])
        appearance = bench.appearance(ids)
        if appearance is not None and offset is not None:
            appearance = replace(appearance, mean=appearance.mean + offset)
        search = strategy.search(state, len(ids), appearance)
        trials = next(search)
        try:
            while True:
                trials = search.send([replayed.logits(t.index, rows[torch.from_numpy(t.rows)]) for t in trials])
        except StopIteration as stop:
            outcome: Outcome = stop.value
        state = outcome.state
        yield outcome


def line(bench: Bench, card: Card | None, name: str, objective: str, seeds: int) -> tuple[float, float, float, float]:
    """Accuracy and FE, and the shares of batches with an alarm: of all, and of those that are served badly."""
    replayed = Replayed(bench.blocks, value := objective_named(objective, card), bench.values(value))
    (candidate,) = parse(f"{name}@{objective}", objective=objective, alpha=0.5, exploration=Exploration())
    strategy = candidate.build(bench.alphas, replayed.objective, card)
    found = []
    for order in ORDERS:
        for seed in range(seeds):
            for stream in make_streams("long", order, bench.domains, seed=seed):
                for ids, outcome in zip(stream, served(bench, strategy, replayed, stream), strict=True):
                    curve = bench.accuracy[bench.domain_of[ids[0]]]
                    accuracy = curve[outcome.index]
                    is_bad = curve.max() - accuracy >= _FAR
                    found.append((accuracy, outcome.forward_equivalents, bool(outcome.alarm), is_bad))
    accuracy, forwards, raised, is_bad = np.array(found, dtype=float).T
    bad = raised[is_bad > 0]
    return accuracy.mean(), forwards.mean(), raised.mean(), bad.mean() if len(bad) else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.guards", description=main.__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="with tables of logits of domains")
    parser.add_argument("--objectives", nargs="+", default=["tsallis", "relative"])
    parser.add_argument("--slopes", type=float, nargs="+", default=[0.0, -1.0], help="of the logarithm of T(alpha)")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    headers = ["pair", "objective", "slope", "candidate", "accuracy", "FE", "raised", "where it is bad"]
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for folder in arguments.folders:
        tables, file = read_tables(folder), folder / "card.json"
        card = read_card(file) if file.exists() else None
        for slope in arguments.slopes:
            bench = Bench(heated(tables, slope), (1.0,) * len(tables[0].alphas) if card is None else card.temperature)
            for objective in arguments.objectives if card is not None else ["tsallis"]:
                for name in CANDIDATES:
                    accuracy, forwards, raised, bad = line(bench, card, name, objective, arguments.seeds)
                    cells = [folder.name, objective, f"{slope:g}", name, f"{accuracy:.4f}", f"{forwards:.3f}"]
                    print("| " + " | ".join([*cells, f"{raised:.3f}", f"{bad:.3f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
