"""A series as the page carries it says the same as before, within what can be seen."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adawise_drift.page.happened import all_incidents, marks
from adawise_drift.page.series import longest_gap, packed
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


def unpacked(column: list[Any]) -> Any:
    low, step, text = column
    whole = np.frombuffer(base64.b64decode(text), "<u2")
    return np.where(whole == 65_535, np.nan, low + step * whole)


def test_values_are_kept_to_a_65534th_of_their_range() -> None:
    series = a_series(np.linspace(0.2, 0.9, 300), rng=RNG)
    columns = packed(series, HOUR_US)["columns"]
    for name in ("alpha", "alpha_low", "tried_high", "objective", "images"):
        values = np.asarray(getattr(series, name), dtype=np.float64)
        assert np.abs(unpacked(columns[name]) - values).max() <= 1.01e-5 * np.ptp(values) + 1e-6 * values.max(), name


def test_extremes_are_among_them() -> None:
    series = a_series(np.full(300, 0.5), rng=RNG)
    columns = packed(series, HOUR_US)["columns"]
    assert unpacked(columns["alpha_high"]).max() == pytest.approx(series.alpha_high.max(), abs=1e-6)
    assert unpacked(columns["alpha_low"]).min() == pytest.approx(series.alpha_low.min(), abs=1e-6)


def test_what_is_not_known_stays_so_and_what_is_never_known_is_left_out() -> None:
    series = a_series(np.full(10, 0.5), rng=RNG)
    series.confidence[3] = np.nan
    known = packed(series, HOUR_US)["columns"]
    assert np.flatnonzero(np.isnan(unpacked(known["confidence"]))).tolist() == [3]
    nothing = packed(replace(series, confidence=np.full(10, np.nan)), HOUR_US)["columns"]
    assert "confidence" not in nothing
    assert "rejected" not in nothing  # there were none


def test_pictures_are_in_multiples_of_their_medians() -> None:
    series = replace(a_series(np.full(3, 0.5), rng=RNG), luminance=np.log([0.1, 0.2, 0.4]))
    assert unpacked(packed(series, HOUR_US)["columns"]["luminance"]) == pytest.approx([0.5, 1.0, 2.0], abs=1e-4)


def test_a_constant_is_one() -> None:
    series = replace(a_series(np.full(10, 0.5), rng=RNG), alpha=np.full(10, 0.25))
    assert unpacked(packed(series, HOUR_US)["columns"]["alpha"]).tolist() == [0.25] * 10


def test_bins_that_are_there_are_told_as_runs() -> None:
    present = np.ones(10, bool)
    present[[0, 4, 5]] = False
    series = a_series(np.full(10, 0.5), rng=RNG, present=present)
    first = BEGIN_US // HOUR_US
    assert packed(series, HOUR_US)["runs"] == [[first + 1, 3], [first + 6, 4]]


def test_a_line_is_broken_by_gaps_that_are_unusual_for_the_camera() -> None:
    assert longest_gap(np.arange(10)) == 4
    assert longest_gap(np.arange(0, 50, 5)) == 20
    assert longest_gap(np.array([7])) == 1


def test_accuracies_are_data_sets_of_times_of_their_own() -> None:
    series = a_series(np.full(10, 0.5), rng=RNG)
    found = packed(series, HOUR_US, accuracy=an_accuracy(10))["accuracy"]
    assert {name: len(points) for name, points in found.items()} == {
        "accuracy_measured": 8,
        "accuracy_confidence": 10,
        "accuracy_agreement": 10,
    }
    begin, hour = BEGIN_US / 1e3, HOUR_US / 1e3
    assert found["accuracy_measured"][1] == [begin + hour, begin + 1.9 * hour, 0.77, 0.72, 0.82]
    assert set(map(len, packed(series, HOUR_US)["accuracy"].values())) == {0}


def test_marks_are_in_milliseconds() -> None:
    camera = a_camera("gate", [(0, 0.3), (100, 0.7)], hours=200, silent=(40, 60))
    step, mix = (an_event("gate", name, "step", 100, after=0.4) for name in ("confidence", "mix"))
    silence = an_event("gate", "rate", "silence", 40, 60, before=np.nan, after=np.nan, severity="noted")
    report = a_report([camera], hours=200, events=(step, replace(mix, incident=2), replace(silence, incident=3)))
    found = packed(camera.series, HOUR_US, camera=camera, marks=marks(all_incidents(report), report))
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
    columns = packed(without_rows(a_camera("gate", [(0, 0.3)])).series, HOUR_US)["columns"]
    assert {"alpha", "forward_equivalents"} <= set(columns)
    assert not {"objective", "confidence", "endpoints_agree"} & set(columns)
