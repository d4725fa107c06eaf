"""The names of objectives and strategies, the grid of alphas, and the least price, in a module that needs no torch."""

from __future__ import annotations

from typing import Literal

WithoutCard = Literal["tsallis", "entropy"]
WithCard = Literal["calibrated_tsallis", "calibrated_entropy", "relative", "atc"]
ObjectiveName = Literal[WithoutCard, WithCard]
"""The name of a function in `objective`."""

StrategyName = Literal["warm", "botorch", "scratch", "grid", "fixed"]
"""The name of a module in `strategies`; the default first."""

GRID = tuple(j / 20 for j in range(21))
"""The alphas among which a search chooses: 0, .05, ... 1. States refer to them by index."""

LEAST_TAIL_SHARE = 1e-4
"""The least price of an image at a second alpha, in forwards: budgets are divided by it, so it cannot be 0."""
