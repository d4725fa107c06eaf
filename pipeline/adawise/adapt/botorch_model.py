"""The surrogate in BoTorch's terms: its kernel for a `SingleTaskGP`, and the Kalman form as a botorch `Model`.

BoTorch is the reference: its acquisition functions work on the Kalman surrogate through `SurrogateModel`, and a test
proves the two posteriors equal for the same data. BoTorch maximises, so both models are of minus the objective.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from torch import Tensor

from adawise.adapt.surrogate import Belief, Surrogate


class SameBatchKernel(Kernel):  # type: ignore[misc]  # gpytorch is untyped
    """1 where two inputs have the same batch number, else 0: the offset that the alphas of one batch share."""

    has_lengthscale = False

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        """`[..., n, 1]`, `[..., m, 1]` -> `[..., n, m]`, or `[..., n]` with `diag`."""
        if diag:
            return (x1 == x2).all(dim=-1).to(x1.dtype)
        return (x1.unsqueeze(-2) == x2.unsqueeze(-3)).all(dim=-1).to(x1.dtype)


def kernel(surrogate: Surrogate) -> Kernel:
    """The surrogate's covariance over inputs (alpha, batch number) `[n, 2]`, hyper-parameters set from it."""
    over_alpha = MaternKernel(nu=2.5, active_dims=(0,))
    over_time = MaternKernel(nu=0.5, active_dims=(1,))
    curve = ScaleKernel(over_alpha * over_time)
    offset = ScaleKernel(SameBatchKernel(active_dims=(1,)))
    covariance = (curve + offset).double()
    over_alpha.lengthscale = _float64(surrogate.lengthscale)  # gpytorch rounds a Python number to float32
    over_time.lengthscale = _float64(-1.0 / math.log(surrogate.persistence))
    curve.outputscale = _float64(surrogate.signal_sd**2)
    offset.outputscale = _float64(surrogate.offset_sd**2)
    return covariance


def surrogate_of(covariance: Kernel, alphas: tuple[float, ...]) -> Surrogate:
    """The surrogate whose covariance `kernel` made this, alone or as the first terms of a sum: after a fit."""
    curve, offset = covariance.kernels[:2]
    over_alpha, over_time = curve.base_kernel.kernels
    return Surrogate(
        alphas,
        lengthscale=float(over_alpha.lengthscale.detach()),
        signal_sd=math.sqrt(float(curve.outputscale.detach())),
        offset_sd=math.sqrt(float(offset.outputscale.detach())),
        persistence=math.exp(-1.0 / float(over_time.lengthscale.detach())),
    )


def _float64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class SurrogateModel(Model):
    """A `Belief` on the grid as a botorch `Model` of minus f(alpha); inputs `[..., q, 1]` are alphas of the grid."""

    def __init__(self, surrogate: Surrogate, belief: Belief) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.belief = belief
        self._alphas = torch.tensor(surrogate.alphas, dtype=torch.float64)
        self._mean = -torch.from_numpy(belief.mean[:-1])
        self._covariance = torch.from_numpy(belief.covariance[:-1, :-1])

    @property
    def num_outputs(self) -> int:
        """One: minus the objective, without the batch's offset."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """Not batched."""
        return torch.Size()

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> GPyTorchPosterior:
        """Joint posterior of minus f at `X` `[..., q, 1]`.

        Raises:
            ValueError: an alpha that is not on the grid, or a request for observation noise, which is per trial.
        """
        if output_indices not in (None, [0]) or observation_noise is not False:
            raise ValueError("the surrogate has one output, and its noise belongs to trials, not to alphas")
        indices = self._indices(X)  # [..., q]
        covariance = self._covariance[indices.unsqueeze(-1), indices.unsqueeze(-2)]  # [..., q, q]
        jitter = 1e-12 * torch.eye(indices.shape[-1], dtype=torch.float64)
        posterior = GPyTorchPosterior(MultivariateNormal(self._mean[indices], covariance + jitter))
        return posterior if posterior_transform is None else posterior_transform(posterior)

    def condition_on_observations(self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **_: Any) -> SurrogateModel:
        """The model after trials of this batch: `X` `[n, 1]`, `Y` `[n, 1]` (minus objective), `noise` `[n, 1]`."""
        belief = self.belief
        variances = torch.full_like(Y, 1e-6) if noise is None else noise
        for index, y, v in zip(
            self._indices(X).tolist(), Y.flatten().tolist(), variances.flatten().tolist(), strict=True
        ):
            belief = self.surrogate.observe(belief, index, -y, v)
        return SurrogateModel(self.surrogate, belief)

    def _indices(self, X: Tensor) -> Tensor:
        distance = (X - self._alphas).abs()  # [..., q, G]
        if (distance.min(dim=-1).values > 1e-6).any():
            raise ValueError(f"expected alphas of the grid {self.surrogate.alphas}, got {X.flatten().tolist()}")
        return distance.argmin(dim=-1)
