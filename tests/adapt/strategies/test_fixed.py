from __future__ import annotations

import torch

from adawise.adapt.strategies.fixed import FixedSearch
from tests.adapt.curves import GRID, Weather, alphas, drive, objective

SEARCH = FixedSearch(GRID, objective, "test", 14)


def test_every_batch_is_served_at_the_one_alpha_with_one_forward() -> None:
    outcomes = drive(SEARCH, [Weather(0.0), Weather(1.0, level=2.0), Weather(0.3)], images=5)
    assert alphas(outcomes) == [0.7] * 3
    assert [outcome.forward_equivalents for outcome in outcomes] == [1.0] * 3
    assert [outcome.state.batches for outcome in outcomes] == [1, 2, 3]
    assert [outcome.trigger for outcome in outcomes] == ["none"] * 3


def test_the_objective_is_reported_and_changes_nothing() -> None:
    (outcome,) = drive(SEARCH, [Weather(0.0, level=0.5, depth=0.0)], images=4000)
    assert abs(outcome.objective - 0.5) < 0.02  # the mean over 4,000 images whose sd is .1
    (broken,) = drive(SEARCH, [Weather(0.0)], answer=lambda index, images: torch.full((len(images), 3), torch.nan))
    assert broken.index == 14


def test_no_other_alpha_is_in_reach() -> None:
    assert SEARCH.reach == (14,)
