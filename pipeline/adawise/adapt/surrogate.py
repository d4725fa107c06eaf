"""The surrogate: a time-varying Gaussian process over alpha, on the grid, as a Kalman filter.

The objective of batch t at alpha is modelled as  y = f_t(alpha) + b_t + noise.  f is a GP with the covariance s^2 *
Matern-5/2(|a - a'| / l) * rho^|t - t'|  (time-varying GP: Bogunovic, Scarlett and Cevher, 2016, arXiv 1601.06650; in
time it is a Matern-1/2).  b_t is an offset that all alphas of a batch share, how hard the batch is, independent between
batches.

On a grid of G alphas this is exactly a linear-Gaussian state space model (Hartikainen and Särkkä, 2010) with the
state [f(alpha_0..alpha_{G-1}), b], so prediction and update are those of Kalman (1960).

Two acquisition functions score candidates under its belief: expected improvement, and the knowledge gradient, which
also chooses how many images a probe evaluates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

KNOTS = 6  # alphas of an abridged curve, one every .2: a curve is smooth over .7

_SQRT_2 = math.sqrt(2.0)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)  # quadrature for an expectation over N(0, 1)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class Belief:
    """The posterior of the objective now: `mean` `[G + 1]` and `covariance` `[G + 1, G + 1]`, the offset last."""

    mean: Array
    covariance: Array

    def curve(self) -> tuple[Array, Array]:
        """Return posterior mean `[G]` and standard deviation `[G]` of f on the grid, nats, up to the common level."""
        variance = np.diagonal(self.covariance)[:-1]
        return self.mean[:-1], np.sqrt(np.maximum(variance, 0.0))

    def difference(self, j: int, i: int) -> tuple[float, float]:
        """Return mean and standard deviation of f(alpha_i) - f(alpha_j): the gain of going from i to j.

        Var(X - Y) = Var(X) + Var(Y) - 2 Cov(X, Y).
        """
        P = self.covariance
        variance = P[i, i] + P[j, j] - 2.0 * P[i, j]
        return float(self.mean[i] - self.mean[j]), math.sqrt(max(float(variance), 0.0))


@dataclass(frozen=True, eq=False)
class Abridged:
    """A belief about a curve at a few alphas, float32: `mean` `[K]` and the upper triangle of its `covariance`."""

    mean: npt.NDArray[np.float32]
    covariance: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Surrogate:
    """The prior over curves.

    Attributes:
        alphas: the grid, `[G]`.
        lengthscale: l, in alpha.
        signal_sd: s, nats.
        offset_sd: standard deviation of the offset, nats.
        persistence: rho, the correlation of f between one batch and the next.
    """

    alphas: tuple[float, ...]
    lengthscale: float = 0.7
    signal_sd: float = 0.25
    offset_sd: float = 0.22
    persistence: float = 0.997

    @cached_property
    def covariance(self) -> Array:
        """The prior covariance of f on the grid, `[G, G]` (Matern-5/2: Rasmussen and Williams, 2006, equation 4.17)."""
        a = np.asarray(self.alphas)
        r = math.sqrt(5.0) * np.abs(a[:, None] - a[None, :]) / self.lengthscale
        K: Array = self.signal_sd**2 * (1.0 + r + r**2 / 3.0) * np.exp(-r)
        return K

    def prior(self) -> Belief:
        """Return the belief before the first batch."""
        G = len(self.alphas)
        P = np.zeros((G + 1, G + 1))
        P[:G, :G] = self.covariance
        P[G, G] = self.offset_sd**2
        return Belief(np.zeros(G + 1), P)

    def advance(self, belief: Belief, batches: float = 1.0) -> Belief:
        """Return the belief that many batches later, before the new batch is evaluated (prediction: Kalman, 1960)."""
        rho = self.persistence**batches
        G = len(self.alphas)
        mean, P = np.zeros(G + 1), np.zeros((G + 1, G + 1))
        mean[:G] = rho * belief.mean[:G]
        P[:G, :G] = rho**2 * belief.covariance[:G, :G] + (1.0 - rho**2) * self.covariance
        P[G, G] = self.offset_sd**2
        return Belief(mean, P)

    def abridge(self, belief: Belief) -> Abridged:
        """Return the belief about the curve at six alphas; `restore` recovers nearly all of it."""
        covariance = belief.covariance[self._at_knots]
        return Abridged(belief.mean[self.knots].astype("f4"), covariance[self._upper].astype("f4"))

    def restore(self, abridged: Abridged) -> Belief:
        """Return the belief that has these moments at six alphas and follows the prior between them.

        With A = K_gk K_kk^-1 the covariance is A (P_kk - K_kk) A' + K: the posterior of a GP that is known at inducing
        points (Titsias, 2009).
        """
        G, K, A = len(self.alphas), self.covariance, self._between
        covariance = np.zeros((len(self.knots),) * 2)
        covariance[self._upper] = covariance.T[self._upper] = abridged.covariance
        mean, P = np.zeros(G + 1), np.zeros((G + 1, G + 1))
        mean[:G] = self.restored_mean(abridged)
        P[:G, :G] = A @ (covariance - K[self._at_knots]) @ A.T + K
        P = 0.5 * (P + P.T)  # exactly symmetric, because a state stores only one half
        P[G, G] = self.offset_sd**2
        return Belief(mean, P)

    def restored_mean(self, abridged: Abridged) -> Array:
        """Return the mean `[G]` of what `restore` returns."""
        mean: Array = self._between @ abridged.mean.astype("f8")
        return mean

    @cached_property
    def knots(self) -> npt.NDArray[np.int64]:
        """The indices of the six alphas, fewer on a smaller grid."""
        last = len(self.alphas) - 1
        return np.unique(np.linspace(0, last, min(KNOTS, last + 1)).round().astype(np.int64))

    @cached_property
    def _at_knots(self) -> tuple[npt.NDArray[np.int64], ...]:
        return np.ix_(self.knots, self.knots)

    @cached_property
    def _upper(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return np.triu_indices(len(self.knots))

    @cached_property
    def _between(self) -> Array:
        """The matrix `[G, K]` that maps values at the knots to the expected curve `[G]`.

        It is K_gk K_kk^-1, the mean of a GP given noiseless values (Rasmussen and Williams, 2006, equation 2.19).
        """
        K = self.covariance
        return np.asarray(np.linalg.solve(K[self._at_knots], K[self.knots]).T, dtype=np.float64)

    def observe(self, belief: Belief, index: int, value: float, noise_variance: float) -> Belief:
        """Return the belief after the objective of this batch at `alphas[index]` was `value` (update: Kalman, 1960)."""
        P = belief.covariance
        h = P[:, index] + P[:, -1]  # P (e_index + e_b)
        variance = h[index] + h[-1] + noise_variance
        gain = h / variance
        mean = belief.mean + gain * (value - belief.mean[index] - belief.mean[-1])
        P = P - np.outer(gain, h)
        return Belief(mean, 0.5 * (P + P.T))

    def observe_difference(self, belief: Belief, index: int, base: int, value: float, noise_variance: float) -> Belief:
        """Return the belief after f(alphas[index]) - f(alphas[base]) was `value` on the same images.

        The update is that of Kalman (1960), for one observation that is a difference of two entries of the state.

        The shared offset cancels, so the difference says something of the curve only, whatever the level of the batch.
        """
        P = belief.covariance
        h = P[:, index] - P[:, base]  # P (e_index - e_base)
        gain = h / (h[index] - h[base] + noise_variance)
        mean = belief.mean + gain * (value - belief.mean[index] + belief.mean[base])
        P = P - np.outer(gain, h)
        return Belief(mean, 0.5 * (P + P.T))


def log_density(belief: Belief, index: int, base: int, value: float, noise_variance: float) -> float:
    """Return the log density of such a difference before it is seen, up to a constant that all beliefs share.

    A Kalman filter's innovation is normal, and its density is the likelihood of the filter's model (Schweppe, 1965).
    """
    expected, sd = belief.difference(base, index)
    variance = sd**2 + noise_variance
    return -0.5 * math.log(variance) - 0.5 * (value - expected) ** 2 / variance


def mixed(first: Belief, second: Belief, weight: float) -> Belief:
    """Return one normal with the moments of a mixture: `second` with probability `weight`, else `first`.

    Moment matching is how filters with several models merge their modes (Blom and Bar-Shalom, 1988).
    """
    difference = second.mean - first.mean
    return Belief(
        (1.0 - weight) * first.mean + weight * second.mean,
        (1.0 - weight) * first.covariance
        + weight * second.covariance
        + weight * (1.0 - weight) * np.outer(difference, difference),
    )


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
