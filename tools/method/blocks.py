"""How many blocks to train, and how fast: pairs that differ in `finetune.blocks` and `finetune.learning_rate` alone.

A recipe is named by both, such as `4,2e-5`; `4r16,5e-4` trains factors of rank 16 (`tools.method.low_rank`).

    python -m tools.method.blocks FOLDER [--pairs a,b,c] [--seeds 3] [--hours 2] [--full] [--tested]
    python -m tools.method.blocks FOLDER --report [--against all,1e-5]

The rate `auto` is that which `finetune` takes by the number of updates.

Each run makes a pair with `adawise finetune` as a user would, writes the tables of `tools.method.own_pairs` and serves
streams of them by `warm` and by `auto`, with the card that the command made. Images, classes and corruptions are those
of the pair, whatever its recipe is, so that recipes are compared image by image. Runs are ordered by training seed,
then by pair, so that a sweep that ends early has whole comparisons; what was made stays in FOLDER, and a later call
continues from there. Weights are deleted once the tables are written: a run keeps some 10 MB, and one whose pair must
not serve keeps all.

Pairs are drawn as those of `own_pairs`, with a fifth of the images unless --full is given: a run of a full pair takes
an hour on two cores. All is computed in float32 unless `--precision bf16` is given, which is several times as fast on a
processor with AMX; a sweep has one number format, whatever the processor is.

The report gives for each recipe the means over pairs and training seeds. Intervals are of a paired bootstrap over
photographs, pair by pair, because a photograph may be in several domains; how training seeds differ is shown by the
range over the runs.
The choice is the best rate for each number of blocks, of those that made no pair that must not serve; then the fewest
blocks whose interval of `auto` against the best recipe that trains everything lies above -.3 points.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch

from adawise.adapt.objective import DEFAULT
from adawise.adapt.strategies.warm import Exploration
from adawise.app.machine import usable_cores
from adawise.card.advice import AUTO
from adawise.card.card import read_card
from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.candidates import parse, resolved
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.score import RESAMPLES, Score, by_domain, interval, ratio, total
from adawise_lab.evaluate.streams import ORDERS, Ids
from adawise_lab.evaluate.tables import SUFFIX, LogitTable, read_tables
from tools.method.development import SOURCES, write_tables
from tools.method.own_pairs import DEVELOPED, FINETUNE, IMAGES_EACH, STEP, TEST_SOURCES, TESTED, OwnPair, make

BLOCKS: tuple[int | None, ...] = (None, 6, 4, 2)
RATES = ("1e-5", "2e-5", "4e-5")
KINDS, STREAM_SEEDS = ("long", "short"), 3
STRATEGIES = ("warm", AUTO)
FRESH = ("h", "i", "j")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_RESULT, _TABLES, _REJECTED = "served.npz", "tables", "pair/rejected/finetune.json"
_FAILED = "failed.txt"  # in the folder of a run whose command failed, until it is made
_FAILURE, _MISTAKE = 1, 2  # exit codes of a command that failed, or has a mistake; a kill has others
_ALL = 10_000  # more blocks than any tower has
_NOT_WORSE = 0.3  # points
_BY_UPDATES = "auto"  # the rate that `finetune` takes by itself


@dataclass(frozen=True, order=True)
class BlocksRecipe:
    """What is compared: the blocks that are trained (None: all), the highest learning rate, the rank (None: whole)."""

    blocks: int | None
    rate: str
    rank: int | None = None

    @property
    def name(self) -> str:
        """As in folders and on the command line."""
        rank = "" if self.rank is None else f"r{self.rank}"
        return f"{'all' if self.blocks is None else self.blocks}{rank},{self.rate}"

    @property
    def flags(self) -> list[str]:
        """The options of `adawise finetune`."""
        blocks = "all" if self.blocks is None else str(self.blocks)
        return ["--finetune.blocks", blocks, "--finetune.learning-rate", self.rate]

    @property
    def program(self) -> Sequence[str]:
        """The program that takes these options."""
        return FINETUNE if self.rank is None else ("tools.method.low_rank", str(self.rank))


PAIRS = {
    "a": OwnPair(25, 12, 11),
    "b": OwnPair(25, 10, 12),
    "c": OwnPair(14, 18, 13),
    "h": OwnPair(25, 12, 61),
    "i": OwnPair(25, 10, 62),
    "j": OwnPair(14, 18, 63),
}
_IMAGES_EACH = 150  # of a domain
_STEP = 5  # a table has logits at every fifth alpha, and those between on straight lines


def _recipe(name: str) -> BlocksRecipe:
    """Return the recipe with that name. Raises ValueError if it is none."""
    layers, _, rate = name.partition(",")
    blocks, _, rank = layers.partition("r")
    try:
        if rate != _BY_UPDATES and not _number(rate) > 0:
            raise ValueError
        return BlocksRecipe(None if blocks == "all" else int(blocks), rate, int(rank) if rank else None)
    except ValueError:
        raise ValueError(f"{name!r} is no recipe") from None


def _number(rate: str) -> float:
    return 0.0 if rate == _BY_UPDATES else float(rate)


RECIPES = tuple(BlocksRecipe(blocks, rate) for blocks in BLOCKS for rate in RATES)
"""What runs if no recipe is named. Factors of low rank run only if they are named, and are never the choice."""


@dataclass(frozen=True, eq=False)
class ServedStreams:
    """What one run served: `hits` and `visits` `[S, N]` and `forwards` `[S, D]` of each stream, by `streams`.

    Attributes:
        streams: strategy, kind and order of each row.
        accuracy: accuracy of each domain at each fixed alpha, `[D, G]`.
        share: what an image costs at a second alpha, in forwards.
        minutes: what the command took, of a machine that may have done other work beside it.
    """

    streams: tuple[str, ...]
    hits: Floats
    visits: Floats
    forwards: Floats
    accuracy: Floats
    share: float
    minutes: float

    def row(self, strategy: str, kind: str) -> Score:
        """Return the sum over both orders of images."""
        rows = [self.streams.index(f"{strategy} {kind} {order}") for order in ORDERS]
        empty = np.zeros(0)
        return total([Score(self.visits[i], self.hits[i], empty, empty, self.forwards[i], empty, empty) for i in rows])


def carry_out(
    name: str, recipe: BlocksRecipe, seed: int, place: Path, *, tested: bool, full: bool, precision: str = "fp32"
) -> None:
    """Make the pair and its tables in `place`, and serve streams of them."""
    pairs = PAIRS if not full else TESTED if tested else DEVELOPED
    place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    flags = [*recipe.flags, "--model.precision", precision, "--finetune.seed", str(seed)]
    known = make(pairs[name], place, flags, recipe.program)
    clock = place / "minutes.txt"
    if not clock.exists():
        clock.write_text(f"{(time.monotonic() - began) / 60:.2f}\n")
    tables = place / _TABLES
    tables.mkdir(exist_ok=True)
    sources = TEST_SOURCES if tested else SOURCES
    theta_1 = place / "pair" / "theta_1"
    step, images = (STEP, IMAGES_EACH) if full else (_STEP, _IMAGES_EACH)
    # Tables may be there, but not all of them, or half of one. What was computed is kept beside them.
    dtype = DTYPES[precision]
    write_tables(theta_1, known, tables, seed=7, step=step, images_each=images, sources=sources, dtype=dtype)
    serve(place)
    (place / _FAILED).unlink(missing_ok=True)
    for part in tables.glob("alpha_*.pt"):
        part.unlink()
    for folder in (path for path in (place / "pair").iterdir() if path.is_dir()):
        shutil.rmtree(folder)
    for spare in (place / "pair").glob("*.safetensors"):
        spare.unlink()
    (place / "images.parquet").unlink(missing_ok=True)


def serve(place: Path) -> None:
    """Serve streams of the tables in `place` by each strategy, and write what came of it."""
    card = read_card(place / "pair" / "card.json")
    bench = Bench(read_tables(place / _TABLES), card.temperature)
    hits, visits, forwards, streams = [], [], [], []
    for strategy in STRATEGIES:
        text = strategy if strategy == AUTO else f"{strategy}@{DEFAULT}"
        objective = AUTO if strategy == AUTO else DEFAULT
        candidates = resolved(parse(text, objective=objective, alpha=0.5, exploration=Exploration()), card)
        plan = Plan(candidates, KINDS, ORDERS, STREAM_SEEDS)
        done = run(bench, plan, card, processes=1, done=lambda _: None)
        for kind in KINDS:
            for order in ORDERS:
                mine = [r.score for r in done if (r.task.kind, r.task.order) == (kind, order)]
                scored = total(mine)
                streams.append(f"{strategy} {kind} {order}")
                hits.append(scored.hits)
                visits.append(scored.visits)
                forwards.append(scored.forwards)
    part = place / f".{_RESULT}"
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            streams=np.array(streams),
            hits=np.stack(hits),
            visits=np.stack(visits),
            forwards=np.stack(forwards),
            accuracy=bench.accuracy,
            share=np.array(card.tail_share),
            minutes=np.array(float((place / "minutes.txt").read_text())),
        )
    part.rename(place / _RESULT)


class RecipeDifference(NamedTuple):
    """A paired difference in points, its 95 % interval, and the least and the greatest of single runs."""

    mean: float
    low: float
    high: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f}; runs {self.least:+.1f} to {self.most:+.1f})"


_Named = tuple[str, ServedStreams]


@dataclass(frozen=True)
class Sweep:
    """What lies in a folder: the runs by pair, recipe and training seed."""

    folder: Path

    def place(self, name: str, recipe: BlocksRecipe, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / name / recipe.name / str(seed)

    @cached_property
    def runs(self) -> Mapping[tuple[str, BlocksRecipe, int], ServedStreams]:
        """Every run that came to its end."""
        found = {}
        for file in sorted(self.folder.glob(f"*/*/*/{_RESULT}")):
            name, text, seed = file.parts[-4:-1]
            with np.load(file) as data:
                found[name, _recipe(text), int(seed)] = ServedStreams(
                    tuple(data["streams"].tolist()),
                    data["hits"],
                    data["visits"],
                    data["forwards"],
                    data["accuracy"],
                    float(data["share"]),
                    float(data["minutes"]),
                )
        return found

    @cached_property
    def rejected(self) -> Mapping[BlocksRecipe, int]:
        """The number of runs that failed or made a pair that must not serve, of each recipe that has such runs."""
        ended = {
            file.relative_to(self.folder).parts[:3]
            for name in (_REJECTED, _FAILED)
            for file in self.folder.glob(f"*/*/*/{name}")
        }
        return Counter(_recipe(recipe) for _, recipe, _ in sorted(ended))

    def bench(self, name: str) -> Bench:
        """Return the images of a pair: those of any of its runs, for they are the same in all."""
        recipe, seed = next((recipe, seed) for pair, recipe, seed in self.runs if pair == name)
        card = read_card(self.place(name, recipe, seed) / "pair" / "card.json")
        return Bench(read_tables(self.place(name, recipe, seed) / _TABLES), card.temperature)

    @cached_property
    def recipes(self) -> tuple[BlocksRecipe, ...]:
        """The recipes that have runs: those that train most come first."""
        found = {recipe for _, recipe, _ in self.runs}
        return tuple(sorted(found, key=lambda r: (-(r.blocks or _ALL), r.rank or 0, _number(r.rate))))

    @cached_property
    def benches(self) -> Mapping[str, Bench]:
        """The images of each pair that has runs."""
        return {name: self.bench(name) for name in sorted({name for name, _, _ in self.runs})}

    @cached_property
    def photographs(self) -> Mapping[str, Ids]:
        """The photograph of each image of each pair's tables, `[N]`: one may be in several domains, corrupted."""
        found = {}
        for name, bench in self.benches.items():
            recipe, seed = next((recipe, seed) for pair, recipe, seed in self.runs if pair == name)
            tables = self.place(name, recipe, seed) / _TABLES
            parts = [_photographs(tables / f"{table.name}{SUFFIX}", table) for table in bench.tables]
            *_, found[name] = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
        return found

    def best_rate(self, blocks: int | None) -> BlocksRecipe:
        """Return the recipe with that many blocks whose `auto` has the best mean accuracy over the kinds of stream.

        Rates are compared on the pairs and training seeds that all of them have. A rate that failed, or made a pair
        that must not serve, is none of them.

        Raises:
            ValueError: there is no such run.
        """
        same = [r for r in self.recipes if (r.blocks, r.rank) == (blocks, None) and r not in self.rejected]
        runs = [{(name, seed) for name, other, seed in self.runs if other == recipe} for recipe in same]
        shared = set[tuple[str, int]]().union(*runs).intersection(*runs)
        if not shared:
            raise ValueError(f"no pair and seed has runs of all rates that train {blocks or 'all'} blocks")
        return max(same, key=lambda recipe: fmean(self._accuracy(recipe, AUTO, kind, shared) for kind in KINDS))

    def choice(self) -> BlocksRecipe:
        """Return the recipe with the fewest blocks that is not worse than the best one that trains everything."""
        full = self.best_rate(None)
        for blocks in sorted({r.blocks for r in self.recipes if r.blocks is not None and r.rank is None}):
            try:
                best = self.best_rate(blocks)
            except ValueError:  # its rates have no pair in common yet, or each made one that must not serve
                continue
            found = [self.difference(best, full, kind) for kind in KINDS]
            if all(each is not None and each.low > -_NOT_WORSE for each in found):
                return best
        return full

    def report(self, against: BlocksRecipe | None = None) -> Iterator[str]:
        """Yield a Markdown table of the recipes, with differences in points from `against` (the best full one)."""
        try:
            reference = against or self.best_rate(None)
        except ValueError:  # there is none yet
            reference = RECIPES[0]
        kinds = " / ".join(KINDS)
        columns = ["blocks, rate", "runs", "share", "theta_1", "best fixed", f"`warm` {kinds}", f"`auto` {kinds}"]
        columns += [f"`auto` against {reference.name}", "FE", "forward cost", "worst domain", "minutes"]
        yield f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
        for recipe in self.recipes:
            yield self._line(recipe, reference)
        yield from (f"| {r.name} | 0, {n} rejected |" for r, n in self.rejected.items() if r not in self.recipes)
        try:
            yield f"\nChoice: {self.choice().name}"
        except ValueError as error:
            yield f"\nNo choice: {error}"

    def _line(self, recipe: BlocksRecipe, against: BlocksRecipe) -> str:
        mine = self._of(recipe)
        share = mine[0][1].share
        theta_1 = _over_pairs((name, made.accuracy[:, -1].mean()) for name, made in mine)
        best = _over_pairs((name, made.accuracy.mean(axis=0).max()) for name, made in mine)
        rejected = f", {self.rejected[recipe]} rejected" if recipe in self.rejected else ""
        cells = [recipe.name, f"{len(mine)}{rejected}", f"{share:.3f}", f"{theta_1:.3f}", f"{best:.3f}"]
        for strategy in STRATEGIES:
            cells.append(" / ".join(f"{self._accuracy(recipe, strategy, kind):.3f}" for kind in KINDS))
        cells.append(", ".join(str(self.difference(recipe, against, kind) or "no run of both") for kind in KINDS))
        fe = [_over_pairs((name, self._fe(name, made, kind)) for name, made in mine) for kind in KINDS]
        cells.append(" / ".join(f"{value:.2f}" for value in fe))
        cells.append(" / ".join(f"{1 + share * (value - 1):.2f}" for value in fe))
        worst = _over_pairs((name, self._worst(name, made)) for name, made in mine)
        cells += [f"{100 * worst:+.1f}", f"{np.median([made.minutes for _, made in mine]):.1f}"]
        return f"| {' | '.join(cells)} |"

    def _of(self, recipe: BlocksRecipe, among: Container[tuple[str, int]] | None = None) -> list[_Named]:
        """Return the runs of a recipe with the names of their pairs, of all pairs and seeds or of some."""
        mine = ((name, seed, made) for (name, other, seed), made in self.runs.items() if other == recipe)
        return [(name, made) for name, seed, made in mine if among is None or (name, seed) in among]

    def _accuracy(
        self, recipe: BlocksRecipe, strategy: str, kind: str, among: Container[tuple[str, int]] | None = None
    ) -> float:
        rows = [(name, made.row(strategy, kind)) for name, made in self._of(recipe, among)]
        return _over_pairs((name, _mean(self.benches[name], row.hits, row.visits)) for name, row in rows)

    def _fe(self, name: str, made: ServedStreams, kind: str) -> float:
        row = made.row(AUTO, kind)
        return float(np.nanmean(ratio(row.forwards, by_domain(self.benches[name], row.visits))))

    def _worst(self, name: str, made: ServedStreams) -> float:
        row, bench = made.row(AUTO, KINDS[0]), self.benches[name]
        accuracy = ratio(by_domain(bench, row.hits), by_domain(bench, row.visits))
        return float(np.nanmin(accuracy - made.accuracy[:, [0, -1]].max(axis=1)))

    def difference(self, recipe: BlocksRecipe, against: BlocksRecipe, kind: str) -> RecipeDifference | None:
        """Return how much better `auto` serves with `recipe`, over the pairs and training seeds that both have."""
        samples, runs = [], []
        for number, (name, bench) in enumerate(self.benches.items()):
            seeds = [s for pair, other, s in self.runs if (pair, other) == (name, recipe)]
            seeds = [s for s in seeds if (name, against, s) in self.runs]
            if not seeds:
                continue
            each = [[self.runs[name, r, s].row(AUTO, kind) for s in seeds] for r in (recipe, against)]
            both = [total(rows) for rows in each]
            hits, visits = np.stack([row.hits for row in both]), np.stack([row.visits for row in both])
            means = [_mean(bench, row.hits, row.visits) for row in both]
            resampled = _resampled(bench, self.photographs[name], hits, visits, seed=number)
            samples.append(np.concatenate([[means[0] - means[1]], resampled[0] - resampled[1]]))
            for one, other in zip(*each, strict=True):
                runs.append(_mean(bench, one.hits, one.visits) - _mean(bench, other.hits, other.visits))
        if not samples:
            return None
        mean, *resamples = 100 * np.mean(samples, axis=0)
        return RecipeDifference(float(mean), *interval(np.array(resamples)), 100 * min(runs), 100 * max(runs))


