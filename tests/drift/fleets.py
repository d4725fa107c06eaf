"""Fleets whose moves are known: cameras that move at times of their own, and some that share theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adawise_drift.events.result import CameraChange

SPAN_US = (0, 4 * 86_400_000_000)
NEAR_US = 900_000_000
_MINUTE_US = 60_000_000


def move(rng: np.random.Generator, at_us: float, up: bool) -> CameraChange:
    """A step whose moment is known to within a few minutes to two hours."""
    before, after = rng.uniform(2, 60, 2) * _MINUTE_US
    size = rng.uniform(0.1, 0.6) * (1 if up else -1)
    return CameraChange(int(at_us), int(at_us - before), int(at_us + after), 0.5, 0.5 + size, "step")


def independent(rng: np.random.Generator, cameras: int, moves: float) -> dict[str, tuple[CameraChange, ...]]:
    """Of so many moves a camera on average, each where it likes; a third of the cameras have most of them."""
    often = moves * rng.choice([0.5, 0.5, 2.0], cameras)
    return {
        f"camera-{number:03}": _in_order(
            [move(rng, at, bool(rng.uniform() < 0.5)) for at in rng.uniform(*SPAN_US, rng.poisson(often[number]))]
        )
        for number in range(cameras)
    }


def sharing(
    rng: np.random.Generator, cameras: int, moves: float, members: int, times: int
) -> tuple[dict[str, tuple[CameraChange, ...]], set[str]]:
    """The same, of which `members` move together besides, so many times, within ten minutes; and who they are."""
    fleet = independent(rng, cameras, moves)
    names = {str(name) for name in rng.choice(list(fleet), members, replace=False)}
    for at in rng.uniform(*SPAN_US, times):
        up = bool(rng.uniform() < 0.5)
        for name in names:
            fleet[name] = _in_order([*fleet[name], move(rng, at + rng.uniform(-5, 5) * _MINUTE_US, up)])
    return fleet, names


def _in_order(changes: Sequence[CameraChange]) -> tuple[CameraChange, ...]:
    return tuple(sorted(changes, key=lambda change: change.time_us))
