"""Corruptions by weather and light. Lengths are px of a picture of 224, and scale with it.

Pictures are float `[S, S, 3]` in [0, 1]; results are not clipped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.color import hsv2rgb, rgb2gray, rgb2hsv
from skimage.transform import resize

from adawise_lab.evaluate.corrupt.blur import REFERENCE_PX, scaled, trail

Picture = npt.NDArray[np.float64]
Field = npt.NDArray[np.float64]

_OCTAVES = 7  # of clouds: from 2 cells across to 128


def snow(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add falling flakes to a paler picture.

    A normal field of mean .1, .15, .5, .55, .6 and sd .3, in cells of 3, 2.5, 4, 4, 3 px, is set to 0 below .5, .5,
    .85, .85, .8 and drawn down into trails of sd 4, 4, 8, 8, 12 px. It is added to a picture that keeps .8, .74, .68,
    .62, .55 of itself.
    """
    mean, cell, floor, sd, kept = (
        (0.1, 3.0, 0.5, 4.0, 0.80),
        (0.15, 2.5, 0.5, 4.0, 0.74),
        (0.5, 4.0, 0.85, 8.0, 0.68),
        (0.55, 4.0, 0.85, 8.0, 0.62),
        (0.6, 3.0, 0.8, 12.0, 0.55),
    )[severity - 1]
    cells = int(np.ceil(REFERENCE_PX / cell))
    layer = _stretched(rng.normal(mean, 0.3, (cells, cells)), x)
    layer = np.clip(np.where(layer < floor, 0.0, layer), 0.0, 1.0)
    layer = trail(layer, scaled(24.0, x), scaled(sd, x), np.deg2rad(rng.uniform(45.0, 135.0)))[..., None]
    grey = rgb2gray(x)[..., None]
    pale = kept * x + (1.0 - kept) * np.maximum(x, 1.5 * grey + 0.5)
    return np.asarray(pale + layer + layer[::-1, ::-1])


def frost(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add ice crystals on the lens.

    The result is .95, .85, .75, .68, .6 of the picture plus .35, .55, .75, .95, 1.2 of a drawn layer.
    """
    kept, ice = ((0.95, 0.35), (0.85, 0.55), (0.75, 0.75), (0.68, 0.95), (0.60, 1.20))[severity - 1]
    needles = np.zeros(x.shape[:2])
    for strength in (1.0, 0.7, 0.5):
        ridge = 1.0 - np.abs(2.0 * clouds(x, 1.7, rng) - 1.0)
        needles = np.maximum(needles, strength * ridge**6)
    cover = 0.25 + 0.75 * clouds(x, 2.5, rng)
    grown = np.clip(cover * (0.35 + needles), 0.0, 1.0)[..., None]
    return np.asarray(kept * x + ice * grown * np.array([0.86, 0.95, 1.0]))


def fog(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add scattered light: .8, 1.2, 1.7, 2.4, 3.2 times a veil over the picture, scaled back to the picture's white.

    The veil is made of clouds, each octave weaker by a factor of 4, and of .0, .1, .2, .3, .4 of plain white.
    """
    dense, plain = ((0.8, 0.0), (1.2, 0.1), (1.7, 0.2), (2.4, 0.3), (3.2, 0.4))[severity - 1]
    white = float(x.max())
    veil = plain + (1.0 - plain) * clouds(x, 4.0, rng)[..., None]
    return np.asarray((x + dense * veil) * white / (white + dense))


def brightness(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Over-expose: raise the value (of hue, saturation, value) by .1, .2, .3, .4, .5."""
    del rng
    hsv = rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.1 * severity, 0.0, 1.0)
    return np.asarray(hsv2rgb(hsv))


def clouds(x: Picture, decay: float, rng: np.random.Generator) -> Field:
    """Return a fractal in [0, 1], `[S, S]`: a sum of random grids.

    Each grid has twice the cells of the one before, and is `decay` times weaker.
    """
    total = np.zeros(x.shape[:2])
    for octave in range(_OCTAVES):
        cells = 2 ** (octave + 1) + 1
        total += _stretched(rng.uniform(-1.0, 1.0, (cells, cells)), x, order=3) / decay**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low)


def _stretched(grid: Field, x: Picture, order: int = 1) -> Field:
    """Stretch a grid over the whole picture by splines of that order; cells smaller than a pixel are averaged."""
    shape = x.shape[:2]
    return np.asarray(resize(grid, shape, order=order, mode="reflect", anti_aliasing=grid.shape[0] > shape[0]))
