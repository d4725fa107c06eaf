from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adawise.adapt.disagreement import Disagreement
from adawise.adapt.probe import Probes
from tests.adapt.curves import GRID


def compared(share: float, alpha: float = 1.0, probes: int = 4) -> Disagreement:
    disagreement = Disagreement()
    for _ in range(probes):
        disagreement = disagreement.observed(alpha, share, 16)
    return disagreement


def test_before_any_comparison_alpha_may_go_to_the_end() -> None:
    assert GRID[Disagreement().highest(GRID, 0.4)] == 1.0


def test_the_more_they_differ_the_sooner_alpha_ends() -> None:
    ends = [GRID[compared(share).highest(GRID, 0.4)] for share in (0.2, 0.5, 0.7, 1.0)]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == 1.0
    assert ends[-1] <= 0.5
    assert compared(1.0).highest(GRID, 1.0) == 20, "at a limit of 1 any may differ"
    assert compared(1.0).highest((0.0,), 0.0) == 0


def test_a_few_images_alone_do_not_decide() -> None:
    assert Disagreement().observed(1.0, 0.5, 8).highest(GRID, 0.4) == 20
    assert Disagreement().observed(0.1, 1.0, 8).slope < 0.5, "near zero-shot a difference says little of the far end"


def test_it_settles_near_where_the_share_is_the_limit_whatever_the_shape() -> None:
    for power in (0.5, 1.0, 2.0):
        disagreement, served = Disagreement(), 20
        for _ in range(40):
            disagreement = disagreement.faded().observed(GRID[served], 0.8 * GRID[served] ** power, 16)
            served = disagreement.highest(GRID, 0.4)
        assert 0.8 * GRID[served] ** power == pytest.approx(0.4, abs=0.1)


def test_what_was_seen_fades_to_the_guess_and_no_more_than_some_images_count() -> None:
    disagreement = compared(0.9, probes=100)
    assert disagreement.images == pytest.approx(64.0)
    for _ in range(500):
        disagreement = disagreement.faded()
    assert disagreement.slope == pytest.approx(0.3, abs=0.05)


def test_an_image_without_finite_logits_neither_agrees_nor_differs() -> None:
    ours = torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    theirs = torch.tensor([[2.0, 1.0], [2.0, 1.0], [float("nan"), 1.0]])
    trials: Any = SimpleNamespace(evaluated={4: (np.arange(4), ours), 0: (np.array([0, 1, 3]), theirs)})
    anything: Any = None
    probes = Probes(anything, trials, 4, anything, anything, 0.0, 1, 0)
    assert probes.disagreement() == (0.5, 2)
    theirs[:] = float("inf")
    assert probes.disagreement() == (0.0, 0)
