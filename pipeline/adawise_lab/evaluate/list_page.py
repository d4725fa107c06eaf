"""The page's section on shortlists: in search and prediction, for the prediction alone, and none."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.page import Cell, Line, Section, Table
from adawise.text import LEVEL, three, two
from adawise_lab.evaluate.advice import difference_cell
from adawise_lab.evaluate.lists import in_words
from adawise_lab.evaluate.result import ListFigures, Row
from adawise_lab.evaluate.views import View


def section(among: Sequence[View], lists: str) -> Section:
    """Return the section, with a table for each view; every view has strategies that cameras with shortlists have."""
    return Section(
        "shortlists",
        "Shortlists",
        f"Cameras have shortlists of {in_words(lists)}. On the whole page they are used in search and prediction, as a "
        "worker does: alpha is chosen among their classes, and fixed alphas and oracles predict among them. Here this "
        "is compared with the same strategies that search among all classes, with the shortlist for the prediction "
        f"alone and without one: points, with {LEVEL} intervals.",
        tables=tuple(_table(view) for view in among),
    )


def _table(view: View) -> Table:
    headers = ("search and prediction", "prediction alone", "none", "− prediction alone", "− none", "FE", "FE without")
    lines = [
        Line(row.strategy, _cells(row, listed), "served" if row is view.served else "strategy")
        for row, listed in view.listed
    ]
    return Table(
        f"{view.name}: accuracy by where the shortlist is used", "strategy", (*headers, "classes"), tuple(lines)
    )


def _cells(row: Row, listed: ListFigures) -> tuple[Cell, ...]:
    return (
        *(Cell(three(accuracy)) for accuracy in (row.accuracy, listed.predicted, listed.without)),
        difference_cell(listed.over_predicted),
        difference_cell(listed.over_without),
        Cell(two(row.fe)),
        Cell(two(listed.fe)),
        Cell(f"{listed.names:.1f}"),
    )
