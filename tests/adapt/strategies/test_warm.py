from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.objective import tsallis
from adawise.adapt.rows import of_images
from adawise.adapt.search import Outcome, run
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.adapt.surrogate import Surrogate
from tests.adapt.curves import GRID, Weather, alphas, as_images, draw_values, drive, logits, objective, one_by_one

NEVER = 10**9


def warm(**policy: float) -> WarmSearch:
    return WarmSearch(GRID, objective, "test", 10, dataclasses.replace(Exploration(), **policy))  # type: ignore[arg-type]


def triggers(outcomes: list[Outcome]) -> list[str]:
    return [outcome.trigger for outcome in outcomes]


def forwards(outcomes: list[Outcome]) -> float:
    return float(np.mean([outcome.forward_equivalents for outcome in outcomes]))


def delay(outcomes: list[Outcome], optimum: float) -> int:
    """Batches until one is served near the optimum; many if none is."""
    return next((i for i, alpha in enumerate(alphas(outcomes)) if abs(alpha - optimum) <= 0.2), NEVER)


def test_the_first_batch_looks_at_other_alphas_within_its_budget() -> None:
    (outcome,) = drive(warm(), [Weather(0.8)])
    assert outcome.trigger == "start"
    assert 1.0 < outcome.forward_equivalents <= 1.5
    (served, *probed) = outcome.trials
    assert (served.alpha, served.images) == (0.5, 32)
    assert {trial.alpha for trial in probed} & {0.0, 1.0}


def test_a_stream_finds_its_optimum_within_a_few_batches() -> None:
    for optimum in (0.1, 0.9):
        delays = [delay(drive(warm(), [Weather(optimum)] * 8, seed=seed), optimum) for seed in range(6)]
        assert max(delays) <= 5


@pytest.mark.parametrize("images", [8, 13, 32, 100])
def test_what_is_served_is_one_evaluation_of_every_image_of_the_batch(images: int) -> None:
    rng = np.random.default_rng(1)
    weathers = [Weather(0.2, depth=1.0)] * 10 + [Weather(0.9, depth=1.0)] * 10
    batches = [as_images(draw_values(weather, images, rng)) for weather in weathers]
    outcomes = drive(warm(every=3), weathers, images=images, seed=1)
    for batch, outcome in zip(batches, outcomes, strict=True):
        rows, served = outcome.evaluated[outcome.index]
        assert rows.tolist() == list(range(images))
        assert torch.equal(outcome.logits, served)
        assert torch.equal(outcome.logits, logits(outcome.index, batch))
    assert any(outcome.evaluated.keys() - {outcome.index} for outcome in outcomes)


def test_a_steady_stream_costs_a_tenth_more_than_one_forward_and_stays_where_it_is() -> None:
    for seed in range(6):
        outcomes = drive(warm(), [Weather(0.7)] * 88, seed=seed)
        assert 1.0 < forwards(outcomes) <= 1.1
        settled = outcomes[8:]
        assert sum(a != b for a, b in pairwise(alphas(settled))) <= 6
        assert all(abs(alpha - 0.7) <= 0.25 for alpha in alphas(settled))


def test_a_higher_price_buys_fewer_looks() -> None:
    weathers = [Weather(0.2)] * 30 + [Weather(0.9)] * 30
    spent = [forwards(drive(warm(price=price), weathers)) for price in (0.001, 0.03, 0.3)]
    assert spent[0] > spent[1] + 0.1
    assert spent[1] > spent[2]


