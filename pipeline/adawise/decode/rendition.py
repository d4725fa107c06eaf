"""The changes to a picture before it is resized, beyond what open_clip does, for rotated and thermal cameras.

The defaults turn nothing and decode every pixel, as open_clip does. 16-bit grey, which open_clip makes white, is always
brought to 8 bits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image, JpegImagePlugin

from adawise.decode import grey16
from adawise.decode.orientation import ORIENTATION, UPRIGHT, upright

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
    grey16_range: grey16.Range | None = None
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
        if image.mode in grey16.MODES:
            image = grey16.to_8_bits(image, self.grey16_range)
        return upright(image, orientation) if self.orientation == "apply" else image


AS_OPEN_CLIP = Rendition()


def id_as_open_clip(id: str) -> str:
    """Return the id of a preprocessing without what its rendition adds."""
    return _ADDED.sub("", id)
