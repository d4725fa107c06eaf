"""Accuracy against forward-equivalents: every strategy, the front of those that none beats, and the one served."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import floor, log2
from typing import Any

import altair as alt

from pipeline.evaluate.page import theme
from pipeline.evaluate.page.blocks import Figure, Section
from pipeline.evaluate.page.front import beaten_by, front
from pipeline.evaluate.page.notation import counted, points, spoken, three, two
from pipeline.evaluate.page.views import View
from pipeline.evaluate.references import BEST_FIXED, FINE_TUNED, MIDDLE, SPLIT_HALF_ORACLE, ZERO_SHOT
from pipeline.evaluate.result import Row

FIXED = (ZERO_SHOT, FINE_TUNED, MIDDLE, BEST_FIXED)
KINDS = ("served", "on the front", "other strategy", "fixed alpha")
SHAPES = ("square", "circle", "circle", "diamond")
COLOURS = (theme.SERVED, theme.INK, theme.MUTED, theme.ZERO_SHOT)
_HEIGHT = 300
_LABEL = 0.048  # of the height: two labels this far apart can both be read


def section(among: Sequence[View]) -> Section:
    """A figure for each view."""
    return Section(
        "cost",
        "Accuracy against cost",
        "FE (forward-equivalents) counts passes of the image tower an image: plain CLIP is 1. Vertical lines are 95 % "
        "intervals. The line joins the strategies that no other beats at one of the two without losing at the other. "
        "The dashed line is the best alpha of each domain, chosen on half of its images and judged on the rest.",
        tuple(_figure(view) for view in among),
    )


def _figure(view: View) -> Figure:
    best = front(view.strategies)
    values = [_point(row, _kind(row, view, best)) for row in (*view.strategies, *map(view.reference, FIXED))]
    oracle = view.reference(SPLIT_HALF_ORACLE).accuracy
    low = min(v["low"] for v in values)
    high = max(oracle, *(v["high"] for v in values))
    scale = (low - 0.04 * (high - low), high + 0.06 * (high - low))
    most = max(v["fe"] for v in values)
    x = alt.X("fe:Q", title="FE (log scale)").scale(type="log", domain=(0.5, most * 2.2), nice=False)
    x = x.axis(values=[1, 2, 3, 5, 10, 20, 50], format="~g", grid=False)
    y = alt.Y("accuracy:Q", title="accuracy").scale(domain=scale, nice=False, zero=False)
    names = _labels(values, best, view, scale[1] - scale[0])
    chart = alt.layer(
        alt.Chart(theme.rows([{"accuracy": oracle}])).mark_rule(strokeDash=[6, 4], color=theme.ORACLE).encode(y=y),
        alt.Chart(theme.rows([{"accuracy": oracle, "name": "split-half oracle"}]))
        .mark_text(align="right", dy=-6, color=theme.ORACLE)
        .encode(x=alt.value("width"), y=y, text="name:N"),
        alt.Chart(theme.rows(_steps(best, most * 2.2)))
        .mark_line(interpolate="step-after", color=theme.INK, strokeWidth=1, opacity=0.6)
        .encode(x=x, y=y),
        alt.Chart(theme.rows(values))
        .mark_rule(color=theme.MUTED)
        .encode(x=x, y=alt.Y("low:Q").title("accuracy"), y2="high:Q"),
        alt.Chart(theme.rows(values))
        .mark_point(filled=True, opacity=1, size=80)
        .encode(
            x=x,
            y=y,
            shape=alt.Shape("kind:N").scale(domain=KINDS, range=SHAPES),
            color=alt.Color("kind:N").scale(domain=KINDS, range=COLOURS),
            tooltip=[
                alt.Tooltip("name:N", title="strategy"),
                alt.Tooltip("accuracy:Q", format=".3f"),
                alt.Tooltip("interval:N", title="95 %"),
                alt.Tooltip("fe:Q", title="FE", format=".2f"),
            ],
        ),
        *(
            alt.Chart(theme.rows([n for n in names if n["side"] == side]))
            .mark_text(align=align, dx=dx, baseline="middle")
            .encode(x=x, y=alt.Y("label:Q").title("accuracy"), text="name:N")
            for side, align, dx in (("left", "right", -9), ("right", "left", 9))
        ),
    )
    return Figure(f"cost-{view.anchor}", view.name, _reading(view, best), theme.spec(chart, height=_HEIGHT))


def _kind(row: Row, view: View, best: Sequence[Row]) -> str:
    if row.reference:
        return "fixed alpha"
    if row.strategy == view.served_name:
        return "served"
    return "on the front" if row in best else "other strategy"


def _point(row: Row, kind: str) -> dict[str, Any]:
    low, high = row.accuracy_ci
    return {
        "name": spoken(row.strategy),
        "kind": kind,
        "fe": row.fe,
        "accuracy": row.accuracy,
        "low": low,
        "high": high,
        "interval": f"{three(low)} to {three(high)}",
    }


def _steps(best: Sequence[Row], end: float) -> list[dict[str, float]]:
    """The front as steps, drawn on to the right end."""
    steps = [{"fe": row.fe, "accuracy": row.accuracy} for row in best]
    return [*steps, {"fe": end, "accuracy": steps[-1]["accuracy"]}]


def _labels(values: Sequence[dict[str, Any]], best: Sequence[Row], view: View, height: float) -> list[dict[str, Any]]:
    """Names beside points: fixed alphas on the left, the served strategy and the front on the right, no two in one place."""
    on_front = {row.strategy for row in best}
    named = [v for v in values if v["kind"] == "fixed alpha" or v["name"] in on_front or v["name"] == view.served_name]
    placed = []
    for _, near in groupby(sorted(named, key=_column), key=_column):
        lowest = float("-inf")
        for value in sorted(near, key=lambda v: float(v["accuracy"])):
            lowest = max(value["accuracy"], lowest + _LABEL * height)
            side = "left" if value["kind"] == "fixed alpha" else "right"
            placed.append({"name": value["name"], "fe": value["fe"], "label": lowest, "side": side})
    return placed


def _column(value: dict[str, Any]) -> tuple[bool, int]:
    """Labels of one column may hide each other: one side of the points, and FE within a factor of two."""
    return value["kind"] == "fixed alpha", floor(log2(max(value["fe"], 1.0)))


def _reading(view: View, best: Sequence[Row]) -> str:
    served = view.served
    serves = f"{served.strategy} serves {three(served.accuracy)} at {two(served.fe)} FE"
    winner = beaten_by(served, view.strategies)
    if winner is None:
        others = counted(len(view.strategies) - 1, "other strategy", "other strategies")
        return f"{serves}, on the front: none of {others} is as good for as little."
    more = points(winner.accuracy - served.accuracy)
    return f"{serves}, off the front: {winner.strategy} serves {more} points at {two(winner.fe)} FE."
