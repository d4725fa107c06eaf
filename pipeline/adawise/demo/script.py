"""What the demo's cameras go through: which condition when, how quickly it comes, and what each frame is called.

Stage: before the topic. Everything is a pure function of the number of frames, so the producer, the table and the
summary can each ask what a frame was, and none has to be told. A script is stretched to its length: twice the frames,
half as quick a nightfall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adawise.demo.weather import PRESETS, Weather, blend

FPS = 10
"""Frames a second of a camera's own clock."""

IMAGES = 3200
"""Of all cameras together, if nothing else is asked for."""

_BEGIN = datetime(2026, 6, 1, 18, 0, tzinfo=UTC)  # on the cameras' clocks: equal runs send equal messages


@dataclass(frozen=True, slots=True)
class Passage:
    """A condition that lasts for a share of the script; it comes in over the first `fade` of that, 0: abruptly."""

    condition: str
    share: float
    fade: float = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """The weather of one frame: a fraction `t` of the way from condition `before` to condition `after`."""

    before: str
    after: str
    t: float

    @property
    def weather(self) -> Weather:
        """As the camera's optics need it."""
        return blend(PRESETS[self.before], PRESETS[self.after], self.t)

    @property
    def condition(self) -> str:
        """The one that prevails."""
        return self.after if self.t >= 0.5 else self.before


@dataclass(frozen=True, slots=True)
class CameraScript:
    """One camera: its stream id, the seed of its pictures, its passages (shares add up to 1), how many frames."""

    camera_id: str
    seed: int
    passages: tuple[Passage, ...]
    frames: int = 0

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
        return Moment(before, passage.condition, min(1.0, at / fade) if fade > 0 else 1.0)

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
"""Their seeds are none of those that the pair was trained, chosen or tested on."""


def scripts(images: int) -> tuple[CameraScript, ...]:
    """The cameras with `images` frames together, as equally as can be; cameras without a frame are left out."""
    share, rest = divmod(images, len(CAMERAS))
    counts = [share + (index < rest) for index in range(len(CAMERAS))]
    return tuple(
        CameraScript(camera.camera_id, camera.seed, camera.passages, count)
        for camera, count in zip(CAMERAS, counts, strict=True)
        if count
    )


def images_of(seconds: float | None, images: int | None) -> int:
    """How many frames: `seconds` of camera time or `images`, the fewer if both are given."""
    asked = [images] if images is not None else []
    if seconds is not None:
        asked.append(len(CAMERAS) * max(1, round(seconds * FPS)))
    return min(asked, default=IMAGES)


def order(cameras: tuple[CameraScript, ...]) -> Iterator[tuple[int, int]]:
    """(index of the camera, number of its frame) as they are sent: a frame of each in turn."""
    for number in range(max(camera.frames for camera in cameras)):
        for index, camera in enumerate(cameras):
            if number < camera.frames:
                yield index, number


def captured_at(number: int) -> datetime:
    """When frame `number` was taken, by the camera's clock."""
    return _BEGIN + timedelta(seconds=number / FPS)
