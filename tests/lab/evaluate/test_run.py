"""Runs: what the worker would do with the same images, at a thousandth of the cost."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adawise.adapt.shortlist import Shortlists, digest_of
from adawise.adapt.strategies.warm import Exploration
from adawise.card.card import Card, make_card
from adawise.clip.classifier import PairClassifier
from adawise.errors import FatalError
from adawise.records import ImageBatch
from adawise.worker.adaptation import Adaptation
from adawise.worker.batching import batch_of
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import objective_named, parse
from adawise_lab.evaluate.run import Plan, TaskResult, run
from adawise_lab.evaluate.score import domain_accuracy
from adawise_lab.evaluate.streams import Stream
from adawise_lab.evaluate.tables import LogitTable
from tests import models
from tests.clip.test_trunk import sharing
from tests.frames import a_frame
from tests.lab.evaluate.building import a_bench, a_plan, a_table, die, run_here, run_mapped
from tests.models import CLASSES, random_images, write_pair

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
IMAGES = 40


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> PairClassifier:
    return models.classifier(models.load(write_pair(tmp_path_factory.mktemp("pair"))), alphas=ALPHAS)


def table_of(classifier: PairClassifier, name: str, seed: int) -> tuple[LogitTable, torch.Tensor]:
    images = random_images(IMAGES, seed=seed)
    logits = np.stack([classifier.logits(j, images).numpy() for j in range(len(ALPHAS))])
    labels = np.random.default_rng(seed).integers(0, len(CLASSES), size=IMAGES)
    return LogitTable(name, logits, labels, ALPHAS, CLASSES), images


def as_batch(images: torch.Tensor, ids: np.ndarray) -> ImageBatch:
    batch = batch_of([a_frame(int(i)) for i in ids])
    return dataclasses.replace(batch, images=images[torch.from_numpy(ids)])


@pytest.mark.parametrize("strategy", ["warm", "grid", "fixed", "scratch"])
@pytest.mark.cases("lab", every=2)
def test_a_run_serves_what_the_workers_adaptation_serves(classifier: PairClassifier, strategy: str) -> None:
    """Alphas, triggers, cost and the label of every image, batch by batch, on a pair of real models."""
    as_the_worker(classifier, strategy, None)


@pytest.mark.check("lab")
def test_a_run_of_a_pair_with_shared_layers_serves_what_the_worker_serves_at_the_price_of_its_card(
    tmp_path: Path,
) -> None:
    shared = models.classifier(sharing(models.load(write_pair(tmp_path))), alphas=ALPHAS)
    table, _ = table_of(shared, "a", 1)
    logits, labels = torch.from_numpy(table.logits), torch.from_numpy(table.labels)
    card = make_card(logits.__getitem__, labels, alphas=ALPHAS, identity={}, created_at="")
    whole, cut = (as_the_worker(shared, "warm", replace(card, tail_share=share)) for share in (1.0, shared.tail_share))
    assert shared.tail_share < 0.5
    assert sum(cut) > sum(whole), "cheaper probes are made more often"


@pytest.mark.parametrize(
    ("strategy", "smooths"),
    [
        pytest.param("warm", False, marks=pytest.mark.check("lab")),
        ("warm", True),
        pytest.param("fixed", True, marks=pytest.mark.check("lab")),
    ],
)
def test_the_scene_of_a_run_is_the_workers(
    classifier: PairClassifier, strategy: str, smooths: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its label, confidence and gate, image by image, from one condition to the next and anew with each stream."""
    # An untrained model is unsure of every image, and finds every class.
    monkeypatch.setattr("adawise.adapt.prior._SURE", (0.0, 1e-6))
    monkeypatch.setattr("adawise.adapt.prior._SPREAD", (4.0, 2.0))
    for name, value in (("_SURE", (0.0, 1e-6)), ("_ALIKE", (5.0, 4.0)), ("_ODDS", 1e-12)):
        monkeypatch.setattr(f"adawise.adapt.smoothing.{name}", value)
    (a, images_a), (b, images_b) = (table_of(classifier, name, seed) for name, seed in (("a", 1), ("b", 2)))
    images, temperatures = torch.cat([images_a, images_b]), tuple(0.5 + alpha for alpha in ALPHAS)
    bench = Bench((a, b), temperatures)
    candidates = parse(strategy, objective="entropy", alpha=0.5, exploration=Exploration(every=3))
    built = candidates[0].build(ALPHAS, objective_named("entropy", None), None)
    adaptation = Adaptation(built, classifier, temperatures, 1, prior_of=digest_of(CLASSES), smooths=smooths)
    for kind in ("short", "stationary"):
        plan = Plan(candidates, (kind,), ("runs",), seeds=1, shows="few1", prior=True, smooths=smooths)
        (ran,) = run_here(bench, plan)
        (without,) = run_here(bench, replace(plan, prior=False, smooths=False))
        assert ran.scene is not None
        assert without.scene is None
        assert replace(ran.path, scene_gate=[], scene_smoothing=[]) == without.path
        hits, confident, differ = np.zeros(len(images)), 0.0, 0
        gates: list[float] = []
        weights: list[float] = []
        for stream in plan.streams(bench, kind, "runs", 0):
            state = built.initial()
            for ids in stream:
                (adapted,) = adaptation.run([as_batch(images, ids)], [state])
                state, predictions = adapted.state, adapted.predictions
                assert predictions.scene_index is not None
                assert predictions.scene_confidence is not None
                np.add.at(hits, ids, predictions.scene_index == bench.labels[ids])
                confident += predictions.scene_confidence.astype(np.float64).sum()
                differ += int((predictions.scene_index != predictions.top_index[:, 0]).sum())
                assert adapted.trace.scene_gate is not None
                gates.append(adapted.trace.scene_gate)
                weights += [] if adapted.trace.scene_smoothing is None else [adapted.trace.scene_smoothing]
        assert np.array_equal(ran.scene.hits, hits)
        assert np.array_equal(ran.scene.visits, ran.score.visits)
        assert ran.path.scene_gate == gates
        assert ran.path.scene_smoothing == weights
        assert bool(weights) == smooths
        assert not smooths or min(weights) > 0.9
        assert (hits.sum() - confident) == pytest.approx(ran.scene.bins[..., 1].sum(), rel=1e-9)
        assert differ > 0


