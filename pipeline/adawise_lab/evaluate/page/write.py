"""The writer of the page: it renders the sections into the template."""

from __future__ import annotations

from pathlib import Path

from adawise.errors import SettingsError
from adawise.page.blocks import Section
from adawise.page.render import render
from adawise_lab.evaluate.page import by_domain, calibration, comparison, cost, curve, paths
from adawise_lab.evaluate.page.advice import advise
from adawise_lab.evaluate.page.provenance import Provenance
from adawise_lab.evaluate.page.views import views
from adawise_lab.evaluate.result import Result

PAGE = "page.html"


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
    sections, judged = _sections(result), advise(views(result))
    return render(
        "adawise_lab.evaluate.page",
        "evaluation.html.j2",
        headline=judged.headline,
        sentences=judged.sentences,
        contents=[(section.anchor, section.heading) for section in sections],
        command=made.command,
        versions=made.versions,
        summary=judged.table,
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        result=result,
        made=made,
    )


def _sections(result: Result) -> tuple[Section, ...]:
    among = views(result)
    return (
        cost.section(among),
        *([curve.section(among)] if among[0].prices else []),
        comparison.section(among),
        by_domain.section(among, result),
        paths.section(among, result),
        calibration.section(among, result.calibration),
    )
