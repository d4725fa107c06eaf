"""A short scripted day through the real commands: the report shows the script's changes, and no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.drift import day, day_verdict
from tools.drift.day_script import HOUR_US, MARKET, CameraDay, Day, Happening, Spell, Turn

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
]  # three programs that load a model or a database, on whatever machine

CLEAR = Turn(0.0, "clear", 0.0, "")
VISIBLE = ("contrast", "sharpness")
FOG, LIFTS = Turn(8.0, "fog", 0.5, "fog comes", VISIBLE), Turn(16.0, "clear", 0.0, "fog lifts", VISIBLE)
YARD = CameraDay("yard", (CLEAR, FOG, LIFTS))
SILENT = Spell(10.0, 13.0, ("it falls silent", "it sends again"), ("rate",), sends=0)
HALL = CameraDay("hall", (CLEAR,), (SILENT,))
DAY = Day((YARD, HALL), hours=3.0, every_s=90.0, images=8, seed=1)
FRAMES = 8 * (120 + 105)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("day")
    assert day.make(made, DAY) == FRAMES
    day.settings_file(made, DAY)
    day.replay(made)
    day.analysed(made, page=False)
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "drift.json").read_text())
    return found


def test_each_happening_is_told_on_its_camera_by_what_names_it_and_nothing_else_is(folder: Path) -> None:
    verdict = day_verdict.assess(folder)
    assert [(f.happening.camera, f.happening.text, bool(f.named)) for f in verdict.findings] == [
        ("yard", "fog comes", True),
        ("yard", "fog lifts", True),
        ("hall", "it falls silent", True),
        ("hall", "it sends again", True),
    ]
    assert (verdict.moved, verdict.false) == ((), ())
    for finding in verdict.findings:
        assert finding.late_us is not None
        assert -2 <= finding.late_us / 90e6 <= 5  # batches, of 40 that the fog lasted


def test_a_silence_leaves_alpha_alone_and_fog_does_not(folder: Path) -> None:
    found = {finding.happening.text: finding for finding in day_verdict.assess(folder).findings}
    assert {fields for fields, finding in found.items() if finding.leaves_alpha} == {
        "it falls silent",
        "it sends again",
    }
    assert "leave alpha alone and are told: hall, it falls silent; hall, it sends again" in day_verdict.summary(
        day_verdict.assess(folder)
    )


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


def test_what_the_report_leaves_out_is_missed_and_what_nobody_scripted_is_of_nothing(folder: Path) -> None:
    path = folder / "drift.json"
    whole = path.read_text()
    report = json.loads(whole)
    (silence,) = (event for event in report["events"] if event["shape"] == "silence")
    report["events"] = [{**event, "stream_id": "hall"} for event in report["events"] if event is not silence]
    try:
        path.write_text(json.dumps(report))
        verdict = day_verdict.assess(folder)
    finally:
        path.write_text(whole)
    assert not any(
        finding.named or finding.others for finding in verdict.findings if finding.happening.camera == "yard"
    )
    assert {edge.camera for edge in verdict.false} == {"hall"}
    assert "missed: yard, fog comes; yard, fog lifts" in day_verdict.summary(verdict)


def test_a_day_of_fewer_hours_is_the_same_script_run_faster() -> None:
    long = replace(DAY, hours=24.0)
    assert [each.since_us for each in DAY.happenings()] == [DAY.at_us(hour) for hour in (8.0, 16.0, 10.0, 13.0)]
    assert long.at_us(8.0) - long.at_us(0.0) == 8 * HOUR_US == 8 * (DAY.at_us(8.0) - DAY.at_us(0.0))
    assert DAY.happenings()[0] == Happening(
        "yard", "fog comes", VISIBLE, DAY.at_us(0.0), DAY.at_us(8.0), DAY.at_us(8.5), DAY.at_us(16.0)
    )


def test_spells_break_images_send_fewer_bring_other_classes_and_end() -> None:
    names = ("", "")
    spells = (
        Spell(0.0, 6.0, names, (), broken=1.0),
        Spell(6.0, 12.0, names, (), sends=3),
        Spell(12.0, 18.0, names, (), market=True),
        Spell(18.0, 24.0, names, (), sends=0),
    )
    quarter = Day((CameraDay("yard", (CLEAR,), spells),), hours=1.0, every_s=60.0, images=4, seed=1)
    frames = list(quarter.frames(quarter.cameras[0]))
    batches = [{batch for batch, *_ in frames if start <= batch < start + 15} for start in (0, 15, 30, 45)]
    assert [len(each) for each in batches] == [15, 5, 15, 0]
    assert {label is None for batch, _, _, label in frames if batch < 15} == {True}
    assert all(jpeg.endswith(b"\xff\xd9") == (label is not None) for _, _, jpeg, label in frames)
    shares = [np.mean([label in MARKET for batch, _, _, label in frames if batch in those]) for those in batches[1:3]]
    assert shares[0] < 0.7 < shares[1]