def test_a_quiet_stream_is_looked_at_all_the_same_on_the_clock() -> None:
    outcomes = drive(warm(price=1e3, every=5), [Weather(0.5)] * 21)
    assert [i for i, trigger in enumerate(triggers(outcomes)) if trigger == "clock"] == [4, 9, 14, 19]
    assert {len(outcome.trials) for outcome in outcomes if outcome.trigger == "clock"} == {2}
    assert {outcome.forward_equivalents for outcome in outcomes[1:] if outcome.trigger != "clock"} == {1.0}


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.9), (0.9, 0.1)])
def test_a_jump_of_the_optimum_is_followed_even_where_the_level_does_not_tell(before: float, after: float) -> None:
    weathers = [Weather(before)] * 23 + [Weather(after)] * 12
    delays = [delay(drive(warm(), weathers, seed=seed)[23:], after) for seed in range(8)]
    assert max(delays) <= 10
    blind = [delay(drive(warm(price=1e3, every=NEVER), weathers, seed=seed)[23:], after) for seed in range(4)]
    assert min(blind) == NEVER


def test_a_jump_of_the_level_is_looked_into_at_once_and_followed_if_the_optimum_moved_too() -> None:
    weathers = [Weather(0.1, level=0.5)] * 23 + [Weather(0.9, level=2.0)] * 12
    for seed in range(8):
        outcomes = drive(warm(), weathers, seed=seed)[23:]
        assert outcomes[0].trigger == "level"
        assert len(outcomes[0].trials) > 1
        assert delay(outcomes, 0.9) <= 2


def test_a_jump_of_the_level_alone_costs_some_images_and_moves_nothing() -> None:
    weathers = [Weather(0.5, level=0.5)] * 23 + [Weather(0.5, level=2.0)] * 12
    for seed in range(8):
        outcomes = drive(warm(), weathers, seed=seed)
        assert outcomes[23].trigger == "level"
        assert outcomes[23].forward_equivalents <= 2.0
        assert triggers(outcomes[24:]).count("level") == 0  # the new level is the level now
        assert all(abs(alpha - 0.5) < 0.16 for alpha in alphas(outcomes[23:]))


def test_a_move_is_not_taken_for_a_jump_of_the_level() -> None:
    for seed in range(6):
        outcomes = drive(warm(), [Weather(0.0, depth=1.5)] * 30, seed=seed)
        assert outcomes[-1].index < 5  # from 10
        assert triggers(outcomes).count("level") == 0


def test_no_image_is_passed_twice_at_one_alpha_nor_looked_at_twice_before_all_were_looked_at() -> None:
    passed: dict[int, list[float]] = {}

    def answer(index: int, images: Tensor) -> Tensor:
        passed.setdefault(index, []).extend(images[:, 0, 0, 0].tolist())
        return logits(index, images)

    (outcome,) = drive(warm(price=1e-4, first_budget=1.9), [Weather(0.5, depth=1.0)], answer=answer)
    assert len(outcome.trials) > 2
    assert all(len(set(images)) == len(images) for images in passed.values())
    probed = [image for index, images in passed.items() if index != 10 for image in images]
    assert len(set(probed)) == len(probed)


def test_a_belief_that_the_looks_contradict_is_dropped_and_the_trace_says_so() -> None:
    steep = drive(warm(), [Weather(0.0, depth=1.0)] * 30)
    assert [outcome.reset for outcome in steep[1:]] == [None] * 29
    turned = drive(warm(), [Weather(1.0, depth=1.0)] * 30, state=steep[-1].state)
    assert "jump" in [outcome.reset for outcome in turned]
    assert alphas(turned)[-1] > 0.75


def test_an_alternative_that_is_not_better_by_more_than_its_uncertainty_is_not_taken() -> None:
    flat = [Weather(0.9, depth=0.0)] * 60
    moves = [
        sum(a != b for a, b in pairwise(alphas(drive(warm(gain_nats=0.0, gain_sd=sd), flat, seed=seed))))
        for sd in (0.0, 3.0)
        for seed in range(4)
    ]
    assert sum(moves[4:]) < 0.5 * sum(moves[:4])
    assert set(alphas(drive(warm(gain_nats=0.1), flat))) == {0.5}


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_no_batch_spends_more_than_the_budget_and_one_forward_for_its_winner(budget: int) -> None:
    outcomes = drive(warm(budget=budget, price=1e-4), [Weather(0.2), Weather(0.9, level=2.0)] * 8)
    assert max(outcome.forward_equivalents for outcome in outcomes) <= budget + 1
    assert max(outcome.forward_equivalents for outcome in outcomes) > 0.5 * budget


