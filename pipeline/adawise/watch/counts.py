"""Counters and histograms in plain memory, which events increase. Pure: no clock, no I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

Kind = TypeVar("Kind")
Labels: TypeAlias = tuple[str, ...]

LATENCY_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)
BATCH_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COMMIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Distribution:
    """A histogram: the number of values at or below each bound, and the sum of all values (`total`).

    Args:
        bounds: upper bounds of the buckets, ascending.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value; nan is ignored."""
        if value == value:  # false for nan alone
            self._counts[bisect_left(self._bounds, value)] += 1
            self.total += value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Yield each bound as text with the number of values at or below it; `+Inf` is last."""
        below = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            yield bound, below


@dataclass(frozen=True, slots=True)
class Movement(Generic[Kind]):
    """The event that increases a counter or fills a histogram, and by how much.

    Attributes:
        event: type of the event.
        amounts: returns pairs of label values and the amount to add to their counter, or a value for their histogram.
        labels: names of the labels.
        known: label values whose series exist from the beginning, at 0. Prometheus computes no increase for a series
            that first appears at 1.
        bounds: upper bounds of a histogram's buckets; None for a counter.
    """

    event: type[Kind]
    amounts: Callable[[Kind], Iterable[tuple[Labels, float]]]
    labels: Labels = ()
    known: Sequence[Labels] = ()
    bounds: Sequence[float] | None = None


class Counters:
    """The values of all counters and histograms since the process began. Only events change them.

    Args:
        movements: what changes each metric, by its name.
    """

    def __init__(self, movements: Mapping[str, Movement[Any]]) -> None:
        self._by_event: dict[type, list[tuple[str, Movement[Any]]]] = defaultdict(list)
        self._values: dict[str, dict[Labels, float | Distribution]] = {}
        for name, movement in movements.items():
            self._by_event[movement.event].append((name, movement))
            self._values[name] = {labels: self._zero(movement) for labels in movement.known}

    @staticmethod
    def _zero(movement: Movement[Any]) -> float | Distribution:
        return 0 if movement.bounds is None else Distribution(movement.bounds)

    def add(self, event: object) -> None:
        """Update the metrics that this event changes."""
        for name, movement in self._by_event.get(type(event), ()):
            values = self._values[name]
            for labels, amount in movement.amounts(event):
                value = values.get(labels)
                if value is None:
                    value = values[labels] = self._zero(movement)
                if isinstance(value, Distribution):
                    value.add(amount)
                else:
                    values[labels] = value + amount

    def of(self, name: str) -> Mapping[Labels, float | Distribution]:
        """Return the series of a metric, by their label values."""
        return self._values[name]

    def total(self, name: str) -> float:
        """Return the sum over a counter's series."""
        return sum(value for value in self._values[name].values() if not isinstance(value, Distribution))
