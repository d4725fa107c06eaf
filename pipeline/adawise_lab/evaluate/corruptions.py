"""The fifteen corruptions. Lengths are px of a picture of 224, and scale with it.

Pictures are float `[S, S, 3]` in [0, 1]; results are not clipped.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.color import hsv2rgb, rgb2gray, rgb2hsv
from skimage.filters import gaussian
from skimage.transform import SimilarityTransform, resize, warp
from skimage.util import random_noise

Kernel = npt.NDArray[np.float64]
REFERENCE_PX = 224.0
_FINE = 5  # samples per px, in each direction, from which a kernel is made
Field = npt.NDArray[np.float64]
_OCTAVES = 7  # of clouds: from 2 cells across to 128
Picture = npt.NDArray[np.float64]


def gaussian_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add normal noise of standard deviation .08, .12, .18, .26, .38, as with too little light."""
    sd = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return np.asarray(random_noise(x, "gaussian", rng=rng, var=sd**2))


def shot_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add Poisson noise of 60, 25, 12, 5, 3 photons at full brightness."""
    photons = (60.0, 25.0, 12.0, 5.0, 3.0)[severity - 1]
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Add bit errors: a share of .03, .06, .09, .17, .27 of the values is black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    return np.asarray(random_noise(x, "s&p", rng=rng, amount=share))


def defocus_blur(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Blur as out of focus: the mean over a disk of radius 3, 4, 6, 8, 10 px."""
    del rng
    radius = scaled((3.0, 4.0, 6.0, 8.0, 10.0)[severity - 1], x)
    side = np.arange(-radius, radius + 1e-9, 1.0 / _FINE)
    across, down = np.meshgrid(side, side)
    inside = np.hypot(across, down) <= radius
    return convolve(x, splat(across[inside], down[inside], np.ones(int(inside.sum()))))


def glass_blur(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Blur as frosted glass: pixels fetched twice from up to 1, 2, 3, 4, 5.5 px away.

    Before and after, the picture is blurred with sd .7, .9, 1.1, 1.3, 1.5 px.
    """
    reach, sd = ((1.0, 0.7), (2.0, 0.9), (3.0, 1.1), (4.0, 1.3), (5.5, 1.5))[severity - 1]
    x = smooth(x, scaled(sd, x))
    for _ in range(2):
        x = displaced(x, scaled(reach, x) * rng.uniform(-1.0, 1.0, (2, *x.shape[:2])))
    return smooth(x, scaled(sd, x))


def motion_blur(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Blur as a moving camera: a one-sided trail at up to 45 degrees, normal with sd 3, 5, 8, 12, 15 px.

    The trail is cut at 20, 30, 30, 30, 40 px.
    """
    length, sd = ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0))[severity - 1]
    return trail(x, scaled(2.0 * length, x), scaled(sd, x), np.deg2rad(rng.uniform(-45.0, 45.0)))


def zoom_blur(x: Picture, severity: int, rng: np.random.Generator) -> Picture:
    """Blur as moving towards the scene: the mean of zooms from 1 to 1.10, 1.15, 1.20, 1.25, 1.30, the centre fixed."""
    del rng
    most = (1.10, 1.15, 1.20, 1.25, 1.30)[severity - 1]
    center = (np.array(x.shape[1::-1]) - 1.0) / 2.0
    zooms = np.arange(1.0, most + 1e-9, 0.02)
    layers = [x]
    for zoom in zooms[1:]:
        inverse = SimilarityTransform(scale=1.0 / zoom, translation=center * (1.0 - 1.0 / zoom))
        layers.append(warp(x, inverse, order=1, mode="reflect"))
    return np.asarray(np.mean(layers, axis=0))


def scaled(length_px: float, x: npt.NDArray[np.float64]) -> float:
    """Convert a length in a picture of 224 px to the same share of this one, px."""
    return float(length_px * max(x.shape[:2]) / REFERENCE_PX)


def smooth(x: npt.NDArray[np.float64], sd_px: float) -> npt.NDArray[np.float64]:
    """Return a Gaussian blur of `[S, S]` or `[S, S, 3]`."""
    return np.asarray(gaussian(x, sigma=sd_px, mode="reflect", channel_axis=-1 if x.ndim == 3 else None))


def displaced(x: Picture, by: npt.NDArray[np.float64]) -> Picture:
    """Fetch each pixel from `by` px away, `[2, S, S]` of (down, across); bilinear, mirrored at the border."""
    where = np.indices(x.shape[:2], dtype=np.float64) + by
    channels = [warp(x[..., c], where, order=1, mode="reflect") for c in range(x.shape[2])]
    return np.stack(channels, axis=-1)


def trail(x: npt.NDArray[np.float64], length_px: float, sd_px: float, angle: float) -> npt.NDArray[np.float64]:
    """Blur along one side of a line at `angle` (radians), weighted by a normal that is cut at `length_px`."""
    along = np.arange(0.0, length_px + 1e-9, 1.0 / _FINE)
    weight = np.exp(-0.5 * (along / sd_px) ** 2)
    return convolve(x, splat(along * np.cos(angle), along * np.sin(angle), weight))


def splat(across: Kernel, down: Kernel, weight: Kernel) -> Kernel:
    """Turn weighted points at px offsets from the centre into a kernel `[K, K]`, K odd, of sum 1; bilinear."""
    reach = int(np.ceil(max(np.abs(across).max(), np.abs(down).max()))) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    column, row = np.floor(across).astype(int), np.floor(down).astype(int)
    right, below = across - column, down - row
    for dy, vertical in ((0, 1.0 - below), (1, below)):
        for dx, horizontal in ((0, 1.0 - right), (1, right)):
            np.add.at(kernel, (row + dy + reach, column + dx + reach), weight * vertical * horizontal)
    return np.asarray(kernel / kernel.sum())


def convolve(x: npt.NDArray[np.float64], kernel: Kernel) -> npt.NDArray[np.float64]:
    """Convolve `[S, S]` or `[S, S, 3]` over the first two axes, mirrored at the border."""
    reach = len(kernel) // 2
    padding = [(reach, reach), (reach, reach)] + [(0, 0)] * (x.ndim - 2)
    padded = np.pad(x, padding, mode="symmetric")
    size = (padded.shape[0] + 2 * reach, padded.shape[1] + 2 * reach)
    spectrum = np.fft.rfft2(kernel, size).reshape(size[0], -1, *(1,) * (x.ndim - 2))
    full = np.fft.irfft2(np.fft.rfft2(padded, size, axes=(0, 1)) * spectrum, size, axes=(0, 1))
    return np.asarray(full[2 * reach : 2 * reach + x.shape[0], 2 * reach : 2 * reach + x.shape[1]])


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
