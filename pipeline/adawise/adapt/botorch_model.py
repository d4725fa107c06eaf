"""The surrogate's covariance as a gpytorch kernel, for BoTorch's `SingleTaskGP` (Balandat et al., 2020).

BoTorch is the reference: a test proves that its posterior and that of the Kalman form are equal for the same data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from torch import Tensor

from adawise.adapt.surrogate import Surrogate


class SameBatchKernel(Kernel):  # type: ignore[misc]  # gpytorch is untyped
    """A kernel that is 1 for two inputs of one batch number, else 0: the offset that the alphas of a batch share."""

    has_lengthscale = False

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        """Return the covariance of `[..., n, 1]` and `[..., m, 1]`: `[..., n, m]`, or `[..., n]` with `diag`."""
        if diag:
            return (x1 == x2).all(dim=-1).to(x1.dtype)
        return (x1.unsqueeze(-2) == x2.unsqueeze(-3)).all(dim=-1).to(x1.dtype)


def kernel(surrogate: Surrogate) -> Kernel:
    """Return the surrogate's covariance over inputs (alpha, batch number) `[n, 2]`, with its hyper-parameters.

    It is the product of a Matern-5/2 over alpha and a Matern-1/2 over batches (Rasmussen and Williams, 2006, section
    4.2.1), plus the offset that the alphas of a batch share.
    """
    over_alpha = MaternKernel(nu=2.5, active_dims=(0,))
    over_time = MaternKernel(nu=0.5, active_dims=(1,))
    curve = ScaleKernel(over_alpha * over_time)
    offset = ScaleKernel(SameBatchKernel(active_dims=(1,)))
    covariance = (curve + offset).double()
    over_alpha.lengthscale = _float64(surrogate.lengthscale)  # gpytorch rounds a Python number to float32
    # Matern-1/2 is exp(-|t - t'| / l), which equals persistence^|t - t'| for this l.
    over_time.lengthscale = _float64(-1.0 / math.log(surrogate.persistence))
    curve.outputscale = _float64(surrogate.signal_sd**2)
    offset.outputscale = _float64(surrogate.offset_sd**2)
    return covariance


def surrogate_of(covariance: Kernel, alphas: tuple[float, ...]) -> Surrogate:
    """Return the surrogate of a covariance that `kernel` made, after a fit.

    The covariance may be that one alone, or have it as the first terms of a sum. A Matern-1/2 is exp(-|t - t'| / l)
    (Rasmussen and Williams, 2006, section 4.2.1), so the persistence is exp(-1 / l).
    """
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