def _photographs(path: Path, table: LogitTable) -> Ids:
    """Return the group, crc32, and the number of the photograph in its file, `[n, 2]`.

    The images of a table that lacks the numbers count as photographs of their own.
    """
    with np.load(path) as arrays:
        numbers = arrays["photographs"] if "photographs" in arrays else np.arange(len(table))
        group = table.group if "photographs" in arrays else table.name
    return np.column_stack([np.full(len(table), crc32(group.encode()), dtype=np.int64), numbers.astype(np.int64)])


def _resampled(bench: Bench, photographs: Ids, hits: Floats, visits: Floats, *, seed: int) -> Floats:
    """Return the accuracy, the mean over domains, of R rows in each of 1,000 resamples of photographs, `[R, 1000]`."""
    many = int(photographs.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(many, np.full(many, 1.0 / many), size=RESAMPLES).T.astype(np.float64)  # [photographs, 1000]
    parts = []
    for first, last in pairwise(bench.starts):
        times = drawn[photographs[first:last]]
        parts.append(ratio(hits[:, first:last] @ times, visits[:, first:last] @ times))
    accuracies: Floats = np.nanmean(np.stack(parts), axis=0)
    return accuracies


def _over_pairs(values: Iterable[tuple[str, float]]) -> float:
    """Return the mean over pairs of values of runs, so that a pair with more training seeds counts as much as another.

    Each value comes with the name of its pair.
    """
    each: dict[str, list[float]] = {}
    for name, value in values:
        each.setdefault(name, []).append(float(value))
    return fmean(map(fmean, each.values()))


def _mean(bench: Bench, hits: Floats, visits: Floats) -> float:
    """The accuracy, `[N]` each: the mean over domains."""
    return float(np.nanmean(ratio(by_domain(bench, hits), by_domain(bench, visits))))


def main() -> None:
    """Make what is missing of the sweep, as far as time allows, or print its report."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.blocks", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", help="names, separated by commas; none: all")
    parser.add_argument("--recipes", help="BLOCKS,RATE of each, separated by spaces; none: all")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each pair and recipe")
    parser.add_argument("--hours", type=float, default=1e9, help="begin no run after so many hours")
    parser.add_argument("--tested", action="store_true", help="the pairs and images for reporting")
    parser.add_argument("--full", action="store_true", help="pairs of the size of own_pairs")
    parser.add_argument("--report", action="store_true", help="print what is there")
    parser.add_argument("--against", help="the recipe that others are compared with; none: the best that trains all")
    parser.add_argument("--precision", choices=[*DTYPES], default="fp32", help="of training, cards and tables")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of torch")
    arguments = parser.parse_args()
    try:
        wanted = [*map(_recipe, arguments.recipes.split())] if arguments.recipes else RECIPES
        against = _recipe(arguments.against) if arguments.against else None
    except ValueError as error:
        parser.error(f"{error}; expected BLOCKS,RATE or BLOCKSrRANK,RATE, such as {RECIPES[0].name} or 4r16,5e-4")
    sweep = Sweep(arguments.folder)
    if arguments.report:
        print("\n".join(sweep.report(against)))
        return
    torch.set_num_threads(arguments.threads)
    names = arguments.pairs.split(",") if arguments.pairs else FRESH if arguments.tested else tuple(DEVELOPED)
    end = time.monotonic() + 3600 * arguments.hours
    for seed in range(arguments.seeds):
        for name in names:
            for recipe in wanted:
                place = sweep.place(name, recipe, seed)
                if (place / _RESULT).exists() or (place / _REJECTED).exists():
                    continue
                if time.monotonic() > end:
                    return
                try:
                    carry_out(
                        name,
                        recipe,
                        seed,
                        place,
                        tested=arguments.tested,
                        full=arguments.full,
                        precision=arguments.precision,
                    )
                except subprocess.CalledProcessError as error:  # it diverged, or was killed: the next call tries again
                    if error.returncode == _MISTAKE:  # all others would end so
                        raise
                    if not (place / _REJECTED).exists():
                        if error.returncode == _FAILURE:
                            place.mkdir(parents=True, exist_ok=True)
                            (place / _FAILED).write_text(f"{error}\n")
                        print(f"{name} {recipe.name} {seed}: {error}", file=sys.stderr, flush=True)
                        continue
                print(
                    json.dumps({"pair": name, "recipe": recipe.name, "seed": seed, "at": time.strftime("%H:%M")}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
