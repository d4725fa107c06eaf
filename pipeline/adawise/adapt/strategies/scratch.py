"""`scratch`: a search without a warm start, which uses nothing of earlier batches; it shows what a warm start is worth.

Every batch costs up to the whole budget on all its images: the first alpha, the endpoints, then what expected
improvement (Jones, Schonlau and Welch, 1998) picks under the surrogate's prior.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from adawise.adapt.conditions import Appearance
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search, Trial
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Belief, Surrogate, expected_improvement

_MIN_GAIN = 1e-3  # nats: a lower expected improvement is not worth a forward


@dataclass(frozen=True)
class ScratchSearch(OnGrid):
    """Serve the evaluated alpha with the lowest posterior mean; each batch begins anew at `start`."""

    policy: Exploration
    fitted: Surrogate | None = None

    @property
    @override
    def key(self) -> str:
        budget, min_images = self.policy.budget, self.policy.min_images
        return self.key_of("scratch", budget=budget, min_images=min_images)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:  # noqa: ARG002
        """See `Strategy.search`."""
        surrogate = self.fitted or Surrogate(self.alphas)
        trials, minimum = BatchTrials(images, self.objective), self.policy.min_images
        yield from trials.evaluate([self.start])
        too_few = images < minimum
        observable = not too_few and bool(trials.differences(self.start, minimum))
        served, belief = self.start, surrogate.prior()
        if observable:
            ends = [j for j in (0, len(self.alphas) - 1) if j != self.start][: self.policy.budget - 1]
            if ends:
                yield from trials.evaluate(ends)
            belief = yield from _improve(
                surrogate, belief, trials, base=self.start, budget=self.policy.budget, minimum=minimum
            )
            served = _lowest(belief, trials, self.start, minimum)
        mean, sd = belief.curve()
        return Outcome(
            state=state.after_batch(served),
            index=served,
            logits=trials.evaluated[served][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=trials.objectives(minimum)[served][0],
            trigger="too_few_images" if too_few else "every_batch" if observable else "not_finite",
            posterior_mean=float(mean[served]),
            posterior_sd=float(sd[served]),
        )


def _improve(
    surrogate: Surrogate,
    prior: Belief,
    trials: BatchTrials,
    *,
    base: int,
    budget: int,
    minimum: int,
) -> Generator[list[Trial], list[Tensor], Belief]:
    """Try the alphas of highest expected improvement until the budget is spent or none is promising.

    Trials are judged by their differences to `base` on the same images. The belief after all trials is returned.
    """
    while True:
        belief = prior
        for index, value, noise in trials.differences(base, minimum):
            belief = surrogate.observe(belief, index, value, noise)
        if len(trials.evaluated) >= budget:
            return belief
        gain = expected_improvement(belief, min(trials.evaluated, key=lambda j: (belief.mean[j], j)))
        gain[list(trials.evaluated)] = 0.0
        if gain.max() < _MIN_GAIN:
            return belief
        yield from trials.evaluate([int(gain.argmax())])


def _lowest(belief: Belief, trials: BatchTrials, base: int, minimum: int) -> int:
    """Return the evaluated alpha with the lowest posterior mean; the lower of equals."""
    return min((j for j, _, _ in trials.differences(base, minimum)), key=lambda j: (belief.mean[j], j))
