"""What labels that came late say an objective is wrong by: one bias over all conditions, or that it is right as it is.

The error at alpha under condition d is modelled as  error_d = k J_d + c_d + delta + e_d,  J_d the mean objective of the
labelled images: delta is a GP over alpha that all conditions share, e_d one of each condition's own, c_d any level. So
delta / k is what the objective has to be corrected by, in nats. A correction for each condition lost accuracy on
development data; what conditions have in common is safe, and mends an objective that over-confident weights deceive.
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
"""Of a condition: images of one batch show one thing, and what a condition varies by is known from its batches."""

EVIDENCE = 1.0
"""Nats that a common bias must be likelier than none: with less between them a sound pair lost by chance."""

_COMMON_SDS = (0.0, 0.02, 0.05, 0.1, 0.2)  # accuracy
_OWN_SDS = (0.05, 0.1)
_ONE_IMAGE = 0.022  # variance at least, of an image's error at one alpha beside those at others


@dataclass(frozen=True, eq=False)
class LabelledCondition:
    """n labelled images of one condition at G alphas: `objective` `[n, G]`, nats, and whether they are `wrong`.

    Those with the same number in `batches` `[n]` are of one batch.
    """

    name: str
    objective: Array
    wrong: Array
    batches: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.wrong)


@dataclass(frozen=True, eq=False)
class CommonBias:
    """What is to be added to the objective: `nats` `[G]`, mean 0, and its posterior standard deviation `sd` `[G]`.

    The nats are rather too small: what a condition's few images vary by is known from these alone, and alphas at which
    by chance the same ones are wrong count for too much. A covariance of all conditions together has no such pull, and
    served less on development data, most of all where the objective was right.
    `evidence` is by how much the labels are likelier with a common bias than without, of the logarithm; 0 and no nats
    where none is likeliest. `common_sd` and `own_sd` are the likeliest of the two processes, in accuracy.
    """

    nats: Array
    sd: Array
    evidence: float
    common_sd: float
    own_sd: float

    @property
    def is_clear(self) -> bool:
        """Whether the labels speak against the objective as it is."""
        return self.evidence > EVIDENCE


@dataclass(frozen=True)
class Choice:
    """What the objective chooses for the labelled images of a condition, and what it would with the bias of the others.

    `right` of `images` at both alphas.
    """

    condition: str
    images: int
    alphas: tuple[float, float]
    right: tuple[int, int]


class BiasModel:
    """The model over a grid; `errors_a_nat` is k, as of `objective.ERRORS_A_NAT`."""

    def __init__(self, alphas: Sequence[float], errors_a_nat: float) -> None:
        self.alphas, self._k = tuple(alphas), errors_a_nat

    def estimate(self, conditions: Sequence[LabelledCondition]) -> CommonBias:
        """The bias that the labels of these conditions make likeliest."""
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
        """For each condition, what is chosen without its own labels: with none, and with the bias of the others."""
        return tuple(
            self._choice(condition, self.estimate([*conditions[:i], *conditions[i + 1 :]]).nats)
            for i, condition in enumerate(conditions)
        )

    def _choice(self, condition: LabelledCondition, nats: Array) -> Choice:
        mean = condition.objective.mean(axis=0)
        before, after = int(mean.argmin()), int((mean + nats).argmin())
        right = [len(condition) - int(condition.wrong[:, j].sum()) for j in (before, after)]
        alphas = self.alphas[before], self.alphas[after]
        return Choice(condition.name, len(condition), alphas, (right[0], right[1]))

    @cached_property
    def _contrasts(self) -> Array:
        """An orthonormal basis `[G, G - 1]` of what is left of a curve without its level, which is any."""
        G = len(self.alphas)
        vectors: Array = np.linalg.svd(np.eye(G) - 1.0 / G)[0][:, : G - 1]
        return vectors

    @cached_property
    def _kernel(self) -> Array:
        Q = self._contrasts
        K: Array = Q.T @ Surrogate(self.alphas, signal_sd=1.0).covariance @ Q
        return K

    def _part(self, condition: LabelledCondition) -> tuple[Array, Array]:
        """The mean of error less k times objective, and its covariance by sampling, both without level.

        Both are of the same images, so their difference is what varies: from batch to batch, for images of a batch are
        alike. Where each is of another batch it is the covariance of images.
        """
        n, Q = len(condition), self._contrasts
        residual = condition.wrong - self._k * condition.objective
        mean = residual.mean(axis=0)
        _, batch, images = np.unique(condition.batches, return_inverse=True, return_counts=True)
        sums = np.zeros((len(images), len(mean)))
        np.add.at(sums, batch, residual - mean)
        sampling = len(images) / (len(images) - 1) * sums.T @ sums + _ONE_IMAGE * (images @ images) * np.eye(len(mean))
        return Q.T @ mean, Q.T @ sampling @ Q / n**2

    def _posterior(self, parts: Sequence[tuple[Array, Array]], common_sd: float, own_sd: float) -> _Posterior:
        """Of delta, conditions being independent given it; by matrices that stay regular where there is none."""
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
    mean: Array
    covariance: Array
    log_likelihood: float
    common_sd: float
    own_sd: float
