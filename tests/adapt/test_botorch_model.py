from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models import SingleTaskGP
from botorch.posteriors.gpytorch import GPyTorchPosterior
from torch import Tensor

from adawise.adapt.acquisition import expected_improvement
from adawise.adapt.botorch_model import SurrogateModel, kernel
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
    X = torch.tensor(GRID, dtype=torch.float64).unsqueeze(-1)
    ours = SurrogateModel(SURROGATE, believed(4.0)).posterior(X)
    covariance = reference.distribution.covariance_matrix.detach() - SURROGATE.offset_sd**2
    torch.testing.assert_close(ours.mean, reference.mean.detach(), rtol=0, atol=1e-8)
    torch.testing.assert_close(ours.distribution.covariance_matrix, covariance, rtol=0, atol=1e-8)


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


def test_conditioning_on_trials_is_the_filters_update() -> None:
    X = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    Y = torch.tensor([[-0.3], [-0.1]], dtype=torch.float64)
    noise = torch.tensor([[1e-3], [2e-3]], dtype=torch.float64)
    conditioned = SurrogateModel(SURROGATE, SURROGATE.prior()).condition_on_observations(X, Y, noise)
    belief = SURROGATE.observe(SURROGATE.observe(SURROGATE.prior(), 2, 0.3, 1e-3), 9, 0.1, 2e-3)
    np.testing.assert_array_equal(conditioned.belief.mean, belief.mean)
    np.testing.assert_array_equal(conditioned.belief.covariance, belief.covariance)


def test_log_expected_improvement_works_on_it_and_agrees_where_the_incumbent_is_certain() -> None:
    precise = Surrogate(GRID, offset_sd=1e-6)
    belief = precise.observe(precise.observe(precise.prior(), 0, 0.2, 1e-10), 10, 0.1, 1e-10)
    model = SurrogateModel(precise, belief)
    X = torch.tensor(GRID, dtype=torch.float64).view(-1, 1, 1)
    gain = LogExpectedImprovement(model, best_f=-float(belief.mean[10]))(X).exp()
    ours = expected_improvement(belief, 10)
    np.testing.assert_allclose(gain.detach().numpy()[1:10], ours[1:10], rtol=1e-4)  # the incumbent's sd is 1e-5
    assert int(gain[1:10].argmax()) == int(ours[1:10].argmax())


def test_posteriors_are_joint_over_q_and_batched() -> None:
    model = SurrogateModel(SURROGATE, believed(3.0))
    X = torch.tensor([[[0.1], [0.5]], [[0.5], [1.0]], [[0.3], [0.3]]], dtype=torch.float64)
    posterior = model.posterior(X)
    assert posterior.mean.shape == (3, 2, 1)
    P = believed(3.0).covariance
    torch.testing.assert_close(
        posterior.distribution.covariance_matrix[0],
        torch.from_numpy(P[np.ix_([1, 5], [1, 5])]),
        rtol=0,
        atol=1e-10,
    )
    assert model.num_outputs == 1
    assert model.batch_shape == torch.Size()


def test_a_posterior_transform_is_applied() -> None:
    model = SurrogateModel(SURROGATE, believed(3.0))
    X = torch.tensor([[0.5]], dtype=torch.float64)
    minus = ScalarizedPosteriorTransform(weights=torch.tensor([-2.0], dtype=torch.float64))
    doubled = model.posterior(X, posterior_transform=minus)
    torch.testing.assert_close(doubled.mean, -2.0 * model.posterior(X).mean)


def test_an_alpha_off_the_grid_and_a_request_for_noise_are_errors() -> None:
    model = SurrogateModel(SURROGATE, SURROGATE.prior())
    with pytest.raises(ValueError, match=r"expected alphas of the grid .*got \[0\.55\]"):
        model.posterior(torch.tensor([[0.55]], dtype=torch.float64))
    with pytest.raises(ValueError, match="its noise belongs to trials"):
        model.posterior(torch.tensor([[0.5]], dtype=torch.float64), observation_noise=True)
