"""Runs as a result (scores of all seeds, references on the same images, intervals), or as a verdict on a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch

from adawise.adapt.objective import DEFAULT, Objective
from adawise.adapt.search import forward_cost
from adawise.adapt.shortlist import Shortlist
from adawise.adapt.strategies.warm import Exploration
from adawise.card.advice import AUTO, chosen, of_all_classes, recommend
from adawise.card.card import Card, Condition, GroupVerdict, PairVerdict
from adawise_lab.evaluate import references as ref
from adawise_lab.evaluate.bench import Bench, Floats
from adawise_lab.evaluate.candidates import Candidate, objective_named, parse
from adawise_lab.evaluate.list_figures import list_figures
from adawise_lab.evaluate.lists import NONE
from adawise_lab.evaluate.references import BEST_FIXED, Came, Visits, best_path, lag_batches, path_error, ways
from adawise_lab.evaluate.result import Difference, DomainFacts, GroupRow, OracleShare, PathRow, Result, Row
from adawise_lab.evaluate.run import AlphaPath, Plan, TaskResult, run
from adawise_lab.evaluate.scene import scene_figures
from adawise_lab.evaluate.score import (
    Score,
    by_domain,
    calibration_error,
    domain_accuracy,
    flicker,
    interval,
    mean,
    mean_nll,
    pooled_calibration_error,
    ratio,
    resampled_accuracies,
    total,
)
from adawise_lab.evaluate.served import ServedImages
from adawise_lab.evaluate.streams import ORDERS, RETURN
from adawise_lab.evaluate.tables import LogitTable

_LONG, _MIXED = "long", "mixed"  # a condition lasts 50 batches; every batch mixes all conditions
_SEEDS = 3


@dataclass(frozen=True, eq=False)
class _Entry:
    """The scores and paths that a row is made of."""

    name: str
    reference: bool
    scored: Score
    paths: tuple[AlphaPath, ...] = ()  # one for each seed
    alpha: float | None = None  # of a fixed alpha
    candidate: Candidate | None = None


def assess(bench: Bench, plan: Plan, card: Card | None, runs: Sequence[TaskResult], *, calibration: str) -> Result:
    """Return the result of all `runs` of a plan."""
    rows: list[Row] = []
    for kind in plan.kinds:
        for order in plan.orders:
            mine = [run for run in runs if (run.task.kind, run.task.order) == (kind, order)]
            entries = [*_strategies(plan, mine), *_references(bench, plan, card, kind, order)]
            scenes, lists = scene_figures(bench, plan, mine), list_figures(bench, plan, mine)
            made = enumerate(_rows(bench, plan, kind, order, entries))  # those of the candidates come first
            rows += [replace(row, scene=scenes.get(n), listed=lists.get(n)) for n, row in made]
    everything = np.ones(bench.starts[-1])
    best = ref.best_fixed((bench, everything))
    return Result(
        alphas=bench.alphas,
        rows=tuple(rows),
        domains=_domains(bench, plan, card),
        best_fixed=(bench.alphas[best], float(bench.accuracy[:, best].mean())),
        oracle=float(bench.accuracy.max(axis=1).mean()),
        split_half_oracle=float((by_domain(bench, ref.split_half(bench)) / by_domain(bench, everything)).mean()),
        calibration=calibration,
        seeds=plan.seeds,
        batch=plan.batch,
        tail_share=bench.tail_share,
        paths=tuple(_paths(bench, plan, runs)),
        shows=plan.shows,
        lists=plan.lists,
    )


def _strategies(plan: Plan, runs: Sequence[TaskResult]) -> Iterator[_Entry]:
    for number, candidate in enumerate(plan.candidates):
        mine = sorted((run for run in runs if run.task.candidate == number), key=lambda run: run.task.seed)
        paths = tuple(run.path for run in mine)
        yield _Entry(candidate.name, False, total([run.score for run in mine]), paths, candidate=candidate)


def _references(bench: Bench, plan: Plan, card: Card | None, kind: str, order: str) -> Iterator[_Entry]:
    came, alphas = _came(bench, plan, kind, order), bench.alphas
    middle = min(range(len(alphas)), key=lambda j: abs(alphas[j] - 0.5))
    for name, j in (
        (ref.ZERO_SHOT, 0),
        (ref.FINE_TUNED, len(alphas) - 1),
        (ref.MIDDLE, middle),
        (ref.BEST_FIXED, ref.best_fixed(*((each.bench, each.times) for each in came))),
    ):
        yield _Entry(name, True, total([each.fixed(j) for each in came]), alpha=alphas[j])
    oracles = [each.fixed(ref.domain_oracle(each.bench)) for each in came]
    yield _Entry(ref.DOMAIN_ORACLE, True, total(oracles))
    halves = np.sum([each.times * ref.split_half(each.bench) for each in came], axis=0)
    yield _Entry(ref.SPLIT_HALF_ORACLE, True, _only_accuracy(total(oracles), halves))
    visits = [(each.bench, v) for each in came for v in each.visits]
    served = [ref.served_at(among, v, ref.batch_oracle(among, v), len(alphas)) for among, v in visits]
    yield _Entry(ref.BATCH_ORACLE, True, total(served))
    for objective in dict.fromkeys(candidate.objective for candidate in plan.candidates):
        if plan.lists != NONE and of_all_classes(objective, card, "shortlists"):
            continue  # a fixed alpha needs no objective, and this one says nothing among a shortlist
        minimum = next(c.exploration.min_images for c in plan.candidates if c.objective == objective)
        served = []
        for each in came:
            values = each.bench.values(objective_named(objective, card))
            chosen = [(v, ref.grid_batch(each.bench, v, values, minimum)) for v in each.visits]
            served += [ref.served_at(each.bench, v, index, len(alphas)) for v, index in chosen]
        yield _Entry(f"{ref.GRID}@{objective}", True, total(served))


def _came(bench: Bench, plan: Plan, kind: str, order: str) -> list[Came]:
    """Return the images of a kind and order, those of all streams with the same shortlists together."""
    streams = [plan.streams(bench, kind, order, seed) for seed in range(plan.seeds)]
    if plan.lists == NONE:
        return [Came(bench, [Visits.of(each) for each in streams])]
    came: dict[str, tuple[Mapping[int, Shortlist], list[Visits]]] = {}
    for seed, each in enumerate(streams):
        for stream, shortlists in zip(each, plan.shortlists(bench, each, seed), strict=True):
            key = " ".join(f"{v}:{shortlist.digest}" for v, shortlist in shortlists.items())
            came.setdefault(key, (shortlists, []))[1].append(Visits.of((stream,)))
    return [Came(bench.among(shortlists), visits) for shortlists, visits in came.values()]


def _only_accuracy(scored: Score, hits: Floats) -> Score:
    """Return the score with other hits; confidence, NLL and flicker become nan, for they are unknown."""
    bins, nll, pairs = (np.full_like(each, np.nan) for each in (scored.bins, scored.nll, scored.pairs))
    return replace(scored, hits=hits, bins=bins, nll=nll, pairs=pairs, changes=pairs)


def _rows(bench: Bench, plan: Plan, kind: str, order: str, entries: Sequence[_Entry]) -> Iterator[Row]:
    hits = np.stack([entry.scored.hits for entry in entries])
    visits = np.stack([entry.scored.visits for entry in entries])
    samples = resampled_accuracies(bench, hits, visits)  # [R, 1000]
    accuracies = np.stack([domain_accuracy(bench, entry.scored) for entry in entries])  # [R, D]
    names = [entry.name for entry in entries]
    better = np.maximum(accuracies[names.index(ref.ZERO_SHOT)], accuracies[names.index(ref.FINE_TUNED)])
    against = {entry.name: i for i, entry in enumerate(entries) if entry.reference}
    curves = [entry.candidate.curve if entry.candidate is not None else "" for entry in entries]
    at_set_price = next((i for i, name in enumerate(names) if name == curves[i]), None)
    # The curves of the domains are among all classes.
    shares = _ways(bench, entries) if kind in RETURN and plan.lists == NONE else {}

    def over(j: int, i: int) -> Difference:
        return Difference(mean(accuracies[i] - accuracies[j]), interval(samples[i] - samples[j]))

    for i, entry in enumerate(entries):
        scored, gaps = entry.scored, accuracies[i] - better
        worst, fe = int(np.nanargmin(gaps)), mean(ratio(scored.forwards, by_domain(bench, scored.visits)))
        row = Row(
            strategy=entry.name,
            reference=entry.reference,
            stream=kind,
            order=order,
            accuracy=mean(accuracies[i]),
            accuracy_ci=interval(samples[i]),
            fe=fe,
            forward_cost=forward_cost(fe, bench.tail_share),
            ece=mean(calibration_error(bench, scored)),
            ece_pooled=pooled_calibration_error(scored),
            nll=mean(mean_nll(bench, scored)),
            flicker=mean(flicker(scored)),
            worst_domain_gap=float(gaps[worst]),
            worst_domain=bench.tables[worst].name,
            versus={name: over(j, i) for name, j in against.items() if j != i},
            groups=dict(_groups(bench, accuracies, i, scored, against)),
            domains={t.name: float(a) for t, a in zip(bench.tables, accuracies[i], strict=True) if not np.isnan(a)},
            batches=sum(len(path.alpha) for path in entry.paths),
            images=int(scored.visits.sum()),
            seeds=plan.seeds,
            alpha=entry.alpha,
            price=entry.candidate.exploration.price if entry.candidate is not None and curves[i] else None,
            over_set=None if at_set_price is None or at_set_price == i else over(at_set_price, i),
            way=shares.get(entry.name, {}),
        )
        yield _with_paths(bench, plan, row, entry.paths) if entry.paths else row


def _ways(bench: Bench, entries: Sequence[_Entry]) -> dict[str, dict[str, OracleShare]]:
    """Return how far each `warm` with pixels closes the gap from `warm` without pixels, which has no memory either.

    The keys are the strategy's name, then the reference's.
    """
    warm = [(entry, c) for entry in entries if (c := entry.candidate) is not None and c.strategy == "warm"]
    # the first one of each objective
    bases = {c.objective: entry for entry, c in reversed(warm) if not c.exploration.pixels}
    found: dict[str, dict[str, OracleShare]] = {}
    for objective, base in bases.items():
        others = [entry for entry, c in warm if c.objective == objective and entry is not base]
        each = ways(bench, base.name, base.paths, [entry.paths for entry in others])
        found |= zip((entry.name for entry in others), each, strict=True)
    return found


def _groups(
    bench: Bench, accuracies: Floats, i: int, scored: Score, against: Mapping[str, int]
) -> Iterator[tuple[str, GroupRow]]:
    forwards = ratio(scored.forwards, by_domain(bench, scored.visits))
    for group in dict.fromkeys(bench.groups):
        mine = [d for d, other in enumerate(bench.groups) if other == group]
        if np.isnan(accuracies[i, mine]).all():
            continue
        fe = mean(forwards, mine)
        yield (
            group,
            GroupRow(
                accuracy=mean(accuracies[i], mine),
                fe=fe,
                forward_cost=forward_cost(fe, bench.tail_share),
                versus={name: mean(accuracies[i] - accuracies[j], mine) for name, j in against.items() if j != i},
            ),
        )


def _with_paths(bench: Bench, plan: Plan, row: Row, paths: Sequence[AlphaPath]) -> Row:
    alphas = np.concatenate([path.alpha for path in paths])
    triggers = Counter(trigger for path in paths for trigger in path.trigger)
    resets = Counter(reset for path in paths for reset in path.reset if reset is not None)
    row = replace(
        row,
        alpha=float(alphas.mean()),
        pinned=float(((alphas == bench.alphas[0]) | (alphas == bench.alphas[-1])).mean()),
        triggers=dict(sorted(triggers.items())),
        resets=dict(sorted(resets.items())),
    )
    if row.stream != "smooth" or plan.smooth is None:
        return row
    served, best = [np.asarray(path.alpha) for path in paths], best_path(bench, plan.smooth)
    return replace(row, lag_batches=lag_batches(served, best), path_error=path_error(served, best))


def _domains(bench: Bench, plan: Plan, card: Card | None) -> dict[str, DomainFacts]:
    objectives = dict.fromkeys(candidate.objective for candidate in plan.candidates)
    means = {name: _objective_means(bench, objective_named(name, card)) for name in objectives}
    halves = by_domain(bench, ref.split_half(bench))
    facts = {}
    for d, table in enumerate(bench.tables):
        accuracy = bench.accuracy[d]
        best = int(accuracy.argmax())
        choices = {name: int(curves[d].argmin()) for name, curves in means.items()}
        facts[table.name] = DomainFacts(
            group=bench.groups[d],
            images=len(table),
            classes=len(table.class_names),
            accuracy=tuple(float(a) for a in accuracy),
            best_alpha=bench.alphas[best],
            best_accuracy=float(accuracy[best]),
            split_half=float(halves[d] / len(table)),
            choices={name: (bench.alphas[j], float(accuracy[j])) for name, j in choices.items()},
        )
    return facts


def _objective_means(bench: Bench, objective: Objective) -> Floats:
    """Return the mean of an objective over all images of each domain at each alpha, `[D, G]`."""
    values = bench.values(objective)
    spans = zip(bench.vocabularies, bench.starts, bench.starts[1:], strict=False)
    return np.stack([values[v][:, bench.row_of[first:last]].mean(axis=1) for v, first, last in spans])


def _paths(bench: Bench, plan: Plan, runs: Sequence[TaskResult]) -> Iterator[PathRow]:
    best = None if plan.smooth is None else best_path(bench, plan.smooth).tolist()
    for each in runs:
        task, path = each.task, each.path
        moves = best if task.kind == "smooth" else None
        for t, alpha in enumerate(path.alpha):
            yield PathRow(
                strategy=plan.candidates[task.candidate].name,
                stream=task.kind,
                order=task.order,
                seed=task.seed,
                number=path.stream[t],
                batch=t,
                domain=bench.tables[path.domain[t]].name if path.domain[t] >= 0 else "",
                alpha=alpha,
                forward_equivalents=path.forward_equivalents[t],
                forward_cost=forward_cost(path.forward_equivalents[t], bench.tail_share),
                trigger=path.trigger[t],
                reset=path.reset[t],
                best_alpha=None if moves is None else moves[t],
            )


@dataclass(frozen=True, eq=False)
class Judgement:
    """A verdict, the FE of adapting on its streams, and what is served there if the recommendation is followed."""

    verdict: PairVerdict
    fe: float
    served: ServedImages


def assess_pair(card: Card, conditions: Sequence[Condition]) -> Judgement:
    """Return the verdict on what `warm`, with the objective that the card recommends, serves on streams of conditions.

    Accuracies are means over iid images and runs of one class, on streams that go from one condition to the next.
    `mixed_gain` is of streams whose every batch mixes all conditions, so that no alpha is right for a whole batch. The
    group of a condition is its name up to the first underscore. The card may have seen the conditions: its temperatures
    are fitted to all of them, and the best fixed alpha is chosen on them as well.
    """
    objective = chosen(AUTO, card)
    tables = tuple(_table_of(one, card.alphas) for one in conditions)
    bench = Bench(tables, card.temperature, tail_share=card.tail_share)
    strategy = parse(f"warm@{objective}", objective=DEFAULT, alpha=0.5, exploration=Exploration())
    kinds = (_LONG, _MIXED) if len(bench.tables) > 1 else (_LONG,)
    plan = Plan(strategy, kinds, ORDERS, _SEEDS)
    runs = run(bench, plan, card, processes=1, done=int)
    result = assess(bench, plan, card, runs, calibration="of the card")
    served = [row for row in result.rows if not row.reference]
    adapted, mixed = ([row for row in served if row.stream == kind] for kind in (_LONG, _MIXED))
    fixed, best_fixed = result.best_fixed
    verdict = PairVerdict(
        objective=objective,
        zero_shot=float(bench.accuracy[:, 0].mean()),
        fine_tuned=float(bench.accuracy[:, -1].mean()),
        fixed_alpha=fixed,
        best_fixed=best_fixed,
        adapted=fmean(row.accuracy for row in adapted),
        gain=_gain(adapted),
        groups=tuple(_group_verdicts(bench, adapted, bench.alphas.index(fixed))),
        mixed_gain=_gain(mixed) if mixed else None,
    )
    return Judgement(verdict, fmean(row.fe for row in adapted), _served(bench, recommend(verdict).alpha, runs))


def _served(bench: Bench, alpha: float | None, runs: Sequence[TaskResult]) -> ServedImages:
    """Return what a fixed alpha serves, or, for None, what adapting served in the runs of a verdict."""
    labels = {table.name: table.labels for table in bench.tables}
    if alpha is not None:
        hits = bench.quality.correct[[bench.alphas.index(alpha)]].astype(np.float64)
        return ServedImages(labels, np.ones_like(hits), hits)
    each = [total([r.score for r in runs if (r.task.kind, r.task.order) == (_LONG, order)]) for order in ORDERS]
    return ServedImages(labels, np.stack([one.visits for one in each]), np.stack([one.hits for one in each]))


def _gain(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return the gain over the best fixed alpha: the mean of the rows, and of the ends of their intervals."""
    versus = [row.versus[BEST_FIXED] for row in rows]
    low, high = (fmean(each.ci[end] for each in versus) for end in (0, 1))
    return fmean(each.difference for each in versus), low, high


def _table_of(condition: Condition, alphas: tuple[float, ...]) -> LogitTable:
    logits = torch.stack([condition.logits(j) for j in range(len(alphas))]).float().numpy()
    names = tuple(str(c) for c in range(logits.shape[-1]))
    return LogitTable(condition.name, logits, condition.labels.numpy(), alphas, names)


def _group_verdicts(bench: Bench, adapted: Sequence[Row], fixed: int) -> Iterator[GroupVerdict]:
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
