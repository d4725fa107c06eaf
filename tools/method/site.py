"""Does a new camera gain by the conditions that another one of its site remembers?

    python -m tools.method.site FOLDER [FOLDER ...] [--streams returning calendar short] [--seeds 3]

A folder holds tables of logits with `pixels` and perhaps the pair's card.json. One camera sees every condition three
times over (`returning`); what it remembers then is given to new cameras, which else begin with nothing. They see the
same domains, and look as the first one does or `shift`: by so many of the deviations that conditions have between each
other, drawn for each camera. So apart 0 is the most that a site can have in common.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from adawise.adapt.conditions import BETWEEN, KnownCondition, Memory
from adawise.adapt.search import Strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.card.card import read_card
from adawise_lab.evaluate.bench import Bench, Replayed
from adawise_lab.evaluate.candidates import objective_named, parse
from adawise_lab.evaluate.streams import ORDERS, Ids, make_streams
from adawise_lab.evaluate.tables import read_tables
from tools.method.guards import served

_SHIFTS = (0.0, 0.5, 1.0)
_SITE_SEED = 50


def cameras(
    bench: Bench,
    strategy: Strategy,
    replayed: Replayed,
    streams: Sequence[Sequence[Ids]],
    known: tuple[KnownCondition, ...],
    shift: float,
    seed: int,
) -> tuple[float, float, tuple[KnownCondition, ...]]:
    """Accuracy and FE of new cameras that know so much, and what the last of them remembers."""
    rng, hits, forwards = np.random.default_rng([seed, 7]), list[float](), list[float]()
    state = strategy.initial()
    for stream in streams:
        given = tuple(replace(condition, number=n, left=0) for n, condition in enumerate(known))  # forgotten first
        state = replace(strategy.initial(), memory=Memory(len(given), 1, len(given) + 1, given))
        offset = shift * BETWEEN * rng.normal(size=len(BETWEEN))
        for ids, outcome in zip(stream, served(bench, strategy, replayed, stream, state, offset), strict=True):
            hits.append(bench.accuracy[bench.domain_of[ids], outcome.index].mean())
            forwards.append(outcome.forward_equivalents)
            state = outcome.state
    return float(np.mean(hits)), float(np.mean(forwards)), state.memory.known


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.site", description=main.__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="with tables of logits of domains, and pixels")
    parser.add_argument("--objective", default="calibrated_tsallis", help="`tsallis` where there is no card")
    parser.add_argument("--streams", nargs="+", default=["returning", "calendar", "short"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    headers = ["pair", "stream", "alone: accuracy, FE", *(f"apart {shift:g}" for shift in _SHIFTS)]
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for folder in arguments.folders:
        file = folder / "card.json"
        card = read_card(file) if file.exists() else None
        tables = read_tables(folder)
        bench = Bench(tables, (1.0,) * len(tables[0].alphas) if card is None else card.temperature)
        objective = objective_named(arguments.objective, card)
        replayed = Replayed(bench.blocks, objective, bench.values(objective))
        (candidate,) = parse(
            f"warm@{arguments.objective}", objective=arguments.objective, alpha=0.5, exploration=Exploration()
        )
        strategy = candidate.build(bench.alphas, replayed.objective, card)
        for order in ORDERS:
            first = make_streams("returning", order, bench.domains, seed=_SITE_SEED)
            known = cameras(bench, strategy, replayed, first, (), 0.0, 0)[2]
            for kind in arguments.streams:
                cells = []
                for conditions, shift in (((), 0.0), *((known, shift) for shift in _SHIFTS)):
                    found = [
                        cameras(bench, strategy, replayed, streams, conditions, shift, seed)[:2]
                        for seed in range(arguments.seeds)
                        for streams in [make_streams(kind, order, bench.domains, seed=seed)]
                    ]
                    accuracy, forwards = np.mean(found, axis=0)
                    cells.append(f"{accuracy:.4f} {forwards:.3f}")
                print(f"| {folder.name} | {kind}, {order} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
