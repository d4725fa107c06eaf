"""What a section of the page is made of: figures, each with one sentence that says what it shows, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`spec` is Vega-Lite's; `reading` one sentence computed from the same numbers; `wide` takes a whole line.

    `query` names the query on the same page that made it, "" if there is none.
    """

    anchor: str
    title: str
    reading: str
    spec: Mapping[str, Any]
    wide: bool = False
    query: str = ""


@dataclass(frozen=True)
class Key:
    """One entry of a section's legend: `shape` is one that `render` has an outline of.

    `of` names the data that it stands for; a script leaves the entry out where these are not known.
    """

    name: str
    shape: str
    colour: str
    of: str = ""


@dataclass(frozen=True)
class Cell:
    """`mark` says what an interval shows: better, worse, same (it contains 0), or "" (none); `note` stands below.

    `prose` is words, which may take several lines.
    """

    text: str
    mark: str = ""
    note: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table; `kind`: served, strategy, reference."""

    name: str
    cells: tuple[Cell, ...]
    kind: str = "strategy"


@dataclass(frozen=True)
class Table:
    """`headers` are those of the cells, after that of the names; a `folded` one is opened by the reader."""

    caption: str
    name_header: str
    headers: tuple[str, ...]
    lines: tuple[Line, ...]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """`lead` says how to read what follows."""

    anchor: str
    heading: str
    lead: str
    legend: tuple[Key, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
