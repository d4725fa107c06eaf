"""Shared parts of pages, which are one HTML file each that opens offline: skeleton, style, figures, tables, numbers.

The blocks of a section are figures, each with one sentence that says what it shows, and tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEEDS = {"jinja2": "jinja2", "altair": "altair", "vl_convert": "vl-convert-python"}
"""Module -> the package to install for it."""


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        anchor: its name in the page.
        title: above it.
        reading: one sentence computed from the same numbers.
        spec: Vega-Lite's.
        wide: it takes a whole line.
        query: the name of the query on the same page that made it; "" if there is none.
    """

    anchor: str
    title: str
    reading: str
    spec: Mapping[str, Any]
    wide: bool = False
    query: str = ""


@dataclass(frozen=True)
class Key:
    """One entry of a section's legend; `shape` is one for which `render` has an outline.

    `of` names the data that the entry is for; a script hides the entry if there are no such data.
    """

    name: str
    shape: str
    colour: str
    of: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell of a table. `mark` says what an interval shows: better, worse, same (it contains 0), or "" (none).

    `note` is below the text. `prose` is for words, which may take several lines.
    """

    text: str
    mark: str = ""
    note: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table; `kind` is served, strategy or reference."""

    name: str
    cells: tuple[Cell, ...]
    kind: str = "strategy"


@dataclass(frozen=True)
class Table:
    """A table; `headers` are those of the cells, `name_header` that of the names. The reader opens a `folded` one."""

    caption: str
    name_header: str
    headers: tuple[str, ...]
    lines: tuple[Line, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a page; `lead` says how to read it."""

    anchor: str
    heading: str
    lead: str
    legend: tuple[Key, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
