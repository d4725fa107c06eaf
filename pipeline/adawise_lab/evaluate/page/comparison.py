"""The table of strategies, one for each view: everything that was measured, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from adawise.page.blocks import Cell, Line, Section, Table
from adawise.page.notation import NOTHING, points, points_between, three, two
from adawise_lab.evaluate.page.notation import spoken
from adawise_lab.evaluate.page.views import View, is_better, is_worse
from adawise_lab.evaluate.references import DOMAIN_ORACLE, FIXED
from adawise_lab.evaluate.result import Difference, Row, ToldShare


def section(among: Sequence[View]) -> Section:
    """Return the section, with a table for each view."""
    return Section(
        "strategies",
        "All strategies",
        "Accuracy is the mean over domains of equal weight. Differences are in points, on the same images, with 95 "
        "% intervals: ▲ better, ▼ worse, = no difference shown (the interval contains 0). Worst domain: points "
        "from the better endpoint where that is least. Pinned: share of batches at alpha 0 or 1. Oracles see the "
        "labels. Way: how far warm comes from warm without pixels to an oracle, which knows the condition, in "
        "accuracy by the domains' curves.",
        tables=tuple(_table(view) for view in among),
    )


def difference_cell(difference: Difference | None) -> Cell:
    """Return a cell with points, their interval, and a mark for what the interval shows."""
    if difference is None:
        return Cell("")
    mark = "better" if is_better(difference) else "worse" if is_worse(difference) else "same"
    return Cell(points(difference.difference), mark, points_between(difference.ci))


def _table(view: View) -> Table:
    rows = (*view.strategies, *view.references)
    followed = view.stream == "smooth"
    told = list(dict.fromkeys(name for row in rows for name in row.way))
    headers = ["accuracy", "FE", *(f"− {spoken(name)}" for name in FIXED), f"− {spoken(DOMAIN_ORACLE)}"]
    headers += ["worst domain", "ECE", "ECE pooled", "NLL", "alpha", "pinned", *(("lag, batches",) if followed else ())]
    headers += [f"way to {spoken(name)}" for name in told]
    lines = [Line(spoken(row.strategy), tuple(_cells(row, followed, told)), _kind(row, view)) for row in rows]
    seeds = view.served.seeds
    caption = f"{view.name}, {seeds} seed{'s' * (seeds > 1)}, {view.served.images:,} images served by each strategy"
    return Table(caption, "strategy", tuple(headers), tuple(lines))


def _kind(row: Row, view: View) -> str:
    return "reference" if row.reference else "served" if row.strategy == view.served_name else "strategy"


def _cells(row: Row, followed: bool, told: Sequence[str]) -> list[Cell]:
    low, high = row.accuracy_ci
    oracle = row.versus.get(DOMAIN_ORACLE)
    cells = [
        Cell(three(row.accuracy), note=f"{three(low)} to {three(high)}"),
        Cell(two(row.fe)),
        *(difference_cell(row.versus.get(name)) for name in FIXED),
        Cell("" if oracle is None else points(oracle.difference)),
        Cell(points(row.worst_domain_gap), note=row.worst_domain),
        Cell(three(row.ece)),
        Cell(three(row.ece_pooled)),
        Cell(three(row.nll)),
        Cell(two(row.alpha)),
        Cell(NOTHING if row.pinned is None else f"{row.pinned:.0%}"),
    ]
    if followed:
        cells.append(Cell(NOTHING if row.lag_batches is None else f"{row.lag_batches:g}"))
    return [*cells, *(_way_cell(row.way.get(name)) for name in told)]


def _way_cell(way: ToldShare | None) -> Cell:
    if way is None or way.share is None or way.ci is None:
        return Cell("" if way is None else NOTHING)
    return Cell(f"{way.share:.0%}", note=f"{way.ci[0]:.0%} to {way.ci[1]:.0%}")
