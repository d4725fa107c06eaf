"""A pen that draws in metres, for `actors.py`: Pillow's drawing with a place, a scale and a direction.

Lamps are drawn and also recorded, so that they can shine when the weather turns them on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
