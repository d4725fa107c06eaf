"""The appearance of a stream and the conditions it has seen: a camera that has seen a night recognises the next.

Appearance statistics, those of a batch's pixels (`decode.statistics`), cost no forward and change with light, weather,
dirt and focus. They are evidence before the first forward. Let phi be the batch's mean of each of the five statistics,
w the variance of a batch's mean about that of its condition, and q the probability that a stream looks different
although nothing else has changed. The likelihoods are

    stayed      (1 - q) N(phi; mean of this condition, w (1 + 1 / batches)) + q N(phi; mean of all, their variance + w)
    returned    N(phi; mean of that condition, w (1 + 1 / batches))
    new         N(phi; mean of all batches, their variance + w)

Each normal is raised to the power of .6, because the five statistics are not independent and no batch is like another.
A camera that adjusts its exposure or pans has a high q. The stream learns q from what probes say: the more often its
look changes alone, the less its pixels count. This likelihood is our own, not the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from adawise.adapt.disagreement import Disagreement
from adawise.adapt.surrogate import Abridged, Array

_TEMPER = 0.6  # the power of a normal
_LEAST = -1.0  # floor of the evidence for a new condition
_RESTLESS_AT_FIRST, _RESTLESS = 0.01, (0.002, 0.2)  # q at first, and its bounds
_RESTLESS_BATCHES = (6.0, 40.0)  # batches that q averages over while it rises, and while it falls
_FARTHEST = 25.0  # most variances that a batch counts as away from the current condition
_REMEMBERED = 8  # batches that the mean of a condition averages over
_LEARNED_FROM = 1  # batches of a condition, after which w is learned
_PRIOR_BATCHES = 4.0  # weight of the guess of w
_MEMORY = 0.97  # share of w that is kept, per batch
_OUTLIER = 9.0  # most variances that one batch counts when w is learned
_OVERALL = 300  # batches that the mean and variance of all average over
BETWEEN = np.array([0.5, 0.4, 0.25, 0.12, 0.3])  # sd of the statistics between conditions, until a stream has its own
_FLOOR = 1e-4  # least variance
_GUESS = 2.0  # w at first, over the variance of independent images
_MINDED = 3  # batches that a condition must have lasted to be remembered


@dataclass(frozen=True, eq=False)
class Appearance:
    """The appearance of a batch: mean and variance of the pixel statistics over its `images`, each float64 `[5]`."""

    mean: Array
    variance: Array
    images: int

    @classmethod
    def of(cls, mean: Sequence[float], variance: Sequence[float], images: int) -> Appearance:
        """Return the appearance from plain numbers, five of each."""
        return cls(np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64), images)

    @property
    def error(self) -> Array:
        """The variance `[5]` that the mean would have if images were independent."""
        return self.variance / self.images


@dataclass(frozen=True, eq=False)
class LearnedAppearance:
    """The learned appearance of a stream: that of its current condition and that of all its batches; see the module.

    Attributes:
        mean: `[5]`, mean of the current condition.
        spread: `[5]`, w: the variance of a batch's mean about that of its condition.
        overall_mean: `[5]`, running mean of all batches.
        overall_variance: `[5]`, running variance of all batches.
        batches: batches in `mean`, at most 8.
        overall_batches: batches of the stream with an appearance.
        restless: q.
    """

    mean: Array
    spread: Array
    overall_mean: Array
    overall_variance: Array
    batches: int = 1
    overall_batches: int = 1
    restless: float = _RESTLESS_AT_FIRST

    @classmethod
    def of_first(cls, appearance: Appearance) -> LearnedAppearance:
        """Return the looks after the first batch of a stream."""
        spread = _GUESS * appearance.error + _FLOOR
        return cls(appearance.mean, spread, appearance.mean, appearance.variance + _FLOOR)

    def evidence(self, appearance: Appearance, known: Sequence[KnownCondition]) -> list[float]:
        """Return log likelihood ratios over having stayed, for each condition in `known` and then for a new one."""
        if self.batches < 2:
            return [0.0] * (len(known) + 1)
        stayed, other = self._stayed(appearance)
        returned: list[float] = []
        if known:
            means, batches = np.stack([k.appearance for k in known]), np.array([[k.batches] for k in known])
            returned = _log_normals(appearance.mean, means, self._spread(appearance) * (1.0 + 1.0 / batches)).tolist()
        either = float(np.logaddexp(stayed, other))
        new = other - math.log(self.restless)
        return [*(log - either for log in returned), max(new - either, _LEAST)]

    def _stayed(self, appearance: Appearance) -> tuple[float, float]:
        """Return log likelihoods of a batch of the same condition: one that looks as before, and one that does not."""
        phi, spread = appearance.mean, self._spread(appearance)
        stayed = float(_log_normals(phi, self.mean, spread * (1.0 + 1.0 / self.batches), _FARTHEST))
        new = float(_log_normals(phi, self.overall_mean, np.maximum(self.overall_variance, BETWEEN**2) + spread))
        return math.log1p(-self.restless) + stayed, math.log(self.restless) + new

    def _spread(self, appearance: Appearance) -> Array:
        """Return the variance of this batch's mean: that of the stream, or more if the batch is unusually small."""
        return np.maximum(self.spread, appearance.error)

    def observed(self, appearance: Appearance, stayed: float = 0.0) -> LearnedAppearance:
        """Return the looks after another batch of this condition; it is the previous one with probability `stayed`."""
        phi, total = appearance.mean, self.overall_batches + 1
        share = 1.0 / min(total, _OVERALL)
        difference = phi - self.overall_mean
        residual, spread = phi - self.mean, self.spread
        turned = self._turned(appearance, stayed)
        # If the look alone has changed, the mean of the condition begins anew.
        before = 0 if turned > 0.5 else self.batches
        if before >= _LEARNED_FROM:
            spread = self._learned(residual)
        batches = min(before + 1, _REMEMBERED)
        return LearnedAppearance(
            mean=self.mean + residual / batches,
            spread=np.maximum(spread, _FLOOR),
            overall_mean=self.overall_mean + share * difference,
            overall_variance=self.overall_variance + share * (difference**2 - self.overall_variance),
            batches=batches,
            overall_batches=total,
            restless=self._learned_restless(turned),
        )

    def moved(
        self, to: KnownCondition | None, appearance: Appearance | None = None, stayed: float = 0.0
    ) -> LearnedAppearance:
        """Return the looks after a jump into the known condition `to`; None is a new condition.

        If every batch seems to begin another condition, it is w that is wrong, so w learns from the jump as well. With
        probability `stayed` the condition is the previous one all the same; then the look changed alone, and q rises.

        Args:
            to: the condition that returned.
            appearance: that of its first batch.
            stayed: probability that the condition is the same.
        """
        spread, restless = self.spread, self.restless
        if appearance is not None and self.batches >= _LEARNED_FROM:
            spread = np.maximum(self._learned(appearance.mean - self.mean), _FLOOR)
            restless = self._learned_restless(self._turned(appearance, stayed))
        if to is not None:
            return replace(self, mean=to.appearance, batches=to.batches, spread=spread, restless=restless)
        return replace(self, batches=0, spread=spread, restless=restless)

    def _turned(self, appearance: Appearance, stayed: float) -> float:
        """Return the probability that only the look changed; `stayed` is that of the condition being the same."""
        if self.batches < 2:
            return self.restless  # one batch does not show how a condition looks
        as_before, other = self._stayed(appearance)
        return stayed / (1.0 + math.exp(min(as_before - other, 50.0)))

    def _learned_restless(self, turned: float) -> float:
        """Return q after a batch whose look changed alone with probability `turned`."""
        least, most = _RESTLESS
        learned = self.restless + (turned - self.restless) / _RESTLESS_BATCHES[turned < self.restless]
        return min(max(learned, least), most)

    def _learned(self, residual: Array) -> Array:
        """Return w after a batch whose mean is `residual` away from that of its condition."""
        share = max(1.0 - _MEMORY, 1.0 / (self.overall_batches + _PRIOR_BATCHES))
        squares = np.minimum(residual**2 / (1.0 + 1.0 / self.batches), _OUTLIER * self.spread)
        learned: Array = self.spread + share * (squares - self.spread)
        return learned


