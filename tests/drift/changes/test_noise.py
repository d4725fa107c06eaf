from __future__ import annotations

import numpy as np
import pytest

from adawise_drift.changes.find import block_means, long_run_variance
from tests.drift.series import holding


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_independent_values_have_their_own_variance(rng: np.random.Generator) -> None:
    found = long_run_variance(rng.normal(0.0, 0.3, 20_000), prior=1.0, prior_weight=0.0)
    assert 0.08 < found < 0.2  # .09 truly; the largest of several scales is above it


def test_values_that_are_kept_have_a_multiple_of_it(rng: np.random.Generator) -> None:
    x = holding(rng, 50_000, sd=0.1, hold=30.0)
    truly = 0.1**2 * 2 * 30
    assert 0.6 * truly < long_run_variance(x, prior=1.0, prior_weight=0.0) < 2.0 * truly


def test_steps_do_not_count_as_noise(rng: np.random.Generator) -> None:
    x = rng.normal(0.0, 0.3, 20_000)
    stepped = x + np.repeat([0.0, 3.0, -2.0, 5.0], 5_000)
    still, moved = (long_run_variance(values, prior=0.1, prior_weight=5.0) for values in (x, stepped))
    assert moved < 2.5 * still


def test_a_short_series_is_believed_as_far_as_it_goes() -> None:
    assert long_run_variance(np.zeros(50), prior=0.7, prior_weight=5.0) == 0.7
    assert 0.0 < long_run_variance(np.zeros(50_000), prior=0.7, prior_weight=5.0) < 0.7


def test_blocks_are_means_and_the_last_may_be_shorter() -> None:
    assert block_means(np.arange(7.0), 3).tolist() == [1.0, 4.0, 6.0]


def test_levels_that_last_for_thousands_of_values_are_no_noise_however_long_the_series(
    rng: np.random.Generator,
) -> None:
    levels = np.repeat(rng.uniform(0.1, 0.9, 50), 4_000)
    found = long_run_variance(levels + holding(rng, len(levels), sd=0.1), prior=1.0, prior_weight=0.0)
    assert found < 2.0 * 0.1**2 * 2 * 30
