"""Simulated street cameras: a fixed view each, and a labelled frame for every number.

Stage: before the topic; the demo's and the tests' source of images. A frame is a pure function of (camera seed, number,
weather): the same number under another weather shows the same scene in another light. Our own code draws everything, so
the demo needs no download and its labels are correct.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from adawise.demo.actors import ACTORS, Color, Pen, shade
from adawise.demo.weather import Array, Lamp, Weather, expose

WIDTH, HEIGHT = 128, 96
CLASSES: tuple[str, ...] = (*ACTORS, "empty street")
RUN = 8
"""Consecutive frames that show the same thing on a camera with `runs`."""

_DRAWN = 2  # canvas pixels per frame pixel, along each side: shrinking smooths the edges
_APPEARANCE, _MOMENT, _SENSOR, _LAYOUT = range(4)  # independent random streams under one seed


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The constant part of a camera's view.

    Attributes:
        background: of the canvas's size.
        distance: of each pixel, `[H, W, 1]`.
        lamps: street lamps.
        kerb: where the road begins, px from the top.
        cast: tint of the camera, a factor for each channel.
        asphalt: the road's colour.
    """

    background: Image.Image
    distance: Array
    lamps: tuple[Lamp, ...]
    kerb: float
    cast: npt.NDArray[np.float32]
    asphalt: Color


@dataclass(frozen=True, slots=True)
class _Place:
    """The position of a thing, in pixels of the frame; `scale` is pixels per metre, `facing` 1 or -1."""

    x: float
    y: float
    scale: float
    facing: int


