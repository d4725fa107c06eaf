"""`per_cluster`: the batch is split in two by whether the endpoints agree on an image, each part with its own alpha.

Where both models give the same class, so does nearly every alpha between them: that part costs nothing more and is
served by the surer endpoint. The search spends its budget on the images in dispute alone, and its belief, which
warm-starts the next batch, is about their curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Rows, Search
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.scratch import improve, lowest
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Surrogate

_MIN_PART = 2  # images: of one alone no variance is known


@dataclass(frozen=True)
class PerClusterSearch(OnGrid):
    """Both endpoints on every image, then the search on those in dispute."""

    policy: Exploration
    fitted: Surrogate | None = None

    @property
    def key(self) -> str:
        """See `Strategy.key`."""
        budget, min_images = self.policy.budget, self.policy.min_images
        return self.key_of("per_cluster", budget=budget, min_images=min_images)

    def search(self, state: StreamState, images: int) -> Search:
        """See `Strategy.search`; the outcome's index is that of the images in dispute."""
        surrogate = self.fitted or Surrogate(self.alphas)
        trials, ends = BatchTrials(images, self.objective), (0, len(self.alphas) - 1)
        yield from trials.evaluate(ends)
        agreed = self._surer(trials)
        disputed = _disputed(trials, ends)
        belief = surrogate.prior() if state.belief is None else surrogate.advance(state.belief)
        logits, row_alphas = trials.evaluated[agreed][1].clone(), np.full(images, self.alphas[agreed])
        served, objective, evaluated, records = agreed, float("nan"), trials.evaluated, trials.records(self.alphas)
        searched = len(disputed) >= _MIN_PART and images >= self.policy.min_images
        if searched:
            part = trials.restricted(disputed)
            searched = bool(part.differences(0, _MIN_PART))
        if searched:
            belief = yield from improve(
                surrogate, belief, part, base=0, budget=self.policy.budget, minimum=_MIN_PART, rows=disputed
            )
            served = lowest(belief, part, 0, _MIN_PART)
            objective = part.objectives(_MIN_PART)[served][0]
            logits[torch.from_numpy(disputed)] = part.evaluated[served][1]
            row_alphas[disputed] = self.alphas[served]
            evaluated = part.evaluated | evaluated
            records += part.records(self.alphas)[len(ends) :]
        mean, sd = belief.curve()
        return Outcome(
            state=replace(state, alpha_index=served, batches=state.batches + 1, belief=belief),
            index=served,
            logits=logits,
            evaluated=evaluated,
            trials=records,
            objective=objective,
            trigger="every_batch" if searched else "none",
            posterior_mean=float(mean[served]),
            posterior_sd=float(sd[served]),
            row_alphas=row_alphas,
        )

    def _surer(self, trials: BatchTrials) -> int:
        """The endpoint with the lower objective on the whole batch; alpha 0 of equals, or where there is none."""
        means = {j: mean for j, (mean, _) in trials.objectives(self.policy.min_images).items() if np.isfinite(mean)}
        return min(means, key=lambda j: (means[j], j), default=0)


def _disputed(trials: BatchTrials, ends: tuple[int, int]) -> Rows:
    """The rows on which the endpoints name different classes."""
    zero, one = (trials.evaluated[j][1].argmax(dim=-1) for j in ends)
    rows: Rows = (zero != one).nonzero().flatten().numpy()
    return rows
