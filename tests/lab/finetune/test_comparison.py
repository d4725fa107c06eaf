"""theta_0 against theta_1, class by class, and what is called ruin."""

from __future__ import annotations

import pytest

from adawise_lab.finetune.train import Comparison

NAMES = ("cat", "dog", "fox")


def test_accuracies_by_class_stand_beside_the_numbers_of_images() -> None:
    found = Comparison([0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0])
    assert found.per_class(NAMES, [0, 0, 0, 1, 2]) == [
        {"name": "cat", "train": 3, "held_out": 2, "zero_shot": 0.5, "fine_tuned": 1.0},
        {"name": "dog", "train": 1, "held_out": 2, "zero_shot": 0.0, "fine_tuned": 0.5},
        {"name": "fox", "train": 1, "held_out": 0, "zero_shot": None, "fine_tuned": None},
    ]


def test_confusions_are_those_of_theta_1_the_most_frequent_first() -> None:
    found = Comparison([0, 0, 0, 1, 2], [0, 0, 1, 0, 2], [0] * 5, [1, 1, 0, 2, 2])
    assert found.confusions(NAMES) == [
        {"class": "cat", "taken_for": "dog", "images": 2, "of": 3, "zero_shot": 1},
        {"class": "dog", "taken_for": "fox", "images": 1, "of": 1, "zero_shot": 0},
    ]


def right(count: int, n: int) -> list[int]:
    return [0] * count + [1] * (n - count)


@pytest.mark.parametrize(
    ("before", "half", "after", "n", "expected"),
    [
        (80, 85, 90, 100, None),
        (80, 79, 76, 100, None),  # four images: chance
        (3, 0, 0, 3, None),  # all of three: too few to say
        (90, 95, 60, 100, "theta_1 is right on 60 of 100 held-out images, theta_0 was on 90"),
        (80, 20, 90, 100, "accuracy barrier: at alpha .5, 20 of 100 held-out images are right, at the worse end 80"),
        (10_000, 9950, 9950, 10_000, None),  # sure, and half a point
    ],
)
def test_ruin_is_more_than_a_point_and_more_than_chance(
    before: int, half: int, after: int, n: int, expected: str | None
) -> None:
    ruin = Comparison([0] * n, right(before, n), right(half, n), right(after, n)).ruin
    assert (ruin is None) is (expected is None)
    assert expected is None or expected in (ruin or "")
