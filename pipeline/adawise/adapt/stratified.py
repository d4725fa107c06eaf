"""The choice of images that a probe evaluates."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from adawise.adapt.objective import Values
from adawise.records import Rows


class StratifiedSample:
    """The images of a batch, ordered so that every stretch is a sample from easy to hard ones.

    They are sorted by their value at the served alpha and drawn in the order of the reversed bits of their rank (van
    der Corput, 1935), so a few images represent the batch better than random ones do. No image is drawn twice before
    all were drawn once.
    """

    def __init__(self, values: Values) -> None:
        self._order = np.argsort(values, kind="stable")[_spread(len(values))]
        self._drawn = 0

    def draw(self, count: int, *, unseen: npt.NDArray[np.bool_]) -> Rows:
        """Return the next `count` images (or fewer) that are `unseen` `[n]` at the probed alpha, in ascending order."""
        order = np.roll(self._order, -self._drawn)
        rows = order[unseen[order]][:count]
        self._drawn = (self._drawn + len(rows)) % len(self._order)
        return np.sort(rows)


@lru_cache(maxsize=64)
def _spread(count: int) -> Rows:
    """Return 0 .. count - 1 in the order of their reversed bits."""
    bits = max(1, (count - 1).bit_length())
    numbers = np.arange(1 << bits)
    reversed_bits = sum(((numbers >> b) & 1) << (bits - 1 - b) for b in range(bits))
    order = np.asarray(reversed_bits, dtype=np.int64)
    return order[order < count]
