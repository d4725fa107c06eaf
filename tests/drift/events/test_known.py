"""What is known already is told and no alarm: windows of maintenance, and events that were seen to."""

from __future__ import annotations

from datetime import datetime, time
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import SettingsError
from adawise_drift.changes.times import parse_clocks
from adawise_drift.events.known import KnownSpan, read_known, with_known
from adawise_drift.events.result import DriftEvent

HOUR_US = 3_600_000_000


def an_event(at: str, *, stream_id: str = "gate-1", measure: str = "brightness", within_h: int = 0) -> DriftEvent:
    us = round(datetime.fromisoformat(at).timestamp() * 1e6)
    reach = within_h * HOUR_US
    return DriftEvent(stream_id, measure, "step", us, us, us - reach, us + reach, 0.0, 1.0, "log", 9.0)


def is_known(event: DriftEvent, **fields: Any) -> bool:
    (values,) = with_known([event], [KnownSpan(why="lens cleaned", **fields)])
    assert (values.severity == "noted") == (values.causes != ())
    return values.severity == "noted"


def test_it_is_of_its_cameras_measures_and_time() -> None:
    fields = {"since": "2026-06-03T08:00:00Z", "until": "2026-06-03T10:00:00Z"}
    event = an_event("2026-06-03T09:00:00+00:00")
    assert is_known(event, **fields)
    assert is_known(event, **fields, streams=("yard", "gate-*"), measures=("brightness",))
    assert not is_known(event, **fields, streams=("yard",))
    assert not is_known(event, **fields, measures=("alpha",))
    assert not is_known(an_event("2026-06-03T10:30:00+00:00"), **fields)
    assert is_known(an_event("2026-06-03T10:30:00+00:00", within_h=1), **fields), "it may have been in that time"
    assert is_known(an_event("2026-07-03T09:00:00+00:00"), since=fields["since"]), "until further notice"


@pytest.mark.parametrize(("at", "expected"), [("21:30", True), ("00:30", True), ("03:00", False), ("20:30", False)])
def test_a_daily_window_goes_by_the_clocks_of_the_site_and_over_midnight(at: str, expected: bool) -> None:
    event = an_event(f"2026-07-03T{at}:00+00:00")  # two hours behind Zurich's summer
    assert is_known(event, daily=("23:00", "03:00"), time_zone="Europe/Zurich") is expected
    span = KnownSpan(why="cleaning", daily=(time(23), time(3)))
    (line,) = with_known([event], [span], parse_clocks(["gate-*=Europe/Zurich"]))
    assert (line.severity == "noted") is expected, "of the camera, where the file names none"


def test_the_file_is_read_and_the_first_that_knows_says_why(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        '[[known]]\nwhy = "lamp replaced"\nstreams = ["gate-*"]\nsince = 2026-06-03T08:00:00Z\n'
        '[[known]]\nwhy = "cleaning"\ndaily = ["08:00", "10:00"]\ntime_zone = "Europe/Zurich"\n'
    )
    (line,) = with_known([an_event("2026-06-03T09:00:00+00:00")], read_known(path))
    assert line.causes[0].sentence == "known: lamp replaced"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[known]]\n", "known 1, why: Field required"),
        ('[[known]]\nwhy = "x"\n', "known 1: Value error, expected since, or daily, or both"),
        ('[[known]]\nwhy = "x"\nsince = 2026-06-03T08:00:00\n', "known 1, since: Input should have timezone info"),
        (
            '[[known]]\nwhy = "x"\ndaily = ["08:00", "10:00"]\nmeasures = ["light"]\n',
            "expected one of alpha, objective",
        ),
        ('[[known]]\nwhy = "x"\ndaily = ["08:00", "10:00"]\ntime_zone = "Zurich"\n', "such as Europe/Zurich"),
        ('[[known]]\nwhy = "x"\nwhen = "now"\n', "known 1, when: Extra inputs are not permitted"),
        ("known = ", "expected TOML with [[known]] tables"),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as failed:
        read_known(path)
    assert f"--known {path}: " in str(failed.value)
    assert expected in str(failed.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_known(tmp_path / "gone.toml")
