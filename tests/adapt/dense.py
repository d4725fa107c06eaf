"""The surrogate's model written down a second time, as a dense Gaussian process: what the Kalman form must equal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adawise.adapt.surrogate import Array, Belief, Surrogate


@dataclass(frozen=True)
class Trial:
    """The objective of batch `time` at `alphas[index]` came out as `value`."""

    time: float
    index: int
    value: float
    noise: float


def curve_covariance(surrogate: Surrogate, a: float, s: float, b: float, t: float) -> float:
    """cov(f_s(a), f_t(b)), by the formula."""
    d = abs(a - b) / surrogate.lengthscale
    matern = (1 + math.sqrt(5) * d + 5 * d * d / 3) * math.exp(-math.sqrt(5) * d)
    return float(surrogate.signal_sd**2 * matern * surrogate.persistence ** abs(s - t))


def posterior(surrogate: Surrogate, trials: list[Trial], time: float) -> Belief:
    """Mean and covariance of [f_time(grid), b_time] given the trials."""
    alphas = surrogate.alphas
    f, offset = curve_covariance, surrogate.offset_sd**2

    def observed(x: Trial, y: Trial) -> float:
        K = f(surrogate, alphas[x.index], x.time, alphas[y.index], y.time)
        return K + offset * (x.time == y.time) + x.noise * (x is y)

    prior = np.zeros((len(alphas) + 1, len(alphas) + 1))
    prior[:-1, :-1] = [[f(surrogate, a, 0.0, b, 0.0) for b in alphas] for a in alphas]
    prior[-1, -1] = offset
    if not trials:
        return Belief(np.zeros(len(alphas) + 1), prior)
    cross = np.array([[f(surrogate, a, time, alphas[x.index], x.time) for x in trials] for a in alphas])
    cross = np.vstack([cross, [offset * (x.time == time) for x in trials]])  # [G + 1, n]
    K = np.array([[observed(x, y) for y in trials] for x in trials])
    y: Array = np.array([x.value for x in trials])
    return Belief(cross @ np.linalg.solve(K, y), prior - cross @ np.linalg.solve(K, cross.T))
