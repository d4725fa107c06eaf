"""Strategies as points: accuracy against forwards, accuracy as the price of `warm` goes down, and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor, log2
from statistics import fmean
from typing import Any

import altair as alt

from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.text import LEVEL, counted, points, points_between, shared_layers, three, two
from adawise_lab.evaluate.advice import difference_cell
from adawise_lab.evaluate.references import BEST_FIXED, FIXED, MIDDLE, SPLIT_HALF_ORACLE
from adawise_lab.evaluate.result import Difference, Row
from adawise_lab.evaluate.views import View, display_name, is_better, is_worse

Kinds = Mapping[str, tuple[str, str, int]]
"""Kind of point: shape, colour, size in square pixels."""

_SERVED, _FRONT, _OTHER, _FIXED = "served", "on the front", "other strategy", "fixed alpha"
_KINDS: Kinds = {
    _SERVED: ("square", theme.SERVED, 150),
    _FRONT: ("circle", theme.INK, 80),
    _OTHER: ("triangle-up", theme.MUTED, 60),
    _FIXED: ("diamond", theme.ZERO_SHOT, 80),
}
_SET, _ANOTHER = "the set price", "another price"
_OF_PRICES: Kinds = {
    _SET: ("square", theme.SERVED, 150),
    _ANOTHER: ("circle", theme.SERVED, 70),
    _OTHER: ("triangle-up", theme.MUTED, 60),
    _FIXED: ("diamond", theme.ZERO_SHOT, 70),
}
_OF_CALIBRATION: Kinds = {kind: _KINDS[kind] for kind in (_SERVED, _OTHER, _FIXED)}
_ORACLE = Key("split-half oracle", "dashes", theme.ORACLE)
_HEIGHT, _CALIBRATION_HEIGHT = 300, 260
_LABEL = 0.048  # of the height: labels that are this far from each other do not overlap
_REACH = 0.3  # of the curve's height: points farther below the curve are drawn at the floor
_TICKS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 11.0, 21.0)
FLICKER = "flicker is the share of images with the class of the image before them whose prediction is another one"
_BAR = 0.01  # ECE by which the served strategy may exceed the better endpoint


def cost_section(among: Sequence[View]) -> Section:
    """Return the section, with a figure for each view."""
    return Section(
        "cost",
        "Accuracy against cost",
        f"{_cost_in_words(among[0])} Vertical lines are 95 % intervals. The line joins the strategies that no other "
        "beats in one of the two without losing in the other. The dashed line is the best alpha of each domain, chosen "
        "on half of its images and judged on the rest.",
        (*_legend(_KINDS), Key("front", "line", theme.INK), _ORACLE),
        tuple(_cost(view) for view in among),
    )


def _cost_in_words(view: View) -> str:
    fe = "FE (forward equivalents) counts forwards of the image tower per image: plain CLIP is 1."
    if not view.shares_layers:
        return fe
    return (
        f"{fe} The two models have {shared_layers(view.tail_share)}. Forward cost, which the axis shows, counts whole "
        "forwards, and shared layers once an image."
    )


def _axis(view: View) -> str:
    return "forward cost" if view.shares_layers else "FE"


def _cost_tooltips(view: View) -> tuple[alt.Tooltip, ...]:
    fe = alt.Tooltip("fe:Q", title="FE", format=".2f")
    return (fe, alt.Tooltip("cost:Q", title="forward cost", format=".2f")) if view.shares_layers else (fe,)


def _cost(view: View) -> Figure:
    best = front(view.strategies)
    oracle = view.reference(SPLIT_HALF_ORACLE).accuracy
    floor, top = _span(view, best, oracle)
    rows = (*view.strategies, *map(view.reference, FIXED))
    values = [_cost_point(row, _kind(row, view, best), floor) for row in rows]
    order = list(_KINDS)
    values.sort(key=lambda v: order.index(v["kind"]), reverse=True)  # the served strategy is drawn over the others
    end = 2.2 * max(v["cost"] for v in values)
    x = alt.X("cost:Q", title=f"{_axis(view)} (log scale)").scale(type="log", domain=(0.38, end), nice=False)
    x = x.axis(values=[1, 2, 3, 5, 10, 20, 50], format="~g", grid=False)
    y = alt.Y("at:Q", title="accuracy").scale(domain=(floor, top), nice=False, zero=False)
    drawn = [v for v in values if not v["below"]]
    named = _names(values, best, view, top - floor)
    chart = alt.layer(
        _oracle_line(oracle, y),
        alt.Chart(theme.rows(_steps(best, end)))
        .mark_line(interpolate="step-after", color=theme.INK, strokeWidth=1)
        .encode(x=x, y=y),
        alt.Chart(theme.rows(drawn)).mark_rule(color=theme.MUTED, clip=True).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        _marks(
            values,
            _KINDS,
            *(x, y, alt.Tooltip("name:N", title="strategy"), alt.Tooltip("accuracy:Q", format=".3f")),
            *(alt.Tooltip("interval:N", title="95 %"), *_cost_tooltips(view)),
        ),
        *(
            layer
            for side, align, dx in (("left", "right", -9), ("right", "left", 10))
            for layer in _labels([n for n in named if n["side"] == side], x, y, align=align, dx=dx, baseline="middle")
        ),
    )
    return Figure(f"cost-{view.anchor}", view.name, _cost_reading(view), theme.spec(chart, height=_HEIGHT))


def _span(view: View, best: Sequence[Row], oracle: float) -> tuple[float, float]:
    """Return the range of accuracies to draw: what may be served, and the fixed alphas that matter."""
    shown = [*best, view.served, view.better_endpoint, view.reference(BEST_FIXED), view.reference(MIDDLE)]
    low = min(row.accuracy_ci[0] for row in shown)
    high = max(oracle, *(row.accuracy_ci[1] for row in shown))
    margin = 0.08 * max(high - low, 0.01)
    return low - margin, high + margin


def _oracle_line(accuracy: float, y: alt.Y) -> alt.Chart:
    """Return the line at the accuracy of the split-half oracle."""
    rule = alt.Chart(theme.rows([{"at": accuracy}])).mark_rule(strokeDash=[6, 4], strokeWidth=1.5, color=theme.ORACLE)
    line: alt.Chart = rule.encode(y=y)
    return line


def _kind(row: Row, view: View, best: Sequence[Row] = ()) -> str:
    if row.reference:
        return _FIXED
    if row.strategy == view.served_name:
        return _SERVED
    return _FRONT if row in best else _OTHER


def _cost_point(row: Row, kind: str, floor: float) -> dict[str, Any]:
    """Return the values of one point; a point below `floor` is drawn at it, and its label says so."""
    low, high = row.accuracy_ci
    return {
        "name": display_name(row.strategy),
        "kind": kind,
        "size": _KINDS[kind][2],
        "fe": row.fe,
        "cost": row.forward_cost,
        "accuracy": row.accuracy,
        "at": max(row.accuracy, floor),
        "below": row.accuracy < floor,
        "low": max(low, floor),
        "high": high,
        "interval": f"{three(low)} to {three(high)}",
    }


def _steps(best: Sequence[Row], end: float) -> list[dict[str, float]]:
    """Return the front as steps that continue to the right end."""
    steps = [{"cost": row.forward_cost, "at": row.accuracy} for row in best]
    return [*steps, {"cost": end, "at": steps[-1]["at"]}]


def _names(values: Sequence[dict[str, Any]], best: Sequence[Row], view: View, height: float) -> list[dict[str, Any]]:
    """Return the names beside points: fixed alphas on the left, the served strategy and the front on the right.

    No name covers another. If the front is crowded, a name without room near its point is left out; the table has it.
    """
    on_front = {row.strategy for row in best}
    chosen = [v for v in values if v["kind"] != _OTHER or v["name"] in on_front or v["below"]]
    places: dict[tuple[bool, int], list[float]] = {}
    named = []
    for value in sorted(chosen, key=lambda v: (v["name"] != view.served_name, v["kind"], -v["accuracy"])):
        taken = places.setdefault(_column(value), [])
        at = _free(value["at"], taken, _LABEL * height, 2.0 if value["kind"] == _FIXED else 1.0)
        if at is None:
            continue
        taken.append(at)
        name = f"{value['name']} {three(value['accuracy'])} ↓" if value["below"] else value["name"]
        side = "left" if _column(value)[0] else "right"
        named.append({"name": name, "cost": value["cost"], "at": at, "side": side})
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
    """Return the column of a label: its side of the points, and cost within a factor of two.

    Only labels of one column can overlap.
    """
    return value["kind"] == _FIXED and not value["below"], floor(log2(max(value["cost"], 1.0)))


def _cost_reading(view: View) -> str:
    served = view.served
    serves = f"{served.strategy} serves {three(served.accuracy)} at {view.cost(served)}"
    winner = beaten_by(served, view.strategies)
    if winner is None:
        others = counted(len(view.strategies) - 1, "other strategy", "other strategies")
        return f"{serves}, on the front: none of {others} is as good at this cost."
    if three(winner.accuracy) == three(served.accuracy) and two(winner.fe) == two(served.fe):
        return f"{serves}, level with {winner.strategy} on the front."
    more = points(winner.accuracy - served.accuracy)
    more = "as much" if more == "+0.0" else f"{more} points"
    return f"{serves}, off the front: {winner.strategy} serves {more} at {view.cost(winner)}."


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


def price_section(among: Sequence[View]) -> Section:
    """Return the section, with a figure for each view and one table of all."""
    return Section(
        "price",
        "Accuracy by price",
        "search.price trades forwards against missed gains: the gain in nats that a probe of other alphas must "
        "promise. Points on the line are the same strategy at other prices, on the same images. Vertical lines "
        f"are {LEVEL} intervals of the difference to the set price: where one crosses the level of the square, no "
        "difference is shown. They draw images, not streams, so that with few --seeds a kink may be chance. The "
        "axis is logarithmic in what is spent beyond the one forward that serving takes.",
        (*_legend(_OF_PRICES), _ORACLE),
        tuple(_prices(view) for view in among),
        (_price_table(among),),
    )


def _prices(view: View) -> Figure:
    place = next(k for k, row in enumerate(view.prices) if not row.is_other_price)
    at = view.prices[place]
    strategies = [row for row in view.strategies if row.price is None and row.fe > 1.0]
    oracle = view.reference(SPLIT_HALF_ORACLE).accuracy
    moving = [
        {**_price_point(row, at, _SET if row is at else _ANOTHER), "place": k} for k, row in enumerate(view.prices)
    ]
    values = [*moving, *(_price_point(row, at, _OTHER) for row in strategies)]
    # The axis is the logarithm of forwards beyond 1, so that 1 itself needs a place of its own.
    least = 0.6 * min(v["beyond"] for v in values)
    values += [{**_price_point(row, at, _FIXED), "beyond": least} for row in map(view.reference, FIXED)]
    low, high = min(v["low"] for v in moving), max(v["high"] for v in values)
    reach = _REACH * (high - low)
    low = min(v["low"] for v in values if v["low"] > low - reach)
    high = max(high, oracle if oracle < high + reach else high)
    low, high = (low - 0.1 * max(high - low, 0.01)), (high + 0.1 * max(high - low, 0.01))
    under = {"at": low, "low": low, "high": low}
    values = [{**v, **under, "name": f"{v['name']} {three(v['accuracy'])} ↓"} if v["low"] < low else v for v in values]
    end = 2.2 * max(v["beyond"] for v in values)
    ticks = [least, *(fe - 1.0 for fe in _TICKS if 1.5 * least < fe - 1.0 < end)]
    x = alt.X("beyond:Q", title=_axis(view)).scale(type="log", domain=(0.9 * least, end), nice=False)
    label = f"datum.value < {1.01 * least} ? '1' : format(1 + datum.value, '.4~g')"
    x = x.axis(values=ticks, labelExpr=label, tickCount=len(ticks), grid=False)
    y = alt.Y("at:Q", title="accuracy").scale(domain=(low, high), nice=False, zero=False)
    chart = alt.layer(
        *([_oracle_line(oracle, y)] if oracle < high else []),
        alt.Chart(theme.rows(moving[place : place + 1])).mark_rule(color=theme.SERVED, strokeWidth=0.7).encode(y=y),
        alt.Chart(theme.rows(moving)).mark_line(color=theme.SERVED, strokeWidth=1.5).encode(x=x, y=y, order="place:Q"),
        alt.Chart(theme.rows(values)).mark_rule(color=theme.MUTED).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        _marks(
            values[::-1],
            _OF_PRICES,
            *(x, y, alt.Tooltip("name:N", title="what"), alt.Tooltip("accuracy:Q", format=".3f")),
            alt.Tooltip("over:N", title="points over the set price"),
            *_cost_tooltips(view),
        ),
        *_labels(moving[::2], x, y, dy=-15),  # names of neighbours on the line are above and below in turn
        *_labels(moving[1::2], x, y, dy=17),
        *_labels(_spread(values[len(moving) :], _LABEL * (high - low)), x, y, align="left", baseline="middle", dx=10),
    )
    return Figure(
        f"price-{view.anchor}", view.name, _price_reading(view, place), theme.spec(chart, height=_HEIGHT), wide=True
    )


def _price_point(row: Row, at: Row, kind: str) -> dict[str, Any]:
    over = row.over_set or Difference(0.0, (0.0, 0.0))
    name = row.strategy.partition("@")[0] if row.price is None else f"{row.price:g}".removeprefix("0")
    return {
        "name": f"price {name}" if kind == _SET else display_name(name),
        "kind": kind,
        "size": _OF_PRICES[kind][2],
        "fe": row.fe,
        "cost": row.forward_cost,
        "beyond": max(row.forward_cost - 1.0, 1e-3),
        "accuracy": row.accuracy,
        "at": row.accuracy,
        "low": at.accuracy + over.ci[0],
        "high": at.accuracy + over.ci[1],
        "over": "" if row is at else f"{points(over.difference)} ({points_between(over.ci)})",
    }


def _spread(values: Sequence[dict[str, Any]], gap: float) -> list[dict[str, Any]]:
    """Move labels so that they do not overlap: the name of a fixed alpha moves up until it covers none below it."""
    named, free = [], -math.inf
    for value in sorted(values, key=lambda v: (v["at"], v["accuracy"])):
        if value["kind"] == _FIXED:
            value = {**value, "at": max(value["at"], free)}
            free = value["at"] + gap
        named.append(value)
    return named


def _price_reading(view: View, place: int) -> str:
    """Describe the price that is set, the highest lower price that gains, and the highest price without shown loss."""
    at = view.prices[place]
    spare = next((r for r in view.prices[:place] if r.over_set and not is_worse(r.over_set)), None)
    more = next((r for r in view.prices[place:] if r.over_set and is_better(r.over_set)), None)
    lower, higher = "no lower price is shown to serve more", "every higher price is shown to serve less"
    if more is not None and more.over_set is not None:
        gain = f"{points(more.over_set.difference)} points ({LEVEL} {points_between(more.over_set.ci)})"
        lower = f"{more.price:g} serves {gain} at {two(more.forward_cost)}"
    if spare is not None:
        higher = f"{spare.price:g} is not shown to serve less, at {two(spare.forward_cost)}"
    unit = "forwards an image" if view.shares_layers else "FE"
    serves = f"The price that is set, {at.price:g}, serves {three(at.accuracy)} at {two(at.forward_cost)} {unit}"
    return f"{serves}; {lower}; {higher}."


def _price_table(among: Sequence[View]) -> Table:
    """Build the table of prices by view: points over the price that is set, and FE."""
    lines = []
    for rows in zip(*(view.prices for view in among), strict=True):
        is_set, cost = not rows[0].is_other_price, fmean(row.forward_cost for row in rows)
        mean = fmean(row.accuracy if row.over_set is None else row.over_set.difference for row in rows)
        cells = [Cell(three(mean) if is_set else points(mean), note=f"at {two(cost)}")]
        for row in rows:
            cell = Cell(three(row.accuracy)) if row.over_set is None else difference_cell(row.over_set)
            cells.append(replace(cell, note=f"at {two(row.forward_cost)}"))
        lines.append(Line(f"{rows[0].price:g}", tuple(cells), "served" if is_set else "strategy"))
    caption = f"Points over the set price, and {_axis(among[0])}; of the set price, accuracy"
    return Table(caption, "search.price", ("mean", *(view.name for view in among)), tuple(lines))


def calibration_section(among: Sequence[View], calibration: str) -> Section:
    """Return the section, with a figure for each view."""
    return Section(
        "calibration",
        "Calibration",
        "ECE (expected calibration error, 15 bins, mean over domains) against NLL (nats an image): both are "
        f"better lower, so the lower left is best. Temperatures of the served predictions: {calibration}. In the "
        f"tables, {FLICKER}.",
        _legend(_OF_CALIBRATION),
        tuple(_calibration(view) for view in among),
        tuple(_certainty(view) for view in among),
    )


def _certainty(view: View) -> Table:
    """Return the table of calibration and flicker."""
    fixed = [view.reference(name) for name in FIXED]
    lines = [(row, "served" if row is view.served else "strategy") for row in view.strategies]
    return Table(
        f"{view.name}: ECE, NLL and flicker",
        "strategy",
        ("ECE", "ECE of all images as one domain", "NLL", "flicker"),
        tuple(
            Line(display_name(row.strategy), tuple(Cell(three(v)) for v in _certain(row)), kind)
            for row, kind in (*lines, *((row, "reference") for row in fixed))
        ),
    )


def _certain(row: Row) -> tuple[float, ...]:
    return row.ece, row.ece_pooled, row.nll, row.flicker


def _calibration(view: View) -> Figure:
    rows = (*view.strategies, *(view.reference(name) for name in FIXED))
    values: list[dict[str, Any]] = [
        {
            "size": _KINDS[kind][2],
            "name": display_name(row.strategy),
            "nll": row.nll,
            "ece": row.ece,
            "kind": kind,
        }
        for row, kind in ((row, _kind(row, view)) for row in rows)
        if math.isfinite(row.ece + row.nll)  # a shortlist that lacks a class makes the NLL infinite
    ]
    order = list(_KINDS)
    values.sort(key=lambda v: order.index(v["kind"]), reverse=True)  # the served strategy is drawn over the others
    x = alt.X("nll:Q", title="NLL, nats").scale(zero=False, padding=40).axis(grid=False)
    y = alt.Y("ece:Q", title="ECE").scale(zero=False, padding=14)
    chart = alt.layer(
        _marks(
            values,
            _OF_CALIBRATION,
            *(x, y, alt.Tooltip("name:N", title="strategy"), alt.Tooltip("ece:Q", title="ECE", format=".3f")),
            alt.Tooltip("nll:Q", title="NLL", format=".3f"),
        ),
        *_labels([v for v in values if v["kind"] == _FIXED and v["name"] != display_name(MIDDLE)], x, y, dy=13),
        *_labels([v for v in values if v["kind"] == _SERVED], x, y, dy=-13),
    )
    reading, spec = _calibration_reading(view), theme.spec(chart, height=_CALIBRATION_HEIGHT)
    return Figure(f"ece-{view.anchor}", view.name, reading, spec)


def _calibration_reading(view: View) -> str:
    endpoint = min((view.reference(name) for name in FIXED[:2]), key=lambda row: row.ece)
    over = view.served.ece - endpoint.ece
    if over <= 0.0:
        compared = "no worse than"
    elif over <= _BAR:
        compared = f"within {three(_BAR)} of"
    else:
        compared = f"{three(over)} worse than"
    nll = f"its NLL is {three(view.served.nll)} against {three(endpoint.nll)}"
    if math.isinf(view.served.nll):
        nll = "its NLL is infinite, and no point of the figure, because shortlists lack a class that comes"
    return (
        f"{view.served_name} has an ECE of {three(view.served.ece)}, {compared} that of the better calibrated "
        f"endpoint, {display_name(endpoint.strategy)} ({three(endpoint.ece)}); {nll}."
    )


def _legend(kinds: Kinds) -> tuple[Key, ...]:
    return tuple(Key(kind, shape, colour) for kind, (shape, colour, _) in kinds.items())


def _marks(values: list[dict[str, Any]], kinds: Kinds, x: alt.X, y: alt.Y, *tooltip: alt.Tooltip) -> alt.Chart:
    """Return the points of values that have `kind` and `size`."""
    shapes, colours, _ = zip(*kinds.values(), strict=True)
    marks = alt.Chart(theme.rows(values)).mark_point(filled=True, opacity=1)
    chart: alt.Chart = marks.encode(
        x=x,
        y=y,
        shape=alt.Shape("kind:N").scale(domain=list(kinds), range=list(shapes)),
        color=alt.Color("kind:N").scale(domain=list(kinds), range=list(colours)),
        size=alt.Size("size:Q").scale(None),
        tooltip=list(tooltip),
    )
    return chart


def _labels(values: list[dict[str, Any]], x: alt.X, y: alt.Y, **mark: Any) -> tuple[alt.Chart, ...]:
    """Return the names of values beside their points."""
    return theme.labels(alt.Chart(theme.rows(values)).encode(x=x, y=y, text="name:N"), **mark)
