"""The figures of a class prior beside strategies: those of `ClassPrior` by hand, on the same streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adawise.adapt.prior import ClassPrior
from adawise.adapt.smoothing import Smoothing
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.camera import rare_images
from adawise_lab.evaluate.result import Row, SceneFigures
from adawise_lab.evaluate.run import Plan
from adawise_lab.evaluate.tables import LogitTable
from tests.lab.evaluate.building import a_bench, a_plan, a_table, run_here, shorten_streams


def a_sure_table(name: str, best: float, images: int, classes: int) -> LogitTable:
    table = a_table(name, best, images=images, classes=classes)
    return replace(table, logits=2 * table.logits)  # the gate is closed where a model is unsure of most images


BENCH = a_bench(a_sure_table("a", 0.6, 300, 40), a_sure_table("b", 0.5, 300, 40), a_sure_table("c", 0.4, 200, 30))
CLASSES, BINS, ALPHA = (40, 40, 30), 15, 10  # alpha .5


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_streams(monkeypatch)


def rows_of(plan: Plan) -> list[Row]:
    rows = assess(BENCH, plan, None, run_here(BENCH, plan), calibration="all 1").rows
    return [row for row in rows if not row.reference]


def by_hand(plan: Plan, kind: str, order: str) -> tuple[dict[str, list[Any]], list[float], list[float]]:
    """What came of each image, by domain, and gate and weight of each batch.

    Of an image: right, right as served, confidence, is rare, NLL, label, scene_label, begins a stream.
    """
    seen: dict[str, list[Any]] = {table.name: [] for table in BENCH.tables}
    gates, weights = [], []
    for seed in range(plan.seeds):
        rare = rare_images(plan.shows, BENCH.domains, seed=seed)
        for stream in plan.streams(BENCH, kind, order, seed):
            prior, smoothing = ClassPrior(""), Smoothing("")
            for b, ids in enumerate(stream):
                d = BENCH.domain_of[ids[0]]
                if prior.kept and len(prior.places) != min(CLASSES[d], 64):
                    prior, smoothing = ClassPrior(""), Smoothing("")  # the classes are others
                z = BENCH.tables[d].logits[ALPHA, ids - BENCH.starts[d]].astype(np.float64)
                p = np.exp(z - z.max(axis=1, keepdims=True))
                p /= p.sum(axis=1, keepdims=True)
                prior = prior.observed(p)
                gates.append(prior.gate(CLASSES[d]))
                q = prior.corrected(p)
                if plan.smooths:
                    smoothing, q, weight = smoothing.smoothed(p, q, prior)
                    weights.append(weight)
                right, served = q.argmax(axis=1) == BENCH.labels[ids], p.argmax(axis=1) == BENCH.labels[ids]
                labels = BENCH.labels[ids]
                nll, begins = -np.log(q[np.arange(len(ids)), labels]), np.arange(len(ids)) + b == 0
                answers = (right, served, q.max(axis=1), np.isin(ids, rare), nll, labels, q.argmax(axis=1), begins)
                seen[BENCH.tables[d].name] += zip(*answers, strict=True)
    return seen, gates, weights


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, BINS)).sum() / len(right))


def flicker(labels: np.ndarray, predicted: np.ndarray, begins: np.ndarray) -> float:
    same = (labels[1:] == labels[:-1]) & (begins[1:] == 0)
    return float((predicted[1:] != predicted[:-1])[same].mean())


@pytest.mark.parametrize(
    ("shows", "kind", "order", "smooths"),
    [
        ("few3", "short", "iid", False),
        ("rare", "stationary", "runs", False),
        ("rare", "short", "iid", True),
        ("few3", "stationary", "runs", True),
    ],
)
def test_the_figures_are_those_of_a_scene_by_hand(shows: str, kind: str, order: str, smooths: bool) -> None:
    plan = replace(a_plan("fixed", kinds=[kind], orders=[order], seeds=3), shows=shows, prior=True, smooths=smooths)
    (row,) = rows_of(plan)
    scene = row.scene
    assert scene is not None
    seen, gates, weights = by_hand(plan, kind, order)
    columns = {name: np.array(values, dtype=np.float64).T for name, values in seen.items()}
    accuracies = {name: right.mean() for name, (right, *_) in columns.items()}
    gaps = {name: right.mean() - served.mean() for name, (right, served, *_) in columns.items()}
    assert scene.domains == pytest.approx(accuracies)
    assert scene.accuracy == pytest.approx(np.mean([*accuracies.values()]))
    assert scene.over_served.difference == pytest.approx(np.mean([*gaps.values()]))
    assert scene.over_served.difference == pytest.approx(scene.accuracy - row.accuracy)
    assert scene.over_served.difference > 0.02
    assert scene.over_served.ci[0] < scene.over_served.difference < scene.over_served.ci[1]
    assert (scene.worst_domain, scene.worst_domain_gap) == min(gaps.items(), key=lambda item: item[1])
    assert scene.ece == pytest.approx(np.mean([calibration_error(c[0], c[2]) for c in columns.values()]), abs=1e-6)
    assert scene.nll == pytest.approx(np.mean([c[4].mean() for c in columns.values()]), rel=1e-6)
    assert scene.nll < row.nll
    if kind == "stationary":  # a stream of each domain, so that neighbours of the list are those of the stream
        flickers = [flicker(*c[5:]) for c in columns.values()]
        assert scene.flicker == pytest.approx(np.mean(flickers))
        assert 0.0 < scene.flicker < row.flicker
    assert scene.gate == pytest.approx(np.mean(gates))
    assert scene.smoothing == (pytest.approx(np.mean(weights)) if smooths else None)
    assert not (smooths and order == "runs") or 0.1 < np.mean(weights) != scene.gate
    if shows == "rare":
        assert scene.rare is not None
        recalls = [(c[0][c[3] > 0].mean(), c[1][c[3] > 0].mean()) for c in columns.values()]
        assert (scene.rare.scene, scene.rare.served) == pytest.approx(np.mean(recalls, axis=0))
        assert scene.rare.over_served.difference == pytest.approx(scene.rare.scene - scene.rare.served)
        low, high = scene.rare.over_served.ci
        assert high - low > scene.over_served.ci[1] - scene.over_served.ci[0], "rare images are fewer"
    else:
        assert scene.rare is None


def test_each_strategy_has_figures_of_its_own_and_what_is_served_is_what_it_was() -> None:
    plan = replace(a_plan("fixed:alpha=1,grid", kinds=["stationary"], seeds=2), shows="few3")
    without, beside = rows_of(plan), rows_of(replace(plan, prior=True))
    assert [row.scene for row in without] == [None, None]
    assert [replace(row, scene=None) for row in beside] == without
    first, second = [row.scene for row in beside]
    assert isinstance(first, SceneFigures)
    assert isinstance(second, SceneFigures)
    assert first.accuracy != second.accuracy
    alone = [row.scene for row in rows_of(replace(plan, prior=True, candidates=plan.candidates[1:]))]
    assert alone == [second]


def test_where_no_image_of_a_rare_class_comes_there_is_no_recall() -> None:
    """A short stream of long runs may show common classes alone."""
    table = a_table("a", 0.5, images=400, classes=10)
    for images in range(40, 400):
        labels = np.arange(images) % 10
        bench = a_bench(replace(table, logits=table.logits[:, :images], labels=labels))
        plan = replace(a_plan("fixed", kinds=["short"], orders=["runs"]), shows="rare", prior=True)
        drawn = [np.concatenate(stream) for stream in plan.streams(bench, "short", "runs", 0)]
        if not np.isin(np.concatenate(drawn), rare_images("rare", bench.domains, seed=0)).any():
            break
    else:
        pytest.fail("every size has images of rare classes")
    (row, *_) = assess(bench, plan, None, run_here(bench, plan), calibration="").rows
    assert row.scene is not None
    assert row.scene.rare is None
    assert np.isfinite(row.scene.over_served.ci).all()


def test_resamples_without_any_image_of_rare_classes_do_not_count() -> None:
    """With one image of each class, one resample in nine has none of the two that are rare."""
    table = a_table("a", 0.5, images=12, classes=12)
    bench = a_bench(replace(table, labels=np.arange(12)))
    plan = replace(a_plan("fixed", kinds=["stationary"]), shows="rare", prior=True)
    (row, *_) = assess(bench, plan, None, run_here(bench, plan), calibration="").rows
    assert row.scene is not None
    assert row.scene.rare is not None
    assert np.isfinite(row.scene.rare.over_served.ci).all()
