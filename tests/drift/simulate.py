"""Alpha traces whose changes are known: synthetic weather, and the default strategy that really searches in it.

What is known is where the best alpha moved; what is found is looked for in what `warm` served. So the traces have the
noise of the method: it stays at one alpha for dozens of batches, wanders where the valley is flat, and follows late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.rows import of_images
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration
from tests.adapt.curves import GRID, as_images, objective, one_by_one
from tools.method.objective_curves import ALPHAS, LEVEL, draw

Series = npt.NDArray[np.float64]

IMAGES = 32  # of a batch
DAY_US = 86_400_000_000
_START_US = 1_767_225_600_000_000  # 2026-01-01
_MINUTE_US = 60_000_000
_BURN_IN = 60  # batches before the trace begins, of half the cameras; the others are new
_JITTER_MEMORY = 0.8  # of the best alpha from batch to batch: what is in front of a camera changes
_CYCLE_MINUTES = 20.0  # between batches, so that a week is affordable


@dataclass(frozen=True)
class TrueChange:
    """The best alpha moved by `size` from batch `start` to batch `end` (equal for a step)."""

    start: int
    end: int
    size: float


@dataclass(frozen=True)
class Path:
    """Where the best alpha lies `[n]`, when batches come `[n]`, and what changed."""

    times_us: npt.NDArray[np.int64]
    optimum: Series
    truth: tuple[TrueChange, ...]


@dataclass(frozen=True)
class Trace:
    """A camera: what it served, and what is true of it."""

    kind: str
    times_us: npt.NDArray[np.int64]
    alpha: Series
    truth: tuple[TrueChange, ...]


def _times(rng: np.random.Generator, batches: int, minutes: float, silence: tuple[int, float] | None = None) -> Series:
    """Batch times that jitter by a tenth; `silence`: before that batch so many minutes of nothing."""
    steps = minutes * _MINUTE_US * rng.uniform(0.9, 1.1, batches)
    if silence:
        steps[silence[0]] += silence[1] * _MINUTE_US
    return _START_US + rng.uniform() * DAY_US + np.cumsum(steps)


def _moved(rng: np.random.Generator, start: float, size: float) -> float:
    """The other end of a move of that size within [0, 1]."""
    ways = [end for end in (start - size, start + size) if 0.0 <= end <= 1.0]
    return float(rng.choice(ways))


def _pair(rng: np.random.Generator) -> tuple[float, float]:
    """Two levels, .1 to .8 apart."""
    size = rng.uniform(0.1, 0.8)
    low = rng.uniform(0.05, 0.95 - size)
    return (low, low + size) if rng.uniform() < 0.5 else (low + size, low)


def flat(rng: np.random.Generator) -> Path:
    """Nothing changes."""
    batches = int(rng.integers(300, 550))
    times = _times(rng, batches, rng.uniform(1.0, 15.0))
    return Path(times.astype(np.int64), np.full(batches, rng.uniform(0.1, 0.9)), ())


def step(rng: np.random.Generator) -> Path:
    """One step, or two, each at least 70 batches from the other and from the ends."""
    batches = int(rng.integers(300, 550))
    first, second = _pair(rng)
    if rng.uniform() < 0.5:
        at = [int(rng.integers(70, batches - 70))]
        values = [first, second]
    else:
        middle = batches // 2
        at = [int(rng.integers(70, middle - 35)), int(rng.integers(middle + 35, batches - 70))]
        values = [first, second, _moved(rng, second, rng.uniform(0.1, max(second, 1.0 - second)))]
    parts = np.diff([0, *at, batches])
    truth = tuple(TrueChange(i, i, b - a) for i, a, b in zip(at, values[:-1], values[1:], strict=True))
    return Path(_times(rng, batches, rng.uniform(1.0, 15.0)).astype(np.int64), np.repeat(values, parts), truth)


def ramp(rng: np.random.Generator) -> Path:
    """From one level to another within 100 to 200 batches."""
    batches = int(rng.integers(300, 550))
    first, second = _pair(rng)
    long = int(rng.integers(100, 200))
    start = int(rng.integers(50, batches - long - 40))
    optimum = first + (second - first) * np.clip((np.arange(batches) - start) / long, 0.0, 1.0)
    times = _times(rng, batches, rng.uniform(1.0, 15.0)).astype(np.int64)
    return Path(times, optimum, (TrueChange(start, start + long, second - first),))


def cycle(rng: np.random.Generator) -> Path:
    """Day and night, for five to eight days; smooth, or day and night with a short dusk."""
    batches = int(rng.integers(5 * 72, 8 * 72))
    times = _times(rng, batches, _CYCLE_MINUTES)
    wave = np.sin(2.0 * np.pi * (times % DAY_US) / DAY_US)
    if rng.uniform() < 0.5:
        wave = np.tanh(4.0 * wave)
    amplitude = rng.uniform(0.05, 0.3)
    return Path(times.astype(np.int64), rng.uniform(0.35, 0.65) + amplitude * wave, ())


def cycle_and_step(rng: np.random.Generator) -> Path:
    """Day and night, and a step on top of them."""
    path = cycle(rng)
    batches, size = len(path.optimum), rng.uniform(0.2, 0.5)
    at = int(rng.integers(100, batches - 100))
    low, high = path.optimum.min(), path.optimum.max()
    size *= 1.0 if low + high < 1.0 else -1.0
    moved = path.optimum + size * (np.arange(batches) >= at)
    moved -= max(0.0, moved.max() - 1.0) + min(0.0, moved.min())
    return Path(path.times_us, moved, (TrueChange(at, at, size),))


def dropout(rng: np.random.Generator) -> Path:
    """Silence for hours or days; after it the level is another one in every second camera."""
    batches = int(rng.integers(300, 550))
    at = int(rng.integers(70, batches - 70))
    times = _times(rng, batches, rng.uniform(1.0, 15.0), (at, rng.uniform(120.0, 3_000.0)))
    first, second = _pair(rng)
    if rng.uniform() < 0.5:
        return Path(times.astype(np.int64), np.full(batches, first), ())
    optimum = np.where(np.arange(batches) < at, first, second)
    return Path(times.astype(np.int64), optimum, (TrueChange(at, at, second - first),))


KINDS: dict[str, tuple[Callable[[np.random.Generator], Path], float]] = {  # and their shares
    "flat": (flat, 0.3),
    "step": (step, 0.25),
    "ramp": (ramp, 0.125),
    "cycle": (cycle, 0.15),
    "cycle and step": (cycle_and_step, 0.05),
    "dropout": (dropout, 0.125),
}


def simulate(seed: int) -> Trace:
    """The trace of that number; its kind is of the number, too."""
    rng = np.random.default_rng(seed)
    shares = np.array([share for _, share in KINDS.values()])
    kind = str(rng.choice(list(KINDS), p=shares / shares.sum()))
    path = KINDS[kind][0](rng)
    return Trace(kind, path.times_us, served(path, rng), path.truth)


def served(path: Path, rng: np.random.Generator) -> Series:
    """The alphas `[n]` that `warm` serves on a path, of which each camera has its own depth and unrest.

    The level of the objective moves with the best alpha for most cameras, as it does when the weather changes.
    """
    burn_in = _BURN_IN if rng.uniform() < 0.5 else 0
    optimum = np.concatenate([np.full(burn_in, path.optimum[0]), path.optimum])
    shocks = rng.normal(size=len(optimum)) * rng.uniform(0.0, 0.1) * np.sqrt(1.0 - _JITTER_MEMORY**2)
    unrest = np.empty(len(optimum))
    unrest[0] = shocks[0]
    for i in range(1, len(optimum)):
        unrest[i] = _JITTER_MEMORY * unrest[i - 1] + shocks[i]
    depth, follows = rng.uniform(0.15, 0.5), rng.choice([-0.4, 0.0, 0.4])
    warm = strategy("warm", alphas=GRID, objective=objective, context="", alpha=0.5, exploration=Exploration())
    state, alphas = warm.initial(), []
    for true, best in zip(optimum, optimum + unrest, strict=True):
        curve = LEVEL + follows * (true - optimum[0]) + depth * (ALPHAS - best) ** 2
        images = as_images(draw(curve, IMAGES, rng))
        (outcome,) = search.run([warm.search(state, IMAGES)], of_images([images], one_by_one(_logits)))
        state = outcome.state
        alphas.append(GRID[outcome.index])
    return np.array(alphas[burn_in:])


def _logits(index: int, /, *images: Tensor) -> Tensor:
    """As `tests.adapt.curves.logits`, with four classes in place of 1,000: traces are long."""
    values = torch.cat([part[:, 0, 0, index] for part in images])
    z = torch.full((len(values), 4), -1e3, dtype=torch.float64)
    z[:, 0] = values
    return z
