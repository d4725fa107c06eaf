from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.objective import Values
from adawise.adapt.search import Outcome
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.per_cluster import PerClusterSearch
from adawise.adapt.strategies.warm import Exploration
from tests.adapt.curves import GRID, one_by_one

N, CLASSES = 32, 3
DISPUTED = np.arange(0, N, 4)  # eight of the images


def objective(logits: Tensor, alpha_index: int) -> Values:
    """The last column is the value; the others say the class."""
    return logits[:, -1].double().numpy()


def answer(optimum: float, *, agreed_at: float = 1.0, disputed: np.ndarray = DISPUTED) -> Callable[..., Tensor]:
    """Images in dispute change their class at .5 and have their lowest objective at `optimum`."""

    def logits(index: int, /, *images: Tensor) -> Tensor:
        rows = torch.cat(images).long().flatten().numpy()
        alpha = GRID[index]
        z = torch.zeros(len(rows), CLASSES)
        in_dispute = np.isin(rows, disputed)
        z[:, 0] = 20.0
        z[:, 1] = torch.from_numpy(np.where(in_dispute & (alpha > 0.5), 40.0, 0.0))
        noise = 0.01 * np.sin(np.arange(1, N + 1) * (index + 1))[rows]
        best = np.where(in_dispute, optimum, agreed_at)
        z[:, 2] = torch.from_numpy(0.2 + 0.3 * (alpha - best) ** 2 + noise)
        return z

    return logits


def served(
    optimum: float = 0.3, *, budget: int = 5, state: StreamState | None = None, n: int = N, **kwargs: object
) -> Outcome:
    strategy = PerClusterSearch(GRID, objective, "test", 10, Exploration(budget=budget))
    images = torch.arange(float(n)).reshape(n, 1)
    logits = answer(optimum, **kwargs)  # type: ignore[arg-type]
    (outcome,) = search.run([strategy.search(state or strategy.initial(), n)], [images], one_by_one(logits))
    return outcome


@pytest.mark.parametrize("optimum", [0.2, 0.8])
def test_images_in_dispute_get_an_alpha_of_their_own_and_the_others_the_surer_end(optimum: float) -> None:
    outcome = served(optimum)
    assert outcome.row_alphas is not None
    own = np.isin(np.arange(N), DISPUTED)
    assert set(outcome.row_alphas[~own]) == {1.0}
    (alpha,) = set(outcome.row_alphas[own])
    assert abs(alpha - optimum) <= 0.2
    assert alpha == GRID[outcome.index]
    for end in (alpha, 1.0):
        rows = np.flatnonzero(outcome.row_alphas == end)
        expected = answer(optimum)(GRID.index(end), torch.from_numpy(rows).float())
        assert torch.equal(outcome.logits[torch.from_numpy(rows)], expected)


def test_the_search_pays_for_the_images_in_dispute_alone() -> None:
    outcome = served(budget=5)
    assert [trial.images for trial in outcome.trials] == [N, N, *[len(DISPUTED)] * (len(outcome.trials) - 2)]
    assert 2.0 < outcome.forward_equivalents <= 2.0 + 3 * len(DISPUTED) / N


def test_the_others_are_served_by_the_end_with_the_lower_objective() -> None:
    outcome = served(agreed_at=0.0)
    assert outcome.row_alphas is not None
    assert outcome.row_alphas[1] == 0.0


@pytest.mark.parametrize("disputed", [np.array([], dtype=np.int64), np.array([5])], ids=["none", "one"])
def test_without_a_dispute_the_whole_batch_is_served_by_one_end(disputed: np.ndarray) -> None:
    outcome = served(disputed=disputed)
    assert outcome.row_alphas is not None
    assert set(outcome.row_alphas) == {1.0}
    assert (outcome.trigger, outcome.forward_equivalents) == ("none", 2.0)


def test_what_is_known_of_the_curve_warms_the_next_batch() -> None:
    first = served(0.3)
    second = served(0.3, state=first.state)
    assert second.state.batches == 2
    assert second.posterior_sd < first.posterior_sd
    assert abs(GRID[second.index] - 0.3) <= 0.1


def test_too_few_images_are_served_by_the_surer_end() -> None:
    outcome = served(n=7)
    assert (outcome.trigger, outcome.forward_equivalents) == ("none", 2.0)


@pytest.mark.parametrize("broken", [{0}, {20}, {0, 20}], ids=str)
def test_an_end_that_is_not_finite_is_not_served(broken: set[int]) -> None:
    def logits(index: int, /, *images: Tensor) -> Tensor:
        z = answer(0.3)(index, *images)
        return torch.full_like(z, torch.nan) if index in broken else z

    strategy = PerClusterSearch(GRID, objective, "test", 10, Exploration())
    images = torch.arange(float(N)).reshape(N, 1)
    (outcome,) = search.run([strategy.search(strategy.initial(), N)], [images], one_by_one(logits))
    assert outcome.row_alphas is not None
    assert bool(torch.isfinite(outcome.logits).all()) == (broken != {0, 20})
    assert outcome.state == dataclasses.replace(outcome.state, batches=1)
