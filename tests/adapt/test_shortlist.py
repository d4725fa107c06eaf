"""Shortlists: what a camera can show is decided among those classes alone, as if the model had no others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adawise.adapt.conditions import Appearance
from adawise.adapt.last_seen import LastSeen
from adawise.adapt.objective import NO_CARD
from adawise.adapt.search import Search, Strategy
from adawise.adapt.shortlist import SURE, Shortlist, Shortlists, continued, off_list
from adawise.adapt.state import StreamState
from adawise.adapt.strategies import NAMES, strategy
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.errors import ChainError
from adawise.records import ImageBatch
from adawise.worker.adaptation import Adaptation, Adapted
from adawise.worker.batching import batch_of
from tests.adapt.curves import GRID, AlphaByAlpha
from tests.frames import a_frame

CLASSES = tuple(f"class {n}" for n in range(12))
KEPT = (2, 3, 7, 11)
LISTED = Shortlist.of(KEPT, CLASSES)
ONES = (1.0,) * len(GRID)


class Random(AlphaByAlpha):
    """A classifier of random logits: an image's pixels are the seed of its row."""

    alphas = GRID

    def __init__(self, columns: tuple[int, ...] | None = None) -> None:
        self._columns = columns

    def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
        seeds = torch.cat([part.reshape(-1) for part in images]).tolist()
        rows = np.stack([np.random.default_rng([alpha_index, int(seed)]).normal(0, 3, len(CLASSES)) for seed in seeds])
        z = torch.from_numpy(rows).float()
        return z if self._columns is None else z[:, self._columns]


def batches(count: int, stream: str = "yard-1", images: int = 16) -> list[ImageBatch]:
    found = []
    for number in range(count):
        frames = [a_frame(images * number + i, stream, timestamp_ms=1000 + i) for i in range(images)]
        pixels = torch.arange(images).reshape(-1, 1, 1, 1) + images * number
        found.append(replace(batch_of(frames), images=pixels))
    return found


def made(name: str = "warm", *, context: str = "test") -> Strategy:
    return strategy(
        name,
        alphas=GRID,
        objective=NO_CARD["tsallis"],
        context=context,
        alpha=0.5,
        exploration=Exploration(),
    )


def served(adaptation: Adaptation, given: list[ImageBatch], state: StreamState) -> list[Adapted]:
    found = []
    for batch in given:
        (adapted,) = adaptation.run([batch], [state])
        state = adapted.state
        found.append(adapted)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.cases("search", every=3)
def test_a_camera_with_a_shortlist_is_served_as_by_a_model_of_those_classes(name: str) -> None:
    count = 2 if name == "botorch" else 12
    searching = made(name)
    listed = Adaptation(searching, Random(), ONES, 3, Shortlists((("yard-*", LISTED),)))
    small = Adaptation(searching, Random(KEPT), ONES, 3)
    ours = served(listed, batches(count), searching.initial())
    theirs = served(small, batches(count), searching.initial())
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.trace.alpha, mine.trace.objective) == (other.trace.alpha, other.trace.objective)
        assert mine.trace.trials == other.trace.trials
        assert mine.predictions.top_index.tolist() == np.array(KEPT)[other.predictions.top_index].tolist()
        assert mine.predictions.top_probability.tobytes() == other.predictions.top_probability.tobytes()
        assert mine.predictions.entropy.tobytes() == other.predictions.entropy.tobytes()
        ends = other.predictions.endpoint_index
        assert mine.predictions.endpoint_index.tolist() == np.where(ends < 0, ends, np.array(KEPT)[ends]).tolist()
        assert replace(mine.state, shortlist="").to_bytes() == other.state.to_bytes()
        assert (mine.trace.shortlist, other.trace.shortlist) == (LISTED.digest, None)
        assert other.trace.off_list is None


def logits_of(*rows: Mapping[int, float]) -> Tensor:
    """Logits `[n, 12]`, 0 but for these of each row."""
    z = torch.zeros(len(rows), len(CLASSES))
    for number, row in enumerate(rows):
        for index, value in row.items():
            z[number, index] = value
    return z


