"""The intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from adawise.labels.arrays import concatenated
from adawise.labels.benefit.bootstrap import Kinds, intervals

Counts = npt.NDArray[np.int64]
SERVED, OWN = 0.8, 0.7  # mean accuracies of a batch


def batches(rng: np.random.Generator, count: int, images: int) -> tuple[Counts, Counts]:
    """How many are right as served and by the arm: a batch is hard or easy for both."""
    hard = rng.choice([-0.19, 0.19], count)
    return rng.binomial(images, SERVED + hard), rng.binomial(images, OWN + hard)


def kinds(images: Counts, served: Counts, own: Counts) -> Kinds:
    found, times = np.unique(np.stack([images, served, own]), axis=1, return_counts=True)
    return Kinds(found[0], found[1], found[2], times)


def coverage(*, by_image: bool) -> tuple[float, float]:
    """How often the intervals of accuracy and of gain hold the truth, in 400 draws of 60 batches of 16."""
    held = np.zeros(2)
    for seed in range(400):
        served, own = batches(np.random.default_rng(seed), 60, 16)
        if by_image:  # as if every image were a batch of its own
            alone = [np.concatenate([np.repeat([1, 0], [n, 16 - n]) for n in side]) for side in (served, own)]
            drawn = kinds(np.ones(960, np.int64), *alone)
        else:
            drawn = kinds(np.full(60, 16), served, own)
        accuracy, gain = intervals(drawn, seed=seed)
        held += [accuracy.low <= OWN <= accuracy.high, gain.low <= SERVED - OWN <= gain.high]
    return float(held[0] / 400), float(held[1] / 400)


def test_intervals_by_batch_hold_the_truth_19_times_of_20() -> None:
    """400 draws of a coin of .95 lie within .92 and .98 but once in a hundred times."""
    accuracy, gain = coverage(by_image=False)
    assert 0.92 <= accuracy <= 0.98
    assert 0.92 <= gain <= 0.98


def test_intervals_by_image_would_promise_too_much_of_an_accuracy() -> None:
    accuracy, _ = coverage(by_image=True)
    assert accuracy < 0.85


def test_the_bootstrap_of_kinds_is_that_of_the_batches() -> None:
    rng = np.random.default_rng(1)
    served, own = batches(rng, 80, 8)
    images = np.full(80, 8)
    merged = intervals(kinds(images, served, own), seed=0)
    single = intervals(Kinds(images, served, own, np.ones(80, np.int64)), seed=0)
    for one, other in zip(merged, single, strict=True):
        assert one.value == other.value
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.02)


def test_pairing_makes_the_gains_interval_narrower_than_the_accuracies() -> None:
    rng = np.random.default_rng(2)
    accuracy, gain = intervals(kinds(np.full(200, 16), *batches(rng, 200, 16)), seed=0)
    assert gain.high - gain.low < 0.7 * (accuracy.high - accuracy.low)


def test_images_count_alike_in_batches_of_different_sizes() -> None:
    found = Kinds(np.array([1, 9]), np.array([1, 0]), np.array([0, 9]), np.array([10, 10]))
    accuracy, gain = intervals(found, seed=0)
    assert (accuracy.value, gain.value) == (0.9, -0.8)
    assert found.total == 100


def test_ten_million_batches_are_as_quick_as_their_kinds() -> None:
    images = np.full(200, 16)
    served = np.arange(200) % 17
    many = concatenated([Kinds(images, served, served[::-1].copy(), np.full(200, 50_000))] * 2)
    assert many.batches == 20_000_000
    accuracy, _ = intervals(many, seed=0)
    assert accuracy.high - accuracy.low < 1e-3
