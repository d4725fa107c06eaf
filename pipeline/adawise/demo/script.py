"""What the demo's cameras go through: which condition when, how quickly it comes, and what each frame is called.

Stage: before the topic. Everything is a pure function of the number of frames, so the producer, the table and the
summary can each ask what a frame was, and none has to be told. A script is stretched to its length: twice the frames,
half as quick a nightfall.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias, get_args

import numpy as np

from adawise.demo.weather import PRESETS, Weather, blend

FPS = 10
"""Frames a second of a camera's own clock."""

Scenes: TypeAlias = Literal["weather", "nights", "controls"]
"""What the cameras see: weather that comes and goes, three days and nights, or only what is none of it."""

SCENES: tuple[Scenes, ...] = get_args(Scenes)

IMAGES: Mapping[Scenes, int] = {"weather": 3200, "nights": 9600, "controls": 6400}
"""Of all cameras together, if nothing else is asked for."""

Control: TypeAlias = Literal["exposure", "brightness", "odd", "pan"]
"""What changes pictures and nothing that alpha should follow (`CameraScript.control`)."""

CONTROLS: tuple[Control, ...] = get_args(Control)

_HELD = 96  # frames of one exposure, and of one view
_EXPOSURES, _BRIGHTER, _VIEWS = (0.6, 1.0, 1.5), 0.4, 3
_ODD_SHARE, _ODD = 1 / 16, ("glare", "sensor_noise", "dirty_lens", "motion_blur")

_BEGIN = datetime(2026, 6, 1, 18, 0, tzinfo=UTC)  # on the cameras' clocks: equal runs send equal messages


@dataclass(frozen=True, slots=True)
class Passage:
    """A condition that lasts for a share of the script; it comes in over the first `fade` of that, 0: abruptly."""

    condition: str
    share: float
    fade: float = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """The weather of one frame: a fraction `t` of the way from condition `before` to condition `after`.

    `exposure` and `view` are the camera's own: see `Weather` and `StreetCamera.jpeg`.
    """

    before: str
    after: str
    t: float
    exposure: float = 1.0
    view: int = 0

    @property
    def weather(self) -> Weather:
        """As the camera's optics need it."""
        weather = blend(PRESETS[self.before], PRESETS[self.after], self.t)
        return weather if self.exposure == 1.0 else replace(weather, exposure=self.exposure)

    @property
    def condition(self) -> str:
        """The one that prevails."""
        return self.after if self.t >= 0.5 else self.before


