"""The condition of a stream and the belief about its curve: before a batch, from its level, and after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from adawise.adapt.change import Hypotheses, Level
from adawise.adapt.conditions import Appearance, KnownCondition
from adawise.adapt.disagreement import Disagreement
from adawise.adapt.state import StreamState
from adawise.adapt.surrogate import Array, Belief, Surrogate

_HAZARDS = (0.005, 0.2)  # bounds of the learned hazard
_HAZARD_BATCHES = (10.0, 25.0)  # batches that the hazard averages over while it rises, and while it falls
_DRIFTED_BATCHES = 20.0  # of usual drift that happen within one, if the curve drifts
_DRIFTINGS = (0.001, 0.999)  # bounds of the probability of drifting
_FORGOTTEN, _RARE = 0.003, 0.1  # share forgotten per batch about drifting, and the probability that it returns to
_AWAY_BATCHES = 2.0  # of usual drift between a condition's end and its return
_UNLIKELY = 20.0  # log odds: a condition that looks so different needs no curve of its own
_LEVEL_BATCHES = 4  # most batches that a returned condition's old level counts as
_RETURN_SD = 0.1  # nats: standard deviation of a condition's level between its visits


@dataclass(frozen=True)
class Expectations:
    """The beliefs of one search about the condition of a stream.

    Attributes:
        surrogate: the prior over curves.
        hazard: probability of a jump before the stream has learned its own.
        drifting: probability of drifting before the stream has learned its own; 0 means never.
        conditions: how many conditions a stream remembers.
    """

    surrogate: Surrogate
    hazard: float
    drifting: float
    conditions: int

    def before(self, state: StreamState, appearance: Appearance | None) -> Hypotheses:
        """Return the hypotheses before a batch is evaluated, weighed by its appearance."""
        if state.belief is None:
            return Hypotheses((self._prior,), (0.0,))
        beliefs, logs = self._same(state, state.belief)
        if not state.hazard:
            return Hypotheses(beliefs, logs, len(logs))
        known: tuple[KnownCondition, ...] = ()
        others = [math.log(state.hazard)]
        if appearance is not None and state.looks is not None:
            known = state.memory.known
            shares = zip(state.memory.shares(), state.looks.evidence(appearance, known), strict=True)
            others = [math.log(state.hazard * share) + evidence for share, evidence in shares]
        logs = tuple(math.log1p(-state.hazard) + log for log in logs)
        least = max(*logs, *others) - _UNLIKELY
        returned = [
            self.surrogate.advance(self.surrogate.restore(k.curve), _AWAY_BATCHES) if log > least else self._prior
            for k, log in zip(known, others, strict=False)
        ]
        return Hypotheses((*beliefs, *returned, self._prior), (*logs, *others), len(logs))

    def evidence(
        self,
        state: StreamState,
        hypotheses: Hypotheses,
        current: int,
        level: float,
        independent: float,
        shares: Array,
    ) -> list[float]:
        """Return the log likelihood ratio of the served level and classes, of each hypothesis over no change.

        Args:
            state: the state before the batch.
            hypotheses: those of `before`.
            current: index of the served alpha.
            level: mean objective of the batch, nats.
            independent: variance of `level` if the images were independent, nats^2.
            shares: the batch's class shares, `[64]`.
        """
        evidence = [0.0] * hypotheses.same
        if len(hypotheses.beliefs) == hypotheses.same:
            return evidence
        stayed, *returned = hypotheses.beliefs[0], *hypotheses.beliefs[hypotheses.same : -1]
        here = self._level(state, stayed, current)
        mix = state.mix.evidence(shares)
        new = mix + here.evidence(level, independent)
        for condition, belief in zip(state.memory.known, returned, strict=False):
            if belief is self._prior:  # its look alone rules it out: it has no curve to expect a level from
                evidence.append(new)
                continue
            _, sd = belief.difference(condition.alpha_index, current)
            expected = _returned_level(condition, belief, current)
            variance = sd**2 + _RETURN_SD**2
            evidence.append(mix + here.evidence_of_return(level, independent, expected, variance))
        return [*evidence, new]

    def after(
        self,
        state: StreamState,
        hypotheses: Hypotheses,
        current: int,
        level: float,
        independent: float,
        appearance: Appearance | None,
        *,
        jumped: bool,
    ) -> StreamState:
        """Return the state with the condition of the batch; after a jump the previous condition goes into memory.

        Arguments are those of `evidence`; `jumped` if the batch is taken for one of another condition.
        """
        if not jumped:  # if pixels moved alpha but nothing jumped, the level at this alpha is unknown
            return state if current == state.alpha_index else replace(state, level=state.level.restarted())
        to = self.likeliest(state, hypotheses)
        expecting = self._level(state, hypotheses.beliefs[0], current).restarted(level, independent)
        if to is not None:
            expected = _returned_level(to, hypotheses.beliefs[hypotheses.likeliest], current)
            expecting = replace(expecting, mean=expected, batches=min(to.batches, _LEVEL_BATCHES))
        restarted = replace(
            state,
            level=expecting,
            mix=state.mix.restarted(),
            disagreement=Disagreement() if to is None else to.disagreement,
        )
        if state.looks is None or state.belief is None:
            return restarted
        condition = KnownCondition(
            number=state.memory.number,
            visits=state.memory.visits,
            left=state.batches,
            curve=self.surrogate.abridge(state.belief),
            appearance=state.looks.mean,
            batches=state.looks.batches,
            level=state.level.mean,
            alpha_index=state.alpha_index,
            disagreement=state.disagreement,
        ).rounded()
        return replace(
            restarted,
            memory=state.memory.left(condition, to, keep=self.conditions),
            looks=state.looks.moved(to, appearance, 1.0 - hypotheses.jump),
        )

    def likeliest(self, state: StreamState, hypotheses: Hypotheses) -> KnownCondition | None:
        """Return the known condition that is the likeliest jump; None if a new condition is more probable."""
        place = hypotheses.likeliest
        return state.memory.known[place - hypotheses.same] if place < len(hypotheses.beliefs) - 1 else None

    def learned_drifting(self, state: StreamState, hypotheses: Hypotheses) -> float | None:
        """Return the probability of drifting after a batch.

        It is the one that the batch's probes leave, as far as these were of the same condition, and fades to a tenth.
        """
        if hypotheses.same < 2:
            return state.drifting
        before = self._drifting(state)
        drifting = before + (1.0 - hypotheses.jump) * (hypotheses.drifted - before)
        return drifting + _FORGOTTEN * (_RARE - drifting)

    @cached_property
    def _prior(self) -> Belief:
        """The belief about a new condition."""
        return self.surrogate.prior()

    def _same(self, state: StreamState, belief: Belief) -> tuple[tuple[Belief, ...], tuple[float, ...]]:
        """Return the beliefs if the condition is the same, and the logs of their probabilities given that."""
        stayed = self.surrogate.advance(belief)
        if not self.drifting:
            return (stayed,), (0.0,)
        drifting = self._drifting(state)
        drifted = self.surrogate.advance(belief, _DRIFTED_BATCHES)
        return (stayed, drifted), (math.log1p(-drifting), math.log(drifting))

    def _drifting(self, state: StreamState) -> float:
        """Return the stream's probability of drifting, or the one at first, within its bounds."""
        least, most = _DRIFTINGS
        return min(max(self.drifting if state.drifting is None else state.drifting, least), most)

    def _level(self, state: StreamState, belief: Belief, current: int) -> Level:
        """Return the level expected at `current` if the condition is the same."""
        if current == state.alpha_index:
            return state.level
        return state.level.shifted(float(belief.mean[current] - belief.mean[state.alpha_index]))


def learned_hazard(before: float, jump: float) -> float:
    """Return the hazard after a batch in which a jump had that probability; it rises faster than it falls."""
    least, most = _HAZARDS
    rising, falling = _HAZARD_BATCHES
    return min(max(before + (jump - before) / (rising if jump > before else falling), least), most)


def _returned_level(condition: KnownCondition, belief: Belief, current: int) -> float:
    """Return the level expected at `current` if that condition returned."""
    return condition.level + float(belief.mean[current] - belief.mean[condition.alpha_index])