class StreetCamera:
    """One simulated street camera.

    Args:
        camera_id: the stream id of its frames.
        seed: decides the view and all frames; >= 0.
        runs: show the same thing for `RUN` frames in a row, moving through the picture, as a real camera does; without
            it every frame is drawn independently, all classes equally often.
    """

    def __init__(self, camera_id: str, seed: int, runs: bool = False) -> None:
        if seed < 0:
            raise ValueError(f"camera {camera_id!r}: expected a seed >= 0, got {seed}; choose another seed")
        self.camera_id = camera_id
        self.seed = seed
        self.runs = runs
        self._views: dict[int, Backdrop] = {}

    def frame(self, number: int, weather: Weather) -> tuple[Image.Image, str]:
        """Return frame `number` (>= 0) as a viewer sees it, RGB with JPEG losses, and its label."""
        jpeg, label = self.jpeg(number, weather)
        with Image.open(io.BytesIO(jpeg)) as picture:
            return picture.convert("RGB"), label

    def jpeg(self, number: int, weather: Weather, view: int = 0) -> tuple[bytes, str]:
        """Return frame `number` (>= 0) as it is sent, and its label, one of `CLASSES`.

        `view` (>= 0) is the direction in which the camera looks.
        """
        appearance, moment, phase = self._chance(number)
        label, street = _label(appearance), self._view(view)
        place = self._place(label, street, appearance, moment, phase)
        canvas, lamps = self._draw(label, street, place, appearance)
        drawn = np.asarray(canvas.reduce(_DRAWN), dtype=np.float32)
        scene = drawn * (street.cast * np.float32(moment.uniform(0.88, 1.08) / 255))
        sensor = np.random.default_rng((self.seed, _SENSOR, number))
        return expose(scene, street.distance, lamps, weather, sensor), label

    def label(self, number: int) -> str:
        """Return the label of frame `number` (>= 0) without drawing it."""
        return _label(self._chance(number)[0])

    def box(self, number: int) -> tuple[float, float, float, float] | None:
        """Return where the thing of frame `number` is: left, top, right, bottom in px; None for an empty street."""
        appearance, moment, phase = self._chance(number)
        label = _label(appearance)
        place = self._place(label, self._view(0), appearance, moment, phase)
        if place is None:
            return None
        half, tall = ACTORS[label].length_m * place.scale / 2, ACTORS[label].height_m * place.scale
        return place.x - half, place.y - tall, place.x + half, place.y

    def _view(self, number: int) -> Backdrop:
        if number not in self._views:
            self._views[number] = _view(np.random.default_rng((self.seed, _LAYOUT, *([number] if number else []))))
        return self._views[number]

    def _chance(self, number: int) -> tuple[np.random.Generator, np.random.Generator, float]:
        """Return the generators for the look and for the moment, and how far the thing has moved, in [-.5, .5]."""
        event, phase = divmod(number, RUN) if self.runs else (number, RUN // 2)
        appearance = np.random.default_rng((self.seed, _APPEARANCE, event, int(self.runs)))
        return appearance, np.random.default_rng((self.seed, _MOMENT, number)), phase / RUN - 0.5

    def _place(
        self, label: str, street: Backdrop, appearance: np.random.Generator, moment: np.random.Generator, phase: float
    ) -> _Place | None:
        if label not in ACTORS:
            return None
        actor, kerb = ACTORS[label], street.kerb
        share = appearance.uniform(actor.smallest, actor.largest)
        near = (share - actor.smallest) / (actor.largest - actor.smallest)
        facing = 1 if appearance.random() < 0.5 else -1
        margin = 0.22 + share * 0.2
        x = WIDTH * (appearance.uniform(margin, 1 - margin) + facing * phase * appearance.uniform(0.05, 0.3))
        y = kerb + (HEIGHT - kerb) * (0.12 + 0.6 * near) + moment.uniform(-1.5, 1.5)
        return _Place(x, y, share * WIDTH / actor.length_m, facing)

    def _draw(
        self, label: str, view: Backdrop, place: _Place | None, appearance: np.random.Generator
    ) -> tuple[Image.Image, list[Lamp]]:
        """Draw the canvas; return it with the lamps in pixels of the frame."""
        canvas = view.background.copy()
        draw = ImageDraw.Draw(canvas)
        lamps = list(view.lamps)
        if place is not None:
            actor = ACTORS[label]
            pen = Pen(draw, _DRAWN * place.x, _DRAWN * place.y, _DRAWN * place.scale, place.facing)
            pen.disc(0.0, 0.0, actor.length_m * 0.52, shade(view.asphalt, 0.62), actor.length_m * 0.05 + 0.06)
            actor.draw(pen, appearance)
            lamps += [Lamp(p.x / _DRAWN, p.y / _DRAWN, p.radius / _DRAWN, p.color, p.strength) for p in pen.lamps]
        if appearance.random() < 0.4:
            _occlude(draw, appearance)
        return canvas, lamps


def _label(appearance: np.random.Generator) -> str:
    return CLASSES[int(appearance.integers(len(CLASSES)))]


def _occlude(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Draw something close to the camera that hides a part of the street: a pole, a trunk, a hedge or leaves."""
    width, height = WIDTH * _DRAWN, HEIGHT * _DRAWN
    x = rng.uniform(0.1, 0.9) * width
    kind = rng.integers(4)
    if kind == 0:
        draw.rectangle((x, 0, x + rng.uniform(6, 13), height), fill=(98, 100, 102))
    elif kind == 1:
        draw.polygon(((x, 0), (x + 13, 0), (x + 19, height), (x - 5, height)), fill=(78, 60, 44))
    elif kind == 2:
        top = height * rng.uniform(0.82, 0.92)
        draw.rectangle((x - 60, top, x + 60, height), fill=(48, 82, 42))
    else:
        for dx, dy, r in rng.uniform((-40, -10, 8), (40, 30, 22), (7, 3)):
            draw.ellipse((x + dx - r, dy - r, x + dx + r, dy + r), fill=shade((62, 100, 50), rng.uniform(0.7, 1.2)))


def _view(rng: np.random.Generator) -> Backdrop:
    """Draw a street: sky, a skyline of houses or trees, a pavement, a road with markings, some furniture."""
    width, height = WIDTH * _DRAWN, HEIGHT * _DRAWN
    horizon = rng.uniform(0.22, 0.42) * height
    kerb = horizon + rng.uniform(0.1, 0.22) * height
    grey = rng.uniform(70, 135)
    asphalt: Color = (int(grey), int(grey * rng.uniform(0.96, 1.02)), int(grey * rng.uniform(0.94, 1.06)))
    canvas = Image.new("RGB", (width, height), (int(rng.uniform(130, 200)), int(rng.uniform(170, 212)), 228))
    draw = ImageDraw.Draw(canvas)
    _skyline(draw, horizon, rng)
    paving = rng.choice(((150, 146, 138), (118, 140, 92), (166, 150, 130), (128, 128, 132)))
    draw.rectangle((0, horizon, width, kerb), fill=tuple(int(v) for v in paving))
    draw.rectangle((0, kerb, width, height), fill=asphalt)
    draw.rectangle((0, kerb, width, kerb + 3), fill=shade(asphalt, 1.35))
    _markings(draw, kerb, shade(asphalt, rng.uniform(1.5, 2.0)), rng)
    lamps = _furniture(draw, horizon, kerb, rng)
    rows = np.arange(HEIGHT, dtype=np.float32) * _DRAWN
    below = np.clip((height - rows) / (height - horizon), 0, 1)
    distance = np.broadcast_to((0.25 + 0.75 * below)[:, None, None], (HEIGHT, WIDTH, 1)).astype(np.float32)
    cast = rng.uniform(0.92, 1.06, 3).astype(np.float32)
    return Backdrop(canvas, distance, tuple(lamps), kerb / _DRAWN, cast, asphalt)


def _skyline(draw: ImageDraw.ImageDraw, horizon: float, rng: np.random.Generator) -> None:
    """Draw houses with windows, or trees, from left to right."""
    wooded = rng.uniform(0, 1)
    x = -rng.uniform(0, 30)
    while x < WIDTH * _DRAWN:
        w = rng.uniform(22, 62)
        if rng.random() < wooded * 0.8:
            green = shade((66, 104, 58), rng.uniform(0.7, 1.3))
            draw.rectangle((x + w / 2 - 3, horizon - 18, x + w / 2 + 3, horizon + 6), fill=(82, 64, 48))
            draw.ellipse((x, horizon - rng.uniform(34, 60), x + w, horizon - 6), fill=green)
        else:
            grey = rng.uniform(100, 200)
            wall = (int(grey * rng.uniform(0.95, 1.15)), int(grey), int(grey * rng.uniform(0.75, 1.0)))
            top = horizon - rng.uniform(20, 74)
            draw.rectangle((x, top, x + w, horizon + 4), fill=wall)
            pane = (72, 84, 96) if rng.random() < 0.7 else (190, 200, 206)
            step = rng.uniform(11, 18)
            for wy in np.arange(top + 6, horizon - 8, step):
                for wx in np.arange(x + 5, x + w - 7, step):
                    draw.rectangle((wx, wy, wx + 5, wy + 7), fill=pane)
        x += w * rng.uniform(0.85, 1.15)


def _markings(draw: ImageDraw.ImageDraw, kerb: float, paint: Color, rng: np.random.Generator) -> None:
    """Draw a dashed line along the road, a zebra crossing, or nothing."""
    kind = rng.integers(3)
    width, height = WIDTH * _DRAWN, HEIGHT * _DRAWN
    middle = kerb + (height - kerb) * rng.uniform(0.3, 0.7)
    if kind == 0:
        for x in np.arange(rng.uniform(-40, 0), width, rng.uniform(44, 70)):
            draw.rectangle((x, middle, x + 28, middle + 4), fill=paint)
    elif kind == 1:
        start = rng.uniform(0, width * 0.7)
        for x in np.arange(start, start + 70, 16):
            draw.polygon(((x, kerb + 8), (x + 8, kerb + 8), (x + 2, height), (x - 10, height)), fill=paint)


def _furniture(draw: ImageDraw.ImageDraw, horizon: float, kerb: float, rng: np.random.Generator) -> list[Lamp]:
    """Draw street lamps, bins, signs and benches on the pavement; return the lamps, in frame pixels."""
    lamps = []
    for x in rng.uniform(0.05, 0.95, int(rng.integers(0, 3))) * WIDTH * _DRAWN:
        draw.rectangle((x, horizon - 62, x + 3, kerb - 4), fill=(84, 86, 90))
        draw.rectangle((x - 6, horizon - 66, x + 9, horizon - 61), fill=(210, 206, 190))
        lamps.append(Lamp(x / _DRAWN, (horizon - 62) / _DRAWN, 3.5, (1.0, 0.86, 0.6), 0.8))
    for x in rng.uniform(0.05, 0.95, int(rng.integers(0, 4))) * WIDTH * _DRAWN:
        kind, color = rng.integers(3), tuple(int(v) for v in rng.uniform(50, 190, 3))
        if kind == 0:
            draw.rectangle((x, kerb - 22, x + 11, kerb - 2), fill=color)
        elif kind == 1:
            draw.rectangle((x, kerb - 46, x + 2, kerb - 2), fill=(110, 110, 112))
            draw.ellipse((x - 8, kerb - 60, x + 10, kerb - 42), fill=color)
        else:
            draw.rectangle((x, kerb - 13, x + 34, kerb - 9), fill=color)
            draw.rectangle((x + 3, kerb - 13, x + 5, kerb - 2), fill=(60, 60, 60))
    return lamps
