"""`warm`, the default: the previous batch's posterior is this batch's prior, the previous alpha is the first trial.

Most batches cost one forward: they are served at the current alpha. Alternatives are tried when the stream is new,
when the served objective leaves its predictive interval, and on a slow clock: the endpoints first (an abrupt change is
missed without them), then what expected improvement picks.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from pipeline.adapt.acquisition import expected_improvement
from pipeline.adapt.objective import Objective, Values
from pipeline.adapt.search import BatchTrials, Outcome, Rows, Search, Trial
from pipeline.adapt.state import StreamState
from pipeline.adapt.surrogate import Belief, Surrogate


@dataclass(frozen=True)
class Exploration:
    """When and how widely alternatives are tried.

    `budget`: evaluations per exploring batch, the current alpha's included. `images`: how many images of the batch an
    exploration on the clock sees; one for a cause sees them all, so that its winner can be served at once. `every`:
    batches between explorations on the clock. `min_images`: a smaller batch is served and teaches nothing.
    `level_sd`: width of the predictive interval of the served objective. `gain_nats`, `gain_sd`: an alternative must be
    better by more than both (the second in standard deviations of the difference). `surprise`: chi-square per degree of
    freedom at which what was believed is dropped.
    """

    budget: int = 5
    images: int = 8
    every: int = 8
    min_images: int = 8
    level_sd: float = 3.0
    gain_nats: float = 0.005
    gain_sd: float = 1.0
    surprise: float = 7.0


_LEVEL_BATCHES = 4  # before the level's interval means anything
_LEVEL_SD_FLOOR = 0.02  # nats: narrower than any camera is steady
_NOISE_FLOOR = 1e-4  # nats^2
_MIN_GAIN = 1e-3  # nats: less expected improvement than this is not worth a forward
_FORGET_BATCHES = 10.0  # how much older the belief is made when the level jumps


@dataclass(frozen=True)
class WarmSearch:
    """The Kalman surrogate on the grid with triggers; see the module."""

    alphas: tuple[float, ...]
    objective: Objective
    context: str
    start: int
    policy: Exploration

    @property
    def key(self) -> str:
        """See `Strategy.key`."""
        return f"warm/{self.context}/{self.start}/{len(self.alphas)}/{self.policy}"

    @property
    def surrogate(self) -> Surrogate:
        """The prior over objective curves."""
        return Surrogate(self.alphas)

    def initial(self) -> StreamState:
        """See `Strategy.initial`."""
        return StreamState(self.key, self.start)

    def search(self, state: StreamState, images: int) -> Search:
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        current = state.alpha_index
        yield from trials.evaluate([current])
        level = trials.objectives(self.policy.min_images)[current][0]
        if images < self.policy.min_images or not math.isfinite(level):
            trigger = "too_few_images" if images < self.policy.min_images else "not_finite"
            state = replace(state, batches=state.batches + 1)
            return self._outcome(state, trials, current, level, state.belief, trigger)

        belief = self.surrogate.prior() if state.belief is None else self.surrogate.advance(state.belief)
        trigger = self._trigger(state, level)
        if trigger == "none":
            state = replace(
                state.with_level(level), batches=state.batches + 1, quiet_batches=state.quiet_batches + 1, belief=belief
            )
            return self._outcome(state, trials, current, level, belief, trigger)

        if trigger == "level":
            belief = self.surrogate.advance(belief, _FORGET_BATCHES)
        rows = _spread(images, self.policy.images) if trigger == "clock" else np.arange(images)
        belief, reset = yield from self._explore(trials, rows, current, belief)
        broken = {j for j, (mean, _) in trials.objectives(self.policy.min_images).items() if not math.isfinite(mean)}
        whole = [j for j, (seen, _) in trials.evaluated.items() if len(seen) == images and j not in broken]
        served = self._better(belief, current, whole)
        following = self._better(belief, served, [j for j in range(len(self.alphas)) if j not in broken])
        level = trials.objectives(self.policy.min_images)[served][0] if served != current else level
        moved = following != current or trigger == "level"
        state = replace(state, level_count=0) if moved else state
        state = replace(
            state if following != served else state.with_level(level),
            alpha_index=following,
            batches=state.batches + 1,
            quiet_batches=0,
            belief=belief,
        )
        return self._outcome(state, trials, served, level, belief, trigger, reset)

    def _trigger(self, state: StreamState, level: float) -> str:
        if state.belief is None:
            return "start"
        if state.level_count >= _LEVEL_BATCHES:
            sd = max(math.sqrt(state.level_variance), _LEVEL_SD_FLOOR)
            if abs(level - state.level_mean) > self.policy.level_sd * sd:
                return "level"
        return "clock" if state.quiet_batches + 1 >= self.policy.every else "none"

    def _explore(
        self, trials: BatchTrials, rows: Rows, current: int, prior: Belief
    ) -> Generator[list[Trial], list[Tensor], tuple[Belief, str | None]]:
        """Try the endpoints, then what EI picks, up to the budget; the belief after it, and whether it was reset."""
        ends = [j for j in (0, len(self.alphas) - 1) if j != current][: self.policy.budget - 1]
        if ends:
            yield from trials.evaluate(ends, rows)
        reset = None
        if self.surrogate.surprise(prior, self._observations(trials, current)) > self.policy.surprise:
            prior, reset = self.surrogate.prior(), "surprise"
        while True:
            belief = prior
            for index, value, noise in self._observations(trials, current):
                belief = self.surrogate.observe(belief, index, value, noise)
            if len(trials.evaluated) >= self.policy.budget:
                return belief, reset
            incumbent = min(trials.evaluated, key=lambda j: belief.mean[j])
            gain = expected_improvement(belief, incumbent)
            gain[list(trials.evaluated)] = 0.0
            if gain.max() < _MIN_GAIN:
                return belief, reset
            yield from trials.evaluate([int(gain.argmax())], rows)

    def _observations(self, trials: BatchTrials, current: int) -> list[tuple[int, float, float]]:
        """(index, objective relative to the current alpha's, noise variance of that difference), current first.

        Relative, because only the shape of the curve over alpha is learned; the level belongs to the batch.
        """
        objectives = trials.objectives(self.policy.min_images)
        base_mean, base = objectives[current]
        return [
            (index, mean - base_mean, _noise_variance(values, base))
            for index, (mean, values) in objectives.items()
            if math.isfinite(mean)
        ]

    def _better(self, belief: Belief, current: int, candidates: list[int]) -> int:
        """The candidate with the lowest posterior mean, if its gain over `current` exceeds its own uncertainty."""
        best = min(candidates, key=lambda j: (belief.mean[j], j))
        gain, sd = belief.difference(best, current)
        return best if gain > max(self.policy.gain_nats, self.policy.gain_sd * sd) else current

    def _outcome(
        self,
        state: StreamState,
        trials: BatchTrials,
        served: int,
        objective: float,
        belief: Belief | None,
        trigger: str,
        reset: str | None = None,
    ) -> Outcome:
        mean, sd = (belief or self.surrogate.prior()).curve()
        return Outcome(
            state=state,
            index=served,
            logits=trials.evaluated[served][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=objective,
            trigger=trigger,
            reset=reset,
            posterior_mean=float(mean[served]),
            posterior_sd=float(sd[served]),
        )


def _noise_variance(values: Values, base: Values) -> float:
    """Variance of the mean of the paired differences, nats^2."""
    return max(_NOISE_FLOOR, float((values - base).var()) / len(values))


def _spread(images: int, count: int) -> Rows:
    """`count` rows spread evenly over the batch: neighbours in a camera's stream show the same thing."""
    return np.unique(np.linspace(0, images - 1, min(count, images)).round().astype(np.int64))
