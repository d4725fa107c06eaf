"""Detection of a changed condition: the level of the served objective, and hypotheses about the curve.

A Kalman filter alone must choose between following a change and averaging over many batches. So there are several
hypotheses: the curve stayed as believed; it drifted further than it does from batch to batch in most streams; it is
that of a condition seen before; or it is a new draw from the prior. The last two are jumps. Their prior probability is
a hazard, as in online changepoint detection (Adams and MacKay, 2007). Appearance statistics, the served objective's
level and every probed difference weigh the hypotheses. At the end of a batch they are merged into one normal with the
mean and covariance of the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from adawise.adapt.surrogate import Array, Belief, Surrogate, log_density, mixed

_JUMP_SD = 0.5  # nats: standard deviation of the level between conditions
_PRIOR_BATCHES = 4.0  # weight of the guess of the level's variance
_GUESS = 1.5  # that guess, over the variance of independent images
_MEMORY = 0.95  # share of the variance that is kept, per batch
_OUTLIER, _BEGAN = 9.0, 4.0  # most variances that one batch counts; the second where a condition seems to begin
_LONGEST = 20  # batches that the mean averages over
_LEAST = 1e-4  # nats^2: floor of the variance of a level
LEAST_SHARE = 0.1
"""The least variance of a level, as a share of what independent images would give; keys of states contain it."""
_SHOWS = 0.5  # probability that a jump shows in the level
_MOST = 100.0  # cap on twice the log of a likelihood ratio
CELLS = 64  # cells of a class mix; class c counts in cell c mod 64
_NEGLIGIBLE = 1e-6  # probability below which a hypothesis is left out of the merged belief
_MOST_DIFFERENCE = 50.0  # cap on the difference of two log probabilities
_SIMILARITY_SD = 0.3  # by how much the cosine drops in a new condition
_SIMILARITY_VARIANCE = 0.01  # variance of one batch's cosine, until it is learned


@dataclass(frozen=True)
class Level:
    """The served objective of this condition at this alpha, in nats.

    The variance belongs to the stream and outlives the condition: a camera that shows the same thing for a while varies
    more. It has a floor because it grows by two fifths per batch at most. Without the floor, a camera that showed one
    picture for hours would take hundreds of batches of the next scene for jumps.

    Attributes:
        mean: running mean over `batches`.
        variance: of one batch about the mean, nats^2; 0 until it is known.
        batches: batches in the mean, at most 20.
    """

    mean: float = 0.0
    variance: float = 0.0
    batches: int = 0

    def evidence(self, value: float, independent: float, jump_sd: float = _JUMP_SD) -> float:
        """Return the log likelihood ratio of `value`, after a jump over without one.

        Args:
            value: the level of the batch, nats.
            independent: variance of the batch's mean if its images were independent, nats^2.
            jump_sd: standard deviation of the level between conditions.
        """
        if self.batches == 0:
            return 0.0
        steady = self._variance(independent) * (1.0 + 1.0 / self.batches)
        jumped = steady + jump_sd**2
        square = min((value - self.mean) ** 2 * (1.0 / steady - 1.0 / jumped), _MOST)
        return math.log(1.0 - _SHOWS + _SHOWS * math.exp(0.5 * square) * math.sqrt(steady / jumped))

    def evidence_of_return(self, value: float, independent: float, expected: float, variance: float) -> float:
        """Return the log likelihood ratio of `value`, if a known condition returned over no jump.

        Args:
            value: the level of the batch, nats.
            independent: as in `evidence`.
            expected: the level expected in the known condition.
            variance: the variance of `expected`, to which that of a batch is added.
        """
        if self.batches == 0:
            return 0.0
        steady = self._variance(independent) * (1.0 + 1.0 / self.batches)
        known = self._variance(independent) + variance
        squares = min((value - self.mean) ** 2 / steady, _MOST) - min((value - expected) ** 2 / known, _MOST)
        log_ratio = 0.5 * (squares + math.log(steady / known))
        unknown = self.evidence(value, independent)  # the level of a returned condition may have changed
        return float(np.logaddexp(math.log(1.0 - _SHOWS) + unknown, math.log(_SHOWS) + log_ratio))

    def observed(self, value: float, independent: float) -> Level:
        """Return the level after a batch at `value`; `independent` as in `evidence`."""
        batches = min(self.batches + 1, _LONGEST)
        mean = self.mean + (value - self.mean) / batches
        if self.batches == 0:
            return Level(mean, self.variance, batches)
        return Level(mean, self._learned(value, independent, _OUTLIER), batches)

    def shifted(self, by: float) -> Level:
        """Return the level expected at another alpha, where the objective is `by` nats higher."""
        return replace(self, mean=self.mean + by)

    def restarted(self, value: float | None = None, independent: float = 0.0) -> Level:
        """Return the level of a new condition, of which nothing is known yet; its first batch is at `value`.

        The batch may lie far from the old mean because batches vary more than was learned, so the variance learns from
        it.
        """
        if value is None or self.batches == 0:
            return replace(self, mean=0.0, batches=0)
        return Level(0.0, self._learned(value, independent, _BEGAN), 0)

    def _learned(self, value: float, independent: float, farthest: float) -> float:
        """Return the variance after a batch at `value`, which counts as `farthest` variances at most."""
        square = (value - self.mean) ** 2 / (1.0 + 1.0 / self.batches)
        if self.variance == 0.0:
            before = self._variance(independent)
            return (_PRIOR_BATCHES * before + min(square, farthest * before)) / (_PRIOR_BATCHES + 1.0)
        least = max(LEAST_SHARE * independent, _LEAST)
        before = max(self.variance, least)  # states of earlier versions may have less
        return max(_MEMORY * before + (1.0 - _MEMORY) * min(square, farthest * before), least)

    def _variance(self, independent: float) -> float:
        """Return the variance of one batch: the learned one or the guess, and not below the floor."""
        return max(self.variance or _GUESS * independent, LEAST_SHARE * independent, _LEAST)


@dataclass(frozen=True)
class ClassMix:
    """The mix of predicted classes in this condition.

    It costs no forward, and shows new content where the level of the entropy does not. A camera whose classes come in
    runs varies more, which `likeness` learns.

    Attributes:
        shares: running shares of the cells, `[64]`; empty before the first batch.
        likeness: running level of the cosine between a batch's shares and these.
    """

    shares: tuple[float, ...] = ()
    likeness: Level = field(default_factory=Level)

    def evidence(self, shares: Array) -> float:
        """Return the log likelihood ratio as `Level.evidence`; a batch that is more alike than usual is no evidence."""
        if not self.shares or self.likeness.batches < 2:
            return 0.0
        value = min(self._cosine(shares), self.likeness.mean)
        return self.likeness.evidence(value, _SIMILARITY_VARIANCE, _SIMILARITY_SD)

    def observed(self, shares: Array) -> ClassMix:
        """Return the mix after a batch."""
        if not self.shares:
            return replace(self, shares=tuple(shares.tolist()))
        likeness = self.likeness.observed(self._cosine(shares), _SIMILARITY_VARIANCE)
        old = np.asarray(self.shares)
        return ClassMix(tuple((old + (shares - old) / (likeness.batches + 1)).tolist()), likeness)

    def restarted(self) -> ClassMix:
        """Return the mix of a new condition."""
        return ClassMix((), self.likeness.restarted())

    def _cosine(self, shares: Array) -> float:
        """Return the cosine between a batch's shares and those of the mix."""
        old = np.asarray(self.shares)
        return float(shares @ old / math.sqrt(float(shares @ shares) * float(old @ old)))


