"""Accuracy against forward-equivalents: every strategy, the Pareto front, and the strategy that is served."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log2
from typing import Any

import altair as alt

from adawise.page import theme
from adawise.page.blocks import Figure, Key, Section
from adawise.page.notation import points, three, two
from adawise.text import counted
from adawise_lab.evaluate.page.notation import spoken
from adawise_lab.evaluate.page.views import View
from adawise_lab.evaluate.references import BEST_FIXED, FIXED, MIDDLE, SPLIT_HALF_ORACLE
from adawise_lab.evaluate.result import Row

KINDS = ("served", "on the front", "other strategy", "fixed alpha")
SHAPES = ("square", "circle", "triangle-up", "diamond")
SIZES = (150, 80, 60, 80)
COLOURS = (theme.SERVED, theme.INK, theme.MUTED, theme.ZERO_SHOT)
_HEIGHT = 300
_LABEL = 0.048  # of the height: labels that are this far from each other do not overlap


def section(among: Sequence[View]) -> Section:
    """Return the section, with a figure for each view."""
    return Section(
        "cost",
        "Accuracy against cost",
        "FE (forward equivalents) counts forwards of the image tower per image: plain CLIP is 1. Vertical lines "
        "are 95 % intervals. The line joins the strategies that no other beats in one of the two without losing in "
        "the other. The dashed line is the best alpha of each domain, chosen on half of its images and judged on "
        "the rest.",
        (
            *map(Key, KINDS, SHAPES, COLOURS),
            Key("front", "line", theme.INK),
            Key("split-half oracle", "dashes", theme.ORACLE),
        ),
        tuple(_figure(view) for view in among),
    )


def marked(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the encodings of shape and colour by `kind`, for the kinds drawn, and of `size` in square pixels."""
    kept = [KINDS.index(kind) for kind in kinds]
    return {
        "shape": alt.Shape("kind:N").scale(domain=kinds, range=[SHAPES[k] for k in kept]),
        "color": alt.Color("kind:N").scale(domain=kinds, range=[COLOURS[k] for k in kept]),
        "size": alt.Size("size:Q").scale(None),
    }


def _figure(view: View) -> Figure:
    best = front(view.strategies)
    oracle = view.reference(SPLIT_HALF_ORACLE).accuracy
    floor, top = _span(view, best, oracle)
    rows = (*view.strategies, *map(view.reference, FIXED))
    values = [_point(row, _kind(row, view, best), floor) for row in rows]
    values.sort(key=lambda v: KINDS.index(v["kind"]), reverse=True)  # the served strategy is drawn over the others
    end = 2.2 * max(v["fe"] for v in values)
    x = alt.X("fe:Q", title="FE (log scale)").scale(type="log", domain=(0.38, end), nice=False)
    x = x.axis(values=[1, 2, 3, 5, 10, 20, 50], format="~g", grid=False)
    y = alt.Y("at:Q", title="accuracy").scale(domain=(floor, top), nice=False, zero=False)
    drawn = [v for v in values if not v["below"]]
    named = _names(values, best, view, top - floor)
    chart = alt.layer(
        *oracle_line(oracle, y),
        alt.Chart(theme.rows(_steps(best, end)))
        .mark_line(interpolate="step-after", color=theme.INK, strokeWidth=1)
        .encode(x=x, y=y),
        alt.Chart(theme.rows(drawn)).mark_rule(color=theme.MUTED, clip=True).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        alt.Chart(theme.rows(values))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            **marked(KINDS),
            tooltip=[
                alt.Tooltip("name:N", title="strategy"),
                alt.Tooltip("accuracy:Q", format=".3f"),
                alt.Tooltip("interval:N", title="95 %"),
                alt.Tooltip("fe:Q", title="FE", format=".2f"),
            ],
        ),
        *(
            layer
            for side, align, dx in (("left", "right", -9), ("right", "left", 10))
            for layer in theme.labels(
                alt.Chart(theme.rows([n for n in named if n["side"] == side])).encode(x=x, y=y, text="name:N"),
                align=align,
                dx=dx,
                baseline="middle",
            )
        ),
    )
    return Figure(f"cost-{view.anchor}", view.name, _reading(view), theme.spec(chart, height=_HEIGHT))


def _span(view: View, best: Sequence[Row], oracle: float) -> tuple[float, float]:
    """Return the range of accuracies to draw: what may be served, and the fixed alphas that matter."""
    shown = [*best, view.served, view.better_endpoint, view.reference(BEST_FIXED), view.reference(MIDDLE)]
    low = min(row.accuracy_ci[0] for row in shown)
    high = max(oracle, *(row.accuracy_ci[1] for row in shown))
    margin = 0.08 * max(high - low, 0.01)
    return low - margin, high + margin


