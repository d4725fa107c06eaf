"""Pairs that `adawise finetune` makes of photographs: is what `auto` serves then as good as the best fixed alpha?

    python -m tools.method.own_pairs FOLDER [--pairs a,b,c] [--finetune "--finetune.epochs 4"] [--tested] [--advice]
    python -m tools.method.own_pairs FOLDER --tables

For each pair a part of `train_base` becomes a labelled table, the command is run as a user would, and domains of images
that nobody trained on become tables of logits: `validation_base`, whose other classes are new to the pair, for every
choice; with --tested `test_base` and `test_new`, which are run once, for what is reported. Corruptions are those of
`tools.method.development`, not those that `finetune` judges by. What was made stays in FOLDER, and is not made again;
tables of before that lack the statistics of pixels are written anew of the answers that were kept (`alpha_*.pt`), in a
minute. With --tables nothing is judged.
With --advice it is also asked how far the advice of a card without shifted images depends on chance: on how many images
of a clean table it is made of, and on how many names.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from adawise.adapt.objective import DEFAULT, NAMES
from adawise.adapt.strategies.warm import Exploration
from adawise.app.machine import usable_cores
from adawise.card.advice import AUTO, advise, advised_alpha, chosen
from adawise.card.card import Card, make_card, read_card
from adawise_lab.evaluate import references as ref
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.result import Result, Row
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.streams import ORDERS
from adawise_lab.evaluate.tables import LogitTable, read_tables
from tools.method.development import DATA, SOURCES, TEMPLATES, write_tables

KIND, SEEDS = "long", 5
_SPLITS = 20
_SIZES, _DRAWS = (40, 80, 150, 300), 60
STEP, IMAGES_EACH = 4, 300
TEST_SOURCES = {"known": "test_base", "new": "test_new"}


@dataclass(frozen=True)
class OwnPair:
    """So many classes of `train_base`, so many images of each, drawn by `seed`."""

    classes: int
    images_each: int
    seed: int


DEVELOPED = {"a": OwnPair(25, 60, 11), "b": OwnPair(25, 30, 12), "c": OwnPair(14, 60, 13)}
TESTED = {
    **{"p": OwnPair(50, 40, 21), "q": OwnPair(25, 40, 22), "r": OwnPair(12, 60, 23)},  # looked at three times
    **{"s": OwnPair(50, 40, 41), "t": OwnPair(25, 40, 42), "u": OwnPair(12, 60, 43)},  # of the rule for temperatures on
    **{"v": OwnPair(50, 40, 51), "w": OwnPair(25, 40, 52), "x": OwnPair(12, 60, 53)},  # of conditions that come back
    **{"h": OwnPair(40, 30, 61), "i": OwnPair(25, 30, 62), "j": OwnPair(12, 60, 63)},  # of trained blocks and rates
}


FINETUNE = ("adawise", "finetune")


def make(pair: OwnPair, folder: Path, flags: Sequence[str], program: Sequence[str] = FINETUNE) -> frozenset[int]:
    """The pair in `folder`, if it is not there, by a program like `adawise finetune`; the classes of its images."""
    table = pq.read_table(DATA / "images" / "train_base.parquet")
    labels = np.array(table["label"].to_pylist())
    rng = np.random.default_rng(pair.seed)
    known = rng.permutation(np.unique(labels))[: pair.classes]
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: pair.images_each] for c in known]))
    if not (folder / "pair" / "finetune.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(rows)), folder / "images.parquet")
        names = json.loads(table.schema.metadata[b"class_names"])
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
        (folder / "templates.txt").write_text("".join(f"{template}\n" for template in TEMPLATES))
        theta_0 = f"local-dir:{(DATA / 'pair' / 'theta0').resolve()}"
        command = [*program, "--labelled", "images.parquet", "-o", "pair", "--overwrite", "--model.theta-0", theta_0]
        command += ["--model.architecture", theta_0, "--model.templates", "templates.txt"]
        command += ["--model.classes", "classes.txt", *flags]
        # A program of `tools` is found from the folder, too.
        places = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": places}
        subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, check=True)
    return frozenset(int(c) for c in known)


def better_ends(bench: Bench) -> dict[str, float]:
    """The accuracy of each domain's better endpoint, told from the other half of its images: mean of many halves."""
    rng, ends = np.random.default_rng(0), {}
    for table, first, last in zip(bench.tables, bench.starts, bench.starts[1:], strict=False):
        right = bench.quality.correct[[0, -1], first:last]  # [2, n]
        found = []
        for _ in range(_SPLITS):
            one, other = np.array_split(rng.permutation(last - first), 2)
            for each, measured in ((one, other), (other, one)):
                found.append(right[right[:, each].sum(axis=1).argmax(), measured].mean())
        ends[table.name] = float(np.mean(found))
    return ends


def evaluated(bench: Bench, card: Card, *, processes: int) -> Result:
    """Every objective, those that need one with the card, on streams of the bench's domains."""
    text = ",".join(f"warm@{name}" for name in NAMES)
    candidates = parse(text, objective=DEFAULT, alpha=0.5, exploration=Exploration())
    plan = Plan(candidates, (KIND,), ORDERS, SEEDS)
    runs = run(bench, plan, card, processes=processes, done=lambda _: None)
    return assess(bench, plan, card, runs, calibration="of the card")


