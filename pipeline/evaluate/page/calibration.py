"""Calibration: how far confidence is from being right (ECE), and what predictions cost in nats (NLL)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from pipeline.evaluate.page import theme
from pipeline.evaluate.page.blocks import Figure, Section
from pipeline.evaluate.page.cost import COLOURS, FIXED, KINDS, SHAPES
from pipeline.evaluate.page.notation import points, spoken, three
from pipeline.evaluate.page.views import View

_HEIGHT = 260
_BAR = 0.01  # ECE that the served may be above the better endpoint's
_SHOWN = (KINDS[0], KINDS[2], KINDS[3])


def section(among: Sequence[View], calibration: str) -> Section:
    """A figure for each view."""
    return Section(
        "calibration",
        "Calibration",
        "ECE (expected calibration error, 15 bins, mean over domains) against NLL (nats an image): both are better lower, "
        f"so the lower left is best. Temperatures of what is served: {calibration}.",
        tuple(_figure(view) for view in among),
    )


def _figure(view: View) -> Figure:
    rows = (*view.strategies, *(view.reference(name) for name in FIXED))
    values = [
        {
            "name": spoken(row.strategy),
            "nll": row.nll,
            "ece": row.ece,
            "kind": _SHOWN[2] if row.reference else _SHOWN[0] if row is view.served else _SHOWN[1],
        }
        for row in rows
        if not math.isnan(row.ece + row.nll)
    ]
    x = alt.X("nll:Q", title="NLL, nats").scale(zero=False, padding=60).axis(grid=False)
    y = alt.Y("ece:Q", title="ECE").scale(zero=False, padding=14)
    named = [v for v in values if v["kind"] != _SHOWN[1] and v["name"] not in {"alpha .5"}]
    kept = [KINDS.index(kind) for kind in _SHOWN]
    chart = alt.layer(
        alt.Chart(theme.rows(values))
        .mark_point(filled=True, opacity=1, size=80)
        .encode(
            x=x,
            y=y,
            shape=alt.Shape("kind:N").scale(domain=_SHOWN, range=[SHAPES[k] for k in kept]),
            color=alt.Color("kind:N").scale(domain=_SHOWN, range=[COLOURS[k] for k in kept]),
            tooltip=[
                alt.Tooltip("name:N", title="strategy"),
                alt.Tooltip("ece:Q", title="ECE", format=".3f"),
                alt.Tooltip("nll:Q", title="NLL", format=".3f"),
            ],
        ),
        alt.Chart(theme.rows(named)).mark_text(dy=-11).encode(x=x, y=y, text="name:N"),
    )
    return Figure(f"ece-{view.anchor}", view.name, _reading(view), theme.spec(chart, height=_HEIGHT))


def _reading(view: View) -> str:
    endpoint = min((view.reference(name) for name in FIXED[:2]), key=lambda row: row.ece)
    over = view.served.ece - endpoint.ece
    if over <= 0.0:
        compared = "no worse than"
    elif over <= _BAR:
        compared = f"within {three(_BAR)} of"
    else:
        compared = f"{points(over)} points worse than"
    return (
        f"{view.served_name} has an ECE of {three(view.served.ece)}, {compared} that of the better calibrated endpoint, "
        f"{spoken(endpoint.strategy)} ({three(endpoint.ece)}); NLL {three(view.served.nll)} against {three(endpoint.nll)}."
    )
