"""Incidents in words, and all of them on one line of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from adawise_drift.changes.times import Clocks
from adawise_drift.events.result import Cause, Shape
from adawise_drift.page.happened import ROWS, advise, all_incidents, at_once, by_camera, timeline
from adawise_drift.page.write import write_page
from tests.drift.page.building import HOUR_US, a_camera, a_report, an_event, every_shape

NAMES = ["gate", "dock", "yard"]
REPORT = a_report([a_camera(name, [(0, 0.3)], hours=240) for name in NAMES], hours=240, events=every_shape(NAMES))


def test_events_of_a_moment_are_one_incident_that_has_all_their_measures() -> None:
    first, *rest = all_incidents(REPORT)
    assert first.moved == (
        "accuracy .80 to .45",
        "confidence .85 to .60",
        "contrast −50\u00a0%",
        "sharpness −39\u00a0%",
    )
    assert first.matters
    assert len(rest) == 9
    assert [each.place for each in (first, *rest) if each.lead.stream_id == "gate"] == [3, 2, 4, 1]  # by time


def test_large_numbers_are_told_in_full_and_a_rate_with_its_unit() -> None:
    event = an_event("gate", "rate", "step", 100, before=2400.0, after=8.4, unit="images an hour")
    (each,) = all_incidents(replace(REPORT, events=(event,)))
    assert each.moved == ("rate 2,400 to 8.4 images an hour",)


def test_a_reader_finds_an_incident_by_its_camera_its_measures_and_its_severity() -> None:
    first = all_incidents(REPORT)[0]
    assert first.words == "gate accuracy confidence contrast failing sharpness step"


@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_shape_has_a_mark_that_the_page_explains(shape: str) -> None:
    event = an_event("gate", "alpha", shape, 100, 120)
    report = replace(REPORT, events=(event,))
    drawn = timeline(report, all_incidents(report))
    ((_, (each,)),) = drawn.rows
    assert [key.shape for key in drawn.keys] == [each.mark.outline]
    assert each.mark.at == pytest.approx(100 / 240 * 100, abs=0.05)
    lasts = shape in {"ramp", "spike", "unrest", "silence"}
    end = 100.0 if shape == "ended" else each.mark.at
    assert each.mark.until == pytest.approx(50 if lasts else end, abs=0.05)


def test_cameras_come_in_the_order_of_their_worst_incidents_and_some_are_only_counted() -> None:
    names = [f"cam-{number:02d}" for number in range(ROWS + 7)]
    events = tuple(an_event(name, "alpha", "step", 9 + n, incident=n + 1) for n, name in enumerate(names))
    report = a_report([a_camera(name, [(0, 0.3)], hours=240) for name in reversed(names)], hours=240, events=events)
    drawn = timeline(report, all_incidents(report))
    assert [name for name, _ in drawn.rows] == names[:ROWS]
    assert drawn.more == 7


@pytest.mark.parametrize(("hours", "words"), [(5, "01:00"), (20, "03:00"), (100, "Oct 02"), (720, "Oct 06")])
def test_the_times_beside_the_line_are_those_of_a_clock(hours: int, words: str) -> None:
    until_us = REPORT.since_us + hours * HOUR_US
    ticks = timeline(replace(REPORT, until_us=until_us), ()).ticks
    assert words in [text for _, text in ticks]
    assert 4 <= len(ticks) <= 9
    assert all(0 <= at < 100 for at, _ in ticks)


def test_with_a_reference_the_line_is_of_the_time_that_is_judged(tmp_path: Path) -> None:
    report = replace(REPORT, judged_us=REPORT.since_us + 100 * HOUR_US)
    drawn = timeline(report, all_incidents(report))
    assert drawn.since_us == report.judged_us
    places = {each.lead.shape: each.mark.at for _, those in drawn.rows for each in those}
    assert places["unrest"] == 0.0  # it had begun before
    assert places["model"] == pytest.approx((168 - 100) / 140 * 100, abs=0.1)
    write_page(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "since 2026-10-05 04:00 UTC; the time before is the reference" in text


def test_a_cause_is_told_once_and_the_measures_of_the_incident_only_where_they_stand() -> None:
    likely = Cause("likely", "likely: weather")
    own = (Cause("incident", "at the same moment: rate 9 to 4"), likely)
    events = tuple(an_event("gate", measure, "step", 100, causes=own) for measure in ("contrast", "alpha"))
    (each,) = all_incidents(a_report([a_camera("gate", [(0, 0.3), (100, 0.8)])], events=events))
    assert each.causes == (likely,)


def test_what_many_cameras_have_at_once_leads_and_an_outage_of_all_is_more_than_noted() -> None:
    names = [f"cam-{number}" for number in range(10)]
    out = [
        an_event(name, "rate", "silence", 100 + number / 8, 109, incident=number + 1, severity="noted", before=np.nan)
        for number, name in enumerate(names)
    ]
    single = an_event("cam-3", "accuracy", "step", 50, incident=99, severity="failing")
    cameras = [a_camera(name, [(0, 0.3)], hours=240) for name in names]
    report = a_report(cameras, hours=240, events=(single, *out))
    shown = all_incidents(report)
    (each,) = at_once(report, shown)
    assert (each.severity, each.headline) == ("changed", "10 of 10 cameras at once: a silence")
    assert each.when == "began 2026-10-05 04:00 to 05:07 UTC; over on all by 2026-10-05 13:00 UTC"
    assert each.cost == "no images for 8 hours (median over the cameras)"
    assert len(each.incidents) == 10
    advice = advise(report, shown, (each,))
    assert advice.headline == "10 of 10 cameras at once: a silence; in all 1 failing"
    assert advice.sentences[0].startswith("10 of 10 cameras at once: a silence, began 2026-10-05 04:00")
    assert advice.sentences[1].startswith("cam-3 (failing) comes first")


def test_times_are_by_the_clocks_of_the_camera_and_name_them() -> None:
    clocks = Clocks(ZoneInfo("Europe/Berlin"), {"dock": ZoneInfo("America/Sao_Paulo")})
    report = replace(REPORT, clocks=clocks)
    gate, dock, *_ = all_incidents(report)
    assert gate.when == "2026-10-05 02:00 CEST (between 01:00 and 03:00)"
    assert dock.when == "since 2026-10-08 21:00 UTC-03"
    drawn = timeline(report, all_incidents(report))
    assert drawn.ticks[0][0] == pytest.approx(22 / 240 * 100, abs=0.01)  # midnight in Berlin
    assert drawn.ticks[0][1] == "Oct 02"


def test_cameras_are_ordered_by_severity_whatever_the_order_of_the_report() -> None:
    events = [
        an_event(name, "alpha", "step", 100, incident=number, severity=severity)
        for number, (name, severity) in enumerate([("gate", "noted"), ("dock", "changed"), ("yard", "failing")])
    ]
    assert [*by_camera(all_incidents(replace(REPORT, events=tuple(events))))] == ["yard", "dock", "gate"]