@pytest.mark.parametrize("strategy", ["warm", pytest.param("grid", marks=pytest.mark.check("lab"))])
def test_a_run_with_shortlists_serves_what_a_worker_with_these_shortlists_serves(
    classifier: PairClassifier, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are selected before objective, alarm and endpoints, and the scene learns among the list."""
    monkeypatch.setattr("adawise.adapt.prior._SURE", (0.0, 1e-6))
    monkeypatch.setattr("adawise.adapt.prior._SPREAD", (4.0, 2.0))
    (a, images_a), (b, images_b) = (table_of(classifier, name, seed) for name, seed in (("a", 1), ("b", 2)))
    images, temperatures = torch.cat([images_a, images_b]), tuple(0.5 + alpha for alpha in ALPHAS)
    bench = Bench((a, b), temperatures)
    candidates = parse(strategy, objective="entropy", alpha=0.5, exploration=Exploration(every=3))
    plan = Plan(candidates, ("short",), ("runs",), seeds=1, shows="few2", prior=True, lists="exact")
    (ran,) = run_here(bench, plan)
    (listed,) = plan.shortlists(bench, plan.streams(bench, "short", "runs", 0), 0)[0].values()
    built = candidates[0].build(ALPHAS, objective_named("entropy", None), None)
    plain = Adaptation(built, classifier, temperatures, 1, prior_of=digest_of(CLASSES))
    worker = replace(plain, shortlists=Shortlists((("cam-*", listed),)))
    hits, scene = np.zeros(len(images)), np.zeros(len(images))
    (stream,) = plan.streams(bench, "short", "runs", 0)
    state, without = built.initial(), built.initial()
    predicted = np.zeros(len(images))
    for t, ids in enumerate(stream):
        (adapted,) = worker.run([as_batch(images, ids)], [state])
        (beside,) = plain.run([as_batch(images, ids)], [without])
        state, without = adapted.state, beside.state
        assert adapted.trace.shortlist == listed.digest
        assert ran.path.alpha[t] == adapted.trace.alpha
        assert ran.path.forward_equivalents[t] == adapted.trace.forward_equivalents
        assert ran.path.scene_gate[t] == adapted.trace.scene_gate
        labels = bench.labels[ids]
        np.add.at(hits, ids, adapted.predictions.top_index[:, 0] == labels)
        np.add.at(scene, ids, adapted.predictions.scene_index == labels)
        z = bench.blocks[0][ALPHAS.index(beside.trace.alpha), ids][:, listed.columns]
        np.add.at(predicted, ids, listed.columns[z.argmax(-1)].numpy() == labels)
    assert np.array_equal(ran.score.hits, hits)
    assert ran.scene is not None
    assert np.array_equal(ran.scene.hits, scene)
    assert ran.listed is not None
    assert np.array_equal(ran.listed.predicted.hits, predicted)


def as_the_worker(classifier: PairClassifier, strategy: str, card: Card | None) -> list[float]:
    """Compare a run with the worker's adaptation, and return the forward equivalents of each batch."""
    (a, images_a), (b, images_b) = (table_of(classifier, name, seed) for name, seed in (("a", 1), ("b", 2)))
    images = torch.cat([images_a, images_b])
    temperatures = tuple(0.5 + alpha for alpha in ALPHAS)
    bench = Bench((a, b), temperatures, tail_share=classifier.tail_share)
    candidates = parse(strategy, objective="entropy", alpha=0.5, exploration=Exploration(every=3))
    plan = Plan(candidates, ("short",), ("runs",), seeds=1)
    (ran,) = run_here(bench, plan, card)
    found = assess(bench, plan, card, [ran], calibration="")

    built = candidates[0].build(ALPHAS, objective_named("entropy", card), card)
    adaptation = Adaptation(built, classifier, temperatures, top_k=1)
    state = built.initial()
    (stream,) = plan.streams(bench, "short", "runs", 0)
    hits = np.zeros(len(images))
    for t, ids in enumerate(stream):
        (adapted,) = adaptation.run([as_batch(images, ids)], [state])
        state, trace = adapted.state, adapted.trace
        assert ran.path.trigger[t] == trace.trigger
        assert ran.path.forward_equivalents[t] == trace.forward_equivalents
        assert found.paths[t].forward_cost == trace.forward_cost
        assert ran.path.alpha[t] == trace.alpha
        np.add.at(hits, ids, adapted.predictions.top_index[:, 0] == bench.labels[ids])
    assert np.array_equal(ran.score.hits, hits)
    assert len(set(ran.path.trigger)) > 1 or strategy != "warm"
    return ran.path.forward_equivalents


def test_a_table_whose_best_alpha_is_known_gets_it() -> None:
    bench = a_bench(a_table("a", 0.2, images=300), a_table("b", 0.8, images=300))
    for strategy in ("grid", "warm"):
        (ran,) = run_here(bench, a_plan(strategy, kinds=["long"]))
        for domain, best in ((0, 0.2), (1, 0.8)):
            mine = np.array(ran.path.domain) == domain
            settled = np.array(ran.path.alpha)[mine][10:]
            assert settled.mean() == pytest.approx(best, abs=0.1), strategy
        oracle = bench.accuracy.max(axis=1).mean()
        assert np.nanmean(domain_accuracy(bench, ran.score)) > oracle - 0.06  # the entropy of 32 images is noisy


def test_the_cost_is_counted_in_images_as_the_worker_counts() -> None:
    bench = a_bench(a_table("a"))
    for ran, forwards in zip(run_here(bench, a_plan("fixed,grid")), (1.0, 21.0), strict=True):
        assert set(ran.path.forward_equivalents) == {forwards}
        assert ran.score.forwards.sum() == forwards * ran.score.visits.sum()


def test_a_fixed_alpha_is_right_where_the_table_is() -> None:
    bench = a_bench(a_table("a", 0.2), a_table("b", 0.7, classes=7))
    (ran,) = run_here(bench, a_plan("fixed:alpha=0.25"))
    assert np.array_equal(ran.score.hits, ran.score.visits * bench.quality.correct[5])


def test_one_state_lives_through_domains_of_other_classes() -> None:
    """A camera of one pair has one vocabulary; a stream over tables of several must not break a strategy."""
    bench = a_bench(a_table("a", 0.2, classes=100), a_table("b", 0.9, classes=7))
    for ran in run_here(bench, a_plan("warm,scratch", kinds=["jumps"])):
        assert len(ran.path.alpha) == 48
        assert ran.score.visits.sum() == 48 * 32


def test_each_stationary_stream_starts_anew() -> None:
    bench = a_bench(a_table("a", 0.2), a_table("b", 0.8))
    (ran,) = run_here(bench, a_plan("warm", kinds=["stationary"]))
    assert ran.path.stream == [0] * 50 + [1] * 50
    assert [t for t, trigger in enumerate(ran.path.trigger) if trigger == "start"] == [0, 50]


def same(a: TaskResult, b: TaskResult) -> bool:
    arrays = all(
        np.array_equal(getattr(a.score, f.name), getattr(b.score, f.name)) for f in dataclasses.fields(a.score)
    )
    return a.task == b.task and arrays and repr(a.path) == repr(b.path)


def test_processes_share_the_work_and_not_the_result() -> None:
    bench = a_bench(a_table("a", 0.2), a_table("b", 0.8, classes=7))
    plan = a_plan("warm,grid", kinds=["short", "mixed"], orders=["iid", "runs"], seeds=2)
    done: list[int] = []
    alone = run_here(bench, plan)
    shared = run(bench, plan, None, processes=2, done=done.append)
    assert [r.task for r in shared] == plan.tasks
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert sum(done) == len(plan.tasks) == 16


def test_the_processes_map_the_logits_and_keep_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = a_bench(a_table("a", 0.2), a_table("b", 0.8, classes=7), a_table("c", 0.5))
    monkeypatch.setattr("adawise_lab.evaluate.run._run", run_mapped)
    ran = run(bench, a_plan("fixed", seeds=2), None, processes=2, done=lambda count: None)
    assert len(ran) == 2


def test_candidates_of_a_plan_share_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, made = a_bench(a_table("a", 0.2), a_table("b", 0.8)), list[tuple[str, str, int]]()
    original = Plan.streams

    def counted(plan: Plan, bench: Bench, kind: str, order: str, seed: int) -> tuple[Stream, ...]:
        made.append((kind, order, seed))
        return original(plan, bench, kind, order, seed)

    monkeypatch.setattr(Plan, "streams", counted)
    run_here(bench, a_plan("fixed,grid,scratch", kinds=["short", "mixed"], orders=["iid", "runs"], seeds=2))
    assert len(made) == len(set(made)) == 8


@pytest.mark.check("lab")
def test_a_process_that_is_killed_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise_lab.evaluate.run._run", die)
    with pytest.raises(FatalError, match=r"one of 2 processes .* was killed .*Run again with --processes 1"):
        run(a_bench(a_table("a")), a_plan("fixed", seeds=2), None, processes=2, done=lambda count: None)
