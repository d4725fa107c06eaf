"""A decoded image -> the model's uint8 input: resize, crop, RGB. Between the codec and the batch.

RGB and grey are resized whole, in integers that are the same everywhere (`resize`), then cropped or padded. Against
open_clip's own evaluation transform before normalisation, a few pixels in a thousand differ by one level, and a few in
a million by two.

Every other mode, and long or tall images, go open_clip's own way through Pillow, in the same order of operations
(resize in the image's native mode, crop or pad, then RGB), so that palette, alpha and CMYK agree too. There the center
crop is folded into the resize through Pillow's `box`: pixels that are cut away are never computed, which makes a 1 x
4000 image as cheap as a square one. (`squash` needs them all: a line of 65,535 rows takes 59 MB on its way to 224 px.)
The box has float32 coordinates: about .02 % of the pixels differ from open_clip by one level (by more only under
near-zero alpha, where undoing the premultiplication magnifies it).

There are three departures. `longest` never rounds a side down to nothing, where open_clip fails. 16-bit grey, which
open_clip makes white, is brought to 8 bits first (`grey16`). And `shortest` resizes x first at any aspect, as it always
did: Pillow since 13, and so open_clip, begins with y where a picture is taller than 2:1, up to 30 levels away in noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from adawise.decode import codec, resize
from adawise.decode.rendition import AS_OPEN_CLIP, Rendition, id_as_open_clip

if TYPE_CHECKING:  # loading torch takes seconds, and a process that only decodes does not need it
    from torch import Tensor

ResizeMode = Literal["shortest", "squash", "longest"]
Interpolation = Literal["bicubic", "bilinear"]

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_PLAIN_MODES = ("RGB", "L")
# Longer images would be resized whole to keep a small part: 1 x 65,535 px to 224 x 14,679,840. And Pillow, which
# `longest` and `squash` always followed, resizes taller ones y first: up to 30 levels away where overshoots are cut.
_MOST_ASPECT = 4
_TALLEST: dict[str, int] = {"shortest": _MOST_ASPECT, "longest": 2, "squash": 1}
_NEAREST_MODES = ("1", "P")  # Pillow resizes these by picking pixels, where a rounded coordinate gives another colour
_EXACT_NEAREST_PIXELS = 16_000_000  # up to here such images are resized whole and then cropped
_PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}  # transparent pixels must not bleed their colour into their neighbours
_STRIP_ROWS = 64


@dataclass(frozen=True, slots=True)
class Preprocess:
    """open_clip's evaluation transform for square inputs of `size` px, up to but without normalisation.

    Args:
        size: side of the model's input, px.
        resize_mode: `shortest` (short side to `size`, center crop), `longest` (long side to `size`, center pad) or
            `squash` (both sides to `size`).
        interpolation: the filter; always antialiased.
        fill_color: grey level (0-255) of the padding of `longest`.
        rendition: what is done to a picture before the resize.
    """

    size: int
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill_color: int = 0
    rendition: Rendition = AS_OPEN_CLIP

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"preprocess: size is {self.size} px, expected at least 1: see the model's preprocess_cfg")
        if self.resize_mode not in get_args(ResizeMode):
            raise ValueError(f"preprocess: resize_mode is {self.resize_mode!r}, expected shortest, squash or longest")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"preprocess: interpolation is {self.interpolation!r}, expected bicubic or bilinear")

    @property
    def id(self) -> str:
        """The name of the arithmetic: two equal ids give equal tensors. Part of the model fingerprint."""
        return f"integer-{self._named}{self.rendition.id}/2"

    @property
    def continues(self) -> tuple[str, ...]:
        """The ids of earlier versions that gave the same pixels, up to a level in less than .5 % of them.

        A few pixels in a million differ by two levels, none by more; `tests/decode/test_preprocess.py` measures it.
        16-bit grey, however, was white then, so nothing could be learned from it.
        """
        return (f"pillow-{self._named}/1",) if self.rendition == AS_OPEN_CLIP else ()

    @property
    def oldest(self) -> str:
        """The first id of the same pixels: what outlives an upgrade is tied to it."""
        return (*self.continues, self.id)[0]

    def reads_otherwise(self, other: str) -> bool:
        """Return True if `other` is this arithmetic, or one that it continues, with another rendition."""
        as_open_clip = replace(self, rendition=AS_OPEN_CLIP)
        known = as_open_clip.id, *as_open_clip.continues
        return other not in (self.id, *self.continues) and id_as_open_clip(other) in known

    @property
    def build(self) -> str:
        """The versions of the libraries that decode; part of the fingerprint, not of the identity."""
        return codec.build()

    @property
    def _named(self) -> str:
        fill = f"-fill{self.fill_color}" if self.resize_mode == "longest" else ""
        return f"{self.interpolation}-{self.resize_mode}{fill}-{self.size}"

    def __call__(self, image: Image.Image) -> Tensor:
        """Map any 8- or 16-bit Pillow image to uint8 `[3, size, size]`; raise what `pixels` does."""
        import torch

        return torch.from_numpy(self._pixels(image, resize.by_torch))

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the same as an array, without torch.

        Raises:
            Exception: whatever Pillow raises when the image's data turns out to be broken: it decodes on first use.
        """
        return self._pixels(image, resize.by_numpy)

    def _pixels(self, image: Image.Image, resized: resize.Resize) -> npt.NDArray[np.uint8]:
        image.info.pop("transparency", None)  # a conversion to RGB ignores it, but Pillow warns about some of its forms
        image = self.rendition(image, self._whole(*image.size))
        is_plain = self._is_plain(image)
        pixels = self._by_integers(codec.rgb(image), resized) if is_plain else self._by_pillow(image)  # [S, S, 3]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _is_plain(self, image: Image.Image) -> bool:
        width, height = image.size
        fits = width <= _MOST_ASPECT * height and height <= _TALLEST[self.resize_mode] * width
        return fits and image.mode in _PLAIN_MODES

    def _by_integers(self, pixels: npt.NDArray[np.uint8], resized: resize.Resize) -> npt.NDArray[np.uint8]:
        S = self.size
        height, width, _ = pixels.shape
        size = self._whole(width, height)
        if size != (width, height):
            pixels = resized(pixels, size, self.interpolation)
        if self.resize_mode == "longest":
            canvas = np.full((S, S, 3), self.fill_color, np.uint8)
            left, top = ((S - side) // 2 for side in size)
            canvas[top : top + size[1], left : left + size[0]] = pixels
            return canvas
        left, top = (round((side - S) / 2) for side in size)
        return pixels[top : top + S, left : left + S]

    def _whole(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) of an image before it is cropped or padded, px."""
        S = self.size
        match self.resize_mode:
            case "shortest":  # torchvision's rounding: the long side is truncated to whole pixels
                return (S, int(S * height / width)) if width <= height else (int(S * width / height), S)
            case "longest":
                ratio = max(width, height) / S
                return max(1, round(width / ratio)), max(1, round(height / ratio))
            case "squash":
                return S, S

    def _by_pillow(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        match self.resize_mode:
            case "shortest":
                image = self._resize_and_crop(image)
            case "longest":
                image = self._resize_and_pad(image)
            case "squash":
                image = self._resize(image, (self.size, self.size))
        return np.array(image.convert("RGB"))

    def _resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Resize both sides to `size`; leave an image of that size alone (resizing RGBA to its own size changes it)."""
        return image if image.size == size else image.resize(size, _RESAMPLING[self.interpolation])

    def _resize_and_crop(self, image: Image.Image) -> Image.Image:
        S = self.size
        width, height = image.size
        resized = self._whole(width, height)
        left, top = (round((side - S) / 2) for side in resized)
        if image.size == resized or (image.mode in _NEAREST_MODES and math.prod(resized) <= _EXACT_NEAREST_PIXELS):
            return self._resize(image, resized).crop((left, top, left + S, top + S))
        # Cut down to what the filter can reach first: the pass along x runs over every remaining row, and a line of a
        # million rows would become 224 million pixels. Pillow's own box is float32, too coarse far from 0.
        x0, x1 = left * width / resized[0], (left + S) * width / resized[0]
        y0, y1 = top * height / resized[1], (top + S) * height / resized[1]
        (first_x, last_x), (first_y, last_y) = self._reach(x0, x1, width), self._reach(y0, y1, height)
        if (first_x, first_y, last_x, last_y) != (0, 0, width, height):
            image = image.crop((first_x, first_y, last_x, last_y))
        # One pass per axis, always x first: Pillow chooses the order by the sides, and overshoots that are clipped
        # between the passes then differ (by 10 levels and more).
        mode = image.mode
        image = self._resize_x(image, x0 - first_x, x1 - first_x)
        box = (0.0, y0 - first_y, float(S), y1 - first_y)
        image = image.resize((S, S), _RESAMPLING[self.interpolation], box)
        return image.convert(mode) if mode in _PREMULTIPLIED else image

    def _reach(self, start: float, stop: float, side: int) -> tuple[int, int]:
        """Return the range of pixels of a side that contribute to [start, stop) px of it."""
        reach = math.ceil(2 * max(1.0, (stop - start) / self.size)) + 1  # px; the support of bicubic at scale 1 is 2
        return max(0, math.floor(start) - reach), min(side, math.ceil(stop) + reach)

    def _resize_x(self, image: Image.Image, start: float, stop: float) -> Image.Image:
        """Resize columns [start, stop) to `size` px and keep the rows; an image with alpha comes back premultiplied."""
        how, (width, height) = _RESAMPLING[self.interpolation], image.size
        if image.mode not in _PREMULTIPLIED:
            return image.resize((self.size, height), how, (start, 0.0, stop, float(height)))
        # As Image.resize does, but once for both passes, and some rows at a time: a copy of the whole would double the
        # memory, and allocating it would take longer than filling it.
        mode = _PREMULTIPLIED[image.mode]
        resized = Image.new(mode, (self.size, height))
        for y in range(0, height, _STRIP_ROWS):
            strip = image.crop((0, y, width, min(height, y + _STRIP_ROWS))).convert(mode)
            resized.paste(strip.resize((self.size, strip.height), how, (start, 0.0, stop, float(strip.height))), (0, y))
        return resized

    def _resize_and_pad(self, image: Image.Image) -> Image.Image:
        S = self.size
        width, height = self._whole(*image.size)
        image = self._resize(image, (width, height))
        if (width, height) == (S, S):
            return image
        horizontal, vertical = S - width, S - height
        border = (horizontal // 2, vertical // 2, (horizontal + 1) // 2, (vertical + 1) // 2)
        bands = len(image.getbands())
        if image.mode != "P":
            return ImageOps.expand(image, border, self.fill_color if bands == 1 else (self.fill_color,) * bands)
        palette = image.getpalette()  # `expand` would look the fill up as a colour; open_clip takes it as an index
        image = ImageOps.expand(image, border, self.fill_color)
        if palette is not None:
            image.putpalette(palette)
        return image
