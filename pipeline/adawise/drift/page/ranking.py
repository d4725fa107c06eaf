"""The table over all cameras: how far each drifted, and what else is known of it in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adawise.drift.page.advice import largest
from adawise.drift.page.cameras import CameraShown
from adawise.drift.page.words import from_to, percent, when
from adawise.page.notation import NOTHING, two


@dataclass(frozen=True)
class Sortable:
    """A cell: what is read, and the number that it is sorted by (nan goes last)."""

    text: str
    value: float


@dataclass(frozen=True)
class Rank:
    """One row."""

    shown: CameraShown
    cells: tuple[Sortable, ...]


HEADERS = (
    "drift",
    "incidents",
    "largest at (UTC)",
    "alpha",
    "levels",
    "last",
    "FE",
    "confidence",
    "agree",
    "images",
    "rejected",
    "silences",
)


def ranking(cameras: Sequence[CameraShown]) -> tuple[Rank, ...]:
    """In the order of the report: the farthest first."""
    return tuple(Rank(shown, _cells(shown)) for shown in cameras)


def _cells(shown: CameraShown) -> tuple[Sortable, ...]:
    camera, change = shown.camera, largest(shown.camera)
    heights = [level.alpha for level in camera.levels]
    return (
        _two(camera.drift),
        _whole(len(shown.incidents)),
        Sortable(NOTHING, math.nan)
        if change is None
        else Sortable(when(change.time_us, change.time_us).removesuffix(" UTC"), change.time_us / 1e6),
        _two(camera.alpha),
        Sortable(from_to(min(heights), max(heights)), max(heights)),
        _two(camera.alpha_last),
        _two(camera.forward_equivalents),
        _two(camera.confidence),
        Sortable(percent(camera.endpoints_agree), camera.endpoints_agree),
        _whole(camera.images),
        _whole(camera.rejected),
        _whole(len(camera.silences)),
    )


def _two(value: float) -> Sortable:
    return Sortable(two(value), value)


def _whole(value: int) -> Sortable:
    return Sortable(f"{value:,}", value)
