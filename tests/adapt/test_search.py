from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from adawise.adapt.change import Level
from adawise.adapt.noise import PairedNoise
from adawise.adapt.search import FAILED, NOISE_FLOOR, BatchTrials, Outcome, Search, Trial, run
from adawise.adapt.state import StreamState
from adawise.adapt.strategies import NAMES, strategy
from adawise.adapt.strategies.scratch import ScratchSearch
from adawise.adapt.strategies.warm import Exploration
from adawise.adapt.surrogate import Belief
from tests.adapt.curves import GRID, Weather, as_images, draw_values, logits, objective, one_by_one

ALL = np.arange(4)


def search_with(plan: Sequence[Sequence[Trial]], last_seen: list[list[Tensor]] | None = None) -> Search:
    """A search that asks what the plan says, and serves the last answer."""
    answers: list[Tensor] = []
    for trials in plan:
        answers = yield list(trials)
        if last_seen is not None:
            last_seen.append(answers)
    return Outcome(StreamState("k", 0), 0, answers[-1], {}, (), 0.0)


class Recorder:
    """Logits that tell their image and their alpha, and what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[float]]] = []
        self.steps = 0

    def __call__(self, requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        self.steps += 1
        return one_by_one(self._logits)(requested)

    def _logits(self, index: int, *parts: Tensor) -> Tensor:
        images = torch.cat(parts)
        self.calls.append((index, images.flatten().tolist()))
        return torch.stack([images.flatten() * 10.0, torch.full((len(images),), float(index))], dim=1)


def stream(*pixels: float) -> Tensor:
    return torch.tensor(pixels).reshape(-1, 1, 1, 1)


def test_trials_of_one_alpha_are_one_call_whatever_the_number_of_streams() -> None:
    request = Recorder()
    searches = [search_with([[Trial(3, ALL), Trial(0, ALL)]]) for _ in range(5)]
    run(searches, [stream(*(4 * s + np.arange(4))) for s in range(5)], request)
    assert [(index, len(images)) for index, images in request.calls] == [(0, 20), (3, 20)]
    assert request.steps == 1  # so a device is waited for once


def test_every_trial_is_answered_with_its_own_rows_in_its_own_order() -> None:
    last_seen: list[list[Tensor]] = []
    rows = np.array([2, 0])
    search = search_with([[Trial(5, rows), Trial(1, ALL), Trial(5, np.array([1]))]], last_seen)
    run([search_with([[Trial(5, ALL)]]), search], [stream(7, 7, 7, 7), stream(1, 2, 3, 4)], Recorder())
    ((first, second, third),) = last_seen
    assert first.tolist() == [[30.0, 5.0], [10.0, 5.0]]
    assert second.tolist() == [[10.0, 1.0], [20.0, 1.0], [30.0, 1.0], [40.0, 1.0]]
    assert third.tolist() == [[20.0, 5.0]]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 2], [3], [0, 2, 3], [3, 2, 1], [2, 3, 0, 1]])
def test_pixels_are_not_copied_before_the_classifier_does(rows: list[int]) -> None:
    images, seen = stream(1, 2, 3, 4), list[Tensor]()

    def evaluate(requested: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        seen.extend(part for parts in requested.values() for part in parts)
        return Recorder()(requested)

    run([search_with([[Trial(2, np.array(rows))]])], [images], evaluate)
    assert torch.cat(seen).flatten().tolist() == [row + 1.0 for row in rows]
    assert {part.untyped_storage().data_ptr() for part in seen} == {images.untyped_storage().data_ptr()}
    assert len(seen) == 1 + sum(following != row + 1 for row, following in pairwise(rows))


def test_searches_of_different_lengths_end_in_the_order_in_which_they_were_given() -> None:
    request = Recorder()
    plans = [[[Trial(2, ALL)]] * 3, [[Trial(2, ALL)]], [[Trial(2, ALL)]] * 2]
    outcomes = run([search_with(plan) for plan in plans], [stream(*[float(s)] * 4) for s in range(3)], request)
    assert [outcome.logits[0, 0].item() for outcome in outcomes] == [0.0, 10.0, 20.0]
    assert [len(images) for _, images in request.calls] == [12, 8, 4]


def test_no_stream_is_no_outcome_and_no_call() -> None:
    request = Recorder()
    assert run([], [], request) == []
    assert request.calls == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "botorch"])
def test_an_outcome_does_not_depend_on_the_streams_that_share_the_round(name: str) -> None:
    made = strategy(name, alphas=GRID, objective=objective, context="test", alpha=0.5, exploration=Exploration())
    batches = [
        as_images(draw_values(Weather(s / 4), 9 + 3 * s, np.random.default_rng(s)))  # each of another size
        for s in range(5)
    ]
    states = [made.initial() for _ in batches]
    for _ in range(3):
        searches = [made.search(s, len(b)) for s, b in zip(states, batches, strict=True)]
        together = run(searches, batches, one_by_one(logits))
        for state, batch, shared in zip(states, batches, together, strict=True):
            (alone,) = run([made.search(state, len(batch))], [batch], one_by_one(logits))
            assert alone.state.to_bytes() == shared.state.to_bytes()
            assert alone.trials == shared.trials
            assert torch.equal(alone.logits, shared.logits)
        states = [outcome.state for outcome in together]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"fixed"}))
def test_every_alpha_is_in_reach_once_where_a_stream_starts_first_and_then_where_looks_are_likeliest(name: str) -> None:
    made = strategy(name, alphas=GRID, objective=objective, context="t", alpha=0.3, exploration=Exploration())
    assert made.reach[:6] == (6, 0, 20, 10, 5, 15)
    assert sorted(made.reach) == list(range(len(GRID)))
    one = strategy(name, alphas=(0.5,), objective=objective, context="t", alpha=0.3, exploration=Exploration())
    assert one.reach == (0,)


def test_forward_equivalents_are_images_passed_over_images_in_the_batch() -> None:
    made = ScratchSearch(GRID, objective, "test", 10, Exploration(budget=3))
    batch = as_images(draw_values(Weather(0.2), 16, np.random.default_rng(0)))
    (outcome,) = run([made.search(made.initial(), 16)], [batch], one_by_one(logits))
    assert [trial.images for trial in outcome.trials] == [16, 16, 16]
    assert outcome.forward_equivalents == 3.0


def values_at(trials: BatchTrials, index: int, values: Sequence[float], rows: Sequence[int]) -> None:
    generator = trials.evaluate([index], np.array(rows))
    next(generator)
    with pytest.raises(StopIteration):
        generator.send([torch.tensor([[v] + [0.0] * 999 for v in values], dtype=torch.float64)])


def test_alphas_are_compared_on_the_rows_that_all_of_them_saw() -> None:
    trials = BatchTrials(4, objective)
    values_at(trials, 0, [1.0, 2.0, 3.0, 4.0], range(4))
    values_at(trials, 7, [9.0, 5.0], [2, 0])
    objectives = trials.objectives(1)
    # of rows 0 and 2, the mean over alphas of row 2 (6.0) is not reliable
    assert objectives[0][0] == 2.0
    assert objectives[7][0] == 7.0
    assert objectives[7][1].tolist() == [5.0, 9.0]


def test_one_mask_of_reliable_images_serves_every_alpha() -> None:
    trials = BatchTrials(3, objective)
    values_at(trials, 0, [0.5, 2.0, 6.0], range(3))
    values_at(trials, 7, [1.5, 4.0, 2.5], range(3))
    objectives = trials.objectives(1)  # means over the alphas: 1, 3, 4.25; the margin is .4 ln 1000 = 2.76
    assert objectives[0][1].tolist() == [0.5]
    assert objectives[7][1].tolist() == [1.5]


def test_an_alpha_that_is_not_finite_has_no_objective_and_disturbs_no_other() -> None:
    trials = BatchTrials(3, objective)
    values_at(trials, 0, [0.5, 0.6, 0.7], range(3))
    alone = trials.objectives(1)[0]
    values_at(trials, 7, [0.1, float("nan"), 0.1], range(3))
    objectives = trials.objectives(1)
    assert np.isnan(objectives[7][0])
    assert objectives[0][0] == alone[0]
    assert objectives[0][1].tolist() == alone[1].tolist()


def test_records_keep_the_order_of_the_trials_and_the_rows_each_saw() -> None:
    trials = BatchTrials(4, objective)
    values_at(trials, 10, [1.0, 2.0, 3.0, 4.0], range(4))
    values_at(trials, 0, [9.0, 5.0], [2, 0])
    records = trials.records(GRID)
    assert [(r.alpha, r.images, r.objective) for r in records] == [(0.5, 4, 2.5), (0.0, 2, 7.0)]


def test_differences_are_to_the_base_on_the_same_images_with_the_variance_of_their_mean() -> None:
    trials = BatchTrials(4, objective)
    values_at(trials, 3, [1.0, 2.0, 1.0, 2.0], range(4))
    values_at(trials, 9, [1.5, 2.1, 1.1, 2.5], range(4))
    base, other = trials.differences(3, 1)
    assert base == (3, 0.0, NOISE_FLOOR)
    assert other[0] == 9
    np.testing.assert_allclose(other[1:], [0.3, 0.04 / 4])  # differences .5, .1, .1, .5


def test_no_difference_is_taken_to_a_base_that_is_not_finite() -> None:
    trials = BatchTrials(2, objective)
    values_at(trials, 3, [float("nan"), 2.0], range(2))
    values_at(trials, 9, [1.5, 2.1], range(2))
    assert trials.differences(3, 1) == []
    assert [index for index, _, _ in trials.differences(9, 1)] == [9]


def failing(error: Exception, after: int) -> Search:
    """A search that raises after so many trials."""
    for _ in range(after):
        yield [Trial(2, ALL)]
    raise error


def endless() -> Search:
    while True:
        yield [Trial(2, ALL)]


def leading_to(state: StreamState) -> Search:
    (answer,) = yield [Trial(2, ALL)]
    return Outcome(state, 2, answer, {}, (), 0.0)


def served_instead() -> Search:
    return search_with([[Trial(9, ALL)]])


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_search_that_raises_costs_its_own_batch_and_no_other(after: int) -> None:
    error = ZeroDivisionError("no rows")
    searches = [search_with([[Trial(2, ALL)]] * 2), failing(error, after), search_with([[Trial(5, ALL)]])]
    images = [stream(*[float(s)] * 4) for s in range(3)]
    outcomes = run(searches, images, Recorder(), [served_instead] * 3)
    assert [outcome.error for outcome in outcomes] == [None, error, None]
    assert [outcome.logits[0].tolist() for outcome in outcomes] == [[0.0, 2.0], [10.0, 9.0], [20.0, 5.0]]
    with pytest.raises(ZeroDivisionError):
        run([failing(error, after)], images[:1], Recorder())


def one_by_one_row(alphas: int, rows: int) -> Search:
    """A search that passes each image at each alpha by itself, as a probe of one image at no price may."""
    answer = torch.empty(0)
    for index in range(alphas):
        for row in range(rows):
            (answer,) = yield [Trial(index, np.array([row]))]
    return Outcome(StreamState("k", 0), 0, answer, {}, (), 0.0)


def test_a_search_that_goes_on_learning_is_not_given_up() -> None:
    (outcome,) = run([one_by_one_row(21, 40)], [stream(*range(40))], Recorder(), [served_instead])
    assert outcome.error is None


def test_a_search_that_asks_for_ever_is_given_up() -> None:
    (outcome,) = run([endless()], [stream(1, 2, 3, 4)], Recorder(), [served_instead])
    assert "did not end" in str(outcome.error)
    assert outcome.logits[0].tolist() == [10.0, 9.0]


@pytest.mark.parametrize(
    "state",
    [
        StreamState("k", 0, hazard=float("nan")),
        StreamState("k", 0, level=Level(float("inf"), 1.0, 3)),
        StreamState("k", 0, noise=PairedNoise(float("nan"), 8.0)),
        StreamState("k", 0, belief=Belief(np.full(3, np.nan), np.eye(3))),
        StreamState("k", 0, belief=Belief(np.zeros(3), np.full((3, 3), np.inf))),
    ],
)
def test_a_state_that_is_not_finite_is_not_gone_on_from(state: StreamState) -> None:
    (outcome,) = run([leading_to(state)], [stream(1, 2, 3, 4)], Recorder(), [served_instead])
    assert isinstance(outcome.error, ArithmeticError)
    assert outcome.state.is_finite()


def test_an_error_of_the_model_is_no_searchs() -> None:
    def evaluate(_: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
        raise MemoryError("the card is full")

    with pytest.raises(MemoryError):
        run([search_with([[Trial(2, ALL)]])], [stream(1, 2, 3, 4)], evaluate, [served_instead])


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_whose_search_failed_is_served_where_streams_start_and_learns_anew(name: str) -> None:
    made = strategy(name, alphas=GRID, objective=objective, context="test", alpha=0.3, exploration=Exploration())
    before = replace(made.initial(), batches=7, alpha_index=20)
    batch = as_images(draw_values(Weather(0.9), 9, np.random.default_rng(0)))
    (outcome,) = run([made.restart(before, 9)], [batch], one_by_one(logits))
    assert outcome.state == replace(made.initial(), batches=8)
    assert (outcome.index, outcome.trigger, outcome.reset) == (6, FAILED, FAILED)
    assert outcome.forward_equivalents == 1.0
