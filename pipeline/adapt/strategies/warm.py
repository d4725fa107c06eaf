"""`warm`, the default: the previous batch's posterior is this batch's prior, the previous alpha is the first trial.

Every batch is served with one forward at the current alpha. What else is spent buys knowledge: a few of its images are
passed at another alpha, as long as the knowledge gradient of such a look exceeds its price. So a settled stream looks
rarely, an uncertain one more, and a jump of the served level makes it uncertain (`adapt/change.py`): a false alarm
costs a few images, not a sweep. Only differences on the same images are learned from; the level belongs to the batch.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from pipeline.adapt.change import Hypotheses
from pipeline.adapt.look import Looks
from pipeline.adapt.objective import Objective
from pipeline.adapt.search import BatchTrials, Outcome, Search, Trial
from pipeline.adapt.state import StreamState
from pipeline.adapt.surrogate import Surrogate


@dataclass(frozen=True)
class Exploration:
    """When and how widely alternatives are tried.

    `budget`: forwards of a batch at most, the served one included (other strategies: evaluations of a batch). `images`:
    of the smallest look at another alpha. `every`: batches until a stream is looked at although nothing promises.
    `min_images`: a smaller batch is served and teaches nothing. `price`: nats a batch that a further forward must
    promise. `first_budget`: forwards of a stream's first batch at most. `hazard`: probability that the condition jumps
    between two batches. `gain_nats`, `gain_sd`: the current alpha is left only for a gain above both (the second in
    standard deviations of the difference). `at_once_nats`: for more than this in the batch itself, one forward more.
    `audit_every`: batches between sweeps over half the grid on `audit_images` images. `pinned`: batches at one end of
    the grid until it has to prove itself anew.
    """

    budget: int = 5
    images: int = 4
    every: int = 16
    min_images: int = 8
    price: float = 0.03
    first_budget: float = 1.5
    hazard: float = 0.02
    gain_nats: float = 0.005
    gain_sd: float = 0.5
    at_once_nats: float = 0.03
    audit_every: int = 200
    audit_images: int = 16
    pinned: int = 100


_JUMPED = 0.5  # probability from which the trace says so
_REGRET_SD = 2.0  # an audit's regret of more standard deviations than this drops the belief


@dataclass(frozen=True)
class WarmSearch:
    """The Kalman surrogate on the grid, and looks at a price; see the module."""

    alphas: tuple[float, ...]
    objective: Objective
    context: str
    start: int
    policy: Exploration
    fitted: Surrogate | None = None

    @cached_property
    def key(self) -> str:
        """See `Strategy.key`."""
        hyper_parameters = replace(self.surrogate, alphas=())
        return f"warm/{self.context}/{self.start}/{len(self.alphas)}/{self.policy}/{hyper_parameters}"

    @cached_property
    def surrogate(self) -> Surrogate:
        """The prior over objective curves."""
        return self.fitted or Surrogate(self.alphas)

    def initial(self) -> StreamState:
        """See `Strategy.initial`."""
        return StreamState(self.key, self.start)

    def search(self, state: StreamState, images: int) -> Search:
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        current = state.alpha_index
        yield from trials.evaluate([current])
        values = trials.values[current]
        level = float(values.mean())
        if images < self.policy.min_images or not math.isfinite(level):
            trigger = "too_few_images" if images < self.policy.min_images else "not_finite"
            state = replace(state, batches=state.batches + 1)
            return self._outcome(state, trials, current, trigger)

        independent = float(values.var()) / images
        hypotheses = self._expected(state).weighed(state.level.evidence(level, independent))
        trigger = self._trigger(state, hypotheses)
        looks = self._looks(state, trials, hypotheses, trigger)
        regret, reset = yield from self._look(looks, trigger)
        jumped = looks.hypotheses.jump > _JUMPED
        following, gain = yield from self._choose(looks)
        served = following if looks.seen_whole(following) else current
        shift = float(trials.values[served].mean()) - level if served == following else -gain
        before = state.level.restarted() if jumped else state.level
        state = replace(
            state,
            alpha_index=following,
            batches=state.batches + 1,
            quiet_batches=0 if len(trials.evaluated) > 1 else state.quiet_batches + 1,
            pinned_batches=state.pinned_batches + 1 if trigger != "pinned" and self._at_an_end(following) else 0,
            level=before.observed(level, independent).shifted(shift),
            noise=looks.noise,
            belief=looks.hypotheses.belief,
        )
        trigger = "uncertain" if trigger == "none" and len(trials.evaluated) > 1 else trigger
        return self._outcome(state, trials, served, trigger, reset or ("jump" if jumped else None), regret)

    def _expected(self, state: StreamState) -> Hypotheses:
        """What is believed before the batch."""
        prior = self.surrogate.prior()
        if state.belief is None:
            return Hypotheses(prior, prior, 0.0)
        if state.pinned_batches >= self.policy.pinned:
            return Hypotheses(prior, prior, 0.0)
        return Hypotheses(self.surrogate.advance(state.belief), prior, self.policy.hazard)

    def _trigger(self, state: StreamState, hypotheses: Hypotheses) -> str:
        if state.belief is None:
            return "start"
        if hypotheses.jump > _JUMPED:
            return "level"
        if state.pinned_batches >= self.policy.pinned:
            return "pinned"
        if (state.batches + 1) % self.policy.audit_every == 0:
            return "audit"
        return "clock" if state.quiet_batches + 1 >= self.policy.every else "none"

    def _looks(self, state: StreamState, trials: BatchTrials, hypotheses: Hypotheses, trigger: str) -> Looks:
        forwards = self.policy.first_budget if trigger == "start" else self.policy.budget
        return Looks(
            self.surrogate,
            trials,
            state.alpha_index,
            hypotheses,
            state.noise,
            price=self.policy.price,
            smallest=self.policy.images,
            left=int((forwards - 1.0) * trials.images),
        )

    def _look(self, looks: Looks, trigger: str) -> Generator[list[Trial], list[Tensor], tuple[float, str | None]]:
        """Look while it pays; the audit's regret (nan without one), and why the belief was reset."""
        regret, reset = float("nan"), "pinned" if trigger == "pinned" else None
        if trigger == "audit":
            regret, sd = yield from looks.sweep(min(self.policy.audit_images, looks.trials.images))
            if regret > max(self.policy.gain_nats, _REGRET_SD * sd):
                looks.hypotheses, reset = replace(looks.hypotheses, jump=1.0), "regret"
        yield from looks.while_worth(one_at_least=trigger == "clock")
        return regret, reset

    def _choose(self, looks: Looks) -> Generator[list[Trial], list[Tensor], tuple[int, float]]:
        """The alpha to go on with and its expected gain over the current one; evaluated whole if that is large."""
        while True:
            following, gain = self._better(looks)
            if gain > self.policy.at_once_nats:
                yield from looks.rest(following)
            if following not in looks.broken:
                return following, gain

    def _better(self, looks: Looks) -> tuple[int, float]:
        """The alpha with the lowest posterior mean and its gain, or the current one and 0: hysteresis."""
        belief, current = looks.hypotheses.belief, looks.current
        whole = [j for j in range(len(self.alphas)) if j not in looks.broken]
        best = min(whole, key=lambda j: (belief.mean[j], j))
        gain, sd = belief.difference(best, current)
        return (best, gain) if gain > max(self.policy.gain_nats, self.policy.gain_sd * sd) else (current, 0.0)

    def _at_an_end(self, index: int) -> bool:
        return index in (0, len(self.alphas) - 1)

    def _outcome(
        self,
        state: StreamState,
        trials: BatchTrials,
        served: int,
        trigger: str,
        reset: str | None = None,
        regret: float = float("nan"),
    ) -> Outcome:
        mean, sd = (state.belief or self.surrogate.prior()).curve()
        return Outcome(
            state=state,
            index=served,
            logits=trials.evaluated[served][1],
            evaluated=trials.evaluated,
            trials=trials.records(self.alphas),
            objective=float(trials.values[served].mean()),
            trigger=trigger,
            reset=reset,
            regret=regret,
            posterior_mean=float(mean[served]),
            posterior_sd=float(sd[served]),
        )