def test_an_audit_sweeps_six_alphas_and_its_regret_is_in_the_outcome() -> None:
    outcomes = drive(warm(audit_every=10), [Weather(0.5)] * 20)
    audits = [outcome for outcome in outcomes if outcome.trigger == "audit"]
    assert [i for i, outcome in enumerate(outcomes) if outcome.trigger == "audit"] == [9, 19]
    assert {trial.alpha for trial in audits[0].trials} >= {j / 5 for j in range(6)}
    assert max(outcome.forward_equivalents for outcome in audits) < 1.0 + 6 * 16 / 32 + 0.5, "and little beside"
    assert all(0.0 <= outcome.regret < 0.03 for outcome in audits)
    assert all(np.isnan(outcome.regret) for outcome in outcomes if outcome.trigger != "audit")


def test_an_audit_that_finds_a_better_alpha_drops_the_belief() -> None:
    blind = warm(audit_every=10, price=1e3, every=NEVER, hazard=1e-9)
    outcomes = drive(blind, [Weather(0.5)] * 8 + [Weather(0.0, depth=1.0)] * 8)
    assert outcomes[9].trigger == "audit"
    assert outcomes[9].reset == "regret"
    assert outcomes[9].regret > 0.1
    assert alphas(outcomes)[10] <= 0.2


def disagreeing(share: float) -> Callable[[int, Tensor], Tensor]:
    """The objective of the curves; another class than at alpha 0 on a share of images that grows to this with alpha."""

    def answer(index: int, images: Tensor) -> Tensor:
        z = logits(index, images)
        z[:, 1:3] = 5.0
        own = (images[:, 0, 0, 0] * 1e4) % 1.0  # an image's, whichever others come with it
        z[own < share * GRID[index], 2] = 9.0
        z[:, 1] = 8.0
        return z

    return answer


def test_alpha_goes_no_further_than_where_the_models_contradict_each_other() -> None:
    confident = [Weather(1.0, depth=1.0)] * 60
    outcomes = drive(warm(), confident, answer=disagreeing(0.9))
    first = next(i for i, outcome in enumerate(outcomes) if outcome.reset == "disagreement")
    assert alphas(outcomes)[first - 1] >= 0.9
    assert alphas(outcomes)[first] <= 0.8
    assert np.median(alphas(outcomes)[20:]) == pytest.approx(0.5, abs=0.15)  # where .45 of the images are another class


def test_a_limit_that_is_asked_for_is_that_of_the_stream() -> None:
    confident = [Weather(1.0, depth=1.0)] * 60
    near, far = (alphas(drive(warm(disagreement=d), confident, answer=disagreeing(0.9)))[20:] for d in (0.3, 0.7))
    assert np.median(near) < 0.45 < 0.65 < np.median(far)


def test_an_alpha_pinned_where_the_models_agree_stays_and_is_compared_again() -> None:
    outcomes = drive(warm(), [Weather(1.0, depth=1.0)] * 40, answer=disagreeing(0.1))
    pinned = [i for i, outcome in enumerate(outcomes) if outcome.trigger == "pinned"]
    assert len(pinned) >= 3
    assert {outcomes[i].reset for i in pinned} == {None}
    assert min(alphas(outcomes)[pinned[0] :]) >= 0.9
    assert forwards(outcomes) <= 1.17


def test_without_the_guard_the_far_end_is_looked_at_as_often_and_nothing_given_up() -> None:
    outcomes = drive(warm(disagreement=1.0), [Weather(1.0, depth=1.0)] * 60, answer=disagreeing(0.9))
    pinned = [i for i, outcome in enumerate(outcomes) if outcome.trigger == "pinned"]
    assert {later - earlier for earlier, later in pairwise(pinned)} == {8}
    assert {outcomes[i].reset for i in pinned} == {None}
    assert min(alphas(outcomes)[pinned[0] :]) >= 0.9


