"""Each figure's sentence is computed from its numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from adawise_lab.evaluate import advice, by_domain, paths, scatter
from adawise_lab.evaluate.page import digest, provenance
from adawise_lab.evaluate.references import DOMAIN_ORACLE, SPLIT_HALF_ORACLE
from adawise_lab.evaluate.result import OracleShare, PathRow, Result
from adawise_lab.evaluate.scatter import beaten_by, front
from adawise_lab.evaluate.views import View, display_name, headline, views
from tests.lab.evaluate.building import a_table
from tests.lab.evaluate.page.building import a_row, a_view, over


def marks(spec: Any, kind: str) -> list[Any]:
    """The layers of a chart that are drawn with that mark."""
    return [layer for layer in spec["layer"] if layer["mark"]["type"] == kind]


def drawn(spec: Any, kind: str) -> list[Any]:
    """What the first layer with that mark draws; altair keeps data beside the layers."""
    return list(spec["datasets"][marks(spec, kind)[0]["data"]["name"]])


def test_strategies_are_named_as_the_field_names_them() -> None:
    assert [display_name(name) for name in ("zero_shot", "warm:every=16")] == ["zero-shot", "warm:every=16"]


def test_the_front_keeps_what_no_other_beats() -> None:
    cheap, mid, worse, dear = (
        a_row("cheap", 0.60, fe=1.0),
        a_row("mid", 0.64, fe=1.2),
        a_row("worse", 0.63, fe=2.0),
        a_row("dear", 0.65, fe=21.0),
    )
    rows = [dear, worse, mid, cheap]
    assert front(rows) == (cheap, mid, dear)
    assert beaten_by(worse, rows) is mid
    assert beaten_by(mid, rows) is None
    assert front([cheap, replace(cheap, strategy="twin")])[1].strategy == "twin"  # equals do not beat each other


@pytest.mark.parametrize(
    ("other", "reading"),
    [
        (
            a_row("grid", 0.66, fe=21.0),
            "warm serves .650 at 1.20 FE, on the front: none of 1 other strategy is as good",
        ),
        (
            a_row("calm", 0.66, fe=1.1),
            "warm serves .650 at 1.20 FE, off the front: calm serves +1.0 points at 1.10 FE.",
        ),
        (a_row("lean", 0.6501, fe=1.0), "warm serves .650 at 1.20 FE, off the front: lean serves as much at 1.00 FE."),
        (a_row("twin", 0.65002, fe=1.2), "warm serves .650 at 1.20 FE, level with twin on the front."),
    ],
)
def test_the_cost_figure_says_whether_the_served_is_on_the_front(other: Any, reading: str) -> None:
    (figure,) = scatter.cost_section([a_view(others=(other,))]).figures
    assert figure.reading.startswith(reading)


def test_the_cost_of_a_pair_with_shared_layers_is_told_and_drawn_in_whole_forwards() -> None:
    shared = replace(
        a_view(others=(a_row("calm", 0.66, fe=1.1, forward_cost=1.03),), forward_cost=1.05), tail_share=0.25
    )
    section = scatter.cost_section([shared])
    assert "an image at a second alpha costs 0.25 of a forward" in section.lead
    (figure,) = section.figures
    assert figure.reading == (
        "warm serves .650 at 1.20 FE (1.05 forwards), off the front: "
        "calm serves +1.0 points at 1.10 FE (1.03 forwards)."
    )
    assert {v["name"]: v["cost"] for v in drawn(figure.spec, "point")}["warm"] == 1.05
    advised = advice.advise([shared])
    assert advised.sentences[2].startswith("It costs 1.05 forwards an image (FE 1.20); ")
    assert advised.table.headers[:3] == ("accuracy", "FE", "forward cost")
    for table in (advised.table, *advice.section([shared]).tables):
        assert [cell.text for cell in table.lines[0].cells[1:3]] == ["1.20", "1.05"]
        assert len(table.lines[0].cells) == len(table.headers)


def test_a_strategy_far_below_is_drawn_at_the_floor_and_says_so() -> None:
    (figure,) = scatter.cost_section([a_view()]).figures  # fine-tuned .500, zero-shot .600 is the better endpoint
    (shown,) = [v for v in drawn(figure.spec, "point") if v["name"] == "fine-tuned"]
    assert shown["below"]
    assert shown["at"] > shown["accuracy"] == 0.50
    labels = {v["name"] for data in figure.spec["datasets"].values() for v in data if "side" in v}
    assert labels == {"fine-tuned .500 ↓", "warm", "best fixed", "zero-shot", "alpha .5"}


def test_labels_of_near_points_are_moved_apart() -> None:
    (figure,) = scatter.cost_section([a_view()]).figures
    left = sorted(v["at"] for v in drawn(figure.spec, "text"))  # fixed alphas: .600, .620, .630
    assert len(left) == 3
    bottom, top = marks(figure.spec, "point")[0]["encoding"]["y"]["scale"]["domain"]
    gaps = [(b - a) / (top - bottom) for a, b in pairwise(left)]
    assert min(gaps) >= 0.047


def test_a_crowd_on_the_front_leaves_the_served_its_name() -> None:
    crowd = tuple(a_row(f"near {k}", 0.65 + k * 1e-5, fe=1.2 + k * 1e-3) for k in range(30))
    (figure,) = scatter.cost_section([a_view(others=crowd)]).figures
    right = {v["name"]: v["at"] for data in figure.spec["datasets"].values() for v in data if v.get("side") == "right"}
    assert right["warm"] == pytest.approx(0.65)  # at its own place
    assert 2 < len(right) < 8
    assert max(abs(at - 0.65) for name, at in right.items() if "near" in name) < 0.03


def priced(*prices: tuple[float, float, float, float]) -> View:
    """The price that is set is .03, at .650 and 1.20 FE; others are (price, points over it, half, FE)."""
    others = [a_row(f"warm:price={p:g}", 0.65 + d, price=p, over_set=over(d, half), fe=fe) for p, d, half, fe in prices]
    view = a_view(others=(*others, a_row("grid", 0.66, fe=21.0, over_set=over(0.01))), price=0.03)
    rows = [r if r.over_set or not r.reference else replace(r, over_set=over(r.accuracy - 0.65)) for r in view.rows]
    return replace(view, rows=tuple(rows))


def test_the_curve_says_which_price_serves_more_and_which_no_less() -> None:
    view = priced(
        (0.002, 0.02, 0.01, 1.6), (0.2, -0.03, 0.01, 1.05), (0.1, -0.005, 0.01, 1.1), (0.01, 0.015, 0.01, 1.3)
    )
    section = scatter.price_section([view])
    assert section.figures[0].reading.replace("\u00a0", " ") == (
        "The price that is set, 0.03, serves .650 at 1.20 FE; 0.01 serves +1.5 points (95 % +0.5 to +2.5) at 1.30; "
        "0.1 is not shown to serve less, at 1.10."
    )
    (table,) = section.tables
    assert [(line.name, line.kind) for line in table.lines] == [
        *(("0.2", "strategy"), ("0.1", "strategy"), ("0.03", "served"), ("0.01", "strategy"), ("0.002", "strategy")),
    ]
    assert [line.cells[1].mark for line in table.lines] == ["worse", "same", "", "better", "better"]
    alone = scatter.price_section([priced((0.2, -0.03, 0.01, 1.05), (0.002, 0.0, 0.01, 1.6))]).figures[0].reading
    assert alone.endswith("no lower price is shown to serve more; every higher price is shown to serve less.")


def test_the_curve_is_drawn_by_price_with_all_that_stands_beside_it() -> None:
    view = priced((0.2, -0.03, 0.01, 1.05), (0.1, -0.02, 0.01, 1.04))
    (figure,) = scatter.price_section([view]).figures
    line = sorted(
        drawn(figure.spec, "line"), key=lambda v: v[marks(figure.spec, "line")[0]["encoding"]["order"]["field"]]
    )
    assert [v["name"] for v in line] == [".2", ".1", "price .03"]  # though .1 spends less
    shown = {v["name"]: v for v in drawn(figure.spec, "point")}
    assert shown.keys() == {
        *(".2", ".1", "price .03", "grid", "best fixed", "alpha .5", "zero-shot .600 ↓", "fine-tuned .500 ↓")
    }
    assert (shown[".2"]["low"], shown[".2"]["high"]) == pytest.approx((0.61, 0.63))
    fixed = [v for v in shown.values() if v["kind"] == "fixed alpha"]
    assert [v["beyond"] for v in fixed] == pytest.approx([0.6 * 0.04] * 4)
    assert [v["at"] > v["accuracy"] for v in fixed] == [v["name"].endswith("↓") for v in fixed]
    assert "warm:price=0.2" not in [line.name for line in advice.section([view]).tables[0].lines]


def test_the_way_to_being_told_is_a_column_where_it_is_known() -> None:
    assert "way to split-half oracle" not in advice.section([a_view()]).tables[0].headers
    ways = {
        SPLIT_HALF_ORACLE: OracleShare("warm:pixels=false", over(0.03), 0.85, (0.6, 1.1)),
        DOMAIN_ORACLE: OracleShare("warm:pixels=false", over(0.0), None, None),
    }
    (table,) = advice.section([a_view(way=ways)]).tables
    assert table.headers[-2:] == ("way to split-half oracle", "way to domain oracle")
    assert [(cell.text, cell.note) for cell in table.lines[0].cells[-2:]] == [("85%", "60% to 110%"), ("–", "")]
    assert [cell.text for cell in table.lines[1].cells[-2:]] == ["", ""]


def test_the_table_of_strategies_has_all_rows_and_marks_the_served() -> None:
    (table,) = advice.section([a_view(others=(a_row("grid", 0.66),))]).tables
    assert [line.name for line in table.lines][:3] == ["warm", "grid", "zero-shot"]
    assert [line.kind for line in table.lines][:3] == ["served", "strategy", "reference"]
    assert all(len(line.cells) == len(table.headers) for line in table.lines)
    assert "lag, batches" not in table.headers


def test_domains_gained_and_lost_are_named_with_their_points(result: Result) -> None:
    view = a_view(domains={"known_a": 0.61, "new_a": 0.70})
    facts = {name: replace(next(iter(result.domains.values())), group=name[:3]) for name in ("known_a", "new_a")}
    shown = by_domain.section([view], replace(result, domains=facts))
    accuracies, gains = shown.figures
    assert accuracies.reading == (
        "warm comes within one point of the split-half oracle on 1 of 2 domains; the farthest is known_a, −6.0 points."
    )
    assert gains.reading == (
        "warm is above the best fixed alpha on 1 of 2 domains, most on new_a (+7.0), farthest below on known_a (−2.0)."
    )
    assert [table.folded for table in shown.tables] == [True]  # one group only: no table of groups


def test_groups_are_compared_for_every_strategy(result: Result) -> None:
    shown = by_domain.section(views(result)[:1], result)
    table = shown.tables[0]
    assert table.headers == tuple(dict.fromkeys(facts.group for facts in result.domains.values()))
    assert [line.name for line in table.lines][:3] == ["warm", "grid", "fixed"]


def a_path(alphas: list[float], domain: str = "known_a", best: float | None = None, cost: float = 1.0) -> list[PathRow]:
    return [
        PathRow("warm", "long", "iid", 0, 0, t, domain, alpha, cost, cost, "none", None, best)
        for t, alpha in enumerate(alphas)
    ]


def test_the_path_says_how_near_the_best_alpha_it_was(result: Result) -> None:
    facts = replace(result.domains["known_a"], best_alpha=0.7)
    path = [*a_path([0.7, 0.65, 0.2]), replace(a_path([0.8])[0], batch=3, forward_equivalents=1.5)]
    given = replace(result, domains={"known_a": facts}, paths=tuple(path))
    (figure,) = paths.section([a_view()], given).figures
    assert figure.reading == (
        "warm was within .10 of the domain's best alpha in 75% of the batches and probed other alphas in 1 of 4 "
        "batches."
    )
    assert len(drawn(figure.spec, "tick")) == 1


@pytest.mark.parametrize(
    ("lag", "reading"),
    [
        (1.0, "warm follows the best alpha 1 batch behind, .15 of alpha from it on average."),
        (None, "warm does not follow the best alpha of this slow change."),
    ],
)
def test_a_smooth_stream_says_its_lag(result: Result, lag: float | None, reading: str) -> None:
    view = a_view(stream="smooth", lag_batches=lag, path_error=0.15)
    moved = [replace(p, stream="smooth") for p in a_path([0.5, 0.6], domain="", best=0.4)]
    (figure,) = paths.section([view], replace(result, paths=tuple(moved))).figures
    assert figure.reading == reading
    assert {v["line"] for v in drawn(figure.spec, "line")} == {"served alpha", "best alpha", "mean of all seeds"}


def test_visits_are_shaded_in_turn_and_named(result: Result) -> None:
    there = [*a_path([0.5, 0.5]), *(replace(p, batch=2 + p.batch) for p in a_path([0.1], domain="new_a"))]
    (figure,) = paths.section([a_view()], replace(result, paths=tuple(there))).figures
    assert [(b["batch"], b["end"], b["shade"]) for b in drawn(figure.spec, "rect")] == [(0, 2, "none"), (2, 3, "band")]
    assert [b["domain"] for b in drawn(figure.spec, "text")] == ["known_a", "new_a"]


@pytest.mark.parametrize(
    ("ece", "compared"), [(0.04, "no worse than"), (0.055, "within .010 of"), (0.08, ".030 worse than")]
)
def test_calibration_is_compared_with_the_better_calibrated_endpoint(ece: float, compared: str) -> None:
    (figure,) = scatter.calibration_section([a_view(ece=ece)], "all 1").figures
    assert f", {compared} that of the better calibrated endpoint, zero-shot (.050)" in figure.reading


def test_the_strategy_served_is_the_default_or_a_variant_or_the_first(result: Result) -> None:
    def served(*names: str) -> str:
        rows = [row for row in result.rows if row.reference or row.strategy == "warm"]
        renamed = [replace(row, strategy=name) for row in rows if not row.reference for name in names]
        return views(replace(result, rows=(*renamed, *(row for row in rows if row.reference))))[0].served_name

    assert served("grid", "warm") == "warm"
    assert served("grid", "warm:every=16@atc", "warm@atc") == "warm@atc"
    assert served("grid", "warm:every=16") == "warm:every=16"
    assert served("grid", "fixed") == "grid"
    assert served("warm", "auto") == "auto"


def test_the_headline_view_is_long_iid_where_it_ran() -> None:
    short, long = a_view(stream="short"), a_view(stream="long")
    assert headline([short, long]) is long
    assert headline([short]) is short
    assert (long.name, long.anchor) == ("long/iid", "long-iid")


def test_a_table_is_known_by_its_content() -> None:
    table = a_table("known_a", 0.7)
    assert digest(replace(table, name="other")) == digest(table)
    assert len(digest(table)) == 64
    other = table.logits.copy()
    other[0, 0, 0] += 1.0
    assert digest(replace(table, logits=other)) != digest(table)
    assert digest(replace(table, labels=table.labels[::-1])) != digest(table)
    made = provenance(["evaluate", "--logits", "a b"], [table], created_at="today")
    assert made.command == "adawise evaluate --logits 'a b'"
    assert made.digests == {"known_a": digest(table)}
    assert {"python", "adawise", "torch", "altair"} <= set(made.versions)
