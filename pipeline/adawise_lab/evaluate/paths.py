"""Figures of alpha over batches: what the served strategy followed, how late, and where it looked at other alphas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any

import altair as alt

from adawise.page import Figure, Key, Section, theme
from adawise.text import counted, two
from adawise_lab.evaluate.result import PathRow, Result
from adawise_lab.evaluate.views import View

_HEIGHT = 190
_NAMED_BANDS = 40  # more names than this are illegible
_NEAR = 0.1
_LINES = ("served alpha", "mean of all seeds", "best alpha")
_COLOURS = (theme.SERVED, theme.ORACLE, theme.BEST_FIXED)
_DASHES = ([1, 0], [1, 0], [5, 3])


def section(among: Sequence[View], result: Result) -> Section:
    """Return the section, with a figure for each view, of the first seed."""
    shown = tuple(_figure(view, result) for view in among)
    return Section(
        "paths",
        "Alpha over batches",
        f"The alpha that {among[0].served_name} served, batch by batch, for the first seed. A band is one visit to "
        "a domain; the dashed line is the alpha that is best on all images of that domain (on smooth streams, of "
        "that mixture).",
        _legend(among),
        shown,
    )


def _figure(view: View, result: Result) -> Figure:
    mine = [p for p in result.paths if (p.strategy, p.stream, p.order) == (view.served_name, view.stream, view.order)]
    first = min((p.seed for p in mine), default=0)
    path = [p for p in mine if p.seed == first]
    best = [_best(p, result) for p in path]
    x = alt.X("batch:Q", title="batch").scale(domain=(0, max(len(path), 1)), nice=False).axis(grid=False)
    y = (
        alt.Y("alpha:Q", title="alpha")
        .scale(domain=(-0.06, 1.0), nice=False)
        .axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f")
    )
    lines = [*_line(_LINES[0], path, [p.alpha for p in path]), *_line(_LINES[2], path, best)]
    if view.stream == "smooth":
        lines += _line(_LINES[1], path, _means(mine, len(path)))
    drawn = [name for name in _LINES if any(line["line"] == name for line in lines)] or [_LINES[0]]
    colours, dashes = ([kind[_LINES.index(name)] for name in drawn] for kind in (_COLOURS, _DASHES))
    chart = alt.layer(
        *_bands(path, x),
        alt.Chart(theme.rows(lines))
        .mark_line(interpolate="step-after", strokeWidth=1.6)
        .encode(
            x=x,
            y=y,
            detail="part:N",
            color=alt.Color("line:N").scale(domain=drawn, range=colours),
            strokeDash=alt.StrokeDash("line:N").scale(domain=drawn, range=dashes),
        ),
        alt.Chart(theme.rows([_probe(p) for p in path if p.forward_equivalents > 1.0]))
        .mark_tick(color=theme.INK, thickness=1, size=7, opacity=0.7, orient="vertical")
        .encode(
            x=x,
            y=alt.Y("alpha:Q").title("alpha"),
            tooltip=[
                *(alt.Tooltip("number:Q", title="batch"), "why:N", alt.Tooltip("fe:Q", title="FE", format=".2f")),
                alt.Tooltip("cost:Q", title="forward cost", format=".2f"),
            ],
        ),
    )
    spec = theme.spec(chart, height=_HEIGHT)
    return Figure(f"path-{view.anchor}", view.name, _reading(view, path, best), spec, wide=True)


def _legend(among: Sequence[View]) -> tuple[Key, ...]:
    keys = [Key(name, "dashes" if name == _LINES[2] else "line", c) for name, c in zip(_LINES, _COLOURS, strict=True)]
    if all(view.stream != "smooth" for view in among):
        keys.pop(1)
    return (*keys, Key("other alphas were probed", "tick", theme.INK))


def _best(p: PathRow, result: Result) -> float:
    """Return the best alpha for a batch; nan if the batch mixes domains and it is unknown."""
    if p.best_alpha is not None:
        return p.best_alpha
    return result.domains[p.domain].best_alpha if p.domain else math.nan


def _line(name: str, path: Sequence[PathRow], alphas: Sequence[float]) -> list[dict[str, Any]]:
    """Return the points of a line, split by stream: the alpha of a stream does not continue from the one before."""
    points = [
        {"line": name, "batch": p.batch, "alpha": alpha, "part": p.number}
        for p, alpha in zip(path, alphas, strict=True)
        if not math.isnan(alpha)
    ]
    ends = [{**a, "batch": b["batch"]} for a, b in pairwise(points) if a["part"] != b["part"]]
    last = [{**points[-1], "batch": path[-1].batch + 1}] if points else []
    return [*points, *ends, *last]


def _probe(p: PathRow) -> dict[str, Any]:
    cost = {"fe": p.forward_equivalents, "cost": p.forward_cost}
    return {"batch": p.batch + 0.5, "number": p.batch, "alpha": -0.035, "why": p.trigger, **cost}


def _means(paths: Sequence[PathRow], batches: int) -> list[float]:
    """Return the mean over seeds for each batch, as the lag is measured on it."""
    found: list[list[float]] = [[] for _ in range(batches)]
    for p in paths:
        if p.batch < batches:
            found[p.batch].append(p.alpha)
    return [fmean(alphas) for alphas in found]


def _bands(path: Sequence[PathRow], x: alt.X) -> list[alt.Chart]:
    """Return one band for each visit, every second one shaded, with names as long as there is room for them."""
    visits = [list(visit) for _, visit in groupby(path, key=lambda p: (p.number, p.domain))]
    if len(visits) < 2 or not all(p.domain for p in path):
        return []
    bands = [
        {"batch": v[0].batch, "end": v[-1].batch + 1, "domain": v[0].domain, "shade": "band" if i % 2 else "none"}
        for i, v in enumerate(visits)
    ]
    rects = (
        alt.Chart(theme.rows(bands))
        .mark_rect()
        .encode(
            x=x,
            x2="end:Q",
            color=alt.condition("datum.shade == 'band'", alt.value(theme.BAND), alt.value("transparent")),
            tooltip=[alt.Tooltip("domain:N"), alt.Tooltip("batch:Q", title="from batch")],
        )
    )
    if len(bands) > _NAMED_BANDS:
        return [rects]
    names = alt.Chart(theme.rows(bands)).encode(x=x, y=alt.value(0), text="domain:N")
    upright = names.mark_text(
        angle=270, align="right", baseline="top", dx=-3, dy=3, fontSize=10, color=theme.MUTED, limit=150
    )
    return [rects, upright]


def _reading(view: View, path: Sequence[PathRow], best: Sequence[float]) -> str:
    row = view.served
    if view.stream == "smooth":
        if row.lag_batches is None:
            return f"{row.strategy} does not follow the best alpha of this slow change."
        lag = counted(int(row.lag_batches), "batch", "batches")
        return f"{row.strategy} follows the best alpha {lag} behind, {two(row.path_error)} of alpha from it on average."
    probed = sum(p.forward_equivalents > 1.0 for p in path)
    probes = f"probed other alphas in {probed:,} of {counted(len(path), 'batch', 'batches')}"
    differences = [abs(p.alpha - b) for p, b in zip(path, best, strict=True) if not math.isnan(p.alpha - b)]
    if not differences:
        return f"{row.strategy} {probes}."
    near = sum(a <= _NEAR + 1e-9 for a in differences) / len(differences)
    return (
        f"{row.strategy} was within {two(_NEAR)} of the domain's best alpha in {near:.0%} of the batches and {probes}."
    )
