from __future__ import annotations

import dataclasses
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.surrogate import Belief, Surrogate, log_density, mixed
from tests.adapt import dense

GRID = tuple(j / 10 for j in range(11))
SURROGATE = Surrogate(GRID, lengthscale=0.4, signal_sd=0.17, offset_sd=0.22, persistence=0.9)

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


@given(batches)
def test_the_filter_equals_the_dense_process_over_batches_with_trials_and_without(
    stream: list[list[tuple[int, float, float]]],
) -> None:
    trials = [dense.Trial(float(t), *observation) for t, batch in enumerate(stream) for observation in batch]
    assert_equal(filtered(SURROGATE, stream), dense.posterior(SURROGATE, trials, len(stream) - 1.0))


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


def test_a_difference_is_what_two_trials_of_one_batch_tell_when_nothing_is_known_of_the_level() -> None:
    belief = filtered(SURROGATE, [[(0, 0.3, 1e-3), (10, -0.2, 1e-3)], []])
    unlevelled = dataclasses.replace(SURROGATE, offset_sd=1e3)  # so large that only the difference says anything
    start = unlevelled.advance(belief, 0.0)
    separate = unlevelled.observe(unlevelled.observe(start, 2, 5.0, 0.004), 8, 5.3, 0.006)
    together = SURROGATE.observe_difference(belief, 8, 2, 0.3, 0.01)
    np.testing.assert_allclose(together.mean[:-1], separate.mean[:-1], atol=1e-6)
    np.testing.assert_allclose(together.covariance[:-1, :-1], separate.covariance[:-1, :-1], atol=1e-6)
    assert together.mean[-1] == belief.mean[-1]
    np.testing.assert_array_equal(together.covariance, together.covariance.T)


def test_the_density_of_a_difference_is_the_normal_one_up_to_its_constant() -> None:
    belief = filtered(SURROGATE, [[(0, 0.3, 1e-3), (10, -0.2, 1e-3)]])
    values = np.linspace(-4.0, 4.0, 4001)
    density = np.exp([log_density(belief, 0, 10, value, 0.02) for value in values]) / math.sqrt(2 * math.pi)
    step = values[1] - values[0]
    assert math.isclose(density.sum() * step, 1.0, rel_tol=1e-3)
    expected, sd = belief.difference(10, 0)
    mean = (density * values).sum() * step
    assert math.isclose(mean, expected, abs_tol=1e-3)
    assert math.isclose((density * (values - mean) ** 2).sum() * step, sd**2 + 0.02, rel_tol=1e-3)


def test_a_mixture_has_the_mean_and_covariance_of_its_draws() -> None:
    first, second = (filtered(SURROGATE, [[(0, value, 1e-3)]]) for value in (0.4, -0.6))
    rng = np.random.default_rng(0)
    parts = [
        rng.multivariate_normal(b.mean, b.covariance, size=size, method="eigh")
        for b, size in ((first, 140_000), (second, 60_000))
    ]
    draws = np.concatenate(parts)
    mixture = mixed(first, second, 0.3)
    np.testing.assert_allclose(mixture.mean, draws.mean(axis=0), atol=5e-3)  # 5 standard errors
    np.testing.assert_allclose(mixture.covariance, np.cov(draws.T), atol=5e-3)
