"""Antialiased resize of uint8 RGB in integers, with equal bits on every processor; the last step of `Preprocess`.

The arithmetic is that of torch's uint8 `interpolate`, which has it from Pillow-SIMD: first along x, then along y, with
weights of 16 bits. `by_torch` is fast where the processor has AVX2 and right elsewhere. `by_numpy` gives the same bits
without torch, which takes 3 s and 600 MB to import: too much for a process that decodes one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Resize: TypeAlias = Callable[[Pixels, tuple[int, int], str], Pixels]

_INT16_BITS, _MOST_BITS = 15, 22  # the bits of a weight, without its sign; the most bits of its fraction
_STRIP_BYTES = 2**24  # as int32: for smaller strips, the calls cost more than the sums


def by_torch(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Resize uint8 `[H, W, 3]`, contiguous, to `[h, w, 3]`.

    Args:
        pixels: the image.
        size: (w, h) of the result.
        interpolation: bicubic or bilinear.
    """
    import torch

    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # [1, 3, H, W], channels last, not copied
    resized = torch.nn.functional.interpolate(image, size[::-1], mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def by_numpy(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Return the same as `by_torch`, bit for bit."""
    width, height = size
    if width != pixels.shape[1]:
        rows = max(1, _STRIP_BYTES // (4 * 3 * pixels.shape[1]))
        strips = [pixels[y : y + rows].swapaxes(0, 1) for y in range(0, len(pixels), rows)]
        pixels = np.concatenate([_along_first(strip, width, interpolation) for strip in strips], axis=1).swapaxes(0, 1)
    return _along_first(pixels, height, interpolation) if height != len(pixels) else pixels


def _along_first(pixels: Pixels, size: int, interpolation: str) -> Pixels:
    """Resize along the first axis: `[N, ...]` -> `[size, ...]`."""
    weights, bits = _weights(len(pixels), size, interpolation)
    lines = pixels.astype(np.int32, order="C")  # once, and contiguous: each line is read several times
    resized = np.empty((size, *pixels.shape[1:]), np.uint8)
    for at, (first, taps) in enumerate(weights):
        total = np.einsum("n...,n->...", lines[first : first + len(taps)], taps)
        resized[at] = ((total + (1 << (bits - 1))) >> bits).clip(0, 255)
    return resized


def _weights(side: int, size: int, interpolation: str) -> tuple[list[tuple[int, npt.NDArray[np.int32]]], int]:
    """Return, for each of `size` pixels, its first source pixel and its weights; and the bits of their fraction."""
    kernel, reach = {"bicubic": (_cubic, 2.0), "bilinear": (_triangle, 1.0)}[interpolation]
    scale = side / size
    stretch = max(1.0, scale)
    found = []
    for at in range(size):
        centre = scale * (at + 0.5)
        first = max(0, int(centre - reach * stretch + 0.5))
        last = min(side, int(centre + reach * stretch + 0.5))
        taps = np.array([kernel((n - centre + 0.5) / stretch) for n in range(first, last)])
        found.append((first, taps / taps.sum()))
    # As many bits of fraction as let the largest weight fit into 16 bits with its sign.
    most = max(float(taps.max()) for _, taps in found)
    bits = 0
    while bits < _MOST_BITS and int(0.5 + most * (2 << bits)) < 1 << _INT16_BITS:
        bits += 1
    rounded = ((first, taps * (1 << bits) + np.copysign(0.5, taps)) for first, taps in found)
    return [(first, taps.astype(np.int32)) for first, taps in rounded], bits


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    """Evaluate Keys' cubic convolution kernel with a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0
