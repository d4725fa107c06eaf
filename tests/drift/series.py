"""Series that behave as an alpha does, without a search: a value is kept for dozens of batches, then drawn anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MINUTE_US = 60_000_000
DAY_US = 1_440 * MINUTE_US

Series = npt.NDArray[np.float64]


def holding(rng: np.random.Generator, batches: int, *, sd: float = 0.06, hold: float = 30.0) -> Series:
    """`[batches]`, mean 0, on the grid of twentieths, each value kept for `hold` batches on average."""
    drawn = np.round(rng.normal(0.0, sd, batches) * 20.0) / 20.0
    kept = np.maximum.accumulate(np.where(rng.uniform(size=batches) < 1.0 / hold, np.arange(batches), 0))
    values: Series = drawn[kept]
    return values


def times(batches: int, minutes: float = 10.0) -> npt.NDArray[np.int64]:
    """A batch every so many minutes."""
    return (np.arange(batches) * minutes * MINUTE_US).astype(np.int64)
