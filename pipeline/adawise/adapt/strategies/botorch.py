"""`botorch`: a `SingleTaskGP` fitted on each batch and `LogExpectedImprovement` for the next alpha.

This is BoTorch as it comes (Balandat et al., 2020; the acquisition is that of Ament et al., 2023). It is warm-started:
the trials of the stream's last batches are its data, and the previous alpha is its first trial. Every batch costs up to
the whole budget of forwards and some 200 ms for a fit (measured, 35 trials). So it is a reference for `warm`, not for
many cameras.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.exceptions.errors import ModelFittingError
from botorch.exceptions.warnings import OptimizationWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.utils.warnings import NumericalWarning
from typing_extensions import override

from adawise.adapt.botorch_model import kernel
from adawise.adapt.conditions import Appearance
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search
from adawise.adapt.state import Observation, StreamState
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Surrogate

MEMORY_BATCHES = 6  # batches whose trials are data
_NOISE_FLOOR = 1e-4  # nats^2
_MIN_LOG_GAIN = -9.0  # ln nats: about the least improvement that `warm` pays for


@dataclass(frozen=True)
class BotorchSearch(OnGrid):
    """Fit, acquire and evaluate until the budget is spent; serve the evaluated alpha with the lowest posterior mean."""

    policy: Exploration

    @property
    @override
    def key(self) -> str:
        return self.key_of("botorch", budget=self.policy.budget)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:  # noqa: ARG002
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        current, batch = state.alpha_index, state.batches
        yield from trials.evaluate([current])
        too_few = images < self.policy.min_images
        observations = () if too_few else self._observations(trials, batch)
        served, mean, sd = current, float("nan"), float("nan")
        while observations:
            with _small_scale():
                model = self._fit((*state.observations, *observations))
                means, sds = self._posterior(model, [o.index for o in observations], batch)
                served = min(means, key=lambda j: (means[j], j))
                mean, sd = means[served], sds[served]
                following = self._acquire(model, trials, mean, batch)
            if following is None:
                break
            yield from trials.evaluate([following])
            observations = self._observations(trials, batch)
        kept = tuple(o for o in state.observations if o.batch > batch - MEMORY_BATCHES)
        return Outcome(
            state=state.after_batch(served, observations=(*kept, *observations)),
            index=served,
            logits=trials.evaluated[served][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=trials.objectives(self.policy.min_images)[served][0],
            trigger="too_few_images" if too_few else "every_batch" if observations else "not_finite",
            posterior_mean=mean,
            posterior_sd=sd,
        )

    def _observations(self, trials: BatchTrials, batch: int) -> tuple[Observation, ...]:
        """Return the trials so far that have an objective; none if the current alpha, the first one, has none."""
        objectives = trials.objectives(self.policy.min_images)
        base_mean, base = next(iter(objectives.values()))
        if not np.isfinite(base_mean):
            return ()
        return tuple(
            Observation(batch, index, mean, max(_NOISE_FLOOR, float((values - base).var()) / len(values)))
            for index, (mean, values) in objectives.items()
            if np.isfinite(mean)
        )

    def _fit(self, observations: tuple[Observation, ...]) -> SingleTaskGP:
        """Return the process fitted to the observations; if no fit succeeds, with the hyper-parameters of `warm`."""
        model = self._process(observations)
        if len(observations) > 2:
            try:
                fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            except ModelFittingError:
                model = self._process(observations)
        model.eval()
        return model

    def _process(self, observations: tuple[Observation, ...]) -> SingleTaskGP:
        X = torch.tensor([[self.alphas[o.index], float(o.batch)] for o in observations], dtype=torch.float64)  # [n, 2]
        Y = torch.tensor([[-o.value] for o in observations], dtype=torch.float64)  # BoTorch maximises
        noise = torch.tensor([[o.noise_variance] for o in observations], dtype=torch.float64)
        return SingleTaskGP(X, Y - Y.mean(), noise, covar_module=kernel(Surrogate(self.alphas)), outcome_transform=None)

    def _acquire(self, model: SingleTaskGP, trials: BatchTrials, lowest: float, batch: int) -> int | None:
        """Return the alpha to try next; None if the budget is spent or no alpha promises to get below `lowest`."""
        if len(trials.evaluated) >= self.policy.budget:
            return None
        acquisition = LogExpectedImprovement(model, best_f=-lowest)
        X = torch.tensor([[[alpha, float(batch)]] for alpha in self.alphas], dtype=torch.float64)  # [G, 1, 2]
        with torch.no_grad():
            gain = acquisition(X)
        gain[list(trials.evaluated)] = -torch.inf
        return int(gain.argmax()) if float(gain.max()) > _MIN_LOG_GAIN else None

    def _posterior(
        self, model: SingleTaskGP, indices: list[int], batch: int
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Return posterior means and standard deviations of the objective by alpha index, nats."""
        X = torch.tensor([[self.alphas[j], float(batch)] for j in indices], dtype=torch.float64)
        with torch.no_grad():
            posterior = model.posterior(X)
            mean, sd = -posterior.mean.flatten(), posterior.variance.flatten().sqrt()
        return dict(zip(indices, mean.tolist(), strict=True)), dict(zip(indices, sd.tolist(), strict=True))


@contextmanager
def _small_scale() -> Iterator[None]:
    """Run on one thread and without warnings.

    With a dozen points two threads are slower than one, by up to ten times (measured). BoTorch warns of a fit that
    ended early and repeats it; it warns of a variance that rounding made negative and takes 0.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizationWarning)
            warnings.simplefilter("ignore", NumericalWarning)
            yield
    finally:
        torch.set_num_threads(threads)
