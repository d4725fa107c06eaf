"""How a stream looks, and which conditions it has seen: a camera that has seen a night knows the night.

The statistics of a batch's pixels (`decode.statistics`) cost no forward and change when light, weather, dirt or focus
do. Here they are evidence before the forward. With phi the batch's mean, of the five numbers each, w the variance of a
batch's mean about that of its condition, and q how often a stream looks otherwise although nothing else has changed:

    stayed      (1 - q) N(phi; mean of this condition, w (1 + 1 / batches)) + q N(phi; mean of all, their variance + w)
    returned    N(phi; mean of that condition, w (1 + 1 / batches))
    new         N(phi; mean of all batches, their variance + w)

to the power of .6, for the five are not independent and no batch is like another. A camera that exposes by itself
or pans has a high q, which it learns from what the looks at other alphas say: its pixels tell ever less of alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from adawise.adapt.disagreement import Disagreement
from adawise.adapt.surrogate import Abridged, Array

_TEMPER = 0.6
_LEAST = -1.0  # of the evidence for a new condition
_RESTLESS_AT_FIRST, _RESTLESS = 0.01, (0.002, 0.2)
_RESTLESS_BATCHES = (6.0, 40.0)  # its memory while it rises, and while it falls
_FARTHEST = 25.0  # variances: what lies further from the condition of now counts as this
_REMEMBERED = 8  # batches that the mean of a condition remembers
_LEARNED_FROM = 1  # batches after which the variance of a batch's mean is learned
_PRIOR_BATCHES = 4.0  # that its guess is worth
_MEMORY = 0.97  # of that variance
_OUTLIER = 9.0  # variances: a batch further away counts as this
_OVERALL = 300  # batches that the mean and variance of all remember
BETWEEN = np.array([0.5, 0.4, 0.25, 0.12, 0.3])  # sd of the statistics between conditions, until a stream has its own
_FLOOR = 1e-4  # of variances
_GUESS = 2.0  # of the variance of a batch's mean over that of independent images
_MINDED = 3  # batches that a condition must have lasted to be remembered


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a batch looks: mean and variance over its `images` of the statistics of pixels, each float64 `[5]`."""

    mean: Array
    variance: Array
    images: int

    @classmethod
    def of(cls, mean: Sequence[float], variance: Sequence[float], images: int) -> Appearance:
        """Of plain numbers, five each."""
        return cls(np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64), images)

    @property
    def error(self) -> Array:
        """The variance `[5]` of the mean, if images were independent."""
        return self.variance / self.images


@dataclass(frozen=True, eq=False)
class Looks:
    """How the condition of now looks, `mean` `[5]` over `batches` of it, and all of the stream: see the module.

    `spread` `[5]` is w. `overall_mean` and `overall_variance`, each `[5]`, are those of `overall_batches`.
    """

    mean: Array
    spread: Array
    overall_mean: Array
    overall_variance: Array
    batches: int = 1
    overall_batches: int = 1
    restless: float = _RESTLESS_AT_FIRST

    @classmethod
    def of_first(cls, appearance: Appearance) -> Looks:
        """After the first batch of a stream."""
        spread = _GUESS * appearance.error + _FLOOR
        return cls(appearance.mean, spread, appearance.mean, appearance.variance + _FLOOR)

    def evidence(self, appearance: Appearance, known: Sequence[KnownCondition]) -> list[float]:
        """Log likelihoods, over that of having stayed, of each condition in `known` and of a new one."""
        if self.batches < 2:
            return [0.0] * (len(known) + 1)
        stayed, other = self._stayed(appearance)
        returned: list[float] = []
        if known:
            looks, batches = np.stack([k.look for k in known]), np.array([[k.batches] for k in known])
            returned = _log_normals(appearance.mean, looks, self._spread(appearance) * (1.0 + 1.0 / batches)).tolist()
        either = float(np.logaddexp(stayed, other))
        new = other - math.log(self.restless)
        return [*(log - either for log in returned), max(new - either, _LEAST)]

    def _stayed(self, appearance: Appearance) -> tuple[float, float]:
        """Log likelihoods of a batch of the same condition that looks as before, and of one that does not any more."""
        phi, spread = appearance.mean, self._spread(appearance)
        stayed = float(_log_normals(phi, self.mean, spread * (1.0 + 1.0 / self.batches), _FARTHEST))
        new = float(_log_normals(phi, self.overall_mean, np.maximum(self.overall_variance, BETWEEN**2) + spread))
        return math.log1p(-self.restless) + stayed, math.log(self.restless) + new

    def _spread(self, appearance: Appearance) -> Array:
        """The variance of this batch's mean: that of the stream's batches, or more if it is smaller than they are."""
        return np.maximum(self.spread, appearance.error)

    def observed(self, appearance: Appearance, stayed: float = 0.0) -> Looks:
        """After a further batch of this condition, which with probability `stayed` is the one of the batch before."""
        phi, total = appearance.mean, self.overall_batches + 1
        share = 1.0 / min(total, _OVERALL)
        apart = phi - self.overall_mean
        residual, spread = phi - self.mean, self.spread
        turned = self._turned(appearance, stayed)
        before = 0 if turned > 0.5 else self.batches
        if before >= _LEARNED_FROM:
            spread = self._learned(residual)
        batches = min(before + 1, _REMEMBERED)
        return Looks(
            mean=self.mean + residual / batches,
            spread=np.maximum(spread, _FLOOR),
            overall_mean=self.overall_mean + share * apart,
            overall_variance=self.overall_variance + share * (apart**2 - self.overall_variance),
            batches=batches,
            overall_batches=total,
            restless=self._learned_restless(turned),
        )

    def moved(self, to: KnownCondition | None, appearance: Appearance | None = None, stayed: float = 0.0) -> Looks:
        """Into a condition that returned, or None: a new one. Its first batch has this `appearance`.

        Where every batch seems to begin another one, the variance of batches is what is wrong; and with probability
        `stayed` the condition is that of before all the same, so that how it looks tells less.
        """
        spread, restless = self.spread, self.restless
        if appearance is not None and self.batches >= _LEARNED_FROM:
            spread = np.maximum(self._learned(appearance.mean - self.mean), _FLOOR)
            restless = self._learned_restless(self._turned(appearance, stayed))
        if to is not None:
            return replace(self, mean=to.look, batches=to.batches, spread=spread, restless=restless)
        return replace(self, batches=0, spread=spread, restless=restless)

    def _turned(self, appearance: Appearance, stayed: float) -> float:
        """How probable it is that the condition stayed, as it did with probability `stayed`, and looks otherwise."""
        if self.batches < 2:
            return self.restless  # nothing is known of it
        as_before, other = self._stayed(appearance)
        return stayed / (1.0 + math.exp(min(as_before - other, 50.0)))

    def _learned_restless(self, turned: float) -> float:
        least, most = _RESTLESS
        learned = self.restless + (turned - self.restless) / _RESTLESS_BATCHES[turned < self.restless]
        return min(max(learned, least), most)

    def _learned(self, residual: Array) -> Array:
        """The variance of a batch's mean, after one that is `residual` from its condition's."""
        share = max(1.0 - _MEMORY, 1.0 / (self.overall_batches + _PRIOR_BATCHES))
        squares = np.minimum(residual**2 / (1.0 + 1.0 / self.batches), _OUTLIER * self.spread)
        learned: Array = self.spread + share * (squares - self.spread)
        return learned


