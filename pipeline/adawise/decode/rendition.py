"""The changes to a picture before it is resized, beyond what open_clip does, for rotated and thermal cameras.

The defaults turn nothing and decode every pixel, as open_clip does. 16-bit grey, which open_clip makes white, is always
brought to 8 bits.

16-bit grey of thermal and depth cameras is brought to 8 bits before a resize, which handles 16 bits wrongly. A sensor
uses a small part of its 65,536 levels: some hundred for a room at 14 bits. Pillow's conversion to RGB cuts at
255, so all of them would become white; the high byte, which other readers take, leaves one or two grey levels. So a
picture is stretched over its own range, without the outermost thousandth of its pixels at either end: one hot or dead
pixel would otherwise set the range. Pixels outside become black or white. This is the linear gain control with tail
rejection of thermal cameras. It loses the absolute level, which a fixed range keeps.

All sums and divisions are of integers, so every machine gives the same levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from adawise.decode.pieces import ORIENTATION, UPRIGHT, upright

Range = tuple[int, int]
"""The levels that become black and white: LOW and HIGH, 0 <= LOW < HIGH <= 65535."""

GREY16_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
LEVELS = 65_536
TAIL = 1_000  # one in this many pixels is outside the range, at either end

_AT_ONCE = 2**20  # pixels: NumPy's intermediate arrays take 8 bytes for each


def to_8_bits(image: Image.Image, fixed: Range | None) -> Image.Image:
    """Map a picture of one of `MODES` to mode L, linear from black at the range's low end to white at its high one.

    Levels are rounded to the nearest, halves up. Levels of mode I beyond 16 bits count as the nearest 16-bit level.

    Args:
        image: the picture.
        fixed: the range; None for the picture's own: see `own_range`.

    Raises:
        Exception: whatever Pillow raises for broken data.
    """
    pixels = np.asarray(np.clip(np.asarray(image), 0, LEVELS - 1), np.uint16)
    low, high = fixed or own_range(pixels)
    return Image.fromarray(np.concatenate([_stretched(strip, low, high) for strip in _strips(pixels)]))


def own_range(pixels: npt.NDArray[np.uint16]) -> Range:
    """Return the range of uint16 `[H, W]` without a `TAIL`th of the pixels at either end.

    Where that leaves a single level, all pixels count. A picture of one level has no range, and is shown by its share
    of all levels: (0, 65535).
    """
    least, most = int(pixels.min()), int(pixels.max())
    if least == most:
        return 0, LEVELS - 1
    outside = pixels.size // TAIL
    if pixels.size < most - least:  # for so few pixels a histogram costs more than sorting them
        in_order = np.sort(pixels, axis=None, kind="stable")  # a radix sort for 16 bits
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


Orientation = Literal["ignore", "apply"]

_ADDED = re.compile(r"(-upright)?(-grey16:\d+:\d+)?(-reduced)?(?=/\d+$)")
_OVERSAMPLING = 2  # decoded pixels for one input pixel: with fewer, the codec's box filter shows through the resize


@dataclass(frozen=True, slots=True)
class Rendition:
    """The way pictures are read; part of `Preprocess`.

    Args:
        orientation: "apply" turns pictures as their EXIF says.
        grey16_range: levels of 16-bit grey that become black and white; None: those of each picture.
        reduced: True to decode a JPEG at 1/2, 1/4 or 1/8 where that leaves twice the size that is asked for.
    """

    orientation: Orientation = "ignore"
    grey16_range: Range | None = None
    reduced: bool = False

    @property
    def id(self) -> str:
        """The name of what differs from the default: "" or `-upright-grey16:7000:18000-reduced`."""
        turned = "-upright" if self.orientation == "apply" else ""
        levels = "-grey16:{}:{}".format(*self.grey16_range) if self.grey16_range else ""
        return f"{turned}{levels}{'-reduced' if self.reduced else ''}"

    def __call__(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the picture ready for its resize to `size`, (width, height) in px before it is turned.

        Raises:
            Exception: whatever Pillow raises when the image's data turns out to be broken.
        """
        orientation = image.info.get(ORIENTATION, UPRIGHT)
        if self.reduced and isinstance(image, JpegImagePlugin.JpegImageFile):
            width, height = size
            image.draft(None, (_OVERSAMPLING * width, _OVERSAMPLING * height))
        if image.mode in GREY16_MODES:
            image = to_8_bits(image, self.grey16_range)
        return upright(image, orientation) if self.orientation == "apply" else image


AS_OPEN_CLIP = Rendition()


def id_as_open_clip(id: str) -> str:
    """Return the id of a preprocessing without what its rendition adds."""
    return _ADDED.sub("", id)
