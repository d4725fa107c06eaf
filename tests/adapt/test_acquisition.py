from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.surrogate import Belief, Surrogate, expected_improvement, knowledge_gradient

GRID = tuple(j / 10 for j in range(11))
SURROGATE = Surrogate(GRID, lengthscale=0.4, signal_sd=0.17, offset_sd=0.22, persistence=0.9)


def after(*trials: tuple[int, float]) -> Belief:
    belief = SURROGATE.prior()
    for index, value in trials:
        belief = SURROGATE.observe(belief, index, value, 1e-3)
    return belief


def test_it_is_the_mean_improvement_over_draws_from_the_joint_posterior() -> None:
    belief = after((0, 0.3), (10, 0.1), (4, 0.05))
    P = belief.covariance[:-1, :-1]
    draws = np.random.default_rng(0).multivariate_normal(belief.mean[:-1], P, size=400_000, method="eigh")
    monte_carlo = np.maximum(draws[:, [4]] - draws, 0.0).mean(axis=0)
    np.testing.assert_allclose(expected_improvement(belief, 4), monte_carlo, atol=5e-4)  # 5 standard errors


@given(st.lists(st.tuples(st.integers(0, 10), st.floats(-3.0, 3.0)), max_size=5), st.integers(0, 10))
def test_it_is_never_negative_always_finite_and_0_at_the_incumbent(
    trials: list[tuple[int, float]], incumbent: int
) -> None:
    gain = expected_improvement(after(*trials), incumbent)
    assert np.isfinite(gain).all()
    assert (gain >= 0.0).all()
    assert gain[incumbent] == 0.0


def test_with_the_ends_tried_it_looks_between_them_on_the_better_side() -> None:
    gain = expected_improvement(after((0, 0.4), (10, 0.1)), 10)
    assert 5 <= int(gain.argmax()) <= 9
    mirrored = expected_improvement(after((0, 0.1), (10, 0.4)), 0)
    assert int(mirrored.argmax()) == 10 - int(gain.argmax())


def test_noise_in_the_incumbents_value_promises_less_than_a_record_would() -> None:
    belief = after((5, 0.0))
    naive = np.zeros(12)
    naive[5] = belief.mean[5] + 0.3
    lucky = expected_improvement(Belief(naive, belief.covariance), 5)
    assert (lucky[[0, 10]] > expected_improvement(belief, 5)[[0, 10]]).all()
    certain = np.zeros((12, 12))
    np.testing.assert_allclose(expected_improvement(Belief(naive, certain), 5)[[0, 10]], naive[5], atol=1e-8)


def test_the_knowledge_gradient_is_how_much_lower_the_lowest_mean_gets_over_simulated_looks() -> None:
    belief, noise = after((0, 0.3), (10, 0.1)), np.array([[0.01, 0.1]])
    gains = knowledge_gradient(belief, 5, np.array([0]), noise)[0]
    expected, sd = belief.difference(5, 0)
    for gain, variance in zip(gains, noise[0], strict=True):
        outcomes = expected + np.hypot(sd, np.sqrt(variance)) * np.random.default_rng(0).standard_normal(4000)
        after_it = [SURROGATE.observe_difference(belief, 0, 5, y, variance).mean[:-1].min() for y in outcomes]
        # five standard errors of the simulation and the error of nine nodes
        np.testing.assert_allclose(gain, belief.mean[:-1].min() - np.mean(after_it), atol=4e-3)


def test_a_look_promises_more_with_less_noise_and_nothing_where_everything_is_known() -> None:
    belief = after((5, 0.0))
    gains = knowledge_gradient(belief, 5, np.array([0, 2, 10]), np.array([[1e-4, 0.02, 0.5]] * 3))
    assert (np.diff(gains, axis=1) < 0.0).all()
    assert (gains > 0.0).all()
    known = Belief(belief.mean, 1e-12 * np.eye(12))
    assert knowledge_gradient(known, 5, np.array([0, 10]), np.full((2, 1), 0.01)).max() < 1e-6
