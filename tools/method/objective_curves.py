"""Streams of synthetic objective curves whose best alpha is known, and the regret of a strategy on them.

The images of a batch differ much in level, a little in which alpha they want (that is what makes a few images a noisy
look), and hardly beyond: as paired differences of real pairs do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adawise.adapt import search
from adawise.adapt.rows import of_images
from adawise.adapt.search import Strategy
from tests.adapt.curves import GRID, as_images, logits, one_by_one

Curve = np.ndarray  # [G], nats
Stream = Callable[[np.random.Generator, int], list[Curve]]  # so many batches

ALPHAS = np.array(GRID)
LEVEL, DEPTH = 0.8, 0.3  # nats
_LEVEL_SD, _IMAGE_SD, _SLOPE_SD, _OWN_SD = 0.05, 0.15, 0.1, 0.02


def parabola(optimum: float, level: float = LEVEL) -> Curve:
    """A valley, `DEPTH` above its floor at distance 1."""
    return level + DEPTH * (ALPHAS - optimum) ** 2


def static(rng: np.random.Generator, batches: int) -> list[Curve]:
    """One curve for ever."""
    return [parabola(rng.uniform(0.2, 0.8))] * batches


def drifting(rng: np.random.Generator, batches: int) -> list[Curve]:
    """The optimum goes back and forth over the whole grid, 100 batches a turn, from anywhere."""
    phase = rng.uniform(0.0, 2.0 * np.pi)
    return [parabola(0.5 + 0.5 * np.sin(phase + 2.0 * np.pi * t / 100)) for t in range(batches)]


def jumping(rng: np.random.Generator, batches: int) -> list[Curve]:
    """Every 30 batches another optimum at least .4 away, and another level."""
    curves: list[Curve] = []
    optimum = rng.uniform()
    while len(curves) < batches:
        choices = [x for x in rng.uniform(size=50) if abs(x - optimum) >= 0.4]
        optimum = choices[0]
        curves += [parabola(optimum, LEVEL + rng.choice([-0.3, 0.3]))] * 30
    return curves[:batches]


def bimodal(rng: np.random.Generator, batches: int) -> list[Curve]:
    """Two narrow valleys, at .15 and .8; every 40 batches the other one is the deeper, and the level changes."""
    valley = {x: np.exp(-(((ALPHAS - x) / 0.12) ** 2)) for x in (0.15, 0.8)}
    curves: list[Curve] = []
    deeper, other = rng.permutation([0.15, 0.8])
    while len(curves) < batches:
        curves += [LEVEL + rng.choice([-0.3, 0.3]) - 0.25 * valley[deeper] - 0.1 * valley[other]] * 40
        deeper, other = other, deeper
    return curves[:batches]


def iid(rng: np.random.Generator, batches: int) -> list[Curve]:
    """Each batch has an optimum of its own: the past is worth nothing."""
    return [parabola(x) for x in rng.uniform(size=batches)]


@dataclass(frozen=True)
class Passed:
    """What a strategy made of streams: mean regret, 1e-3 nats a batch, and mean forward-equivalents."""

    regret: float
    forward_equivalents: float


def passed(strategy: Strategy, stream: Stream, *, batches: int = 120, seeds: Sequence[int] = (0, 1, 2)) -> Passed:
    """Pass streams of these seeds through a strategy, 32 images a batch."""
    regrets, spent = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        state = strategy.initial()
        for curve in stream(rng, batches):
            images = as_images(draw(curve, 32, rng))
            (outcome,) = search.run([strategy.search(state, 32)], of_images([images], one_by_one(logits)))
            state = outcome.state
            regrets.append(curve[outcome.index] - curve.min())
            spent.append(outcome.forward_equivalents)
    return Passed(1e3 * float(np.mean(regrets)), float(np.mean(spent)))


def draw(curve: Curve, images: int, rng: np.random.Generator) -> np.ndarray:
    """Values `[G, images]` of a batch."""
    level = _LEVEL_SD * rng.normal() + _IMAGE_SD * rng.normal(size=images)
    slope = _SLOPE_SD * np.outer(ALPHAS - 0.5, rng.normal(size=images))
    values: np.ndarray = curve[:, None] + level + slope + _OWN_SD * rng.normal(size=(len(curve), images))
    return values
