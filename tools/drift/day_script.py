"""What nine cameras go through on one day, and how it is drawn: the truth that an analysis of drift is held to.

Times are hours of the script's day. A day of fewer hours is the same script run faster: fog that takes half an hour of
24 takes five minutes of 4. Everything is a pure function of (camera, batch, seed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS, Weather, blend

BEGIN_US = 1_780_272_000_000_000  # 2026-06-01, a midnight
HOUR_US = 3_600_000_000
FRAME_US = 100_000  # between the frames of a batch
MARKET = ("bicycle", "dog", "group of people", "pedestrian")  # classes that a market brings
OTHERS = 0.1  # of other frames that are kept on a market day


@dataclass(frozen=True)
class Turn:
    """From `hour` on it becomes `condition` (of `weather.PRESETS`), within `fade` hours; `text` is what people say.

    `moves`: the measures of which one at least is to tell it.
    """

    hour: float
    condition: str
    fade: float
    text: str
    moves: tuple[str, ...] = ("brightness",)


@dataclass(frozen=True)
class Spell:
    """[since, until) hours of the day in which a camera is another one; `text` of its begin, and of its end unless "".

    `market`: classes other than usual. `broken`: that share of its images cannot be read. `sends`: one of so many
    batches, 0 for none. After a spell without any it hangs elsewhere: other pictures.
    """

    since: float
    until: float
    text: tuple[str, str]
    moves: tuple[str, ...]
    market: bool = False
    broken: float = 0.0
    sends: int = 1


@dataclass(frozen=True)
class CameraDay:
    """One camera: its turns by time (the first is how the day begins), and its spells."""

    name: str
    turns: tuple[Turn, ...]
    spells: tuple[Spell, ...] = ()

    def weather(self, hour: float) -> Weather:
        """At an hour in [0, 24)."""
        now = PRESETS[self.turns[0].condition]
        for before, turn in pairwise(self.turns):
            if hour < turn.hour:
                break
            come = 1.0 if turn.fade == 0 else min(1.0, (hour - turn.hour) / turn.fade)
            now = blend(PRESETS[before.condition], PRESETS[turn.condition], come)
        return now

    def spell(self, hour: float) -> Spell:
        """At an hour in [0, 24); one in which nothing is unusual if there is none."""
        return next((spell for spell in self.spells if spell.since <= hour < spell.until), _USUAL)


@dataclass(frozen=True)
class Happening:
    """What happens to a camera, from `since_us` until it is wholly so at `settled_us`; it stays till `until_us`.

    `from_us` is when the one before it had settled: between that and `since_us` nothing changed.
    """

    camera: str
    text: str
    moves: tuple[str, ...]
    from_us: int
    since_us: int
    settled_us: int
    until_us: int


_USUAL = Spell(0.0, 24.0, ("", ""), ())
_HAZE, _BLUR = ("contrast", "sharpness"), ("contrast", "sharpness", "noise")
_GRAIN = ("noise", "sharpness")  # which a picture that is small gets more of
_NIGHT, _DAWN = Turn(0.0, "night", 0.0, ""), Turn(5.0, "clear", 1.5, "dawn")
_DUSK = Turn(19.5, "night", 1.5, "night falls")
_LIT = Turn(0.0, "clear", 0.0, "")  # by lamps day and night
_FOG, _LIFTS = Turn(9.0, "fog", 0.5, "fog comes", _HAZE), Turn(12.0, "clear", 0.5, "fog lifts", _HAZE)
_DIRT = Turn(14.5, "dirty_lens", 0.0, "dirt on the lens", _BLUR)
_CLEANED = Turn(17.5, "clear", 0.0, "the lens is cleaned", _BLUR)
_GAIN = Turn(14.5, "sensor_noise", 0.0, "the sensor turns noisy", _GRAIN)
_CHANGED = Turn(17.5, "clear", 0.0, "the sensor is changed", _GRAIN)
_ELSEWHERE = Turn(12.0, "dusk", 0.0, "back in another, darker place")

CAMERAS = (
    CameraDay("yard", (_NIGHT, _DAWN, _FOG, _LIFTS, _DIRT, _CLEANED, _DUSK)),
    CameraDay("hall", (_LIT,)),
    CameraDay(
        "gate",
        (_NIGHT, _DAWN, _FOG, _LIFTS, _DUSK),
        (Spell(15.0, 16.0, ("half of its images are broken", "they are whole again"), ("rejects",), broken=0.5),),
    ),
    CameraDay("ramp", (_NIGHT, _DAWN, _FOG, _LIFTS, _GAIN, _CHANGED, _DUSK)),
    CameraDay(
        "bridge",
        (_NIGHT, _DAWN, _ELSEWHERE, _DUSK),
        (Spell(10.0, 12.0, ("it falls silent", ""), ("rate",), sends=0),),
    ),
    CameraDay(
        "market",
        (_NIGHT, _DAWN, _DUSK),
        (Spell(9.0, 14.0, ("a market: other classes", "the market is over"), ("mix",), market=True),),
    ),
    CameraDay(
        "cellar",
        (
            _LIT,
            Turn(9.0, "night", 0.0, "the lamps go out"),
            Turn(11.0, "clear", 0.0, "they burn again"),
            Turn(15.5, "night", 0.0, "the lamps go out once more"),
            Turn(18.0, "clear", 0.0, "they burn once more"),
        ),
    ),
    CameraDay(
        "mast",
        (_NIGHT, _DAWN, _DUSK),
        (Spell(9.0, 24.0, ("its rate falls to a third", ""), ("rate",), sends=3),),
    ),
    CameraDay(
        "pier",
        (_NIGHT, _DAWN),
        (
            Spell(10.0, 11.0, ("all of its images are broken", "they are whole again"), ("rejects",), broken=1.0),
            Spell(16.0, 24.0, ("it dies", ""), ("rate",), sends=0),
        ),
    ),
)
"""Any first few of them are a day of their own: to the second nothing happens."""


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
            sends = camera.spell(hour).sends
            if sends and number % sends == 0:
                yield number, hour, BEGIN_US + round(number * self.every_s * 1e6)

    def frames(self, camera: CameraDay) -> Iterator[tuple[int, int, bytes, str | None]]:
        """(number of the batch, when it was taken, JPEG, label) of each frame, in order; a broken one has no label."""
        place = self.cameras.index(camera)
        seeds = [9_000 + 100 * self.seed + 10 * moved + place for moved in (0, 1)]
        streets = [StreetCamera(camera.name, seed) for seed in seeds]
        moved = min((spell.until for spell in camera.spells if not spell.sends), default=24.0)
        chance = np.random.default_rng((self.seed, place))
        number = 0  # of what is drawn: what a market does not want is drawn in vain
        for batch, hour, at_us in self.batches(camera):
            street, spell = streets[hour >= moved], camera.spell(hour)
            weather, wanted = camera.weather(hour), self.images
            while wanted:
                jpeg, label = street.jpeg(number, weather)
                number += 1
                if spell.market and label not in MARKET and chance.random() > OTHERS:
                    continue
                at_frame_us = at_us + FRAME_US * (self.images - wanted)
                if spell.broken and chance.random() < spell.broken:
                    yield batch, at_frame_us, jpeg[: len(jpeg) // 2], None
                else:
                    yield batch, at_frame_us, jpeg, label
                wanted -= 1

    def happenings(self) -> list[Happening]:
        """All of them, by camera and time."""
        return [happening for camera in self.cameras for happening in self._happenings(camera)]

    def _happenings(self, camera: CameraDay) -> Iterator[Happening]:
        received = [(turn.hour, turn.hour + turn.fade, turn.text, turn.moves) for turn in camera.turns[1:]]
        for spell in camera.spells:
            hours = (spell.since, spell.until)
            received += [(at, at, text, spell.moves) for at, text in zip(hours, spell.text, strict=True) if text]
        received.sort()
        for i, (since, settled, text, moves) in enumerate(received):
            begin = received[i - 1][1] if i else 0.0
            end = received[i + 1][0] if i + 1 < len(received) else 24.0
            yield Happening(camera.name, text, moves, *map(self.at_us, (begin, since, settled, end)))
