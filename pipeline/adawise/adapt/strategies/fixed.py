"""`fixed`: one alpha for ever, as in WiSE-FT (Wortsman et al., 2022); it costs one forward, the least there is."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from adawise.adapt.conditions import Appearance
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration


@dataclass(frozen=True)
class FixedSearch(OnGrid):
    """Serve every batch at `alphas[start]`; the objective is only reported."""

    policy: Exploration | None = None  # nothing is explored

    @property
    @override
    def key(self) -> str:
        return self.key_of("fixed")

    @property
    @override
    def reach(self) -> tuple[int, ...]:
        return (self.start,)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:  # noqa: ARG002
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        yield from trials.evaluate([self.start])
        records = trials.records(self.alphas)
        return Outcome(
            state=state.after_batch(state.alpha_index),
            index=self.start,
            logits=trials.evaluated[self.start][1],
            evaluated=trials.evaluated,
            trials=records,
            objective=records[0].objective,
        )
