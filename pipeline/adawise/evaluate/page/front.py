"""The front of accuracy against cost: strategies that no other beats at both."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.evaluate.result import Row


def front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Those that no other row beats at one of accuracy and FE without losing at the other; by FE."""
    best = [row for row in rows if not any(_beats(other, row) for other in rows)]
    return tuple(sorted(best, key=lambda row: (row.fe, row.accuracy)))


def beaten_by(row: Row, rows: Sequence[Row]) -> Row | None:
    """The most accurate of the rows that beat `row`, if any."""
    return max((other for other in rows if _beats(other, row)), key=lambda other: other.accuracy, default=None)


def _beats(one: Row, other: Row) -> bool:
    no_worse = one.fe <= other.fe and one.accuracy >= other.accuracy
    return no_worse and (one.fe < other.fe or one.accuracy > other.accuracy)
