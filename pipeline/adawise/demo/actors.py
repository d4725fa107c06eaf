"""Drawings of what the demo's cameras see: vehicles, people, a dog and road works, in metres.

Each drawing takes a `Pen` and a random generator for its look. A pen is Pillow's drawing with a place, a scale and a
direction. Its origin is on the ground below the middle of the thing, with x along the street and y up. A lamp is drawn
and also recorded, so that it shines when the weather turns lamps on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import ImageDraw

from adawise.demo.weather import Lamp

Color = tuple[int, int, int]


@dataclass
class Pen:
    """Draws in metres onto a canvas in pixels; `scale` is pixels per metre, `facing` is 1 or -1 along x.

    `lamps` are in canvas pixels.
    """

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    facing: int = 1
    lamps: list[Lamp] = field(default_factory=list)

    def at(self, x: float, scale: float = 1.0) -> Pen:
        """Return a pen `x` metres along the street, on the same canvas and list of lamps."""
        return Pen(self.draw, self.x + x * self.scale, self.y, self.scale * scale, self.facing, self.lamps)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Draw a filled rectangle between two corners."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), color)

    def polygon(self, points: tuple[tuple[float, float], ...], color: Color) -> None:
        """Draw a filled polygon."""
        self.draw.polygon([self._pixel(x, y) for x, y in points], fill=color)

    def line(self, points: tuple[tuple[float, float], ...], width: float, color: Color) -> None:
        """Draw a line; `width` is in metres."""
        pixels = max(1, round(width * self.scale))
        self.draw.line([self._pixel(x, y) for x, y in points], fill=color, width=pixels, joint="curve")

    def disc(self, x: float, y: float, rx: float, color: Color, ry: float | None = None) -> None:
        """Draw a filled ellipse; a circle without `ry`."""
        px, py = self._pixel(x, y)
        w, h = rx * self.scale, (rx if ry is None else ry) * self.scale
        self.draw.ellipse((px - w, py - h, px + w, py + h), fill=color)

    def ring(self, x: float, y: float, radius: float, width: float, color: Color) -> None:
        """Draw a circle's outline."""
        px, py = self._pixel(x, y)
        r = radius * self.scale
        self.draw.ellipse((px - r, py - r, px + r, py + r), outline=color, width=max(1, round(width * self.scale)))

    def lamp(self, x: float, y: float, radius: float, color: tuple[float, float, float], strength: float) -> None:
        """Draw a lamp, a small bright spot, and record the light that it gives in the dark."""
        self.disc(x, y, radius, (int(120 + 130 * color[0]), int(110 + 130 * color[1]), int(100 + 130 * color[2])))
        self.shine(x, y, max(3.0 / self.scale, 1.6 * radius), color, strength)

    def shine(self, x: float, y: float, radius: float, color: tuple[float, float, float], strength: float) -> None:
        """Record a light that is not seen by day."""
        px, py = self._pixel(x, y)
        self.lamps.append(Lamp(px, py, radius * self.scale, color, strength))

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return self.x + self.facing * x * self.scale, self.y - y * self.scale


def shade(color: Color, factor: float) -> Color:
    """Return a colour made darker (factor below 1) or lighter."""
    return (min(255, int(color[0] * factor)), min(255, int(color[1] * factor)), min(255, int(color[2] * factor)))


HEADLIGHT, TAILLIGHT, WARNING = (1.0, 0.95, 0.8), (1.0, 0.12, 0.08), (1.0, 0.6, 0.1)
TYRE, GLASS, SKIN = (28, 28, 30), (86, 108, 124), ((236, 196, 164), (198, 142, 104), (128, 84, 58), (84, 56, 42))
PAINT: tuple[Color, ...] = (
    (196, 36, 34), (32, 76, 160), (228, 228, 226), (40, 42, 46), (128, 132, 136), (222, 176, 42),
    (36, 112, 70), (148, 62, 36), (92, 148, 192), (112, 42, 96), (210, 110, 40), (176, 186, 168),
)  # fmt: skip


