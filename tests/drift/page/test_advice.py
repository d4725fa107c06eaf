"""The advice says what happened, to whom first and how bad it is, how far alpha moved, and whether it helped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adawise.labels.benefit.helped import Estimate, Helped
from adawise_drift.page.happened import DriftAdvice, advise, all_incidents
from adawise_drift.report import Report
from tests.drift.page.building import a_camera, a_help, a_report, a_yard, an_event, every_shape

NAMES = ["gate", "dock", "yard"]


def advised(report: Report) -> DriftAdvice:
    return advise(report, all_incidents(report))


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_the_worst_incident_is_told_with_its_measures_its_cost_and_its_likely_cause() -> None:
    cameras = [a_camera(name, [(0, 0.3)], hours=240) for name in (*NAMES, "calm")]
    results = advised(a_report(cameras, hours=240, events=every_shape(NAMES)))
    assert results.headline == "Of 4 cameras 1 failing, 1 changed and 1 silent; first gate: accuracy .80 to .45"
    assert plain(results.sentences[0]) == (
        "gate (failing) comes first, 2026-10-05 00:00 UTC (between 2026-10-04 23:00 and 01:00): accuracy .80 to .45; "
        "confidence .85 to .60; contrast −50 % and 1 measure more. "
        "Accuracy −35.0 points (95 % −40.0 to −30.0, measured by labels). "
        "Likely: weather, dirt on the lens, or focus."
    )


def test_a_camera_is_called_what_the_fleet_counts_it_as() -> None:
    """Version 0.2 said "0 failing" above "camera-0 (failing)"."""
    nothing: dict[str, Any] = {"severity": "failing", "unit": "", "before": np.nan, "after": np.nan}
    ended = an_event("camera-0", "rate", "ended", 200, incident=2, **nothing)
    worse = an_event("camera-0", "accuracy", "step", 100, severity="failing")
    for events in ((ended,), (worse, ended)):
        report = a_report([a_camera("camera-0", [(0, 0.3)])], events=events)
        assert report.fleet == {"ok": 0, "changed": 0, "failing": 0, "silent": 1}
        assert advised(report).sentences[0].startswith("camera-0 (silent) comes first, ")


def test_a_report_of_one_camera_is_not_told_as_a_fleet() -> None:
    only = a_report([a_camera("gate", [(0, 0.3)])], events=(an_event("gate", "confidence", "step", 100),))
    assert advised(only).headline == "gate: confidence .85 to .60"


def test_where_all_is_over_again_or_nothing_was_this_is_said() -> None:
    flat = [a_camera("flat", [(0, 0.3)])]
    assert advised(a_report(flat)).headline == "No event above severity noted on 1 camera"
    assert advised(a_report(flat)).sentences[0] == "No alpha changed by .10 or more and stayed."
    passing = an_event("flat", "contrast", "spike", 100, 110, severity="noted", unit="log")
    assert advised(a_report(flat, events=(passing,))).headline == (
        "No event above severity noted on 1 camera; 1 passing event noted"
    )


def test_the_farthest_drifter_is_named_with_its_levels() -> None:
    far, near = a_camera("far", [(0, 0.3), (100, 0.8)]), a_camera("near", [(0, 0.3), (50, 0.45)])
    sentence = "Alpha moved farthest on far, of 2 that moved: its level lay between .30 and .80."
    assert sentence in advised(a_report([far, near])).sentences


def test_with_labels_better_worse_and_not_shown_are_kept_apart() -> None:
    assert plain(advised(a_yard(3)).sentences[1]) == (
        "On the same 52,000 labelled images, the served predictions are better than zero-shot (+6.9 "
        "points, 95 % +6.3 "
        "to +7.5), fine-tuned (+4.3 points, 95 % +3.7 to +4.9) and alpha 0.5 (+1.0 points, 95 % +0.4 to "
        "+1.6); not shown "
        "to differ from the best fixed alpha in hindsight (+0.5 points, 95 % −0.1 to +1.1)."
    )


def test_an_estimate_is_called_one() -> None:
    guess = Helped(0, 100, "", (), {}, {}, (Estimate("ATC", 0.79, "mean confidence"),))
    results = advised(a_report([a_camera("flat", [(0, 0.3)])], helped=guess))
    assert "Whether adapting helped is only estimated, without labels: ATC .790." in results.sentences


def test_without_labels_or_other_answers_help_is_not_known() -> None:
    flat = [a_camera("flat", [(0, 0.3)])]
    assert "is not known: there are no labels" in advised(a_report(flat)).sentences[1]
    alone = a_help(["flat"])
    alone = replace(alone, arms=alone.arms[:1])
    assert "for 52,000 labels no other prediction is known" in advised(a_report(flat, helped=alone)).sentences[1]
