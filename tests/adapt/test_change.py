from __future__ import annotations

import math

import numpy as np
import pytest

from adawise.adapt.change import LEAST_SHARE, ClassMix, Hypotheses, Level, class_shares
from adawise.adapt.surrogate import Surrogate

GRID = tuple(j / 20 for j in range(21))
SURROGATE = Surrogate(GRID)


def after(values: list[float], independent: float = 0.01) -> Level:
    level = Level()
    for value in values:
        level = level.observed(value, independent)
    return level


def test_a_level_is_the_plain_mean_at_first_and_a_running_one_later() -> None:
    assert math.isclose(after([0.5, 0.7, 0.3, 0.9]).mean, 0.6)
    long = after([0.0] * 50 + [1.0] * 50)
    assert 0.9 < long.mean < 1.0
    assert long.batches == 20


def test_the_variance_approaches_that_of_the_stream_whatever_the_guess_was() -> None:
    values = np.random.default_rng(0).normal(1.0, 0.3, size=800)
    for independent in (1e-3, 1.0):
        level = after(values.tolist(), independent)
        # memory of 20 batches: the sd of such an estimate is a quarter of it
        assert 0.04 < level.variance < 0.18


def test_the_variance_is_learned_although_each_batch_seems_to_begin_another_condition() -> None:
    level, jumped = Level().observed(1.0, 0.001), []
    for k in range(160):
        value = 1.0 + 0.4 * (-1) ** k
        jumped.append(level.evidence(value, 0.001) > 2.0)
        level = (level.restarted(value, 0.001) if jumped[-1] else level).observed(value, 0.001)
    assert all(jumped[:5])
    assert not any(jumped[-40:])
    assert 0.2 < level.variance**0.5 < 0.6


