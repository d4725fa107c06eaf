"""The page of a run, as people open it: in a browser that has no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adawise_lab.finetune.page import page
from adawise_lab.finetune.train import Comparison, WrongImage
from tests.lab.finetune.shapes import png
from tests.page.browsing import a_browser, opened

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
NAMES = ("cat", HOSTILE, "fox")


def epoch(number: int, accuracy: float) -> dict[str, Any]:
    row = {"epoch": number, "loss": 1.0 / number if number else None, "accuracy": accuracy, "nll": 1 - accuracy}
    return {**row, "ece": 0.1, "accuracy_half": accuracy, "barrier": 0.0}


def group(name: str) -> dict[str, Any]:
    accuracies = {"zero_shot": 0.5, "fine_tuned": 0.6, "best_fixed": 0.7, "adapted": 0.75}
    return {"group": name, "conditions": 1, "images": 9, **accuracies}


@pytest.fixture
def record() -> dict[str, Any]:
    found = Comparison([0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0])
    return {
        "settings": {"finetune.epochs": "2"},
        "images": {"train": 6, "held_out": 4, "skipped": 2},
        "notes": [f"1 class has no image ({HOSTILE})."],
        "curve": [epoch(0, 0.25), epoch(1, 0.75), epoch(2, 0.5)],
        "best": epoch(1, 0.75),
        "classes": found.per_class(NAMES, [0, 0, 1]),
        "confusions": found.confusions(NAMES),
        "verdict": {
            **{"groups": [group("home"), group("new")], "zero_shot": 0.5, "fine_tuned": 0.6, "best_fixed": 0.7},
            **{"adapted": 0.75, "gain": [0.05, 0.01, 0.09], "fixed_alpha": 0.45, "objective": "tsallis"},
            **{"advised_alpha": None, "told": "Adapting by tsallis serves +5.0 points."},
            "recommended": {"alpha": None, "served": 0.75, "is_auto": True},
        },
        "versions": {"adawise": "1"},
    }


def test_it_opens_offline_with_figures_tables_and_mistakes_and_obeys_no_name(
    record: dict[str, Any], tmp_path: Path
) -> None:
    wrong = [WrongImage(HOSTILE, HOSTILE, "cat", png("red disc"))]
    (tmp_path / "finetune.html").write_text(page(record, ["finetune", "--labelled", "my images"], wrong))
    with a_browser() as browser:
        seen = opened(browser.new_context(offline=True), tmp_path / "finetune.html")
        assert seen.complaints == []
        assert seen.requests == [(tmp_path / "finetune.html").as_uri()]
        shown = seen.page
        assert shown.locator("h1").inner_text() == "Adapting serves .750, theta_0 .500"
        assert shown.locator(".chart svg").count() == 3
        assert shown.locator("#verdict li").first.inner_text() == "Adapting by tsallis serves +5.0 points."
        assert shown.locator("main").get_by_text("Adapting by tsallis").count() == 1, "there is one recommendation"
        assert shown.locator("#classes tbody tr").count() == 3
        assert shown.locator("#confusions tbody tr").count() == 1
        assert shown.locator("#pair tbody tr").count() == 3
        assert shown.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)").count("verdict") == 1
        assert shown.locator("#mistakes img").count() == shown.locator("img").count() == 1
        assert shown.locator("#verdict li", has_text="2 files were skipped").count() == 1
        assert shown.locator("#made code", has_text="--labelled 'my images'").count() == 1
        assert shown.locator("main script").count() == 0


@pytest.mark.parametrize(
    ("recommended", "expected"),
    [
        ({"alpha": None, "served": 0.75}, "Adapting serves .750, theta_0 .500"),
        ({"alpha": 0.45, "served": 0.7}, "Alpha 0.45 serves .700, theta_0 .500"),
        ({"alpha": 0.0, "served": 0.5}, "theta_0 alone serves .500; the pair serves no better"),
        (None, "theta_1 has .750 on held-out images, theta_0 .250; the pair was not judged"),
    ],
)
def test_the_headline_is_what_will_be_served(
    record: dict[str, Any], recommended: dict[str, Any] | None, expected: str
) -> None:
    record["verdict"] = None if recommended is None else {**record["verdict"], "recommended": recommended}
    assert f"<h1>{expected}</h1>" in page(record, ["finetune"], [])


def test_a_run_without_a_mistake_has_no_section_for_them(record: dict[str, Any]) -> None:
    record["confusions"] = []
    made = page(record, ["finetune"], [])
    assert "No held-out image is wrong." in made
    assert 'id="mistakes"' not in made
