"""Has the condition changed? The level of what is served, and hypotheses about the curve.

A Kalman filter alone must choose between following a change and averaging over many batches. Here these are several
hypotheses: the curve stayed as believed, it drifted further than it does from batch to batch in most streams, it is
that of a condition that was seen before, or it is a new draw from the prior. How the pixels look, the served
objective's level and every difference that is looked at weigh them; what remains at the end of a batch is one normal
with the mean and covariance of the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Belief, Surrogate, log_density, mixed

_JUMP_SD = 0.5  # nats: by how much conditions differ in their level
_PRIOR_BATCHES = 4.0  # that the guess of the level's variance is worth
_GUESS = 1.5  # of that variance over that of independent images
_MEMORY = 0.95  # of the variance
_OUTLIER, _BEGAN = 9.0, 4.0  # variances: what lies further away counts as this, and where a condition seems to begin
_LONGEST = 20  # batches that the mean remembers
_LEAST = 1e-4  # nats^2: no stream's level is steadier
LEAST_SHARE = 0.1
"""Of the variance that independent images give a batch: what a stream learns is never less. It is in keys of states."""
_TELLS = 0.5  # probability that a jump shows in a level at all
_MOST = 100.0  # of twice the log of a likelihood ratio
CELLS = 64  # of the mix of classes; class c counts in cell c mod 64
_NEGLIGIBLE = 1e-6  # probability: leaves no trace in the belief
_MOST_APART = 50.0  # of the logs of two probabilities
_SIMILARITY_SD = 0.3  # by how much a new condition's mix is less like the old one
_SIMILARITY_VARIANCE = 0.01  # of one batch's likeness, until it is known


@dataclass(frozen=True)
class Level:
    """The served objective of this condition at this alpha: running `mean` over `batches`, nats.

    `variance` is of one batch about it, nats^2; it belongs to the stream (a camera that shows the same thing for a
    while varies more) and outlives the condition. 0 if not known yet. It has a floor, for it grows by two fifths a
    batch at most: a camera that showed one picture for hours would else take hundreds of batches of the next scene for
    jumps.
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

    def evidence_of_return(self, value: float, independent: float, expected: float, variance: float) -> float:
        """As `evidence`, for a condition in which `expected` was likely, with `variance` beside that of a batch."""
        if self.batches == 0:
            return 0.0
        steady = self._variance(independent) * (1.0 + 1.0 / self.batches)
        known = self._variance(independent) + variance
        squares = min((value - self.mean) ** 2 / steady, _MOST) - min((value - expected) ** 2 / known, _MOST)
        log_ratio = 0.5 * (squares + math.log(steady / known))
        unknown = self.evidence(value, independent)  # a condition that returns may have another level by now
        return float(np.logaddexp(math.log(1.0 - _TELLS) + unknown, math.log(_TELLS) + log_ratio))

    def observed(self, value: float, independent: float) -> Level:
        """The level after a batch at `value`; `independent` is the variance of the mean of independent images."""
        batches = min(self.batches + 1, _LONGEST)
        mean = self.mean + (value - self.mean) / batches
        if self.batches == 0:
            return Level(mean, self.variance, batches)
        return Level(mean, self._learned(value, independent, _OUTLIER), batches)

    def shifted(self, by: float) -> Level:
        """The level expected at another alpha, `by` nats higher."""
        return replace(self, mean=self.mean + by)

    def restarted(self, value: float | None = None, independent: float = 0.0) -> Level:
        """The level of another condition, of which nothing is known, and whose first batch is at `value`.

        That the batch is far away may be for another reason: that batches vary more than is known.
        """
        if value is None or self.batches == 0:
            return replace(self, mean=0.0, batches=0)
        return Level(0.0, self._learned(value, independent, _BEGAN), 0)

    def _learned(self, value: float, independent: float, farthest: float) -> float:
        square = (value - self.mean) ** 2 / (1.0 + 1.0 / self.batches)
        if self.variance == 0.0:
            before = self._variance(independent)
            return (_PRIOR_BATCHES * before + min(square, farthest * before)) / (_PRIOR_BATCHES + 1.0)
        least = max(LEAST_SHARE * independent, _LEAST)
        before = max(self.variance, least)  # states of earlier versions may have less
        return max(_MEMORY * before + (1.0 - _MEMORY) * min(square, farthest * before), least)

    def _variance(self, independent: float) -> float:
        return max(self.variance or _GUESS * independent, LEAST_SHARE * independent, _LEAST)


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
    """What the curve may be: it stayed as it was believed or drifted, it is that of a condition known before, or new.

    `beliefs` in this order, the first `same` of them in the condition of before; `logs` of how probable they are, up to
    a constant.
    """

    beliefs: tuple[Belief, ...]
    logs: tuple[float, ...]
    same: int = 1

    @cached_property
    def probabilities(self) -> Array:
        """Of each, sum 1."""
        weights = np.exp(np.asarray(self.logs) - max(self.logs))
        probabilities: Array = weights / weights.sum()
        return probabilities

    @cached_property
    def jump(self) -> float:
        """The probability that the condition is another one."""
        return float(1.0 - self.probabilities[: self.same].sum()) if len(self.beliefs) > self.same else 0.0

    @property
    def drifted(self) -> float:
        """The probability that it drifted, if the condition is the same; nan without that hypothesis."""
        stayed, drifted = self.logs[: self.same] if self.same > 1 else (math.nan, math.nan)
        return 1.0 / (1.0 + math.exp(min(stayed - drifted, _MOST_APART)))

    @property
    def likeliest(self) -> int:
        """The place of the most probable of the other conditions."""
        return self.same + int(self.probabilities[self.same :].argmax())

    @cached_property
    def belief(self) -> Belief:
        """All in one normal."""
        sum_, belief = 0.0, None
        for probability, other in zip(self.probabilities, self.beliefs, strict=True):
            if probability > _NEGLIGIBLE:
                sum_ += probability
                belief = other if belief is None else mixed(belief, other, probability / sum_)
        assert belief is not None  # they sum to 1
        return belief

    def weighed(self, evidence: Sequence[float]) -> Hypotheses:
        """After something whose log likelihoods under each are `evidence`, up to a constant."""
        if len(self.beliefs) == 1:
            return self
        logs = [log + e for log, e in zip(self.logs, evidence, strict=True)]
        least = max(logs) - _MOST_APART
        return replace(self, logs=tuple(max(log, least) for log in logs))

    def observed(self, surrogate: Surrogate, index: int, base: int, value: float, noise_variance: float) -> Hypotheses:
        """After a difference; see `Surrogate.observe_difference`."""
        observation = (index, base, value, noise_variance)
        each = {id(belief): belief for belief in self.beliefs}  # what is too improbable to differ is one object
        logs = {key: log_density(belief, *observation) for key, belief in each.items()}
        after = {key: surrogate.observe_difference(belief, *observation) for key, belief in each.items()}
        weighed = self.weighed([logs[id(belief)] for belief in self.beliefs])
        return replace(weighed, beliefs=tuple(after[id(belief)] for belief in self.beliefs))

    def jumped(self) -> Hypotheses:
        """What they are if it is known that the condition is another one."""
        same, others = self.logs[: self.same], self.logs[self.same :]
        if not others:
            return self
        less = max(0.0, max(same) - max(others) + _MOST_APART)
        return replace(self, logs=(*(log - less for log in same), *others))
