"""The page itself: sections put into the template, with style, script and the drawing library in the same file."""

from __future__ import annotations

import re
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
    sections = _sections(result)
    return environment.get_template("page.html.j2").render(
        verdict=verdict(views(result)),
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        result=result,
        made=made,
        style=_asset("page.css"),
        script=_asset("page.js"),
        library=_inline(drawing_library()),
    )


def drawing_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of the version that the figures are written for."""
    major, minor, *_ = alt.SCHEMA_VERSION.removeprefix("v").split(".")
    return vl_convert.javascript_bundle(vl_version=f"{major}.{minor}")


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
