from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.strategies.grid import GridSearch
from adawise.adapt.strategies.warm import Exploration
from tests.adapt.curves import GRID, Weather, alphas, as_images, draw_values, drive, logits, objective

SEARCH = GridSearch(GRID, objective, "test", 10, Exploration(min_images=8))


@pytest.mark.parametrize("optimum", [0.0, 0.35, 0.8, 1.0])
def test_each_batch_is_served_at_the_alpha_with_the_lowest_objective(optimum: float) -> None:
    (outcome,) = drive(SEARCH, [Weather(optimum)], seed=3)
    values = draw_values(Weather(optimum), 32, np.random.default_rng(3))
    best = int(values.mean(axis=1).argmin())
    assert outcome.index == best
    assert abs(GRID[best] - optimum) <= 0.15
    assert torch.equal(outcome.logits, logits(best, as_images(values)))
    assert outcome.objective == pytest.approx(values[best].mean())
    assert outcome.forward_equivalents == 21.0
    assert [trial.alpha for trial in outcome.trials] == list(GRID)


def test_of_equals_the_lower_alpha_is_served() -> None:
    (outcome,) = drive(SEARCH, [Weather(0.5)], answer=lambda index, images: torch.zeros(len(images), 1000))
    assert outcome.index == 0


def test_a_batch_of_too_few_images_is_served_at_the_alpha_of_the_one_before() -> None:
    before = drive(SEARCH, [Weather(0.8)])[-1]
    (outcome,) = drive(SEARCH, [Weather(0.1)], images=7, state=before.state)
    assert outcome.index == before.index
    assert outcome.trigger == "too_few_images"
    assert outcome.forward_equivalents == 1.0
    assert outcome.state.batches == 2


def test_an_alpha_whose_logits_are_not_finite_is_not_served() -> None:
    def without_the_best(index: int, images: Tensor) -> Tensor:
        z = logits(index, images)
        if index == 16:
            z[3] = torch.nan
        return z

    (outcome,) = drive(SEARCH, [Weather(0.8, depth=3.0)], answer=without_the_best)
    assert outcome.index in (15, 17)
    assert outcome.trigger == "every_batch"


def test_where_no_logits_are_finite_the_alpha_stays() -> None:
    before = drive(SEARCH, [Weather(0.8)])[-1]
    (outcome,) = drive(
        SEARCH, [Weather(0.1)], state=before.state, answer=lambda i, x: torch.full((len(x), 1000), torch.nan)
    )
    assert alphas([outcome]) == alphas([before])
    assert outcome.trigger == "not_finite"
    assert np.isnan(outcome.objective)


def test_equal_logits_give_equal_states_and_trials() -> None:
    first, second = (drive(SEARCH, [Weather(0.2), Weather(0.9)], seed=5) for _ in range(2))
    assert [o.state.to_bytes() for o in first] == [o.state.to_bytes() for o in second]
    assert [o.trials for o in first] == [o.trials for o in second]
