"""`ensemble`: the mean of the endpoints' outputs. No weights are interpolated; two forwards; nothing is searched.

What mixing outputs gives where mixing weights does not: the neighbour to compare with. There is no alpha in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration


@dataclass(frozen=True)
class EnsembleSearch(OnGrid):
    """Serve the mean of softmax(z_0 / T_0) and softmax(z_1 / T_1); `temperatures` per alpha, all 1 without a card."""

    policy: Exploration
    temperatures: tuple[float, ...] | None = None

    name: ClassVar[str] = "ensemble"

    @property
    def key(self) -> str:
        """See `Strategy.key`."""
        return self.key_of(self.name)

    def search(self, state: StreamState, images: int) -> Search:
        """See `Strategy.search`; the outcome's index is alpha 0's, and says nothing."""
        trials = BatchTrials(images, self.objective)
        ends = (0, len(self.alphas) - 1)
        yield from trials.evaluate(ends)
        log_p = [
            (trials.evaluated[j][1] / (self.temperatures[j] if self.temperatures else 1.0)).log_softmax(dim=-1)
            for j in ends
        ]
        w = self.weight(*log_p)
        return Outcome(
            state=replace(state, batches=state.batches + 1),
            index=0,
            logits=torch.logaddexp(log_p[0] + (1.0 - w).log(), log_p[1] + w.log()),
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=float("nan"),
            row_alphas=np.full(images, np.nan),
        )

    def weight(self, log_p_0: Tensor, log_p_1: Tensor) -> Tensor:
        """The fine-tuned model's share in each image's output, `[n, 1]`, in (0, 1)."""
        del log_p_1
        return torch.full((len(log_p_0), 1), 0.5)
