"""`warm`, the default: the previous batch's posterior is this batch's prior, and the previous alpha is the first trial.

Every batch is served with one forward at the current alpha. Further cost buys knowledge: a few of the images are
evaluated at another alpha, as long as the knowledge gradient (Frazier, Powell and Dayanik, 2009) of such a probe
exceeds its price. So a settled stream probes rarely and an uncertain one more. A jump of the served level makes it
uncertain (`adapt/change.py`), so a false alarm costs a few images and not a sweep. The search learns from differences
on the same images only; the level belongs to the batch.

None of the settings' defaults is taken from the AdaWiSE paper.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor
from typing_extensions import override

from adawise.adapt import alarm
from adawise.adapt.change import LEAST_SHARE, Hypotheses, class_shares
from adawise.adapt.conditions import Appearance, LearnedAppearance
from adawise.adapt.disagreement import Disagreement
from adawise.adapt.expectations import Expectations, learned_hazard
from adawise.adapt.probe import Probes
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search, Trial
from adawise.adapt.state import StreamState
from adawise.adapt.surrogate import Surrogate


@dataclass(frozen=True)
class Exploration:
    """The policy of exploration: when and how widely alternatives are tried.

    Attributes:
        budget: most forwards of a batch, the served one included (other strategies: evaluations of a batch).
        images: of the smallest probe (8 fill a processor's chunk; half as many would cost as much).
        every: batches after which a stream is probed although no probe promises anything.
        min_images: a smaller batch is served and teaches nothing.
        price: nats per batch that a further whole forward must promise.
        first_budget: most forwards of a stream's first batch.
        hazard: probability at first that the condition jumps between two batches; the stream learns its own.
        gain_nats: the current alpha is left only for a higher gain than this and than `gain_sd`.
        gain_sd: the same in standard deviations of the difference.
        at_once_nats: a gain above this is worth one more forward, to serve it in the batch itself.
        audit_every: batches between sweeps over six alphas.
        audit_images: images of a sweep.
        disagreement: most of zero-shot's predictions that alpha may contradict, as a share (`adapt/disagreement.py`);
            None is .45, or no cap if the objective is trusted.
        conditions: most conditions that a stream remembers beside the current one.
        pixels: use appearance statistics as evidence and to recognise conditions.
        drifting: probability at first that a stream's curve drifts; the stream learns its own. 0 means never.
        alarm: let the entropy of standardised logits cap alpha (`adapt/alarm.py`).
        tail_share: the cost of classifying an image at a second alpha, as a share of a forward; below 1 if the two
            models share their first layers (`Card.tail_share`). Prices and budgets are of whole forwards.
    """

    budget: int = 5
    images: int = 8
    every: int = 8
    min_images: int = 8
    price: float = 0.03
    first_budget: float = 1.5
    hazard: float = 0.02
    gain_nats: float = 0.005
    gain_sd: float = 0.5
    at_once_nats: float = 0.03
    audit_every: int = 200
    audit_images: int = 16
    disagreement: float | None = None
    conditions: int = 16
    pixels: bool = True
    drifting: float = 0.3
    alarm: bool = True
    tail_share: float = 1.0


_JUMPED = 0.5  # probability above which a batch counts as one of another condition
_REGRET_SD = 2.0  # an audit's regret above this many standard deviations counts as a jump
_DISAGREEMENT = 0.45  # the cap at `disagreement=None`; .3 to .6 were tried on four development pairs
_AT_FIRST = 0.5  # keys have always had this for `disagreement=None`; another number would make all streams start anew
_PINNED_FROM = 0.9  # alpha from which a stream is at the fine-tuned end
_PINNED_BATCHES = 3  # batches in a row before zero-shot is compared


@dataclass(frozen=True)
class WarmSearch(OnGrid):
    """The Kalman surrogate on the grid, and probes at a price; see the module."""

    policy: Exploration
    fitted: Surrogate | None = None

    @cached_property
    @override
    def key(self) -> str:
        policy, prior = self.policy, self.surrogate
        return self.key_of(
            "warm",
            budget=policy.budget,
            images=policy.images,
            every=policy.every,
            min_images=policy.min_images,
            price=policy.price,
            first_budget=policy.first_budget,
            hazard=policy.hazard,
            gain_nats=policy.gain_nats,
            gain_sd=policy.gain_sd,
            at_once_nats=policy.at_once_nats,
            audit_every=policy.audit_every,
            audit_images=policy.audit_images,
            disagreement=_AT_FIRST if policy.disagreement is None else policy.disagreement,
            conditions=policy.conditions,
            pixels=policy.pixels,
            drifting=policy.drifting,
            alarm=policy.alarm,
            least_share=LEAST_SHARE,
            lengthscale=prior.lengthscale,
            signal_sd=prior.signal_sd,
            offset_sd=prior.offset_sd,
            persistence=prior.persistence,
            tail_share=policy.tail_share,
        )

    @cached_property
    def surrogate(self) -> Surrogate:
        """The prior over curves: the fitted one, or the defaults."""
        return self.fitted or Surrogate(self.alphas)

    @property
    def _limit(self) -> float:
        """The share of zero-shot's predictions that alpha may contradict."""
        return _DISAGREEMENT if self.policy.disagreement is None else self.policy.disagreement

    @cached_property
    def _expectations(self) -> Expectations:
        return Expectations(self.surrogate, self.policy.hazard, self.policy.drifting, self.policy.conditions)

    @override
    def initial(self) -> StreamState:
        return StreamState(self.key, self.start, hazard=self.policy.hazard)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        # A batch of few images does not show how the scene looks.
        appearance = appearance if self.policy.pixels and images >= self.policy.min_images else None
        expectations = self._expectations
        hypotheses = expectations.before(state, appearance)
        current = self._first(state, hypotheses)
        yield from trials.evaluate([current])
        values = trials.values[current]
        level = float(values.mean())
        if not math.isfinite(level):
            return (yield from self._retreat(state, current, trials))
        if images < self.policy.min_images:
            return self._outcome(state.after_batch(state.alpha_index), trials, current, "too_few_images")

        independent = float(values.var()) / images
        shares = class_shares(trials.evaluated[current][1].argmax(dim=-1).numpy())
        hypotheses = hypotheses.weighed(expectations.evidence(state, hypotheses, current, level, independent, shares))
        trigger = self._trigger(state, hypotheses, current)
        probes = self._probes(state, trials, hypotheses, current, trigger)
        regret, reset = yield from self._probe(probes, trigger)
        jumped = probes.hypotheses.jump > _JUMPED
        before = expectations.after(state, probes.hypotheses, current, level, independent, appearance, jumped=jumped)
        disagreement = _compared(before.disagreement.faded(), probes)
        allowed = disagreement.highest(self.alphas, self._limit)
        # After a jump this curve begins anew: it belongs to the condition.
        standardised = alarm.observed(
            self.surrogate, None if jumped else before.standardised, current, trials.evaluated
        )
        highest = alarm.highest(self.surrogate, standardised, allowed) if self.policy.alarm else allowed
        # `wanted` is what the objective alone would choose, so that the trace can say if the alarm forbids it.
        wanted, _ = self._better(probes, allowed)
        if current > allowed:
            reset = "disagreement"
        elif current > highest and wanted > highest:  # else the objective itself moves away
            reset = "alarm"
        following, gain = yield from self._choose(probes, highest)
        # An alpha serves this batch only if the whole batch was evaluated at it; otherwise it serves the next one.
        served = following if probes.is_evaluated_whole(following) else current
        is_back = jumped and before.memory.visits > 1
        # the level was observed at `current`, and is expected to be higher by `shift` at `following`
        shift = float(trials.values[served].mean()) - level if served == following else -gain
        state = before.after_batch(
            following,
            quiet_batches=0 if len(trials.evaluated) > 1 else state.quiet_batches + 1,
            pinned_batches=self._pinned_batches(before, following, highest, returned=is_back),
            hazard=learned_hazard(state.hazard, probes.hypotheses.jump),
            drifting=expectations.learned_drifting(state, probes.hypotheses),
            level=before.level.observed(level, independent).shifted(shift),
            mix=before.mix.observed(shares),
            noise=probes.noise,
            disagreement=disagreement,
            standardised=standardised,
            broken=() if jumped else probes.broken,
            belief=probes.hypotheses.belief,
            looks=_with_appearance(before.looks, appearance, 0.0 if jumped else 1.0 - probes.hypotheses.jump),
        )
        trigger = "uncertain" if trigger == "none" and len(trials.evaluated) > 1 else trigger
        reset = reset or ("jump" if jumped and not is_back else None)  # a returned condition resets nothing
        outcome = self._outcome(state, trials, served, trigger, reset, regret)
        return replace(outcome, alarm=wanted > highest)

    def _retreat(self, state: StreamState, current: int, trials: BatchTrials) -> Search:
        """Return to the start's alpha after logits that are not finite; stay if that alpha is no better."""
        if current != self.start:
            yield from trials.evaluate([self.start])
            if np.isfinite(trials.values[self.start]).all():
                following = state.after_batch(self.start, broken={*state.broken, current})
                return self._outcome(following, trials, self.start, "not_finite", "not_finite")
        return self._outcome(state.after_batch(current), trials, current, "not_finite")

    def _first(self, state: StreamState, hypotheses: Hypotheses) -> int:
        """Return the alpha to serve, before anything but the pixels of the batch is known."""
        if hypotheses.jump <= _JUMPED:
            return state.alpha_index
        belief, current = hypotheses.belief, state.alpha_index
        to = self._expectations.likeliest(state, hypotheses)
        highest = (to.disagreement if to else Disagreement()).highest(self.alphas, self._limit)
        best = min({*range(highest + 1)} - {*state.broken}, key=lambda j: (belief.mean[j], j), default=current)
        gain, sd = belief.difference(best, current)
        return best if gain > max(self.policy.gain_nats, self.policy.gain_sd * sd) else current

    def _trigger(self, state: StreamState, hypotheses: Hypotheses, current: int) -> str:
        """Return why alternatives are tried now, as the trace says it."""
        if state.belief is None:
            return "start"
        if hypotheses.jump > _JUMPED:
            return "level"
        if current != 0 and self._is_pinned(state):  # at alpha 0 there is nothing to compare zero-shot with
            return "pinned"
        if (state.batches + 1) % self.policy.audit_every == 0:
            return "audit"
        return "clock" if state.quiet_batches + 1 >= self.policy.every else "none"

    def _is_pinned(self, state: StreamState) -> bool:
        """Return True if zero-shot is to be compared now: at first, then ever more rarely while it changes nothing.

        Without a cap the comparisons stay as frequent: near alpha 1 the curve can be flat, and then no nearby probe is
        worth its price.
        """
        waited, odd = divmod(state.pinned_batches - _PINNED_BATCHES, self.policy.every)
        times = waited + 1
        return times > 0 and not odd and (times & (times - 1) == 0 or self._limit >= 1.0)

    def _pinned_batches(self, before: StreamState, following: int, highest: int, *, returned: bool) -> int:
        """Return how many batches in a row alpha has been at the fine-tuned end, or as far as it may go."""
        if self.alphas[following] < _PINNED_FROM and not 0 < following == highest:
            return 0
        return max(before.pinned_batches, _PINNED_BATCHES + 1 if returned else 0) + 1  # compared on its last visit

    def _probes(
        self, state: StreamState, trials: BatchTrials, hypotheses: Hypotheses, current: int, trigger: str
    ) -> Probes:
        """Return the probes of the batch, before any was made."""
        forwards = self.policy.first_budget if trigger == "start" else self.policy.budget
        return Probes(
            self.surrogate,
            trials,
            current,
            hypotheses,
            state.noise,
            price=self.policy.price * self.policy.tail_share,
            smallest=self.policy.images,
            left=int((forwards - 1.0) * trials.images / self.policy.tail_share),
            broken=set(state.broken) - {current},  # its values in this batch are all finite
        )

    def _probe(self, probes: Probes, trigger: str) -> Generator[list[Trial], list[Tensor], tuple[float, str | None]]:
        """Probe while it is worth it; return the audit's regret (nan without one), and why the belief was reset."""
        regret, reset, images = float("nan"), None, min(self.policy.audit_images, probes.trials.images)
        if trigger == "pinned":
            yield from probes.at_zero_shot(images if self._limit < 1.0 else self.policy.images)
        if trigger == "audit":
            regret, sd = yield from probes.sweep(images)
            if regret > max(self.policy.gain_nats, _REGRET_SD * sd):
                probes.hypotheses, reset = probes.hypotheses.jumped(), "regret"
        yield from probes.while_worth(one_at_least=trigger == "clock")
        return regret, reset

    def _choose(self, probes: Probes, highest: int) -> Generator[list[Trial], list[Tensor], tuple[int, float]]:
        """Return the alpha to continue with, up to `highest`, and its expected gain.

        If the gain is large, or the current alpha is above `highest`, the alpha is first evaluated on the whole batch.
        """
        for _ in self.alphas:  # each turn but the last finds one more broken alpha
            following, gain = self._better(probes, highest)
            if gain > self.policy.at_once_nats * self.policy.tail_share or probes.current > highest:
                yield from probes.rest(following)
            if following not in probes.broken:
                return following, gain
        return probes.current, 0.0

    def _better(self, probes: Probes, highest: int) -> tuple[int, float]:
        """Return the alpha with the lowest posterior mean and its gain, or the current one and 0: hysteresis."""
        belief, current = probes.hypotheses.belief, probes.current
        whole = [j for j in range(highest + 1) if j not in probes.broken]
        best = min(whole, key=lambda j: (belief.mean[j], j), default=current)
        gain, sd = belief.difference(best, current)
        if current > highest or gain > max(self.policy.gain_nats, self.policy.gain_sd * sd):
            return best, gain
        return current, 0.0

    def _outcome(
        self,
        state: StreamState,
        trials: BatchTrials,
        served: int,
        trigger: str,
        reset: str | None = None,
        regret: float = float("nan"),
    ) -> Outcome:
        """Return the outcome of the batch at the served alpha."""
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


def _compared(disagreement: Disagreement, probes: Probes) -> Disagreement:
    """Return the disagreement after the batch, if zero-shot was evaluated on some of its images."""
    share, images = probes.disagreement()
    return disagreement.observed(probes.alphas[probes.current], share, images) if images else disagreement


def _with_appearance(
    learned: LearnedAppearance | None, appearance: Appearance | None, stayed: float
) -> LearnedAppearance | None:
    """Return the looks after a batch; a batch whose pixels were not measured teaches nothing."""
    if appearance is None:
        return learned
    return LearnedAppearance.of_first(appearance) if learned is None else learned.observed(appearance, stayed)
