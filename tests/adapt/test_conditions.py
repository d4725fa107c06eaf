from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest

from adawise.adapt.conditions import BETWEEN, Appearance, KnownCondition, LearnedAppearance, Memory
from adawise.adapt.surrogate import Surrogate

SURROGATE = Surrogate(tuple(j / 20 for j in range(21)))
DAY, NIGHT = np.array([-0.8, -1.5, -0.8, 0.1, -1.9]), np.array([-2.3, -2.7, -0.7, 0.25, -2.8])
SD, IMAGES = 0.3, 32


def batch(at: np.ndarray, rng: np.random.Generator) -> Appearance:
    images = rng.normal(at, SD, size=(IMAGES, 5))
    return Appearance(images.mean(axis=0), images.var(axis=0), IMAGES)


def after(at: np.ndarray, batches: int, seed: int = 0) -> LearnedAppearance:
    rng = np.random.default_rng(seed)
    learned = LearnedAppearance.of_first(batch(at, rng))
    for _ in range(batches - 1):
        learned = learned.observed(batch(at, rng))
    return learned


def condition(
    number: int, appearance: np.ndarray, *, visits: int = 1, left: int = 0, batches: int = 20
) -> KnownCondition:
    curve = SURROGATE.abridge(SURROGATE.prior())
    return KnownCondition(number, visits, left, curve, appearance.astype("f4"), batches, level=0.5, alpha_index=10)


def test_the_first_batches_of_a_stream_tell_nothing() -> None:
    learned = after(DAY, 1)
    assert learned.evidence(batch(NIGHT, np.random.default_rng(1)), [condition(0, NIGHT)]) == [0.0, 0.0]


def test_a_night_that_was_seen_is_told_from_a_day_and_from_what_is_new() -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    dusk = condition(1, (DAY + NIGHT) / 2)
    for _ in range(20):
        night, between, new = learned.evidence(batch(NIGHT, rng), [condition(0, NIGHT), dusk])
        assert night > 5.0
        assert between < night - 5.0
        assert 2.0 < new < night - 2.0


def test_a_batch_like_those_before_speaks_against_a_jump_within_bounds() -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    for _ in range(50):
        night, new = learned.evidence(batch(DAY, rng), [condition(0, NIGHT)])
        assert night < -5.0
        assert -1.0 <= new < 1.0


