"""The colours and fonts of the figures.

A colour is a custom property of the page's style, so that one figure adapts to light, dark and paper. The values are in
`colours.css`. People who confuse colours can distinguish them, and each series has a shape of its own besides.
"""

from __future__ import annotations

from typing import Any

import altair as alt

INK, MUTED, LINES, PAPER, BAND = "var(--ink)", "var(--muted)", "var(--lines)", "var(--paper)", "var(--band)"
SERVED, ZERO_SHOT, FINE_TUNED, BEST_FIXED, ORACLE = (
    "var(--served)",
    "var(--zero-shot)",
    "var(--fine-tuned)",
    "var(--best-fixed)",
    "var(--oracle)",
)

RANGE, TRIED, LEVEL = "var(--range)", "var(--tried)", "var(--level)"

WITHOUT_ZERO = "replace(datum.label, regexp('^(\u2212?)0[.]'), '$1.')"
"""Label of an axis as the page writes numbers: .25."""

Layers = alt.LayerChart | alt.FacetChart  # the return types of `layer` in altair

CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "aria": False,  # a figure is one image with its sentence; the numbers are in the tables
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "gridColor": LINES,
        "domainColor": LINES,
        "tickColor": LINES,
        "labelLimit": 150,
        "tickCount": 6,
    },
    "legend": {"disable": True},  # one for each section, in HTML, which wraps on a narrow screen
    "text": {"color": INK, "fontSize": 11},
}


def spec(chart: Layers, *, height: int) -> dict[str, Any]:
    """Return the spec of a chart that is as wide as its place on the page and `height` pixels high."""
    drawn: dict[str, Any] = chart.properties(width="container", height=height).configure().to_dict()
    drawn.pop("$schema")  # an address; the page names the version by itself
    return {**drawn, "config": CONFIG}


def labels(base: alt.Chart, **mark: Any) -> tuple[alt.Chart, alt.Chart]:
    """Return the text marks of `base` on a rim of paper, so that they can be read across lines."""
    rim = base.mark_text(stroke=PAPER, strokeWidth=4, strokeJoin="round", **mark)
    return rim, base.mark_text(**mark)


def rows(values: list[dict[str, Any]]) -> alt.InlineData:
    """Return values as inline data."""
    return alt.InlineData(values=values)
