"""Means over cameras, differences, shares and intervals, from cells that can be counted by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from adawise_lab.chronological.result import (
    BEST_EACH,
    ChronologicalResult,
    Setting,
    calibration_error,
    flicker,
    macro_recall,
    result_of,
)
from adawise_lab.chronological.served import NAMES, ServedCell, ServedWay
from adawise_lab.evaluate.bench import Quality
from adawise_lab.evaluate.references import BEST_FIXED, FINE_TUNED, ZERO_SHOT

ALPHAS = (0.0, 0.5, 1.0)


def right(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each image is right: + or -."""
    return np.array([mark == "+" for mark in text])


def cell(camera: int, interval: int, *, zero: str, tuned: str, half: str, **more: object) -> ServedCell:
    """A cell whose zero-shot, fine-tuned and half-way predictions are right as the texts say; all others are half."""
    marks: Mapping[str, str] = {ZERO_SHOT: zero, FINE_TUNED: tuned}
    n = len(zero)
    hits = {name: right(marks.get(name, half)) for name in NAMES}
    answers = {
        ServedWay(name): Quality(ok, np.full(n, 0.5), np.full(n, 2.0), (~ok).astype(np.int32))
        for name, ok in hits.items()
    }
    by_alpha = np.stack([right(zero), right(half), right(tuned)])
    labels = np.zeros(n, dtype=np.int64)
    return ServedCell(camera, interval, labels, by_alpha, answers, dict.fromkeys(NAMES, 1.0), **more)  # type: ignore[arg-type]


def result(*cells: ServedCell, cameras: int = 2) -> ChronologicalResult:
    names = tuple(f"camera {c}" for c in range(cameras))
    setting = Setting(names, (0, 1, 2, 3), (9, 9, 9), ALPHAS, "all", keeps=False, scene="off", trainings=())
    return result_of(cells, setting)


@pytest.fixture
def two() -> ChronologicalResult:
    """Camera 0 was tested twice, with 4 images and with 2; camera 1 once."""
    return result(
        cell(0, 1, zero="++--", half="++++", tuned="+---"),
        cell(0, 2, zero="--", half="--", tuned="++"),
        cell(1, 2, zero="+++-", half="++--", tuned="----"),
    )


def test_a_camera_is_the_mean_over_its_intervals_and_cameras_have_equal_weight(two: ChronologicalResult) -> None:
    assert two.camera_accuracy(ZERO_SHOT).tolist() == [0.25, 0.75]
    assert two.row(ZERO_SHOT).accuracy == 0.5
    assert two.row(FINE_TUNED).accuracy == pytest.approx((0.625 + 0.0) / 2)
    assert two.row("warm").accuracy == 0.5  # .5 and .5


def test_regret_to_zero_shot_has_its_sign(two: ChronologicalResult) -> None:
    assert two.row(FINE_TUNED).versus[ZERO_SHOT].difference == pytest.approx(0.3125 - 0.5)
    assert ZERO_SHOT not in two.row(ZERO_SHOT).versus


def test_a_camera_is_below_zero_shot_if_its_own_mean_is(two: ChronologicalResult) -> None:
    assert two.row(FINE_TUNED).below_zero_shot == 0.5  # camera 1 alone
    assert two.row("warm").below_zero_shot == 0.5
    assert two.row(ZERO_SHOT).below_zero_shot == 0.0


def test_the_best_fixed_alpha_is_one_for_all_and_the_best_of_each_cell_is_no_worse(two: ChronologicalResult) -> None:
    best = two.row(BEST_FIXED)
    assert best.alpha == 0.0  # zero-shot and .5 have the same mean; the lower one is taken
    assert best.accuracy == 0.5
    assert two.row(BEST_EACH).accuracy == pytest.approx(((1.0 + 1.0) / 2 + 0.75) / 2)
    assert two.row("warm").versus[BEST_EACH].difference == pytest.approx(0.5 - 0.875)


def test_the_curve_is_a_mean_over_the_cameras_of_each_interval(two: ChronologicalResult) -> None:
    first, *tested = two.row(ZERO_SHOT).by_interval
    assert np.isnan(first)
    assert tested == [0.5, 0.375]
    assert two.tested_intervals == [1, 2]


