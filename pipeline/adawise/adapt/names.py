"""The words for objectives and strategies, where settings and help read them without loading torch."""

from __future__ import annotations

from typing import Literal

WithoutCard = Literal["tsallis", "entropy"]
WithCard = Literal["calibrated_tsallis", "calibrated_entropy", "relative", "atc"]
ObjectiveName = Literal[WithoutCard, WithCard]
"""Each is a function of `objective`."""

StrategyName = Literal["warm", "botorch", "scratch", "grid", "fixed"]
"""Each is a module of `strategies`; the default first."""
