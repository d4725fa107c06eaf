"""What picks the next alpha: expected improvement, and the knowledge gradient, which also says how many images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Belief

_SQRT_2 = math.sqrt(2.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_erf = np.frompyfunc(math.erf, 1, 1)


def expected_improvement(belief: Belief, incumbent: int) -> Array:
    """Expected gain over the incumbent alpha at each alpha of the grid, `[G]`, nats, >= 0 (minimising).

    EI of f(incumbent) - f(alpha) under their joint posterior: with the incumbent's own uncertainty in it, so that noise
    in its value is not taken for a record. Closed form of Jones, Schonlau, Welch (1998).
    """
    P, m = belief.covariance, belief.mean
    G = len(m) - 1
    variance = np.diagonal(P)[:G] + P[incumbent, incumbent] - 2.0 * P[incumbent, :G]
    sd = np.sqrt(np.maximum(variance, 1e-18))
    z = (m[incumbent] - m[:G]) / sd
    cdf = 0.5 * (1.0 + _erf(z / _SQRT_2).astype(np.float64))
    pdf = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    improvement: Array = np.maximum(sd * (z * cdf + pdf), 0.0)
    improvement[incumbent] = 0.0
    return improvement


def knowledge_gradient(belief: Belief, base: int, indices: npt.NDArray[np.int64], noise_variances: Array) -> Array:
    """What one more probe is expected to lower the best posterior mean by, `[J, S]`, nats, >= 0 (minimising).

    The probe is the difference of alpha `indices[j]` to `base`, with noise variance `noise_variances[j, s]`. Frazier,
    Powell, Dayanik (2009); the expectation over the outcome by Gauss-Hermite quadrature with 9 nodes. Unlike expected
    improvement it values what would change the choice between two alphas that both are uncertain.
    """
    P, m = belief.covariance[:-1, :-1], belief.mean[:-1]
    h = P[:, indices] - P[:, [base]]  # [G, J]
    prior = h[indices, np.arange(len(indices))] - h[base]  # [J], of the difference itself
    step = h.T[:, None, :] / np.sqrt(prior[:, None] + noise_variances)[..., None]  # [J, S, G] a standard deviation
    lowest = (m + step[..., None, :] * _NODES[:, None]).min(axis=-1)  # [J, S, nodes]
    gain: Array = np.maximum(m.min() - lowest @ _WEIGHTS, 0.0)
    return gain
