"""What late labels do to a card that is right, and to one that is deceived, on development tables.

    python -m tools.method.late_labels FOLDER [FOLDER ...] [--slopes 0 -0.5 1] [--labels 100] [--seeds 40]

A folder holds tables of logits and the pair's card.json; without a card the objective is `tsallis`. For each, as it is
and with its logits over T(alpha) = exp(slope alpha): fine-tuned weights that are too sure (-0.5), and such as are not
sure enough (1). Labels are drawn from 5 and from 8 domains, as conditions; images that have none judge. Accuracies are
means over all domains at the alpha that the objective chooses by domain, before and after, and what `warm` serves on
streams `long`. `ceiling` is the best alpha of each domain in hindsight.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from adawise.adapt.objective import DEFAULT, ERRORS_A_NAT
from adawise.adapt.strategies.warm import Exploration
from adawise.app.machine import usable_cores
from adawise.card.advice import AUTO, chosen
from adawise.card.card import Card, LabelBias, read_card
from adawise_lab.card.bias import BiasModel, CommonBias, LabelledCondition
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.score import domain_accuracy, mean, total
from adawise_lab.evaluate.tables import LogitTable, read_tables
from tools.method.choose import card_of

SLOPES = (0.0, -0.5, 1.0)
CONDITIONS = (5, 8)
_CARD = "card.json"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelledDomain:
    """A table, and of its images at each alpha the objective and whether they are wrong, `[n, G]`."""

    table: LogitTable
    objective: Floats
    wrong: Floats

    def rest(self, rows: npt.NDArray[np.int64]) -> LabelledDomain:
        """Of these images."""
        pixels = None if self.table.pixels is None else self.table.pixels[rows]
        part = replace(self.table, logits=self.table.logits[:, rows], labels=self.table.labels[rows], pixels=pixels)
        return LabelledDomain(part, self.objective[rows], self.wrong[rows])


@dataclass(frozen=True, eq=False)
class LabelDraw:
    """Domains without the images that were labelled, and the bias by these."""

    rest: tuple[LabelledDomain, ...]
    bias: CommonBias
    images: int
    conditions: int

    @property
    def nats(self) -> Floats:
        """What is added: nothing, where the command would write no card."""
        return self.bias.nats if self.bias.is_clear else np.zeros_like(self.bias.nats)


def heated(tables: Sequence[LogitTable], slope: float) -> tuple[LogitTable, ...]:
    """The tables with their logits over exp(slope alpha)."""
    T = np.exp(slope * np.asarray(tables[0].alphas))[:, None, None].astype(np.float32)
    return (
        tuple(replace(table, logits=table.logits.astype(np.float32) / T) for table in tables) if slope else (*tables,)
    )


def domains_of(tables: Sequence[LogitTable], card: Card, objective: str) -> list[LabelledDomain]:
    """With what the objective says of every image."""
    value = card.objective(objective)
    made = []
    for table in tables:
        z = torch.from_numpy(table.logits.astype(np.float32))
        values = np.stack([value(at, j) for j, at in enumerate(z)], axis=1)
        wrong = np.stack([at.argmax(dim=-1).numpy() != table.labels for at in z], axis=1).astype(np.float64)
        made.append(LabelledDomain(table, values, wrong))
    return made


def draw(domains: Sequence[LabelledDomain], labels: int, conditions: int, objective: str, seed: int) -> LabelDraw:
    """Label as many images, as evenly of so many domains as it can be."""
    rng = np.random.default_rng(seed)
    chosen_ones = rng.permutation(len(domains))[:conditions]
    counts = {int(d): labels // conditions + (k < labels % conditions) for k, d in enumerate(chosen_ones)}
    rest, labelled = [], []
    for d, domain in enumerate(domains):
        rows = rng.permutation(len(domain.wrong))
        count = counts.get(d, 0)
        rest.append(domain.rest(np.sort(rows[count:])))
        if count:
            part = domain.rest(rows[:count])
            labelled.append(LabelledCondition(domain.table.name, part.objective, part.wrong, np.arange(count)))
    bias = BiasModel(domains[0].table.alphas, ERRORS_A_NAT[objective]).estimate(labelled)
    return LabelDraw(tuple(rest), bias, labels, len(labelled))


def by_domain(drawn: LabelDraw) -> tuple[float, float, float]:
    """Accuracy at the alpha that is chosen for each domain before and after, and at the best one in hindsight."""
    found = []
    for domain in drawn.rest:
        means, accuracy = domain.objective.mean(axis=0), 1.0 - domain.wrong.mean(axis=0)
        found.append([accuracy[means.argmin()], accuracy[(means + drawn.nats).argmin()], accuracy.max()])
    before, after, ceiling = np.mean(found, axis=0).tolist()
    return before, after, ceiling


def by_streams(drawn: LabelDraw, card: Card, objective: str, seeds: int) -> tuple[float, float]:
    """What `warm` serves before and after: mean accuracy over the domains on streams `long`."""
    bench = Bench(tuple(domain.table for domain in drawn.rest), (1.0,) * len(card.alphas))
    candidates = parse(f"warm@{objective}", objective=DEFAULT, alpha=0.5, exploration=Exploration())
    plan = Plan(candidates, ("long",), ("iid",), seeds=seeds)
    found = LabelBias(
        objective,
        tuple(drawn.nats.tolist()),
        tuple(drawn.bias.sd.tolist()),
        drawn.images,
        drawn.conditions,
        drawn.bias.evidence,
        "",
    )
    served = []
    for each in (card, card.corrected(found)):
        runs = run(bench, plan, each, processes=usable_cores(), done=lambda _: None)
        served.append(mean(domain_accuracy(bench, total([one.score for one in runs]))))
    return served[0], served[1]


def lines(folder: Path, slopes: Sequence[float], labels: int, seeds: int, streams: int) -> Iterator[str]:
    """A row for each regime and number of conditions, as Markdown."""
    tables = read_tables(folder)
    card = read_card(folder / _CARD) if (folder / _CARD).exists() else None
    objective = chosen(AUTO, card)
    card = card_of(tables) if card is None else card
    for slope in slopes:
        domains = domains_of(heated(tables, slope), card, objective)
        for conditions in CONDITIONS:
            drawn = [draw(domains, labels, conditions, objective, seed) for seed in range(seeds)]
            before, after, ceiling = np.array([by_domain(one) for one in drawn]).T
            gains = 100.0 * (after - before)
            cells = [
                folder.name,
                objective,
                f"{slope:g}",
                str(conditions),
                f"{ceiling.mean():.3f}",
                f"{before.mean():.3f}",
                f"{after.mean():.3f}",
                f"{gains.mean():+.2f} ±{gains.std(ddof=1) / len(gains) ** 0.5:.2f}",
                f"{gains.min():+.1f}",
                f"{np.mean([one.bias.is_clear for one in drawn]):.2f}",
            ]
            if streams:
                served = np.array([by_streams(one, card, objective, 1) for one in drawn[:streams]]).mean(axis=0)
                cells.append(f"{served[0]:.3f} to {served[1]:.3f}")
            yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.late_labels", description=main.__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="with tables of logits of domains")
    parser.add_argument("--slopes", type=float, nargs="+", default=SLOPES, help="of the logarithm of T(alpha)")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=40, help="draws of labels")
    parser.add_argument("--streams", type=int, default=3, help="of these draws, those of which `warm` serves streams")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    headers = ["pair", "objective", "slope", "conditions", "ceiling", "before", "after", "points", "worst", "corrected"]
    headers += ["warm"] if arguments.streams else []
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for folder in arguments.folders:
        for line in lines(folder, arguments.slopes, arguments.labels, arguments.seeds, arguments.streams):
            print(line, flush=True)


if __name__ == "__main__":
    main()
