"""By which command the defaults of `warm` were chosen: variants on development data alone, as one table.

    python -m tools.method.development FOLDER
    python -m tools.method.development SECOND --second
    python -m tools.method.choose FOLDER [--second SECOND] [--variants warm,warm:price=0.05] [--seeds 3]

Five regimes, none of them a test table of the real pair:
- `calm`: the development pair, with a temperature per alpha that gives its clean known images the entropies that
  `val_clean` has with the real pair, which was tuned more gently than ours: accuracies are ours, confidence is its.
- `confident`: the development pair as it is. Its theta_1 is over-confident, and raw entropy runs to alpha 1 on new
  classes: the known trap, here to see what the guard is worth.
- `demo`: the demo's pair on its validation cameras.
- `validation`: the real pair on the two tables that are for choices.
- `second`: the second development pair as it is, on which nothing was chosen: it confirms.
Objectives that need a card have one of the regime's undisturbed images, whose temperatures under shift fit its others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.objective import DEFAULT, entropy
from adawise.adapt.strategies.warm import Exploration
from adawise.app.machine import usable_cores
from adawise.card.card import Card, Condition, make_card
from adawise.demo.scene import CLASSES
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.score import domain_accuracy, mean, total
from adawise_lab.evaluate.tables import LogitTable, read_table, read_tables
from tools.demo_pair import table as demo
from tools.demo_pair.model import PAIR, SIZE, load, text_head
from tools.method.development import DATA

# the default, the references, and one step away from the default in each direction that was looked at
VARIANTS = (
    *("grid", "scratch", "warm", "grid@entropy", "warm@entropy", "warm@relative"),
    "warm@calibrated_tsallis",
    *("warm:price=0.015", "warm:price=0.05", "warm:images=4", "warm:every=16"),
    *("warm:hazard=0.01", "warm:hazard=0.1", "warm:gain_sd=0", "warm:gain_sd=1", "warm:first_budget=3"),
    "warm:disagreement=1",
)


def calmed(tables: Sequence[LogitTable], like: LogitTable) -> tuple[LogitTable, ...]:
    """The tables with one temperature per alpha, so that `known_clean` has the mean entropies of `like`."""
    clean = next(table for table in tables if table.name == "known_clean")
    wanted = [_entropy(torch.from_numpy(z), 1.0) for z in like.logits]
    T = np.array(
        [_temperature(torch.from_numpy(z), target) for z, target in zip(clean.logits, wanted, strict=True)],
        dtype=np.float32,
    )
    return tuple(replace(t, logits=t.logits.astype(np.float32) / T[:, None, None]) for t in tables)


def _entropy(logits: Tensor, temperature: float) -> float:
    return float(entropy(logits, temperature).mean())


def _temperature(logits: Tensor, target: float) -> float:
    """The temperature at which the mean entropy is `target`, by bisection in its logarithm: it only rises."""
    low, high = 0.2, 5.0
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _entropy(logits, middle) < target else (low, middle)
    return math.sqrt(low * high)


def demo_tables(first_seed: int = demo.VALIDATION_SEED, frames: int = demo.VALIDATED) -> tuple[LogitTable, ...]:
    """The demo's pair on the cameras from that seed on, by default those for validation: a table for each condition."""
    theta_0, theta_1 = (load(PAIR / name) for name in ("theta_0", "theta_1"))
    split = demo.measure(theta_0, theta_1, text_head(theta_0), demo.rendered(first_seed, frames, SIZE))
    return tuple(
        LogitTable(name, logits.numpy(), split.labels[name].numpy(), demo.ALPHAS, tuple(CLASSES))
        for name, logits in split.logits.items()
    )


def regimes(folder: Path, second: Path | None) -> dict[str, Callable[[], tuple[LogitTable, ...]]]:
    """Name -> its tables, made when they are asked for; `second` is missing without its folder."""
    made: dict[str, Callable[[], tuple[LogitTable, ...]]] = {
        "calm": lambda: calmed(read_tables(folder), read_table(DATA / "logits" / "val_clean.npz")),
        "confident": lambda: read_tables(folder),
        "demo": demo_tables,
        "validation": lambda: read_tables(DATA / "logits", ("val_clean", "val_mix")),
    }
    if second is not None:
        made["second"] = lambda: read_tables(second)
    return made


def card_of(tables: Sequence[LogitTable]) -> Card:
    """A card of the undisturbed table among these, with the others as its conditions under shift."""
    own = next(table for table in tables if table.name in {"known_clean", "clear", "val_clean"})
    home, *shifted = (_condition(table) for table in (own, *(table for table in tables if table is not own)))
    return make_card(home.logits, home.labels, shifted, alphas=own.alphas, identity={}, created_at="")


def _condition(table: LogitTable) -> Condition:
    z = torch.from_numpy(table.logits.astype(np.float32))
    return Condition(table.name, z.__getitem__, torch.from_numpy(table.labels))


def lines(
    regime: str, tables: Sequence[LogitTable], variants: str, kinds: tuple[str, ...], seeds: int
) -> Iterator[str]:
    """Markdown: accuracy (mean over domains) and forwards per image of each variant on each stream and order."""
    orders = ("iid", "runs")
    bench = Bench(tuple(tables), (1.0,) * len(tables[0].alphas))
    candidates = parse(variants, objective=DEFAULT, alpha=0.5, exploration=Exploration())
    plan = Plan(candidates, kinds, orders, seeds=seeds)
    runs = run(bench, plan, card_of(tables), processes=usable_cores(), done=lambda _: None)
    accuracy = bench.accuracy  # [D, G]
    best = int(accuracy.mean(axis=0).argmax())
    yield f"## {regime}: {len(tables)} domains"
    yield (
        f"zero-shot {accuracy[:, 0].mean():.3f}, fine-tuned {accuracy[:, -1].mean():.3f}, best fixed alpha "
        f"{bench.alphas[best]:.2f} {accuracy[:, best].mean():.3f}, oracle by domain {accuracy.max(axis=1).mean():.3f}"
    )
    streams = [(kind, order) for kind in kinds for order in orders]
    yield "| variant | " + " | ".join(f"{kind} {order}" for kind, order in streams) + " |"
    yield "|---|" + "---|" * len(streams)
    for number, candidate in enumerate(candidates):
        cells = []
        for stream in streams:
            mine = [r for r in runs if r.task.candidate == number and (r.task.kind, r.task.order) == stream]
            scored = total([r.score for r in mine])
            spent = float(scored.forwards.sum() / scored.visits.sum())
            cells.append(f"{mean(domain_accuracy(bench, scored)):.4f} at {spent:.2f}")
        yield f"| {candidate.name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables of all regimes."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.choose", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="what tools.method.development wrote")
    parser.add_argument("--second", type=Path, help="the folder of the second pair")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="as `adawise evaluate --strategies`")
    parser.add_argument("--streams", default="long,short,stationary")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--regimes", default="calm,confident,demo,validation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds = tuple(arguments.streams.split(","))
    made = regimes(arguments.folder, arguments.second)
    for regime in arguments.regimes.split(",") + (["second"] if arguments.second is not None else []):
        for line in lines(regime, made[regime](), arguments.variants, kinds, arguments.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
