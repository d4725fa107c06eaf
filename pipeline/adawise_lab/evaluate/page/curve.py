"""Accuracy against forwards as the price of `warm` goes down, beside other strategies and fixed alphas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import altair as alt

from adawise.page import theme
from adawise.page.blocks import Cell, Figure, Key, Line, Section, Table
from adawise.page.notation import LEVEL, points, points_between, three, two
from adawise_lab.evaluate.page.comparison import difference_cell
from adawise_lab.evaluate.page.cost import oracle_line
from adawise_lab.evaluate.page.notation import spoken
from adawise_lab.evaluate.page.views import View, is_better, is_worse
from adawise_lab.evaluate.references import FIXED, SPLIT_HALF_ORACLE
from adawise_lab.evaluate.result import Difference, Row

_KINDS = {  # name -> shape, colour, size in square pixels
    "the set price": ("square", theme.SERVED, 150),
    "another price": ("circle", theme.SERVED, 70),
    "other strategy": ("triangle-up", theme.MUTED, 60),
    "fixed alpha": ("diamond", theme.ZERO_SHOT, 70),
}
_SET, _OTHER, _STRATEGY, _FIXED = _KINDS
_HEIGHT = 300
_LABEL = 0.048  # of the height: labels that are this far from each other do not overlap
_REACH = 0.3  # of the curve's height: points farther below the curve are drawn at the floor
_TICKS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 11.0, 21.0)


def section(among: Sequence[View]) -> Section:
    """Return the section, with a figure for each view and one table of all."""
    return Section(
        "price",
        "Accuracy by price",
        "search.price trades forwards against missed gains: the gain in nats that a probe of other alphas must "
        "promise. Points on the line are the same strategy at other prices, on the same images. Vertical lines "
        f"are {LEVEL} intervals of the difference to the set price: where one crosses the level of the square, no "
        "difference is shown. They draw images, not streams, so that with few --seeds a kink may be chance. The "
        "axis is logarithmic in what is spent beyond the one forward that serving takes.",
        (
            *(Key(name, shape, colour) for name, (shape, colour, _) in _KINDS.items()),
            Key("split-half oracle", "dashes", theme.ORACLE),
        ),
        tuple(_figure(view) for view in among),
        (_table(among),),
    )


def _figure(view: View) -> Figure:
    place = next(k for k, row in enumerate(view.prices) if not row.is_other_price)
    at = view.prices[place]
    strategies = [row for row in view.strategies if row.price is None and row.fe > 1.0]
    oracle = view.reference(SPLIT_HALF_ORACLE).accuracy
    moving = [{**_point(row, at, _SET if row is at else _OTHER), "place": k} for k, row in enumerate(view.prices)]
    values = [*moving, *(_point(row, at, _STRATEGY) for row in strategies)]
    # The axis is the logarithm of forwards beyond 1, so that 1 itself needs a place of its own.
    least = 0.6 * min(v["beyond"] for v in values)
    values += [{**_point(row, at, _FIXED), "beyond": least} for row in map(view.reference, FIXED)]
    low, high = min(v["low"] for v in moving), max(v["high"] for v in values)
    reach = _REACH * (high - low)
    low = min(v["low"] for v in values if v["low"] > low - reach)
    high = max(high, oracle if oracle < high + reach else high)
    low, high = (low - 0.1 * max(high - low, 0.01)), (high + 0.1 * max(high - low, 0.01))
    under = {"at": low, "low": low, "high": low}
    values = [{**v, **under, "name": f"{v['name']} {three(v['accuracy'])} ↓"} if v["low"] < low else v for v in values]
    end = 2.2 * max(v["beyond"] for v in values)
    ticks = [least, *(fe - 1.0 for fe in _TICKS if 1.5 * least < fe - 1.0 < end)]
    x = alt.X("beyond:Q", title="FE").scale(type="log", domain=(0.9 * least, end), nice=False)
    says = f"datum.value < {1.01 * least} ? '1' : format(1 + datum.value, '.4~g')"
    x = x.axis(values=ticks, labelExpr=says, tickCount=len(ticks), grid=False)
    y = alt.Y("at:Q", title="accuracy").scale(domain=(low, high), nice=False, zero=False)
    chart = alt.layer(
        *(oracle_line(oracle, y) if oracle < high else ()),
        alt.Chart(theme.rows(moving[place : place + 1])).mark_rule(color=theme.SERVED, strokeWidth=0.7).encode(y=y),
        alt.Chart(theme.rows(moving)).mark_line(color=theme.SERVED, strokeWidth=1.5).encode(x=x, y=y, order="place:Q"),
        alt.Chart(theme.rows(values)).mark_rule(color=theme.MUTED).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        alt.Chart(theme.rows(values[::-1]))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            shape=alt.Shape("kind:N").scale(domain=list(_KINDS), range=[shape for shape, _, _ in _KINDS.values()]),
            color=alt.Color("kind:N").scale(domain=list(_KINDS), range=[colour for _, colour, _ in _KINDS.values()]),
            size=alt.Size("size:Q").scale(None),
            tooltip=[
                alt.Tooltip("name:N", title="what"),
                alt.Tooltip("accuracy:Q", format=".3f"),
                alt.Tooltip("over:N", title="points over the set price"),
                alt.Tooltip("fe:Q", title="FE", format=".2f"),
            ],
        ),
        *(
            layer  # names of neighbours on the line are above and below in turn
            for some, dy in ((moving[::2], -15), (moving[1::2], 17))
            for layer in theme.labels(alt.Chart(theme.rows(some)).encode(x=x, y=y, text="name:N"), dy=dy)
        ),
        *theme.labels(
            alt.Chart(theme.rows(_apart(values[len(moving) :], _LABEL * (high - low)))).encode(x=x, y=y, text="name:N"),
            align="left",
            baseline="middle",
            dx=10,
        ),
    )
    return Figure(
        f"price-{view.anchor}", view.name, _reading(view, place), theme.spec(chart, height=_HEIGHT), wide=True
    )


def _point(row: Row, at: Row, kind: str) -> dict[str, Any]:
    over = row.over_set or Difference(0.0, (0.0, 0.0))
    name = row.strategy.partition("@")[0] if row.price is None else f"{row.price:g}".removeprefix("0")
    return {
        "name": f"price {name}" if kind == _SET else spoken(name),
        "kind": kind,
        "size": _KINDS[kind][2],
        "fe": row.fe,
        "beyond": max(row.fe - 1.0, 1e-3),
        "accuracy": row.accuracy,
        "at": row.accuracy,
        "low": at.accuracy + over.ci[0],
        "high": at.accuracy + over.ci[1],
        "over": "" if row is at else f"{points(over.difference)} ({points_between(over.ci)})",
    }


def _apart(values: Sequence[dict[str, Any]], gap: float) -> list[dict[str, Any]]:
    """Move labels so that they do not overlap: the name of a fixed alpha moves up until it covers none below it."""
    named, free = [], -math.inf
    for value in sorted(values, key=lambda v: (v["at"], v["accuracy"])):
        if value["kind"] == _FIXED:
            value = {**value, "at": max(value["at"], free)}
            free = value["at"] + gap
        named.append(value)
    return named


def _reading(view: View, place: int) -> str:
    """Describe the price that is set, the highest lower price that gains, and the highest price without shown loss."""
    at = view.prices[place]
    spare = next((r for r in view.prices[:place] if r.over_set and not is_worse(r.over_set)), None)
    more = next((r for r in view.prices[place:] if r.over_set and is_better(r.over_set)), None)
    lower, higher = "no lower price is shown to serve more", "every higher price is shown to serve less"
    if more is not None and more.over_set is not None:
        gain = f"{points(more.over_set.difference)} points ({LEVEL} {points_between(more.over_set.ci)})"
        lower = f"{more.price:g} serves {gain} at {two(more.fe)}"
    if spare is not None:
        higher = f"{spare.price:g} is not shown to serve less, at {two(spare.fe)}"
    serves = f"The price that is set, {at.price:g}, serves {three(at.accuracy)} at {two(at.fe)} FE"
    return f"{serves}; {lower}; {higher}."


def _table(among: Sequence[View]) -> Table:
    """Build the table of prices by view: points over the price that is set, and FE."""
    lines = []
    for rows in zip(*(view.prices for view in among), strict=True):
        is_set, fe = not rows[0].is_other_price, fmean(row.fe for row in rows)
        mean = fmean(row.accuracy if row.over_set is None else row.over_set.difference for row in rows)
        cells = [Cell(three(mean) if is_set else points(mean), note=f"at {two(fe)}")]
        for row in rows:
            cell = Cell(three(row.accuracy)) if row.over_set is None else difference_cell(row.over_set)
            cells.append(replace(cell, note=f"at {two(row.fe)}"))
        lines.append(Line(f"{rows[0].price:g}", tuple(cells), "served" if is_set else "strategy"))
    caption = "Points over the set price, and FE; of the set price, accuracy"
    return Table(caption, "search.price", ("mean", *(view.name for view in among)), tuple(lines))
