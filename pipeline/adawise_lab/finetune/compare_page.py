"""The page of a comparison of how many blocks are trained: its table, and accuracy, cost and minutes as figures."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import altair as alt

from adawise.page import Cell, Figure, Key, Line, Section, Table, theme
from adawise.page.render import render
from adawise.text import three, two
from adawise_lab.finetune.comparison import (
    GROUPS,
    HEADERS,
    BlocksComparison,
    BlocksRun,
    caution,
    cells,
    of_folders,
    over_all,
)

_HEIGHT = 240
_SERIES = {
    "known": (theme.FINE_TUNED, "circle"),
    "known, shifted": (theme.BEST_FIXED, "diamond"),
    "unseen": (theme.ZERO_SHOT, "triangle-up"),
    "mean": (theme.SERVED, "square"),
}


def page(comparison: BlocksComparison, command: Sequence[str]) -> str:
    """Return the page as HTML, a function of its arguments alone."""
    sections = (_table(comparison), _figures(comparison))
    chosen = comparison.chosen
    return render(
        "adawise_lab.finetune",
        "comparison.html.j2",
        headline="No pair was judged" if chosen is None else f"Blocks to train: would choose {chosen.name}",
        sentences=[
            comparison.why,
            caution(comparison),
            *comparison.failures,
            f"The choice is yours. {of_folders(comparison)}".rstrip(),
        ],
        contents=[(section.anchor, section.heading) for section in sections],
        command=shlex.join(["adawise", *command]),
        versions={"python": platform.python_version(), **{name: version(name) for name in ("adawise", "torch")}},
        sections=sections,
        specs={figure.anchor: figure.spec for section in sections for figure in section.figures},
        comparison=comparison,
    )


def _table(comparison: BlocksComparison) -> Section:
    lines = tuple(
        Line(
            run.name,
            tuple(Cell(text) for text in (*cells(run), over_all(run))),
            "served" if run is comparison.chosen else "strategy",
        )
        for run in comparison.runs
    )
    return Section(
        "runs",
        "All runs",
        "Accuracies are of what the verdict of the run recommends: adapting, or one alpha. Unseen classes are those "
        "that a rehearsal left out. FE counts evaluations; forward cost counts layers that both models share once an "
        "image. The second alpha is the share of a forward that an image costs there. The last column is the mean less "
        "that of the run that trains all blocks, in points, with its 95 % interval.",
        tables=(Table("Runs by the number of blocks that are trained", "blocks", (*HEADERS, "against all"), lines),),
    )


def _figures(comparison: BlocksComparison) -> Section:
    runs = comparison.runs
    accuracy = [
        {"blocks": run.name, "value": value, "series": series}
        for run in runs
        for series, value in _accuracies(run)
        if value is not None
    ]
    costs = [{"blocks": run.name, "value": run.forward_cost, "series": "mean"} for run in runs if run.forward_cost]
    minutes = [{"blocks": run.name, "value": value, "series": "mean"} for run, value in _of_whole_runs(runs)]
    order = [run.name for run in runs]
    return Section(
        "figures",
        "Accuracy, cost and time",
        "Lines join the runs from all blocks to the fewest.",
        tuple(Key(name, shape, colour) for name, (colour, shape) in _SERIES.items()),
        (
            Figure("accuracy", "Accuracy of what is served", _reading(runs), _chart(accuracy, order, "accuracy")),
            Figure("cost", "Forward cost", _costs(runs), _chart(costs, order, "forwards an image")),
            Figure("minutes", "Minutes of the run", _minutes(runs), _chart(minutes, order, "minutes")),
        ),
    )


def _accuracies(run: BlocksRun) -> Iterator[tuple[str, float | None]]:
    for group, name in GROUPS.items():
        yield name, (run.groups or {}).get(group)
    yield "mean", run.served


def _reading(runs: Sequence[BlocksRun]) -> str:
    served = [f"{run.name} {three(run.served)}" for run in runs if run.served is not None]
    return f"Means over conditions: {', '.join(served)}." if served else "No pair was judged."


def _costs(runs: Sequence[BlocksRun]) -> str:
    costs = [f"{run.name} {two(run.forward_cost)}" for run in runs if run.forward_cost is not None]
    return f"Whole forwards an image: {', '.join(costs)}." if costs else "No pair was judged."


def _minutes(runs: Sequence[BlocksRun]) -> str:
    minutes = [f"{run.name} {value:.1f}" for run, value in _of_whole_runs(runs)]
    return f"With evaluation, rehearsal and card: {', '.join(minutes)}." if minutes else "They are not known."


def _of_whole_runs(runs: Sequence[BlocksRun]) -> Iterator[tuple[BlocksRun, float]]:
    """Yield runs with their minutes; one that failed has stopped early."""
    yield from ((run, run.minutes) for run in runs if run.minutes is not None and not run.failed)


def _chart(values: list[dict[str, Any]], order: Sequence[str], title: str) -> dict[str, Any]:
    names = [name for name in _SERIES if any(value["series"] == name for value in values)] or ["mean"]
    base = alt.Chart(theme.rows(values)).encode(
        x=alt.X("blocks:N", title="blocks that are trained", sort=list(order)).axis(grid=False, labelAngle=0),
        y=alt.Y("value:Q", title=title).scale(zero=False, padding=10),
        color=alt.Color("series:N").scale(domain=names, range=[_SERIES[name][0] for name in names]),
        shape=alt.Shape("series:N").scale(domain=names, range=[_SERIES[name][1] for name in names]),
        tooltip=[alt.Tooltip("blocks:N"), alt.Tooltip("value:Q", title=title, format=".3f"), alt.Tooltip("series:N")],
    )
    return theme.spec(alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1)), height=_HEIGHT)