def class_shares(predicted: npt.NDArray[np.int64]) -> Array:
    """Return the shares of predicted class indices `[n]` in the cells of a mix, `[64]`, sum 1."""
    shares: Array = np.bincount(predicted % CELLS, minlength=CELLS) / len(predicted)
    return shares


@dataclass(frozen=True)
class Hypotheses:
    """The hypotheses about the curve: it stayed or drifted, it is that of a known condition, or it is new.

    Attributes:
        beliefs: a belief for each hypothesis, in this order.
        logs: log probability of each, up to a constant.
        same: how many of them, from the first on, mean that the condition is the same.
    """

    beliefs: tuple[Belief, ...]
    logs: tuple[float, ...]
    same: int = 1

    @cached_property
    def probabilities(self) -> Array:
        """The probability of each hypothesis, sum 1."""
        weights = np.exp(np.asarray(self.logs) - max(self.logs))
        probabilities: Array = weights / weights.sum()
        return probabilities

    @cached_property
    def jump(self) -> float:
        """The probability that the condition is another one."""
        return float(1.0 - self.probabilities[: self.same].sum()) if len(self.beliefs) > self.same else 0.0

    @property
    def drifted(self) -> float:
        """The probability that the curve drifted, given that the condition is the same; nan without that hypothesis."""
        stayed, drifted = self.logs[: self.same] if self.same > 1 else (math.nan, math.nan)
        return 1.0 / (1.0 + math.exp(min(stayed - drifted, _MOST_DIFFERENCE)))

    @property
    def likeliest(self) -> int:
        """The index of the most probable hypothesis that is a jump."""
        return self.same + int(self.probabilities[self.same :].argmax())

    @cached_property
    def belief(self) -> Belief:
        """The mixture as one normal."""
        # Merged one by one, each with its share of the probability so far: the moments are those of the whole mixture.
        sum_, belief = 0.0, None
        for probability, other in zip(self.probabilities, self.beliefs, strict=True):
            if probability > _NEGLIGIBLE:
                sum_ += probability
                belief = other if belief is None else mixed(belief, other, probability / sum_)
        assert belief is not None  # they sum to 1
        return belief

    def weighed(self, evidence: Sequence[float]) -> Hypotheses:
        """Return the hypotheses after evidence: a log likelihood under each, up to a constant."""
        if len(self.beliefs) == 1:
            return self
        logs = [log + e for log, e in zip(self.logs, evidence, strict=True)]
        least = max(logs) - _MOST_DIFFERENCE
        return replace(self, logs=tuple(max(log, least) for log in logs))

    def observed(self, surrogate: Surrogate, index: int, base: int, value: float, noise_variance: float) -> Hypotheses:
        """Return the hypotheses after a probed difference; see `Surrogate.observe_difference`."""
        observation = (index, base, value, noise_variance)
        each = {id(belief): belief for belief in self.beliefs}  # improbable hypotheses share one belief
        logs = {key: log_density(belief, *observation) for key, belief in each.items()}
        after = {key: surrogate.observe_difference(belief, *observation) for key, belief in each.items()}
        weighed = self.weighed([logs[id(belief)] for belief in self.beliefs])
        return replace(weighed, beliefs=tuple(after[id(belief)] for belief in self.beliefs))

    def jumped(self) -> Hypotheses:
        """Return the hypotheses given that the condition is another one."""
        same, others = self.logs[: self.same], self.logs[self.same :]
        if not others:
            return self
        less = max(0.0, max(same) - max(others) + _MOST_DIFFERENCE)
        return replace(self, logs=(*(log - less for log in same), *others))