def test_what_was_given_up_is_open_again_where_the_models_agree_by_then() -> None:
    state = drive(warm(), [Weather(1.0, depth=1.0)] * 40, answer=disagreeing(0.9))[-1].state
    outcomes = drive(warm(), [Weather(1.0, depth=1.0)] * 120, seed=1, state=state, answer=disagreeing(0.1))
    assert max(alphas(outcomes)[:3]) <= 0.7
    assert min(alphas(outcomes)[-20:]) >= 0.9


def sure(scale: float) -> Callable[[int, Tensor], Tensor]:
    """Logits that grow with alpha by up to `scale`, and know less: the objective is deceived."""

    def answer(index: int, images: Tensor) -> Tensor:
        z = np.random.default_rng(0).normal(size=(len(images), 30))
        z[:, 1] += 6.0 - 5.0 * GRID[index]
        return torch.from_numpy(z) * (1.0 + (scale - 1.0) * GRID[index])

    return answer


@pytest.mark.parametrize(("scale", "raised"), [(1.0, False), (8.0, True)])
def test_alpha_goes_no_further_than_what_has_no_scale_surely_contradicts(scale: float, raised: bool) -> None:
    deceived = WarmSearch(GRID, tsallis, "test", 10, Exploration())
    outcomes = drive(deceived, [Weather(0.5)] * 60, answer=sure(scale))
    assert any(outcome.alarm for outcome in outcomes) == raised
    if raised:
        assert any(outcome.reset == "alarm" for outcome in outcomes)
        assert max(alphas(outcomes)[30:]) < 0.75


def test_an_alpha_that_the_objective_leaves_by_itself_is_no_alarm() -> None:
    search = WarmSearch(GRID, tsallis, "test", 10, Exploration(disagreement=1.0))
    before = drive(search, [Weather(0.5)] * 20, answer=lambda index, images: sure(1.0)(20 - index, images))
    outcomes = drive(search, [Weather(0.5)] * 20, state=before[-1].state, answer=sure(1.0))
    assert (alphas(before)[-1], alphas(outcomes)[-1]) == (1.0, 0.0)
    assert not any(outcome.alarm or outcome.reset == "alarm" for outcome in outcomes)


def test_too_few_images_are_served_and_teach_nothing() -> None:
    before = drive(warm(), [Weather(0.5)] * 10)[-1]
    (outcome,) = drive(warm(), [Weather(0.0, level=2.0)], images=7, state=before.state)
    assert outcome.trigger == "too_few_images"
    assert outcome.forward_equivalents == 1.0
    assert len(outcome.logits) == 7
    assert outcome.state.to_bytes() == dataclasses.replace(before.state, batches=11).to_bytes()


def test_logits_that_are_not_finite_keep_alpha_and_state() -> None:
    before = drive(warm(), [Weather(0.5)] * 10)[-1]
    (outcome,) = drive(
        warm(), [Weather(0.5)], state=before.state, answer=lambda i, x: torch.full((len(x), 1000), torch.nan)
    )
    assert outcome.trigger == "not_finite"
    assert np.isnan(outcome.objective)
    assert outcome.state.to_bytes() == dataclasses.replace(before.state, batches=11).to_bytes()


def test_an_alternative_that_is_not_finite_is_neither_served_nor_chosen() -> None:
    def without_the_end(index: int, images: Tensor) -> Tensor:
        z = logits(index, images)
        if index == 20:
            z[:] = torch.nan
        return z

    outcomes = drive(warm(), [Weather(1.0, depth=2.0)] * 16, answer=without_the_end)
    assert all(torch.isfinite(outcome.logits).all() for outcome in outcomes)
    (first, *_) = [t for t, outcome in enumerate(outcomes) if 20 in outcome.evaluated]
    assert all(20 not in outcome.evaluated for outcome in outcomes[first + 1 :])  # once is enough
    assert all(outcome.index != 20 for outcome in outcomes)
    assert 15 <= outcomes[-1].index < 20


