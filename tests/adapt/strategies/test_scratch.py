from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.strategies.scratch import ScratchSearch
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Surrogate
from tests.adapt.curves import GRID, Weather, alphas, drive, logits, objective


def scratch(budget: int = 5) -> ScratchSearch:
    return ScratchSearch(GRID, objective, "test", 10, Exploration(budget=budget))


@pytest.mark.parametrize("optimum", [0.0, 0.2, 0.8, 1.0])
def test_each_batch_begins_at_the_first_alpha_and_the_ends_and_serves_near_the_optimum(optimum: float) -> None:
    outcomes = drive(scratch(), [Weather(optimum)] * 3)
    for outcome in outcomes:
        assert [trial.alpha for trial in outcome.trials][:3] == [0.5, 0.0, 1.0]
        assert len(outcome.trials) <= 5
        assert abs(GRID[outcome.index] - optimum) <= 0.2
        assert outcome.posterior_sd > 0.0


def test_what_the_batches_before_said_does_not_matter() -> None:
    fresh = drive(scratch(), [Weather(0.8)])[0]
    known = drive(scratch(), [Weather(0.8)], state=dataclasses.replace(scratch().initial(), alpha_index=2, batches=40))
    assert known[0].trials == fresh.trials
    assert known[0].index == fresh.index


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_the_budget_is_kept(budget: int) -> None:
    assert [len(outcome.trials) for outcome in drive(scratch(budget), [Weather(0.8)] * 2)] == [budget] * 2


def test_fitted_hyper_parameters_are_used() -> None:
    flat = dataclasses.replace(scratch(), fitted=Surrogate(GRID, signal_sd=1e-4))
    (outcome,) = drive(flat, [Weather(0.8)])
    assert len(outcome.trials) == 3  # a curve that hardly bends promises nothing beyond the ends
    assert len(drive(scratch(), [Weather(0.8)])[0].trials) > 3


def test_too_few_images_are_served_at_the_first_alpha() -> None:
    (outcome,) = drive(scratch(), [Weather(0.1)], images=7)
    assert (outcome.index, outcome.trigger, outcome.forward_equivalents) == (10, "too_few_images", 1.0)


@pytest.mark.parametrize("first_is_broken", [True, False])
def test_logits_that_are_not_finite_are_passed_over(first_is_broken: bool) -> None:
    def answer(index: int, /, *images: Tensor) -> Tensor:
        is_first = index == 10
        return logits(index, *images) if is_first != first_is_broken else torch.full((32, 1000), torch.nan)

    (outcome,) = drive(scratch(), [Weather(0.8)], answer=answer)
    assert outcome.index == 10
    assert outcome.trigger == ("not_finite" if first_is_broken else "every_batch")


def test_equal_logits_give_equal_states_and_trials() -> None:
    first, second = (drive(scratch(), [Weather(0.2), Weather(0.9)], seed=5) for _ in range(2))
    assert [o.state.to_bytes() for o in first] == [o.state.to_bytes() for o in second]
    assert [o.trials for o in first] == [o.trials for o in second]
    assert np.all(np.isfinite(alphas(first)))