@pytest.mark.parametrize("every", [4, 6, 12])
def test_jumps_that_are_real_are_still_told_however_often_they_come(every: int) -> None:
    rng, level, received = np.random.default_rng(0), Level(), []
    for k in range(50 * every):
        value = 1.0 + 0.3 * (k // every % 2) + rng.normal(0.0, 0.018)
        jumped = level.evidence(value, 0.0003) > 3.0
        received += [jumped] if k % every == 0 else []
        level = (level.restarted(value, 0.0003) if jumped else level).observed(value, 0.0003)
    assert np.mean(received[1:]) > 0.95


def test_one_outlier_does_not_make_the_level_blind() -> None:
    steady = after(np.random.default_rng(0).normal(1.0, 0.1, size=200).tolist())
    assert steady.observed(50.0, 0.01).variance < 1.5 * steady.variance


def jumps(level: Level, sd: float, batches: int = 200) -> list[bool]:
    """Which batches of an ordinary scene seem to be jumps, at a hazard of .02."""
    rng, seem = np.random.default_rng(0), []
    for _ in range(batches):
        value, independent = 1.0 + sd * rng.normal(), sd**2 / 2
        seem.append(level.evidence(value, independent) > math.log(0.98 / 0.02))
        level = (level.restarted(value, independent) if seem[-1] else level).observed(value, independent)
    return seem


@pytest.mark.parametrize("sd", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("still", [500, 5000])
def test_an_ordinary_scene_is_known_again_soon_however_long_the_camera_stood_still(sd: float, still: int) -> None:
    seem = jumps(after([0.5] * still, 0.0), sd)
    assert sum(seem[:20]) <= 8
    assert not any(seem[20:])
    mix = ClassMix()
    for _ in range(still):
        mix = mix.observed(class_shares(np.zeros(32, dtype=np.int64)))
    assert mix.likeness.variance == pytest.approx(0.01 * LEAST_SHARE)


@pytest.mark.parametrize("variance", [5e-324, 1e-90, 1e-7])
def test_a_variance_that_0_2_let_fall_without_end_is_learned_again(variance: float) -> None:
    assert not any(jumps(Level(0.5, variance, 20), 0.1)[30:])
    assert Level(0.5, variance, 20).observed(0.5, 0.0).variance == pytest.approx(1e-4)


def test_a_variance_above_the_least_is_learned_as_ever_to_the_bit() -> None:
    level, rng = Level(1.0, 0.01, 20), np.random.default_rng(0)
    for value in 1.0 + 0.1 * rng.normal(size=300):
        square = (value - level.mean) ** 2 / (1.0 + 1.0 / level.batches)
        expected = 0.95 * level.variance + (1.0 - 0.95) * min(square, 9.0 * level.variance)
        level = level.observed(float(value), 0.005)
        assert level.variance == expected > LEAST_SHARE * 0.005


def test_nothing_is_told_by_the_first_batch_of_a_condition() -> None:
    assert Level().evidence(3.0, 0.01) == 0.0
    assert after([0.5] * 9).restarted().evidence(3.0, 0.01) == 0.0


def test_a_far_level_speaks_for_a_jump_and_a_near_one_against_it_within_bounds() -> None:
    level = after(np.random.default_rng(0).normal(1.0, 0.1, size=50).tolist())
    assert level.evidence(2.0, 0.01) > 5.0
    assert level.evidence(0.0, 0.01) > 5.0
    assert math.log(0.5) < level.evidence(level.mean, 0.01) < 0.0  # a jump may leave the level where it was
    assert math.isfinite(level.evidence(1e6, 0.01))


def test_a_stream_that_varies_more_is_alarmed_by_more() -> None:
    rng = np.random.default_rng(0)
    calm, wild = (after(rng.normal(1.0, sd, size=100).tolist()) for sd in (0.05, 0.5))
    assert calm.evidence(1.6, 0.01) > wild.evidence(1.6, 0.01) + 1.0


def test_a_shifted_level_expects_the_shift_and_keeps_its_variance() -> None:
    level = after([1.0, 1.1, 0.9, 1.0])
    moved = level.shifted(-0.4)
    assert math.isclose(moved.mean, level.mean - 0.4)
    assert math.isclose(moved.evidence(0.6, 0.01), level.evidence(1.0, 0.01))
    assert moved.variance == level.variance == level.restarted().variance


def batch(rng: np.random.Generator, classes: range, images: int = 32) -> list[int]:
    return [int(c) for c in rng.choice(list(classes), images)]


def test_new_classes_speak_for_a_jump_and_the_old_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    mix = ClassMix()
    for _ in range(10):
        mix = mix.observed(class_shares(np.array(batch(rng, range(0, 30)))))
    known = [mix.evidence(class_shares(np.array(batch(rng, range(0, 30))))) for _ in range(20)]
    new = [mix.evidence(class_shares(np.array(batch(rng, range(30, 60))))) for _ in range(20)]
    assert max(known) < 1.0
    assert min(new) > 3.0


def test_a_mix_more_alike_than_usual_is_no_jump() -> None:
    rng = np.random.default_rng(0)
    mix = ClassMix()
    for _ in range(10):
        mix = mix.observed(class_shares(np.array(batch(rng, range(0, 60), 8))))
    assert mix.evidence(np.asarray(mix.shares)) < 0.0


def test_shares_are_of_cells_and_sum_to_1() -> None:
    shares = class_shares(np.array([0, 64, 3, 999]))
    assert shares[0] == 0.5
    assert shares[3] == shares[999 % 64] == 0.25
    assert shares.sum() == 1.0


def steep() -> Hypotheses:
    belief = SURROGATE.observe_difference(SURROGATE.prior(), 20, 0, -0.5, 1e-3)
    return Hypotheses((belief, SURROGATE.prior()), (math.log(0.95), math.log(0.05)))


def test_a_look_that_fits_makes_a_jump_less_likely_and_one_that_contradicts_it_more() -> None:
    hypotheses = steep()
    assert hypotheses.observed(SURROGATE, 20, 0, -0.5, 0.01).jump < 0.05
    turned = hypotheses.observed(SURROGATE, 20, 0, 0.4, 0.01)
    assert turned.jump > 0.9
    assert turned.belief.mean[20] > turned.belief.mean[0]


def test_without_a_jump_in_question_a_look_is_a_kalman_update_to_the_bit() -> None:
    (stayed, _) = steep().beliefs
    probed = Hypotheses((stayed,), (0.0,)).observed(SURROGATE, 10, 0, -0.2, 0.02)
    expected = SURROGATE.observe_difference(stayed, 10, 0, -0.2, 0.02)
    assert probed.jump == 0.0
    np.testing.assert_array_equal(probed.belief.mean, expected.mean)
    np.testing.assert_array_equal(probed.belief.covariance, expected.covariance)


@pytest.mark.parametrize("evidence", [-1e9, -3.0, 0.0, 3.0, 1e9])
def test_weighing_is_the_rule_of_bayes_and_bears_any_evidence(evidence: float) -> None:
    jump = steep().weighed([0.0, evidence]).jump
    assert 0.0 <= jump <= 1.0
    if abs(evidence) < 10:
        assert math.isclose(jump / (1 - jump), 0.05 / 0.95 * math.exp(evidence))


def test_of_several_known_curves_a_look_finds_the_one_that_fits() -> None:
    prior = SURROGATE.prior()
    down, up = (SURROGATE.observe_difference(prior, 20, 0, value, 1e-3) for value in (-0.5, 0.5))
    known = Hypotheses((down, up, down, prior), (math.log(0.9), math.log(0.04), math.log(0.03), math.log(0.03)))
    assert known.likeliest == 1
    turned = known.observed(SURROGATE, 20, 0, 0.5, 0.01)
    assert turned.jump > 0.9
    assert turned.likeliest == 1
    assert turned.probabilities[1] > turned.probabilities[3] > turned.probabilities[2]
    assert turned.belief.mean[20] - turned.belief.mean[0] == pytest.approx(0.5, abs=0.1)
    assert known.jumped().jump == pytest.approx(1.0)
    assert known.jumped().likeliest == 1
    certain = known.weighed([0.0, -1e9, -1e9, -1e9])
    assert certain.jump < 1e-9
    assert certain.jumped().jump == pytest.approx(1.0), "however sure it was to have stayed"


def test_what_was_ruled_out_is_believed_again_by_as_much_evidence() -> None:
    prior = SURROGATE.prior()
    ruled_out = Hypotheses((prior, prior), (0.0, 0.0)).weighed([0.0, -1e9])
    assert ruled_out.jump < 1e-20
    assert ruled_out.weighed([0.0, 60.0]).jump > 0.99


def test_a_level_that_a_condition_had_speaks_for_its_return_and_another_one_hardly_against_it() -> None:
    level = after(np.random.default_rng(0).normal(1.0, 0.1, size=50).tolist())
    new = level.evidence(2.0, 0.01)
    assert level.evidence_of_return(2.0, 0.01, 2.0, 0.01) > new + 0.3
    assert level.evidence_of_return(2.0, 0.01, 0.0, 0.01) == pytest.approx(new + math.log(0.5), abs=1e-3)
    assert level.restarted().evidence_of_return(2.0, 0.01, 0.0, 0.01) == 0.0


def test_a_stream_that_drifted_is_in_the_same_condition() -> None:
    prior = SURROGATE.prior()
    stayed = SURROGATE.observe_difference(prior, 20, 0, -0.5, 1e-3)
    same = (stayed, SURROGATE.advance(stayed, 20.0))
    hypotheses = Hypotheses((*same, prior), (math.log(0.9), math.log(0.09), math.log(0.01)), 2)
    assert hypotheses.jump == pytest.approx(0.01)
    assert hypotheses.drifted == pytest.approx(0.09 / 0.99)
    assert hypotheses.likeliest == 2
    nearby = hypotheses.observed(SURROGATE, 20, 0, -0.37, 1e-4)
    assert nearby.drifted > 0.5
    assert nearby.jump < 0.1
    jumped = nearby.jumped()
    assert jumped.jump == pytest.approx(1.0)
    assert jumped.drifted == pytest.approx(nearby.drifted), "what is known of drifting is not lost by it"
    assert Hypotheses(same, (math.log(0.5), math.log(0.5)), 2).jump == 0.0
