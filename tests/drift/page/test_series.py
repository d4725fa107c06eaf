"""A series as the page carries it says the same as before, within what can be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adawise_drift.events.result import Series
from adawise_drift.page.happened import all_incidents, marks
from adawise_drift.page.series import longest_gap, packed, with_fewer_points
from tests.drift.page.building import (
    BEGIN_US,
    HOUR_US,
    a_camera,
    a_report,
    a_series,
    an_accuracy,
    an_event,
    without_rows,
)

RNG = np.random.default_rng(0)


def head(series: Series, **of: Any) -> dict[str, Any]:
    return packed(series, HOUR_US, **of)[0]


def unpacked(series: Series) -> dict[str, Any]:
    """The columns, as the script reads them."""
    of, values = packed(series, HOUR_US)
    n, found = len(series.time_us), {}
    for place, (name, (low, step)) in enumerate(of["columns"].items()):
        planes = np.frombuffer(values, np.uint8, 2 * n, 2 * n * place).reshape(2, n).astype(np.int64)
        whole = 256 * planes[0] + planes[1]
        found[name] = np.where(whole == 65_535, np.nan, low + step * whole)
    return found


def test_values_are_kept_to_what_is_told_of_them() -> None:
    series = a_series(np.linspace(0.2, 0.9, 300), rng=RNG)
    columns = unpacked(series)
    assert columns["images"].tolist() == series.images.tolist()
    for name in ("alpha", "alpha_low", "tried_high", "objective"):
        assert np.abs(columns[name] - getattr(series, name)).max() <= 0.000501, name
    wide = replace(series, objective=np.linspace(-500.0, 4000.0, 300))
    assert np.abs(unpacked(wide)["objective"] - wide.objective).max() < 4500 / 65_000


def test_extremes_are_among_them() -> None:
    series = a_series(np.full(300, 0.5), rng=RNG)
    columns = unpacked(series)
    assert columns["alpha_high"].max() == pytest.approx(series.alpha_high.max(), abs=0.000501)
    assert columns["alpha_low"].min() == pytest.approx(series.alpha_low.min(), abs=0.000501)


def test_what_is_not_known_stays_so_and_what_is_never_known_is_left_out() -> None:
    series = a_series(np.full(10, 0.5), rng=RNG)
    series.confidence[3] = np.nan
    assert np.flatnonzero(np.isnan(unpacked(series)["confidence"])).tolist() == [3]
    nothing = head(replace(series, confidence=np.full(10, np.nan)))["columns"]
    assert "confidence" not in nothing
    assert "rejected" not in nothing  # there were none


def test_pictures_are_in_multiples_of_their_medians() -> None:
    series = replace(a_series(np.full(3, 0.5), rng=RNG), luminance=np.log([0.1, 0.2, 0.4]))
    assert unpacked(series)["luminance"] == pytest.approx([0.5, 1.0, 2.0], abs=0.002501)


def test_a_constant_is_one() -> None:
    series = replace(a_series(np.full(10, 0.5), rng=RNG), alpha=np.full(10, 0.25))
    assert unpacked(series)["alpha"] == pytest.approx(np.full(10, 0.25))


def test_bins_that_are_there_are_told_as_runs() -> None:
    present = np.ones(10, bool)
    present[[0, 4, 5]] = False
    series = a_series(np.full(10, 0.5), rng=RNG, present=present)
    first = BEGIN_US // HOUR_US
    assert head(series)["runs"] == [[first + 1, 3], [first + 6, 4]]


def test_a_line_is_broken_by_gaps_that_are_unusual_for_the_camera() -> None:
    assert longest_gap(np.arange(10)) == 4
    assert longest_gap(np.arange(0, 50, 5)) == 20
    assert longest_gap(np.array([7])) == 1


def test_accuracies_are_data_sets_of_times_of_their_own() -> None:
    series = a_series(np.full(10, 0.5), rng=RNG)
    found = head(series, accuracy=an_accuracy(10))["accuracy"]
    assert {name: len(points) for name, points in found.items()} == {
        "accuracy_measured": 8,
        "accuracy_confidence": 10,
        "accuracy_agreement": 10,
    }
    begin, hour = BEGIN_US / 1e3, HOUR_US / 1e3
    assert found["accuracy_measured"][1] == [begin + hour, begin + 1.9 * hour, 0.77, 0.72, 0.82]
    assert set(map(len, head(series)["accuracy"].values())) == {0}


def test_marks_are_in_milliseconds() -> None:
    camera = a_camera("gate", [(0, 0.3), (100, 0.7)], hours=200, silent=(40, 60))
    step, mix = (an_event("gate", name, "step", 100, after=0.4) for name in ("confidence", "mix"))
    silence = an_event("gate", "rate", "silence", 40, 60, before=np.nan, after=np.nan, severity="noted")
    report = a_report([camera], hours=200, events=(step, replace(mix, incident=2), replace(silence, incident=3)))
    found = head(camera.series, camera=camera, marks=marks(all_incidents(report), report))
    hour = HOUR_US / 1e3
    begin = BEGIN_US / 1e3
    assert found["levels"] == [[begin, begin + 100 * hour, 0.3], [begin + 100 * hour, begin + 200 * hour, 0.7]]
    at, until = begin + 100 * hour, begin + 60 * hour
    assert [list(mark.values()) for mark in found["marks"]] == [
        ["confidence", at, at, "▼2", "var(--level)"],
        ["mix", at, at, "◆3", "var(--level)"],
        ["rate", begin + 40 * hour, until, "◆1", "var(--muted)"],
    ]
    assert found["silences"] == [[begin + 40 * hour, begin + 60 * hour]]


def test_without_predictions_only_the_traces_are_there() -> None:
    columns = head(without_rows(a_camera("gate", [(0, 0.3)])).series)["columns"]
    assert {"alpha", "forward_equivalents"} <= set(columns)
    assert not {"objective", "confidence", "endpoints_agree"} & set(columns)


def test_where_there_are_too_many_points_bins_are_wider_and_keep_images_means_and_extremes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adawise_drift.page.series._POINTS", 300)
    camera = a_camera("gate", [(0, 0.3)], hours=720, silent=(100, 110))
    camera.series.confidence[:3] = np.nan
    report = with_fewer_points(a_report([camera]))
    (wide,) = (each.series for each in report.cameras)
    was, width_us = camera.series, 3 * HOUR_US
    assert report.bin_us == width_us
    assert len(wide.time_us) == 238  # of 240, two were without images
    assert wide.images.sum() == was.images.sum()
    assert np.average(wide.alpha, weights=wide.images) == pytest.approx(np.average(was.alpha, weights=was.images))
    assert (wide.alpha_low.min(), wide.alpha_high.max()) == (was.alpha_low.min(), was.alpha_high.max())
    assert np.isnan(wide.confidence).tolist() == [True] + [False] * 237
    assert wide.confidence[5] == pytest.approx(np.average(was.confidence[15:18], weights=was.batches[15:18]))


def test_a_report_that_a_page_can_carry_stays_as_it_is() -> None:
    report = a_report([a_camera("gate", [(0, 0.3)], hours=24)], hours=24)
    assert with_fewer_points(report) is report
