"""A camera's row: what it shows is of the last minutes, and its state is the worst that is true."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adawise.adapt.last_seen import KeptCondition, StateOutline
from adawise.records import TopicPartition
from adawise.watch.camera import LiveCamera
from adawise.watch.row import STEP_S, STEPS, CameraRow, CameraState, ConditionRow
from adawise.watch.state import StatePolicy
from adawise.worker.events import PartitionProgress

TP = TopicPartition("frames", 3)
CLASSES = ("car", "bus", "empty street")
T = 1_790_812_800.0


def a_camera(now_s: float = T) -> LiveCamera:
    return LiveCamera("north", TP, now_s)


def serve(
    camera: LiveCamera,
    now_s: float,
    alpha: float = 0.3,
    labels: tuple[int, ...] = (0, 0, 0, 1),
    fe: float = 1.0,
    off_list: int = 0,
) -> None:
    camera.served(
        now_s,
        alpha=alpha,
        forward_equivalents=fe,
        labels=labels,
        confidence=0.8,
        entropy=0.7,
        compared=4,
        agreed=3,
        reset=None,
        off_list=off_list,
    )


def row(
    camera: LiveCamera, now_s: float, *, failure: str = "", silent_after_s: float = 60.0, lag: int | None = 7
) -> CameraRow:
    partition = PartitionProgress(lag, 0, 0, blocked=False, paused=False, streams_evicted=0)
    policy = StatePolicy(silent_after_s, unknown_pause_s=0.0)
    return camera.row(camera.facts(now_s, failure=failure), policy, CLASSES, partition)


def test_a_row_tells_what_was_served_by_class_share_rate_and_cost() -> None:
    camera = a_camera()
    for second in range(0, 60, 4):
        serve(camera, T + second, fe=1.5)
    found = row(camera, T + 59.0)
    assert (found.stream_id, found.partition, found.key) == ("north", "frames/3", "frames/3/north")
    assert (found.state, found.why) == (CameraState.OK, "")
    assert [name for name, _ in found.classes] == ["car", "bus"]
    assert [share for _, share in found.classes] == pytest.approx([0.75, 0.25])
    assert found.images_per_s == pytest.approx(1.0, rel=0.03)
    assert found.forward_equivalents == pytest.approx(1.5)
    assert found.agreement == pytest.approx(0.75)
    assert found.confidence == pytest.approx(0.8)
    assert (found.images, found.rejected, found.lag, found.alpha) == (60, 0, 7, 0.3)


def test_images_off_the_shortlist_add_up() -> None:
    camera = a_camera()
    for off_list in (2, 0, 1):
        serve(camera, T, off_list=off_list)
    assert camera.off_list == 3


def test_a_batch_whose_logits_are_not_finite_leaves_entropy_and_confidence_as_the_others_have_them() -> None:
    camera, nan = a_camera(), math.nan
    broken: dict[str, Any] = {
        "alpha": 0.3,
        "forward_equivalents": 1.0,
        "labels": [0],
        "compared": 0,
        "agreed": 0,
        "reset": None,
    }
    camera.served(T, confidence=nan, entropy=nan, **broken)
    assert (camera.entropy, row(camera, T).confidence) == (None, None)
    serve(camera, T + 1.0)
    camera.served(T + 2.0, confidence=nan, entropy=nan, **broken)
    assert camera.entropy == pytest.approx(0.7)
    assert row(camera, T + 2.0).confidence == pytest.approx(0.8)


def test_a_condition_is_told_with_how_often_it_returned_and_why_alpha_moved() -> None:
    camera = a_camera()
    came = [camera.enter(T + n, *of) for n, of in enumerate([(0, False), (1, False), (0, True), (0, True), (1, True)])]
    assert came == ["", "new", "returned", "", "returned"]
    found = row(camera, T + 5.0)
    assert (found.condition, found.returns) == (1, 1)
    assert camera.enter(T + 6.0, 2, False) == "new"
    assert (row(camera, T + 6.0).condition, row(camera, T + 6.0).returns) == (2, 0)
    for number in range(3, 2_000):
        camera.enter(T + 6.0, number, False)
    camera.enter(T + 6.0, 1, True)
    assert row(camera, T + 6.0).returns == 1, "what no state remembers any more is forgotten here"


def test_conditions_are_listed_with_alpha_and_time_of_their_last_batch_the_current_one_first() -> None:
    camera = a_camera()
    for second, number, is_back, alpha in [
        (0, 0, False, 0.2),
        (4, 0, False, 0.3),
        (8, 1, False, 0.9),
        (12, 0, True, 0.4),
    ]:
        camera.enter(T + second, number, is_back)
        serve(camera, T + second, alpha)
    assert camera.conditions == [
        ConditionRow(0, 0.4, T + 12.0, returns=1, is_current=True),
        ConditionRow(1, 0.9, T + 8.0, returns=0, is_current=False),
    ]
    assert camera.conditions_seen == 2
    camera.forget_conditions()
    assert (camera.conditions, camera.conditions_seen) == ([], 0)
    assert camera.enter(T + 16.0, 0, False) == "", "it is the first one of a new state"
    assert [each.number for each in camera.conditions] == [0]


def test_conditions_of_the_state_are_known_before_the_first_batch_and_a_return_is_one_at_that_batch() -> None:
    camera = a_camera()
    camera.adopt(StateOutline(None))
    assert camera.conditions == []
    left = (KeptCondition(4, 1, None), KeptCondition(0, 9, 0.2))
    camera.adopt(StateOutline(None, KeptCondition(2, 3, 0.45), 7, left))
    assert camera.conditions == [
        ConditionRow(2, 0.45, None, returns=2, is_current=True),
        ConditionRow(0, 0.2, None, returns=8, is_current=False),
        ConditionRow(4, None, None, returns=0, is_current=False),
    ]
    assert (camera.conditions_seen, row(camera, T).condition, row(camera, T).returns) == (7, 2, 2)
    assert camera.enter(T + 5.0, 0, True) == "returned"
    serve(camera, T + 5.0, 0.2)
    assert camera.conditions[:2] == [
        ConditionRow(0, 0.2, T + 5.0, returns=9, is_current=True),
        ConditionRow(2, 0.45, None, returns=2, is_current=False),
    ]
    assert row(camera, T + 6.0).why == "condition 0 returned"


@pytest.mark.parametrize("is_back", [False, True])
def test_where_alpha_moved_the_condition_that_came_is_named_and_one_that_is_known_is_no_change(is_back: bool) -> None:
    camera = a_camera()
    found = set[tuple[CameraState, str]]()
    for second in range(0, 400, 4):
        if second in {0, 120}:
            camera.enter(T + second, second // 120, is_back and second > 0)
        serve(camera, T + second, alpha=0.2 if second <= 120 else 0.9)
        found.add((row(camera, T + second).state, row(camera, T + second).why[-24:]))
    if is_back:
        assert found == {(CameraState.OK, ""), (CameraState.OK, "condition 1 returned")}
    else:
        assert found >= {(CameraState.CHANGED, "to 0.90, condition 1 is new"[-24:]), (CameraState.OK, "")}


def test_alphas_are_means_of_steps_with_holes_where_nothing_came_and_end_with_the_last_batch() -> None:
    camera = a_camera()
    serve(camera, T, 0.2)
    serve(camera, T + 1.0, 0.6)
    serve(camera, T + 3 * STEP_S, 1.0)
    found = row(camera, T + 20 * STEP_S)
    assert found.first_step == int(T // STEP_S)
    assert found.alphas == (0.4, None, None, 1.0)


def test_steps_older_than_the_window_are_forgotten() -> None:
    camera = a_camera()
    serve(camera, T)
    serve(camera, T + (STEPS - 1) * STEP_S)
    assert len(row(camera, T + (STEPS - 1) * STEP_S).alphas) == STEPS
    serve(camera, T + (STEPS + 1) * STEP_S, 0.7)
    found = row(camera, T + (STEPS + 1) * STEP_S)
    assert len(found.alphas) == STEPS
    assert found.first_step == int(T // STEP_S) + 2
    serve(camera, T + 10 * STEPS * STEP_S, 0.9)
    found = row(camera, T + 10 * STEPS * STEP_S)
    assert (found.alphas, found.first_step) == ((0.9,), int(T // STEP_S) + 10 * STEPS)


def test_shares_fade_so_that_the_last_minutes_count_most() -> None:
    camera = a_camera()
    for second in range(60):
        serve(camera, T + second, labels=(2, 2, 2, 2), fe=3.0)
    for second in range(300, 360):
        serve(camera, T + second, labels=(0, 0, 0, 0), fe=1.0)
    found = row(camera, T + 360)
    assert dict(found.classes)["car"] > 0.95
    assert found.forward_equivalents == pytest.approx(1.0, abs=0.1)


def test_a_camera_is_silent_after_longer_than_is_set_and_longer_than_is_usual() -> None:
    camera = a_camera()
    serve(camera, T)
    assert row(camera, T + 59).state == CameraState.OK
    assert (row(camera, T + 61).state, row(camera, T + 61).why) == (CameraState.SILENT, "no image for 61 s")
    seldom = a_camera()
    for minute in range(10):
        serve(seldom, T + 60 * minute)
    assert row(seldom, T + 540 + 500).state == CameraState.OK
    assert row(seldom, T + 540 + 700).state == CameraState.SILENT


def test_rejections_count_from_a_tenth_of_the_last_five_minutes_on_and_name_the_last_reason() -> None:
    camera = a_camera()
    for second in range(30):
        serve(camera, T + second)
    for _ in range(13):
        camera.reject(T + 30, "too_large")
    assert row(camera, T + 31).state == CameraState.OK
    camera.reject(T + 31, "undecodable_image")
    found = row(camera, T + 31)
    assert found.state == CameraState.REJECTED
    assert found.why == "14 of 134 images rejected in 5 min: undecodable_image"
    serve(camera, T + 380)
    assert row(camera, T + 380).state == CameraState.OK


def test_a_level_that_moved_by_a_tenth_is_a_change_until_it_is_old() -> None:
    camera = a_camera()
    for second in range(0, 200, 5):
        serve(camera, T + second, 0.2)
    for second in range(200, 260, 5):
        serve(camera, T + second, 0.5)
    assert row(camera, T + 258).state == CameraState.CHANGED
    assert row(camera, T + 258).why == "alpha went from 0.20 to 0.50"
    for second in range(260, 800, 5):
        serve(camera, T + second, 0.5)
    assert row(camera, T + 800).state == CameraState.OK


def test_a_jump_is_a_change_for_ten_minutes() -> None:
    camera = a_camera()
    camera.served(
        T,
        alpha=0.5,
        forward_equivalents=1.0,
        labels=[0],
        confidence=0.5,
        entropy=0.7,
        compared=0,
        agreed=0,
        reset="jump",
    )
    for second in range(5, 700, 5):
        serve(camera, T + second, 0.5)
        assert (row(camera, T + second).state == CameraState.CHANGED) == (second < 600)


def test_what_keeps_its_partition_from_being_served_is_worst() -> None:
    camera = a_camera()
    camera.reject(T, "too_large")
    found = row(camera, T + 500, failure="its rows have waited 4 min to be written")
    assert (found.state, found.why) == (CameraState.FAILING, "its rows have waited 4 min to be written")
