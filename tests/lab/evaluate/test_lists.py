"""Shortlists that an evaluation makes up, and what they bring: as a worker with these shortlists serves."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from adawise.errors import SettingsError
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.lists import check_lists, in_words, shortlists_of
from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FINE_TUNED, GRID, ZERO_SHOT
from adawise_lab.evaluate.result import Result
from adawise_lab.evaluate.run import Plan
from adawise_lab.evaluate.score import domain_accuracy, mean, total
from tests.lab.evaluate.building import a_bench, a_plan, a_table, run_here, run_mapped, shorten_streams

BENCH = a_bench(a_table("a", 0.7, images=300, classes=30), a_table("b", 0.3, images=200, classes=12))
STREAM = np.arange(0, 10), np.arange(300, 306), np.arange(10, 16)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_streams(monkeypatch)


def listed(lists: str, seed: int = 0) -> dict[int, list[int]]:
    found = shortlists_of(STREAM, lists, BENCH, seed=seed)
    return {v: each.columns.tolist() for v, each in found.items()}


SHOWN = [sorted({*BENCH.labels[:16].tolist()}), sorted({*BENCH.labels[300:306].tolist()})]


def test_an_exact_list_has_the_classes_of_the_images_that_come() -> None:
    assert listed("exact") == dict(enumerate(SHOWN))
    assert listed("none") == {}


def test_a_list_has_classes_more_or_fewer_which_are_drawn_by_seed() -> None:
    more, fewer = listed("exact+2")[0], listed("exact-3")[0]
    assert len(more) == len(SHOWN[0]) + 2
    assert {*SHOWN[0]} < {*more}
    assert len(fewer) == len(SHOWN[0]) - 3
    assert {*fewer} < {*SHOWN[0]}
    assert {tuple(listed("exact-3", seed)[0]) for seed in range(8)} > {tuple(fewer)}
    assert listed("exact+2")[0] == more


def test_a_list_has_two_classes_at_least_and_one_of_all_classes_is_none() -> None:
    assert listed("exact+999") == {}
    (two,) = shortlists_of((BENCH.domains[0].ids[:1],), "exact", BENCH, seed=1).values()
    assert len(two.columns) == 2
    assert int(BENCH.labels[0]) in two.columns
    assert all(len(columns) == 2 for columns in listed("exact-999").values())


@pytest.mark.parametrize("lists", ["exact5", "exact+0", "exact-", "few5", ""])
def test_other_lists_are_refused(lists: str) -> None:
    with pytest.raises(SettingsError, match="expected none, exact, or exact with a number"):
        check_lists(lists)


def test_lists_are_named() -> None:
    words = [in_words(lists) for lists in ("none", "exact", "exact+1", "exact+5", "exact-2")]
    own = "the classes that a camera shows"
    assert words == ["", own, f"{own} and 1 other", f"{own} and 5 others", f"{own} but 2"]


def test_each_stream_has_a_list_of_its_own() -> None:
    """A domain of its own in each: classes that another one shows are not on its list."""
    same = a_bench(a_table("a", images=300, classes=30), replace(a_table("b", images=300, classes=30)))
    half = replace(same.tables[1], labels=same.tables[1].labels // 2)
    bench = a_bench(replace(same.tables[0], labels=15 + same.tables[0].labels // 2), half)
    plan = replace(a_plan("fixed", kinds=["stationary"]), shows="few3", lists="exact")
    first, second = plan.shortlists(bench, plan.streams(bench, "stationary", "iid", 0), 0)
    assert [len(each[0].columns) for each in (first, second)] == [3, 3]
    assert first[0].columns.min() >= 15 > second[0].columns.max()
    (run,) = run_here(bench, plan)
    assert run.listed is not None
    assert run.listed.names == 3.0
    rows = {row.strategy: row for row in assess(bench, plan, None, [run], calibration="").rows}
    assert rows["fixed_0.50"].accuracy == rows["fixed"].accuracy
    assert (rows["fixed_0.50"].flicker, rows["fixed_0.50"].ece) == (rows["fixed"].flicker, rows["fixed"].ece)


def result_of(plan: Plan) -> Result:
    return assess(BENCH, plan, None, run_here(BENCH, plan), calibration="")


def test_rows_are_among_the_list_and_compared_with_a_list_for_the_prediction_alone() -> None:
    """By hand, for a fixed alpha, which is the same in search and prediction."""
    plan = replace(a_plan("fixed:alpha=0.5,grid", kinds=["short"], seeds=2), shows="few4", lists="exact+1")
    rows = {row.strategy: row for row in result_of(plan).rows}
    fixed = rows["fixed:alpha=0.5"]
    own, every = [], []
    for d, table in enumerate(BENCH.tables):
        right, plain = [], []
        for seed in range(2):
            streams = plan.streams(BENCH, "short", "iid", seed)
            columns = plan.shortlists(BENCH, plan.streams(BENCH, "short", "iid", seed), seed)[0][d].columns.numpy()
            assert len(columns) == 5
            ids = np.concatenate([batch for stream in streams for batch in stream if BENCH.domain_of[batch[0]] == d])
            z, labels = table.logits[10, ids - BENCH.starts[d]], BENCH.labels[ids]
            right.append(columns[z[:, columns].argmax(axis=1)] == labels)
            plain.append(z.argmax(axis=1) == labels)
        own.append(np.concatenate(right).mean())
        every.append(np.concatenate(plain).mean())
    assert fixed.listed is not None
    assert fixed.accuracy == fixed.listed.predicted == pytest.approx(np.mean(own))
    assert fixed.listed.without == pytest.approx(np.mean(every))
    assert fixed.listed.over_predicted.difference == 0.0
    assert fixed.listed.over_without.difference == pytest.approx(np.mean(own) - np.mean(every))
    assert fixed.listed.over_without.ci[0] > 0.0
    assert fixed.listed.names == 5.0
    # References are among the list, too: alpha .5 is one of them, and the grid without a search is the strategy.
    assert rows["fixed_0.50"].accuracy == fixed.accuracy
    assert rows["fixed_0.50"].flicker == fixed.flicker
    assert rows["fixed_0.50"].nll == pytest.approx(fixed.nll)
    assert rows[f"{GRID}@tsallis"].accuracy == rows["grid"].accuracy
    assert rows[DOMAIN_ORACLE].accuracy >= rows[BEST_FIXED].accuracy
    assert rows[BEST_FIXED].accuracy >= max(rows[ZERO_SHOT].accuracy, rows[FINE_TUNED].accuracy, fixed.accuracy)


def test_without_lists_nothing_of_them_is_there_and_the_search_among_all_classes_is_what_it_was() -> None:
    plan = replace(a_plan("warm", orders=["runs"]), shows="few4")
    plain, among = result_of(plan), result_of(replace(plan, lists="exact"))
    assert "shortlists" not in plain.as_json()
    assert among.as_json()["shortlists"] == "exact"
    assert all(("listed" in row) == (not row["reference"]) for row in among.as_json()["rows"])
    assert not any("listed" in row for row in plain.as_json()["rows"])
    first, second = plain.rows[0], among.rows[0]
    assert second.listed is not None
    assert (second.listed.without, second.listed.fe) == (first.accuracy, first.fe)
    assert second.accuracy > first.accuracy
    assert plain.domains == among.domains
    assert plain.best_fixed == among.best_fixed


def test_a_class_that_the_list_lacks_is_always_wrong_and_has_no_probability() -> None:
    plan = replace(a_plan("fixed", seeds=1), shows="few4", lists="exact-1")
    (run,) = run_here(BENCH, plan)
    labels = BENCH.labels
    for d in range(2):
        columns = plan.shortlists(BENCH, plan.streams(BENCH, "short", "iid", 0), 0)[0][d].columns.numpy()
        mine = (BENCH.domain_of == d) & (run.score.visits > 0)
        assert len(columns) == 3
        assert len({*labels[mine].tolist()} - {*columns.tolist()}) == 1
        assert not run.score.hits[mine & ~np.isin(labels, columns)].any()
    assert np.isinf(run.score.nll).all()
    assert np.isfinite(mean(domain_accuracy(BENCH, total([run.score]))))


@pytest.mark.check("lab")
def test_processes_that_share_the_logits_find_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    from adawise_lab.evaluate import run as run_module

    monkeypatch.setattr(run_module, "_run", run_mapped)
    plan = replace(a_plan("warm", kinds=["stationary"], seeds=2), shows="few4", lists="exact+1", prior=True)
    here, there = run_here(BENCH, plan), run_module.run(BENCH, plan, None, processes=2, done=int)
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.score.hits, other.score.hits)
        assert one.path == other.path
        assert one.listed is not None
        assert other.listed is not None
        assert np.array_equal(one.listed.predicted.hits, other.listed.predicted.hits)


def test_a_bench_among_lists_keeps_its_images_and_predicts_among_their_classes() -> None:
    plan = replace(a_plan("fixed"), shows="few4", lists="exact")
    (lists,) = plan.shortlists(BENCH, plan.streams(BENCH, "short", "iid", 0), 0)
    among = BENCH.among({1: lists[1]})
    columns = lists[1].columns
    assert torch.equal(among.blocks[0], BENCH.blocks[0])
    assert torch.equal(among.blocks[1], BENCH.blocks[1][..., columns])
    first, second = np.split(among.quality.predicted, [300], axis=1)
    assert np.array_equal(first, BENCH.quality.predicted[:, :300])
    assert np.array_equal(second, columns[BENCH.blocks[1][..., columns].argmax(-1)].numpy())
    assert np.array_equal(among.quality.correct[:, 300:], second == BENCH.labels[300:])
    assert among.pixels is BENCH.pixels is None
    assert re.fullmatch("[0-9a-f]{12}", lists[1].digest)