@pytest.mark.parametrize("batches", [2, 20])
@pytest.mark.parametrize("off", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("images", [32, 4])
def test_the_evidence_is_by_the_formula_of_the_module(batches: int, off: float, images: int) -> None:
    learned, night = after(DAY, batches), condition(0, NIGHT, batches=3)
    seen = Appearance(DAY + off, np.full(5, SD**2), images)
    w = [max(variance, SD**2 / images) for variance in learned.spread]

    def log_density(mean: np.ndarray, variances: Iterable[float], farthest: float = math.inf) -> float:
        each = zip(seen.mean, mean, variances, strict=True)
        return 0.6 * -0.5 * math.fsum(min((x - m) ** 2 / v, farthest) + math.log(v) for x, m, v in each)

    overall = [max(v, b**2) + u for v, b, u in zip(learned.overall_variance, BETWEEN, w, strict=True)]
    of_now = [v * (1 + 1 / learned.batches) for v in w]
    new, q = log_density(learned.overall_mean, overall), learned.restless
    stayed = math.log((1 - q) * math.exp(log_density(learned.mean, of_now, farthest=25.0)) + q * math.exp(new))
    returned = log_density(night.appearance, [v * (1 + 1 / 3) for v in w])
    assert learned.evidence(seen, [night]) == pytest.approx([returned - stayed, max(new - stayed, -1.0)])


def test_where_looks_changed_and_nothing_else_did_their_mean_begins_anew() -> None:
    learned, seen = after(DAY, 20), batch(NIGHT, np.random.default_rng(1))
    turned = learned.observed(seen, stayed=1.0)
    np.testing.assert_allclose(turned.mean, seen.mean)
    assert turned.batches == 1
    assert learned.observed(seen, stayed=0.0).batches == learned.batches


def test_the_stream_is_remembered_as_a_whole_whatever_its_conditions() -> None:
    rng = np.random.default_rng(0)
    first, *others = (batch(DAY if k % 2 else NIGHT, rng) for k in range(40))
    learned = LearnedAppearance.of_first(first)
    for seen in others:
        learned = learned.observed(seen)
    np.testing.assert_allclose(learned.overall_mean, (DAY + NIGHT) / 2, atol=0.05)
    np.testing.assert_allclose(learned.overall_variance, ((DAY - NIGHT) / 2) ** 2, atol=0.1)
    assert learned.overall_batches == 40


@pytest.mark.parametrize("far", [0.5, 4.0])
def test_the_variance_is_learned_of_each_batch_with_a_limit_also_where_a_condition_begins(far: float) -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    seen = batch(DAY + far, rng)
    squares = np.minimum((seen.mean - learned.mean) ** 2 / (1 + 1 / learned.batches), 9 * learned.spread)
    share = 1 / 24  # 20 batches and the guess, which is worth 4
    expected = np.maximum(learned.spread + share * (squares - learned.spread), 1e-4)
    np.testing.assert_allclose(learned.moved(None, seen).spread, expected)
    np.testing.assert_allclose(learned.observed(seen).spread, expected)
    np.testing.assert_array_equal(learned.moved(None).spread, learned.spread)
    np.testing.assert_allclose(learned.moved(condition(0, NIGHT), seen).spread, expected)


def test_a_slow_drift_is_followed() -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    for k in range(1, 301):
        seen = batch(DAY + (NIGHT - DAY) * k / 300, rng)
        if k > 60:
            assert learned.evidence(seen, [])[-1] < 2.0
        learned = learned.observed(seen)
    np.testing.assert_allclose(learned.mean, NIGHT, atol=0.25)


def test_where_looks_change_and_nothing_else_does_a_change_tells_ever_less() -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    received = []
    for k in range(60):
        seen = batch(NIGHT if k // 6 % 2 == 0 else DAY, rng)
        if k % 6 == 0:
            received.append(learned.evidence(seen, [])[-1])
        learned = learned.observed(seen, stayed=1.0)
    assert received[0] > 4.0
    assert received[-1] < received[0] - 1.5
    assert learned.restless > 0.03
    for _ in range(160):  # four times what it remembers
        learned = learned.observed(batch(DAY, rng), stayed=1.0)
    assert learned.restless < 0.01


def test_a_change_of_looks_that_may_have_been_nothing_else_teaches_that_looks_change() -> None:
    learned, rng = after(DAY, 20), np.random.default_rng(1)
    seen, before = batch(NIGHT, rng), learned.restless
    assert learned.moved(None, seen, stayed=0.4).restless == pytest.approx(before + (0.4 - before) / 6, rel=1e-2)
    assert (
        learned.moved(condition(0, NIGHT), seen, stayed=0.4).restless == learned.moved(None, seen, stayed=0.4).restless
    )
    assert learned.moved(None, seen, stayed=0.0).restless == pytest.approx(before - before / 40)
    assert learned.moved(None, batch(DAY, rng), stayed=0.4).restless < before, "it looks as before"
    for _ in range(4):
        learned = learned.moved(condition(0, DAY), seen, stayed=0.9)
    assert learned.restless == 0.2


def test_a_stream_whose_batches_vary_more_than_their_images_say_stops_seeing_conditions_that_are_none() -> None:
    """As a camera's do that sees one thing for a while; each batch seems new, until that is what is learned."""
    rng, learned, jumped = np.random.default_rng(2), after(DAY, 1), []
    for _ in range(120):
        seen = batch(rng.normal(DAY, 5 * SD / IMAGES**0.5), rng)
        jumped.append(learned.evidence(seen, [])[-1] > 3.0)
        learned = (learned.moved(None, seen) if jumped[-1] else learned).observed(seen)
    assert sum(jumped[:20]) >= 2
    assert sum(jumped[-60:]) <= 2
    assert learned.spread.mean() > 10 * SD**2 / IMAGES


def test_a_condition_that_returns_brings_its_look_and_a_new_one_begins_with_the_next_batch() -> None:
    learned = after(DAY, 20)
    back = learned.moved(condition(3, NIGHT, batches=12))
    np.testing.assert_allclose(back.mean, NIGHT, atol=1e-6)
    assert back.batches == 12
    seen = batch(NIGHT, np.random.default_rng(1))
    new = learned.moved(None).observed(seen)
    np.testing.assert_allclose(new.mean, seen.mean)
    assert new.batches == 1
    np.testing.assert_array_equal(new.spread, learned.spread)


def test_new_conditions_are_the_less_expected_the_more_often_known_ones_returned() -> None:
    assert Memory().shares() == [1.0]
    once = Memory(known=(condition(0, DAY), condition(1, NIGHT))).shares()
    often = Memory(known=(condition(0, DAY, visits=9), condition(1, NIGHT, visits=3))).shares()
    assert sum(once) == pytest.approx(1.0)
    assert sum(often) == pytest.approx(1.0)
    assert once[-1] > 0.5 > often[-1]
    assert often[0] == pytest.approx(3 * often[1])


def test_what_was_left_is_remembered_and_what_is_entered_is_not_twice() -> None:
    memory = Memory().left(condition(0, DAY, left=20), None, keep=2)
    assert (memory.number, memory.visits, memory.condition_count) == (1, 1, 2)
    (day,) = memory.known
    memory = memory.left(condition(1, NIGHT, left=30), day, keep=2)
    assert (memory.number, memory.visits, memory.condition_count) == (0, 2, 2)
    assert [k.number for k in memory.known] == [1]


def test_the_one_that_was_left_longest_ago_is_forgotten_and_its_number_never_given_again() -> None:
    memory = Memory()
    for k in range(4):
        memory = memory.left(condition(k, DAY, left=10 * k), None, keep=2)
    assert [k.number for k in memory.known] == [2, 3]
    assert (memory.number, memory.condition_count) == (4, 5)
    assert memory.left(condition(4, DAY, left=50), None, keep=0).known == ()


def test_what_did_not_last_is_not_remembered() -> None:
    assert Memory().left(condition(0, DAY, batches=2), None, keep=16).known == ()


def test_a_belief_at_six_alphas_is_nearly_all_of_it() -> None:
    belief = SURROGATE.prior()
    for index, value in ((20, -0.5), (10, -0.4), (5, -0.1)):
        belief = SURROGATE.observe_difference(belief, index, 0, value, 1e-3)
    back = SURROGATE.restore(SURROGATE.abridge(belief))
    np.testing.assert_allclose(back.mean[:-1], belief.mean[:-1], atol=0.01)
    np.testing.assert_allclose(back.curve()[1], belief.curve()[1], atol=0.02)
    np.testing.assert_array_equal(back.covariance, back.covariance.T)
    prior = SURROGATE.restore(SURROGATE.abridge(SURROGATE.prior()))
    np.testing.assert_allclose(prior.covariance, SURROGATE.prior().covariance, atol=1e-6)


@pytest.mark.parametrize("points", [1, 2, 5, 6, 7, 101])
def test_any_grid_has_such_a_belief(points: int) -> None:
    surrogate = Surrogate(tuple(np.linspace(0, 1, points).tolist()))
    back = surrogate.restore(surrogate.abridge(surrogate.prior()))
    np.testing.assert_allclose(back.covariance, surrogate.prior().covariance, atol=1e-5)
