"""What was taken for what, as tables of counts whose shades are shares of the true class."""

from __future__ import annotations

from dataclasses import dataclass

from adawise.drift.judge.helped import SERVED, Confusion, Helped
from adawise.drift.page.words import percent
from adawise.text import counted


@dataclass(frozen=True)
class Square:
    """One count of a confusion; `share` of the images of its true class, in [0, 1]."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Heat:
    """`rows` are (true class, squares in the order of `classes`)."""

    name: str
    reading: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]


def heats(helped: Helped) -> tuple[Heat, ...]:
    """The confusions, what was served first."""
    names = sorted(helped.confusion, key=lambda name: name != SERVED)
    return tuple(_heat(name, helped.confusion[name]) for name in names)


def _heat(name: str, confusion: Confusion) -> Heat:
    rows = []
    for i, (label, counts) in enumerate(zip(confusion.classes, confusion.counts, strict=True)):
        total = max(1, sum(counts))
        rows.append((label, tuple(Square(n, n / total, i == j) for j, n in enumerate(counts))))
    return Heat(name, _confused(confusion), confusion.classes, tuple(rows))


def _confused(confusion: Confusion) -> str:
    wrong = [
        (count, true, confusion.classes[j])
        for i, (true, counts) in enumerate(zip(confusion.classes, confusion.counts, strict=True))
        for j, count in enumerate(counts)
        if i != j and count
    ]
    if not wrong:
        return "Nothing was taken for something else."
    count, true, said = max(wrong)
    total = sum(confusion.counts[confusion.classes.index(true)])
    return (
        f"Most often {true} was taken for {said}: {counted(count, 'image', 'images')}, {percent(count / total)} of "
        "that class."
    )
