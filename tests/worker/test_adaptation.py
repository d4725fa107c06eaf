from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from adawise.adapt.conditions import Appearance
from adawise.adapt.search import Search, Strategy
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.fixed import FixedSearch
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.records import STATISTICS, ImageBatch
from adawise.worker.adaptation import Adaptation, Adapted, moments
from adawise.worker.batching import batch_of
from tests.adapt.curves import GRID, AlphaByAlpha, Weather, as_images, draw_values, logits, objective
from tests.frames import a_frame

WARM = WarmSearch(GRID, objective, "test", 10, Exploration())
ONES = (1.0,) * len(GRID)


class Curves(AlphaByAlpha):
    """A classifier whose images carry their objective at every alpha."""

    alphas = GRID

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        self.calls.append((alpha_index, sum(map(len, images))))
        return logits(alpha_index, *images)


def a_batch(stream: str, first_offset: int = 0, *, images: int = 16, optimum: float = 0.8, seed: int = 0) -> ImageBatch:
    frames = [
        a_frame(first_offset + i, stream, timestamp_ms=1000 + i, captured_at_us=10 * (first_offset + i))
        for i in range(images)
    ]
    values = draw_values(Weather(optimum), images, np.random.default_rng(seed))
    return dataclasses.replace(batch_of(frames), images=as_images(values))


def adapt(batches: list[ImageBatch], states: list[StreamState], strategy: Strategy = WARM) -> list[Adapted]:
    return Adaptation(strategy, Curves(), ONES, 3).run(batches, states)


def comparable(adapted: Adapted) -> tuple[object, ...]:
    p = adapted.predictions
    arrays = (p.top_index, p.top_probability, p.entropy, p.endpoint_index, p.endpoint_confidence)
    return (
        adapted.state.to_bytes(),
        repr(dataclasses.replace(adapted.trace, milliseconds={}, predicted_at_us=None)),
        *(array.tobytes() for array in arrays),
    )


def test_a_trace_says_where_the_batch_lies_and_how_its_alpha_came_about() -> None:
    (first,) = adapt([a_batch("cam-1", 40)], [WARM.initial()])
    trace = first.trace
    assert (trace.topic, trace.partition, trace.stream_id) == ("frames", 0, "cam-1")
    assert (trace.first_offset, trace.last_offset, trace.images) == (40, 55, 16)
    assert (trace.captured_at_us, trace.kafka_timestamp_ms) == (550, 1015)
    assert (trace.batch_number, trace.previous_alpha, trace.trigger, trace.reset) == (0, None, "start", None)
    assert trace.alpha in [trial.alpha for trial in trace.trials]
    assert trace.forward_equivalents == trace.forward_cost == sum(trial.images for trial in trace.trials) / 16
    assert trace.milliseconds.keys() == {"forward", "search"}
    (second,) = adapt([a_batch("cam-1", 56, seed=1)], [first.state])
    assert second.trace.batch_number == 1
    assert second.trace.previous_alpha == GRID[first.state.alpha_index]
    assert len(second.predictions.entropy) == 16


def test_the_cost_of_a_batch_counts_shared_layers_once() -> None:
    classifier = Curves()
    classifier.tail_share = 0.25
    found = Adaptation(WARM, classifier, ONES, 3).run([a_batch("cam-1")], [WARM.initial()])[0].trace
    assert found.forward_equivalents > 1.0
    assert found.forward_cost == 1.0 + 0.25 * (found.forward_equivalents - 1.0)


