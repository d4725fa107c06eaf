"""The scripts of the demo's cameras: which condition comes when and how fast, and the id of each frame.

Stage: before the topic. Everything is a pure function of the frame's number and the number of frames, so the producer,
the table and the summary can each compute what a frame was. A script is stretched to its length: with twice the frames,
night falls half as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import numpy as np

from adawise.demo.weather import PRESETS, Weather, blend

FPS = 10
"""Frames per second of a camera's own clock."""

IMAGES: Mapping[str, int] = {"weather": 3200, "nights": 9600, "controls": 6400}
"""The default number of images of all cameras together, by scenes."""

Control: TypeAlias = Literal["exposure", "brightness", "odd", "pan"]
"""A change of pictures that alpha should not follow (`CameraScript.control`)."""

_HELD = 96  # frames of one exposure, and of one view
_EXPOSURES, _BRIGHTER, _VIEWS = (0.6, 1.0, 1.5), 0.4, 3
_ODD_SHARE, _ODD = 1 / 16, ("glare", "sensor_noise", "dirty_lens", "motion_blur")

_BEGIN = datetime(2026, 6, 1, 18, 0, tzinfo=UTC)  # on the cameras' clocks: equal runs send equal messages
_SUNRISE, _DAYS = datetime(2026, 6, 1, 6, 0, tzinfo=UTC), 3


@dataclass(frozen=True, slots=True)
class Passage:
    """A condition that lasts for a share of the script; it fades in over the first `fade` of that; 0: abruptly."""

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
        """The weather in the form that the camera's optics need."""
        return replace(blend(PRESETS[self.before], PRESETS[self.after], self.t), exposure=self.exposure)

    @property
    def condition(self) -> str:
        """The condition that prevails."""
        return self.after if self.t >= 0.5 else self.before


@dataclass(frozen=True, slots=True)
class CameraScript:
    """The script of one camera.

    Attributes:
        camera_id: the stream id.
        seed: of its pictures.
        passages: the conditions in order; their shares add up to 1.
        frames: how many.
        control: a disturbance besides: the exposure jumps; the light grows and fades by two fifths; one frame of
            sixteen is
            odd; or the camera turns to other views and back.
        days: days that the frames are spread over, from six in the morning on; 0: `FPS` frames per second.
    """

    camera_id: str
    seed: int
    passages: tuple[Passage, ...]
    frames: int = 0
    control: Control | None = None
    days: int = 0

    def moment(self, number: int) -> Moment:
        """Return the weather of frame `number`, in [0, frames)."""
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
            return replace(moment, exposure=_EXPOSURES[int(turns.sum()) % len(_EXPOSURES)])  # never the same as before
        if self.control == "brightness":
            return replace(moment, exposure=1.0 + _BRIGHTER * float(np.sin(2 * np.pi * number / self.frames)))
        if self.control == "odd":
            chance = np.random.default_rng((self.seed, number))
            odd = _ODD[int(chance.integers(len(_ODD)))]
            return Moment(odd, odd, 1.0) if chance.random() < _ODD_SHARE else moment
        return replace(moment, view=number // _HELD % _VIEWS) if self.control == "pan" else moment

    @property
    def frames_a_second(self) -> float:
        """Frames per second of the camera's clock."""
        return self.frames / (self.days * 86_400) if self.days else FPS

    def captured_at(self, number: int) -> datetime:
        """Return when frame `number` was taken, by the camera's clock."""
        return (_SUNRISE if self.days else _BEGIN) + timedelta(seconds=number / self.frames_a_second)

    def frame_id(self, number: int) -> str:
        """Return the camera's id of the frame."""
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
    CameraScript(  # abrupt: the lights go out, and later the exit faces the sun
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
"""The cameras of the scenes `weather`. No seed of theirs was used to train, choose or test the pair."""


def _daily(camera_id: str, seed: int, *day: tuple[str, float, float]) -> CameraScript:
    """Build a camera whose days are all the same; `day` has (condition, share, fade)."""
    passages = [Passage(condition, share / _DAYS, fade) for _ in range(_DAYS) for condition, share, fade in day]
    return CameraScript(camera_id, seed, tuple(passages), days=_DAYS)


_NIGHTS = (
    _daily("gate", 7011, ("clear", 0.5, 0.1), ("night", 0.5, 0.1)),
    _daily("quay", 7012, ("fog", 0.3, 0.1), ("clear", 0.25, 0.1), ("night", 0.45, 0.1)),
    _daily("garage", 7013, ("clear", 0.5, 0.0), ("night", 0.5, 0.0)),  # lights out, lights on
    _daily("bridge", 7014, ("clear", 0.3, 0.1), ("rain", 0.25, 0.1), ("night", 0.45, 0.1)),
)

_CONTROLS = (
    CameraScript("porch", 7021, (Passage("clear", 1.0),), control="exposure"),
    CameraScript("garden", 7022, (Passage("clear", 1.0),), control="brightness"),
    CameraScript("alley", 7023, (Passage("night", 1.0, 0.0),), control="odd"),
    CameraScript("plaza", 7024, (Passage("rain", 1.0, 0.0),), control="pan"),
)

CAMERAS_OF: Mapping[str, tuple[CameraScript, ...]] = {"weather": CAMERAS, "nights": _NIGHTS, "controls": _CONTROLS}
"""Cameras by scenes: weather that comes and goes, the same day and night three times, or only disturbances."""


def scripts(images: int, scenes: str = "weather") -> tuple[CameraScript, ...]:
    """Return the cameras with `images` frames together, split as equally as possible, without those that get none."""
    cameras = CAMERAS_OF[scenes]
    share, rest = divmod(images, len(cameras))
    counts = [share + (index < rest) for index in range(len(cameras))]
    return tuple(replace(camera, frames=count) for camera, count in zip(cameras, counts, strict=True) if count)


def images_of(seconds: float | None, images: int | None, scenes: str = "weather") -> int:
    """Return the number of frames for `seconds` of camera time or `images`, the fewer if both are given."""
    limits = [images] if images is not None else []
    if seconds is not None:
        limits.append(len(CAMERAS_OF[scenes]) * max(1, round(seconds * FPS)))
    return min(limits, default=IMAGES[scenes])


def order(cameras: tuple[CameraScript, ...]) -> Iterator[tuple[int, int]]:
    """Yield (index of the camera, number of its frame) in the order of sending: one frame of each camera in turn."""
    for number in range(max(camera.frames for camera in cameras)):
        for index, camera in enumerate(cameras):
            if number < camera.frames:
                yield index, number
