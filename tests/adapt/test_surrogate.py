from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.adapt.surrogate import Belief, Surrogate
from tests.adapt import dense

GRID = tuple(j / 10 for j in range(11))
SURROGATE = Surrogate(GRID)

trial = st.tuples(st.integers(0, 10), st.floats(-2.0, 2.0), st.floats(1e-4, 0.1))
batches = st.lists(st.lists(trial, max_size=4), min_size=1, max_size=6)


def filtered(surrogate: Surrogate, stream: list[list[tuple[int, float, float]]]) -> Belief:
    belief = surrogate.prior()
    for t, observations in enumerate(stream):
        belief = surrogate.advance(belief) if t else belief
        for index, value, noise in observations:
            belief = surrogate.observe(belief, index, value, noise)
    return belief


def assert_equal(belief: Belief, reference: Belief) -> None:
    np.testing.assert_allclose(belief.mean, reference.mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(belief.covariance, reference.covariance, rtol=0, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_the_filter_equals_the_dense_process_over_batches_with_trials_and_without(
    stream: list[list[tuple[int, float, float]]],
) -> None:
    trials = [dense.Trial(float(t), *observation) for t, batch in enumerate(stream) for observation in batch]
    assert_equal(filtered(SURROGATE, stream), dense.posterior(SURROGATE, trials, len(stream) - 1.0))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 2.0), st.floats(0.05, 0.5), st.floats(0.01, 0.5), st.floats(0.3, 0.999))
def test_the_filter_equals_the_dense_process_for_any_hyper_parameters(
    lengthscale: float, signal_sd: float, offset_sd: float, persistence: float
) -> None:
    surrogate = Surrogate(GRID, lengthscale, signal_sd, offset_sd, persistence)
    stream = [[(0, 0.3, 1e-3), (10, -0.2, 1e-3)], [], [(5, 0.1, 1e-2)], [(5, 0.2, 1e-3), (0, 0.4, 1e-3)]]
    trials = [dense.Trial(float(t), *observation) for t, batch in enumerate(stream) for observation in batch]
    assert_equal(filtered(surrogate, stream), dense.posterior(surrogate, trials, 3.0))


def test_advancing_by_many_batches_is_advancing_by_one_many_times() -> None:
    belief = filtered(SURROGATE, [[(0, 0.3, 1e-3), (7, -0.4, 1e-3)]])
    one_by_one = belief
    for _ in range(10):
        one_by_one = SURROGATE.advance(one_by_one)
    assert_equal(SURROGATE.advance(belief, 10.0), one_by_one)


def test_without_trials_the_belief_returns_to_the_prior() -> None:
    belief = filtered(SURROGATE, [[(0, 0.3, 1e-3), (7, -0.4, 1e-3)]])
    assert np.abs(belief.mean).max() > 0.1
    assert_equal(SURROGATE.advance(belief, 400.0), SURROGATE.prior())


def test_an_offset_that_all_alphas_share_moves_the_level_and_not_the_shape() -> None:
    low, high = ([[(0, 0.1 + b, 1e-4), (5, 0.0 + b, 1e-4), (10, 0.2 + b, 1e-4)]] for b in (0.0, 0.3))
    at_low, at_high = filtered(SURROGATE, low), filtered(SURROGATE, high)
    assert at_high.mean[-1] - at_low.mean[-1] > 0.1
    assert at_low.mean[:-1].argmin() == at_high.mean[:-1].argmin()
    without = dataclasses.replace(SURROGATE, offset_sd=1e-3)
    moved = np.ptp(filtered(without, high).mean[:-1] - filtered(without, low).mean[:-1])
    assert np.ptp(at_high.mean[:-1] - at_low.mean[:-1]) < moved


@given(batches)
@settings(max_examples=30, deadline=None)
def test_covariance_stays_symmetric_to_the_bit_and_without_negative_variance(
    stream: list[list[tuple[int, float, float]]],
) -> None:
    P = filtered(SURROGATE, stream).covariance
    np.testing.assert_array_equal(P, P.T)
    assert np.linalg.eigvalsh(P).min() > -1e-9


def test_the_curve_is_mean_and_sd_of_f_without_the_offset() -> None:
    belief = filtered(SURROGATE, [[(3, 0.2, 1e-3)]])
    mean, sd = belief.curve()
    np.testing.assert_array_equal(mean, belief.mean[:11])
    np.testing.assert_allclose(sd**2, np.diag(belief.covariance)[:11])


def test_the_difference_of_two_alphas_is_that_of_their_joint_distribution() -> None:
    belief = filtered(SURROGATE, [[(0, 0.5, 1e-3), (10, 0.1, 1e-3)]])
    gain, sd = belief.difference(10, 0)
    direction = np.zeros(12)
    direction[0], direction[10] = 1.0, -1.0
    assert math.isclose(gain, direction @ belief.mean)
    assert gain > 0.2  # from 0 to 10 the objective falls
    assert math.isclose(sd, math.sqrt(direction @ belief.covariance @ direction), rel_tol=1e-9)
    assert belief.difference(4, 4) == (0.0, 0.0)


def test_surprise_is_about_1_for_curves_that_the_prior_describes_and_blind_to_their_level() -> None:
    rng = np.random.default_rng(0)
    belief = SURROGATE.prior()
    root = np.linalg.cholesky(SURROGATE.covariance + 1e-12 * np.eye(11))
    values = []
    for _ in range(2000):
        f = root @ rng.standard_normal(11)
        trials = [(j, f[j] + rng.normal(0, 0.05), 0.05**2) for j in (0, 4, 10)]
        values.append(SURROGATE.surprise(belief, trials))
        lifted = [(j, value + 7.0, noise) for j, value, noise in trials]
        assert math.isclose(SURROGATE.surprise(belief, lifted), values[-1], rel_tol=1e-6, abs_tol=1e-9)
    assert abs(np.mean(values) - 1.0) < 0.1  # chi-square over its degrees of freedom; its sd here is .022


def test_surprise_is_large_where_the_curve_has_turned_over_and_0_for_one_trial() -> None:
    belief = SURROGATE.advance(filtered(SURROGATE, [[(0, 0.0, 1e-4), (10, 0.5, 1e-4)]]))
    assert SURROGATE.surprise(belief, [(0, 0.5, 1e-4), (10, 0.0, 1e-4)]) > 20.0
    assert SURROGATE.surprise(belief, [(0, 0.0, 1e-4), (10, 0.5, 1e-4)]) < 1.0
    assert SURROGATE.surprise(belief, [(0, 9.0, 1e-4)]) == 0.0
    assert SURROGATE.surprise(belief, []) == 0.0
