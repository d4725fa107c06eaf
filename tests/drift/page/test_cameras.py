"""Each figure's sentence is computed from its numbers, and figures of what is not known are not there."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import altair as alt
import numpy as np
import pytest

from adawise.text import as_long_duration, percent
from adawise_drift.events.measures import MEASURES
from adawise_drift.events.result import NOTHING_KNOWN, Camera
from adawise_drift.page.cameras import shown
from adawise_drift.page.panels import Panel, panels
from adawise_drift.words import changed, signed, when
from tests.drift.page.building import BEGIN_US, HOUR_US, a_camera, a_report, a_yard, an_accuracy, without_rows


def readings(camera: Camera) -> dict[str, str]:
    (one,) = shown(a_report([camera]), panels(), {})
    return {drawn.panel.name: drawn.reading.replace("\u00a0", " ") for drawn in one.panels}


def test_numbers_and_times_are_written_alike() -> None:
    assert [percent(v).replace("\u00a0", " ") for v in (0.42, 1.0, 0.999, 0.0, 0.004)] == [
        *("42 %", "100 %", "99.9 %", "0 %", "0.4 %"),
    ]
    assert [signed(v) for v in (0.474, -0.3, 1.0)] == ["+.47", "−.30", "+1.00"]
    assert [as_long_duration(seconds) for seconds in (36, 5400, 108_000, 259_200)] == [
        *("36 seconds", "90 minutes", "30 hours", "3 days"),
    ]
    assert when(BEGIN_US, BEGIN_US + HOUR_US) == "2026-10-01 00:00 to 01:00 UTC"
    assert when(BEGIN_US, BEGIN_US + 30 * HOUR_US) == "2026-10-01 00:00 to 2026-10-02 06:00 UTC"


def test_the_facts_name_what_a_shortlist_lacks() -> None:
    (one,) = shown(
        a_report([a_camera("gate", [(0, 0.3)], lacking=("9 of 90 images surely show 'fox'",))]), panels(), {}
    )
    assert one.facts.endswith(" · 9 of 90 images surely show 'fox'")


def test_a_step_is_told_at_its_moment_and_a_ramp_from_when_to_when() -> None:
    step, ramp = a_camera("gate", [(0, 0.3), (100, 0.7), (200, 0.4)]).changes
    assert changed(step) == "2026-10-05 04:00 UTC (between 03:00 and 05:00)"
    assert changed(ramp) == "2026-10-09 07:00 to 17:00 UTC"


def test_alpha_says_how_often_and_how_far_it_moved() -> None:
    moved = a_camera("gate", [(0, 0.3), (100, 0.7), (200, 0.5)], alpha=0.52)
    assert readings(moved)["alpha"] == (
        "Alpha changed 2 times, most 2026-10-05 04:00 UTC (between 03:00 and 05:00), from .30 to .70 (+.40); "
        "it was .52 on "
        "average."
    )
    still = a_camera("gate", [(0, 0.3)], alpha=0.31, alpha_low=0.2, alpha_high=0.45)
    assert readings(still)["alpha"] == (
        "Alpha stayed at .31 on average, between .20 and .45: nothing changed by .10 or more and stayed."
    )


def test_the_objective_is_compared_with_the_card() -> None:
    camera = a_camera("gate", [(0, 0.3)])
    flat = np.ones(720)
    series = replace(camera.series, objective=np.where(np.arange(720) < 360, 0.9, 1.3), reference=flat)
    assert readings(replace(camera, series=series))["objective"] == (
        "The objective went from .90 in the first quarter of the points to 1.30 in the last, and lies .10 "
        "above the card's "
        "reference on average, above it in 50 % of the points."
    )
    without = replace(series, reference=np.full(720, np.nan))
    assert readings(replace(camera, series=without))["objective"].endswith("; without a card there is no reference.")


def test_pictures_and_rate_are_said_in_numbers() -> None:
    camera = a_camera("gate", [(0, 0.3)])
    first = np.arange(720) < 360
    series = replace(
        camera.series,
        luminance=np.log(np.where(first, 0.2, 0.1)),
        contrast=np.full(720, -1.0),
        images=np.where(first, 1400, 700),
    )
    found = readings(replace(camera, series=series))
    assert found["picture"].startswith(
        "From the first quarter of the points to the last, in multiples of the median: brightness 1.41 to .71, contrast"
    )
    assert found["rate"] == "There were 1,400 images a point in the first quarter of the points, and 700 in the last."


def test_accuracy_is_said_as_measured_and_as_estimated_and_where_the_estimate_is_wrong() -> None:
    camera = a_camera("gate", [(0, 0.3)])
    assert readings(camera)["accuracy"] == (
        "Measured by 960 labels: .80 (95 % .75 to .85) first, .59 (95 % .54 to .64) last. Estimated from confidence "
        ".84 first, .57 last (off by .09, 95 % within .18); from the agreement of the endpoints .78 first, .51 last "
        "(off by .06, 95 % within .12): root mean squares, on a pair whose labels are known. On the labelled images "
        "the estimate from confidence is .04 too high (95 % .02 to .06)."
    )
    wrong = readings(replace(camera, accuracy=an_accuracy(720, off=-0.2)))["accuracy"]
    assert wrong.endswith(
        "Do not rely on confidence here: by the labels its estimate is .20 too low (95 % .18 to .22)."
    )
    assert "accuracy" not in readings(replace(camera, accuracy=NOTHING_KNOWN))


def test_agreement_cost_and_rejects_are_said_in_numbers() -> None:
    camera = a_camera("gate", [(0, 0.3)], rejecting=True)
    series = replace(
        camera.series,
        confidence=np.full(720, 0.8),
        endpoints_agree=np.full(720, 0.65),
        forward_equivalents=np.r_[np.full(719, 1.0), 3.0],
        images=np.full(720, 100),
        rejected=np.r_[np.zeros(719, np.int64), 1440],
    )
    fields = readings(replace(camera, series=series, reasons={"image_undecodable": 1440}))
    assert fields["answers"] == (
        "Confidence went from .80 to .80, zero-shot and fine-tuned agree on 65 % of the images on which both were "
        "evaluated."
    )
    assert fields["cost"] == (
        "An image cost 1.00 forwards on average over the points, and 3.00 at most; plain CLIP costs 1."
    )
    assert fields["rejects"] == "1,440 images were rejected, 2 % of all: image_undecodable 1,440."


def test_what_is_not_known_has_no_figure() -> None:
    assert set(readings(without_rows(a_camera("gate", [(0, 0.3)])))) == {"alpha", "rate", "cost"}
    assert set(readings(a_camera("gate", [(0, 0.3)]))) == {
        *("alpha", "accuracy", "objective", "answers", "picture", "rate", "cost"),
    }


def test_the_mix_of_classes_names_the_first_and_the_one_that_moved() -> None:
    camera = a_camera("gate", [(0, 0.3)], class_mix=(("car", 0.6, 0.62, 0.58), ("bus", 0.2, 0.05, 0.35)))
    (one,) = shown(a_report([camera]), panels(), {})
    assert one.mix_reading.replace("\u00a0", " ") == (
        "Most often car was served, on 60 % of the images; bus changed most, from 5 % in the first quarter of "
        "the time to "
        "35 % in the last."
    )


def test_the_ranking_has_every_camera_and_a_number_behind_every_cell() -> None:
    ranks = shown(a_yard(5), panels(), {})
    assert [rank.name for rank in ranks][:2] == ["yard/cam-01", "yard/cam-00"]
    assert ranks[0].cells[0].text == ".50"
    assert ranks[0].cells[0].value == pytest.approx(0.5)
    assert np.isnan(ranks[-1].cells[2].value)  # it has no largest change


def test_every_measure_has_one_figure_that_marks_its_events() -> None:
    marked = [measure for panel in panels() if panel.name != "overall" for measure in panel.measures]
    assert sorted(marked) == sorted([*MEASURES, "mix", "model"])


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.name)
@pytest.mark.cases("drift", every=4)
def test_a_panel_is_vega_lite_by_its_schema(panel: Panel) -> None:
    text = json.dumps({name: value for name, value in panel.spec.items() if name != "config"})
    alt.LayerChart.from_dict(json.loads(re.sub(r"var\(--[a-z-]+\)", "#000000", text)))  # raises where it is not


def test_names_of_cameras_are_in_no_expression() -> None:
    words = repr([panel.spec for panel in panels()])
    assert "stream" not in words
