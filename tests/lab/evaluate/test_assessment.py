"""The result: rows that add up, references on the same images, and JSON as it is promised."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from adawise.console import finite
from adawise.errors import SettingsError
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import PRICES, at_every_price
from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FINE_TUNED, MIDDLE, ZERO_SHOT
from adawise_lab.evaluate.result import PATH_SCHEMA, Result, Row, write_result
from adawise_lab.evaluate.show import show
from adawise_lab.evaluate.streams import Smooth
from tests.lab.evaluate.building import a_bench, a_plan, a_table, run_here

TABLES = (a_table("known_a", 0.7), a_table("known_b", 0.8), a_table("new_a", 0.1), a_table("style_a", 0.4, classes=7))
SMOOTH: Smooth = ((0, 1), (2,))
BENCH = a_bench(*TABLES)


def result_of(bench: Bench = BENCH, strategies: str = "warm,grid,fixed", kinds: tuple[str, ...] = ("short",)) -> Result:
    plan = a_plan(strategies, kinds=kinds, orders=["iid"], seeds=2, smooth=SMOOTH)
    return assess(bench, plan, None, run_here(bench, plan), calibration="all 1")


@pytest.fixture(scope="module")
def result() -> Result:
    return result_of(kinds=("short", "smooth"))


def row(result: Result, strategy: str, stream: str = "short") -> Row:
    (found,) = (r for r in result.rows if (r.strategy, r.stream) == (strategy, stream))
    return found


def test_a_row_is_the_mean_over_its_domains(result: Result) -> None:
    for each in result.rows:
        assert each.accuracy == pytest.approx(np.mean(list(each.domains.values())))
        assert each.accuracy_ci[0] <= each.accuracy <= each.accuracy_ci[1]
        assert 0.0 < each.accuracy < 1.0
    assert row(result, "grid").fe == 21.0
    assert 1.0 <= row(result, "warm").fe < 5.0
    assert (row(result, "warm").batches, row(result, "warm").images) == (2 * 4 * 12, 2 * 4 * 12 * 32)


def test_the_cost_of_a_row_counts_shared_layers_once_and_the_grid_is_reported_at_it(result: Result) -> None:
    assert all(each.forward_cost == each.fe for each in result.rows)
    shared = result_of(replace(BENCH, tail_share=0.25))
    assert shared.tail_share == 0.25
    for each in shared.rows:
        assert each.forward_cost == 1.0 + 0.25 * (each.fe - 1.0)
        assert all(group.forward_cost == 1.0 + 0.25 * (group.fe - 1.0) for group in each.groups.values())
    assert row(shared, "grid").forward_cost == row(shared, "grid_batch@tsallis").forward_cost == 1.0 + 0.25 * 20
    assert row(shared, "grid").fe == row(result, "grid").fe
    assert {path.forward_cost for path in shared.paths if path.strategy == "grid"} == {6.0}
    out = StringIO()
    for width in (80, 160):
        show(shared, Console(file=out, width=width))
    assert " ".join(out.getvalue().split()).count("an image at a second alpha costs 0.25 of a forward") == 2
    assert len(re.findall(r"\n +grid .* 21\.00 +6\.00 ", out.getvalue())) == 2


def test_differences_to_references_are_differences_of_rows_on_the_same_images(result: Result) -> None:
    warm = row(result, "warm")
    for name in (ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED, DOMAIN_ORACLE):
        versus, other = warm.versus[name], row(result, name)
        assert other.reference
        assert other.images == warm.images
        assert versus.difference == pytest.approx(warm.accuracy - other.accuracy)
        assert versus.ci[0] <= versus.difference <= versus.ci[1]
        assert other.versus.keys() == {r.strategy for r in result.rows if r.reference} - {name}


def test_best_fixed_is_no_worse_than_other_fixed_alphas_and_the_oracle_than_it(result: Result) -> None:
    for stream in ("short", "smooth"):
        accuracy = {name: row(result, name, stream).accuracy for name in (ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED)}
        assert max(accuracy.values()) == accuracy[BEST_FIXED]
    assert result.oracle >= result.best_fixed[1]
    assert result.oracle >= result.split_half_oracle
    # a batch of `short` has one domain, so that choosing anew for each batch can only be better
    assert row(result, "batch_oracle").accuracy >= row(result, DOMAIN_ORACLE).accuracy


def test_the_worst_domain_is_where_least_is_gained_over_the_better_endpoint(result: Result) -> None:
    warm, zero, fine = (row(result, name).domains for name in ("warm", ZERO_SHOT, FINE_TUNED))
    gaps = {name: warm[name] - max(zero[name], fine[name]) for name in warm}
    assert row(result, "warm").worst_domain_gap == pytest.approx(min(gaps.values()))
    assert row(result, "warm").worst_domain == min(gaps, key=lambda name: gaps[name])


def test_groups_are_told_apart_by_their_names(result: Result) -> None:
    grid = row(result, "grid")
    assert list(grid.groups) == ["known", "new", "style"]
    known = [grid.domains[name] for name in ("known_a", "known_b")]
    assert grid.groups["known"].accuracy == pytest.approx(np.mean(known))
    best = row(result, BEST_FIXED).domains
    gain = np.mean([grid.domains[name] - best[name] for name in ("known_a", "known_b")])
    assert grid.groups["known"].versus[BEST_FIXED] == pytest.approx(gain)
    named = Bench(TABLES, BENCH.temperatures, {"new": "shifted", "style": "shifted"})
    assert list(row(result_of(named, "fixed"), "fixed").groups) == ["known", "shifted"]


def test_domains_are_described_by_themselves(result: Result) -> None:
    facts = result.domains["new_a"]
    assert (facts.group, facts.images, facts.classes) == ("new", 96, 10)
    assert facts.accuracy == pytest.approx(BENCH.accuracy[2])
    assert facts.best_accuracy == max(facts.accuracy)
    alpha, accuracy = facts.choices["tsallis"]
    assert alpha == pytest.approx(0.1, abs=0.1)
    assert accuracy == facts.accuracy[result.alphas.index(alpha)]


def test_a_smooth_stream_says_how_far_behind_the_served_alpha_is(result: Result) -> None:
    grid = row(result, "grid", "smooth")
    assert grid.lag_batches is not None
    assert grid.lag_batches < 15
    assert grid.path_error is not None
    assert grid.path_error < 0.3
    assert row(result, "grid").lag_batches is None
    assert row(result, "fixed", "smooth").lag_batches is None
    assert {path.best_alpha is None for path in result.paths if path.stream == "smooth"} == {False}
    assert set(row(result, "grid", "smooth").domains) == {"known_a", "known_b", "new_a"}


def test_why_alternatives_were_tried_is_counted(result: Result) -> None:
    warm = row(result, "warm")
    assert sum(warm.triggers.values()) == warm.batches
    assert warm.triggers["start"] == 2
    assert row(result, "grid").triggers == {"every_batch": 96}


def test_pinning_is_the_share_of_batches_at_an_endpoint() -> None:
    pinned = result_of(strategies="fixed:alpha=1,fixed:alpha=0.5")
    assert row(pinned, "fixed:alpha=1").pinned == 1.0
    assert (row(pinned, "fixed:alpha=0.5").pinned, row(pinned, "fixed:alpha=0.5").alpha) == (0.0, 0.5)
    one, end = row(pinned, "fixed:alpha=1"), row(pinned, FINE_TUNED)
    assert (one.accuracy, one.ece, one.nll) == pytest.approx((end.accuracy, end.ece, end.nll))


def test_temperatures_that_fit_lower_the_calibration_error() -> None:
    raw = row(result_of(strategies="fixed"), "fixed")
    flat = row(result_of(a_bench(*TABLES, temperature=20.0), "fixed"), "fixed")
    assert flat.accuracy == raw.accuracy
    assert flat.ece > raw.ece + 0.1
    assert flat.nll > raw.nll


def test_prices_are_compared_with_the_one_that_is_set_on_the_same_images() -> None:
    plan = a_plan("warm,grid")
    plan = replace(plan, candidates=at_every_price(plan.candidates))
    result = assess(BENCH, plan, None, run_here(BENCH, plan), calibration="all 1")
    at, grid, *others = [r for r in result.rows if not r.reference]
    assert (at.price, at.over_set, at.is_other_price) == (plan.candidates[0].exploration.price, None, False)
    assert (grid.price, grid.is_other_price) == (None, False)
    assert [r.price for r in others] == list(PRICES)
    assert others[0].fe < at.fe < others[-1].fe
    for each in (grid, *others, row(result, BEST_FIXED)):
        assert each.over_set is not None
        assert each.over_set.difference == pytest.approx(each.accuracy - at.accuracy)
        assert each.over_set.ci[0] <= each.over_set.difference <= each.over_set.ci[1]
    out = StringIO()
    show(result, Console(file=out, width=80))
    strategies, prices = out.getvalue().split("by price")
    assert "warm:price" not in strategies
    assert "0.03 (set)" in prices
    assert all(f" {price:g} " in prices for price in PRICES)


@pytest.mark.check("lab")
def test_the_way_to_being_told_is_that_of_warm_where_conditions_come_back() -> None:
    table = [replace(t, pixels=np.full((len(t), 5), 3.0 * k, dtype=np.float32)) for k, t in enumerate(TABLES[:3])]
    result = result_of(a_bench(*table), "warm,grid,warm:pixels=false", ("short", "returning"))
    assert {(r.strategy, r.stream) for r in result.rows if r.way} == {("warm", "returning")}
    ways = row(result, "warm", "returning").way
    assert ways.keys() == {DOMAIN_ORACLE, "split_half_oracle"}
    assert {way.base for way in ways.values()} == {"warm:pixels=false"}
    share, ci = ways[DOMAIN_ORACLE].share, ways[DOMAIN_ORACLE].ci
    assert ways[DOMAIN_ORACLE].worth.ci[0] > 0.0
    assert share is not None
    assert ci is not None
    assert ci[0] <= share <= ci[1] <= 1.0
    out = StringIO()
    show(result, Console(file=out, width=160))
    assert (
        f"warm: {share:.0%} ({ci[0]:.0%} to {ci[1]:.0%}) of the way from warm:pixels=false to domain_oracle"
        in out.getvalue()
    )


def test_the_json_has_what_is_promised(result: Result) -> None:
    document = json.loads(json.dumps(finite(result.as_json()), allow_nan=False))
    promised = {"strategy", "stream", "order", "accuracy", "accuracy_ci", "fe", "ece", "worst_domain_gap"}
    assert all(promised <= each.keys() for each in document["rows"])
    assert document["best_fixed"].keys() == {"alpha", "accuracy"}
    assert isinstance(document["oracle"], float)
    assert document["domains"].keys() == {table.name for table in TABLES}
    assert all(len(each["accuracy_ci"]) == 2 for each in document["rows"])


def test_the_files_hold_the_result_and_every_batch(result: Result, tmp_path: Path) -> None:
    write_result(tmp_path / "new" / "folder", result)
    document: dict[str, Any] = json.loads((tmp_path / "new" / "folder" / "result.json").read_text())
    assert document["oracle"] == result.oracle
    paths = pq.read_table(tmp_path / "new" / "folder" / "paths.parquet")
    assert paths.schema.names == PATH_SCHEMA.names
    assert len(paths) == len(result.paths) == 3 * 2 * (48 + 200)
    frame = paths.to_pandas()
    grid = frame[(frame["strategy"] == "grid") & (frame["stream"] == "short") & (frame["seed"] == 1)]
    assert grid["batch"].tolist() == list(range(48))
    assert set(frame.loc[frame["strategy"] == "fixed", "alpha"]) == {0.5}


def test_a_folder_that_cannot_be_written_is_told(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"-o .*file/x: the result cannot be written"):
        write_result(tmp_path / "file" / "x", result)


@pytest.mark.parametrize("width", [80, 160])
def test_the_tables_fit_a_terminal_and_cut_no_number(result: Result, width: int) -> None:
    out = StringIO()
    show(result, Console(file=out, width=width))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for name in ("warm", "grid", ZERO_SHOT, DOMAIN_ORACLE, "known_a", "by tsallis"):
        assert name in text
    assert f"{row(result, 'grid').accuracy:.3f}".removeprefix("0") in text
