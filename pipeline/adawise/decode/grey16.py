"""16-bit grey, as thermal and depth cameras send it -> 8 bits. Before the resize, which filters 16 bits wrongly.

A sensor fills a small part of its 65,536 levels: a room at 14 bits some hundred of them. Pillow's conversion to RGB
cuts at 255, so that all of them became white; the high byte, which other readers take, leaves one or two grey levels.
So a picture is stretched over its own range, without the outermost thousandth of its pixels at either end: one hot or
dead pixel would take the range from all others. What lies outside is black or white. This is the linear gain control
with tail rejection of thermal cameras. It forgets the absolute level, which a fixed range keeps.

All sums and divisions are of integers, so every machine has the same levels.
"""

from __future__ import annotations

from collections.abc import Iterator

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

    The range is `fixed`, or the picture's own: see `own_range`. Levels are rounded to the nearest, halves up. Levels of
    mode I beyond 16 bits count as the nearest that there is.

    Raises whatever Pillow raises for broken data.
    """
    pixels = np.asarray(np.clip(np.asarray(image), 0, LEVELS - 1), np.uint16)
    low, high = fixed or own_range(pixels)
    return Image.fromarray(np.concatenate([_stretched(strip, low, high) for strip in _strips(pixels)]))


def own_range(pixels: npt.NDArray[np.uint16]) -> Range:
    """Of uint16 `[H, W]`: without a `TAIL`th of the pixels at either end, or of all where that leaves one level.

    A picture of one level has no range, and is shown by its share of all levels: (0, 65535).
    """
    least, most = int(pixels.min()), int(pixels.max())
    if least == most:
        return 0, LEVELS - 1
    outside = pixels.size // TAIL
    if pixels.size < most - least:  # a histogram of so few is dearer than they are
        in_order = np.sort(pixels, axis=None, kind="stable")  # of 16 bits: by radix
        low, high = int(in_order[outside]), int(in_order[-1 - outside])
    else:
        counts = np.zeros(most - least + 1, np.int64)
        for strip in _strips(pixels):
            counts += np.bincount((strip - np.uint16(least)).ravel(), minlength=len(counts))
        up_to = np.cumsum(counts)
        low, high = (least + int(np.searchsorted(up_to, n, side="right")) for n in (outside, pixels.size - 1 - outside))
    return (low, high) if low < high else (least, most)


def _strips(pixels: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.uint16]]:
    height, width = pixels.shape
    rows = max(1, _AT_ONCE // width)
    return (pixels[y : y + rows] for y in range(0, height, rows))


def _stretched(strip: npt.NDArray[np.uint16], low: int, high: int) -> npt.NDArray[np.uint8]:
    span = high - low
    levels = np.clip(strip, low, high).astype(np.uint32) - np.uint32(low)
    return ((2 * 255 * levels + span) // (2 * span)).astype(np.uint8)
