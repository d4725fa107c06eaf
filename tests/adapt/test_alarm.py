from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt import alarm
from adawise.adapt.objective import standardised_tsallis, tsallis
from adawise.adapt.surrogate import Abridged, Belief, Surrogate
from tests.adapt.curves import GRID

SURROGATE = Surrogate(GRID)
ROWS = np.arange(16)


def logits(knowledge: float, seed: int, scale: float = 1.0) -> Tensor:
    z = np.random.default_rng(seed).normal(size=(16, 30))
    z[:, 0] += knowledge
    return torch.from_numpy(z * scale)


def probed(probes: int, *, at_0: float, at_1: float, scale: float = 1.0) -> Abridged | None:
    """After batches served at alpha 1 and looked at at 0, where the models know that much."""
    curve = None
    for seed in range(probes):
        evaluated = {20: (ROWS, logits(at_1, seed, scale)), 0: (ROWS, logits(at_0, seed))}
        curve = alarm.observed(SURROGATE, curve, 20, evaluated)
    return curve


def test_scale_and_shift_of_logits_do_not_deceive_it() -> None:
    z = logits(3.0, 0)
    expected = standardised_tsallis(z)
    np.testing.assert_allclose(standardised_tsallis(z * 7.0 + 100.0), expected, atol=1e-12)
    assert tsallis(z * 7.0, 0).mean() < 0.5 * tsallis(z, 0).mean()
    assert np.isfinite(standardised_tsallis(torch.zeros(2, 3))).all(), "all classes alike"
    assert np.isnan(standardised_tsallis(torch.full((1, 3), float("nan")))).all()


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_weights_that_know_less_are_not_served_whole_however_sure_they_are(scale: float) -> None:
    highest = alarm.highest(SURROGATE, probed(4, at_0=6.0, at_1=1.0, scale=scale), 20)
    assert 0.2 <= GRID[highest] < 0.7


def test_weights_that_know_as_much_or_more_go_to_the_end() -> None:
    assert alarm.highest(SURROGATE, probed(4, at_0=3.0, at_1=3.0), 20) == 20
    assert alarm.highest(SURROGATE, probed(4, at_0=1.0, at_1=6.0), 20) == 20


def test_nothing_is_limited_before_a_look_and_a_limit_of_others_stays() -> None:
    assert alarm.highest(SURROGATE, None, 13) == 13
    assert alarm.observed(SURROGATE, None, 20, {20: (ROWS, logits(1.0, 0))}) is None
    assert alarm.highest(SURROGATE, probed(4, at_0=6.0, at_1=1.0), 2) == 2


@pytest.mark.parametrize(("most", "expected"), [(20, 16), (19, 16), (17, 16), (16, 16), (13, 13)])
def test_alpha_goes_no_further_than_a_quarter_beyond_where_it_would_be_lowest(most: int, expected: int) -> None:
    alphas = np.array(GRID)
    mean = np.append(4.0 * (alphas - 0.6) ** 2, 0.0)
    curve = SURROGATE.abridge(Belief(mean, 1e-6 * np.eye(22)))
    assert alarm.highest(SURROGATE, curve, most) == expected


def test_what_is_not_finite_teaches_nothing() -> None:
    broken = torch.full((16, 30), float("nan"))
    curve = alarm.observed(SURROGATE, None, 20, {20: (ROWS, logits(1.0, 0)), 0: (ROWS, broken)})
    assert curve is not None
    np.testing.assert_allclose(curve.mean, 0.0, atol=1e-6)