def test_an_alpha_that_turns_out_not_finite_is_left_for_the_first_one() -> None:
    before = drive(warm(), [Weather(1.0, depth=2.0)] * 16)[-1]
    current = before.state.alpha_index
    assert current != 10

    def without_the_current(index: int, images: Tensor) -> Tensor:
        return logits(index, images) if index != current else torch.full((len(images), 1000), torch.nan)

    after = drive(warm(), [Weather(1.0, depth=2.0)] * 3, state=before.state, answer=without_the_current)
    assert after[0].index == 10
    assert (after[0].trigger, after[0].reset) == ("not_finite", "not_finite")
    assert all(torch.isfinite(outcome.logits).all() for outcome in after)
    assert all(outcome.index != current for outcome in after)


def test_a_winner_that_is_not_finite_on_the_rest_of_the_batch_is_not_served() -> None:
    broken = {j for j in range(21) if j not in (0, 5, 10, 15, 20)}  # what is only evaluated to be served

    def answer(index: int, images: Tensor) -> Tensor:
        z = logits(index, images)
        return torch.full_like(z, torch.nan) if index in broken else z

    outcomes = drive(warm(at_once_nats=-1.0), [Weather(0.62, depth=6.0)] * 16, answer=answer)
    assert any(broken & outcome.evaluated.keys() for outcome in outcomes)
    assert all(torch.isfinite(outcome.logits).all() for outcome in outcomes)


def test_equal_logits_give_equal_states_bit_for_bit() -> None:
    weathers = [Weather(0.3)] * 12 + [Weather(0.8, level=1.0)] * 12
    first, second = (drive(warm(), weathers, seed=4) for _ in range(2))
    assert [o.state.to_bytes() for o in first] == [o.state.to_bytes() for o in second]
    assert [o.trials for o in first] == [o.trials for o in second]


def test_a_stream_goes_on_from_a_state_that_was_written_and_read_as_if_it_had_not_stopped() -> None:
    weathers = [Weather(0.3)] * 9
    whole = drive(warm(), [*weathers, Weather(0.9)], seed=7)
    halfway = whole[4].state
    restored = type(halfway).from_bytes(halfway.to_bytes())
    rng = np.random.default_rng(7)
    for weather in weathers[:5]:
        draw_values(weather, 32, rng)
    strategy, state = warm(), restored
    for expected, weather in zip(whole[5:], [*weathers[5:], Weather(0.9)], strict=True):
        batch = as_images(draw_values(weather, 32, rng))
        (outcome,) = run([strategy.search(state, 32)], of_images([batch], one_by_one(logits)))
        state = outcome.state
        assert state.to_bytes() == expected.state.to_bytes()


def test_a_state_stays_below_8_kilobytes() -> None:
    assert len(drive(warm(), [Weather(0.3)] * 20)[-1].state.to_bytes()) < 8192


def test_hyper_parameters_that_were_fitted_are_taken() -> None:
    fitted = Surrogate(GRID, signal_sd=1e-4)  # says that all alphas are equally good
    outcomes = drive(dataclasses.replace(warm(), fitted=fitted), [Weather(0.0)] * 10)
    assert set(alphas(outcomes)) == {0.5}


def test_the_key_changes_with_every_part_of_the_policy() -> None:
    base = warm().key
    for name in (field.name for field in dataclasses.fields(Exploration)):
        assert warm(**{name: 2.25}).key != base
    assert dataclasses.replace(warm(), context="other").key != base
    assert dataclasses.replace(warm(), fitted=Surrogate(GRID, lengthscale=0.5)).key != base
    assert isinstance(warm().initial(), StreamState)


