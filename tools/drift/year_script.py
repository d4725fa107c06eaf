"""What happens to the cameras of a made-up year: written down first, so that whoever finds it can be judged.

A camera's alpha follows `level + day_night * sin(day) + steps + ramps`, is looked at now and then, with an error, and
held in between, on the grid of 21. Cameras of one site share the site's events. In a dropout there are no batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
GRID = 20
PROBES = 0.15
"""The share of batches at which alternatives are tried."""

_DAY_US = 86_400_000_000
_SITES = 20
_ERROR = 0.04  # of a look, in alpha
_HARDER = 0.4  # nats of the objective for each 1 of alpha that an event brings


@dataclass(frozen=True)
class AlphaMove:
    """From `at` on, alpha is to be higher by `size`: at once (step), or from `until` on, and linearly before (ramp).

    A dropout has no size and ends at `until`.
    """

    kind: Literal["step", "ramp", "dropout"]
    at: datetime
    until: datetime
    size: float = 0.0


@dataclass(frozen=True)
class YearCamera:
    """One camera and all that happens to it, in the order of time."""

    stream_id: str
    site: int
    level: float
    day_night: float
    events: tuple[AlphaMove, ...]


def script(cameras: int, days: int, seed: int, begin: datetime = BEGIN) -> list[YearCamera]:
    """A fifth of the cameras is flat, a third of the sites has an event, the other cameras have up to three each."""
    rng = np.random.default_rng([seed, 0])
    sites = [_events(rng, int(rng.random() < 1 / 3), days, begin) for _ in range(_SITES)]
    made = []
    for number in range(cameras):
        site, flat = number % _SITES, number % 5 == 0
        own = () if flat else _events(rng, int(rng.integers(0, 4)), days, begin)
        events = () if flat else tuple(sorted((*own, *sites[site]), key=lambda event: event.at))
        made.append(
            YearCamera(
                stream_id=f"camera-{number:04d}",
                site=site,
                level=round(float(rng.uniform(0.3, 0.7)), 2),
                day_night=0.0 if flat or rng.random() < 0.5 else round(float(rng.uniform(0.05, 0.2)), 2),
                events=events,
            )
        )
    return made


def _events(rng: np.random.Generator, count: int, days: int, begin: datetime) -> tuple[AlphaMove, ...]:
    found = []
    for _ in range(count):
        at = begin + timedelta(days=float(rng.uniform(0.1, 0.9) * days))
        at = at.replace(second=0, microsecond=0)
        kind = rng.choice(["step", "ramp", "dropout"], p=[0.5, 0.25, 0.25])
        lasts = {"step": 0.0, "ramp": 0.05 * days, "dropout": 0.01 * days}[str(kind)]
        size = 0.0 if kind == "dropout" else round(float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.35)), 2)
        found.append(AlphaMove(kind, at, at + timedelta(days=lasts), size))
    return tuple(found)


def document(cameras: Sequence[YearCamera], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The truth as JSON: times in ISO 8601."""
    entries = [asdict(camera) for camera in cameras]
    for event in (event for entry in entries for event in entry["events"]):
        event |= {name: event[name].isoformat() for name in ("at", "until")}
    return {"year": dict(facts), "cameras": entries}


@dataclass(frozen=True)
class CameraBatches:
    """A camera's batches [N]: when (microseconds since the epoch), alpha on the grid, and what was seen of it."""

    at_us: npt.NDArray[np.int64]
    alpha: npt.NDArray[np.uint8]
    probed: npt.NDArray[np.bool_]
    difficulty: Floats
    """What the events add to the objective, nats."""


def path(camera: YearCamera, days: int, batches_per_day: int, seed: int, begin: datetime = BEGIN) -> CameraBatches:
    """The camera's batches, one every 1 / `batches_per_day` of a day, give or take a tenth of that."""
    rng = np.random.default_rng([seed, 1 + int(camera.stream_id.removeprefix("camera-"))])
    count, every_us = days * batches_per_day, _DAY_US // batches_per_day
    at_us = np.arange(count) * every_us + rng.integers(0, max(1, every_us // 10), count)
    target = camera.level + camera.day_night * np.sin(at_us * (2 * np.pi / _DAY_US)).astype(np.float32)
    at_us += _us(begin)
    there, drift = np.ones(count, np.bool_), np.zeros(count, np.float32)
    for event in camera.events:
        start, end = _us(event.at), _us(event.until)
        if event.kind == "dropout":
            there &= (at_us < start) | (at_us >= end)
        else:
            drift += np.float32(event.size) * np.clip((at_us - start) / max(1, end - start), 0, 1).astype(np.float32)
    probed = rng.random(count, np.float32) < PROBES
    probed[0] = True
    seen = (target + drift + rng.normal(0, _ERROR, count)).astype(np.float32)
    held = seen[np.maximum.accumulate(np.where(probed, np.arange(count), 0))]
    alpha = np.rint(np.clip(held, 0, 1) * GRID).astype(np.uint8)
    return CameraBatches(at_us[there], alpha[there], probed[there], np.float32(_HARDER) * np.abs(drift[there]))


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