def test_images_whose_sure_first_class_is_not_on_the_shortlist_are_counted_by_class() -> None:
    z = logits_of({4: 20.0}, {2: 20.0}, {0: 20.0, 3: 19.9}, {4: 30.0, 3: 20.0}, {}, {1: 20.0}, {3: 30.0, 1: 20.0})
    assert [*off_list(z, LISTED, 1.0).items()] == [(1, 1), (4, 2)]
    assert off_list(z, LISTED, 100.0) == {}, "as it is served, no image is sure"
    assert off_list(z[:0], LISTED, 1.0) == {}


@pytest.mark.parametrize(("above", "images"), [(1e-3, 1), (-1e-3, 0)])
def test_an_image_is_sure_from_a_probability_on(above: float, images: int) -> None:
    p = SURE + above
    z = logits_of({5: float(np.log(p / (1 - p) * (len(CLASSES) - 1)))})
    assert sum(off_list(z, LISTED, 1.0).values()) == images


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 2])
def test_an_image_whose_logits_are_not_finite_is_not_counted(value: float, column: int) -> None:
    z = logits_of({4: 20.0}, {4: 20.0})
    z[0, column] = value
    assert off_list(z, LISTED, 1.0) == {4: 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_counts_what_its_shortlist_lacks_at_the_served_alpha(name: str) -> None:
    searching = made(name)
    temperatures = tuple(np.linspace(0.2, 1.0, len(GRID)).tolist())
    shortlists = Shortlists((("yard-*", LISTED),))
    found = served(
        Adaptation(searching, Random(), temperatures, 3, shortlists),
        given := batches(2 if name == "botorch" else 12),
        searching.initial(),
    )
    for batch, adapted in zip(given, found, strict=True):
        index = GRID.index(adapted.trace.alpha)
        z = Random().logits(index, batch.images)
        assert adapted.trace.off_list == off_list(z, LISTED, temperatures[index])
    assert any(adapted.trace.off_list for adapted in found)
    assert not {*KEPT} & {index for adapted in found for index in adapted.trace.off_list or ()}


def test_a_camera_without_a_shortlist_is_not_affected_by_those_of_others() -> None:
    searching = made()
    listed = Adaptation(searching, Random(), ONES, 3, Shortlists((("gate-*", LISTED),)))
    plain = Adaptation(searching, Random(), ONES, 3)
    (mine,), (other,) = (each.run(batches(1), [searching.initial()]) for each in (listed, plain))
    assert mine.state.to_bytes() == other.state.to_bytes()
    assert mine.predictions.top_index.tolist() == other.predictions.top_index.tolist()
    assert b"shortlist" not in mine.state.to_bytes()


def test_cameras_of_one_round_have_the_same_bits_as_alone() -> None:
    searching = made()
    both = Adaptation(searching, Random(), ONES, 3, Shortlists((("yard-*", LISTED),)))
    yard, gate = batches(1)[0], batches(1, "gate-1")[0]
    together = both.run([yard, gate], [searching.initial()] * 2)
    for alone, beside in zip((yard, gate), together, strict=True):
        (single,) = both.run([alone], [searching.initial()])
        assert single.state.to_bytes() == beside.state.to_bytes()
        assert single.predictions.top_index.tolist() == beside.predictions.top_index.tolist()
        assert single.trace.off_list == beside.trace.off_list
    assert [adapted.trace.off_list is None for adapted in together] == [False, True]


def test_another_shortlist_resets_what_was_learned_and_keeps_the_alpha() -> None:
    searching = made()
    first, second = Shortlists((("*", LISTED),)), Shortlists((("*", Shortlist.of((0, 1, 5), CLASSES)),))
    before = served(Adaptation(searching, Random(), ONES, 3, first), batches(5), searching.initial())
    assert [adapted.trace.reset for adapted in before] == [None] * 5
    stored = StreamState.from_bytes(before[-1].state.to_bytes())
    assert stored.shortlist == LISTED.digest
    changed = Adaptation(searching, Random(), ONES, 3, second)
    (after,) = changed.run(batches(6)[5:], [stored])
    assert (after.trace.reset, after.trace.batch_number, after.trace.previous_alpha) == ("shortlist", 0, None)
    assert after.state.batches == 1
    begun, was_reset = continued(stored, second.of("yard-1"), searching)
    assert was_reset
    assert (begun.alpha_index, begun.batches, begun.belief) == (stored.alpha_index, 0, None)
    lived = replace(stored, broken=(0, 20), last_seen=LastSeen(1, 2, 3))
    begun, _ = continued(lived, second.of("yard-1"), searching)
    assert (begun.broken, begun.last_seen) == (lived.broken, lived.last_seen)
    (following,) = changed.run(batches(7)[6:], [StreamState.from_bytes(after.state.to_bytes())])
    assert following.trace.reset is None
    (removed,) = Adaptation(searching, Random(), ONES, 3).run(batches(7)[6:], [after.state])
    assert (removed.trace.reset, removed.trace.shortlist, removed.state.shortlist) == ("shortlist", None, "")


def test_a_search_that_raises_is_replaced_by_one_among_the_shortlist() -> None:
    class Raises(WarmSearch):
        def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
            yield from ()
            raise ValueError("planted")

    raising = Raises(GRID, NO_CARD["tsallis"], "test", 10, Exploration())
    listed = Adaptation(raising, Random(), ONES, 3, Shortlists((("*", LISTED),)))
    (adapted,) = listed.run(batches(1), [raising.initial()])
    assert str(adapted.error) == "planted"
    assert {*adapted.predictions.top_index.ravel().tolist()} <= {*KEPT}
    assert (adapted.trace.reset, adapted.trace.shortlist) == ("failed", LISTED.digest)
    assert adapted.trace.off_list == off_list(Random().logits(10, batches(1)[0].images), LISTED, 1.0)
    assert adapted.state.shortlist == LISTED.digest
    before = replace(raising.initial(), batches=7, shortlist="0" * 12)
    (changed,) = listed.run(batches(1), [before])  # the reset that verify knows to count batches from 0
    assert (changed.trace.reset, changed.trace.trigger, changed.trace.batch_number) == ("shortlist", "failed", 0)


def test_a_search_that_fails_keeps_the_shortlist() -> None:
    class Fails(Random):
        def logits(self, alpha_index: int, *images: Tensor) -> Tensor:
            return super().logits(alpha_index, *images) * float("nan")

    searching = made()
    listed = Adaptation(searching, Fails(), ONES, 3, Shortlists((("*", LISTED),)))
    first, second = served(listed, batches(2), searching.initial())
    assert {first.trace.shortlist, second.trace.shortlist} == {LISTED.digest}
    assert "shortlist" not in {first.trace.reset, second.trace.reset}
    assert (first.trace.off_list, second.trace.off_list) == ({}, {})
    assert {*second.predictions.top_index.ravel().tolist()} <= {*KEPT}


@given(st.lists(st.sampled_from(["*", "yard-*", "yard-1", "gate-?", "Yard-1"]), max_size=6))
def test_the_last_pattern_that_matches_holds(patterns: list[str]) -> None:
    lists = [Shortlist.of((n % 11, n % 11 + 1), CLASSES) for n in range(len(patterns))]
    rules = tuple(zip(patterns, lists, strict=True))
    matching = [listed for pattern, listed in rules if pattern in {"*", "yard-*", "yard-1"}]
    shortlists = Shortlists(rules)
    assert shortlists.of("yard-1") is shortlists.of("yard-1") is (matching[-1] if matching else None)


def test_a_digest_is_of_the_names_whatever_their_order_or_place() -> None:
    assert Shortlist.of((7, 2, 2), CLASSES).columns.tolist() == [2, 7]
    assert Shortlist.of((7, 2), CLASSES).digest == Shortlist.of((0, 1), ("class 2", "class 7")).digest
    assert Shortlist.of((7, 2), CLASSES).digest != Shortlist.of((7, 3), CLASSES).digest


@pytest.mark.parametrize("value", ["x", "0" * 11, "0" * 13, "0" * 11 + "\n", 5, None])
def test_a_state_with_a_shortlist_that_none_has_is_damaged(value: object) -> None:
    data = replace(made().initial(), shortlist="0" * 12).to_bytes()
    assert StreamState.from_bytes(data).shortlist == "0" * 12
    with pytest.raises(ChainError):
        StreamState.from_bytes(json.dumps({**json.loads(data), "shortlist": value}).encode())
