"""Groups of cameras: in how many fleets of independent cameras one is found, and how many of those that are there.

Fleets of `tests/drift/fleets.py`: four days, each move known to within minutes to two hours. Upper ends are of 95 %.
`BENCH_FLEETS` is how many of each kind (300).
"""

from __future__ import annotations

import os

import numpy as np
from scipy.stats import beta

from adawise_drift.events.together import groups
from tests.drift.fleets import NEAR_US, SPAN_US, independent, sharing

FLEETS = int(os.environ.get("BENCH_FLEETS", "300"))
ALONE = ((4, 2.0), (12, 3.0), (40, 2.0), (200, 1.0))
TOGETHER = ((6, 1.0, 2, 1), (12, 2.0, 4, 1), (12, 2.0, 3, 3), (40, 2.0, 6, 1), (40, 2.0, 10, 1), (40, 2.0, 2, 4))


def main() -> int:
    """Print both; 1 if independent cameras have a group in more than 5 % of all fleets."""
    rng = np.random.default_rng(20261127)
    false = tried = 0
    for cameras, moves in ALONE:
        those = sum(bool(groups(independent(rng, cameras, moves), SPAN_US, NEAR_US)) for _ in range(FLEETS))
        print(f"{cameras} independent cameras of {moves:g} moves: a group in {those} of {FLEETS} fleets", flush=True)
        false, tried = false + those, tried + FLEETS
    print(f"in all {false / tried:.1%} (at most {beta.ppf(0.95, false + 1, tried - false):.1%})")
    for cameras, moves, members, times in TOGETHER:
        hits = 0
        for _ in range(FLEETS // 5):
            fleet, names = sharing(rng, cameras, moves, members, times)
            found = [{*group.stream_ids} for group in groups(fleet, SPAN_US, NEAR_US)]
            hits += max((len(names & each) / len(names | each) for each in found), default=0.0) >= 0.7
        fields = f"{members} of {cameras} cameras of {moves:g} moves that move together {times} times besides"
        print(f"{fields}: found in {hits} of {FLEETS // 5}", flush=True)
    return int(false > 0.05 * tried)
