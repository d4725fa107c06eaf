from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt import search
from adawise.adapt.objective import raw_entropy
from adawise.adapt.search import Outcome
from adawise.adapt.strategies.ensemble import EnsembleSearch
from adawise.adapt.strategies.ensemble_by_entropy import EnsembleByEntropySearch
from adawise.adapt.strategies.warm import Exploration
from tests.adapt.curves import GRID, one_by_one

GENERATOR = torch.Generator().manual_seed(0)
ZERO, ONE = (torch.randn(6, 4, generator=GENERATOR) * 3 for _ in range(2))


def served(strategy: EnsembleSearch, zero: Tensor = ZERO, one: Tensor = ONE) -> Outcome:
    def answer(index: int, /, *images: Tensor) -> Tensor:
        assert index in (0, 20)
        return one if index else zero

    images = torch.zeros(len(zero), 1)
    (outcome,) = search.run([strategy.search(strategy.initial(), len(zero))], [images], one_by_one(answer))
    return outcome


def ensemble(
    kind: type[EnsembleSearch] = EnsembleSearch, temperatures: tuple[float, ...] | None = None
) -> EnsembleSearch:
    return kind(GRID, raw_entropy, "test", 10, Exploration(), temperatures)


def test_the_mean_of_both_outputs_is_served_for_two_forwards() -> None:
    outcome = served(ensemble())
    torch.testing.assert_close(outcome.logits.softmax(-1), (ZERO.softmax(-1) + ONE.softmax(-1)) / 2)
    assert outcome.forward_equivalents == 2.0
    assert outcome.row_alphas is not None
    assert np.isnan(outcome.row_alphas).all()


def test_each_output_is_calibrated_before_it_is_mixed() -> None:
    T = (2.0, *[1.0] * 19, 0.5)
    outcome = served(ensemble(temperatures=T))
    torch.testing.assert_close(outcome.logits.softmax(-1), ((ZERO / 2.0).softmax(-1) + (ONE / 0.5).softmax(-1)) / 2)


def test_by_entropy_the_surer_model_weighs_more() -> None:
    sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.1, 0.0]])
    p = served(ensemble(EnsembleByEntropySearch), sure, unsure).logits.softmax(-1)
    assert p[0, 0] > (sure.softmax(-1) + unsure.softmax(-1))[0, 0] / 2
    H = [float(raw_entropy(z, 0)[0]) for z in (sure, unsure)]
    w = np.exp(-H[1]) / (np.exp(-H[0]) + np.exp(-H[1]))
    torch.testing.assert_close(p, (1.0 - w) * sure.softmax(-1) + w * unsure.softmax(-1))


def test_equally_sure_models_weigh_the_same() -> None:
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    torch.testing.assert_close(served(ensemble(EnsembleByEntropySearch), a, b).logits, served(ensemble(), a, b).logits)


@pytest.mark.parametrize("kind", [EnsembleSearch, EnsembleByEntropySearch])
def test_classes_that_both_rule_out_stay_finite(kind: type[EnsembleSearch]) -> None:
    z = torch.tensor([[500.0, -500.0, 0.0]])
    assert torch.isfinite(served(ensemble(kind), z, z).logits).all()
