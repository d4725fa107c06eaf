"""Calibration: how far confidence is from accuracy (ECE), and what predictions cost in nats (NLL)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from adawise.page import theme
from adawise.page.blocks import Figure, Key, Section
from adawise.page.notation import three
from adawise_lab.evaluate.page.cost import COLOURS, KINDS, SHAPES, SIZES, marked
from adawise_lab.evaluate.page.notation import spoken
from adawise_lab.evaluate.page.views import View
from adawise_lab.evaluate.references import FIXED, MIDDLE
from adawise_lab.evaluate.result import Row

_HEIGHT = 260
_BAR = 0.01  # ECE by which the served strategy may exceed the better endpoint
_SHOWN = (KINDS[0], KINDS[2], KINDS[3])


def section(among: Sequence[View], calibration: str) -> Section:
    """Return the section, with a figure for each view."""
    return Section(
        "calibration",
        "Calibration",
        "ECE (expected calibration error, 15 bins, mean over domains) against NLL (nats an image): both are "
        f"better lower, so the lower left is best. Temperatures of the served predictions: {calibration}.",
        tuple(Key(kind, SHAPES[k], COLOURS[k]) for k, kind in enumerate(KINDS) if kind in _SHOWN),
        tuple(_figure(view) for view in among),
    )


def _figure(view: View) -> Figure:
    rows = (*view.strategies, *(view.reference(name) for name in FIXED))
    values = [
        {
            "size": SIZES[KINDS.index(_kind(row, view))],
            "name": spoken(row.strategy),
            "nll": row.nll,
            "ece": row.ece,
            "kind": _kind(row, view),
        }
        for row in rows
        if not math.isnan(row.ece + row.nll)
    ]
    values.sort(key=lambda v: KINDS.index(v["kind"]), reverse=True)  # the served strategy is drawn over the others
    x = alt.X("nll:Q", title="NLL, nats").scale(zero=False, padding=40).axis(grid=False)
    y = alt.Y("ece:Q", title="ECE").scale(zero=False, padding=14)
    served = [v for v in values if v["kind"] == _SHOWN[0]]
    fixed = [v for v in values if v["kind"] == _SHOWN[2] and v["name"] != spoken(MIDDLE)]
    chart = alt.layer(
        alt.Chart(theme.rows(values))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            **marked(_SHOWN),
            tooltip=[
                alt.Tooltip("name:N", title="strategy"),
                alt.Tooltip("ece:Q", title="ECE", format=".3f"),
                alt.Tooltip("nll:Q", title="NLL", format=".3f"),
            ],
        ),
        *(
            layer
            for some, dy in ((fixed, 13), (served, -13))
            for layer in theme.labels(alt.Chart(theme.rows(some)).encode(x=x, y=y, text="name:N"), dy=dy)
        ),
    )
    return Figure(f"ece-{view.anchor}", view.name, _reading(view), theme.spec(chart, height=_HEIGHT))


def _kind(row: Row, view: View) -> str:
    return _SHOWN[2] if row.reference else _SHOWN[0] if row is view.served else _SHOWN[1]


def _reading(view: View) -> str:
    endpoint = min((view.reference(name) for name in FIXED[:2]), key=lambda row: row.ece)
    over = view.served.ece - endpoint.ece
    if over <= 0.0:
        compared = "no worse than"
    elif over <= _BAR:
        compared = f"within {three(_BAR)} of"
    else:
        compared = f"{three(over)} worse than"
    return (
        f"{view.served_name} has an ECE of {three(view.served.ece)}, {compared} that of the better calibrated "
        f"endpoint, {spoken(endpoint.strategy)} ({three(endpoint.ece)}); its NLL is {three(view.served.nll)} against "
        f"{three(endpoint.nll)}."
    )
