"""The rendering of pages and of single figures.

A page is a package's template over the shared skeleton, with style, script and library inline. The file of a figure has
the same specification in the colours of paper, drawn without a browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent
_OUTLINES = {  # of the legend's symbols, in a square from -8 to 8
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "M-5 -5h10v10h-10z",
    "diamond": "M0 -7L5 0L0 7L-5 0z",
    "cross": "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "triangle-up": "M0 -6L6 5H-6z",
    "triangle-down": "M0 6L6 -5H-6z",
    "triangle-left": "M-6 0L5 -6V6z",
    "triangle-right": "M6 0L-5 -6V6z",
    "line": "M-8 0H8",
    "dashes": "M-8 0H8",
    "dash-dot": "M-8 0H8",
    "dots": "M-8 0H8",
    "thick": "M-8 0H8",
    "tick": "M0 -5V5",
    "band": "M-8 -5h16v10h-16z",
    "bar": "M-8 2h16v4h-16z",
    "zigzag": "M-8 3L-4 -4L0 3L4 -4L8 3",
    "pause": "M-3 -5V5M3 -5V5",
    "saltire": "M-5 -5L5 5M5 -5L-5 5",
}
_DPI, _POINTS = 300, 72  # per inch
_COLOUR = re.compile(r"--([a-z-]+): (#[0-9a-f]{6})")
_CLIP = re.compile(r"""(?<=id="clip)[0-9]+|(?<=url\(#clip)[0-9]+""")
_SIZE = re.compile(r' width="([0-9.]+)" height="([0-9.]+)"')


def render(
    package: str, template: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), **values: Any
) -> str:
    """Return the page as HTML, a function of its arguments alone; everything in `values` is escaped.

    Args:
        package: the package that has the template, beside its own styles and scripts.
        template: its name; it extends `page/page.html.j2`, which lists what it needs.
        styles: file names, added to the shared ones.
        scripts: file names, added to the shared ones; without a script every figure is drawn from its spec.
        values: what the template uses: `headline`, `sentences`, `contents` (anchor, heading), `command`, `versions` and
            its
            own.
    """
    shared = PrefixLoader({"page": PackageLoader("adawise.page", ".")})
    environment = Environment(
        loader=ChoiceLoader([shared, PackageLoader(package, ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    place = _HERE.parents[1].joinpath(*package.split("."))
    given: Mapping[str, Any] = {
        "outlines": _OUTLINES,
        "style": _assets(_HERE / "colours.css", _HERE / "page.css", *(place / name for name in styles)),
        "script": _assets(_HERE / "draw.js", *([place / name for name in scripts] or [_HERE / "draw_all.js"])),
        "library": inline(drawing_library()),
        **values,
    }
    return environment.get_template(template).render(given)


@cache
def drawing_library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, of the version that the figures are written for."""
    major, minor, *_ = alt.SCHEMA_VERSION.removeprefix("v").split(".")
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=f"{major}.{minor}")


def inline(text: str) -> Markup:
    """Mark our own script or style as safe, changed so that it cannot end its element."""
    return Markup(re.sub("</(?=script|style)", r"<\\/", text, flags=re.IGNORECASE))


def _assets(*files: Path) -> Markup:
    return inline("\n".join(file.read_text(encoding="utf-8").rstrip("\n") for file in files))


def write_png(file: Path, spec: Mapping[str, Any], *, scale: float) -> None:
    """Write a bitmap with `scale` dots per pixel."""
    file.write_bytes(vl_convert.svg_to_png(_svg(spec), scale=scale))


def write_figure(stem: Path, spec: Mapping[str, Any], *, width_in: float) -> None:
    """Write `stem`.svg and, at 300 dots per inch, `stem`.png, both `width_in` inches wide."""
    svg = _svg(spec)
    size = _SIZE.search(svg)
    assert size is not None  # the size of the root, the first element
    width, height = float(size[1]), float(size[2])
    inches = f' width="{width_in}in" height="{height / width * width_in:.4f}in"'
    Path(f"{stem}.svg").write_text(svg.replace(size[0], inches, 1), encoding="utf-8")
    Path(f"{stem}.png").write_bytes(vl_convert.svg_to_png(svg, scale=width_in * _POINTS / width, ppi=_DPI))


def _svg(spec: Mapping[str, Any]) -> str:
    style = Path(__file__).with_name("colours.css").read_text(encoding="utf-8")
    colours = dict(_COLOUR.findall(style.partition("@media")[0]))
    text = re.sub(r"var\(--([a-z-]+)\)", lambda named: colours.get(named[1], named[0]), json.dumps(spec))
    svg: str = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    numbers: dict[str, int] = {}  # Vega numbers clips over everything that the process has drawn
    return _CLIP.sub(lambda found: str(numbers.setdefault(found[0], len(numbers))), svg)
