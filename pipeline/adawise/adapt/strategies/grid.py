"""`grid`: every alpha of the grid on every image of every batch. It is expensive and complete: the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from adawise.adapt.conditions import Appearance
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration


@dataclass(frozen=True)
class GridSearch(OnGrid):
    """Serve each batch at the alpha whose objective is lowest on it; ties go to the lower alpha."""

    policy: Exploration

    @property
    @override
    def key(self) -> str:
        return self.key_of("grid", min_images=self.policy.min_images)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:  # noqa: ARG002
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        too_few = images < self.policy.min_images
        yield from trials.evaluate([state.alpha_index] if too_few else range(len(self.alphas)))
        means = {index: mean for index, (mean, _) in trials.objectives(self.policy.min_images).items()}
        finite = {index: mean for index, mean in means.items() if np.isfinite(mean)}
        best = min(finite, key=lambda index: (finite[index], index), default=state.alpha_index)
        return Outcome(
            state=state.after_batch(best),
            index=best,
            logits=trials.evaluated[best][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=means[best],
            trigger="too_few_images" if too_few else "every_batch" if finite else "not_finite",
        )
