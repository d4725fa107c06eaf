"""`botorch`: a `SingleTaskGP` fitted on each batch, `LogExpectedImprovement` for the next alpha. BoTorch as it comes.

Warm-started: the trials of the stream's last batches are its data, the previous alpha its first trial. Every batch pays
the whole budget of forwards and some 50 ms a fit: take it as the reference for `warm`, not for two hundred cameras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood

from pipeline.adapt.botorch_model import kernel
from pipeline.adapt.objective import Objective
from pipeline.adapt.search import BatchTrials, Outcome, Search
from pipeline.adapt.state import Observation, StreamState
from pipeline.adapt.strategies.warm import Exploration
from pipeline.adapt.surrogate import Surrogate

_MEMORY_BATCHES = 6
_NOISE_FLOOR = 1e-4  # nats^2
_MIN_LOG_GAIN = -9.0  # ln nats: about the least improvement that `warm` pays for


@dataclass(frozen=True)
class BotorchSearch:
    """Fit, acquire, evaluate until the budget is spent; serve the evaluated alpha with the lowest posterior mean."""

    alphas: tuple[float, ...]
    objective: Objective
    context: str
    start: int
    policy: Exploration

    @property
    def key(self) -> str:
        """See `Strategy.key`."""
        return f"botorch/{self.context}/{self.start}/{len(self.alphas)}/{self.policy.budget}"

    def initial(self) -> StreamState:
        """See `Strategy.initial`."""
        return StreamState(self.key, self.start)

    def search(self, state: StreamState, images: int) -> Search:
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        current = state.alpha_index
        yield from trials.evaluate([current])
        too_few = images < self.policy.min_images
        model, observations = None, self._observations(trials, state.batches)
        finite = all(np.isfinite(o.value) for o in observations)
        while not too_few and finite and len(trials.evaluated) < self.policy.budget:
            with _one_thread():
                model = self._fit((*state.observations, *observations))
                following = self._acquire(model, trials, state.batches)
            if following is None:
                break
            yield from trials.evaluate([following])
            observations = self._observations(trials, state.batches)
            finite = all(np.isfinite(o.value) for o in observations)
        if too_few or not finite:
            observations = ()
        means = {o.index: o.value for o in observations}
        mean, sd = means, dict.fromkeys(means, float("nan"))
        if model is not None and observations:
            with _one_thread():
                mean, sd = self._posterior(self._fit((*state.observations, *observations)), list(means), state.batches)
        served = min(mean, key=lambda j: (mean[j], j), default=current)
        kept = tuple(o for o in state.observations if o.batch > state.batches - _MEMORY_BATCHES)
        return Outcome(
            state=replace(state, alpha_index=served, batches=state.batches + 1, observations=(*kept, *observations)),
            index=served,
            logits=trials.evaluated[served][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=trials.objectives(self.policy.min_images)[served][0],
            trigger="too_few_images" if too_few else "every_batch" if finite else "not_finite",
            posterior_mean=mean.get(served, float("nan")),
            posterior_sd=sd.get(served, float("nan")),
        )

    def _observations(self, trials: BatchTrials, batch: int) -> tuple[Observation, ...]:
        objectives = trials.objectives(self.policy.min_images)
        base = next(iter(objectives.values()))[1]
        return tuple(
            Observation(batch, index, mean, max(_NOISE_FLOOR, float((values - base).var()) / max(len(values), 1)))
            for index, (mean, values) in objectives.items()
        )

    def _fit(self, observations: tuple[Observation, ...]) -> SingleTaskGP:
        X = torch.tensor([[self.alphas[o.index], float(o.batch)] for o in observations], dtype=torch.float64)  # [n, 2]
        Y = torch.tensor([[-o.value] for o in observations], dtype=torch.float64)  # BoTorch maximises
        noise = torch.tensor([[o.noise_variance] for o in observations], dtype=torch.float64)
        model = SingleTaskGP(
            X, Y - Y.mean(), noise, covar_module=kernel(Surrogate(self.alphas)), outcome_transform=None
        )
        if len(observations) > 2:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        model.eval()
        return model

    def _acquire(self, model: SingleTaskGP, trials: BatchTrials, batch: int) -> int | None:
        mean, _ = self._posterior(model, list(trials.evaluated), batch)
        acquisition = LogExpectedImprovement(model, best_f=-min(mean.values()))
        X = torch.tensor([[[alpha, float(batch)]] for alpha in self.alphas], dtype=torch.float64)  # [G, 1, 2]
        with torch.no_grad():
            gain = acquisition(X)
        gain[list(trials.evaluated)] = -torch.inf
        return int(gain.argmax()) if float(gain.max()) > _MIN_LOG_GAIN else None

    def _posterior(
        self, model: SingleTaskGP, indices: list[int], batch: int
    ) -> tuple[dict[int, float], dict[int, float]]:
        X = torch.tensor([[self.alphas[j], float(batch)] for j in indices], dtype=torch.float64)
        with torch.no_grad():
            posterior = model.posterior(X)
            mean, sd = -posterior.mean.flatten(), posterior.variance.flatten().sqrt()
        return dict(zip(indices, mean.tolist(), strict=True)), dict(zip(indices, sd.tolist(), strict=True))


@contextmanager
def _one_thread() -> Iterator[None]:
    """A dozen points are slower with two threads than with one, by up to ten times (measured, notes of the design)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
