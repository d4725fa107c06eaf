"""Corruptions by processing and storing. Lengths are px of a picture of 224, and scale with it.

Pictures are float `[S, S, 3]` in [0, 1].
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from adawise_lab.evaluate.corrupt.blur import REFERENCE_PX, displaced, scaled, smooth

Picture = npt.NDArray[np.float64]


def contrast(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Flatten the light: distances to the mean shrink to .4, .3, .2, .1, .05."""
    del rng
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - mean) * kept + mean)


def elastic(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Stretch and bend: displacements of sd 2, 3, 4, 5, 6 px, smoothed over 12, 10, 9, 8, 7 px."""
    sd, turn = ((2.0, 12.0), (3.0, 10.0), (4.0, 9.0), (5.0, 8.0), (6.0, 7.0))[severity - 1]
    field = np.stack([smooth(rng.normal(size=x.shape[:2]), scaled(turn, x)) for _ in range(2)])
    field *= scaled(sd, x) / field.std(axis=(1, 2), keepdims=True)
    return displaced(x, field)


def pixelate(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Reduce to few pixels: .6, .5, .4, .3, .25 of them along each side, enlarged as squares."""
    del rng
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    size = x.shape[1::-1]
    small = _image(x).resize((max(1, int(size[0] * share)), max(1, int(size[1] * share))), Image.Resampling.BOX)
    return _picture(small.resize(size, Image.Resampling.NEAREST))


def jpeg(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Store as JPEG of quality 25, 18, 15, 10, 7.

    A smaller picture is stored at 224 px, since JPEG's blocks have 8 px.
    """
    del rng
    quality = (25, 18, 15, 10, 7)[severity - 1]
    size = x.shape[1::-1]
    stored = _image(x)
    if max(size) < REFERENCE_PX:
        ratio = REFERENCE_PX / max(size)
        stored = stored.resize((round(size[0] * ratio), round(size[1] * ratio)), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    stored.save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as again:
        return _picture(again.resize(size, Image.Resampling.BICUBIC) if again.size != size else again)


def _image(x: Picture) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8))


def _picture(image: Image.Image) -> Picture:
    return np.asarray(image, dtype=np.float64) / 255.0
