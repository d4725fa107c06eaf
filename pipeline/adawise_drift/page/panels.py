"""The figures of a camera over time: what is drawn in each, written once for all cameras; the script fills in the data.

A panel is a Vega-Lite specification over the data sets `points`, `levels`, `events`, `spans`, `silences` and
`accuracy_measured` (`_confidence`, `_agreement`), `calendar`. The
parameters `since`, `until` and `at` (milliseconds) are the span that is shown and the moment that is pointed at: the
script moves them together in all panels of a camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adawise.page import Key, theme
from adawise.text import LEVEL

Name = Literal[
    "alpha", "overall", "calendar", "conditions", "accuracy", "objective", "answers", "picture", "rate", "cost",
    "rejects",
]  # fmt: skip
_Layer = dict[str, Any]

_AXIS = 44  # pixels to the left of every panel, so that their times stand below each other
_BAR = 5
DASHES = {"dashes": [6, 3], "dash-dot": [10, 2, 2, 2], "dots": [2, 2]}
"""Lengths of strokes and gaps by the shape of a line."""
_CLOCK = (
    "utcFormat(datum.value, utcseconds(datum.value) ? '%H:%M:%S' : "
    "utchours(datum.value) || utcminutes(datum.value) ? '%H:%M' : '%b %d')"
)
_STEPS = {"interpolate": "step-after", "clip": True}


@dataclass(frozen=True)
class Column:
    """A value that is shown of the moment pointed at; `digits` after the point, `until` the upper end of a range."""

    name: str
    title: str
    digits: int = 2
    until: str = ""


@dataclass(frozen=True)
class Panel:
    """A drawing of the page.

    `query` made the columns that it draws. It is drawn if one of the columns in `needs` is known; if there are none, it
    is drawn where there is a sentence to it. Events of its `measures` are marked in it.
    """

    name: Name
    title: str
    query: str
    needs: tuple[str, ...]
    columns: tuple[Column, ...]
    legend: tuple[Key, ...]
    spec: dict[str, Any]
    measures: tuple[str, ...] = ()


def panels() -> tuple[Panel, ...]:
    """Return the panels in the order in which they are drawn."""
    of_batches = (_objective(), _answers(), _picture(), _rate(), _cost(), _rejects())
    return (alpha("alpha"), alpha("overall"), *_calendars(), _accuracy(), *of_batches)


def alpha(name: Literal["alpha", "overall"], *, height: int = 200) -> Panel:
    """Return the panel of alpha; levels, events and silences are of one camera."""
    layers = [
        _area("tried_low", "tried_high", theme.TRIED),
        _area("alpha_low", "alpha_high", theme.RANGE),
        {
            "data": {"name": "levels"},
            "mark": {"type": "rule", "color": theme.LEVEL, "strokeWidth": 4, "opacity": 0.75, "clip": True},
            "encoding": {**_x("since"), "x2": {"field": "until"}, "y": _y("alpha")},
        },
        _line("alpha", theme.INK),
    ]
    y = {"scale": {"domain": [0, 1], "nice": False}, "axis": _axis("alpha", values=[0, 0.25, 0.5, 0.75, 1])}
    keys = (
        Key("served, mean", "line", theme.INK),
        Key("served, lowest to highest", "band", theme.RANGE),
        Key("tried, lowest to highest", "band", theme.TRIED, "tried_low"),
    )
    own = (
        Key("level between changes", "thick", theme.LEVEL, "levels"),
        Key("no images", "bar", theme.MUTED, "silences"),
    )
    return Panel(
        name,
        "Alpha",
        "series",
        ("alpha",),
        (
            Column("alpha", "alpha, mean"),
            Column("alpha_low", "served", until="alpha_high"),
            Column("tried_low", "tried", until="tried_high"),
            Column("images", "images", 0),
        ),
        (*keys, *own) if name == "alpha" else keys,
        _spec(layers, y, height=height),
        ("alpha", "model"),
    )


def _calendars() -> Iterator[Panel]:
    """Yield the panels of conditions: a day is a column of its hours, a time of few days one strip.

    Colours are the script's.
    """
    scale = {"domain": [0, 24], "nice": False, "reverse": True}
    of_day = {"scale": scale, "axis": _axis("hour", values=[0, 6, 12, 18, 24], grid=False)}
    of_all = {"scale": scale, "axis": _axis("\u00a0", values=[], domain=False)}
    styles: tuple[tuple[Name, dict[str, Any], int], ...] = (("calendar", of_day, 120), ("conditions", of_all, 24))
    for name, y, height in styles:
        across = {**_x("since"), "x2": {"field": "until"}, "y": _y("low"), "y2": {"field": "high"}}
        colour = {"color": {"field": "colour", "type": "nominal", "scale": None}}
        mark = {"type": "rect", "clip": True, "strokeWidth": 0}
        layer: _Layer = {"data": {"name": "calendar"}, "mark": mark, "encoding": {**across, **colour}}
        columns = (Column("condition", "condition"),)
        yield Panel(name, "Calendar", "calendar", (), columns, (), _spec([layer], y, height=height))


def _accuracy() -> Panel:
    """Return the panel of accuracy, of data sets of its own: a point is as wide as it has to be."""
    styles: tuple[tuple[str, str, str, str, list[int], str], ...] = (
        ("agreement", "estimated from the agreement of the endpoints", theme.ORACLE, "", [2, 2], "dots"),
        ("confidence", "estimated from confidence", theme.INK, theme.TRIED, [6, 3], "dashes"),
        ("measured", "measured by labels", theme.SERVED, theme.RANGE, [], "thick"),
    )
    bands, lines, keys, columns = list[_Layer](), list[_Layer](), list[Key](), list[Column]()
    for how, title, colour, band, dash, shape in styles:
        name = f"accuracy_{how}"
        across: _Layer = {"data": {"name": name}, "encoding": {**_x("since"), "x2": {"field": "until"}}}
        rule = {"type": "rule", "color": colour, "strokeDash": dash, "strokeWidth": 2 if dash else 3, "clip": True}
        lines.append({**across, "mark": rule, "encoding": {**across["encoding"], "y": _y("accuracy")}})
        keys.insert(0, Key(title, shape, colour, name))
        columns[:0] = [Column(name, title), Column(f"{name}_low", f"  {LEVEL} within", until=f"{name}_high")]
        if band:
            ends = {**across["encoding"], "y": _y("low"), "y2": {"field": "high"}}
            bands.append({**across, "mark": {"type": "rect", "color": band, "clip": True}, "encoding": ends})
            keys.insert(1, Key(f"{LEVEL} band", "band", band, name))
    y = {"scale": {"zero": False, "domainMax": 1.02}, "axis": _axis("share", tickCount=4)}  # a line at 1 has its width
    return Panel(
        "accuracy",
        "Accuracy",
        "events",
        (),
        tuple(columns),
        tuple(keys),
        _spec([*bands, *lines], y, height=140),
        ("accuracy",),
    )


def _objective() -> Panel:
    layers = [
        _area("objective_low", "objective_high", theme.RANGE),
        _line("reference", theme.BEST_FIXED, dash=[5, 3]),
        _line("objective", theme.INK),
    ]
    y = {"scale": {"zero": False, "nice": True}, "axis": _axis("nats")}
    return Panel(
        "objective",
        "Objective at the served alpha",
        "series",
        ("objective", "reference"),
        (
            Column("objective", "objective, mean", 3),
            Column("posterior_sd", "posterior sd", 3),
            Column("reference", "card's reference", 3),
        ),
        (
            Key("mean", "line", theme.INK, "objective"),
            Key("± posterior sd", "band", theme.RANGE, "objective_low"),
            Key("the card's reference", "dashes", theme.BEST_FIXED, "reference"),
        ),
        _spec(layers, y, height=120),
        ("objective",),
    )


def _answers() -> Panel:
    y = {"scale": {"zero": False, "domainMax": 1}, "axis": _axis("share", tickCount=4)}
    lines = (
        ("endpoints_agree", "zero-shot = fine-tuned", theme.ORACLE, "dots"),
        ("confidence", "confidence, mean", theme.INK, "line"),
    )
    measures = ("confidence", "agreement", "mix")
    return _of_lines("answers", "Confidence and agreement", "series", lines, y, measures, digits=3)


def _picture() -> Panel:
    y = {"scale": {"type": "log", "nice": False}, "axis": _axis("× median", tickCount=4)}
    lines = (
        ("colourfulness", "colour", theme.ORACLE, "dots"),
        ("laplacian", "fine texture or noise", theme.ZERO_SHOT, "dashes"),
        ("gradient", "sharpness", theme.FINE_TUNED, "dash-dot"),
        ("contrast", "contrast", theme.LEVEL, "thick"),
        ("luminance", "brightness", theme.INK, "line"),
    )
    title = "Appearance, each statistic in multiples of its median"
    return _of_lines("picture", title, "events", lines, y, ("brightness", "contrast", "sharpness", "noise", "colour"))


def _of_lines(
    name: Name, title: str, query: str, lines: Sequence[tuple[str, str, str, str]], y: dict[str, Any],
    measures: tuple[str, ...], *, digits: int = 2,
) -> Panel:  # fmt: skip
    """Return a panel of lines (column, title, colour, shape), the last of which is drawn above the others."""
    return Panel(
        name,
        title,
        query,
        tuple(column for column, *_ in lines),
        tuple(Column(column, words, digits) for column, words, *_ in reversed(lines)),
        tuple(Key(words, shape, colour, column) for column, words, colour, shape in reversed(lines)),
        _spec(
            [
                _line(column, colour, dash=DASHES.get(shape, []), width=2.4 if shape == "thick" else 1.2)
                for column, _, colour, shape in lines
            ],
            y,
            height=130,
        ),
        measures,
    )


def _rate() -> Panel:
    y = {"scale": {"domainMin": 0, "nice": True}, "axis": _axis("images", tickCount=3, format="~s")}
    columns, spec = (Column("images", "images", 0),), _spec([_line("images", theme.INK)], y, height=70)
    return Panel("rate", "Images served in each point", "series", ("images",), columns, (), spec, ("rate",))


def _cost() -> Panel:
    y = {"scale": {"zero": False, "nice": True}, "axis": _axis("FE", tickCount=3)}
    columns = (Column("forward_equivalents", "FE"), Column("batches", "batches", 0))
    title, needs = "Cost: forwards per image (FE)", ("forward_equivalents",)
    spec = _spec([_line("forward_equivalents", theme.INK)], y, height=70)
    return Panel("cost", title, "series", needs, columns, (), spec, ("forwards",))


def _rejects() -> Panel:
    y = {"scale": {"domainMin": 0, "nice": True}, "axis": _axis("images", tickCount=3, format="~s")}
    area = {
        "mark": {"type": "area", "color": theme.FINE_TUNED, "opacity": 0.85, **_STEPS},
        "encoding": {**_x("t"), "y": _y("rejected")},
    }
    columns = (Column("rejected", "rejected", 0), Column("images", "images served", 0))
    spec = _spec([area], y, height=70)
    return Panel("rejects", "Rejected images", "series", ("rejected",), columns, (), spec, ("rejects",))


def _spec(layers: Sequence[_Layer], y: dict[str, Any], *, height: int) -> dict[str, Any]:
    layered: list[_Layer] = [*_silences(height), *layers, *_events(), _pointer()]
    for layer in layered:
        encoding = layer["encoding"]
        if "field" in encoding.get("y", {}):
            encoding["y"] = {**encoding["y"], **y}
    return {
        "width": "container",
        "height": height,
        "params": [{"name": name, "value": 0} for name in ("since", "until")] + [{"name": "at", "value": None}],
        "data": {"name": "points"},
        "layer": layered,
        "config": theme.CONFIG,
    }


def _silences(height: int) -> Iterator[_Layer]:
    """Yield silences shaded, and as a bar along the time, which is seen where shades are not."""
    for colour, top in ((theme.BAND, 0), (theme.MUTED, height - _BAR)):
        yield {
            "data": {"name": "silences"},
            "mark": {"type": "rect", "color": colour, "clip": True},
            "encoding": {**_x("since"), "x2": {"field": "until"}, "y": {"value": top}, "y2": {"value": height}},
        }


def _events() -> Iterator[_Layer]:
    """Yield events: a line where one begins, its sign and number above the figure, a bar as long as it lasts."""
    colour = {"color": {"field": "colour", "type": "nominal", "scale": None}}
    yield {
        "data": {"name": "spans"},
        "mark": {"type": "rect", "clip": True, "opacity": 0.5},
        "encoding": {**_x("at"), "x2": {"field": "until"}, "y": {"value": 0}, "y2": {"value": _BAR}, **colour},
    }
    yield {
        "data": {"name": "events"},
        "mark": {"type": "rule", "strokeDash": [3, 3], "clip": True},
        "encoding": {**_x("at"), **colour},
    }
    yield {
        "data": {"name": "events"},
        "mark": {"type": "text", "fontSize": 11, "fontWeight": "bold", "dy": -7},
        "encoding": {**_x("at"), "y": {"value": 0}, "text": {"field": "mark"}, "opacity": _within(), **colour},
    }


def _within() -> dict[str, Any]:
    """Return an opacity of 0 outside the span that is shown: a word above the figure cannot be clipped to it."""
    return {"condition": {"test": "datum.at >= since && datum.at <= until", "value": 1}, "value": 0}


def _pointer() -> _Layer:
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": theme.INK, "opacity": {"expr": "at === null ? 0 : 0.6"}, "clip": True},
        "encoding": {"x": {"datum": {"expr": "at === null ? since : at"}, **_time()}},
    }


def _line(name: str, colour: str, *, dash: Sequence[int] = (), width: float = 1.2) -> _Layer:
    mark = {"type": "line", "color": colour, "strokeWidth": width, "strokeDash": list(dash), "strokeCap": "round"}
    return {"mark": {**mark, **_STEPS}, "encoding": {**_x("t"), "y": _y(name)}}


def _area(low: str, high: str, colour: str) -> _Layer:
    encoding = {**_x("t"), "y": _y(low), "y2": {"field": high}}
    return {"mark": {"type": "area", "color": colour, "opacity": 1, **_STEPS}, "encoding": encoding}


def _x(field: str) -> dict[str, Any]:
    return {"x": {"field": field, **_time()}}


def _time() -> dict[str, Any]:
    ends = {"domainMin": {"expr": "since"}, "domainMax": {"expr": "until"}}
    return {
        "type": "temporal",
        "scale": {"type": "utc", "nice": False, **ends},
        "axis": {"title": None, "grid": False, "labelOverlap": True, "tickCount": 8, "labelExpr": _CLOCK},
    }


def _y(field: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative"}


def _axis(title: str, **given: Any) -> dict[str, Any]:
    return {
        "title": title,
        "minExtent": _AXIS,
        "maxExtent": _AXIS,
        "titlePadding": 4,
        "format": ".2~f",
        "labelExpr": theme.WITHOUT_ZERO,
        **given,
    }