def test_a_trace_has_mean_and_variance_of_the_statistics_whatever_the_order_of_the_images() -> None:
    numbers = np.random.default_rng(0).normal(-1, 2, (16, len(STATISTICS))).astype(np.float32)
    frames = [dataclasses.replace(a_frame(i), statistics=row) for i, row in enumerate(numbers)]
    found = moments(frames)
    exact = numbers.astype(np.float64)
    np.testing.assert_allclose([found[f"{name}_mean"] for name in STATISTICS], exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose([found[f"{name}_variance"] for name in STATISTICS], exact.var(axis=0), rtol=1e-12)
    assert moments(frames[::-1]) == found
    assert {moments(frames[:1])[f"{name}_variance"] for name in STATISTICS} == {0.0}
    batch = dataclasses.replace(a_batch("cam-1"), frames=tuple(frames))
    assert adapt([batch], [WARM.initial()])[0].trace.statistics == found


def test_a_trace_has_no_statistics_where_an_image_has_none() -> None:
    known = dataclasses.replace(a_frame(0), statistics=np.zeros(len(STATISTICS), np.float32))
    assert moments([known, a_frame(1)]) == {}
    assert adapt([a_batch("cam-1")], [WARM.initial()])[0].trace.statistics == {}


def test_the_previous_alpha_is_the_one_that_served_the_batch_before_wherever_this_one_starts() -> None:
    (first,) = adapt([a_batch("cam-1", 0)], [WARM.initial()])
    assert first.state.served_index is not None
    assert GRID[first.state.served_index] == first.trace.alpha
    moved = dataclasses.replace(first.state, alpha_index=20 - first.state.served_index)
    kept = StreamState.from_bytes(moved.to_bytes())
    of_before = dataclasses.replace(kept, served_index=None)  # as an earlier version wrote it
    for state, index in ((kept, first.state.served_index), (of_before, kept.alpha_index)):
        (second,) = adapt([a_batch("cam-1", 16, seed=1)], [state])
        assert second.trace.previous_alpha == GRID[index]


def test_a_batch_fares_the_same_alone_and_among_others() -> None:
    batches = [a_batch(f"cam-{s}", 100 * s, images=9 + 4 * s, optimum=s / 3, seed=s) for s in range(4)]
    states = [WARM.initial() for _ in batches]
    for _ in range(3):
        together = adapt(batches, states)
        for batch, state, shared in zip(batches, states, together, strict=True):
            assert comparable(adapt([batch], [state])[0]) == comparable(shared)
        backwards = adapt(batches[::-1], states[::-1])[::-1]
        assert [comparable(a) for a in backwards] == [comparable(a) for a in together]
        states = [adapted.state for adapted in together]


def test_streams_at_one_alpha_share_its_call() -> None:
    classifier = Curves()
    fixed = FixedSearch(GRID, objective, "test", 5)
    Adaptation(fixed, classifier, ONES, 1).run(
        [a_batch(f"cam-{s}", images=8) for s in range(10)], [fixed.initial() for _ in range(10)]
    )
    assert classifier.calls == [(5, 80)]


def test_the_temperatures_calibrate_what_is_served_and_not_what_is_chosen() -> None:
    cool = Adaptation(WARM, Curves(), ONES, 3).run([a_batch("cam")], [WARM.initial()])[0]
    warmer = Adaptation(WARM, Curves(), (4.0,) * len(GRID), 3).run([a_batch("cam")], [WARM.initial()])[0]
    assert warmer.state.to_bytes() == cool.state.to_bytes()
    assert (warmer.predictions.entropy > cool.predictions.entropy).all()


def test_a_rounds_time_is_shared_by_the_images_passed_and_by_the_images() -> None:
    small, large = adapt([a_batch("a", images=8), a_batch("b", images=24)], [WARM.initial(), WARM.initial()])
    passed = [sum(trial.images for trial in adapted.trace.trials) for adapted in (small, large)]
    forward = [adapted.trace.milliseconds["forward"] for adapted in (small, large)]
    assert np.isclose(forward[0] / passed[0], forward[1] / passed[1])
    assert np.isclose(3 * small.trace.milliseconds["search"], large.trace.milliseconds["search"])


def test_no_batches_are_nothing_to_do() -> None:
    assert adapt([], []) == []


def test_images_are_not_touched() -> None:
    batch = a_batch("cam")
    before = batch.images.clone()
    adapt([batch], [WARM.initial()])
    assert torch.equal(batch.images, before)


class Fragile(WarmSearch):
    """A search that fails for the stream that is in its third batch."""

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
        outcome = yield from super().search(state, images, appearance)
        if state.batches == 2:
            raise ZeroDivisionError("no rows")
        return outcome


def test_a_search_that_fails_costs_one_camera_one_batch() -> None:
    fragile = Fragile(GRID, objective, "test", 10, Exploration())
    batches = [a_batch("cam-1", 0), a_batch("cam-2", 16, seed=1)]
    states = [dataclasses.replace(fragile.initial(), batches=2, alpha_index=16), fragile.initial()]
    failed, sound = adapt(batches, states, fragile)
    assert isinstance(failed.error, ZeroDivisionError)
    assert (failed.trace.trigger, failed.trace.reset, failed.trace.alpha) == ("failed", "failed", GRID[10])
    assert (failed.trace.batch_number, failed.trace.previous_alpha) == (2, GRID[16])
    assert failed.state == dataclasses.replace(fragile.initial(), batches=3, served_index=10)
    assert comparable(sound) == comparable(adapt(batches[1:], states[1:])[0])
    (after,) = adapt([a_batch("cam-1", 32)], [failed.state], fragile)
    assert (after.error, after.trace.batch_number, after.trace.trigger) == (None, 3, "start")