def lines(name: str, result: Result, card: Card, ends: Mapping[str, float]) -> Iterator[str]:
    """Markdown: the references and each objective; `auto` is marked, and what it stands for."""
    objective, alpha = chosen(AUTO, card), advised_alpha(card.verdict)
    served_by = objective if alpha is None else f"fixed {alpha:g}"
    fixed, best = result.best_fixed
    yield (
        f"\nPair {name}: auto is {served_by}; best fixed alpha {fixed:g}; split-half oracle "
        f"{result.split_half_oracle:.3f}.\n"
    )
    yield "| | accuracy | against the best fixed alpha | worst domain |\n|---|---|---|---|"
    facts = result.domains.values()
    for what, value in (
        ("zero-shot", np.mean([f.accuracy[0] for f in facts])),
        ("fine-tuned", np.mean([f.accuracy[-1] for f in facts])),
        ("best fixed", best),
        *(
            (("**auto**", np.mean([f.accuracy[result.alphas.index(alpha)] for f in facts])),)
            if alpha is not None
            else ()
        ),
    ):
        yield f"| {what} | {value:.3f} | {100 * (value - best):+.1f} | |"
    auto = "" if alpha is not None else "warm" if objective == DEFAULT else f"warm@{objective}"
    for strategy in dict.fromkeys(row.strategy for row in result.rows if not row.reference):
        both = [row for row in result.rows if row.strategy == strategy]
        yield _line(
            strategy,
            both,
            ends,
            is_auto=strategy == auto,
        )


def _line(strategy: str, rows: Sequence[Row], ends: Mapping[str, float], *, is_auto: bool) -> str:
    versus = [row.versus[ref.BEST_FIXED] for row in rows]
    gain, low, high = (100 * float(np.mean(v)) for v in zip(*((d.difference, *d.ci) for d in versus), strict=True))
    gaps = {name: float(np.mean([row.domains[name] for row in rows])) - end for name, end in ends.items()}
    worst = min(gaps, key=lambda name: gaps[name])
    mark = "**auto** " if is_auto else ""
    accuracy, fe = float(np.mean([row.accuracy for row in rows])), float(np.mean([row.fe for row in rows]))
    return (
        f"| {mark}{strategy} | {accuracy:.3f} at {fe:.2f} | {gain:+.1f} ({low:+.1f} to {high:+.1f}) "
        f"| {100 * gaps[worst]:+.1f} {worst} |"
    )


def advice(table: LogitTable) -> Iterator[str]:
    """What cards of so many of a table's images would recommend, with all names and with fewer."""
    logits, labels = torch.from_numpy(table.logits).float(), torch.from_numpy(table.labels)
    occurring = np.unique(table.labels)
    others = [c for c in range(logits.shape[-1]) if c not in occurring]
    rng = np.random.default_rng(0)
    for names in (logits.shape[-1], logits.shape[-1] // 2):
        kept = np.sort(np.concatenate([occurring, others[: max(0, names - len(occurring))]]).astype(np.int64))
        fewer, own = logits[:, :, kept], torch.from_numpy(np.searchsorted(kept, table.labels))
        for images in _SIZES:
            if images > len(labels):
                continue
            rows = [torch.from_numpy(rng.permutation(len(labels))[:images]) for _ in range(_DRAWS)]
            cards = [_card(fewer[:, each], own[each], table.alphas) for each in rows]
            found = Counter(advise(card).objective for card in cards)
            T = np.quantile([card.temperature[-1] for card in cards], (0.05, 0.5, 0.95))
            most = ", ".join(f"{count} {objective}" for objective, count in found.most_common())
            yield f"| {len(kept)} | {images} | {T[1]:.2f} ({T[0]:.2f} to {T[2]:.2f}) | {most} |"


def _card(logits: torch.Tensor, labels: torch.Tensor, alphas: tuple[float, ...]) -> Card:
    """Of the two ends alone, which is all that the advice asks for."""
    ends = (alphas[0], alphas[-1])
    return make_card(lambda j: logits[-j], labels, alphas=ends, identity={}, created_at="")


def main() -> None:
    """Make pairs and tables, and print what was served."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.own_pairs", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", help="names, separated by commas; none: all")
    parser.add_argument("--finetune", default="", help="flags of `adawise finetune`; none: its defaults")
    parser.add_argument("--tested", action="store_true", help="the pairs and images for reporting")
    parser.add_argument("--tables", action="store_true", help="make pairs and tables alone")
    parser.add_argument("--advice", action="store_true", help="how stable a card's advice is")
    parser.add_argument("--processes", type=int, default=usable_cores())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = TESTED if arguments.tested else DEVELOPED
    for name in arguments.pairs.split(",") if arguments.pairs else pairs:
        place: Path = arguments.folder / name
        known = make(pairs[name], place, shlex.split(arguments.finetune))
        tables = place / ("tested" if arguments.tested else "developed")
        before = read_tables(tables) if any(tables.glob("*.npz")) else ()
        if not before or any(table.pixels is None for table in before):
            sources = TEST_SOURCES if arguments.tested else SOURCES
            theta_1 = place / "pair" / "theta_1"
            tables.mkdir(exist_ok=True)
            write_tables(theta_1, known, tables, seed=7, step=STEP, images_each=IMAGES_EACH, sources=sources)
            for old, new in zip(before, read_tables(tables), strict=bool(before)):
                assert np.array_equal(old.labels, new.labels), new.name  # other images, with the logits of these
                assert np.array_equal(old.logits, new.logits), new.name
        if arguments.tables:
            continue
        card = read_card(place / "pair" / "card.json")
        bench = Bench(read_tables(tables), card.temperature)
        result = evaluated(bench, card, processes=arguments.processes)
        print("\n".join(lines(name, result, card, better_ends(bench))), flush=True)
        if arguments.advice:
            (clean,) = (table for table in bench.tables if table.name == "known_clean")
            print("\n| names | images | temperature (90 %) | advice |\n|---|---|---|---|")
            print("\n".join(advice(clean)), flush=True)


if __name__ == "__main__":
    main()
