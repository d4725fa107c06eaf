"""Accuracy by domain and by group: the mean may hide that one kind of image gains and another loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.text import listed, points, three
from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FINE_TUNED, MIDDLE, SPLIT_HALF_ORACLE, ZERO_SHOT
from adawise_lab.evaluate.result import Result
from adawise_lab.evaluate.views import View, display_name

_SERVED = "served"
_SERIES = {  # name -> shape, colour
    ZERO_SHOT: ("triangle-left", theme.ZERO_SHOT),
    FINE_TUNED: ("triangle-right", theme.FINE_TUNED),
    MIDDLE: ("circle", theme.MUTED),
    BEST_FIXED: ("diamond", theme.BEST_FIXED),
    _SERVED: ("square", theme.SERVED),
    DOMAIN_ORACLE: ("triangle-up", theme.ORACLE),
    SPLIT_HALF_ORACLE: ("cross", theme.ORACLE),
}
_ROW = 24  # height of a domain's row, pixels
_NAMED = 3  # domains that a sentence names


def section(among: Sequence[View], result: Result) -> Section:
    """Return the section, with two figures and up to two tables for each view."""
    figures: list[Figure] = []
    tables: list[Table] = []
    for view in among:
        domains = sorted(view.served.domains, key=lambda name: _place(name, result))
        figures += [_accuracies(view, domains), _gains(view, domains)]
        tables += [*([_groups(view)] if len(view.served.groups) > 1 else []), _numbers(view, domains, result)]
    return Section(
        "domains",
        "By domain and by group",
        f"Served is {among[0].served_name}. The oracle uses the best alpha on all images of a domain and is judged "
        "on the same images, so it is optimistic; the split-half oracle chooses on one half and is judged on the "
        "other. Bars are served minus the best fixed alpha, ticks the split-half oracle minus it. Single domains "
        "and groups carry no interval: a difference of a few points may be chance.",
        tuple(Key(display_name(name), shape, colour) for name, (shape, colour) in _SERIES.items()),
        tuple(figures),
        tuple(tables),
    )


def _place(name: str, result: Result) -> tuple[int, str]:
    """Return the sort key of a domain: groups in the order in which they first come, domains by name."""
    groups = list(dict.fromkeys(facts.group for facts in result.domains.values()))
    return groups.index(result.domains[name].group), name


def _series(view: View) -> dict[str, Mapping[str, float]]:
    """Return accuracy by domain of the served strategy and of each reference."""
    return {name: (view.served if name == _SERVED else view.reference(name)).domains for name in _SERIES}


def _accuracies(view: View, domains: Sequence[str]) -> Figure:
    series = _series(view)
    values = [
        {"domain": d, "accuracy": accuracies[d], "which": display_name(name)}
        # so that it is below the others
        for name, accuracies in sorted(series.items(), key=lambda item: item[0] != _SERVED)
        for d in domains
    ]
    names = [display_name(name) for name in _SERIES]
    y = alt.Y("domain:N", title=None).sort(list(domains))
    x = alt.X("accuracy:Q", title="accuracy").scale(zero=False)
    chart = alt.layer(
        alt.Chart(theme.rows(values))
        .mark_rule(color=theme.LINES, strokeWidth=2)
        .encode(y=y, x=alt.X("min(accuracy):Q").title("accuracy").scale(zero=False), x2="max(accuracy):Q"),
        alt.Chart(theme.rows(values))
        .mark_point(filled=True, opacity=1)
        .encode(
            y=y,
            x=x,
            shape=alt.Shape("which:N").scale(domain=names, range=[shape for shape, _ in _SERIES.values()]),
            color=alt.Color("which:N").scale(domain=names, range=[colour for _, colour in _SERIES.values()]),
            size=alt.condition("datum.which == 'served'", alt.value(110), alt.value(55)),
            tooltip=[alt.Tooltip("domain:N"), alt.Tooltip("which:N"), alt.Tooltip("accuracy:Q", format=".3f")],
        ),
    )
    gap = {d: series[SPLIT_HALF_ORACLE][d] - series[_SERVED][d] for d in domains}
    near = sum(value <= 0.01 for value in gap.values())
    farthest = max(domains, key=lambda d: gap[d])
    reading = (
        f"{view.served_name} comes within one point of the split-half oracle on {near} of {len(domains)} domains; "
        f"the farthest is {farthest}, {points(-gap[farthest])} points."
    )
    return Figure(f"domains-{view.anchor}", f"{view.name}: accuracy", reading, _spec(chart, domains))


def _gains(view: View, domains: Sequence[str]) -> Figure:
    series = _series(view)
    over = {d: series[_SERVED][d] - series[BEST_FIXED][d] for d in domains}
    values: list[dict[str, Any]] = [
        {
            "domain": d,
            "gain": 100.0 * over[d],
            "possible": 100.0 * (series[SPLIT_HALF_ORACLE][d] - series[BEST_FIXED][d]),
            "sign": "loses" if over[d] < 0.0 else "gains",
        }
        for d in domains
    ]
    y = alt.Y("domain:N", title=None).sort(list(domains))
    title = "points over best fixed"
    colour = alt.Color("sign:N").scale(domain=["gains", "loses"], range=[theme.ZERO_SHOT, theme.FINE_TUNED])
    tooltip = [
        alt.Tooltip("domain:N"),
        alt.Tooltip("gain:Q", format="+.1f", title="served, points"),
        alt.Tooltip("possible:Q", format="+.1f", title="split-half oracle, points"),
    ]
    chart = alt.layer(
        alt.Chart(theme.rows(values))
        .mark_bar(height=12)
        .encode(y=y, x=alt.X("gain:Q", title=title), color=colour, tooltip=tooltip),
        alt.Chart(theme.rows(values))
        .mark_tick(color=theme.ORACLE, thickness=3, size=18, opacity=1)
        .encode(y=y, x=alt.X("possible:Q", title=title), tooltip=tooltip),
        alt.Chart(theme.rows([{"zero": 0}])).mark_rule(color=theme.MUTED).encode(x=alt.X("zero:Q", title=title)),
    )
    anchor = f"gains-{view.anchor}"
    name = f"{view.name}: points over best fixed"
    return Figure(anchor, name, _gains_reading(view, over), _spec(chart, domains))


def _spec(chart: theme.Layers, domains: Sequence[str]) -> dict[str, Any]:
    return theme.spec(chart, height=_ROW * len(domains))


def _gains_reading(view: View, over: Mapping[str, float]) -> str:
    gained = sorted((d for d in over if over[d] > 0.0), key=lambda d: -over[d])
    lost = sorted((d for d in over if over[d] < 0.0), key=lambda d: over[d])
    parts = [f"{view.served_name} is above the best fixed alpha on {len(gained)} of {len(over)} domains"]
    for what, some in (("most", gained), ("farthest below", lost)):
        if some:
            parts.append(f"{what} on {listed(f'{d} ({points(over[d])})' for d in some[:_NAMED])}")
    return ", ".join(parts) + "."


def _groups(view: View) -> Table:
    """Build the table of each strategy and reference by group."""
    groups = list(view.served.groups)
    lines = []
    for row in (*view.strategies, *(view.reference(name) for name in _SERIES if name != _SERVED)):
        found = [row.groups[group] for group in groups]
        cells = [Cell(three(g.accuracy), note=points(g.versus.get(BEST_FIXED))) for g in found]
        kind = "reference" if row.reference else "served" if row is view.served else "strategy"
        lines.append(Line(display_name(row.strategy), tuple(cells), kind))
    caption = f"{view.name}: accuracy by group, and points over best fixed"
    return Table(caption, "strategy", tuple(groups), tuple(lines))


def _numbers(view: View, domains: Sequence[str], result: Result) -> Table:
    series = _series(view)
    headers = ("group", "images", *(display_name(name) for name in _SERIES), "best alpha")
    lines = [
        Line(
            d,
            (
                Cell(result.domains[d].group),
                Cell(f"{result.domains[d].images:,}"),
                *(Cell(three(series[name][d])) for name in _SERIES),
                Cell(f"{result.domains[d].best_alpha:g}"),
            ),
        )
        for d in domains
    ]
    return Table(f"{view.name}: accuracy by domain", "domain", headers, tuple(lines), folded=True)
