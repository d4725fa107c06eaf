"""The result for the terminal: a table of the domains, and one for each kind and order of streams.

Differences are in points.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adawise.page import NEEDS
from adawise.text import shared_layers
from adawise_lab.evaluate.camera import ALL
from adawise_lab.evaluate.lists import NONE, in_words
from adawise_lab.evaluate.references import BEST_FIXED, DOMAIN_ORACLE, FINE_TUNED, MIDDLE, ZERO_SHOT
from adawise_lab.evaluate.result import Difference, DomainFacts, ListFigures, RareRecall, Result, Row, SceneFigures

_VERSUS = {ZERO_SHOT: "zero-shot", FINE_TUNED: "fine-tuned", MIDDLE: ".5", BEST_FIXED: "best fixed"}
_WIDE = 139  # terminal columns that the full table needs
_COST = 9  # columns that the forward cost needs
_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # alphas


def show(result: Result, console: Console) -> None:
    """Print as much as the terminal has room for; the JSON has everything."""
    console.print(_domains(result))
    for stream, order in dict.fromkeys((row.stream, row.order) for row in result.rows):
        rows = [row for row in result.rows if (row.stream, row.order) == (stream, order)]
        shows = "" if result.shows == ALL else f", shows {result.shows}"
        lists = "" if result.lists == NONE else f", shortlists {result.lists}"
        title = f"{stream} streams, {order} order{shows}{lists}, seeds: {rows[0].seeds}"
        named = [row for row in rows if not row.is_other_price]
        console.print(_accuracy(named, title, console.width, result.tail_share < 1.0))
        if any(not row.reference for row in named) and len(rows[0].groups) > 1:
            console.print(_groups(named))
        if lists_of := [(row, row.listed) for row in named if row.listed is not None]:
            console.print(_lists(lists_of, result.lists))
        if scenes := [(row, row.scene) for row in named if row.scene is not None]:
            console.print(_scenes(scenes))
            console.print(_certainty(scenes))
            if rare := [(row, scene.rare) for row, scene in scenes if scene.rare is not None]:
                console.print(_rare(rare))
        if priced := sorted((row for row in rows if row.price is not None), key=lambda row: -(row.price or 0.0)):
            console.print(_curve(priced, result.tail_share < 1.0))


def _domains(result: Result) -> Table:
    grid = [min(range(len(result.alphas)), key=lambda j: abs(result.alphas[j] - a)) for a in _SHOWN]
    objectives = list(next(iter(result.domains.values())).choices)
    headers = (*(f"{result.alphas[j]:g}" for j in grid), "best", *(f"by {objective}" for objective in objectives))
    table = _table("accuracy by alpha", "domain", headers)
    for name, facts in result.domains.items():
        table.add_row(name, *(_three(facts.accuracy[j]) for j in grid), *_choices(facts, objectives))
    alpha, accuracy = result.best_fixed
    table.caption = (
        f"mean over domains: best fixed alpha in hindsight {alpha:g}: {_three(accuracy)}; best of each domain "
        f"{_three(result.oracle)} (split-half {_three(result.split_half_oracle)})\ntemperatures of the served "
        f"predictions: {result.calibration}"
    )
    if result.tail_share < 1.0:
        table.caption += f"\n{shared_layers(result.tail_share)}"
    return table


def _choices(facts: DomainFacts, objectives: Sequence[str]) -> list[str]:
    chosen = [(facts.best_alpha, facts.best_accuracy), *(facts.choices[objective] for objective in objectives)]
    return [f"{alpha:g}: {_three(accuracy)}" for alpha, accuracy in chosen]


def _accuracy(rows: Sequence[Row], title: str, width: int, shares_layers: bool) -> Table:
    wide = width >= _WIDE + (_COST if shares_layers else 0)
    has_oracle = wide or not shares_layers  # in a narrow terminal, the cost takes its place
    followed = any(row.lag_batches is not None for row in rows)
    versus = _VERSUS if wide else {name: _VERSUS[name] for name in (ZERO_SHOT, BEST_FIXED)}
    headers = [
        "accuracy",
        *_costs(shares_layers),
        *(f"over\n{short}" for short in versus.values()),
        *(("over\noracle",) if has_oracle else ()),
        "worst\ndomain",
        "ECE",
    ]
    headers += ["NLL", "flicker", "pinned"] if wide else []
    table = _table(title, "strategy", (*headers, *(("lag",) if followed else ())))
    ordered = [*(row for row in rows if not row.reference), *(row for row in rows if row.reference)]
    last = max((i for i, row in enumerate(ordered) if not row.reference), default=-1)
    for i, row in enumerate(ordered):
        cells = [
            f"{_three(row.accuracy)} {_half(row.accuracy_ci)}",
            *_cost(row, shares_layers),
            *(_difference(row.versus.get(name), interval=wide or name == BEST_FIXED) for name in versus),
            *((_difference(row.versus.get(DOMAIN_ORACLE), interval=False),) if has_oracle else ()),
            f"{100 * row.worst_domain_gap:+.1f}" + (f" {row.worst_domain}" if wide else ""),
            _three(row.ece),
        ]
        if wide:
            cells += [_three(row.nll), _three(row.flicker), "" if row.pinned is None else f"{row.pinned:.0%}"]
        cells += ["" if row.lag_batches is None else f"{row.lag_batches:g}"] if followed else []
        table.add_row(_named(row), *cells, style="dim" if row.reference else "", end_section=i == last)
    table.caption = "\n".join(_way(row, name) for row in rows for name in row.way)
    return table


def _costs(shares_layers: bool) -> tuple[str, ...]:
    return ("FE", "forward\ncost") if shares_layers else ("FE",)


def _cost(row: Row, shares_layers: bool) -> tuple[str, ...]:
    """Return FE and, where it is less because the models share layers, the forward cost."""
    return (f"{row.fe:.2f}", f"{row.forward_cost:.2f}") if shares_layers else (f"{row.fe:.2f}",)


def _way(row: Row, oracle: str) -> str:
    way = row.way[oracle]
    share = "no share" if way.ci is None else f"{way.share:.0%} ({way.ci[0]:.0%} to {way.ci[1]:.0%})"
    return f"{row.strategy}: {share} of the way from {way.base} to {oracle} ({_difference(way.worth)} points)"


def _curve(rows: Sequence[Row], shares_layers: bool) -> Table:
    """Build the table of other prices: what they would serve, and at what cost."""
    headers = ("accuracy", *_costs(shares_layers), "over\nthe price set", "over\nbest fixed", "worst\ndomain")
    table = _table("by price", "search.price", headers)
    for row in rows:
        table.add_row(
            f"{row.price:g}" + ("" if row.is_other_price else " (set)"),
            _three(row.accuracy),
            *_cost(row, shares_layers),
            _difference(row.over_set),
            _difference(row.versus.get(BEST_FIXED)),
            f"{100 * row.worst_domain_gap:+.1f}",
        )
    return table


def _named(row: Row) -> str:
    """Return the row's name, with its alpha if it served only that one."""
    is_fixed = row.strategy == BEST_FIXED or (not row.reference and row.fe == 1.0)
    return row.strategy + (f" {row.alpha:.2f}".replace(" 0", " ") if is_fixed and row.alpha is not None else "")