@dataclass(frozen=True, eq=False)
class KnownCondition:
    """A condition that is over, as a stream remembers it; mostly in half precision, because a state has many of them.

    Attributes:
        number: its number in the stream, from 0.
        visits: how often the stream was in it.
        left: the number of the batch at which it ended.
        curve: the belief about the objective at its end.
        appearance: `[5]`, mean of the pixel statistics over `batches`.
        batches: batches in `appearance`.
        level: the served objective at the alpha with `alpha_index`, nats.
        alpha_index: the alpha at its end.
        disagreement: how far alpha may go there.
    """

    number: int
    visits: int
    left: int
    curve: Abridged
    appearance: Array
    batches: int
    level: float
    alpha_index: int
    disagreement: Disagreement = field(default_factory=Disagreement)

    def rounded(self) -> KnownCondition:
        """Return the condition with its numbers rounded as a state stores them."""
        images, differing = half([self.disagreement.images, self.disagreement.differing]).tolist()
        return replace(
            self,
            curve=replace(self.curve, mean=half(self.curve.mean).astype("f4")),
            appearance=half(self.appearance),
            level=float(half(self.level)),
            disagreement=Disagreement(images, differing),
        )


@dataclass(frozen=True)
class Memory:
    """The condition that a stream is in, and those that it was in before.

    Attributes:
        number: number of the current condition.
        visits: how often the stream was in it.
        condition_count: the number of all conditions so far.
        known: the conditions that are remembered, without the current one.
    """

    number: int = 0
    visits: int = 1
    condition_count: int = 1
    known: tuple[KnownCondition, ...] = field(default=())

    def shares(self) -> list[float]:
        """Return the prior probability, given a jump, of each of `known` and then of a new condition; sum 1.

        A new condition has the share of first visits among all visits, with one added to each count (Laplace's rule of
        succession). The known conditions divide the rest in proportion to their visits.
        """
        if not self.known:
            return [1.0]
        visits = [condition.visits for condition in self.known]
        returns = sum(visits) - len(visits)
        new = (len(visits) + 2.0) / (len(visits) + returns + 3.0)
        return [*((1.0 - new) * n / sum(visits) for n in visits), new]

    def left(self, condition: KnownCondition, to: KnownCondition | None, *, keep: int) -> Memory:
        """Return the memory after a jump out of `condition` into `to`, one of `known`; None is a new condition.

        A condition of fewer than 3 batches is not remembered; of the others, the `keep` that ended last are.
        """
        known = [k for k in self.known if k is not to]
        if condition.batches >= _MINDED:
            known.append(condition)
        known = sorted(known, key=lambda k: k.left)[-keep:] if keep else []
        if to is not None:
            return Memory(to.number, to.visits + 1, self.condition_count, tuple(known))
        return Memory(self.condition_count, 1, self.condition_count + 1, tuple(known))


def half(values: npt.ArrayLike) -> Array:
    """Return the values rounded to half precision; those beyond its range become its largest number."""
    most = float(np.finfo("f2").max)
    return np.clip(values, -most, most).astype("f2").astype("f8")


def _log_normals(x: Array, mean: npt.NDArray[np.floating], variance: Array, farthest: float = np.inf) -> Array:
    """Return tempered log densities over the last axis, up to a constant, with squares capped at `farthest`."""
    squares = np.minimum((x - mean) ** 2 / variance, farthest)
    logs: Array = -0.5 * _TEMPER * (np.log(variance) + squares).sum(axis=-1)
    return logs
