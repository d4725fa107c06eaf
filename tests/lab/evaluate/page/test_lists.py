"""The section on shortlists: there where cameras have some, with its numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from adawise_lab.evaluate import list_page
from adawise_lab.evaluate.page import Provenance, page
from adawise_lab.evaluate.result import ListFigures, Result
from adawise_lab.evaluate.scatter import calibration_section
from tests.lab.evaluate.page.building import a_row, a_view, over


def test_its_table_says_where_the_shortlist_is_used() -> None:
    listed = ListFigures(0.64, 0.45, over(0.01, half=0.02), over(0.2), 1.19, 5.0)
    view = a_view(listed=listed, others=(a_row("plain", 0.64),))
    section = list_page.section([view], "exact-1")
    (table,) = section.tables
    (line,) = table.lines  # `plain` has none
    assert [cell.text for cell in line.cells] == [".650", ".640", ".450", "+1.0", "+20.0", "1.20", "1.19", "5.0"]
    assert [cell.mark for cell in line.cells[3:5]] == ["same", "better"]
    assert len(table.headers) == len(line.cells)
    assert "shortlists of the classes that a camera shows but 1." in section.lead
    assert "used in search and prediction" in section.lead


@pytest.mark.check("lab")
def test_the_page_says_that_shortlists_are_used(result: Result, made: Provenance) -> None:
    listed, first = ListFigures(0.64, 0.45, over(0.01), over(0.2), 1.19, 5.0), result.rows[0]
    rows = [row for row in result.rows if (row.stream, row.order) == (first.stream, first.order)]
    rows = [row if row.reference else replace(row, listed=listed) for row in rows]
    with_lists = page(replace(result, rows=tuple(rows), paths=(), lists="exact"), made)
    assert 'id="shortlists"' in with_lists
    assert "shortlists of the classes that a camera shows, in search and prediction" in with_lists


def test_calibration_has_flicker_beside_nll() -> None:
    view = a_view(flicker=0.25)
    (table,) = calibration_section([view], "of a card").tables
    assert table.headers[-2:] == ("NLL", "flicker")
    served, *others = table.lines
    assert (served.name, served.kind) == ("warm", "served")
    assert [cell.text for cell in served.cells] == [".050", ".040", "1.000", ".250"]
    assert {line.kind for line in others} == {"reference"}


def test_an_nll_that_a_shortlist_makes_infinite_is_no_point_of_a_figure() -> None:
    (figure,) = calibration_section([a_view(nll=math.inf)], "of a card").figures
    assert "its NLL is infinite, and no point of the figure" in figure.reading
    points = json.dumps(figure.spec, allow_nan=False)  # a page could not read Infinity
    assert '"name": "warm"' not in points
    assert '"name": "zero-shot"' in points
