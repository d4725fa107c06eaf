"""What picks the next alpha: expected improvement on the grid."""

from __future__ import annotations

import math

import numpy as np

from pipeline.adapt.surrogate import Array, Belief

_SQRT_2 = math.sqrt(2.0)
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