@dataclass(frozen=True, eq=False)
class KnownCondition:
    """What is remembered of a condition that is over, most of it in half precision: a state has many.

    Args:
        number: which one of the stream, from 0.
        visits: how often the stream was in it.
        left: the number of the batch at which it was over.
        curve: what was believed of the objective.
        look: mean of the statistics of pixels, `[5]`, over `batches`.
        level: the served objective, nats, at the alpha with `alpha_index`.
        disagreement: how far alpha may go there.
    """

    number: int
    visits: int
    left: int
    curve: Abridged
    look: Array
    batches: int
    level: float
    alpha_index: int
    disagreement: Disagreement = field(default_factory=Disagreement)

    def rounded(self) -> KnownCondition:
        """As it is remembered."""
        images, differing = half([self.disagreement.images, self.disagreement.differing]).tolist()
        return replace(
            self,
            curve=replace(self.curve, mean=half(self.curve.mean).astype("f4")),
            look=half(self.look),
            level=float(half(self.level)),
            disagreement=Disagreement(images, differing),
        )


@dataclass(frozen=True)
class Memory:
    """Which condition a stream is in, and those that it was in before.

    `number` and `visits` are of the one of now, `seen` counts all that there were, `known` are the ones remembered.
    """

    number: int = 0
    visits: int = 1
    seen: int = 1
    known: tuple[KnownCondition, ...] = field(default=())

    def shares(self) -> list[float]:
        """How probable each of `known` and a new condition are before anything is seen of a jump; sum 1.

        As a new one came in so many of all jumps (with one more of each kind), and the others as often as before.
        """
        if not self.known:
            return [1.0]
        visits = [condition.visits for condition in self.known]
        returns = sum(visits) - len(visits)
        new = (len(visits) + 2.0) / (len(visits) + returns + 3.0)
        return [*((1.0 - new) * n / sum(visits) for n in visits), new]

    def left(self, condition: KnownCondition, to: KnownCondition | None, *, keep: int) -> Memory:
        """After a jump out of `condition` into one of `known`, or None into a new one."""
        known = [k for k in self.known if k is not to]
        if condition.batches >= _MINDED:
            known.append(condition)
        known = sorted(known, key=lambda k: k.left)[-keep:] if keep else []
        if to is not None:
            return Memory(to.number, to.visits + 1, self.seen, tuple(known))
        return Memory(self.seen, 1, self.seen + 1, tuple(known))


def half(values: npt.ArrayLike) -> Array:
    """In half precision; what is beyond it counts as the farthest that is not."""
    most = float(np.finfo("f2").max)
    return np.clip(values, -most, most).astype("f2").astype("f8")


def _log_normals(x: Array, mean: npt.NDArray[np.floating], variance: Array, farthest: float = np.inf) -> Array:
    """Tempered log densities up to a constant, over the last axis, with squares of at most `farthest` variances."""
    squares = np.minimum((x - mean) ** 2 / variance, farthest)
    logs: Array = -0.5 * _TEMPER * (np.log(variance) + squares).sum(axis=-1)
    return logs
