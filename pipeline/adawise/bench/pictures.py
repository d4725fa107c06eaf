"""Drawn camera images, encoded as JPEG: no download, and the same bytes on every machine with the same libjpeg."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_CELL = 40  # px of a patch of one colour, before it is smoothed


def jpegs(width: int = 640, height: int = 480, count: int = 40) -> list[bytes]:
    """Return smooth random images with some noise, about 64 KB each at 640 x 480."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (height // _CELL, width // _CELL, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
        values.append(buffer.getvalue())
    return values
