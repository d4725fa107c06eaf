from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.posteriors.gpytorch import GPyTorchPosterior
from torch import Tensor

from adawise.adapt.botorch_model import kernel
from adawise.adapt.surrogate import Belief, Surrogate
from tests.adapt.dense import Trial, curve_covariance

GRID = tuple(j / 10 for j in range(11))
SURROGATE = Surrogate(GRID)
TRIALS = [  # batch 2 has none
    Trial(0.0, 5, 0.41, 1e-3),
    Trial(0.0, 0, 0.52, 2e-3),
    Trial(0.0, 10, 0.35, 1e-3),
    Trial(1.0, 10, -0.13, 4e-3),
    Trial(3.0, 10, 0.2, 1e-3),
    Trial(3.0, 4, 0.14, 3e-3),
]


def believed(until: float) -> Belief:
    """The Kalman belief at batch `until`, after its trials."""
    belief, now = SURROGATE.prior(), 0.0
    for trial in TRIALS:
        if trial.time <= until:
            belief = SURROGATE.advance(belief, trial.time - now) if trial.time > now else belief
            now = trial.time
            belief = SURROGATE.observe(belief, trial.index, trial.value, trial.noise)
    return SURROGATE.advance(belief, until - now) if until > now else belief


def inputs(trials: list[Trial]) -> Tensor:
    return torch.tensor([[GRID[t.index], t.time] for t in trials], dtype=torch.float64)


@pytest.fixture(scope="module")
def process() -> SingleTaskGP:
    """BoTorch's own process over (alpha, batch number), of minus the objective, with a mean of 0."""
    model = SingleTaskGP(
        inputs(TRIALS),
        -torch.tensor([[t.value] for t in TRIALS], dtype=torch.float64),
        torch.tensor([[t.noise] for t in TRIALS], dtype=torch.float64),
        covar_module=kernel(SURROGATE),
        outcome_transform=None,
    )
    model.mean_module.constant.data.zero_()
    model.eval()
    return model


def posterior(model: SingleTaskGP, X: Tensor) -> GPyTorchPosterior:
    result = model.posterior(X)
    assert isinstance(result, GPyTorchPosterior)
    return result


def at(time: float) -> Tensor:
    return torch.tensor([[alpha, time] for alpha in GRID], dtype=torch.float64)


def test_the_kernel_is_the_formula_in_double_precision() -> None:
    K = kernel(SURROGATE)(inputs(TRIALS)).to_dense().detach()
    for i, x in enumerate(TRIALS):
        for j, y in enumerate(TRIALS):
            formula = curve_covariance(SURROGATE, GRID[x.index], x.time, GRID[y.index], y.time)
            formula += SURROGATE.offset_sd**2 * (x.time == y.time)
            assert abs(K[i, j].item() - formula) < 1e-12
    diagonal = kernel(SURROGATE)(inputs(TRIALS), diag=True).detach()
    torch.testing.assert_close(diagonal, K.diagonal(), rtol=0, atol=1e-12)


def test_the_model_of_the_next_batch_is_botorchs_process_without_the_offset_of_that_batch(
    process: SingleTaskGP,
) -> None:
    """Nothing of batch 4 was seen: its offset adds its variance to every pair of alphas, and nothing to the mean."""
    reference = posterior(process, at(4.0))
    ours = believed(4.0)
    covariance = reference.distribution.covariance_matrix.detach() - SURROGATE.offset_sd**2
    mean = -reference.mean.detach().flatten()  # BoTorch maximises
    torch.testing.assert_close(torch.from_numpy(ours.mean[:-1]), mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.from_numpy(ours.covariance[:-1, :-1]), covariance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("time", [3.0])
def test_within_a_batch_botorchs_process_is_the_curve_and_the_offset_together(
    process: SingleTaskGP, time: float
) -> None:
    belief = believed(time)
    reference = posterior(process, at(time))
    sum_of = np.hstack([np.eye(11), np.ones((11, 1))])  # f + b
    torch.testing.assert_close(
        reference.mean.detach().flatten(), torch.from_numpy(-sum_of @ belief.mean), rtol=0, atol=1e-8
    )
    covariance = torch.from_numpy(sum_of @ belief.covariance @ sum_of.T)
    torch.testing.assert_close(reference.distribution.covariance_matrix.detach(), covariance, rtol=0, atol=1e-8)