def oracle_line(accuracy: float, y: alt.Y) -> tuple[alt.Chart, ...]:
    """Return the line at the accuracy of the split-half oracle."""
    line = alt.Chart(theme.rows([{"at": accuracy}]))
    return (line.mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=theme.ORACLE).encode(y=y),)


def _kind(row: Row, view: View, best: Sequence[Row]) -> str:
    if row.reference:
        return "fixed alpha"
    if row.strategy == view.served_name:
        return "served"
    return "on the front" if row in best else "other strategy"


def _point(row: Row, kind: str, floor: float) -> dict[str, Any]:
    """Return the values of one point; a point below `floor` is drawn at it, and its label says so."""
    low, high = row.accuracy_ci
    return {
        "name": spoken(row.strategy),
        "kind": kind,
        "size": SIZES[KINDS.index(kind)],
        "fe": row.fe,
        "accuracy": row.accuracy,
        "at": max(row.accuracy, floor),
        "below": row.accuracy < floor,
        "low": max(low, floor),
        "high": high,
        "interval": f"{three(low)} to {three(high)}",
    }


def _steps(best: Sequence[Row], end: float) -> list[dict[str, float]]:
    """Return the front as steps that continue to the right end."""
    steps = [{"fe": row.fe, "at": row.accuracy} for row in best]
    return [*steps, {"fe": end, "at": steps[-1]["at"]}]


def _names(values: Sequence[dict[str, Any]], best: Sequence[Row], view: View, height: float) -> list[dict[str, Any]]:
    """Return the names beside points: fixed alphas on the left, the served strategy and the front on the right.

    No name covers another. If the front is crowded, a name without room near its point is left out; the table has it.
    """
    on_front = {row.strategy for row in best}
    chosen = [v for v in values if v["kind"] != "other strategy" or v["name"] in on_front or v["below"]]
    places: dict[tuple[bool, int], list[float]] = {}
    named = []
    for value in sorted(chosen, key=lambda v: (v["name"] != view.served_name, v["kind"], -v["accuracy"])):
        taken = places.setdefault(_column(value), [])
        at = _free(value["at"], taken, _LABEL * height, 2.0 if value["kind"] == "fixed alpha" else 1.0)
        if at is None:
            continue
        taken.append(at)
        name = f"{value['name']} {three(value['accuracy'])} ↓" if value["below"] else value["name"]
        side = "left" if _column(value)[0] else "right"
        named.append({"name": name, "fe": value["fe"], "at": at, "side": side})
    return named


def _free(wanted: float, taken: Sequence[float], gap: float, farthest: float) -> float | None:
    """Return the place nearest to `wanted` that is a `gap` away from all `taken` ones.

    None if that place is more than `farthest` gaps away.
    """
    tried = [wanted, *(edge + sign * gap for edge in taken for sign in (1, -1))]
    free = [at for at in tried if all(abs(at - other) >= 0.999 * gap for other in taken)]
    nearest = min(free, key=lambda at: abs(at - wanted), default=None)
    return None if nearest is None or abs(nearest - wanted) > farthest * gap else nearest


def _column(value: dict[str, Any]) -> tuple[bool, int]:
    """Return the column of a label: its side of the points, and FE within a factor of two.

    Only labels of one column can overlap.
    """
    return value["kind"] == "fixed alpha" and not value["below"], floor(log2(max(value["fe"], 1.0)))


def _reading(view: View) -> str:
    served = view.served
    serves = f"{served.strategy} serves {three(served.accuracy)} at {two(served.fe)} FE"
    winner = beaten_by(served, view.strategies)
    if winner is None:
        others = counted(len(view.strategies) - 1, "other strategy", "other strategies")
        return f"{serves}, on the front: none of {others} is as good at this cost."
    if three(winner.accuracy) == three(served.accuracy) and two(winner.fe) == two(served.fe):
        return f"{serves}, level with {winner.strategy} on the front."
    more = points(winner.accuracy - served.accuracy)
    more = "as much" if more == "+0.0" else f"{more} points"
    return f"{serves}, off the front: {winner.strategy} serves {more} at {two(winner.fe)} FE."


def front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the Pareto front, sorted by FE.

    It has the rows that no other row beats at one of accuracy and FE without losing at the other.
    """
    best = [row for row in rows if not any(_beats(other, row) for other in rows)]
    return tuple(sorted(best, key=lambda row: (row.fe, row.accuracy)))


def beaten_by(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the most accurate of the rows that beat `row`; None if there is none."""
    return max((other for other in rows if _beats(other, row)), key=lambda other: other.accuracy, default=None)


def _beats(one: Row, other: Row) -> bool:
    no_worse = one.fe <= other.fe and one.accuracy >= other.accuracy
    return no_worse and (one.fe < other.fe or one.accuracy > other.accuracy)
