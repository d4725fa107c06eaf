"""The page of an evaluation: one HTML file that opens offline, with advice, figures, tables and provenance."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from adawise.errors import SettingsError
from adawise.page import Section
from adawise.page.render import render
from adawise.text import shared_layers
from adawise_lab.evaluate import advice, by_domain, list_page, lists, paths, scatter, scene_page
from adawise_lab.evaluate.camera import in_words
from adawise_lab.evaluate.result import Result
from adawise_lab.evaluate.tables import LogitTable
from adawise_lab.evaluate.views import views

PAGE = "page.html"
_PACKAGES = ("adawise", "torch", "botorch", "numpy", "altair", "vl-convert-python")


def write_page(folder: Path, result: Result, made: Provenance) -> Path:
    """Write `page.html` into an existing folder, and return its path.

    Raises:
        SettingsError: it cannot be written.
    """
    place = folder / PAGE
    try:
        place.write_text(page(result, made), encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"-o {folder}: {PAGE} cannot be written ({error.strerror or error}). Name a folder that can be written."
        ) from error
    return place


def page(result: Result, made: Provenance) -> str:
    """Return the page as HTML, a function of its arguments alone; names of domains and strategies are escaped."""
    sections, advised = _sections(result), advice.advise(views(result))
    return render(
        "adawise_lab.evaluate",
        "evaluation.html.j2",
        headline=advised.headline,
        sentences=advised.sentences,
        contents=[(section.anchor, section.heading) for section in sections],
        command=made.command,
        versions=made.versions,
        summary=advised.table,
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        result=result,
        shows=in_words(result.shows),
        lists=lists.in_words(result.lists),
        shared_layers=shared_layers(result.tail_share),
        made=made,
    )


def _sections(result: Result) -> tuple[Section, ...]:
    among = views(result)
    return (
        scatter.cost_section(among),
        *([scatter.price_section(among)] if among[0].prices else []),
        advice.section(among),
        *([list_page.section(among, result.lists)] if among[0].listed else []),
        *([scene_page.section(among, result.shows)] if among[0].scenes else []),
        by_domain.section(among, result),
        paths.section(among, result),
        scatter.calibration_section(among, result.calibration),
    )


@dataclass(frozen=True)
class Provenance:
    """The origin of a result.

    Attributes:
        command: the command line, quoted for a shell.
        created_at: when it was made.
        digests: SHA-256 by table.
        versions: version by package.
    """

    command: str
    created_at: str
    digests: dict[str, str]
    versions: dict[str, str]


def provenance(arguments: Sequence[str], tables: Sequence[LogitTable], *, created_at: str) -> Provenance:
    """Return the provenance of `adawise` called with these arguments on these tables."""
    return Provenance(
        command=shlex.join(["adawise", *arguments]),
        created_at=created_at,
        digests={table.name: digest(table) for table in tables},
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def digest(table: LogitTable) -> str:
    """Return the SHA-256 of a table's content in hex; the name and the compression of its file do not matter."""
    digest = hashlib.sha256()
    for array in (table.logits, table.labels, np.asarray(table.alphas)):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update("\0".join(table.class_names).encode())
    return digest.hexdigest()
