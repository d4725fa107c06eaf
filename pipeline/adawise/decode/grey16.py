"""16-bit grey, as thermal and depth cameras send it -> 8 bits. Before the resize, which filters 16 bits wrongly.

A sensor fills a small part of its 65,536 levels: a room at 14 bits some hundred of them. Pillow's conversion to RGB
cuts at 255, so that all of them became white; the high byte, which other readers take, leaves one or two grey levels.
So a picture is stretched over its own range, without the outermost thousandth of its pixels at either end: one hot or
dead pixel would take the range from all others. What lies outside is black or white. This is the linear gain control
with tail rejection of thermal cameras. It forgets the absolute level, which a fixed range keeps.

All sums and divisions are of integers, so every machine has the same levels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Range = tuple[int, int]
"""LOW and HIGH, 0 <= LOW < HIGH <= 65535: black and white."""

MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
LEVELS = 65_536
TAIL = 1_000  # of as many pixels one is outside the range, at either end

_AT_ONCE = 2**20  # pixels: what NumPy makes of them on the way has 8 bytes each


def to_8_bits(image: Image.Image, fixed: Range | None) -> Image.Image:
    """A picture of one of `MODES` -> mode L: linear from black at the range's low end to white at its high one.

    The range is `fixed`, or the picture's own: without a `TAIL`th of its pixels at either end, or of all pixels where
    that leaves one level. A picture of one level has no range, and becomes its share of `LEVELS`. Levels of mode I
    beyond 16 bits count as the nearest that there is.

    Raises whatever Pillow raises for broken data.
    """
    pixels = np.asarray(image)
    rows = max(1, _AT_ONCE // max(1, image.width))
    strips = [pixels[y : y + rows] for y in range(0, image.height, rows)]
    low, high = fixed or own_range(sum((_counted(strip) for strip in strips), np.zeros(LEVELS, np.int64)))
    table = levels(low, high)
    return Image.fromarray(np.concatenate([table[_16_bits(strip)] for strip in strips]))


def own_range(counts: npt.NDArray[np.int64]) -> Range:
    """LOW and HIGH by the number of pixels of each level; (0, 65535) for a picture of one level."""
    pixels = int(counts.sum())
    for outside in (pixels // TAIL, 0):
        up_to = np.cumsum(counts)
        low, high = (int(np.searchsorted(up_to, rank, side="right")) for rank in (outside, pixels - 1 - outside))
        if low < high:
            return low, high
    return 0, LEVELS - 1


def levels(low: int, high: int) -> npt.NDArray[np.uint8]:
    """uint8 `[65536]`: what each level becomes, rounded to the nearest, halves up."""
    span = high - low
    inside = np.clip(np.arange(LEVELS) - low, 0, span)
    return ((2 * 255 * inside + span) // (2 * span)).astype(np.uint8)


def _counted(strip: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    return np.bincount(_16_bits(strip).ravel(), minlength=LEVELS)


def _16_bits(strip: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16]:
    return np.asarray(np.clip(strip, 0, LEVELS - 1), np.uint16)
