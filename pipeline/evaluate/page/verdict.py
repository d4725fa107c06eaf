"""The verdict in three sentences: against the best fixed alpha, against the endpoints, where the gain lies and its cost.

Better or worse is said only where the whole 95 % interval lies on one side of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.evaluate.page.notation import listed, points, points_between, spoken, two
from pipeline.evaluate.page.views import View, headline, is_better, is_worse
from pipeline.evaluate.references import BEST_FIXED
from pipeline.evaluate.result import Difference


@dataclass(frozen=True)
class Verdict:
    """`headline` is the shortest form of the first sentence."""

    headline: str
    sentences: tuple[str, str, str]


def verdict(among: Sequence[View]) -> Verdict:
    """Of all views together."""
    return Verdict(_headline(among), (_against_best_fixed(among), _against_endpoints(among), _where_and_cost(among)))


def _headline(among: Sequence[View]) -> str:
    better = sum(is_better(view.over_best_fixed) for view in among)
    worse = sum(is_worse(view.over_best_fixed) for view in among)
    if better == len(among):
        return "Adapting alpha helps here"
    if worse == len(among):
        return "The best fixed alpha is better here"
    if better and not worse:
        return "Adapting alpha helps on some streams here, and no loss is shown on the others"
    if better:
        return "Adapting alpha helps on some streams here, and loses on others"
    if worse:
        return "Adapting alpha gains nothing here, and loses on some streams"
    return "A fixed alpha is as good here: no difference is shown"


def _against_best_fixed(among: Sequence[View]) -> str:
    name = among[0].served_name
    better, worse, same = _sorted(among, lambda view: view.over_best_fixed)
    parts = []
    if better:
        parts.append(f"{name} is better than the best fixed alpha in hindsight on {better}")
    if worse:
        parts.append(f"the best fixed alpha in hindsight is better than {name} on {worse}")
    if same:
        subject = "between them is" if parts else f"between {name} and the best fixed alpha in hindsight is"
        parts.append(f"no difference {subject} shown on {same}")
    return _sentence(parts)


def _against_endpoints(among: Sequence[View]) -> str:
    name = among[0].served_name
    better, worse, same = _sorted(
        among, lambda view: view.over_better_endpoint, lambda view: f", {spoken(view.better_endpoint.strategy)}"
    )
    parts = []
    if better:
        parts.append(f"against the better of zero-shot and fine-tuned, {name} is better on {better}")
    if worse:
        parts.append(f"the better of zero-shot and fine-tuned is better than {name} on {worse}")
    if same:
        subject = "to it" if parts else f"between {name} and the better of zero-shot and fine-tuned"
        parts.append(f"no difference {subject} is shown on {same}")
    return _sentence([*parts, _worst_domain(among)])


def _worst_domain(among: Sequence[View]) -> str:
    view = min(among, key=lambda view: view.served.worst_domain_gap)
    gap, domain = view.served.worst_domain_gap, view.served.worst_domain
    if gap >= 0.0:
        return "on no single domain does it serve less than the better endpoint"
    return f"the worst single domain is {domain} on {view.name}, {points(gap)} points from its better endpoint"


def _where_and_cost(among: Sequence[View]) -> str:
    served = [view.served for view in among]
    cheapest, dearest = min(row.fe for row in served), max(row.fe for row in served)
    cost = f"it costs {two(cheapest)} forwards an image"
    if two(cheapest) != two(dearest):
        cost = f"it costs {two(cheapest)} to {two(dearest)} forwards an image"
    view = headline(among)
    gains = {group: row.versus[BEST_FIXED] for group, row in view.served.groups.items()}
    if len(gains) < 2:
        alpha = view.reference(BEST_FIXED).alpha
        return _sentence([f"{cost}, where the best fixed alpha ({two(alpha)} on {view.name}) costs 1 and needs labels"])
    ordered = sorted(gains, key=lambda group: -gains[group])
    each = listed(f"{group} {points(gains[group])}" for group in ordered)
    return _sentence([f"by group on {view.name} it differs from the best fixed alpha by {each} points", cost])


def _sorted(
    among: Sequence[View], difference: Callable[[View], Difference], note: Callable[[View], str] = lambda _: ""
) -> tuple[str, str, str]:
    """The views where it is better, worse, or neither is shown, each with its interval."""
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for view in among:
        over = difference(view)
        place = 0 if is_better(over) else 1 if is_worse(over) else 2
        interval = f"{points(over.difference)}, 95 % {points_between(over.ci)}"
        parts[place].append(f"{view.name} ({interval}{note(view)})")
    better, worse, same = (listed(part) for part in parts)
    return better, worse, same


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
