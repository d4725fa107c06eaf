"""Has the condition changed? The level of what is served, and two hypotheses about the curve.

A Kalman filter alone must choose between following a jump and averaging over many batches. Here the drift is slow and a
jump is a second hypothesis: the curve went on as believed, or it is a new draw from the prior. The served objective's
level, which costs nothing, and every difference that is looked at weigh the two; what remains at the end of a batch is
one normal with the mean and covariance of the mixture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Belief, Surrogate, log_density, mixed

_JUMP_SD = 0.5  # nats: by how much conditions differ in their level
_PRIOR_BATCHES = 4.0  # that the guess of the level's variance is worth
_GUESS = 1.5  # of that variance over that of independent images
_MEMORY = 0.95  # of the variance
_OUTLIER = 9.0  # variances: what lies further away counts as this
_LONGEST = 20  # batches that the mean remembers
_LEAST = 1e-4  # nats^2: no stream's level is steadier
_TELLS = 0.5  # probability that a jump shows in a level at all
_MOST = 100.0  # of twice the log of a likelihood ratio
CELLS = 64  # of the mix of classes; class c counts in cell c mod 64
_SIMILARITY_SD = 0.3  # by how much a new condition's mix is less like the old one
_SIMILARITY_VARIANCE = 0.01  # of one batch's likeness, until it is known


@dataclass(frozen=True)
class Level:
    """The served objective of this condition at this alpha: running `mean` over `batches`, nats.

    `variance` is of one batch about it, nats^2; it belongs to the stream (a camera that shows the same thing for a
    while varies more) and outlives the condition. 0 if not known yet.
    """

    mean: float = 0.0
    variance: float = 0.0
    batches: int = 0

    def evidence(self, value: float, independent: float, jump_sd: float = _JUMP_SD) -> float:
        """Log of how much more likely `value` is after a jump than without; `independent` as in `observed`."""
        if self.batches == 0:
            return 0.0
        steady = self._variance(independent) * (1.0 + 1.0 / self.batches)
        jumped = steady + jump_sd**2
        square = min((value - self.mean) ** 2 * (1.0 / steady - 1.0 / jumped), _MOST)
        return math.log(1.0 - _TELLS + _TELLS * math.exp(0.5 * square) * math.sqrt(steady / jumped))

    def observed(self, value: float, independent: float) -> Level:
        """The level after a batch at `value`; `independent` is the variance of the mean of independent images."""
        batches = min(self.batches + 1, _LONGEST)
        mean = self.mean + (value - self.mean) / batches
        if self.batches == 0:
            return Level(mean, self.variance, batches)
        square = (value - self.mean) ** 2 / (1.0 + 1.0 / self.batches)
        if self.variance == 0.0:
            variance = (_PRIOR_BATCHES * self._variance(independent) + square) / (_PRIOR_BATCHES + 1.0)
        else:
            variance = _MEMORY * self.variance + (1.0 - _MEMORY) * min(square, _OUTLIER * self.variance)
        return Level(mean, variance, batches)

    def shifted(self, by: float) -> Level:
        """The level expected at another alpha, `by` nats higher."""
        return replace(self, mean=self.mean + by)

    def restarted(self) -> Level:
        """The level of a new condition, of which nothing is known."""
        return replace(self, mean=0.0, batches=0)

    def _variance(self, independent: float) -> float:
        return max(self.variance or _GUESS * independent, _LEAST)


@dataclass(frozen=True)
class ClassMix:
    """Which classes are predicted in this condition: `shares` `[64]`, empty before the first batch.

    `likeness` is the running level of the cosine between a batch's shares and these. It costs nothing and tells of new
    content where the entropy's level does not; a camera whose classes come in runs varies more, which it learns.
    """

    shares: tuple[float, ...] = ()
    likeness: Level = field(default_factory=Level)

    def evidence(self, shares: Array) -> float:
        """As `Level.evidence`, of a batch's shares; a mix that is more alike than usual tells nothing."""
        if not self.shares or self.likeness.batches < 2:
            return 0.0
        value = min(self._cosine(shares), self.likeness.mean)
        return self.likeness.evidence(value, _SIMILARITY_VARIANCE, _SIMILARITY_SD)

    def observed(self, shares: Array) -> ClassMix:
        """The mix after a batch."""
        if not self.shares:
            return replace(self, shares=tuple(shares.tolist()))
        likeness = self.likeness.observed(self._cosine(shares), _SIMILARITY_VARIANCE)
        old = np.asarray(self.shares)
        return ClassMix(tuple((old + (shares - old) / (likeness.batches + 1)).tolist()), likeness)

    def restarted(self) -> ClassMix:
        """The mix of a new condition."""
        return ClassMix((), self.likeness.restarted())

    def _cosine(self, shares: Array) -> float:
        old = np.asarray(self.shares)
        return float(shares @ old / math.sqrt(float(shares @ shares) * float(old @ old)))


def class_shares(predicted: npt.NDArray[np.int64]) -> Array:
    """Shares of the predicted class indices `[n]` in the cells of a mix, `[64]`, sum 1."""
    shares: Array = np.bincount(predicted % CELLS, minlength=CELLS) / len(predicted)
    return shares


@dataclass(frozen=True)
class Hypotheses:
    """The curve `stayed` as it was believed, or with probability `jump` it is `jumped`: anew from the prior."""

    stayed: Belief
    jumped: Belief
    jump: float

    @cached_property
    def belief(self) -> Belief:
        """Both in one normal."""
        return mixed(self.stayed, self.jumped, self.jump) if self.jump > 0.0 else self.stayed

    def weighed(self, evidence: float) -> Hypotheses:
        """After something whose log likelihood ratio (jumped over stayed) is `evidence`."""
        if not 0.0 < self.jump < 1.0:
            return self
        odds = math.exp(min(max(evidence + math.log(self.jump / (1.0 - self.jump)), -50.0), 50.0))
        return replace(self, jump=odds / (1.0 + odds))

    def observed(self, surrogate: Surrogate, index: int, base: int, value: float, noise_variance: float) -> Hypotheses:
        """After a difference; see `Surrogate.observe_difference`."""
        observation = (index, base, value, noise_variance)
        evidence = log_density(self.jumped, *observation) - log_density(self.stayed, *observation)
        return replace(
            self.weighed(evidence),
            stayed=surrogate.observe_difference(self.stayed, *observation),
            jumped=surrogate.observe_difference(self.jumped, *observation),
        )
