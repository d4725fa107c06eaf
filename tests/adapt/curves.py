"""Synthetic objective curves, for strategies without a model: what is sent as logits says what the objective is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.conditions import Appearance
from adawise.adapt.objective import Values
from adawise.adapt.search import Outcome, Strategy
from adawise.adapt.state import StreamState

GRID = tuple(j / 20 for j in range(21))
CLASSES = 1000  # .4 ln C is 2.8 nats: all curves here are reliable


def objective(logits: Tensor, alpha_index: int) -> Values:
    """The first column is the value."""
    return logits[:, 0].double().numpy()


@dataclass(frozen=True)
class Weather:
    """One batch: where the best alpha lies, how hard the batch is (nats), how deep the valley is (nats)."""

    optimum: float
    level: float = 0.6
    depth: float = 0.3


def curve(weather: Weather, alpha: float) -> float:
    """The objective at alpha, nats: a parabola, `depth` above the level at distance 1."""
    return weather.level + weather.depth * (alpha - weather.optimum) ** 2


def draw_values(weather: Weather, images: int, rng: np.random.Generator) -> Values:
    """`[G, images]`: images differ much, alphas on one image little (as measured on real pairs)."""
    image = rng.normal(0.0, 0.1, size=images)
    own = rng.normal(0.0, 0.02, size=(len(GRID), images))
    return np.array([[curve(weather, a)] for a in GRID]) + image + own


def as_images(values: Values) -> Tensor:
    """`[n, 1, 1, G]`: images whose pixels are their values at each alpha."""
    return torch.from_numpy(values.T).reshape(values.shape[1], 1, 1, len(GRID))


def logits(index: int, /, *images: Tensor) -> Tensor:
    """What the classifier would say: `[m, C]` with the value in the first column."""
    values = torch.cat([part[:, 0, 0, index] for part in images])
    z = torch.zeros(len(values), CLASSES, dtype=torch.float64)
    z[:, 0] = values
    return z


class AlphaByAlpha:
    """A classifier (`ports.Classifier`) out of `logits`, which answers for one alpha."""

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        raise NotImplementedError

    def evaluate(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        return one_by_one(self.logits)(requested)


def one_by_one(logits: Callable[..., Tensor]) -> Callable[[Mapping[int, Sequence[Tensor]]], dict[int, Tensor]]:
    """`search.Evaluate` out of what answers for one alpha."""
    return lambda request: {index: logits(index, *images) for index, images in request.items()}


def drive(
    strategy: Strategy,
    weathers: Sequence[Weather],
    *,
    images: int = 32,
    seed: int = 0,
    state: StreamState | None = None,
    answer: Callable[[int, Tensor], Tensor] = logits,
    appearances: Sequence[Appearance] | None = None,
) -> list[Outcome]:
    """Pass a stream of batches through a strategy; `appearances` are how they look."""
    rng = np.random.default_rng(seed)
    state = state or strategy.initial()
    outcomes = []
    for k, weather in enumerate(weathers):
        batch = as_images(draw_values(weather, images, rng))
        appearance = None if appearances is None else appearances[k]
        evaluate = one_by_one(lambda j, *x: answer(j, torch.cat(x)))
        (outcome,) = search.run([strategy.search(state, images, appearance)], [batch], evaluate)
        outcomes.append(outcome)
        state = outcome.state
    return outcomes


def alphas(outcomes: Sequence[Outcome]) -> list[float]:
    """The served alphas."""
    return [GRID[outcome.index] for outcome in outcomes]
