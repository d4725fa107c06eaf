"""A short scripted day through the real commands: the report shows the script's changes, and no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools.drift import day, day_judge
from tools.drift.day_script import HOUR_US, CameraDay, Day, Event, Part, Turn

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
]  # three programs that load a model or a database, on whatever machine

CLEAR = Turn(0.0, "clear", 0.0, "")
FOG, LIFTS = Turn(8.0, "fog", 0.5, "fog comes"), Turn(16.0, "clear", 0.0, "fog lifts")
YARD = CameraDay("yard", (CLEAR, FOG, LIFTS))
HALL = CameraDay("hall", (CLEAR,), silent=Part(10.0, 13.0))
DAY = Day((YARD, HALL), hours=3.0, every_s=90.0, images=8, seed=1)
FRAMES = 8 * (120 + 105)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("day")
    assert day.make(made, DAY) == FRAMES
    day.settings_file(made, DAY)
    day.replay(made)
    day.analysed(made, against=(), page=False)
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "drift.json").read_text())
    return found


def test_fog_that_comes_and_lifts_is_found_on_the_camera_that_it_came_over_and_nothing_else(folder: Path) -> None:
    findings = day_judge.judge(folder)
    assert [(f.camera, f.verdict, f.event and f.event.said) for f in findings] == [
        ("yard", "found", "fog comes"),
        ("yard", "found", "fog lifts"),
    ]
    for finding in findings:
        assert finding.late_us is not None
        assert -2 <= finding.late_us / 90e6 <= 15  # batches, of 40 that the fog lasted


def test_what_the_report_says_of_it_names_the_picture_and_shows_frames_of_both_sides(report: dict[str, Any]) -> None:
    fog = [event for event in report["events"] if event["stream_id"] == "yard"]
    assert {"alpha", "contrast"} <= {event["measure"] for event in fog}  # fog takes contrast
    assert {event["incident"] for event in fog if event["severity"] != "noted"} == {fog[0]["incident"]}
    assert {example["side"] for example in fog[0]["examples"]} == {"before", "after"}


def test_a_silence_is_told_though_alpha_is_the_same_after_it(report: dict[str, Any]) -> None:
    (hall,) = (camera for camera in report["cameras"] if camera["stream_id"] == "hall")
    assert hall["changes"] == []
    ((since_us, until_us),) = hall["silences"]
    assert since_us == pytest.approx(DAY.at_us(10.0), abs=90e6)
    assert until_us == pytest.approx(DAY.at_us(13.0), abs=90e6)


def test_what_was_served_is_judged_by_the_labels_that_were_kept_apart(report: dict[str, Any]) -> None:
    helped = report["helped"]
    assert helped["labelled"] == helped["accepted"] == FRAMES
    (served,) = (arm for arm in helped["arms"] if arm["name"] == "served")
    assert served["accuracy"]["value"] > 0.8


def test_a_change_that_the_report_leaves_out_is_missed_and_one_that_nobody_scripted_is_false(folder: Path) -> None:
    path = folder / "drift.json"
    whole = path.read_text()
    report = json.loads(whole)
    (yard,) = (camera for camera in report["cameras"] if camera["stream_id"] == "yard")
    (hall,) = (camera for camera in report["cameras"] if camera["stream_id"] == "hall")
    hall["changes"].append(yard["changes"].pop(0))
    try:
        path.write_text(json.dumps(report))
        findings = day_judge.judge(folder)
    finally:
        path.write_text(whole)
    assert {(f.camera, f.verdict) for f in findings} == {("yard", "missed"), ("yard", "found"), ("hall", "false")}
    assert "1 false" in day_judge.told(findings)


def test_a_day_of_fewer_hours_is_the_same_script_run_faster() -> None:
    long = replace(DAY, hours=24.0)
    assert [event.since_us for event in DAY.events()] == [DAY.at_us(8.0), DAY.at_us(16.0)]
    assert long.at_us(8.0) - long.at_us(0.0) == 8 * HOUR_US == 8 * (DAY.at_us(8.0) - DAY.at_us(0.0))
    assert DAY.events()[0] == Event(
        "yard", "weather", "fog comes", DAY.at_us(0.0), DAY.at_us(8.0), DAY.at_us(8.5), DAY.at_us(16.0)
    )
