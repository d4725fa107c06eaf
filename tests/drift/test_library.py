"""`adawise.analyse`: the report as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

import adawise
from tests.drift import yard


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(yard.write(tmp_path_factory.mktemp("yard")))


def test_events_cameras_and_series_are_tables_and_the_fleet_is_counted(root: str) -> None:
    found = adawise.analyse(root)
    assert found.fleet == {"ok": 1, "changed": 1, "failing": 3, "silent": 0}
    events = found.events.arrow.to_pylist()
    assert (events[0]["stream_id"], events[0]["measure"], events[0]["shape"]) == ("yard", "mix", "step")
    assert events[0]["since"] == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert (events[0]["cost_how"], round(events[0]["cost_accuracy"], 1)) == ("estimated", -0.3)
    assert found.cameras.arrow["stream_id"].to_pylist()[:2] == ["yard", "ramp"]
    assert len(found.series) > len(found.cameras) == 5
    with duckdb.connect() as connection:
        connection.register("series", found.series.arrow)
        counted = connection.execute("SELECT count(DISTINCT stream_id) FROM series").fetchall()
    assert counted == [(5,)]


def test_times_are_text_or_datetimes_and_cameras_are_asked_for_by_name(root: str, tmp_path: Path) -> None:
    evening = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
    by_text = adawise.analyse(root, streams=["dock", "yard"], since="2026-06-01T12:30:00Z")
    by_datetime = adawise.analyse(root, streams=["dock", "yard"], since=evening)
    found = ["stream_id", "measure", "shape", "since", "latest", "cause", "next"]
    assert by_text.events.arrow.select(found).equals(by_datetime.events.arrow.select(found))
    assert set(by_text.cameras.arrow["stream_id"].to_pylist()) == {"dock", "yard"}
    results = adawise.analyse(root, since=evening, baseline=tmp_path / "yard.baseline")
    assert min(results.events.arrow["until"].to_pylist()) >= datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert (tmp_path / "yard.baseline").is_file()


def test_a_camera_that_nobody_knows_is_told_with_the_nearest_names(root: str) -> None:
    with pytest.raises(adawise.AdawiseError, match=r"no camera 'yrad' under .*; of 5 cameras the nearest are 'yard'"):
        adawise.analyse(root, streams=["yrad"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"smallest": 0.0}, "expected smallest in"),
        ({"reference": timedelta(days=8)}, "expected since beside reference"),
        ({"since": "2026-06-01T12:00:00"}, "expected a time with its zone"),
        ({"since": "yesterday"}, "Invalid isoformat string"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(root: str, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        adawise.analyse(root, **given)
