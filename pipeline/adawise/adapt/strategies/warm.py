"""`warm`, the default: the previous batch's posterior is this batch's prior, the previous alpha is the first trial.

Every batch is served with one forward at the current alpha. What else is spent buys knowledge: a few of its images are
passed at another alpha, as long as the knowledge gradient of such a probe exceeds its price. So a settled stream looks
rarely, an uncertain one more, and a jump of the served level makes it uncertain (`adapt/change.py`): a false alarm
costs a few images, not a sweep. Only differences on the same images are learned from; the level belongs to the batch.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor
from typing_extensions import override

from adawise.adapt.change import Hypotheses, Level, class_shares
from adawise.adapt.conditions import Appearance, KnownCondition, Looks
from adawise.adapt.probe import Probes
from adawise.adapt.search import BatchTrials, OnGrid, Outcome, Search, Trial
from adawise.adapt.state import StreamState
from adawise.adapt.surrogate import Array, Belief, Surrogate


@dataclass(frozen=True)
class Exploration:
    """When and how widely alternatives are tried.

    `budget`: forwards of a batch at most, the served one included (other strategies: evaluations of a batch). `images`:
    of the smallest probe of another alpha (8 fill a processor's chunk: half as many would cost as much). `every`:
    batches until a stream is looked at although nothing promises.
    `min_images`: a smaller batch is served and teaches nothing. `price`: nats a batch that a further forward must
    promise. `first_budget`: forwards of a stream's first batch at most. `hazard`: probability at first that the
    condition jumps between two batches; the stream learns its own. `gain_nats`, `gain_sd`: the current alpha is left
    only for a gain above both (the second in standard deviations of the difference). `at_once_nats`: for more than this
    in the batch itself, one forward more. `audit_every`: batches between sweeps over half the grid on `audit_images`
    images. `disagreement`: an alpha pinned at the fine-tuned end is given up for `capped` batches if the zero-shot
    model contradicts it on more than this share of images; 1: never. `conditions`: that a stream remembers at most
    beside the one that it is in; 0: none. `pixels`: how a batch looks is evidence, and tells conditions apart.
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
    disagreement: float = 0.5
    capped: int = 100
    conditions: int = 16
    pixels: bool = True


_JUMPED = 0.5  # probability from which the trace says so
_REGRET_SD = 2.0  # an audit's regret of more standard deviations than this drops the belief
_HAZARDS = (0.005, 0.2)  # the least and the most that is learned
_HAZARD_BATCHES = (10.0, 25.0)  # its memory while it rises, and while it falls
_PINNED_FROM = 0.9  # alpha
_PINNED_BATCHES = 3  # in a row, before the models are compared
_AWAY_BATCHES = 5.0  # that a condition's curve has drifted by when it returns
_UNLIKELY = 20.0  # of the log: what a condition that looks so otherwise has as its curve makes no difference
_LEVEL_BATCHES = 4  # that its level of then is worth, at most
_RETURN_SD = 0.1  # nats: by how much its level differs then


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
            disagreement=policy.disagreement,
            capped=policy.capped,
            conditions=policy.conditions,
            pixels=policy.pixels,
            lengthscale=prior.lengthscale,
            signal_sd=prior.signal_sd,
            offset_sd=prior.offset_sd,
            persistence=prior.persistence,
        )

    @cached_property
    def surrogate(self) -> Surrogate:
        """The prior over objective curves."""
        return self.fitted or Surrogate(self.alphas)

    @cached_property
    def _prior(self) -> Belief:
        return self.surrogate.prior()

    @override
    def initial(self) -> StreamState:
        return StreamState(self.key, self.start, hazard=self.policy.hazard)

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
        """See `Strategy.search`."""
        trials = BatchTrials(images, self.objective)
        appearance = appearance if self.policy.pixels and images >= self.policy.min_images else None
        hypotheses = self._expected(state, appearance)
        current = self._first(state, hypotheses)
        yield from trials.evaluate([current])
        values = trials.values[current]
        level = float(values.mean())
        if not math.isfinite(level):
            return (yield from self._retreat(replace(state, alpha_index=current), trials))
        if images < self.policy.min_images:
            return self._outcome(replace(state, batches=state.batches + 1), trials, current, "too_few_images")

        independent = float(values.var()) / images
        shares = class_shares(trials.evaluated[current][1].argmax(dim=-1).numpy())
        hypotheses = hypotheses.weighed(self._evidence(state, hypotheses, current, level, independent, shares))
        trigger = self._trigger(state, hypotheses)
        probes = self._probes(state, trials, hypotheses, current, trigger)
        regret, reset = yield from self._probe(probes, trigger)
        jumped = probes.hypotheses.jump > _JUMPED
        before = self._after_jump(state, probes.hypotheses, current) if jumped else self._stayed(state, current)
        capped = self.policy.capped if reset == "disagreement" else before.capped_batches
        following, gain = yield from self._choose(probes, self.start if capped else len(self.alphas) - 1)
        served = following if probes.seen_whole(following) else current
        shift = float(trials.values[served].mean()) - level if served == following else -gain
        state = replace(
            before,
            alpha_index=following,
            batches=state.batches + 1,
            quiet_batches=0 if len(trials.evaluated) > 1 else state.quiet_batches + 1,
            pinned_batches=before.pinned_batches + 1 if self.alphas[following] >= _PINNED_FROM else 0,
            capped_batches=capped,
            hazard=self._hazard(state.hazard, probes.hypotheses.jump),
            level=before.level.observed(level, independent).shifted(shift),
            mix=before.mix.observed(shares),
            noise=probes.noise,
            broken=() if jumped else tuple(sorted(probes.broken)),
            belief=probes.hypotheses.belief,
            looks=_seen(before.looks, appearance, 0.0 if jumped else 1.0 - probes.hypotheses.jump),
        )
        trigger = "uncertain" if trigger == "none" and len(trials.evaluated) > 1 else trigger
        is_new = jumped and state.memory.visits == 1  # one that returned finds all as it was
        return self._outcome(state, trials, served, trigger, reset or ("jump" if is_new else None), regret)

    def _retreat(self, state: StreamState, trials: BatchTrials) -> Search:
        """The current alpha gave what is not finite: go back to the first one, or stay if that is no better."""
        state = replace(state, batches=state.batches + 1)
        current = state.alpha_index
        if current != self.start:
            yield from trials.evaluate([self.start])
            if np.isfinite(trials.values[self.start]).all():
                state = replace(state, alpha_index=self.start, broken=tuple(sorted({*state.broken, current})))
                return self._outcome(state, trials, self.start, "not_finite", "not_finite")
        return self._outcome(state, trials, current, "not_finite")

    def _expected(self, state: StreamState, appearance: Appearance | None) -> Hypotheses:
        """What is believed before the batch, by how its pixels look."""
        if state.belief is None:
            return Hypotheses((self._prior,), (0.0,))
        stayed = self.surrogate.advance(state.belief)
        if appearance is None or state.looks is None or not state.hazard:
            return Hypotheses.of_jump(stayed, self._prior, state.hazard)
        known, hazard = state.memory.known, state.hazard
        before = [math.log1p(-hazard), *(math.log(hazard * share) for share in state.memory.shares())]
        logs = [log + e for log, e in zip(before, state.looks.evidence(appearance, known), strict=True)]
        least = max(logs) - _UNLIKELY
        returned = [
            self.surrogate.advance(self.surrogate.restore(k.curve), _AWAY_BATCHES) if log > least else self._prior
            for k, log in zip(known, logs[1:], strict=False)
        ]
        return Hypotheses((stayed, *returned, self._prior), tuple(logs))

    def _first(self, state: StreamState, hypotheses: Hypotheses) -> int:
        """The alpha to serve before anything of the batch is known but its pixels."""
        if hypotheses.jump <= _JUMPED:
            return state.alpha_index
        belief, current, to = hypotheses.belief, state.alpha_index, self._likeliest(state, hypotheses)
        highest = self.start if to is not None and to.is_capped else len(self.alphas) - 1
        best = min({*range(highest + 1)} - {*state.broken}, key=lambda j: (belief.mean[j], j), default=current)
        gain, sd = belief.difference(best, current)
        return best if gain > max(self.policy.gain_nats, self.policy.gain_sd * sd) else current

    def _evidence(
        self,
        state: StreamState,
        hypotheses: Hypotheses,
        current: int,
        level: float,
        independent: float,
        shares: Array,
    ) -> list[float]:
        """What the served level and classes say of each hypothesis, over that of having stayed."""
        if len(hypotheses.beliefs) == 1:
            return [0.0]
        stayed, *returned, _ = hypotheses.beliefs
        here = self._stayed_level(state, stayed, current)
        mix = state.mix.evidence(shares)
        evidence = [0.0]
        for condition, belief in zip(state.memory.known, returned, strict=False):
            _, sd = belief.difference(condition.alpha_index, current)
            expected = self._returned_level(condition, belief, current)
            variance = sd**2 + _RETURN_SD**2
            evidence.append(mix + here.evidence_of_return(level, independent, expected, variance))
        return [*evidence, mix + here.evidence(level, independent)]

    def _stayed_level(self, state: StreamState, belief: Belief, current: int) -> Level:
        """The level expected at `current` if the condition stayed."""
        if current == state.alpha_index:
            return state.level
        return state.level.shifted(float(belief.mean[current] - belief.mean[state.alpha_index]))

    def _returned_level(self, condition: KnownCondition, belief: Belief, current: int) -> float:
        """The level expected at `current` if that condition returned."""
        return condition.level + float(belief.mean[current] - belief.mean[condition.alpha_index])

    def _stayed(self, state: StreamState, current: int) -> StreamState:
        """Without a jump: the level begins anew where pixels had moved alpha in vain, for it is not known there."""
        state = replace(state, capped_batches=max(0, state.capped_batches - 1))
        return state if current == state.alpha_index else replace(state, level=state.level.restarted())

    def _after_jump(self, state: StreamState, hypotheses: Hypotheses, current: int) -> StreamState:
        """In another condition: what was known of that one, or nothing; what is known of the one before is kept."""
        restarted = replace(state, level=state.level.restarted(), mix=state.mix.restarted(), capped_batches=0)
        if state.looks is None or state.belief is None:
            return restarted
        to, level, pinned = self._likeliest(state, hypotheses), restarted.level, state.pinned_batches
        if to is not None:
            expected = self._returned_level(to, hypotheses.beliefs[hypotheses.likeliest], current)
            level = replace(level, mean=expected, batches=min(to.batches, _LEVEL_BATCHES))
            pinned = max(pinned, _PINNED_BATCHES + 1)  # the models were compared when it was here before
        condition = KnownCondition(
            number=state.memory.number,
            visits=state.memory.visits,
            left=state.batches,
            curve=self.surrogate.abridge(state.belief),
            look=state.looks.mean.astype("f4"),
            batches=state.looks.batches,
            level=state.level.mean,
            alpha_index=state.alpha_index,
            is_capped=state.capped_batches > 0,
        )
        return replace(
            restarted,
            level=level,
            memory=state.memory.left(condition, to, keep=self.policy.conditions),
            looks=state.looks.moved(to),
            pinned_batches=pinned,
            capped_batches=self.policy.capped if to is not None and to.is_capped else 0,
        )

    def _likeliest(self, state: StreamState, hypotheses: Hypotheses) -> KnownCondition | None:
        """The condition that returned, if it is not a new one that is more probable."""
        place = hypotheses.likeliest
        return state.memory.known[place - 1] if place < len(hypotheses.beliefs) - 1 else None

    def _hazard(self, before: float, jump: float) -> float:
        """The hazard after a batch in which a jump had that probability."""
        least, most = _HAZARDS
        rising, falling = _HAZARD_BATCHES
        return min(max(before + (jump - before) / (rising if jump > before else falling), least), most)

    def _trigger(self, state: StreamState, hypotheses: Hypotheses) -> str:
        if state.belief is None:
            return "start"
        if hypotheses.jump > _JUMPED:
            return "level"
        if self._is_pinned(state):
            return "pinned"
        if (state.batches + 1) % self.policy.audit_every == 0:
            return "audit"
        return "clock" if state.quiet_batches + 1 >= self.policy.every else "none"

    def _is_pinned(self, state: StreamState) -> bool:
        """True if the models are to be compared now: at first, then ever more rarely while nothing is found.

        Without the guard it goes on as often: no flat curve near 1 deters this look at the far end.
        """
        waited, odd = divmod(state.pinned_batches - _PINNED_BATCHES, self.policy.every)
        times, guards = waited + 1, self.policy.disagreement < 1.0
        is_time = times > 0 and not odd and (times & (times - 1) == 0 or not guards)
        return is_time and self.alphas[state.alpha_index] >= _PINNED_FROM

    def _probes(
        self, state: StreamState, trials: BatchTrials, hypotheses: Hypotheses, current: int, trigger: str
    ) -> Probes:
        forwards = self.policy.first_budget if trigger == "start" else self.policy.budget
        return Probes(
            self.surrogate,
            trials,
            current,
            hypotheses,
            state.noise,
            price=self.policy.price,
            smallest=self.policy.images,
            left=int((forwards - 1.0) * trials.images),
            broken=set(state.broken),
        )

    def _probe(self, probes: Probes, trigger: str) -> Generator[list[Trial], list[Tensor], tuple[float, str | None]]:
        """Look while it pays; the audit's regret (nan without one), and why the belief was reset."""
        regret, reset, images = float("nan"), None, min(self.policy.audit_images, probes.trials.images)
        if trigger == "pinned" and (yield from probes.disagreement(images)) > self.policy.disagreement:
            reset = "disagreement"
        if trigger == "audit":
            regret, sd = yield from probes.sweep(images)
            if regret > max(self.policy.gain_nats, _REGRET_SD * sd):
                probes.hypotheses, reset = probes.hypotheses.jumped(), "regret"
        yield from probes.while_worth(one_at_least=trigger == "clock")
        return regret, reset

    def _choose(self, probes: Probes, highest: int) -> Generator[list[Trial], list[Tensor], tuple[int, float]]:
        """The alpha to go on with, up to `highest`, and its expected gain; evaluated whole if that is large."""
        while True:
            following, gain = self._better(probes, highest)
            if gain > self.policy.at_once_nats or probes.current > highest:
                yield from probes.rest(following)
            if following not in probes.broken:
                return following, gain

    def _better(self, probes: Probes, highest: int) -> tuple[int, float]:
        """The alpha with the lowest posterior mean and its gain, or the current one and 0: hysteresis."""
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
        mean, sd = (state.belief or self._prior).curve()
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


def _seen(looks: Looks | None, appearance: Appearance | None, stayed: float) -> Looks | None:
    """How the stream looks after a batch; of one whose pixels nobody measured nothing is learned."""
    if appearance is None:
        return looks
    return Looks.of_first(appearance) if looks is None else looks.observed(appearance, stayed)
