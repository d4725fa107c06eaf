"""The acquisition functions of the search: expected improvement and the knowledge gradient.

Both score candidates under a `Belief` of the surrogate. The knowledge gradient also chooses how many images a probe
evaluates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Belief

_SQRT_2 = math.sqrt(2.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # quadrature for an expectation over N(0, 1)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_erf = np.frompyfunc(math.erf, 1, 1)


def expected_improvement(belief: Belief, incumbent: int) -> Array:
    """Return the expected improvement over the incumbent at each alpha of the grid, `[G]`, nats, >= 0 (minimising).

    The closed form is that of Jones, Schonlau and Welch (1998, equation 15), applied to f(incumbent) - f(alpha) under
    their joint posterior. The incumbent's own uncertainty is part of it, so noise in its value does not pass for a
    record.
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
    """Return how much one more probe is expected to lower the best posterior mean, `[J, S]`, nats, >= 0 (minimising).

    This is the knowledge gradient for correlated beliefs (Frazier, Powell and Dayanik, 2009). Its expectation over the
    outcome is computed by Gauss-Hermite quadrature with 9 nodes (Abramowitz and Stegun, 1964, formula 25.4.46). Unlike
    expected improvement it values a probe that would change the choice between two alphas of which both are uncertain.

    Args:
        belief: the posterior before the probe.
        base: index of the alpha that probes are compared with; an outcome is a difference to it on the same images.
        indices: `[J]`, indices of the alphas to probe.
        noise_variances: `[J, S]`, nats^2: noise of the mean difference, for each alpha and each size of the probe.
    """
    P, m = belief.covariance[:-1, :-1], belief.mean[:-1]
    h = P[:, indices] - P[:, [base]]  # [G, J]
    prior = h[indices, np.arange(len(indices))] - h[base]  # [J], prior variance of the difference
    # How far the outcome moves each mean, per standard deviation of the outcome.
    step = h.T[:, None, :] / np.sqrt(prior[:, None] + noise_variances)[..., None]  # [J, S, G]
    lowest = (m + step[..., None, :] * _NODES[:, None]).min(axis=-1)  # [J, S, nodes]
    gain: Array = np.maximum(m.min() - lowest @ _WEIGHTS, 0.0)
    return gain
