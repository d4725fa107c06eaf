"""The advice in three sentences: against the best fixed alpha, against the endpoints, and where it gains at what cost.

A sentence says better or worse only if the whole 95 % interval lies on one side of 0.

The tables of strategies have everything that was measured, with intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from adawise.page import Cell, Line, Section, Table
from adawise.text import LEVEL, NOTHING, listed, points, points_between, three, two
from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FIXED
from adawise_lab.evaluate.result import Difference, OracleShare, Row
from adawise_lab.evaluate.views import View, display_name, headline, is_better, is_worse

_WITH_INTERVALS = 2  # differences that a sentence lists one by one; the table has them all


@dataclass(frozen=True)
class EvaluationAdvice:
    """The advice. `headline` is the shortest form of the first sentence; `table` has the numbers of all sentences."""

    headline: str
    sentences: tuple[str, str, str]
    table: Table


def advise(among: Sequence[View]) -> EvaluationAdvice:
    """Return the advice from all views together."""
    sentences = (_against_best_fixed(among), _against_endpoints(among), _where_and_cost(among))
    return EvaluationAdvice(_headline(among), sentences, _table(among))


def _headline(among: Sequence[View]) -> str:
    better = sum(is_better(view.over_best_fixed) for view in among)
    worse = sum(is_worse(view.over_best_fixed) for view in among)
    if better == len(among):
        return "Adapting alpha helps here"
    if worse == len(among):
        return "The best fixed alpha is better here"
    if better and worse:
        return "Adapting alpha helps on some streams here, and loses on others"
    if better:
        return "Adapting alpha helps on some streams here; on the others no difference is shown"
    if worse:
        return "Adapting alpha loses on some streams here; on the others no difference is shown"
    return "A fixed alpha is as good here: no difference is shown"


def _against_best_fixed(among: Sequence[View]) -> str:
    text = _compared(among, lambda view: view.over_best_fixed)
    return f"Against the best fixed alpha in hindsight, {text}."


def _against_endpoints(among: Sequence[View]) -> str:
    text = _compared(among, lambda view: view.over_better_endpoint)
    return f"Against the better of zero-shot and fine-tuned, {text}; {_worst_domain(among)}."


def _compared(among: Sequence[View], difference: Callable[[View], Difference]) -> str:
    over = [(view, difference(view)) for view in among]
    better = [(view, d) for view, d in over if is_better(d)]
    worse = [(view, d) for view, d in over if is_worse(d)]
    same = [(view, d) for view, d in over if not is_better(d) and not is_worse(d)]
    parts = [
        f"{subject} {_on(some, len(among))}"
        for subject, some in (
            (f"{among[0].served_name} is better", better),
            (f"{among[0].served_name} is worse", worse),
            ("no difference is shown", same),
        )
        if some
    ]
    return "; ".join(parts)


def _on(some: Sequence[tuple[View, Difference]], of: int) -> str:
    """Name the views and the differences on them; with their intervals if they are few."""
    if len(some) <= _WITH_INTERVALS:
        return "on " + listed(
            f"{v.name} ({points(d.difference)} points, {LEVEL} {points_between(d.ci)})" for v, d in some
        )
    least, most = (points(extreme(d.difference for _, d in some)) for extreme in (min, max))
    names = f"all {of} kinds of stream" if len(some) == of else listed(view.name for view, _ in some)
    return f"on {names} ({least} to {most} points)"


def _worst_domain(among: Sequence[View]) -> str:
    view = min(among, key=lambda view: view.served.worst_domain_gap)
    gap, domain = view.served.worst_domain_gap, view.served.worst_domain
    if gap >= 0.0:
        return "on no single domain is it below that domain's better endpoint"
    return f"the worst single domain is {domain} on {view.name}, {points(gap)} points from its better endpoint"


def _where_and_cost(among: Sequence[View]) -> str:
    view = headline(among)
    cost = f"{_range(view.served.forward_cost for view in among)} forwards an image"
    if view.shares_layers:
        cost += f" (FE {_range(view.served.fe for view in among)})"
    gains = {group: row.versus[BEST_FIXED] for group, row in view.served.groups.items()}
    if len(gains) < 2:
        alpha = two(view.reference(BEST_FIXED).alpha)
        return f"It costs {cost}; the best fixed alpha ({alpha} on {view.name}) costs 1, and labels to find it."
    each = listed(f"{group} {points(gains[group])}" for group in sorted(gains, key=lambda group: -gains[group]))
    return f"By group on {view.name} it differs from the best fixed alpha by {each} points; it costs {cost}."


def _range(values: Iterable[float]) -> str:
    known = [*values]
    lowest, highest = two(min(known)), two(max(known))
    return lowest if lowest == highest else f"{lowest} to {highest}"


def _costs(view: View) -> tuple[str, ...]:
    """Return the headers of what a row costs."""
    return ("FE", "forward cost") if view.shares_layers else ("FE",)


def _cost_cells(row: Row, view: View) -> tuple[Cell, ...]:
    return (Cell(two(row.fe)), Cell(two(row.forward_cost))) if view.shares_layers else (Cell(two(row.fe)),)


def _table(among: Sequence[View]) -> Table:
    lines = []
    for view in among:
        fixed, endpoint, row = view.reference(BEST_FIXED), view.better_endpoint, view.served
        cells = (
            Cell(three(row.accuracy), note=f"{three(row.accuracy_ci[0])} to {three(row.accuracy_ci[1])}"),
            *_cost_cells(row, view),
            difference_cell(view.over_best_fixed),
            Cell(two(fixed.alpha)),
            difference_cell(view.over_better_endpoint),
            Cell(display_name(endpoint.strategy)),
            Cell(points(row.worst_domain_gap), note=row.worst_domain),
        )
        lines.append(Line(view.name, cells))
    headers = ("accuracy", *_costs(among[0]), "− best fixed", "best fixed alpha", "− better endpoint", "which")
    caption = f"{among[0].served_name} on each kind of stream, {LEVEL} intervals below"
    return Table(caption, "stream", (*headers, "worst domain"), tuple(lines))


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
        tables=tuple(_strategies(view) for view in among),
    )


def difference_cell(difference: Difference | None) -> Cell:
    """Return a cell with points, their interval, and a mark for what the interval shows."""
    if difference is None:
        return Cell("")
    mark = "better" if is_better(difference) else "worse" if is_worse(difference) else "same"
    return Cell(points(difference.difference), mark, points_between(difference.ci))


def _strategies(view: View) -> Table:
    rows = (*view.strategies, *view.references)
    followed = _is_followed(view)
    oracles = list(dict.fromkeys(name for row in rows for name in row.way))
    headers = [
        "accuracy",
        *_costs(view),
        *(f"− {display_name(name)}" for name in FIXED),
        f"− {display_name(DOMAIN_ORACLE)}",
    ]
    headers += ["worst domain", "ECE", "ECE pooled", "NLL", "alpha", "pinned", *(("lag, batches",) if followed else ())]
    headers += [f"way to {display_name(name)}" for name in oracles]
    lines = [Line(display_name(row.strategy), tuple(_cells(row, view, oracles)), _row_kind(row, view)) for row in rows]
    seeds = view.served.seeds
    caption = f"{view.name}, {seeds} seed{'s' * (seeds > 1)}, {view.served.images:,} images served by each strategy"
    return Table(caption, "strategy", tuple(headers), tuple(lines))


def _row_kind(row: Row, view: View) -> str:
    return "reference" if row.reference else "served" if row.strategy == view.served_name else "strategy"


def _is_followed(view: View) -> bool:
    """Return True if there is a best path, which a strategy may follow."""
    return view.stream == "smooth"


def _cells(row: Row, view: View, oracles: Sequence[str]) -> list[Cell]:
    low, high = row.accuracy_ci
    oracle = row.versus.get(DOMAIN_ORACLE)
    cells = [
        Cell(three(row.accuracy), note=f"{three(low)} to {three(high)}"),
        *_cost_cells(row, view),
        *(difference_cell(row.versus.get(name)) for name in FIXED),
        Cell("" if oracle is None else points(oracle.difference)),
        Cell(points(row.worst_domain_gap), note=row.worst_domain),
        Cell(three(row.ece)),
        Cell(three(row.ece_pooled)),
        Cell(three(row.nll)),
        Cell(two(row.alpha)),
        Cell(NOTHING if row.pinned is None else f"{row.pinned:.0%}"),
    ]
    if _is_followed(view):
        cells.append(Cell(NOTHING if row.lag_batches is None else f"{row.lag_batches:g}"))
    return [*cells, *(_way_cell(row.way.get(name)) for name in oracles)]


def _way_cell(way: OracleShare | None) -> Cell:
    if way is None or way.share is None or way.ci is None:
        return Cell("" if way is None else NOTHING)
    return Cell(f"{way.share:.0%}", note=f"{way.ci[0]:.0%} to {way.ci[1]:.0%}")
