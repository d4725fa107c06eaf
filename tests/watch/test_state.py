"""The rule by which a camera is ok, changed, silent or worse: one function, with its table and its limits."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from adawise.watch.row import CameraState
from adawise.watch.state import GONE_S, RESETS, CameraFacts, StatePolicy, counted, state

T = 1_790_812_800.0
POLICY = StatePolicy()
WELL = CameraFacts(T, T - 5.0, pause_s=1.0, images=300, alpha_now=0.5, alpha_before=0.5)


def test_a_camera_that_sends_is_ok_and_what_is_to_be_known_of_it_stands_beside_that() -> None:
    assert state(WELL, POLICY) == (CameraState.OK, "")
    assert state(replace(WELL, note="its clock is 2 h behind"), POLICY) == (CameraState.OK, "its clock is 2 h behind")


WRONG: list[tuple[CameraState, dict[str, Any]]] = [
    (CameraState.FAILING, {"failure": "its rows have waited 4 min to be written"}),
    (CameraState.SILENT, {"last_seen_s": T - 61.0}),
    (CameraState.REJECTED, {"rejected": 34, "reason": "empty"}),
    (CameraState.FROZEN, {"frozen_s": 40.0}),
    (CameraState.CHANGED, {"alpha_now": 0.7}),
]


def test_of_all_that_is_wrong_the_worst_is_its_state_and_that_is_the_order_of_severity() -> None:
    facts = WELL
    for worst, fields in reversed(WRONG):
        facts = replace(facts, **fields)
        assert state(facts, POLICY)[0] == worst
        assert state(replace(WELL, **fields), POLICY)[0] == worst
    scale = [found for found, _ in WRONG]
    assert scale == list(CameraState)[: len(scale)]
    assert all(worse.severity < better.severity for worse, better in pairwise(CameraState))
    assert [each for each in CameraState if each.is_trouble] == scale[:4]


def test_a_camera_is_gone_after_a_day_whatever_else_is_wrong_unless_it_is_to_be_read() -> None:
    gone = replace(WELL, last_seen_s=T - GONE_S - 1.0, failure="its rows wait")
    assert state(gone, POLICY)[0] == CameraState.GONE
    assert state(gone, StatePolicy(gone_after_s=math.inf))[0] == CameraState.FAILING
    assert state(replace(gone, failure="", last_seen_s=T - GONE_S + 1.0), POLICY) == (
        CameraState.SILENT,
        "no image for 24 h",
    )


@pytest.mark.parametrize(
    ("pause_s", "policy", "from_s"),
    [(1.0, POLICY, 60.0), (30.0, POLICY, 300.0), (None, POLICY, 3_600.0), (None, StatePolicy(90.0, 2.0), 90.0)],
)
def test_it_is_silent_after_ten_usual_pauses_and_a_minute(
    pause_s: float | None, policy: StatePolicy, from_s: float
) -> None:
    at = replace(WELL, pause_s=pause_s, last_seen_s=T - from_s)
    assert state(at, policy)[0] == CameraState.OK
    assert state(replace(at, now_s=T + 0.5), policy)[0] == CameraState.SILENT


def test_images_that_wait_make_no_camera_silent_and_what_was_served_without_it_does() -> None:
    waits = replace(WELL, last_seen_s=T - 500.0, served_until_s=T - 450.0)
    assert state(waits, POLICY)[0] == CameraState.OK
    assert state(replace(waits, served_until_s=T - 400.0), POLICY) == (CameraState.SILENT, "no image for 8 min")


def test_a_camera_of_which_no_image_is_known_or_whose_video_is_over_is_silent() -> None:
    assert state(CameraFacts(T, None), POLICY) == (CameraState.SILENT, "no image yet")
    assert state(replace(WELL, is_over=True), POLICY) == (CameraState.SILENT, "its video is over")


def test_rejections_count_from_a_tenth_on() -> None:
    some = replace(WELL, images=91, rejected=10, reason="empty")
    assert state(some, POLICY)[0] == CameraState.OK
    assert state(replace(some, images=90), POLICY) == (
        CameraState.REJECTED,
        "10 of 100 images rejected in 5 min: empty",
    )


def test_a_change_is_a_tenth_of_alpha_or_a_reset_of_the_last_ten_minutes() -> None:
    moved = replace(WELL, alpha_before=0.2, alpha_now=0.31, condition="condition 2 returned")
    assert state(moved, POLICY) == (CameraState.CHANGED, "alpha went from 0.20 to 0.31, condition 2 returned")
    assert state(replace(moved, alpha_now=0.29), POLICY)[0] == CameraState.OK
    assert state(replace(moved, alpha_now=None), POLICY)[0] == CameraState.OK
    for reset, words in RESETS.items():
        assert state(replace(WELL, reset=reset, reset_s=T - 599.0), POLICY) == (CameraState.CHANGED, words)
        assert state(replace(WELL, reset=reset, reset_s=T - 600.0), POLICY)[0] == CameraState.OK
    assert state(replace(WELL, reset="settings_changed", reset_s=T), POLICY)[0] == CameraState.OK


def test_each_state_is_counted_the_worst_first() -> None:
    found = counted([CameraState.OK, CameraState.SILENT, CameraState.OK])
    assert list(found) == list(CameraState)
    assert {each: count for each, count in found.items() if count} == {CameraState.SILENT: 1, CameraState.OK: 2}
