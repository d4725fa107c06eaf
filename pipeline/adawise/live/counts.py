"""Counters and histograms in plain memory: what metrics are read from. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

LATENCY_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)
BATCH_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COMMIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Distribution:
    """How many values came to lie at or below each of some bounds, and their sum.

    Args:
        bounds: ascending.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One value; nan is none."""
        if value == value:
            self._counts[bisect_left(self._bounds, value)] += 1
            self.total += value

    @property
    def count(self) -> int:
        """Values in all."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """(bound, values at or below it), `+Inf` last."""
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            yield bound, below


@dataclass(slots=True)
class Counts:
    """What only ever grows, since the process began."""

    images: int = 0
    forwards: float = 0.0
    batches: Counter[str] = field(default_factory=Counter)  # by trigger
    resets: Counter[str] = field(default_factory=Counter)  # by reason
    alarms: int = 0  # batches
    conditions: Counter[str] = field(default_factory=Counter)  # that streams came into, by outcome
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    mistakes: int = 0
    letters: int = 0
    told: int = 0  # rows, as results
    lost: Counter[str] = field(default_factory=Counter)  # offsets, by reason
    segments: int = 0
    rows: int = 0
    segment_bytes: int = 0
    races_lost: int = 0
    retries: Counter[str] = field(default_factory=Counter)  # by who did not answer
    gained: int = 0  # partitions
    parted: int = 0  # partitions that went
    switched: int = 0  # partitions, to another pair
    evicted: int = 0
    closed_early: int = 0
    latency_s: Distribution = field(default_factory=lambda: Distribution(LATENCY_S))
    batch_s: Distribution = field(default_factory=lambda: Distribution(BATCH_S))
    commit_s: Distribution = field(default_factory=lambda: Distribution(COMMIT_S))