def _table(title: str, first: str, headers: Sequence[str]) -> Table:
    """Build an empty table whose numbers are never cut; the names in the first column fold."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column(first, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _groups(rows: Sequence[Row]) -> Table:
    """Build the table by group of domains: the mean may hide that one group gains and another loses."""
    groups = list(rows[0].groups)
    table = _table("by group of domains: accuracy, points over best fixed", "strategy", groups)
    for row in rows:
        if not row.reference:
            cells = [f"{_three(g.accuracy)} {100 * g.versus[BEST_FIXED]:+.1f}" for g in row.groups.values()]
            table.add_row(row.strategy, *cells)
    return table


def _scenes(scenes: Sequence[tuple[Row, SceneFigures]]) -> Table:
    """Build the table of what the scene makes of the predictions of each strategy."""
    smooths = any(scene.smoothing is not None for _, scene in scenes)
    headers = ["served", "scene\nlabel", "over\nserved", "worst\ndomain", "ECE\nserved", "ECE\nscene", "gate"]
    headers += ["smooth-\ning"] if smooths else []
    by = "the class prior and neighbouring frames" if smooths else "the class prior"
    table = _table(f"scene_label, corrected by {by}: accuracy", "strategy", headers)
    for row, scene in scenes:
        cells = [
            _three(row.accuracy),
            _three(scene.accuracy),
            _difference(scene.over_served),
            f"{100 * scene.worst_domain_gap:+.1f}",
            _three(row.ece),
            _three(scene.ece),
            f"{scene.gate:.2f}",
            *([] if scene.smoothing is None else [f"{scene.smoothing:.2f}"]),
        ]
        table.add_row(row.strategy, *cells)
    return table


def _certainty(scenes: Sequence[tuple[Row, SceneFigures]]) -> Table:
    """Build the table of the probability of the truth, and of labels that change while the truth stays."""
    headers = ["NLL\nserved", "NLL\nscene", "flicker\nserved", "flicker\nscene"]
    table = _table("scene_label: NLL and flicker", "strategy", headers)
    for row, scene in scenes:
        table.add_row(row.strategy, *map(_three, (row.nll, scene.nll, row.flicker, scene.flicker)))
    table.caption = "NLL in nats; flicker: labels that change while the truth stays"
    return table


def _lists(listed: Sequence[tuple[Row, ListFigures]], lists: str) -> Table:
    """Build the table of what shortlists bring to search and prediction."""
    headers = ["both", "predic-\ntion", "none", "over\nprediction", "over\nnone", "FE", "FE\nnone", "names"]
    table = _table(f"shortlists of {in_words(lists)}", "strategy", headers)
    for row, found in listed:
        cells = [*map(_three, (row.accuracy, found.predicted, found.without))]
        cells += [_difference(found.over_predicted), _difference(found.over_without)]
        cells += [f"{row.fe:.2f}", f"{found.fe:.2f}", f"{found.names:.1f}"]
        table.add_row(row.strategy, *cells)
    table.caption = (
        "accuracy with the shortlist in search and prediction (both, as in the other tables), in the prediction alone, "
        "and without one"
    )
    return table


def _rare(recalls: Sequence[tuple[Row, RareRecall]]) -> Table:
    """Build the table of the recall of rare classes."""
    table = _table("scene_label: recall of rare classes", "strategy", ["served", "scene\nlabel", "over\nserved"])
    for row, rare in recalls:
        table.add_row(row.strategy, _three(rare.served), _three(rare.scene), _difference(rare.over_served))
    return table


def _difference(versus: Difference | None, *, interval: bool = True) -> str:
    if versus is None:
        return ""
    return f"{100 * versus.difference:+.1f}" + (f" {_half(versus.ci)}" if interval else "")


def _half(ci: tuple[float, float]) -> str:
    """Format half of an interval's width, in points; the JSON has both ends."""
    return f"±{50 * (ci[1] - ci[0]):.1f}"


def _three(value: float) -> str:
    """Format an accuracy as papers do: .652."""
    return "" if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def can_write_page(folder: Path, name: str) -> bool:
    """Return True if the packages that a page needs are installed; else name the missing ones on the error output."""
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"{folder}: no {name}, it needs {', '.join(missing)} (pip install 'adawise[report]')", file=sys.stderr)
    return not missing
