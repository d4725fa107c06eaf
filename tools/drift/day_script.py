"""What six street cameras go through on one day, and how it is drawn: the truth that an analysis of drift is held to.

Times are hours of the script's day. A day of fewer hours is the same script run faster: fog that takes half an hour of
24 takes five minutes of 4. Everything is a pure function of (camera, batch, seed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS, Weather, blend

BEGIN_US = 1_780_272_000_000_000  # 2026-06-01, a midnight
HOUR_US = 3_600_000_000
FRAME_US = 100_000  # between the frames of a batch
MARKET = ("bicycle", "dog", "group of people", "pedestrian")  # classes that a market brings
OTHERS = 0.1  # of other frames that are kept on a market day

Kind = Literal["weather", "lens", "place", "classes"]


@dataclass(frozen=True)
class Turn:
    """From `hour` on it becomes `condition` (of `weather.PRESETS`), within `fade` hours; `said` is what people say."""

    hour: float
    condition: str
    fade: float
    said: str
    kind: Kind = "weather"


@dataclass(frozen=True)
class Part:
    """[since, until) hours of the day."""

    since: float
    until: float


@dataclass(frozen=True)
class CameraDay:
    """One camera: its turns by time (the first is how the day begins), when it is silent, when there is a market.

    After the silence it hangs elsewhere: other pictures.
    """

    name: str
    turns: tuple[Turn, ...]
    silent: Part | None = None
    market: Part | None = None

    def weather(self, hour: float) -> Weather:
        """At an hour in [0, 24)."""
        now = PRESETS[self.turns[0].condition]
        for before, turn in pairwise(self.turns):
            if hour < turn.hour:
                break
            come = 1.0 if turn.fade == 0 else min(1.0, (hour - turn.hour) / turn.fade)
            now = blend(PRESETS[before.condition], PRESETS[turn.condition], come)
        return now


@dataclass(frozen=True)
class Event:
    """What changed on a camera, from `since_us` until it was wholly so at `settled_us`; it stays till `until_us`.

    `from_us` is when the event before it had settled: between that and `since_us` nothing changed.
    """

    camera: str
    kind: Kind
    said: str
    from_us: int
    since_us: int
    settled_us: int
    until_us: int


_NIGHT, _DAWN = Turn(0.0, "night", 0.0, ""), Turn(5.0, "clear", 1.5, "dawn")
_DUSK = Turn(19.5, "night", 1.5, "night falls")
_FOG, _LIFTS = Turn(9.0, "fog", 0.5, "fog comes"), Turn(12.0, "clear", 0.5, "fog lifts")

CAMERAS = (
    CameraDay(
        "yard",
        (
            _NIGHT,
            _DAWN,
            _FOG,
            _LIFTS,
            Turn(14.5, "dirty_lens", 0.0, "dirt on the lens", "lens"),
            Turn(17.5, "clear", 0.0, "the lens is cleaned", "lens"),
            _DUSK,
        ),
    ),
    CameraDay("hall", (Turn(0.0, "clear", 0.0, ""),)),  # lit by lamps day and night
    CameraDay("gate", (_NIGHT, _DAWN, _FOG, _LIFTS, _DUSK)),
    CameraDay(
        "ramp",
        (
            _NIGHT,
            _DAWN,
            _FOG,
            _LIFTS,
            Turn(14.5, "sensor_noise", 0.0, "the sensor turns noisy", "lens"),
            Turn(17.5, "clear", 0.0, "the sensor is changed", "lens"),
            _DUSK,
        ),
    ),
    CameraDay(
        "bridge",
        (_NIGHT, _DAWN, Turn(12.0, "dusk", 0.0, "back in another, darker place", "place"), _DUSK),
        silent=Part(10.0, 12.0),
    ),
    CameraDay("market", (_NIGHT, _DAWN, _DUSK), market=Part(9.0, 14.0)),
)
"""Any first few of them are a day of their own: the second never changes."""


@dataclass(frozen=True)
class Day:
    """The script with its measures: `hours` that the day takes, a batch of `images` each `every_s`, the pictures'."""

    cameras: tuple[CameraDay, ...]
    hours: float
    every_s: float
    images: int
    seed: int

    def at_us(self, hour: float) -> int:
        """An hour of the script on the cameras' clocks, microseconds since the epoch."""
        return BEGIN_US + round(hour / 24 * self.hours * HOUR_US)

    def batches(self, camera: CameraDay) -> Iterator[tuple[int, float, int]]:
        """(number, hour of the script, when its first frame is taken) of each batch that the camera sends."""
        for number in range(round(self.hours * 3600 / self.every_s)):
            hour = number * self.every_s / self.hours / 3600 * 24
            if camera.silent is None or not camera.silent.since <= hour < camera.silent.until:
                yield number, hour, BEGIN_US + round(number * self.every_s * 1e6)

    def frames(self, camera: CameraDay) -> Iterator[tuple[int, int, bytes, str]]:
        """(number of the batch, when it was taken, JPEG, label) of each frame, in order."""
        place = self.cameras.index(camera)
        seeds = [9_000 + 100 * self.seed + 10 * moved + place for moved in (0, 1)]
        streets = [StreetCamera(camera.name, seed) for seed in seeds]
        chance = np.random.default_rng((self.seed, place))
        number = 0  # of what is drawn: what a market does not want is drawn in vain
        for batch, hour, at_us in self.batches(camera):
            street = streets[camera.silent is not None and hour >= camera.silent.until]
            crowd = camera.market is not None and camera.market.since <= hour < camera.market.until
            weather, wanted = camera.weather(hour), self.images
            while wanted:
                jpeg, label = street.jpeg(number, weather)
                number += 1
                if crowd and label not in MARKET and chance.random() > OTHERS:
                    continue
                yield batch, at_us + FRAME_US * (self.images - wanted), jpeg, label
                wanted -= 1

    def events(self) -> list[Event]:
        """All that changed, by camera and time."""
        return [event for camera in self.cameras for event in self._events(camera)]

    def _events(self, camera: CameraDay) -> Iterator[Event]:
        turns = [(turn.hour, turn.hour + turn.fade, turn.kind, turn.said) for turn in camera.turns[1:]]
        if camera.market is not None:
            turns.append((camera.market.since, camera.market.since, "classes", "a market: other classes"))
            turns.append((camera.market.until, camera.market.until, "classes", "the market is over"))
        turns.sort()
        for i, (since, settled, kind, said) in enumerate(turns):
            begin = turns[i - 1][1] if i else 0.0
            end = turns[i + 1][0] if i + 1 < len(turns) else 24.0
            yield Event(camera.name, kind, said, *map(self.at_us, (begin, since, settled, end)))
