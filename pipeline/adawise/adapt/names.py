"""The names of objectives and strategies, in a module of their own, so that settings and help need no torch."""

from __future__ import annotations

from typing import Literal

WithoutCard = Literal["tsallis", "entropy"]
WithCard = Literal["calibrated_tsallis", "calibrated_entropy", "relative", "atc"]
ObjectiveName = Literal[WithoutCard, WithCard]
"""The name of a function in `objective`."""

StrategyName = Literal["warm", "botorch", "scratch", "grid", "fixed"]
"""The name of a module in `strategies`; the default first."""
