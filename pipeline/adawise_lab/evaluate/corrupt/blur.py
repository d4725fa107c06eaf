"""Corruptions by optics and movement. Lengths are px of a picture of 224, and scale with it.

Pictures are float `[S, S, 3]` in [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.filters import gaussian
from skimage.transform import SimilarityTransform, warp

Picture = npt.NDArray[np.float64]
Kernel = npt.NDArray[np.float64]

REFERENCE_PX = 224.0
_FINE = 5  # samples per px, in each direction, from which a kernel is made


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
