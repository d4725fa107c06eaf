"""The section on the class prior: there where one ran, with its numbers, and as people see it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from adawise_lab.evaluate import scene_page
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.page import Provenance, page, write_page
from adawise_lab.evaluate.result import RareRecall, Result, SceneFigures
from tests.lab.evaluate.building import a_bench, a_plan, run_here, shorten_streams
from tests.lab.evaluate.page.building import a_row, a_view, over
from tests.lab.evaluate.page.conftest import HOSTILE, TABLES
from tests.page.browsing import opened


@pytest.fixture(scope="module")
def scene_result() -> Result:
    bench = a_bench(*TABLES)
    plan = replace(a_plan("warm,grid", kinds=("short", "stationary"), orders=("iid", "runs")), shows="rare", prior=True)
    with pytest.MonkeyPatch.context() as patch:
        shorten_streams(patch)
        return assess(bench, plan, None, run_here(bench, plan), calibration="all 1")


def a_scene(difference: float, rare: RareRecall | None = None, smoothing: float | None = None) -> SceneFigures:
    return SceneFigures(
        0.65 + difference, over(difference), 0.04, 0.5, -0.015, "new_a", {}, rare, smoothing, nll=0.75, flicker=0.125
    )


@pytest.mark.parametrize(
    ("difference", "how"),
    [(0.08, "is better than"), (-0.05, "is worse than"), (0.004, "is not shown to differ from")],
)
def test_its_sentence_says_what_the_interval_shows(difference: float, how: str) -> None:
    view = a_view(scene=a_scene(difference), others=(a_row("grid", 0.64, scene=a_scene(0.9)),))
    (figure,) = scene_page.section([view], "few5").figures
    assert f"Beside warm, scene_label {how} the served label (" in figure.reading
    assert figure.reading.endswith("; the worst single domain is new_a, −1.5 points.")
    assert len(figure.spec["layer"]) == 3


def test_its_table_has_both_labels_and_the_recall_of_rare_classes_where_there_are_some() -> None:
    rare = RareRecall(0.61, 0.58, over(-0.03))
    view = a_view(scene=a_scene(0.08), flicker=0.25, others=(a_row("plain", 0.64),))
    (table,) = scene_page.section([view], "few5").tables
    (line,) = table.lines  # `plain` has no class prior
    assert [cell.text for cell in line.cells] == [
        *(".650", ".730", "+8.0", "−1.5", ".050", ".040"),
        *("1.000", ".750", ".250", ".125"),
        ".50",
    ]
    assert line.cells[2].mark == "better"
    section = scene_page.section([a_view(scene=a_scene(0.08, rare))], "rare")
    (line,) = section.tables[1].lines
    assert [cell.text for cell in line.cells] == [".610", ".580", "−3.0"]
    assert line.cells[-1].mark == "worse"
    assert [len(table.headers) for table in section.tables] == [len(table.lines[0].cells) for table in section.tables]
    assert "A second table has the recall of the classes of 4 %" in section.lead
    assert "neighbouring frames" not in section.lead


def test_how_far_frames_are_smoothed_is_a_column_where_they_are() -> None:
    section = scene_page.section([a_view(scene=a_scene(0.08, smoothing=0.25))], "few5")
    (table,) = section.tables
    assert table.headers[-1] == "mean smoothing"
    assert [cell.text for cell in table.lines[0].cells[-2:]] == [".50", ".25"]
    assert "neighbouring frames correct each other" in section.lead


@pytest.mark.check("browser")
def test_without_a_class_prior_nothing_of_it_is_on_the_page(result: Result, made: Provenance) -> None:
    for shows in ("all", "few5"):
        text = page(replace(result, shows=shows), made)
        assert not re.search("scene|hortlist", text.partition("<body")[2].partition("<script")[0])
        assert ("cameras show 5 classes, equally frequent" in text) == (shows == "few5")


@pytest.mark.check("browser")
def test_it_is_drawn_offline_beside_what_was_there(
    browser: Browser, scene_result: Result, made: Provenance, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    seen = opened(context, write_page(tmp_path, scene_result, made))
    section = seen.page.locator("section#scene")
    assert seen.complaints == []
    assert section.locator("h2").is_visible()
    assert seen.page.locator('nav a[href="#scene"]').is_visible()
    assert section.locator(".chart svg").count() == 4
    assert section.locator("table").count() == 8  # of accuracy, and of rare classes
    for table in section.locator("table").all():
        assert table.locator("tbody tr").count() == 2
    assert "four classes that are equally frequent, and two of 4 % each" in seen.page.locator("p.kind").inner_text()
    assert HOSTILE not in section.inner_html()
    context.close()