def test_without_a_pair_every_alpha_serves_what_zero_shot_does() -> None:
    one = cell(0, 1, zero="+-", half="+-", tuned="+-", has_pair=False)
    found = result(replace(one, by_alpha=one.by_alpha[:1]), cameras=1)
    assert found.unpaired == 2
    assert found.row(BEST_FIXED).accuracy == found.row(BEST_EACH).accuracy == 0.5


def test_intervals_are_over_cameras_and_rows_share_the_drawn_ones() -> None:
    many = result(*(cell(c, 1, zero="+-", half="++", tuned="+-" if c % 2 else "--") for c in range(20)), cameras=20)
    tuned, warm = many.row(FINE_TUNED), many.row("warm")
    low, high = tuned.versus[ZERO_SHOT].ci
    # The difference is 0 or -.5, as often: a mean of 20 has a standard deviation of .056.
    assert low == pytest.approx(-0.25 - 0.11, abs=0.03)
    assert high == pytest.approx(-0.25 + 0.11, abs=0.03)
    assert warm.versus[ZERO_SHOT].ci == (0.5, 0.5)  # every camera gains as much, whichever are drawn
    low, high = tuned.below_zero_shot_ci
    assert low < tuned.below_zero_shot == 0.5 < high


def test_one_camera_has_no_intervals() -> None:
    one = result(cell(0, 1, zero="+-", half="++", tuned="--"), cameras=1).row(FINE_TUNED)
    assert one.versus[ZERO_SHOT].difference == -0.5
    for ci in (one.versus[ZERO_SHOT].ci, one.accuracy_ci, one.below_zero_shot_ci, one.macro_recall_ci):
        assert np.isnan(ci or ()).tolist() == [True, True]


def test_a_camera_that_was_not_tested_counts_nowhere(two: ChronologicalResult) -> None:
    three = result(*(cell(c, 1, zero="++", half="+-", tuned="--") for c in (0, 2)), cameras=3)
    assert three.tested == 2
    assert three.row(FINE_TUNED).below_zero_shot == 1.0
    assert two.tested == 2
    assert {each["camera"] for each in three.as_json()["cells"]} == {"camera 0", "camera 2"}


def test_the_cost_is_a_mean_over_images_and_counts_shared_layers_once() -> None:
    few = cell(0, 1, zero="+-", half="+-", tuned="+-", tail_share=0.25)
    many = cell(1, 1, zero="+-+-+-", half="+-+-+-", tuned="+-+-+-", tail_share=0.25)
    dear = replace(few, forwards={**few.forwards, "warm": 5.0})
    row = result(dear, many).row("warm")
    assert row.forwards == (2 * 5.0 + 6 * 1.0) / 8
    assert row.forward_cost == (2 * 2.0 + 6 * 1.0) / 8


def test_macro_recall_weighs_classes_and_not_images() -> None:
    assert macro_recall(right("+++-+-"), np.array([7, 7, 7, 7, 2, 2])) == pytest.approx((0.75 + 0.5) / 2)


def test_the_calibration_error_is_that_of_confidence_over_accuracy() -> None:
    assert calibration_error(right("++--"), np.full(4, 0.9)) == pytest.approx(0.4)
    assert calibration_error(right("+-"), np.array([1.0, 0.0])) == 0.0


def test_flicker_is_over_the_neighbours_of_all_cells_together(two: ChronologicalResult) -> None:
    # Every image has label 0, and is predicted as 0 where it is right, else as 1.
    assert two.row(ZERO_SHOT).flicker == (1 + 0 + 1) / (3 + 1 + 3)
    assert two.row(FINE_TUNED).flicker == (1 + 0 + 0) / (3 + 1 + 3)
    assert two.row(BEST_FIXED).flicker is None
    labels, predicted = np.array([4, 4, 5, 5]), np.array([4, 5, 4, 4], dtype=np.int32)
    assert flicker([(labels, predicted)]) == 0.5
    assert flicker([(labels[1:3], predicted[1:3])]) is None
