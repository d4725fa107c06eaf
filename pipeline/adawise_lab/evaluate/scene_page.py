"""The page's section on the class prior: `scene_label` against the served label, for each strategy and stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from adawise.page import Cell, Figure, Line, Section, Table, theme
from adawise.text import LEVEL, points, points_between, three, two
from adawise_lab.evaluate.advice import difference_cell
from adawise_lab.evaluate.camera import RARE, in_words
from adawise_lab.evaluate.result import Row, SceneFigures
from adawise_lab.evaluate.scatter import FLICKER
from adawise_lab.evaluate.views import View, is_better, is_worse

_ROW = 24  # height of a strategy's row, pixels


def section(among: Sequence[View], shows: str) -> Section:
    """Return the section, with a figure and a table for each view; every view has strategies with a class prior."""
    rare = " A second table has the recall of the classes of 4 %, as the mean over domains." if shows == RARE else ""
    smooths = any(scene.smoothing is not None for view in among for _, scene in view.scenes)
    smoothing = ", and neighbouring frames correct each other (scene.smoothing)" if smooths else ""
    weight = "; smoothing is the weight of what neighbouring frames say, likewise" if smooths else ""
    return Section(
        "scene",
        "What the camera shows, learned",
        f"Beside each strategy, a class prior learns from its predictions which classes a camera shows (scene.prior)"
        f"{smoothing}. "
        f"Here a camera shows {in_words(shows)}. Points are those of scene_label over the served label on the same "
        f"images, with {LEVEL} intervals. The gate is how far the prior's correction is open, from 0 to 1, as the mean "
        f"over batches{weight}. NLL is that of the true class, in nats an image; {FLICKER}.{rare}",
        figures=tuple(_figure(view) for view in among),
        tables=tuple(table for view in among for table in (_table(view), *_rare(view))),
    )


def _figure(view: View) -> Figure:
    values: list[dict[str, Any]] = []
    for row, scene in view.scenes:
        over = scene.over_served
        values.append(
            {
                "strategy": row.strategy,
                "points": 100.0 * over.difference,
                "low": 100.0 * over.ci[0],
                "high": 100.0 * over.ci[1],
                "gate": scene.gate,
            }
        )
    y = alt.Y("strategy:N", title=None).sort([row.strategy for row, _ in view.scenes])
    title = "points of scene_label over the served label"
    data = alt.Chart(theme.rows(values))
    tooltip = [
        alt.Tooltip("strategy:N"),
        alt.Tooltip("points:Q", format="+.1f"),
        alt.Tooltip("gate:Q", format=".2f", title="mean gate"),
    ]
    chart = alt.layer(
        alt.Chart(theme.rows([{"zero": 0}])).mark_rule(color=theme.MUTED).encode(x=alt.X("zero:Q", title=title)),
        data.mark_rule(color=theme.SERVED, strokeWidth=2).encode(y=y, x=alt.X("low:Q", title=title), x2="high:Q"),
        data.mark_point(filled=True, opacity=1, color=theme.SERVED, size=80).encode(
            y=y, x=alt.X("points:Q", title=title), tooltip=tooltip
        ),
    )
    return Figure(f"scene-{view.anchor}", view.name, _reading(view), theme.spec(chart, height=_ROW * len(values)))


def _reading(view: View) -> str:
    row, scene = next((pair for pair in view.scenes if pair[0] is view.served), view.scenes[0])
    over = scene.over_served
    how = "is better than" if is_better(over) else "is worse than" if is_worse(over) else "is not shown to differ from"
    return (
        f"Beside {row.strategy}, scene_label {how} the served label ({points(over.difference)} points, {LEVEL} "
        f"{points_between(over.ci)}); the worst single domain is {scene.worst_domain}, "
        f"{points(scene.worst_domain_gap)} points."
    )


def _table(view: View) -> Table:
    smooths = any(scene.smoothing is not None for _, scene in view.scenes)
    headers = ["served", "scene_label", "− served", "worst domain", "ECE served", "ECE scene"]
    headers += ["NLL served", "NLL scene", "flicker served", "flicker scene", "mean gate"]
    headers += ["mean smoothing"] if smooths else []
    lines = [
        Line(row.strategy, tuple(_cells(row, scene)), "served" if row is view.served else "strategy")
        for row, scene in view.scenes
    ]
    return Table(
        f"{view.name}: accuracy of scene_label and of the served label", "strategy", tuple(headers), tuple(lines)
    )


def _cells(row: Row, scene: SceneFigures) -> list[Cell]:
    cells = [
        Cell(three(row.accuracy)),
        Cell(three(scene.accuracy)),
        difference_cell(scene.over_served),
        Cell(points(scene.worst_domain_gap), note=scene.worst_domain),
        Cell(three(row.ece)),
        Cell(three(scene.ece)),
        Cell(three(row.nll)),
        Cell(three(scene.nll)),
        Cell(three(row.flicker)),
        Cell(three(scene.flicker)),
        Cell(two(scene.gate)),
    ]
    if scene.smoothing is not None:
        cells.append(Cell(two(scene.smoothing)))
    return cells


def _rare(view: View) -> Iterator[Table]:
    """Yield the table of the recall of rare classes, if there is one."""
    lines = [
        Line(
            row.strategy,
            (Cell(three(rare.served)), Cell(three(rare.scene)), difference_cell(rare.over_served)),
            "served" if row is view.served else "strategy",
        )
        for row, scene in view.scenes
        if (rare := scene.rare) is not None
    ]
    if lines:
        headers = ("served", "scene_label", "− served")
        yield Table(f"{view.name}: recall of the rare classes", "strategy", headers, tuple(lines))
