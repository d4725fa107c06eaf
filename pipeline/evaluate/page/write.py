"""The page itself: sections put into the template, with style, script and the drawing library in the same file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import altair as alt
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import SettingsError
from pipeline.evaluate.page import by_domain, calibration, comparison, cost, paths
from pipeline.evaluate.page.blocks import Section
from pipeline.evaluate.page.provenance import Provenance
from pipeline.evaluate.page.verdict import verdict
from pipeline.evaluate.page.views import views
from pipeline.evaluate.result import Result

PAGE = "page.html"
_OUTLINES = {  # of the legend's symbols, in a square from -8 to 8
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "M-5 -5h10v10h-10z",
    "diamond": "M0 -7L5 0L0 7L-5 0z",
    "cross": "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "triangle-up": "M0 -6L6 5H-6z",
    "triangle-left": "M-6 0L5 -6V6z",
    "triangle-right": "M6 0L-5 -6V6z",
    "line": "M-8 0H8",
    "dashes": "M-8 0H8",
    "tick": "M0 -5V5",
}


def write_page(folder: Path, result: Result, made: Provenance) -> Path:
    """Write `page.html` into a folder that exists, and say where it is.

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
    """The page as HTML; a function of its arguments alone. Names of domains and strategies are shown, never obeyed."""
    environment = Environment(
        loader=PackageLoader("pipeline.evaluate.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections, judged = _sections(result), verdict(views(result))
    return environment.get_template("page.html.j2").render(
        verdict=judged,
        summary=judged.table,
        outlines=_OUTLINES,
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        result=result,
        made=made,
        style=_asset("page.css"),
        script=_asset("page.js"),
        library=_inline(drawing_library()),
    )


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of the version that the figures are written for."""
    major, minor, *_ = alt.SCHEMA_VERSION.removeprefix("v").split(".")
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=f"{major}.{minor}")


def _sections(result: Result) -> tuple[Section, ...]:
    among = views(result)
    return (
        cost.section(among),
        comparison.section(among),
        by_domain.section(among, result),
        paths.section(among, result),
        calibration.section(among, result.calibration),
    )


def _asset(name: str) -> Markup:
    return _inline((Path(__file__).parent / name).read_text(encoding="utf-8"))


def _inline(text: str) -> Markup:
    """Script or style that is ours: not escaped, but unable to end its element."""
    return Markup(re.sub("</(?=script|style)", r"<\\/", text, flags=re.IGNORECASE))
