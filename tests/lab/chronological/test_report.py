"""The result for people: sentences, tables in the terminal, and the page, in a browser too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from adawise.console import paper
from adawise_lab.chronological.page import page
from adawise_lab.chronological.report import sentences, show
from adawise_lab.chronological.result import ChronologicalResult, Setting, Training, result_of
from adawise_lab.chronological.served import NAMES, ServedCell, ServedWay
from tests.lab.chronological.test_result import ALPHAS, cell
from tests.page.browsing import a_browser, opened

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
COMMAND = ["evaluate", "--protocol", "chronological", "--images", "<b>site</b> & more"]


def with_scene(one: ServedCell) -> ServedCell:
    """The same cell, where the scene makes every label right."""
    scenes = {
        ServedWay(name, scene=True): replace(
            one.answers[ServedWay(name)], correct=np.ones(len(one.labels), dtype=np.bool_)
        )
        for name in NAMES
    }
    return replace(one, answers={**one.answers, **scenes})


@pytest.fixture(scope="module")
def result() -> ChronologicalResult:
    setting = Setting(
        ("gate", HOSTILE, "never tested"),
        (0, 3_600_000_000, 7_200_000_000, 10_800_000_000),
        (8, 4, 8),
        ALPHAS,
        "camera",
        keeps=False,
        scene="prior",
        trainings=(
            Training(0, "gate", "gate-001@aa", 8, pair=True),
            Training(1, HOSTILE, "x-002@bb", 0, pair=False, why="fewer than two classes with two images each"),
        ),
        without_time=3,
    )
    cells = [
        cell(0, 1, zero="++--", half="+++-", tuned="+---"),
        cell(0, 2, zero="+++-", half="+++-", tuned="++--"),
        cell(1, 2, zero="+---", half="+---", tuned="+---", has_pair=False),
    ]
    return result_of([with_scene(one) for one in cells], setting)


def test_sentences_say_what_was_gained_lost_and_left_out(result: ChronologicalResult) -> None:
    text = " ".join(sentences(result))
    assert "Fine-tuned against zero-shot: −12.5 (−25.0 to +0.0) points." in text
    assert "Below zero-shot, of 2 cameras: fine-tuned at 50%, alpha .5 at 0%" in text
    assert "The scene (prior), scene_label against the label: zero-shot +56.2" in text
    assert "2 trainings, each on the images of one camera up to an interval." in text
    assert "1 (fewer than two classes with two images each): theta_0 alone served 4 of 12 tested images" in text
    assert "3 images were left out, because nothing says when." in text


def test_a_pace_and_shortlists_that_are_not_the_default_are_named(result: ChronologicalResult) -> None:
    assert "Batches as live" not in " ".join(sentences(result))
    assert "Shortlists" not in " ".join(sentences(result))
    assert "as a worker serves a backlog" in page(result, COMMAND, created_at="")
    setting = replace(result.setting, pace="live", shortlists={"gate": 4, HOSTILE: 6}, classes=9)
    live = replace(result, setting=setting, batches=5)
    text = " ".join(sentences(live))
    assert "by the images' own times (5 batches, 1.6 images each)." in text  # 8 images; theta_0 alone served 4 more
    assert "Shortlists (scene.shortlists) in search and prediction: 2 of 3 cameras, of 4 to 6 of 9 classes." in text
    assert "Batches as live, by the images" in page(live, COMMAND, created_at="")


def test_one_camera_is_shown_without_intervals(result: ChronologicalResult) -> None:
    one = result_of([with_scene(cell(0, 1, zero="++--", half="+++-", tuned="+---"))], result.setting)
    text = " ".join(sentences(one))
    assert "Fine-tuned against zero-shot: −25.0 points." in text
    assert "1 camera only: what holds for other cameras is hardly known from this." in text
    out = StringIO()
    show(one, paper(out))
    html = page(one, COMMAND, created_at="2026-12-01")
    assert "nan" not in text + out.getvalue()
    assert not re.search(r"nan to nan|>nan|nan<|nan%", html)
    assert "±" not in out.getvalue()
    assert 'class="better"' not in html


def test_the_terminal_has_every_way_and_every_tested_interval(result: ChronologicalResult) -> None:
    out = StringIO()
    show(result, paper(out))
    lines = out.getvalue().splitlines()
    (fine_tuned, certain, by_interval) = (
        line.split() for line in lines if line.split()[:1] == ["fine-tuned"] and "+ scene" not in line
    )
    assert fine_tuned[1:3] == [".312", ".312"]
    assert certain[1:] == ["2.000", ".333"]  # three of nine pairs of neighbours
    assert by_interval[1:] == [".250", ".375"]
    assert any(line.split()[:4] == ["best", "fixed", "alpha", ".50"] for line in lines)


@pytest.fixture(scope="module")
def page_file(result: ChronologicalResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "page.html"
    place.write_text(page(result, COMMAND, created_at="2026-12-01T18:00:00+00:00"), encoding="utf-8")
    return place


def test_the_page_is_a_function_of_the_result_and_escapes_names(result: ChronologicalResult, page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert text == page(result, COMMAND, created_at="2026-12-01T18:00:00+00:00")
    assert "<img src=x" not in text
    assert "&lt;b&gt;site&lt;/b&gt; &amp; more" in text
    assert "never tested" not in text  # a camera without a tested image


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as chromium:
        yield chromium


@pytest.mark.check("browser")
def test_the_page_draws_its_figures_offline_without_a_complaint(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    seen = opened(context, page_file)
    assert seen.complaints == []
    assert seen.requests == [page_file.as_uri()]
    drawn = seen.page.eval_on_selector_all(
        ".chart", "places => places.map(p => p.querySelector('svg')?.clientWidth ?? 0)"
    )
    assert len(drawn) == 5
    assert all(width > 300 for width in drawn)
    assert seen.page.locator("img").count() == 0
    context.close()
