"""The verdict on a pair: does adapting help? Streams of labelled conditions against every fixed alpha in hindsight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import torch

from adawise.adapt.objective import DEFAULT
from adawise.adapt.strategies.warm import Exploration
from adawise.card.advice import AUTO, chosen
from adawise.card.card import Card, Condition, GroupVerdict, PairVerdict
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import parse
from adawise_lab.evaluate.judge import judge
from adawise_lab.evaluate.references import BEST_FIXED
from adawise_lab.evaluate.result import Row
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.streams import ORDERS
from adawise_lab.evaluate.tables import LogitTable

_APART, _MIXED = "long", "mixed"  # a condition lasts 50 batches; every batch mixes all conditions
_SEEDS = 3


def verdict_of(card: Card, conditions: Sequence[Condition]) -> PairVerdict:
    """Return what `warm`, with the objective that the card recommends, serves on streams of the conditions.

    Accuracies are means over iid images and runs of one class, on streams that go from one condition to the next.
    `mixed_gain` is of streams whose every batch mixes all conditions, so that no alpha is right for a whole batch. The
    group of a condition is its name up to the first underscore. The card may have seen the conditions: its temperatures
    are fitted to all of them, and the best fixed alpha is chosen on them as well.
    """
    objective = chosen(AUTO, card)
    bench = Bench(tuple(_table(one, card.alphas) for one in conditions), card.temperature)
    strategy = parse(f"warm@{objective}", objective=DEFAULT, alpha=0.5, exploration=Exploration())
    kinds = (_APART, _MIXED) if len(bench.tables) > 1 else (_APART,)
    plan = Plan(strategy, kinds, ORDERS, _SEEDS)
    result = judge(bench, plan, card, run(bench, plan, card, processes=1, done=int), calibration="of the card")
    served = [row for row in result.rows if not row.reference]
    adapted, mixed = ([row for row in served if row.stream == kind] for kind in (_APART, _MIXED))
    fixed, best_fixed = result.best_fixed
    return PairVerdict(
        objective=objective,
        zero_shot=float(bench.accuracy[:, 0].mean()),
        fine_tuned=float(bench.accuracy[:, -1].mean()),
        fixed_alpha=fixed,
        best_fixed=best_fixed,
        adapted=fmean(row.accuracy for row in adapted),
        gain=_gain(adapted),
        groups=tuple(_groups(bench, adapted, bench.alphas.index(fixed))),
        mixed_gain=_gain(mixed) if mixed else None,
    )


def _gain(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return the gain over the best fixed alpha: the mean of the rows, and of the ends of their intervals."""
    versus = [row.versus[BEST_FIXED] for row in rows]
    low, high = (fmean(each.ci[end] for each in versus) for end in (0, 1))
    return fmean(each.difference for each in versus), low, high


def _table(condition: Condition, alphas: tuple[float, ...]) -> LogitTable:
    logits = torch.stack([condition.logits(j) for j in range(len(alphas))]).float().numpy()
    names = tuple(str(c) for c in range(logits.shape[-1]))
    return LogitTable(condition.name, logits, condition.labels.numpy(), alphas, names)


def _groups(bench: Bench, adapted: Sequence[Row], fixed: int) -> Iterator[GroupVerdict]:
    for group in dict.fromkeys(bench.groups):
        mine = [d for d, other in enumerate(bench.groups) if other == group]
        accuracy = bench.accuracy[mine].mean(axis=0)
        yield GroupVerdict(
            group,
            conditions=len(mine),
            images=max(len(bench.tables[d]) for d in mine),
            zero_shot=float(accuracy[0]),
            fine_tuned=float(accuracy[-1]),
            best_fixed=float(accuracy[fixed]),
            adapted=fmean(row.groups[group].accuracy for row in adapted),
        )
