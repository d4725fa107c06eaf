"""An evaluation: strategies compared on tables of logits, or on images, which are made into such tables first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
import torch

from adawise.app.machine import usable_cores
from adawise.app.parts import exploration
from adawise.card.advice import AUTO, PRIOR_WITHOUT_CARD, advise, advised_alpha, in_words, of_all_classes
from adawise.card.card import Card, make_card, read_card
from adawise.console import progress
from adawise.errors import SettingsError
from adawise.settings import Settings
from adawise_lab.evaluate.assessment import assess
from adawise_lab.evaluate.bench import Bench
from adawise_lab.evaluate.camera import ALL, check_shows
from adawise_lab.evaluate.candidates import Candidate, at_every_price, every_strategy, objective_named, parse, resolved
from adawise_lab.evaluate.lists import NONE, check_lists
from adawise_lab.evaluate.result import Result, write_result
from adawise_lab.evaluate.run import Plan, run
from adawise_lab.evaluate.show import can_write_page
from adawise_lab.evaluate.streams import CONTROLS, KINDS, ORDERS, RETURN, Smooth
from adawise_lab.evaluate.tables import LogitTable, TableSources, read_tables

_log = structlog.get_logger("evaluate")


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """A request to compare strategies. Texts have the form of the options of `adawise evaluate`.

    Args:
        settings: the models, the card, and how strategies explore.
        source: the folder of the tables, or the images to make them of.
        domains: the domains to judge; None for all tables but `val*`, or all that the images make.
        group: other names for groups of domains.
        calibrate: the table that temperatures are fitted on; None: those of the card, or 1.
        strategies: what is compared; None for every strategy that is not slow.
        curve: run `warm` at every price, too.
        streams: kinds of stream.
        orders: orders of a domain's images.
        shows: what cameras show of the classes.
        shortlists: the shortlists that cameras have.
        smooth: the groups of domains that a smooth stream moves between.
        seeds: streams of each kind and order.
        processes: processes at once; None: one for each core.
        output: the folder for page, result and paths; None for none.
        command: the arguments that the page names.
    """

    settings: Settings
    source: Path | TableSources
    domains: str | None = None
    group: str | None = None
    calibrate: str | None = None
    strategies: str | None = None
    curve: bool = False
    streams: str = "short,long,stationary"
    orders: str = "iid,runs"
    shows: str = ALL
    shortlists: str = NONE
    smooth: str | None = None
    seeds: int = 5
    processes: int | None = None
    output: Path | None = None
    command: Sequence[str] = ()


def evaluate(request: EvaluateRequest) -> Result:
    """Run strategies on a folder of tables or on images, and write the result to a folder if one is named.

    Raises:
        SettingsError: the request cannot be met.
    """
    settings, calibrate = request.settings, request.calibrate
    streams = [*request.streams.split(","), *(("smooth",) if request.smooth is not None else ())]
    kinds = _known(streams, KINDS, "--streams", "kind of stream")
    orders = _known(request.orders.split(","), ORDERS, "--orders", "order")
    check_shows(request.shows)
    check_lists(request.shortlists)
    candidates = _candidates(settings, request.strategies)
    if request.curve:
        at_every_price(candidates)  # raises here if there is nothing to vary, before tables are made
    if calibrate is None and settings.model.card is None:
        for candidate in resolved(candidates, None):
            objective_named(candidate.objective, None)  # raises here if it needs a card, before tables are made
    domains = None if request.domains is None else request.domains.split(",")
    tables, fitted_on, tail_share = _tables(settings, request.source, domains, calibrate)
    card, calibration = _card(settings, tables, fitted_on, tail_share)
    if card is not None and any(candidate.objective == AUTO for candidate in candidates):
        advice = advise(card)
        _log.info("objective_chosen", objective=advice.objective, reason=advice.reason)
    if request.strategies is None and card is not None and advised_alpha(card.verdict) is not None:
        # What a worker would do is none of the other candidates.
        candidates = (*_candidates(settings, AUTO), *candidates)
    named, candidates = candidates, resolved(candidates, card)
    for before, meant in zip(named, candidates, strict=True):
        if before.strategy == AUTO:
            method = in_words(meant.strategy, meant.objective, meant.alpha, is_advised=True)
            _log.info("strategy_chosen", candidate=meant.name, method=method)
    if request.curve:
        candidates = at_every_price(candidates)
    if request.shortlists != NONE:
        _expect_among_lists(candidates, card)
    temperatures = (1.0,) * len(tables[0].alphas) if card is None else card.temperature
    groups = {} if request.group is None else group_names(request.group, tables)
    bench = Bench(tables, temperatures, groups, tail_share)
    check_shows(request.shows, bench.domains)
    if bench.pixels is None and not set(kinds).isdisjoint((*RETURN, *CONTROLS)):
        without = [table.name for table in tables if table.pixels is None]
        _log.warning("pixels_missed", tables=without, note="warm runs without them, and remembers no condition")
    pair = None if request.smooth is None else smooth_groups(bench, request.smooth)
    prior = settings.scene.has_prior
    if prior and card is None:
        _log.warning("prior_uncalibrated", note=f"{PRIOR_WITHOUT_CARD}; --calibrate fits temperatures on a table")
    smooths = settings.scene.smooths
    plan = Plan(
        candidates,
        kinds,
        orders,
        request.seeds,
        pair,
        shows=request.shows,
        prior=prior,
        smooths=smooths,
        lists=request.shortlists,
    )
    result = _run(bench, plan, card, calibration, request.processes or usable_cores())
    if request.output is not None:
        write_result(request.output, result)
        if can_write_page(request.output, "page.html"):
            from adawise_lab.evaluate.page import provenance, write_page

            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_page(request.output, result, provenance(request.command, tables, created_at=now))
    return result


def _tables(
    settings: Settings, source: Path | TableSources, domains: Sequence[str] | None, calibrate: str | None
) -> tuple[tuple[LogitTable, ...], LogitTable | None, float]:
    """Return the tables to judge, the one that temperatures are fitted on, if any, and the pair's `tail_share`.

    Tables of logits do not say what their pair shares: that is known from a card alone.
    """
    if isinstance(source, Path):
        tables = read_tables(source, domains)
        tail_share = 1.0 if settings.model.card is None else read_card(settings.model.card).tail_share
        return tables, None if calibrate is None else read_tables(source, [calibrate])[0], tail_share
    # Imports open_clip, which takes seconds.
    from adawise_lab.evaluate.places import domain_names, tables_of_images

    names = domain_names(source)
    for name in (*(domains or ()), *(() if calibrate is None else (calibrate,))):
        if name not in names:
            raise SettingsError(f"there is no domain {name!r}; the images make {', '.join(names)}. Correct its name.")
    all_tables, tail_share = tables_of_images(settings, source)
    made = {table.name: table for table in all_tables}
    others = [name for name in made if name != calibrate] or list(made)
    fitted_on = None if calibrate is None else made[calibrate]
    return tuple(made[name] for name in domains or others), fitted_on, tail_share


def _run(bench: Bench, plan: Plan, card: Card | None, calibration: str, processes: int) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the batches are too small for more, and there are many processes
    try:
        with progress("evaluated", total=len(plan.tasks), unit="runs") as bar:
            runs = run(bench, plan, card, processes=processes, done=bar.advance)
        return assess(bench, plan, card, runs, calibration=calibration)
    finally:
        torch.set_num_threads(threads)


def _candidates(settings: Settings, strategies: str | None) -> tuple[Candidate, ...]:
    search = settings.search
    if strategies is None:
        return every_strategy(objective=search.objective, alpha=search.alpha, exploration=exploration(search))
    return parse(strategies, objective=search.objective, alpha=search.alpha, exploration=exploration(search))


def _expect_among_lists(candidates: Sequence[Candidate], card: Card | None) -> None:
    """Raise SettingsError for a strategy whose objective does not hold among a shortlist, as a worker does."""
    for candidate in candidates:
        if candidate.strategy != "fixed" and (why := of_all_classes(candidate.objective, card, "shortlists")):
            raise SettingsError(f"--strategies {candidate.name}: {why}")


def _known(names: Sequence[str], known: Sequence[str], option: str, what: str) -> tuple[str, ...]:
    """Return the names, each once.

    Raises:
        SettingsError: a name is unknown.
    """
    for name in names:
        if name not in known:
            raise SettingsError(f"{option}: there is no {what} {name!r}; expected {', '.join(known)}. Correct it.")
    return tuple(dict.fromkeys(names))


def _card(
    settings: Settings, tables: Sequence[LogitTable], fitted_on: LogitTable | None, tail_share: float
) -> tuple[Card | None, str]:
    """Return the card, and where it is from: made of the table `fitted_on`, or read. Without either, there is none.

    A card that is made has the pair's `tail_share`, as one that `adawise card make` makes.

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
        card, source = replace(card, tail_share=tail_share), f"fitted on {table.name}"
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