def car(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a car of 4.3 m: saloon, hatchback or estate."""
    paint = _pick(PAINT, rng)
    back = rng.uniform(-2.1, -1.3)
    roof = rng.uniform(1.35, 1.6)
    pen.polygon(((-2.15, 0.3), (2.15, 0.3), (2.15, 0.68), (1.2, 0.9), (-2.1, 0.95)), paint)
    pen.polygon(((back, 0.88), (back + 0.45, roof), (0.45, roof), (1.25, 0.88)), shade(paint, 0.9))
    pen.polygon(((back + 0.28, 0.92), (back + 0.6, roof - 0.1), (-0.35, roof - 0.1), (-0.35, 0.92)), GLASS)
    pen.polygon(((-0.22, 0.92), (-0.22, roof - 0.1), (0.38, roof - 0.1), (1.0, 0.92)), GLASS)
    pen.box(-2.15, 0.3, 2.15, 0.42, shade(paint, 0.55))
    _wheels(pen, (-1.35, 1.35), 0.34)
    pen.lamp(2.08, 0.66, 0.1, HEADLIGHT, 1.0)
    pen.lamp(-2.08, 0.78, 0.09, TAILLIGHT, 0.6)


def truck(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a truck of 7.4 m: a cab with a box, a tank or a tipper behind it."""
    paint, load = _pick(PAINT, rng), _pick(PAINT, rng)
    top = rng.uniform(2.6, 3.3)
    kind = rng.integers(3)
    pen.box(-3.7, 0.55, 3.6, 0.8, (50, 50, 52))
    if kind == 0:
        pen.box(-3.7, 0.8, 1.6, top, load)
        pen.box(-3.7, 0.8, 1.6, 1.0, shade(load, 0.7))
    elif kind == 1:
        pen.disc(-1.05, 1.75, 2.6, load, 0.95)
        pen.box(-2.8, 0.8, 0.8, 1.0, shade(load, 0.6))
    else:
        pen.polygon(((-3.7, 0.9), (1.5, 0.9), (1.7, 2.1), (-4.0, 2.0)), load)
        pen.polygon(((-3.2, 2.0), (-1.2, 2.6), (1.2, 2.05)), (134, 112, 84))
    pen.polygon(((1.85, 0.55), (3.7, 0.55), (3.7, 1.5), (3.35, 2.5), (1.85, 2.5)), paint)
    pen.polygon(((2.5, 1.5), (3.5, 1.5), (3.25, 2.3), (2.5, 2.3)), GLASS)
    _wheels(pen, (-2.9, -1.9, 2.75), 0.5)
    pen.lamp(3.62, 0.85, 0.13, HEADLIGHT, 1.0)
    pen.lamp(-3.66, 0.75, 0.11, TAILLIGHT, 0.6)


def bus(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a bus of 9.6 m: one long body with a row of windows, lit inside at night."""
    paint = _pick(PAINT, rng)
    pen.box(-4.8, 0.4, 4.8, 3.05, paint)
    pen.box(-4.8, 0.4, 4.8, 0.95, shade(paint, 0.75))
    pen.box(-4.6, 1.5, 4.7, 2.65, GLASS)
    for x in np.arange(-3.4, 4.0, 1.25):
        pen.box(float(x), 1.5, float(x) + 0.14, 2.65, shade(paint, 0.85))
    pen.box(2.9, 0.5, 3.9, 2.6, shade(GLASS, 0.8))
    _wheels(pen, (-3.0, 2.4), 0.5)
    pen.lamp(4.72, 0.85, 0.14, HEADLIGHT, 1.0)
    pen.lamp(-4.74, 0.9, 0.11, TAILLIGHT, 0.6)
    for x in (-3.0, -0.6, 1.8):
        pen.shine(x, 2.1, 0.65, (0.8, 0.85, 0.7), 0.4)


def motorcycle(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a motorcycle with its rider: thick wheels, a tank, a helmet."""
    paint, jacket = _pick(PAINT, rng), _pick(PAINT, rng)
    for x in (-0.72, 0.74):
        pen.disc(x, 0.33, 0.34, TYRE)
        pen.disc(x, 0.33, 0.15, (120, 120, 124))
    pen.polygon(((-0.5, 0.35), (0.35, 0.35), (0.45, 0.65), (-0.4, 0.65)), (62, 62, 66))
    pen.polygon(((-1.0, 0.8), (-0.2, 0.72), (0.55, 0.95), (0.62, 0.7), (-0.3, 0.55)), paint)
    pen.line(((0.74, 0.35), (0.48, 1.05)), 0.1, (70, 70, 74))
    pen.line(((-0.25, 0.8), (0.12, 0.75), (0.0, 0.35)), 0.19, (40, 42, 54))
    pen.polygon(((-0.42, 0.78), (-0.08, 0.78), (0.22, 1.34), (-0.14, 1.42)), jacket)
    pen.line(((0.06, 1.28), (0.46, 1.06)), 0.13, shade(jacket, 0.8))
    pen.disc(0.12, 1.54, 0.18, _pick(PAINT, rng))
    pen.lamp(0.66, 0.88, 0.1, HEADLIGHT, 0.9)
    pen.lamp(-0.96, 0.76, 0.06, TAILLIGHT, 0.5)


def bicycle(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a bicycle with its rider: thin open wheels, a triangle of tubes, an upright back."""
    paint, shirt = _pick(PAINT, rng), _pick(PAINT, rng)
    for x in (-0.55, 0.55):
        pen.ring(x, 0.35, 0.36, 0.05, TYRE)
    for tube in (((-0.55, 0.35), (-0.15, 0.35), (-0.22, 0.85)), ((-0.15, 0.35), (0.42, 0.86), (-0.2, 0.8))):
        pen.line(tube, 0.05, paint)
    pen.line(((0.55, 0.35), (0.38, 1.0), (0.52, 1.04)), 0.05, paint)
    knee = rng.uniform(0.55, 0.8)
    pen.line(((-0.2, 0.95), (0.1, knee), (-0.12, 0.25)), 0.13, _pick(PAINT, rng))
    pen.polygon(((-0.36, 0.9), (-0.06, 0.9), (0.18, 1.44), (-0.1, 1.5)), shirt)
    pen.line(((0.06, 1.36), (0.46, 1.06)), 0.09, _pick(SKIN, rng))
    pen.disc(0.12, 1.64, 0.13, _pick(SKIN, rng))
    pen.lamp(0.55, 0.9, 0.05, HEADLIGHT, 0.35)
    pen.lamp(-0.5, 0.75, 0.04, TAILLIGHT, 0.3)


def pedestrian(pen: Pen, rng: np.random.Generator) -> None:
    """Draw one person walking."""
    coat, trousers, skin = _pick(PAINT, rng), _pick(PAINT, rng), _pick(SKIN, rng)
    step = rng.uniform(0.06, 0.32)
    pen.line(((0.0, 0.88), (step, 0.45), (step * 0.9, 0.03)), 0.16, trousers)
    pen.line(((0.0, 0.88), (-step * 0.7, 0.45), (-step * 1.3, 0.05)), 0.16, shade(trousers, 0.8))
    pen.polygon(((-0.2, 0.8), (0.2, 0.8), (0.22, 1.42), (-0.2, 1.42)), coat)
    pen.line(((0.0, 1.36), (step * 0.8, 0.95)), 0.11, shade(coat, 0.75))
    pen.disc(0.02, 1.6, 0.14, skin)
    pen.disc(0.0, 1.67, 0.13, _pick(((40, 30, 24), (92, 62, 34), (170, 134, 74), (110, 110, 112)), rng), 0.08)


def group(pen: Pen, rng: np.random.Generator) -> None:
    """Draw three to five people close together."""
    count = int(rng.integers(3, 6))
    for i in range(count):
        pedestrian(pen.at((i - (count - 1) / 2) * rng.uniform(0.42, 0.55), rng.uniform(0.82, 1.05)), rng)


def dog(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a dog, about .9 m long."""
    fur = _pick(((70, 48, 30), (190, 150, 96), (32, 30, 30), (222, 214, 200), (128, 92, 58)), rng)
    for x in (-0.3, -0.18, 0.22, 0.33):
        pen.line(((x, 0.32), (x + rng.uniform(-0.08, 0.08), 0.02)), 0.08, shade(fur, 0.8))
    pen.disc(0.0, 0.42, 0.42, fur, 0.15)
    pen.line(((0.3, 0.46), (0.48, 0.66)), 0.16, fur)
    pen.disc(0.5, 0.68, 0.13, fur)
    pen.disc(0.63, 0.64, 0.11, fur, 0.065)
    pen.polygon(((0.4, 0.74), (0.46, 0.9), (0.52, 0.76)), shade(fur, 0.6))
    pen.line(((-0.38, 0.46), (-0.58, rng.uniform(0.5, 0.78))), 0.06, fur)


def road_works(pen: Pen, rng: np.random.Generator) -> None:
    """Draw a striped barrier with a warning lamp, and cones beside it."""
    half = rng.uniform(0.6, 0.95)
    for x in (-half * 0.8, half * 0.8):
        pen.line(((x, 0.0), (x, 1.0)), 0.07, (90, 90, 92))
    stripe = _pick(((208, 44, 32), (226, 104, 24), (214, 66, 30)), rng)
    pen.box(-half, 0.6, half, 1.0, (236, 234, 228))
    for x in np.arange(-half, half - 0.1, 0.36):
        pen.polygon(((float(x), 0.6), (float(x) + 0.18, 0.6), (float(x) + 0.3, 1.0), (float(x) + 0.12, 1.0)), stripe)
    pen.lamp(half * 0.7, 1.1, 0.09, WARNING, 0.8)
    for x in rng.uniform(half + 0.2, half + 0.9, int(rng.integers(1, 4))):
        side = float(x) * (1 if rng.random() < 0.5 else -1)
        pen.polygon(((side - 0.22, 0.0), (side + 0.22, 0.0), (side + 0.04, 0.68), (side - 0.04, 0.68)), (228, 94, 26))
        pen.polygon(
            ((side - 0.14, 0.24), (side + 0.14, 0.24), (side + 0.09, 0.42), (side - 0.09, 0.42)), (240, 238, 232)
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """A class's drawing function, its size in metres, and the shares of the picture's width that it may take."""

    draw: Callable[[Pen, np.random.Generator], None]
    length_m: float
    height_m: float
    smallest: float
    largest: float


ACTORS: dict[str, Drawing] = {
    "car": Drawing(car, 4.3, 1.6, 0.32, 0.56),
    "truck": Drawing(truck, 7.4, 3.2, 0.4, 0.66),
    "bus": Drawing(bus, 9.6, 3.1, 0.46, 0.74),
    "motorcycle": Drawing(motorcycle, 2.1, 1.75, 0.22, 0.42),
    "bicycle": Drawing(bicycle, 1.8, 1.8, 0.2, 0.38),
    "pedestrian": Drawing(pedestrian, 0.6, 1.75, 0.1, 0.19),
    "group of people": Drawing(group, 2.0, 1.8, 0.26, 0.46),
    "dog": Drawing(dog, 1.1, 0.9, 0.2, 0.38),
    "road works": Drawing(road_works, 2.4, 1.2, 0.28, 0.48),
}


def _wheels(pen: Pen, xs: tuple[float, ...], radius: float) -> None:
    for x in xs:
        pen.disc(x, radius, radius, TYRE)
        pen.disc(x, radius, radius * 0.5, (148, 148, 152))


def _pick(colors: tuple[Color, ...], rng: np.random.Generator) -> Color:
    color = colors[int(rng.integers(len(colors)))]
    return shade(color, rng.uniform(0.8, 1.12))
