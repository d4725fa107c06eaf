"""The surrogate in BoTorch's terms: its kernel for a `SingleTaskGP`.

BoTorch is the reference: a test proves its posterior and that of the Kalman form equal for the same data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from torch import Tensor

from adawise.adapt.surrogate import Surrogate


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
