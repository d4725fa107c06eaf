"""The bias of an objective that late labels show: one for all conditions, or none.

The error at alpha under condition d is modelled as  error_d = k J_d + c_d + delta + e_d.  J_d is the mean objective of
the labelled images, delta a GP over alpha that all conditions share, e_d a GP of each condition's own, and c_d any
level. So delta / k is the correction of the objective, in nats. A correction for each condition lost accuracy on
development data. What conditions have in common is safe, and corrects an objective that over-confident weights deceive.

The model is our own (docs/decisions/formulas.md). The standard deviations of both processes are chosen by marginal
likelihood (Rasmussen and Williams, 2006, equation 5.8).
The unknown levels are projected out, as in restricted maximum likelihood (Patterson and Thompson, 1971).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Surrogate

LEAST_LABELS, LEAST_CONDITIONS = 100, 5
LEAST_BATCHES = 8
"""The fewest batches of a condition: its variance is known from batches only, for images of one show one thing."""

EVIDENCE = 1.0
"""The log likelihood ratio, nats, that a common bias needs: with less, a sound pair lost accuracy by chance."""

_COMMON_SDS = (0.0, 0.02, 0.05, 0.1, 0.2)  # of delta, in accuracy; 0 is no bias
_OWN_SDS = (0.05, 0.1)  # of e_d, in accuracy
_ONE_IMAGE = 0.022  # least variance of an image's error at one alpha, without what all alphas share


@dataclass(frozen=True, eq=False)
class LabelledCondition:
    """n labelled images of one condition at G alphas.

    Attributes:
        name: the condition.
        objective: `[n, G]`, nats.
        wrong: `[n, G]`, 1 where the prediction is wrong, else 0.
        batches: `[n]`; images with the same number are of one batch.
    """

    name: str
    objective: Array
    wrong: Array
    batches: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.wrong)


@dataclass(frozen=True, eq=False)
class CommonBias:
    """The bias that labels make likeliest.

    Its nats are rather too small: a condition's sampling covariance is estimated from its few images only, and alphas
    at which by chance the same images are wrong count for too much. A covariance pooled over all conditions has no such
    pull, and served less on development data, above all where the objective was right.

    Attributes:
        nats: `[G]`, what is to be added to the objective, mean 0; all 0 if no bias is likeliest.
        sd: `[G]`, posterior standard deviation of `nats`.
        evidence: by how much the log likelihood of the labels is higher with a common bias than without; 0 if no bias
            is likeliest.
        common_sd: the likeliest standard deviation of delta, in accuracy.
        own_sd: the likeliest standard deviation of e_d, in accuracy.
    """

    nats: Array
    sd: Array
    evidence: float
    common_sd: float
    own_sd: float

    @property
    def is_clear(self) -> bool:
        """True if the labels speak against the objective as it is."""
        return self.evidence > EVIDENCE


@dataclass(frozen=True)
class Choice:
    """The objective's choices for the labelled images of a condition: as it is, and with the bias of the others.

    Attributes:
        condition: its name.
        images: the number of its labelled images.
        alphas: the two choices.
        right: how many images are right at each.
    """

    condition: str
    images: int
    alphas: tuple[float, float]
    right: tuple[int, int]


class BiasModel:
    """The model over a grid; `errors_a_nat` is k, as in `objective.ERRORS_A_NAT`."""

    def __init__(self, alphas: Sequence[float], errors_a_nat: float) -> None:
        self.alphas, self._k = tuple(alphas), errors_a_nat

    def estimate(self, conditions: Sequence[LabelledCondition]) -> CommonBias:
        """Return the bias that the labels of these conditions make likeliest."""
        parts = [self._part(condition) for condition in conditions]
        found = [self._posterior(parts, common, own) for own in _OWN_SDS for common in _COMMON_SDS]
        best = max(found, key=lambda one: one.log_likelihood)
        without = max(one.log_likelihood for one in found if not one.common_sd)
        Q = self._contrasts
        variances = np.einsum("gi,ij,gj->g", Q, best.covariance, Q)
        return CommonBias(
            nats=Q @ best.mean / self._k,
            sd=np.sqrt(np.maximum(variances, 0.0)) / self._k,
            evidence=best.log_likelihood - without,
            common_sd=best.common_sd,
            own_sd=best.own_sd,
        )

    def cross_fitted(self, conditions: Sequence[LabelledCondition]) -> tuple[Choice, ...]:
        """Return each condition's choices without a bias and with the bias estimated from the other conditions."""
        return tuple(
            self._choice(condition, self.estimate([*conditions[:i], *conditions[i + 1 :]]).nats)
            for i, condition in enumerate(conditions)
        )

    def _choice(self, condition: LabelledCondition, nats: Array) -> Choice:
        """Return the condition's choices without and with these nats."""
        mean = condition.objective.mean(axis=0)
        before, after = int(mean.argmin()), int((mean + nats).argmin())
        right = [len(condition) - int(condition.wrong[:, j].sum()) for j in (before, after)]
        alphas = self.alphas[before], self.alphas[after]
        return Choice(condition.name, len(condition), alphas, (right[0], right[1]))

    @cached_property
    def _contrasts(self) -> Array:
        """An orthonormal basis `[G, G - 1]` of curves without their level."""
        G = len(self.alphas)
        vectors: Array = np.linalg.svd(np.eye(G) - 1.0 / G)[0][:, : G - 1]
        return vectors

    @cached_property
    def _kernel(self) -> Array:
        """The prior covariance of a curve without its level, `[G - 1, G - 1]`, at standard deviation 1."""
        Q = self._contrasts
        K: Array = Q.T @ Surrogate(self.alphas, signal_sd=1.0).covariance @ Q
        return K

    def _part(self, condition: LabelledCondition) -> tuple[Array, Array]:
        """Return the mean of error less k times objective, and its sampling covariance, both without level.

        Error and objective are of the same images, so the variance of their difference is what counts. It is taken
        between batches, because images of a batch are alike. If each image is of another batch, it is the covariance of
        images.
        """
        n, Q = len(condition), self._contrasts
        residual = condition.wrong - self._k * condition.objective
        mean = residual.mean(axis=0)
        _, batch, images = np.unique(condition.batches, return_inverse=True, return_counts=True)
        sums = np.zeros((len(images), len(mean)))
        np.add.at(sums, batch, residual - mean)
        # Summed by batch: the cluster form of the sandwich estimator (Liang and Zeger, 1986).
        sampling = len(images) / (len(images) - 1) * sums.T @ sums + _ONE_IMAGE * (images @ images) * np.eye(len(mean))
        return Q.T @ mean, Q.T @ sampling @ Q / n**2

    def _posterior(self, parts: Sequence[tuple[Array, Array]], common_sd: float, own_sd: float) -> _Posterior:
        """Return the posterior of delta, given which conditions are independent; regular also if `common_sd` is 0."""
        size = len(self._kernel)
        precision, weighted, log_likelihood = np.zeros((size, size)), np.zeros(size), 0.0
        for mean, sampling in parts:
            inverse = np.linalg.inv(sampling + own_sd**2 * self._kernel)
            precision += inverse
            weighted += inverse @ mean
            log_likelihood += 0.5 * (np.linalg.slogdet(inverse)[1] - mean @ inverse @ mean)
        prior = common_sd**2 * self._kernel
        both = np.eye(size) + prior @ precision
        delta = np.asarray(np.linalg.solve(both, prior @ weighted), dtype=np.float64)
        log_likelihood += 0.5 * (weighted @ delta - np.linalg.slogdet(both)[1])
        covariance = np.asarray(np.linalg.solve(both, prior), dtype=np.float64)
        return _Posterior(delta, covariance, float(log_likelihood), common_sd, own_sd)


@dataclass(frozen=True, eq=False)
class _Posterior:
    """The posterior of delta without level, with the standard deviations of the processes that it assumes."""

    mean: Array
    covariance: Array
    log_likelihood: float
    common_sd: float
    own_sd: float
