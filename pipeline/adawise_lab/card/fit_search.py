"""The fit of the surrogate's hyper-parameters to recorded batches, once and offline, by BoTorch on the search's kernel.

The data are mean objectives of consecutive batches at a few alphas. Such a mean is uncertain because a batch samples
its scene, and the errors of a batch's alphas are strongly correlated: they have the same images. That covariance is
measured for each batch and is a fixed part of the kernel, so sampling does not pass for a curve that moves. The fit
maximises the marginal likelihood (Rasmussen and Williams, 2006, equation 5.8) with priors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.optim.closures import get_loss_closure_with_grads
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from gpytorch.utils.warnings import NumericalWarning
from torch import Tensor

from adawise.adapt.botorch_model import kernel, surrogate_of
from adawise.adapt.objective import Values
from adawise.adapt.surrogate import Array, Surrogate

LEAST_BATCHES = 12
_WINDOW = 48  # batches in a window: those that are fitted together
_WINDOWS = 8  # most windows
_JITTER = 1e-6  # nats^2, beside the measured sampling covariance
_LONGEST = 5.0  # alpha: with a longer lengthscale every curve is a straight line on [0, 1]
_MOST_PERSISTENT = 0.9999

# (median, sd of the logarithm) of log-normal priors: wide ones, which only keep the fit of a short recording in bounds
_PRIORS = {"lengthscale": (0.5, 0.7), "signal": (0.05, 1.5), "offset": (0.05, 1.5), "memory": (20.0, 1.5)}
_STARTS = (  # lengthscale, signal_sd, offset_sd, persistence
    (0.5, 0.2, 0.2, 0.95),
    (0.2, 0.1, 0.1, 0.5),
    (1.0, 0.4, 0.05, 0.99),
)


@dataclass(frozen=True)
class Curve:
    """One batch: mean objective `[A]` over its images, and the sampling covariance `[A, A]` of these means."""

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, values: Values) -> Curve:
        """Return the curve of n >= 2 images with values `[A, n]` at A alphas."""
        return cls(values.mean(axis=1), np.atleast_2d(np.cov(values)) / values.shape[1])


def fit_search(streams: Sequence[Sequence[Curve]], alphas: Sequence[float]) -> Surrogate:
    """Return the surrogate under which the curves of these streams, batch by batch at `alphas` `[A]`, are likeliest.

    Several starts are fitted and the likeliest result is taken. Its `Surrogate.alphas` are those given.

    Raises:
        ValueError: no stream has `LEAST_BATCHES` batches, or no fit succeeded.
    """
    chosen = _windows(streams)
    best, highest = None, -math.inf
    for start in _STARTS:
        fitted = _fit(chosen, Surrogate(tuple(alphas), *start))
        likelihood = -math.inf if fitted is None else log_likelihood(streams, fitted)
        if likelihood > highest:
            best, highest = fitted, likelihood
    if best is None:
        raise ValueError("expected curves that a Gaussian process can fit, got none; record more batches")
    return best


def log_likelihood(streams: Sequence[Sequence[Curve]], surrogate: Surrogate) -> float:
    """Return the log marginal likelihood of the curves, nats per value, with the constant level that suits them."""
    model, mll = _process(_windows(streams), surrogate)
    for name, parameter in model.named_parameters():
        # Only the constant level is fitted; the hyper-parameters stay those of the surrogate.
        parameter.requires_grad_("mean_module" in name)
    optimiser = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], max_iter=20)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value: Tensor = -mll(model(*model.train_inputs), model.train_targets).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return -float(loss().detach())


def windows(lengths: Sequence[int], most: int = _WINDOWS * _WINDOW) -> list[tuple[int, slice]]:
    """Return which batches are fitted, as (stream, its batches), spread over all recorded ones.

    Windows are equally long runs of consecutive batches of one stream.

    Args:
        lengths: batches of each stream.
        most: batches in all windows together, >= `LEAST_BATCHES`.

    Raises:
        ValueError: no stream has `LEAST_BATCHES` batches.
    """
    longest = max(lengths, default=0)
    if longest < LEAST_BATCHES:
        raise ValueError(
            f"expected a stream of at least {LEAST_BATCHES} batches, the longest has {longest}. Record for longer."
        )
    length = min(_WINDOW, longest, most)
    found = [(s, slice(i, i + length)) for s, n in enumerate(lengths) for i in range(0, n - length + 1, length)]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(_WINDOWS, most // length, len(found))).round().astype(int))
    return [found[i] for i in chosen]


def _windows(streams: Sequence[Sequence[Curve]]) -> list[Sequence[Curve]]:
    return [streams[s][batches] for s, batches in windows([len(stream) for stream in streams])]


def _fit(windows: list[Sequence[Curve]], start: Surrogate) -> Surrogate | None:
    """Return the surrogate fitted from one start; None if no fit succeeded."""
    model, mll = _process(windows, start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)  # BoTorch warns when it repeats a fit that ended early
        warnings.simplefilter("ignore", NumericalWarning)
        try:
            # with an own closure BoTorch fits all windows in one optimisation; without, it may fit each on its own
            closure = get_loss_closure_with_grads(mll, dict(mll.named_parameters()))
            fit_gpytorch_mll(mll, closure=closure)
        except ModelFittingError:
            return None
    found = surrogate_of(model.covar_module, start.alphas)
    return Surrogate(
        start.alphas,
        lengthscale=min(found.lengthscale, _LONGEST),
        signal_sd=found.signal_sd,
        offset_sd=found.offset_sd,
        persistence=min(found.persistence, _MOST_PERSISTENT),
    )


def _process(windows: list[Sequence[Curve]], start: Surrogate) -> tuple[SingleTaskGP, ExactMarginalLogLikelihood]:
    """Return one process per window, with shared hyper-parameters; inputs are (alpha, batch, row) `[W, T A, 3]`."""
    T, A = len(windows[0]), len(start.alphas)
    alpha, batch = np.tile(start.alphas, T), np.repeat(np.arange(float(T)), A)
    X = torch.tensor(np.stack([alpha, batch, np.arange(float(T * A))], axis=1)).repeat(len(windows), 1, 1)
    Y = torch.tensor(np.stack([np.concatenate([curve.mean for curve in window]) for window in windows])).unsqueeze(-1)
    sampling = torch.zeros(len(windows), T * A, T * A, dtype=torch.float64)
    for w, window in enumerate(windows):
        for t, curve in enumerate(window):
            rows = slice(t * A, (t + 1) * A)
            sampling[w, rows, rows] = torch.from_numpy(curve.covariance)
    of_the_search = _with_priors(kernel(start))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)  # inputs are batches and rows on purpose, not a unit cube
        model = SingleTaskGP(
            X,
            Y,
            torch.full_like(Y, _JITTER),
            covar_module=of_the_search + _SamplingKernel(sampling),
            outcome_transform=None,
        )
    model.mean_module.constant.data = Y.mean(dim=(-2, -1))
    return model, _OnePrior(model.likelihood, model)


def _with_priors(covariance: Kernel) -> Kernel:
    curve, offset = covariance.kernels
    over_alpha, over_time = curve.base_kernel.kernels
    for module, parameter, name in (
        (over_alpha, "lengthscale", "lengthscale"),
        (over_time, "lengthscale", "memory"),
        (curve, "outputscale", "signal"),
        (offset, "outputscale", "offset"),
    ):
        median, sd = _PRIORS[name]
        module.register_prior(f"{parameter}_prior", LogNormalPrior(math.log(median), sd), parameter)
    return covariance


class _SamplingKernel(Kernel):  # type: ignore[misc]  # gpytorch is untyped
    """A fixed covariance `[W, n, n]`, indexed by the row number that is the third input."""

    has_lengthscale = False

    def __init__(self, covariance: Tensor) -> None:
        super().__init__(active_dims=(2,))
        self.register_buffer("covariance", covariance)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        i, j = x1.squeeze(-1).long(), x2.squeeze(-1).long()  # [W, n], [W, m]
        window = torch.arange(len(self.covariance)).view(-1, 1)
        fixed: Tensor = self.covariance
        if diag:
            return fixed[window, i, j]
        return fixed[window.unsqueeze(-1), i.unsqueeze(-1), j.unsqueeze(-2)]


class _OnePrior(ExactMarginalLogLikelihood):  # type: ignore[misc]  # gpytorch is untyped
    """A marginal likelihood that counts the priors once, because the windows share their hyper-parameters."""

    def _add_other_terms(self, res: Tensor, params: Any) -> Tensor:
        priors: Tensor = super()._add_other_terms(torch.zeros_like(res), params)
        return res + priors / res.numel()
