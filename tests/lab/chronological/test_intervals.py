"""How a recording's time is cut, what is trained on and what is tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adawise.errors import SettingsError
from adawise.labels.folders.samples import Taken
from adawise_lab.chronological.chronological import times_of
from adawise_lab.chronological.intervals import CameraTimes, Cut, PairTraining, parse_intervals, timeline, trainable
from tests.lab.chronological.site import BEGINS_US, DAY_US, Seen, write_site
from tests.labels.folders.reading import read

HOUR_US = 3_600_000_000


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("2", Cut(count=2)),
        ("1000", Cut(count=1000)),
        ("90s", Cut(length_us=90_000_000)),
        ("30m", Cut(length_us=HOUR_US // 2)),
        ("30d", Cut(length_us=720 * HOUR_US)),
        ("2w", Cut(length_us=336 * HOUR_US)),
    ],
)
def test_intervals_are_a_number_or_a_length(text: str, cut: Cut) -> None:
    assert parse_intervals(text) == cut


@pytest.mark.parametrize("text", ["1", "0", "1001", "9999999999", "0d", "-3", "3.5", "30 d", "30y", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="2 to 1000 intervals"):
        parse_intervals(text)


def test_a_number_cuts_the_time_from_the_first_image_to_the_last_equally() -> None:
    assert Cut(count=4).edges(100, 899) == (100, 300, 500, 700, 900)


def test_a_length_begins_with_the_first_image_and_the_last_interval_may_be_longer_than_the_recording() -> None:
    assert Cut(length_us=300).edges(100, 899) == (100, 400, 700, 1000)


@pytest.mark.parametrize(
    ("cut", "first", "last"),
    [(Cut(count=3), 5, 5), (Cut(length_us=1000), 0, 999), (Cut(length_us=1), 0, 1000)],
    ids=["no time passes", "one interval", "too many"],
)
def test_what_makes_no_two_intervals_or_too_many_is_refused(cut: Cut, first: int, last: int) -> None:
    with pytest.raises(SettingsError, match="expected 2 to 1000"):
        cut.edges(first, last)


@pytest.fixture
def times() -> CameraTimes:
    """Two cameras in three intervals of ten: the yard has nothing in the second."""
    cameras = ["yard", "gate", "gate", "yard", "gate", "yard", "gate"]
    at_us = [29, 10, 9, 0, 19, None, 20]
    return timeline(cameras, at_us, range(7), Cut(count=3))


def test_images_lie_in_their_cameras_intervals_in_the_order_of_time(times: CameraTimes) -> None:
    assert times.cameras == ("gate", "yard")
    assert times.edges_us == (0, 10, 20, 30)
    assert times.rows == {(0, 0): (2,), (0, 1): (1, 4), (0, 2): (6,), (1, 0): (3,), (1, 2): (0,)}
    assert [times.images(k) for k in range(3)] == [2, 2, 2]
    assert times.without_time == 1


def test_a_training_has_every_image_up_to_its_interval_and_none_after(times: CameraTimes) -> None:
    assert times.until(1, None) == [1, 2, 3, 4]
    assert times.until(1, 1) == [3]
    assert times.until(0, 0) == [2]


def test_one_model_is_trained_for_an_interval_or_one_for_each_camera_that_is_tested_in_it(times: CameraTimes) -> None:
    assert times.trainings("all") == [PairTraining(0, None, (0,)), PairTraining(1, None, (0, 1))]
    assert times.trainings("camera") == [PairTraining(0, 0, (0,)), PairTraining(1, 0, (0,)), PairTraining(1, 1, (1,))]


def test_an_image_that_is_left_out_is_in_no_interval() -> None:
    found = timeline(["gate"] * 4, [0, 1, 2, 3], [0, 2, 3], Cut(count=2))
    assert found.rows == {(0, 0): (0,), (0, 1): (2, 3)}


def test_images_without_any_time_are_refused() -> None:
    with pytest.raises(SettingsError, match="none of 2 labelled images has a time"):
        timeline(["gate", "gate"], [None, None], [0, 1], Cut(count=2))


@pytest.mark.parametrize(
    ("labels", "kept"),
    [("aabb", [0, 1, 2, 3]), ("aabbc", [0, 1, 2, 3]), ("aaab", []), ("aaaa", []), ("", [])],
)
def test_a_class_needs_two_images_and_a_training_two_classes(labels: str, kept: list[int]) -> None:
    assert trainable(range(len(labels)), labels) == kept


def test_the_captured_time_of_an_image_counts_and_else_that_of_its_message(tmp_path: Path) -> None:
    seen = [Seen("gate", 2.0, "red disc"), Seen("gate", None, "red disc"), Seen("gate", 0.0, "red disc")]
    samples = read(write_site(tmp_path / "site", seen))
    assert samples.captured_us == [BEGINS_US + 2 * DAY_US, None, BEGINS_US]
    without = times_of(samples, Cut(count=2))
    assert (without.rows, without.without_time) == ({(0, 0): (2,), (0, 1): (0,)}, 1)
    messages = replace(samples, taken=[Taken("gate", (BEGINS_US + DAY_US) // 1000)] * 3)
    assert times_of(messages, Cut(count=2)).rows == {(0, 0): (2,), (0, 1): (1, 0)}
