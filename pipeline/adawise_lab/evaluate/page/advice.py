"""The advice in three sentences: against the best fixed alpha, against the endpoints, and where it gains at what cost.

A sentence says better or worse only if the whole 95 % interval lies on one side of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adawise.page.blocks import Cell, Line, Table
from adawise.page.notation import LEVEL, listed, points, points_between, three, two
from adawise_lab.evaluate.page.comparison import difference_cell
from adawise_lab.evaluate.page.notation import spoken
from adawise_lab.evaluate.page.views import View, headline, is_better, is_worse
from adawise_lab.evaluate.references import BEST_FIXED
from adawise_lab.evaluate.result import Difference

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
    said = _compared(among, lambda view: view.over_best_fixed)
    return f"Against the best fixed alpha in hindsight, {said}."


def _against_endpoints(among: Sequence[View]) -> str:
    said = _compared(among, lambda view: view.over_better_endpoint)
    return f"Against the better of zero-shot and fine-tuned, {said}; {_worst_domain(among)}."


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
    cheapest, dearest = (two(extreme(view.served.fe for view in among)) for extreme in (min, max))
    cost = f"{cheapest} forwards an image" if cheapest == dearest else f"{cheapest} to {dearest} forwards an image"
    view = headline(among)
    gains = {group: row.versus[BEST_FIXED] for group, row in view.served.groups.items()}
    if len(gains) < 2:
        alpha = two(view.reference(BEST_FIXED).alpha)
        return f"It costs {cost}; the best fixed alpha ({alpha} on {view.name}) costs 1, and labels to find it."
    each = listed(f"{group} {points(gains[group])}" for group in sorted(gains, key=lambda group: -gains[group]))
    return f"By group on {view.name} it differs from the best fixed alpha by {each} points; it costs {cost}."


def _table(among: Sequence[View]) -> Table:
    lines = []
    for view in among:
        fixed, endpoint, row = view.reference(BEST_FIXED), view.better_endpoint, view.served
        cells = (
            Cell(three(row.accuracy), note=f"{three(row.accuracy_ci[0])} to {three(row.accuracy_ci[1])}"),
            Cell(two(row.fe)),
            difference_cell(view.over_best_fixed),
            Cell(two(fixed.alpha)),
            difference_cell(view.over_better_endpoint),
            Cell(spoken(endpoint.strategy)),
            Cell(points(row.worst_domain_gap), note=row.worst_domain),
        )
        lines.append(Line(view.name, cells))
    headers = ("accuracy", "FE", "− best fixed", "best fixed alpha", "− better endpoint", "which", "worst domain")
    return Table(
        f"{among[0].served_name} on each kind of stream, {LEVEL} intervals below", "stream", headers, tuple(lines)
    )
