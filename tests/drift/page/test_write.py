"""The file: whole, closed to the outside, small, the same for the same report."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adawise.console import paper
from adawise.errors import SettingsError
from adawise.page.render import drawing_library
from adawise_drift.page.write import page, write_page
from adawise_drift.report import Report
from adawise_drift.show import show
from tests.drift.page.building import HOSTILE, a_camera, a_report, a_yard, an_event, unfolded

MEGABYTE = 2**20


def test_nothing_outside_is_named_beside_the_drawing_library(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    inert = unfolded(text)
    assert inert.pop("library")[0]["html"] == drawing_library()
    text += " ".join(head["html"] for head, _ in inert.values())
    assert re.findall(r"https?:|\burl\(|@import", text) == []
    assert {target[:6] for target in re.findall(r'\b(?:src|href)="([^"#]+)"', text)} <= {"data:,", "data:i"}


def test_the_browser_is_told_to_fetch_nothing(page_file: Path) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page_file.read_text(encoding="utf-8"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy


def test_a_month_of_fifty_cameras_by_the_hour_is_below_two_megabytes(tmp_path: Path) -> None:
    report = a_yard(50)
    assert all(len(camera.series.alpha) > 680 for camera in report.cameras)
    write_page(tmp_path / "page.html", report)
    assert (tmp_path / "page.html").stat().st_size < 2 * MEGABYTE


def test_it_says_what_a_point_is_where_it_is_drawn(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    everything = [text, *(head["html"] for head, _ in unfolded(text).values())]
    said = "one point is 1 hour; the lowest and the highest alpha in it are kept"
    assert sum(said in each for each in everything) == 11  # ten cameras, and the page


def test_the_readers_that_the_page_names_are_where_it_says(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    (package,) = re.findall(r"read_traces\(ROOT\).* of <code>(\S+)</code>; <code>levels", text)
    assert callable(importlib.import_module(package).read_traces)
    assert callable(importlib.import_module(package).read_predictions)


def test_a_hostile_name_does_not_stand_in_the_file_as_it_is(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    drawn = [head["html"] for name, (head, _) in unfolded(text).items() if name != "library"]
    assert sum(map(bool, drawn)) == 11  # ten cameras and a table
    assert not any("<script" in html or "<img src=x" in html for html in drawn)


def test_a_camera_without_images_is_silent_wherever_the_page_or_the_terminal_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing: dict[str, Any] = {"severity": "failing", "unit": "", "before": np.nan, "after": np.nan}
    ended = an_event("camera-0", "rate", "ended", 200, **nothing)
    report = a_report([a_camera("camera-0", [(0, 0.3)])], events=(ended,))
    text = page(report)
    assert "<b>0</b> failing" in text
    assert "<b>1</b> silent" in text
    assert set(re.findall(r'class="badge \w+">.*?</svg> (\w+)</span>', text)) == {"silent"}
    assert re.findall(r'title="(\w+), since', text) == ["silent"]
    assert 'data-find="camera-0 rate ended silent"' in text
    show(report, paper())
    output = capsys.readouterr().out
    assert "0 failing, 1 silent" in output
    assert output.count("failing") == 1


def test_the_same_report_gives_the_same_page(report: Report, page_file: Path) -> None:
    assert page(report) == page_file.read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_named(report: Report, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none/page\.html: the page cannot be written .* Name a file in a folder"):
        write_page(tmp_path / "none" / "page.html", report)
