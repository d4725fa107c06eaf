"""The work of `adawise evaluate`: compare strategies on tables of logits, or on images, made into such tables first."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch

from adawise.app.machine import usable_cores
from adawise.app.search import exploration
from adawise.card.advice import AUTO, advise, advised_alpha, in_words
from adawise.card.card import Card, make_card, read_card
from adawise.console import paper, print_json, progress
from adawise.errors import SettingsError
from adawise.page import NEEDS as PAGE_NEEDS
from adawise.settings import Settings
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.candidates import Candidate, at_every_price, every_strategy, objective_named, parse, resolved
from adawise_lab.evaluate.files import write_result
from adawise_lab.evaluate.judge import judge
from adawise_lab.evaluate.result import Result
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.show import show
from adawise_lab.evaluate.streams import CONTROLS, KINDS, ORDERS, RETURN, Smooth
from adawise_lab.evaluate.tables import LogitTable, read_tables

if TYPE_CHECKING:
    from adawise_lab.cli.evaluate.options import EvaluateCommand

_log = structlog.get_logger("evaluate")


@dataclass(frozen=True)
class TableSources:
    """The images to make tables of: at most `limit` of each place, clean and under `corruptions`; kept in `cache`."""

    places: tuple[Path, ...]
    corruptions: str | None
    cache: Path
    limit: int | None


def evaluate(asked: EvaluateCommand) -> int:
    """Run strategies on a folder of tables or on images; print a table or JSON, and write the result to a folder."""
    settings, calibrate = asked.settings, asked.calibrate
    streams = [*asked.streams.split(","), *(("smooth",) if asked.smooth is not None else ())]
    kinds = _known(streams, KINDS, "--streams", "kind of stream")
    orders = _known(asked.orders.split(","), ORDERS, "--orders", "order")
    candidates = _candidates(settings, asked.strategies)
    if asked.curve:
        at_every_price(candidates)  # raises here if there is nothing to vary, before tables are made
    if calibrate is None and settings.model.card is None:
        for candidate in resolved(candidates, None):
            objective_named(candidate.objective, None)  # raises here if it needs a card, before tables are made
    domains = None if asked.domains is None else asked.domains.split(",")
    tables, fitted_on = _tables(settings, _source(asked), domains, calibrate)
    card, calibration = _card(settings, tables, fitted_on)
    if card is not None and any(candidate.objective == AUTO for candidate in candidates):
        advice = advise(card)
        _log.info("objective_chosen", objective=advice.objective, reason=advice.reason)
    if asked.strategies is None and card is not None and advised_alpha(card.verdict) is not None:
        # What a worker would do is none of the other candidates.
        candidates = (*_candidates(settings, AUTO), *candidates)
    named, candidates = candidates, resolved(candidates, card)
    for before, meant in zip(named, candidates, strict=True):
        if before.strategy == AUTO:
            method = in_words(meant.strategy, meant.objective, meant.alpha, is_advised=True)
            _log.info("strategy_chosen", candidate=meant.name, method=method)
    if asked.curve:
        candidates = at_every_price(candidates)
    temperatures = (1.0,) * len(tables[0].alphas) if card is None else card.temperature
    bench = Bench(tables, temperatures, {} if asked.group is None else group_names(asked.group, tables))
    if bench.pixels is None and not set(kinds).isdisjoint((*RETURN, *CONTROLS)):
        without = [table.name for table in tables if table.pixels is None]
        _log.warning("pixels_missed", tables=without, note="warm runs without them, and remembers no condition")
    pair = None if asked.smooth is None else smooth_groups(bench, asked.smooth)
    plan = Plan(candidates, kinds, orders, asked.seeds, pair)
    result = _run(bench, plan, card, calibration, asked.processes or usable_cores())
    if asked.output is not None:
        write_result(asked.output, result)
        _write_page(asked.output, result, asked.written_out(), tables)
    if asked.as_json:
        print_json(result.as_json())
    else:
        show(result, paper())
    return 0


def _source(asked: EvaluateCommand) -> Path | TableSources:
    if asked.images is None:
        assert asked.logits is not None  # `EvaluateCommand.problems` has checked it
        return asked.logits
    places = tuple(Path(place.strip()).expanduser() for place in asked.images.split(","))
    return TableSources(places, asked.corrupt, asked.cache, asked.limit)


def _tables(
    settings: Settings, source: Path | TableSources, domains: Sequence[str] | None, calibrate: str | None
) -> tuple[tuple[LogitTable, ...], LogitTable | None]:
    """Return the tables to judge, and the one that temperatures are fitted on, if any."""
    if isinstance(source, Path):
        tables = read_tables(source, domains)
        return tables, None if calibrate is None else read_tables(source, [calibrate])[0]
    # Imports open_clip, which takes seconds.
    from adawise_lab.cli.evaluate.images import domain_names, tables_of_images

    names = domain_names(source)
    for name in (*(domains or ()), *(() if calibrate is None else (calibrate,))):
        if name not in names:
            raise SettingsError(f"there is no domain {name!r}; the images make {', '.join(names)}. Correct its name.")
    made = {table.name: table for table in tables_of_images(settings, source)}
    others = [name for name in made if name != calibrate] or list(made)
    return tuple(made[name] for name in domains or others), None if calibrate is None else made[calibrate]


def _run(bench: Bench, plan: Plan, card: Card | None, calibration: str, processes: int) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the batches are too small for more, and there are many processes
    try:
        with progress("evaluated", total=len(plan.tasks), unit="runs") as bar:
            runs = run(bench, plan, card, processes=processes, done=bar.advance)
        return judge(bench, plan, card, runs, calibration=calibration)
    finally:
        torch.set_num_threads(threads)


def _write_page(folder: Path, result: Result, command: Sequence[str], tables: Sequence[LogitTable]) -> None:
    """Write the page beside the result; if a package for it is missing, print a line instead."""
    missing = [package for module, package in PAGE_NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        note = f"{folder}: no page.html, it needs {', '.join(missing)} (pip install 'adawise[report]')"
        print(note, file=sys.stderr)
        return
    from adawise_lab.evaluate.page.provenance import provenance
    from adawise_lab.evaluate.page.write import write_page

    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_page(folder, result, provenance(command, tables, created_at=now))


def _candidates(settings: Settings, strategies: str | None) -> tuple[Candidate, ...]:
    search = settings.search
    if strategies is None:
        return every_strategy(objective=search.objective, alpha=search.alpha, exploration=exploration(search))
    return parse(strategies, objective=search.objective, alpha=search.alpha, exploration=exploration(search))


def _known(names: Sequence[str], known: Sequence[str], option: str, what: str) -> tuple[str, ...]:
    """Return the names, each once.

    Raises:
        SettingsError: a name is unknown.
    """
    for name in names:
        if name not in known:
            raise SettingsError(f"{option}: there is no {what} {name!r}; expected {', '.join(known)}. Correct it.")
    return tuple(dict.fromkeys(names))


def _card(settings: Settings, tables: Sequence[LogitTable], fitted_on: LogitTable | None) -> tuple[Card | None, str]:
    """Return the card, and where it is from: made of the table `fitted_on`, or read. Without either, there is none.

    Raises:
        SettingsError: the card is for other alphas than the tables.
    """
    if fitted_on is not None:
        table = fitted_on
        card = make_card(
            lambda j: torch.from_numpy(table.logits[j]).float(),
            torch.from_numpy(table.labels),
            alphas=table.alphas,
            identity={"table": table.name},
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        source = f"fitted on {table.name}"
    elif settings.model.card is not None:
        card, source = read_card(settings.model.card), f"of {settings.model.card}"
    else:
        return None, "all 1: no card, no --calibrate"
    if card.alphas != tables[0].alphas:
        raise SettingsError(
            f"the card ({source}) is for the alphas {list(card.alphas)}, the tables are for "
            f"{list(tables[0].alphas)}. Make a card for these."
        )
    return card, source


def group_names(text: str, tables: Sequence[LogitTable]) -> dict[str, str]:
    """Return the name of each kind of domain, given as `known=id+base,new=new`.

    The kind of a domain is the part of its name before "_".

    Raises:
        SettingsError: the text has another form, or a kind is given twice or is of no table.
    """
    kinds = {table.group for table in tables}
    names: dict[str, str] = {}
    for part in text.split(","):
        name, equals, members = part.partition("=")
        if not name or not equals:
            raise SettingsError(f"--groups {text}: expected NAME=KIND+KIND,..., got {part!r}. Correct it.")
        for kind in members.split("+"):
            if kind not in kinds or kind in names:
                found = "is there twice" if kind in names else f"is not among {', '.join(sorted(kinds))}"
                raise SettingsError(f"--groups {text}: {kind!r} {found}. Correct it.")
            names[kind] = name
    return names


def smooth_groups(bench: Bench, text: str) -> Smooth:
    """Return the indices of the domains of two groups, given as `A+B:C`.

    Raises:
        SettingsError: there are not two groups, a domain does not exist, or the domains have different classes.
    """
    expected = "expected two groups of domains, such as id_test:new_clean or a+b:c"
    names = [table.name for table in bench.tables]
    groups = [part.split("+") for part in text.split(":")]
    missing = [name for group in groups for name in group if name not in names]
    if len(groups) != 2 or missing:
        found = f"there is no {missing[0]!r} among {', '.join(names)}" if missing else f"got {len(groups)}"
        raise SettingsError(f"--smooth {text}: {expected}; {found}. Correct it, or name it in --domains.")
    first, second = (tuple(names.index(name) for name in group) for group in groups)
    if len({bench.vocabularies[d] for d in (*first, *second)}) > 1:
        raise SettingsError(
            f"--smooth {text}: the domains have different classes, so no batch can mix them. "
            "Choose domains with the same classes."
        )
    return first, second
