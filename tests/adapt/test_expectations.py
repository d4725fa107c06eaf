"""What is expected of a batch, and what is kept of a condition that is over, by formulas written out again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from adawise.adapt.change import ClassMix, Level, class_shares
from adawise.adapt.conditions import Appearance, KnownCondition, LearnedAppearance, Memory
from adawise.adapt.disagreement import Disagreement
from adawise.adapt.expectations import Expectations, learned_hazard
from adawise.adapt.state import StreamState
from adawise.adapt.surrogate import Belief, Surrogate

SURROGATE = Surrogate(tuple(j / 20 for j in range(21)))
DAY, NIGHT = np.array([-0.8, -1.5, -0.8, 0.1, -1.9]), np.array([-2.3, -2.7, -0.7, 0.25, -2.8])
EXPECTATIONS = Expectations(SURROGATE, hazard=0.02, drifting=0.3, conditions=4)
HAZARD, DRIFTING = 0.05, 0.2


def falling(by: float) -> Belief:
    """That the objective at alpha 1 is so many nats lower than at alpha 0."""
    return SURROGATE.observe_difference(SURROGATE.prior(), 20, 0, -by, 1e-3)


def appearance_at(at: np.ndarray) -> Appearance:
    return Appearance(at, np.full(5, 0.09), 32)


def camera() -> StreamState:
    """Settled in a day at alpha .9, which came after a night at alpha .1 that was seen twice."""
    learned = LearnedAppearance.of_first(appearance_at(NIGHT)).observed(appearance_at(NIGHT)).moved(None)
    for _ in range(8):
        learned = learned.observed(appearance_at(DAY))
    night = KnownCondition(0, 2, 12, SURROGATE.abridge(falling(-0.6)), NIGHT, 7, 1.5, 2, Disagreement(30.0, 20.0))
    shares = class_shares(np.arange(32))
    return StreamState(
        "test",
        alpha_index=18,
        batches=20,
        hazard=HAZARD,
        drifting=DRIFTING,
        belief=falling(0.6),
        level=Level(1.0, 0.001, 8),
        mix=ClassMix(tuple(shares.tolist()), Level(0.9, 0.01, 8)),
        disagreement=Disagreement(40.0, 10.0),
        looks=learned,
        memory=Memory(1, 1, 2, (night,)),
    )


def same(belief: Belief, expected: Belief) -> None:
    np.testing.assert_allclose(belief.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(belief.covariance, expected.covariance, atol=1e-6)


def test_before_a_batch_it_is_the_same_as_it_was_or_drifted_or_what_is_known_or_new_by_its_pixels() -> None:
    state, seen = camera(), appearance_at(NIGHT)
    assert state.looks is not None
    assert state.belief is not None
    hypotheses = EXPECTATIONS.before(state, seen)
    (night,) = state.memory.known
    back, new = state.looks.evidence(seen, [night])
    known_share, new_share = state.memory.shares()
    assert hypotheses.same == 2
    np.testing.assert_allclose(
        hypotheses.logs,
        [
            math.log((1 - HAZARD) * (1 - DRIFTING)),
            math.log((1 - HAZARD) * DRIFTING),
            math.log(HAZARD * known_share) + back,
            math.log(HAZARD * new_share) + new,
        ],
    )
    stayed, drifted, returned, other = hypotheses.beliefs
    same(stayed, SURROGATE.advance(state.belief))
    same(drifted, SURROGATE.advance(state.belief, 20.0))
    same(returned, SURROGATE.advance(SURROGATE.restore(night.curve), 2.0))
    assert not np.allclose(returned.mean, SURROGATE.restore(night.curve).mean, rtol=1e-3), "it drifted while away"
    same(other, SURROGATE.prior())


def test_a_condition_that_looks_so_otherwise_is_not_restored() -> None:
    state = camera()
    *_, returned, new = EXPECTATIONS.before(state, appearance_at(DAY)).beliefs
    assert returned is new


def test_without_pixels_or_a_hazard_there_are_fewer_hypotheses() -> None:
    state = camera()
    without = EXPECTATIONS.before(state, None)
    assert (len(without.beliefs), without.same) == (3, 2)
    assert without.jump == pytest.approx(HAZARD)
    assert EXPECTATIONS.before(replace(state, hazard=0.0), appearance_at(NIGHT)).jump == 0.0
    never = replace(EXPECTATIONS, drifting=0.0).before(state, None)
    assert (len(never.beliefs), never.same) == (2, 1)
    (only,) = EXPECTATIONS.before(StreamState("test", alpha_index=10), appearance_at(NIGHT)).beliefs
    same(only, SURROGATE.prior())


@pytest.mark.parametrize("current", [18, 6])
def test_the_level_and_the_classes_are_evidence_for_each_other_condition(current: int) -> None:
    state, shares = camera(), class_shares(np.arange(32, 64))
    hypotheses = EXPECTATIONS.before(state, appearance_at(NIGHT))
    stayed, _, returned, _ = hypotheses.beliefs
    (night,) = state.memory.known
    found = EXPECTATIONS.evidence(state, hypotheses, current, 1.4, 0.002, shares)
    here = state.level.shifted(float(stayed.mean[current] - stayed.mean[18]))
    _, sd = returned.difference(night.alpha_index, current)
    expected = 1.5 + float(returned.mean[current] - returned.mean[2])
    mix = state.mix.evidence(shares)
    assert mix > 1.0
    back = here.evidence_of_return(1.4, 0.002, expected, sd**2 + 0.1**2)
    np.testing.assert_allclose(found, [0.0, 0.0, mix + back, mix + here.evidence(1.4, 0.002)])


def test_of_a_condition_that_its_pixels_rule_out_the_level_says_what_it_says_of_a_new_one() -> None:
    state = camera()
    hypotheses = EXPECTATIONS.before(state, appearance_at(DAY))
    *_, returned, new = EXPECTATIONS.evidence(state, hypotheses, 18, 1.4, 0.002, class_shares(np.arange(32)))
    assert returned == new


def test_what_is_over_is_remembered_and_what_returned_is_expected_as_it_was() -> None:
    state, seen = camera(), appearance_at(NIGHT)
    (night,) = state.memory.known
    hypotheses = EXPECTATIONS.before(state, seen)
    after = EXPECTATIONS.after(state, hypotheses, 2, 1.4, 0.002, seen, jumped=True)
    assert after.memory.number == 0
    assert after.memory.visits == 3
    (day,) = after.memory.known
    assert (day.number, day.visits, day.left, day.batches, day.alpha_index) == (1, 1, 20, 8, 18)
    assert day.level == pytest.approx(1.0, abs=1e-3)
    assert day.disagreement == Disagreement(40.0, 10.0)
    np.testing.assert_allclose(day.appearance, DAY, atol=2e-3)
    assert after.disagreement == night.disagreement
    assert after.mix.shares == ()
    assert after.level.mean == pytest.approx(1.5)
    assert after.level.batches == 4
    here = state.level.shifted(float(hypotheses.beliefs[0].mean[2] - hypotheses.beliefs[0].mean[18]))
    assert after.level.variance == here.restarted(1.4, 0.002).variance
    assert after.level.variance != state.level.variance
    assert state.looks is not None
    assert after.looks is not None
    np.testing.assert_array_equal(after.looks.spread, state.looks.moved(night, seen).spread)
    assert not np.array_equal(after.looks.spread, state.looks.spread)
    np.testing.assert_array_equal(after.looks.mean, night.appearance)


def test_of_what_is_new_nothing_is_expected() -> None:
    state, fog = camera(), appearance_at(DAY + 2.0)
    hypotheses = EXPECTATIONS.before(state, fog)
    assert EXPECTATIONS.likeliest(state, hypotheses) is None
    after = EXPECTATIONS.after(state, hypotheses, 18, 1.4, 0.002, fog, jumped=True)
    assert (after.memory.number, after.memory.visits, after.memory.condition_count) == (2, 1, 3)
    assert [known.number for known in after.memory.known] == [0, 1]
    assert after.disagreement == Disagreement()
    assert after.mix.shares == ()
    assert after.level.batches == 0


def test_the_less_sure_a_jump_is_the_more_it_teaches_that_looks_change() -> None:
    state, seen = replace(camera(), memory=Memory(1, 1, 2)), appearance_at(NIGHT)
    sure = EXPECTATIONS.before(state, seen)
    gaps = math.log(sure.jump / (1 - sure.jump)) + math.log(0.4 / 0.6)
    unsure = sure.weighed([gaps, gaps, 0.0])
    assert unsure.jump == pytest.approx(0.6)
    learned = EXPECTATIONS.after(state, unsure, 18, 1.4, 0.002, seen, jumped=True).looks
    assert state.looks is not None
    assert learned is not None
    assert learned.restless == pytest.approx(state.looks.restless + (0.4 - state.looks.restless) / 6, rel=1e-2)


def test_an_alpha_that_pixels_chose_in_vain_has_no_level() -> None:
    state, seen = camera(), appearance_at(NIGHT)
    hypotheses = EXPECTATIONS.before(state, seen)
    assert EXPECTATIONS.after(state, hypotheses, 18, 1.0, 0.002, seen, jumped=False) is state
    moved = EXPECTATIONS.after(state, hypotheses, 2, 1.0, 0.002, seen, jumped=False)
    assert moved == replace(state, level=replace(state.level, mean=0.0, batches=0))


def test_drifting_is_learned_as_far_as_the_condition_is_the_same() -> None:
    state = camera()
    assert state.belief is not None
    hypotheses = EXPECTATIONS.before(state, None).weighed([0.0, 3.0, 4.0])
    drifted = DRIFTING + (1 - hypotheses.jump) * (hypotheses.drifted - DRIFTING)
    assert hypotheses.drifted > 0.8
    assert 0.1 < hypotheses.jump < 0.4
    assert EXPECTATIONS.learned_drifting(state, hypotheses) == pytest.approx(drifted + 0.003 * (0.1 - drifted))
    assert replace(EXPECTATIONS, drifting=0.0).learned_drifting(
        state, replace(EXPECTATIONS, drifting=0.0).before(state, None)
    ) == pytest.approx(DRIFTING)


def test_a_hazard_rises_sooner_than_it_falls_within_bounds() -> None:
    assert learned_hazard(0.1, 1.0) == pytest.approx(0.1 + 0.9 / 10)
    assert learned_hazard(0.1, 0.0) == pytest.approx(0.1 - 0.1 / 25)
    hazard = 0.02
    for _ in range(100):
        hazard = learned_hazard(hazard, 1.0)
    assert hazard == 0.2
    for _ in range(500):
        hazard = learned_hazard(hazard, 0.0)
    assert hazard == 0.005
