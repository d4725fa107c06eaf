from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import ModelFittingError
from torch import Tensor

from adawise.adapt.search import Outcome
from adawise.adapt.state import Observation
from adawise.adapt.strategies.botorch import BotorchSearch
from adawise.adapt.strategies.warm import Exploration
from tests.adapt.curves import GRID, Weather, alphas, as_images, draw_values, drive, logits, objective


def botorch(budget: int = 4) -> BotorchSearch:
    return BotorchSearch(GRID, objective, "test", 10, Exploration(budget=budget))


@pytest.fixture(scope="module")
def before() -> Outcome:
    """Of the second batch of a stream."""
    return drive(botorch(), [Weather(0.3)] * 2)[-1]


def test_each_batch_spends_the_budget_from_the_previous_alpha_on_and_serves_near_the_optimum() -> None:
    outcomes = drive(botorch(), [Weather(0.2)] * 3)
    assert outcomes[0].trials[0].alpha == 0.5
    for before, outcome in pairwise(outcomes):
        assert outcome.trials[0].alpha == GRID[before.index]
    assert {trial.images for outcome in outcomes for trial in outcome.trials} == {32}
    assert max(outcome.forward_equivalents for outcome in outcomes) == 4.0
    assert abs(alphas(outcomes)[-1] - 0.2) <= 0.15
    assert all(outcome.posterior_sd > 0.0 for outcome in outcomes)


def test_no_alpha_is_tried_twice_in_a_batch_and_the_served_one_was_tried() -> None:
    rng = np.random.default_rng(2)
    batches = [as_images(draw_values(Weather(0.8), 32, rng)) for _ in range(3)]
    for batch, outcome in zip(batches, drive(botorch(), [Weather(0.8)] * 3, seed=2), strict=True):
        tried = [trial.alpha for trial in outcome.trials]
        assert len(set(tried)) == len(tried)
        assert GRID[outcome.index] in tried
        assert torch.equal(outcome.logits, logits(outcome.index, batch))


@pytest.mark.check("search")
def test_a_jump_of_the_optimum_is_followed() -> None:
    outcomes = drive(botorch(), [Weather(0.1)] * 2 + [Weather(0.9)] * 2)
    assert alphas(outcomes)[1] <= 0.3
    assert alphas(outcomes)[-1] >= 0.7


def test_it_remembers_the_trials_of_six_batches() -> None:
    (outcome,) = drive(
        botorch(2),
        [Weather(0.5)],
        state=dataclasses.replace(
            botorch(2).initial(), batches=8, observations=tuple(Observation(b, 10, 0.6, 1e-3) for b in range(8))
        ),
    )
    assert {observation.batch for observation in outcome.state.observations} == {3, 4, 5, 6, 7, 8}


def test_equal_logits_give_equal_states_bit_for_bit() -> None:
    first, second = (drive(botorch(3), [Weather(0.3), Weather(0.8)], seed=4) for _ in range(2))
    assert [o.state.to_bytes() for o in first] == [o.state.to_bytes() for o in second]


def test_the_random_state_of_the_process_and_its_threads_stay_as_they_were() -> None:
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    expected = torch.get_rng_state()
    drive(botorch(3), [Weather(0.3)])
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.get_num_threads() == threads


def test_too_few_images_are_served_and_teach_nothing(before: Outcome) -> None:
    (outcome,) = drive(botorch(), [Weather(0.9)], images=7, state=before.state)
    assert outcome.trigger == "too_few_images"
    assert outcome.forward_equivalents == 1.0
    assert outcome.state == dataclasses.replace(before.state, batches=3)


@pytest.mark.parametrize("broken_from", [0, 1], ids=["all", "alternatives"])
def test_logits_that_are_not_finite_keep_the_alpha_or_are_passed_over(before: Outcome, broken_from: int) -> None:
    def answer(index: int, images: Tensor) -> Tensor:
        is_first = index == before.state.alpha_index
        return logits(index, images) if is_first and broken_from else torch.full((len(images), 1000), torch.nan)

    (outcome,) = drive(botorch(), [Weather(0.9)], state=before.state, answer=answer)
    assert outcome.index == before.state.alpha_index
    if broken_from:
        assert {o.index for o in outcome.state.observations if o.batch == 2} == {outcome.index}
    else:
        assert outcome.trigger == "not_finite"
        assert outcome.state == dataclasses.replace(before.state, batches=3)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6])
def test_values_that_no_process_fits_do_not_stop_the_stream(scale: float) -> None:
    def answer(index: int, images: Tensor) -> Tensor:
        return torch.full((len(images), 1000), scale * (index + 1) ** 2, dtype=torch.float64)

    (outcome,) = drive(botorch(2), [Weather(0.5)], answer=answer)
    assert len(outcome.trials) == 2


def test_where_no_fit_succeeds_the_hyper_parameters_of_warm_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(mll: object) -> None:
        raise ModelFittingError("All attempts to fit the model have failed.")

    monkeypatch.setattr("adawise.adapt.strategies.botorch.fit_gpytorch_mll", fails)
    outcomes = drive(botorch(), [Weather(0.2)] * 4)
    assert abs(alphas(outcomes)[-1] - 0.2) <= 0.2
    assert max(len(outcome.trials) for outcome in outcomes) > 2