@dataclass(frozen=True, slots=True)
class CameraScript:
    """One camera: its stream id, the seed of its pictures, its passages (shares add up to 1), how many frames.

    `control` is what it does besides: its exposure jumps; its light grows and fades by two fifths; one frame of sixteen
    is odd; it turns to another view and back.
    """

    camera_id: str
    seed: int
    passages: tuple[Passage, ...]
    frames: int = 0
    control: Control | None = None

    def moment(self, number: int) -> Moment:
        """The weather of frame `number`, in [0, frames)."""
        at = (number + 0.5) / self.frames
        before = self.passages[0].condition
        for passage in self.passages[:-1]:
            if at < passage.share:
                break
            at -= passage.share
            before = passage.condition
        else:
            passage = self.passages[-1]
        fade = passage.fade * passage.share
        return self._controlled(number, Moment(before, passage.condition, min(1.0, at / fade) if fade > 0 else 1.0))

    def _controlled(self, number: int, moment: Moment) -> Moment:
        if self.control == "exposure":
            turns = np.random.default_rng(self.seed).integers(1, len(_EXPOSURES), size=number // _HELD + 1)
            return replace(moment, exposure=_EXPOSURES[int(turns.sum()) % len(_EXPOSURES)])  # other than before
        if self.control == "brightness":
            return replace(moment, exposure=1.0 + _BRIGHTER * float(np.sin(2 * np.pi * number / self.frames)))
        if self.control == "odd":
            chance = np.random.default_rng((self.seed, number))
            odd = _ODD[int(chance.integers(len(_ODD)))]
            return Moment(odd, odd, 1.0) if chance.random() < _ODD_SHARE else moment
        return replace(moment, view=number // _HELD % _VIEWS) if self.control == "pan" else moment

    def frame_id(self, number: int) -> str:
        """What the camera calls the frame."""
        return f"{self.camera_id}-{number:06d}"


CAMERAS: tuple[CameraScript, ...] = (
    CameraScript(
        "market",
        7001,
        (
            Passage("clear", 0.2),
            Passage("dusk", 0.22, 0.7),
            Passage("night", 0.28, 0.4),
            Passage("dusk", 0.12, 0.7),
            Passage("clear", 0.18),
        ),
    ),
    CameraScript(
        "harbour",
        7002,
        (Passage("clear", 0.2), Passage("fog", 0.3), Passage("rain", 0.3, 0.3), Passage("clear", 0.2)),
    ),
    CameraScript(  # the abrupt change: the lights go out, and later the exit faces the sun
        "tunnel",
        7003,
        (Passage("clear", 0.3), Passage("night", 0.35, 0.0), Passage("glare", 0.35, 0.2)),
    ),
    CameraScript(
        "depot",
        7004,
        (
            Passage("clear", 0.2),
            Passage("rain", 0.2),
            Passage("dirty_lens", 0.2),
            Passage("sensor_noise", 0.2),
            Passage("low_bitrate", 0.2, 0.3),
        ),
    ),
)
"""Of the scenes `weather`. No camera's seed is one that the pair was trained, chosen or tested on."""


def _days(*passages: tuple[str, float, float]) -> tuple[Passage, ...]:
    """Three times the same day, of (condition, share, fade)."""
    return tuple(Passage(condition, share / 3, fade) for _ in range(3) for condition, share, fade in passages)


_NIGHTS = (
    CameraScript(
        "gate", 7011, _days(("clear", 0.4, 0.1), ("dusk", 0.15, 0.7), ("night", 0.35, 0.3), ("dusk", 0.1, 0.7))
    ),
    CameraScript("quay", 7012, _days(("fog", 0.3, 0.3), ("clear", 0.35, 0.3), ("night", 0.35, 0.3))),
    CameraScript("garage", 7013, _days(("clear", 0.5, 0.0), ("night", 0.5, 0.0))),  # lights out, lights on
    CameraScript("bridge", 7014, _days(("clear", 0.3, 0.2), ("rain", 0.3, 0.2), ("night", 0.4, 0.3))),
)

_CONTROLS = (
    CameraScript("porch", 7021, (Passage("clear", 1.0),), control="exposure"),
    CameraScript("garden", 7022, (Passage("clear", 1.0),), control="brightness"),
    CameraScript("alley", 7023, (Passage("night", 1.0, 0.0),), control="odd"),
    CameraScript("plaza", 7024, (Passage("rain", 1.0, 0.0),), control="pan"),
)

CAMERAS_OF: Mapping[Scenes, tuple[CameraScript, ...]] = {"weather": CAMERAS, "nights": _NIGHTS, "controls": _CONTROLS}


def scripts(images: int, scenes: Scenes = "weather") -> tuple[CameraScript, ...]:
    """The cameras with `images` frames together, as equally as can be; cameras without a frame are left out."""
    cameras = CAMERAS_OF[scenes]
    share, rest = divmod(images, len(cameras))
    counts = [share + (index < rest) for index in range(len(cameras))]
    return tuple(replace(camera, frames=count) for camera, count in zip(cameras, counts, strict=True) if count)


def images_of(seconds: float | None, images: int | None, scenes: Scenes = "weather") -> int:
    """How many frames: `seconds` of camera time or `images`, the fewer if both are given."""
    asked = [images] if images is not None else []
    if seconds is not None:
        asked.append(len(CAMERAS_OF[scenes]) * max(1, round(seconds * FPS)))
    return min(asked, default=IMAGES[scenes])


def order(cameras: tuple[CameraScript, ...]) -> Iterator[tuple[int, int]]:
    """(index of the camera, number of its frame) as they are sent: a frame of each in turn."""
    for number in range(max(camera.frames for camera in cameras)):
        for index, camera in enumerate(cameras):
            if number < camera.frames:
                yield index, number


def captured_at(number: int) -> datetime:
    """When frame `number` was taken, by the camera's clock."""
    return _BEGIN + timedelta(seconds=number / FPS)
