"""The names of objectives and strategies, and the grid of alphas, in a module that needs no torch."""

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
