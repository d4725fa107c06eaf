"""`adawise evaluate` from the command line: tables in, one JSON object or tables for people out, mistakes told."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from adawise.__main__ import main
from adawise.card.card import PairVerdict, make_card
from tests.lab.evaluate.building import GRID, a_table, write_tables

Captured = pytest.CaptureFixture[str]
QUICK = ("--seeds", "1", "--processes", "1", "--streams", "short", "--orders", "iid")


@pytest.fixture(autouse=True)
def _alone(logs_of_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("ADAWISE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with capture_logs():  # what is not configured would go to the output proper
        yield
    logging.captureWarnings(capture=False)


@pytest.fixture
def tables(tmp_path: Path) -> str:
    known, new = a_table("known_a", 0.7), a_table("new_a", 0.1)
    folder = write_tables(tmp_path / "tables", known, new, a_table("style_a", 0.4, classes=7), a_table("val_a", 0.6))
    return str(folder)


def output_of(captured: Captured, *arguments: str) -> dict[str, Any]:
    """The one JSON object on the output proper."""
    assert main(["evaluate", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(captured.readouterr().out)
    return result


def refused(captured: Captured, *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 2
    out, err = captured.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_json_is_one_object_with_every_strategy_on_every_stream(tables: str, capsys: Captured) -> None:
    result = output_of(capsys, "--logits", tables, *QUICK, "--smooth", "known_a:new_a", "--strategies", "warm,grid")
    assert {row["stream"] for row in result["rows"]} == {"short", "smooth"}
    assert [r["strategy"] for r in result["rows"] if not r["reference"]] == ["warm", "grid"] * 2
    assert result["domains"].keys() == {"known_a", "new_a", "style_a"}  # val tables are for choices
    assert result["calibration"].startswith("all 1")
    grid = next(row for row in result["rows"] if row["strategy"] == "grid")
    assert grid["fe"] == 21.0
    assert grid["versus"]["best_fixed"]["difference"] > 0.05  # the best alphas are .1, .4 and .7


def test_a_table_calibrates_what_is_served_and_the_objectives_that_need_a_card(tables: str, capsys: Captured) -> None:
    flags = ("--logits", tables, *QUICK, "--strategies", "fixed,grid@atc,grid@relative")
    calibrated = output_of(capsys, *flags, "--calibrate", "val_a")
    plain = output_of(capsys, "--logits", tables, *QUICK, "--strategies", "fixed")
    assert calibrated["calibration"] == "fitted on val_a"
    assert [r["strategy"] for r in calibrated["rows"][:3]] == ["fixed", "grid@atc", "grid@relative"]
    assert calibrated["rows"][0]["accuracy"] == plain["rows"][0]["accuracy"]
    assert calibrated["rows"][0]["nll"] < plain["rows"][0]["nll"]


def test_a_card_calibrates_too(tables: str, tmp_path: Path, capsys: Captured) -> None:
    table = a_table("val_a", 0.6)
    logits = torch.from_numpy(table.logits)
    card = make_card(
        lambda j: logits[j], torch.from_numpy(table.labels), alphas=GRID, identity={}, created_at="2026-01-01"
    )
    (tmp_path / "card.json").write_text(card.to_json())
    flags = ("--logits", tables, *QUICK, "--strategies", "fixed")
    by_card = output_of(capsys, *flags, "--model.card", "card.json")
    by_table = output_of(capsys, *flags, "--calibrate", "val_a")
    assert by_card["calibration"] == "of card.json"
    assert by_card["rows"] == by_table["rows"]


def test_auto_is_judged_on_the_table_that_calibrates_and_told(tables: str, tmp_path: Path, capsys: Captured) -> None:
    sure = a_table("val_sure", 0.6)
    write_tables(tmp_path / "tables", dataclasses.replace(sure, logits=3 * sure.logits))
    flags = ("--logits", tables, *QUICK, "--strategies", "warm,warm@atc")
    for table, name in (("val_a", "warm"), ("val_sure", "warm@relative")):
        result = output_of(capsys, *flags, "--calibrate", table)
        assert [row["strategy"] for row in result["rows"][:2]] == [name, "warm@atc"]


def test_a_fixed_alpha_that_the_card_advises_is_judged_as_auto_and_every_row_says_its_alpha(
    tables: str, capsys: Captured
) -> None:
    table = a_table("val_a", 0.6)
    card = make_card(
        lambda j: torch.from_numpy(table.logits[j]),
        torch.from_numpy(table.labels),
        alphas=GRID,
        identity={},
        created_at="2026-01-01",
    )
    verdict = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.7, 0.6, (-0.1, -0.2, -0.05), ())
    flags = ("--logits", tables, *QUICK, "--domains", "new_a", "--model.card", "card.json")
    for changed, first in ((verdict, ["auto", "warm"]), (dataclasses.replace(verdict, gain=(0.1, 0.0, 0.2)), ["warm"])):
        Path("card.json").write_text(dataclasses.replace(card, verdict=changed).to_json())
        rows = output_of(capsys, *flags)["rows"]
        assert [row["strategy"].partition("@")[0] for row in rows[: len(first)]] == first
        assert {row["strategy"] for row in rows if row["strategy"].startswith("auto")} == {*first} - {"warm"}
        if len(first) > 1:
            assert rows[0]["alpha"] == pytest.approx(0.45)
    Path("card.json").write_text(dataclasses.replace(card, verdict=verdict).to_json())
    with capture_logs() as log:
        assert main(["evaluate", *flags, "--strategies", "auto,fixed"]) == 0
    (reported_of,) = [event for event in log if event["event"] == "strategy_chosen"]
    assert reported_of["method"] == "a fixed alpha of 0.45, as the card advises"
    out, alphas = capsys.readouterr().out, {"auto": r"\.45", "fixed": r"\.50", "best_fixed": r"\.\d\d"}
    for name in ("auto", "fixed", "best_fixed"):
        assert re.search(rf"\n +{name}(?:@\w+)? {alphas[name]} ", out), name


def test_tables_cost_what_the_card_says_and_whole_forwards_without_one(tables: str, capsys: Captured) -> None:
    table = a_table("val_a", 0.6)
    logits, labels = torch.from_numpy(table.logits), torch.from_numpy(table.labels)
    card = make_card(logits.__getitem__, labels, alphas=GRID, identity={}, created_at="")
    flags = ("--logits", tables, *QUICK, "--domains", "new_a", "--strategies", "warm@tsallis,grid@tsallis")
    given = ("--model.card", "card.json")
    found = [output_of(capsys, *flags)]
    for share, more in ((1.0, given), (0.25, given), (0.25, (*given, "--calibrate", "val_a"))):
        Path("card.json").write_text(dataclasses.replace(card, tail_share=share).to_json())
        found.append(output_of(capsys, *flags, *more))
    assert [each["tail_share"] for each in found] == [1.0, 1.0, 0.25, 0.25]
    for each in found:
        share = each["tail_share"]
        assert all(row["forward_cost"] == 1.0 + share * (row["fe"] - 1.0) for row in each["rows"])
        assert each["rows"][1]["fe"] == 21.0
    _, whole, cut, fitted = (each["rows"][0]["fe"] for each in found)
    assert cut == fitted > whole, "probes cost less and are made more often"


def test_groups_streams_and_orders_are_chosen(tables: str, capsys: Captured) -> None:
    result = output_of(
        capsys,
        *("--logits", tables, "--seeds", "1", "--processes", "1", "--strategies", "fixed"),
        *("--streams", "jumps,mixed", "--orders", "runs", "--groups", "known=known,shifted=new+style"),
        *("--domains", "known_a,new_a,style_a"),
    )
    assert {(row["stream"], row["order"]) for row in result["rows"]} == {("jumps", "runs"), ("mixed", "runs")}
    assert list(result["rows"][0]["groups"]) == ["known", "shifted"]


def test_the_search_settings_are_those_of_every_strategy(tables: str, capsys: Captured) -> None:
    flags = ("--logits", tables, *QUICK, "--domains", "new_a", "--strategies", "fixed,fixed:alpha=0")
    result = output_of(capsys, *flags, "--search.alpha", "1")
    assert [row["alpha"] for row in result["rows"][:2]] == [1.0, 0.0]


def test_what_cameras_show_and_a_class_prior_are_in_the_result_where_they_are_set(
    tables: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `fixed` is unsure of these tables, and six of ten classes are not few.
    monkeypatch.setattr("adawise.adapt.prior._SURE", (0.0, 1e-6))
    monkeypatch.setattr("adawise.adapt.prior._SPREAD", (4.0, 2.0))
    flags = ("--logits", tables, *QUICK, "--strategies", "fixed,grid")
    plain, shown = output_of(capsys, *flags), output_of(capsys, *flags, "--shows", "rare")
    assert shown.keys() - plain.keys() == {"shows"}
    assert not any("scene" in row for row in (*plain["rows"], *shown["rows"]))
    (tmp_path / "adawise.toml").write_text('[scene]\nprior = "beside"\n')
    for shows in ("few1", "rare"):
        with capture_logs() as log:
            result = output_of(capsys, *flags, "--shows", shows, "-o", "kept")
        assert [event["event"] for event in log].count("prior_uncalibrated") == 1
        assert result["shows"] == shows
        assert json.loads((tmp_path / "kept" / "result.json").read_text()) == result
        for row in result["rows"]:
            assert ("scene" in row) == (not row["reference"])
        for row in result["rows"][:2]:
            scene = row["scene"]
            assert scene["accuracy"] - row["accuracy"] == pytest.approx(scene["over_served"]["difference"])
            low, high = scene["over_served"]["ci"]
            assert low <= scene["over_served"]["difference"] <= high
            assert 0.0 < scene["gate"] <= 1.0
            assert scene["ece"] != row["ece"]
            assert scene["nll"] != row["nll"]
            assert (scene["flicker"] is None) == (row["flicker"] is None)
            assert min(scene["domains"][d] - row["domains"][d] for d in row["domains"]) == scene["worst_domain_gap"]
            assert (scene["rare"] is None) == (shows == "few1")
        without = [{name: value for name, value in row.items() if name != "scene"} for row in result["rows"]]
        if shows == "rare":
            assert without == shown["rows"], "what is served is what it was"
            rare = result["rows"][0]["scene"]["rare"]
            assert rare["scene"] - rare["served"] == pytest.approx(rare["over_served"]["difference"])
            assert rare["served"] != result["rows"][0]["accuracy"]
        else:
            assert result["rows"][0]["scene"]["over_served"]["ci"][0] > 0.05, "one class is learned"
    with capture_logs() as log:
        calibrated = output_of(capsys, *flags, "--shows", "few1", "--calibrate", "val_a")
    assert "scene" in calibrated["rows"][0]
    assert "prior_uncalibrated" not in [event["event"] for event in log]


def width_of(out: str, title: str) -> int:
    """The widest line of the tables with this word in their title."""
    lines = out.splitlines()
    starts = [n for n, line in enumerate(lines) if title in line]
    return max(len(line.rstrip()) for n in starts for line in lines[n : n + 6])


def test_people_see_what_cameras_show_and_what_the_class_prior_brings(tables: str, capsys: Captured) -> None:
    flags = ("--logits", tables, *QUICK, "--strategies", "grid", "--scene.prior", "beside")
    for shows, has_rare in (("rare", True), ("zipf", False)):
        assert main(["evaluate", *flags, "--shows", shows]) == 0
        out = capsys.readouterr().out
        assert f"short streams, iid order, shows {shows}, seeds: 1" in out
        (row,) = re.findall(r"scene_label, corrected by the class prior.*?\n +(grid [^\n]*)", out, re.DOTALL)
        assert len(re.findall(r"[+-]?\d*\.\d+", row)) == 8  # an interval has two numbers
        rare = re.findall(r"scene_label: recall of rare classes.*?\n +(grid [^\n]*)", out, re.DOTALL)
        assert [len(re.findall(r"[+-]?\d*\.\d+", row)) for row in rare] == ([4] if has_rare else [])
        certain = re.findall(r"scene_label: NLL and flicker.*?\n +(grid [^\n]*)", out, re.DOTALL)
        assert [len(re.findall(r"\d*\.\d+", row)) for row in certain] == [4]
        assert width_of(out, "scene_label") <= 80
    assert main(["evaluate", *flags[:-2]]) == 0
    out = capsys.readouterr().out
    assert "short streams, iid order, seeds: 1" in out
    assert "scene" not in out


def test_shortlists_are_compared_and_named_wherever_a_result_is_shown(
    tables: str, tmp_path: Path, capsys: Captured
) -> None:
    flags = ("--logits", tables, *QUICK, "--strategies", "fixed,grid", "--shows", "few3", "--shortlists", "exact+1")
    result = output_of(capsys, *flags, "-o", "kept")
    assert result["shortlists"] == "exact+1"
    assert json.loads((tmp_path / "kept" / "result.json").read_text()) == result
    assert "search and prediction (--shortlists exact+1)" in (tmp_path / "kept" / "page.html").read_text()
    fixed = result["rows"][0]
    assert fixed["listed"]["names"] == 4.0
    assert fixed["listed"]["over_without"]["ci"][0] > 0.0
    assert fixed["accuracy"] == fixed["listed"]["predicted"] > fixed["listed"]["without"]
    assert 0.0 <= fixed["flicker"] <= 1.0
    assert main(["evaluate", *flags]) == 0
    out = capsys.readouterr().out
    assert "short streams, iid order, shows few3, shortlists exact+1, seeds: 1" in out
    title = "shortlists of the classes that a camera shows and 1 other"
    (row,) = re.findall(rf"{title} *\n.*?\n +(grid [^\n]*)", out, re.DOTALL)
    assert len(re.findall(r"[+-]?\d*\.\d+", row)) == 10
    assert width_of(out, "shortlists of") <= 80


def test_shortlists_need_an_objective_that_holds_among_them(tables: str, capsys: Captured) -> None:
    flags = ("--logits", tables, *QUICK, "--shortlists", "exact", "--calibrate", "val_a")
    error = refused(capsys, *flags, "--strategies", "warm,warm@relative")
    assert "--strategies warm@relative: search.objective relative compares images with the card's figures" in error
    assert output_of(capsys, *flags, "--strategies", "fixed@relative")["rows"][0]["listed"]["names"] > 2
    assert "expected none, exact, or exact with a number" in refused(capsys, *flags, "--shortlists", "some")
    file = Path("adawise.toml")
    file.write_text('[[scene.shortlists]]\nstreams = "gate"\nclasses = ["a", "b"]\n')
    output_of(capsys, *flags[:-4], "--strategies", "fixed")  # of no camera here
    given = '--scene.shortlists=[{"streams": "gate", "classes": ["a", "b"]}]'
    assert "it has no effect with these options" in refused(capsys, *flags[:-4], given)


def test_frames_are_smoothed_where_the_setting_says_so(
    tables: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_SURE", (0.0, 1e-6)), ("_ALIKE", (5.0, 4.0)), ("_ODDS", 1e-12)):
        monkeypatch.setattr(f"adawise.adapt.smoothing.{name}", value)
    flags = ("--logits", tables, *QUICK, "--strategies", "fixed", "--shows", "few3", "--scene.prior", "beside")
    (prior, both) = (
        output_of(capsys, *flags, *more)["rows"][0]["scene"] for more in ((), ("--scene.smoothing", "beside"))
    )
    assert prior["smoothing"] is None
    assert both["smoothing"] > 0.9
    assert both["accuracy"] != prior["accuracy"]
    assert both["gate"] == prior["gate"]
    assert main(["evaluate", *flags, "--scene.smoothing", "beside"]) == 0
    out = capsys.readouterr().out
    assert "corrected by the class prior and neighbouring frames" in out.replace("\n", " ")
    assert width_of(out, "scene_label") <= 80


def test_a_curve_is_run_and_told_and_drawn(tables: str, tmp_path: Path, capsys: Captured) -> None:
    flags = ("--logits", tables, *QUICK, "--strategies", "auto,grid", "--search.price", "0.04", "--curve")
    result = output_of(capsys, *flags, "-o", "kept")
    priced = {row["price"]: row for row in result["rows"] if row["price"] is not None}
    assert sorted(priced) == [0.002, 0.005, 0.01, 0.02, 0.04, 0.05, 0.1, 0.2]
    assert priced[0.04]["strategy"] == "auto"
    assert [price for price, row in priced.items() if row["over_set"] is None] == [0.04]
    assert 'id="price"' in (tmp_path / "kept" / "page.html").read_text()
    plain = output_of(capsys, "--logits", tables, *QUICK, "--strategies", "auto", "--search.price", "0.04")
    assert plain["rows"][0]["accuracy"] == priced[0.04]["accuracy"]
    assert {row["price"] for row in plain["rows"]} == {None}


def test_tables_without_pixels_are_named_where_conditions_come_back(tables: str, capsys: Captured) -> None:
    flags = ("--logits", tables, "--seeds", "1", "--processes", "1", "--orders", "iid", "--strategies", "fixed")
    for kind, names in (("returning", [["known_a", "new_a", "style_a"]]), ("short", [])):
        with capture_logs() as log:
            output_of(capsys, *flags, "--streams", kind)
        assert [sorted(e["tables"]) for e in log if e["event"] == "pixels_missed"] == [sorted(each) for each in names]


def test_people_get_tables_and_a_folder_keeps_the_result(tables: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["evaluate", "--logits", tables, *QUICK, "--strategies", "warm", "-o", "kept"]) == 0
    out, err = capsys.readouterr()
    for text in ("accuracy by alpha", "short streams, iid order", "warm", "best_fixed", "by group of domains"):
        assert text in out
    assert "evaluated 1 of 1 runs" in err
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["page.html", "paths.parquet", "result.json"]
    assert np.isfinite(json.loads((tmp_path / "kept" / "result.json").read_text())["oracle"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--logits"),
        (("--logits", "gone"), "gone: there is no such folder"),
        (("--logits", "tables", "--domains", "known_b"), "no table of 'known_b'; there are known_a, new_a"),
        (("--logits", "tables", "--calibrate", "val_b"), "no table of 'val_b'"),
        (("--logits", "tables", "--strategies", "worm"), "there is no strategy 'worm'"),
        (("--logits", "tables", "--strategies", "warm@atc"), "objective atc needs a card"),
        (("--logits", "tables", "--streams", "short,tall"), "there is no kind of stream 'tall'"),
        (("--logits", "tables", "--orders", "sorted"), "there is no order 'sorted'; expected iid, runs"),
        (("--logits", "tables", "--shows", "few"), "a camera cannot show 'few'; expected all, zipf, changing, rare"),
        (("--logits", "tables", "--scene.prior", "always"), "scene.prior"),
        (("--logits", "tables", "--streams", "smooth"), "smooth streams need two groups of domains"),
        (("--logits", "tables", "--smooth", "known_a"), "expected two groups of domains"),
        (("--logits", "tables", "--smooth", "known_a:new_b"), "there is no 'new_b' among known_a"),
        (("--logits", "tables", "--smooth", "known_a:style_a"), "the domains have different classes"),
        (("--logits", "tables", "--groups", "known"), "expected NAME=KIND+KIND"),
        (("--logits", "tables", "--groups", "a=known,b=known"), "'known' is there twice"),
        (("--logits", "tables", "--groups", "a=old"), "'old' is not among known, new, style"),
        (("--logits", "tables", "--seeds", "0"), "--seeds"),
        (("--logits", "tables", "--strategies", "grid", "--curve"), "--curve: expected warm, whose price it varies"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    tables: str, flags: tuple[str, ...], message: str, capsys: Captured
) -> None:
    assert tables
    text = refused(capsys, *flags)
    assert message in text
    assert "evaluated" not in text


def test_a_card_of_another_grid_is_refused(tables: str, tmp_path: Path, capsys: Captured) -> None:
    write_tables(tmp_path / "coarse", a_table("known_a", alphas=(0.0, 0.5, 1.0)), a_table("val_a"))
    text = refused(capsys, "--logits", "coarse", "--calibrate", "val_a")
    assert "the card (fitted on val_a) is for the alphas [0.0, 0.05" in text
