"""When a camera said nothing for longer than it usually does."""

from __future__ import annotations

import numpy as np

from adawise.drift.collect import Path

_LEAST_US = 60_000_000
_TIMES = 8.0  # as long as the gaps that nineteen of twenty stay below


def silences(path: Path) -> tuple[tuple[int, int], ...]:
    """[from, until) of each gap, in microseconds: from the last batch before it to the first one after it."""
    if len(path.first_us) < 2:
        return ()
    gaps = path.first_us[1:] - path.last_us[:-1]
    usual = max(_LEAST_US, _TIMES * float(np.quantile(gaps, 0.95)))
    return tuple((int(path.last_us[i]), int(path.first_us[i + 1])) for i in np.flatnonzero(gaps > usual))
