from __future__ import annotations

import json
from pathlib import Path

import pytest

from adawise.adapt import strategies
from adawise.adapt.strategies import NAMES, strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Surrogate
from tests.adapt.curves import GRID, objective


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_by_name_starts_at_the_alpha_of_the_grid_nearest_to_the_one_asked_for(name: str) -> None:
    made = strategy(
        name, alphas=GRID, objective=objective, context="test", alpha=0.52, exploration=Exploration(budget=3)
    )
    assert made.initial().alpha_index == 10
    document = json.loads(made.key)
    assert (document["strategy"], document["context"], document["start"]) == (name, "test", 10)
    assert made.initial().key == made.key
    other = strategy(name, alphas=GRID, objective=objective, context="other", alpha=0.52, exploration=Exploration())
    assert other.key != made.key


def test_an_unknown_strategy_is_an_error_that_names_the_known() -> None:
    with pytest.raises(ValueError, match=f"expected one of {', '.join(NAMES)}, got 'bayes'"):
        strategy("bayes", alphas=GRID, objective=objective, context="", alpha=0.5, exploration=Exploration())


def test_each_file_of_the_folder_is_a_strategy() -> None:
    folder = Path(strategies.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(NAMES)


def test_a_strategy_gets_of_the_card_what_it_has_a_field_for() -> None:
    fitted = Surrogate(GRID, persistence=0.5)
    common = {"alphas": GRID, "objective": objective, "context": "", "alpha": 0.5, "exploration": Exploration()}

    def seen(name: str) -> object:
        return getattr(strategy(name, **common, fitted=fitted), "fitted", None)  # type: ignore[arg-type]

    assert seen("scratch") == fitted
    assert seen("fixed") is None
