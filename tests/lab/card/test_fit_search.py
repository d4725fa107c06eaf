from __future__ import annotations

import math

import numpy as np
import pytest

from adawise.adapt.surrogate import Surrogate
from adawise_lab.card.fit_search import LEAST_BATCHES, Curve, fit_search, log_likelihood, windows

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TRUTH = Surrogate(ALPHAS, lengthscale=0.4, signal_sd=0.17, offset_sd=0.1, persistence=0.85)


def simulate(truth: Surrogate, *, batches: int, streams: int, seed: int = 0, images: int = 32) -> list[list[Curve]]:
    """Streams drawn from the surrogate's own process, seen through images that differ more than their alphas do."""
    rng = np.random.default_rng(seed)
    L = np.linalg.cholesky(truth.covariance + 1e-10 * np.eye(len(ALPHAS)))
    rho = truth.persistence
    drawn = []
    for _ in range(streams):
        f, curves = L @ rng.normal(size=len(ALPHAS)), []
        for _ in range(batches):
            f = rho * f + math.sqrt(1.0 - rho**2) * (L @ rng.normal(size=len(ALPHAS)))
            level = 0.6 + truth.offset_sd * rng.normal()
            image = 0.15 * rng.normal(size=images)
            slope = 0.1 * np.outer(np.array(ALPHAS) - 0.5, rng.normal(size=images))  # images want different alphas
            own = 0.02 * rng.normal(size=(len(ALPHAS), images))
            curves.append(Curve.of((f + level)[:, None] + image + slope + own))
        drawn.append(curves)
    return drawn


@pytest.fixture(scope="module")
def recorded() -> list[list[Curve]]:
    return simulate(TRUTH, batches=24, streams=6)


@pytest.fixture(scope="module")
def fitted(recorded: list[list[Curve]]) -> Surrogate:
    return fit_search(recorded, ALPHAS)


@pytest.mark.parametrize(
    ("lengths", "most", "chosen"),
    [
        ([14, 14], 384, [(0, 0, 14), (1, 0, 14)]),
        ([14, 14], 14, [(0, 0, 14)]),
        ([14, 30, 13], 384, [(1, 0, 30)]),  # runs are as long as the longest stream allows
        ([3, 12], 384, [(1, 0, 12)]),
        ([1000, 500], 384, [(0, 48 * k, 48) for k in (0, 4, 8, 12, 17)] + [(1, 48 * k, 48) for k in (1, 5, 9)]),
        ([1000], 100, [(0, 0, 48), (0, 48 * 19, 48)]),
        ([1000], 20, [(0, 0, 20)]),
    ],
    ids=str,
)
def test_what_is_fitted_is_spread_over_all_there_is_in_runs_of_consecutive_batches(
    lengths: list[int], most: int, chosen: list[tuple[int, int, int]]
) -> None:
    found = windows(lengths, most)
    assert [(s, batches.start, batches.stop - batches.start) for s, batches in found] == chosen


def test_known_hyper_parameters_are_found_again(fitted: Surrogate) -> None:
    # 144 batches, some 20 of them independent at a memory of 6 batches: 16 % error of a standard deviation
    assert math.isclose(fitted.lengthscale, TRUTH.lengthscale, rel_tol=0.35)
    assert math.isclose(fitted.signal_sd, TRUTH.signal_sd, rel_tol=0.35)
    assert math.isclose(fitted.offset_sd, TRUTH.offset_sd, rel_tol=0.35)
    assert math.isclose(fitted.persistence, TRUTH.persistence, abs_tol=0.08)
    assert fitted.alphas == ALPHAS


def test_the_fitted_ones_are_likelier_than_those_that_the_search_begins_with_and_than_the_truth(
    recorded: list[list[Curve]], fitted: Surrogate
) -> None:
    likelihood = log_likelihood(recorded, fitted)
    assert likelihood > log_likelihood(recorded, Surrogate(ALPHAS))
    assert likelihood > log_likelihood(recorded, TRUTH) - 1e-3  # the priors may cost a little
    for name in ("lengthscale", "signal_sd", "offset_sd"):
        wrong = {"lengthscale": 0.4, "signal_sd": 0.17, "offset_sd": 0.1, "persistence": 0.85} | {name: 1.0}
        assert likelihood > log_likelihood(recorded, Surrogate(ALPHAS, **wrong)) + 0.01


@pytest.mark.check("lab")
def test_what_sampling_makes_of_a_still_curve_is_not_taken_for_movement() -> None:
    """Images of one still curve: without the covariance of sampling, the fit finds a larger curve that moves."""
    rng = np.random.default_rng(1)
    alphas = np.array(ALPHAS)
    still = 0.6 + 0.2 * (alphas - 0.3) ** 2

    def batch() -> Curve:
        images = 0.3 * np.outer(alphas - 0.5, rng.normal(size=16)) + 0.15 * rng.normal(size=16)
        return Curve.of(still[:, None] + images + 0.01 * rng.normal(size=(5, 16)))

    seen = [[batch() for _ in range(24)] for _ in range(3)]
    blind = [[Curve(curve.mean, np.zeros((5, 5))) for curve in stream] for stream in seen]
    honest, taken_in = fit_search(seen, ALPHAS), fit_search(blind, ALPHAS)
    assert honest.persistence > 0.97
    assert taken_in.persistence < 0.9
    assert taken_in.signal_sd > 1.5 * honest.signal_sd


@pytest.mark.parametrize("lengths", [[], [LEAST_BATCHES - 1] * 5])
def test_streams_that_are_too_short_are_refused_with_the_longest(lengths: list[int]) -> None:
    streams = [simulate(TRUTH, batches=n, streams=1)[0] for n in lengths]
    with pytest.raises(
        ValueError, match=rf"at least {LEAST_BATCHES} batches, the longest has {max(lengths, default=0)}"
    ):
        fit_search(streams, ALPHAS)


def test_a_curve_knows_how_uncertain_its_means_are() -> None:
    values = np.random.default_rng(0).normal(size=(3, 400)) * np.array([[1.0], [2.0], [0.5]])
    curve = Curve.of(values)
    np.testing.assert_allclose(curve.mean, values.mean(axis=1))
    np.testing.assert_allclose(np.diagonal(curve.covariance), np.array([1.0, 4.0, 0.25]) / 400, rtol=0.2)
