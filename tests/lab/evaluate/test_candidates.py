"""The short names of what is compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adawise.adapt.objective import raw_entropy, tsallis
from adawise.adapt.strategies import NAMES
from adawise.adapt.strategies.grid import GridSearch
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.card.card import PairVerdict
from adawise.errors import SettingsError
from adawise_lab.evaluate.candidates import (
    PRICES,
    Candidate,
    at_every_price,
    every_strategy,
    objective_named,
    parse,
    resolved,
)
from tests.lab.evaluate.building import GRID, a_card

DEFAULT = Exploration()


def read(text: str) -> tuple[Candidate, ...]:
    return parse(text, objective="tsallis", alpha=0.5, exploration=DEFAULT)


def test_a_list_of_strategies_with_options_and_objectives_is_read() -> None:
    plain, varied, dear, still = read("warm,warm:budget=3,every=16@atc,grid@relative,fixed:alpha=0.25")
    assert plain == Candidate("warm", "warm", "tsallis", 0.5, DEFAULT)
    assert (varied.strategy, varied.objective, varied.name) == ("warm", "atc", "warm:budget=3,every=16@atc")
    assert (varied.exploration.budget, varied.exploration.every, varied.exploration.images) == (3, 16, DEFAULT.images)
    assert (dear.name, dear.objective) == ("grid@relative", "relative")
    assert (still.name, still.alpha) == ("fixed:alpha=0.25", 0.25)


def test_an_objective_that_was_fitted_under_shift_needs_no_guard_against_over_confident_weights() -> None:
    card = replace(a_card(temperature=1.0), shifted_temperature=(1.0,) * len(GRID), tells_ends_apart=True)
    for text, limit in (
        ("warm@calibrated_tsallis", 1.0),
        ("warm:disagreement=0.5@calibrated_tsallis", 0.5),
        ("warm", None),
    ):
        (candidate,) = read(text)
        built = candidate.build(GRID, tsallis, card)
        assert isinstance(built, WarmSearch)
        assert built.policy.disagreement == limit


def test_a_probe_costs_the_share_of_a_forward_that_the_card_says() -> None:
    (candidate,) = read("warm")
    for card, share in ((None, 1.0), (replace(a_card(temperature=1.0), tail_share=0.25), 0.25)):
        built = candidate.build(GRID, tsallis, card)
        assert isinstance(built, WarmSearch)
        assert built.policy == replace(DEFAULT, tail_share=share)


def test_the_objective_that_is_asked_for_is_that_of_all_that_name_none() -> None:
    assert [c.objective for c in parse("warm,grid@entropy", objective="atc", alpha=0.5, exploration=DEFAULT)] == [
        "atc",
        "entropy",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ensemble", "there is no strategy 'ensemble'; expected one of auto, botorch, fixed, grid, scratch, warm."),
        ("warm@gini", "there is no objective 'gini'; expected one of auto, tsallis, entropy"),
        ("warm:bugdet=3", "there is no option 'bugdet'; expected one of alpha, budget"),
        ("warm:tail_share=0.5", "there is no option 'tail_share'; expected one of alpha, budget"),
        ("warm:budget=three", "budget: expected a value of type int, got 'three'"),
        ("warm:budget", "budget: expected a value of type int, got ''"),
        ("fixed:alpha=2", "alpha: expected a number from 0 to 1, got 2"),
        ("warm:hazard=nan", "hazard: expected a number from 0 to 1, got nan"),
        ("warm:drifting=-0.1", "drifting: expected a number from 0 to 1, got -0.1"),
        ("warm:every=0", "every: expected a number from 1 on, got 0"),
        ("warm:first_budget=inf", "first_budget: expected a number from 0 on, got inf"),
        ("warm:conditions=-1", "conditions: expected a number from 0 on, got -1"),
        ("fixed:alpha=nan", "alpha: expected a number from 0 to 1, got nan"),
        ("warm,grid,warm", "expected each once, got warm"),
        (",", "expected each once, got none"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match="--strategies") as refused:
        read(text)
    assert message in str(refused.value)


def test_the_strategy_auto_is_what_a_worker_takes_it_for() -> None:
    (requested,) = read("auto@tsallis")
    helps = PairVerdict("tsallis", 0.5, 0.6, 0.45, 0.6, 0.7, (0.1, 0.05, 0.2), ())
    for verdict, strategy, alpha in (
        (None, "warm", requested.alpha),
        (helps, "warm", requested.alpha),
        (replace(helps, gain=(-0.1, -0.2, -0.05)), "fixed", 0.45),
    ):
        (found,) = resolved([requested], replace(a_card(temperature=0.8), verdict=verdict))
        assert (found.name, found.strategy, found.alpha) == ("auto", strategy, alpha)
    (found,) = resolved([requested], None)
    assert found.strategy == "warm"


def test_auto_is_the_objective_that_the_card_recommends() -> None:
    requested = parse("warm,grid@atc", objective="auto", alpha=0.5, exploration=DEFAULT)
    for card, names in (
        (None, ["warm", "grid@atc"]),
        (a_card(temperature=0.8), ["warm", "grid@atc"]),
        (a_card(temperature=1.2), ["warm@relative", "grid@atc"]),
    ):
        assert [candidate.name for candidate in resolved(requested, card)] == names
    with pytest.raises(SettingsError, match=r"--strategies warm@auto,warm: expected each once, got warm\. Correct it"):
        resolved(read("warm@auto,warm@tsallis"), None)


def test_a_curve_is_the_first_warm_at_every_price() -> None:
    grid, warm, dear, *added = at_every_price(read("grid,warm:every=16,warm:every=16,price=0.07"))
    assert [c.name for c in (grid, warm, dear)] == ["grid", "warm:every=16", "warm:every=16,price=0.07"]
    assert [c.exploration.price for c in added] == list(PRICES)
    assert added[0].name == "warm:every=16,price=0.2"
    assert {replace(c, curve="") for c in added} <= set(read(",".join(c.name for c in added)))
    assert [c.curve for c in (grid, warm, dear, *added)] == ["", *["warm:every=16"] * (2 + len(PRICES))]


def test_a_price_that_is_there_is_not_added_again() -> None:
    names = [c.name for c in at_every_price(read("warm:price=.05,warm:pixels=false"))]
    assert names == ["warm:price=.05", "warm:pixels=false", *(f"warm:price={p:g}" for p in PRICES if p != 0.05)]


def test_a_curve_without_warm_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--curve: expected warm, .* among --strategies\. Add it"):
        at_every_price(read("grid,fixed"))


def test_without_a_list_every_strategy_runs_but_the_slow_one_and_the_default_comes_first() -> None:
    names = [c.name for c in every_strategy(objective="tsallis", alpha=0.5, exploration=DEFAULT)]
    assert names[0] == "warm"
    assert set(names) == set(NAMES) - {"botorch"}


def test_a_candidate_builds_its_strategy_with_what_it_says() -> None:
    (candidate,) = parse("grid:min_images=3,alpha=0.3", objective="tsallis", alpha=0.5, exploration=DEFAULT)
    built = candidate.build(GRID, raw_entropy, None)
    assert isinstance(built, GridSearch)
    assert built.initial().alpha_index == 6
    assert "tsallis" in built.key


def test_an_objective_that_needs_a_card_is_refused_without_one() -> None:
    assert objective_named("entropy", None) is raw_entropy
    assert objective_named("tsallis", None) is tsallis
    with pytest.raises(SettingsError, match="objective atc needs a card: name a labelled table with --calibrate"):
        objective_named("atc", None)
