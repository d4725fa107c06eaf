"""The appearance statistics: light, contrast, sharpness, texture and colour of the pixels that the model sees.

With luminance Y = .299 R + .587 G + .114 B (Rec. 601), channels in [0, 1], and means over all pixels, pairs of
neighbours along x and y, or pixels that have four neighbours:

    luminance       log(mean Y + .02)
    contrast        log(sd Y + .02)
    gradient        log((mean |dx Y| + mean |dy Y|) / (sd Y + .02) + .01)
    laplacian       log(mean |laplacian Y| / (mean |dx Y| + mean |dy Y|) + .001)
    colourfulness   log(mean (max - min of the channels) + .02)

They need no forward pass, and change with light, weather, dirt and focus. Everything up to the sums is exact integers,
in thousandths of a level: neither the order of additions nor the width of vectors matters, and every processor gives
the same. Quotients and roots are float64, rounded as IEEE 754 says. Only the last bit of a C library's `log` could
still differ; it would show in float32 only if it decided between two neighbours, about once in 2^29 numbers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RED, GREEN, BLUE = 299, 587, 114  # thousandths of the luminance
_WHITE = 255  # levels
_UNIT = (RED + GREEN + BLUE) * _WHITE  # the luminance of white, as an integer
_INT32_ROWS = (2**31 - 1) // (4 * _UNIT)  # most rows of which a column's sum fits into 32 bits; a laplacian is largest


def statistics(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the statistics of the model's input, in the order of `records.STATISTICS`; all are finite.

    A quotient of nothing by nothing, as of a flat image or one that is too small, counts as 0.

    Args:
        pixels: uint8 `[3, H, W]`; it is not changed.

    Returns:
        float32 `[5]`.
    """
    _, H, W = pixels.shape
    luminance = np.multiply(pixels[0], RED, dtype=np.int32, order="C")  # [H, W], up to 255,000
    luminance += np.multiply(pixels[1], GREEN, dtype=np.int32)
    luminance += np.multiply(pixels[2], BLUE, dtype=np.int32)
    # Neighbours along x are subtracted in the whole array at once, since a call for each row takes twice as long. The
    # last column is then the step to the next row, which is not counted.
    flat, dx = luminance.reshape(-1), np.empty_like(luminance)  # [H W], [H, W]
    steps = dx.reshape(-1)
    steps[-1] = 0
    np.subtract(flat[1:], flat[:-1], out=steps[:-1])
    dy = luminance[1:] - luminance[:-1]  # [H - 1, W]
    laplacian = dy[1:] - dy[:-1]  # [H - 2, W], of which the first and the last column are not counted
    inner = laplacian.reshape(-1)
    inner += steps[W:-W]
    inner -= steps[W - 1 : -W - 1]
    total, exact = _sum(luminance), luminance.astype(np.float64)
    squares = int(np.einsum("yx,yx->y", exact, exact).astype(np.int64).sum())  # below 2^53 in each row
    spread = math.sqrt(H * W * squares - total**2) / (H * W * _UNIT)
    gradient = _mean(_magnitude(dx, slice(-1)), H * (W - 1) * _UNIT) + _mean(_magnitude(dy), (H - 1) * W * _UNIT)
    curvature = _mean(_magnitude(laplacian, slice(1, -1)), (H - 2) * (W - 2) * _UNIT)
    colour = _sum(pixels.max(axis=0) - pixels.min(axis=0))
    return np.array(
        [
            math.log(_mean(total, H * W * _UNIT) + 0.02),
            math.log(spread + 0.02),
            math.log(gradient / (spread + 0.02) + 0.01),
            math.log((curvature / gradient if gradient else 0.0) + 0.001),
            math.log(_mean(colour, H * W * _WHITE) + 0.02),
        ],
        dtype=np.float32,
    )


def _sum(numbers: npt.NDArray[np.integer], columns: slice = slice(None)) -> int:
    """Return the sum of these columns."""
    # Rows are added first, in 32 bits where these suffice: sums of 64 bits take three times as long.
    added = numbers.sum(axis=0, dtype=np.int32 if len(numbers) <= _INT32_ROWS else np.int64)
    return int(added[columns].sum(dtype=np.int64))


def _magnitude(differences: npt.NDArray[np.int32], columns: slice = slice(None)) -> int:
    """Return the sum of absolute values of these columns; all are written over the differences."""
    return _sum(np.abs(differences, out=differences), columns)


def _mean(total: int, whole: int) -> float:
    """Return the quotient, rounded once, as Python divides integers; 0 where the total is 0."""
    return total / whole if total else 0.0