def test_a_stream_learns_how_often_its_condition_jumps() -> None:
    steady = drive(warm(), [Weather(0.5)] * 60)
    restless = drive(warm(), ([Weather(0.1, level=0.3)] * 6 + [Weather(0.9, level=2.0)] * 6) * 5)
    first = warm().initial().hazard
    assert steady[-1].state.hazard < 0.5 * first
    assert restless[-1].state.hazard > 1.5 * first


def settled(at: int, **changes: object) -> StreamState:
    """The state of a stream that is served at this index of the grid, with these fields changed and read back."""
    state = drive(warm(), [Weather(GRID[at])] * 20)[-1].state
    return StreamState.from_bytes(dataclasses.replace(state, alpha_index=at, **changes).to_bytes())  # type: ignore[arg-type]


def test_an_alpha_that_is_finite_again_is_not_broken_any_more() -> None:
    """Version 0.2 wrote such states after a retreat to an alpha that had been broken before, and never left them."""
    poisoned = settled(10, broken=(10, 17))
    (outcome,) = drive(warm(), [Weather(0.5)], state=poisoned)
    assert outcome.index == 10
    assert outcome.state.broken == (17,)


@pytest.mark.parametrize("at", [0, 10])
def test_a_state_of_which_every_alpha_was_broken_is_served_and_heals(at: int) -> None:
    outcomes = drive(warm(), [Weather(GRID[at])] * 3, state=settled(at, broken=tuple(range(21))))
    assert [outcome.index for outcome in outcomes] == [at] * 3
    assert at not in outcomes[0].state.broken


def test_a_stream_that_retreats_to_an_alpha_that_was_broken_goes_on() -> None:
    away = settled(17, broken=(10,))

    def not_finite_at_17(index: int, images: Tensor) -> Tensor:
        z = logits(index, images)
        return torch.full_like(z, torch.nan) if index == 17 else z

    first, *after = drive(warm(), [Weather(0.5)] * 5, state=away, answer=not_finite_at_17)
    assert (first.reset, first.state.alpha_index, first.state.broken) == ("not_finite", 10, (17,))
    assert {outcome.trigger for outcome in after} <= {"none", "uncertain", "clock"}


def test_the_far_end_is_not_compared_with_itself() -> None:
    """A retreat to alpha 0, or looks that return, may leave a stream there that counts as pinned."""
    zero = WarmSearch(GRID, objective, "test", 0, Exploration())
    state = dataclasses.replace(settled(0, pinned_batches=3, broken=(20,)), key=zero.key)
    assert zero._is_pinned(state)
    (outcome,) = drive(zero, [Weather(0.0)], state=state)
    assert outcome.trigger != "pinned"


POISONED = json.loads((Path(__file__).parents[2] / "fixtures" / "poisoned_0_2.json").read_text())


@pytest.mark.parametrize(("name", "start"), [("hangs", 10), ("divides", 0)])
def test_a_state_that_0_2_wrote_and_could_not_go_on_from_is_gone_on_from(name: str, start: int) -> None:
    """Written by 0.2.0 after logits that were not finite: its next batch never ended, or divided by zero."""
    search = WarmSearch(GRID, tsallis, "ctx", start, Exploration())
    state = StreamState.from_bytes(POISONED[name].encode())
    assert state.key == search.key, "it is not begun anew"
    generator = torch.Generator().manual_seed(0)
    for batches in range(state.batches, state.batches + 5):
        images = torch.randn(32, 10, generator=generator)
        evaluate = one_by_one(lambda j, *parts: torch.cat(parts) * (1.0 + GRID[j]))
        (outcome,) = run([search.search(state, 32)], of_images([images], evaluate))
        state = StreamState.from_bytes(outcome.state.to_bytes())
        assert (outcome.error, state.batches) == (None, batches + 1)
        assert state.alpha_index not in state.broken
