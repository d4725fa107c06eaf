"""A search ends, and leaves a state that can be gone on from, whatever a stream brings and the model answers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adawise.adapt.conditions import Appearance
from adawise.adapt.objective import raw_entropy, tsallis
from adawise.adapt.search import run
from adawise.adapt.state import StreamState, largest_bytes
from adawise.adapt.strategies import NAMES, strategy
from adawise.adapt.strategies.warm import Exploration
from adawise.records import STATISTICS

GRIDS = ((0.5,), (0.0, 1.0), (0.0, 0.5, 1.0), tuple(j / 20 for j in range(21)))
CLASSES = (1, 2, 3, 10, 1_000, 10_000)
SPOILED = (float("nan"), float("inf"), -float("inf"), 1e38)


@dataclass(frozen=True)
class Batch:
    """One batch: `images` of it, how they look, and at which alphas the model's answer is spoiled, and by what."""

    images: int
    kind: str  # random, constant, alternating, frozen
    spoiled: frozenset[int]
    by: float
    rows: int  # of how many images, from the first
    look: int | None


@dataclass(frozen=True)
class Stream:
    """The settings of a search, and what comes."""

    name: str
    alphas: tuple[float, ...]
    start: int
    classes: int
    seed: int
    policy: Exploration
    batches: Sequence[Batch]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    alphas = draw(st.sampled_from(GRIDS))
    policy = Exploration(
        budget=draw(st.sampled_from((1, 2, 5))),
        images=draw(st.sampled_from((1, 8))),
        every=draw(st.sampled_from((1, 2, 8))),
        min_images=draw(st.sampled_from((1, 8))),
        price=draw(st.sampled_from((0.0, 0.03))),
        hazard=draw(st.sampled_from((0.0, 0.02))),
        audit_every=draw(st.sampled_from((3, 200))),
        disagreement=draw(st.sampled_from((None, 1.0, 0.2))),
        conditions=draw(st.sampled_from((0, 1, 16))),
        pixels=draw(st.booleans()),
        drifting=draw(st.sampled_from((0.0, 0.3))),
        alarm=draw(st.booleans()),
    )
    batch = st.builds(
        Batch,
        images=st.sampled_from((1, 2, 8, 16, 33)),
        kind=st.sampled_from(("random", "random", "constant", "alternating", "frozen")),
        spoiled=st.one_of(st.just(frozenset()), st.frozensets(st.integers(0, len(alphas) - 1))),
        by=st.sampled_from(SPOILED),
        rows=st.integers(1, 33),
        look=st.one_of(st.none(), st.integers(0, 3)),
    )
    return Stream(
        draw(
            st.sampled_from([name for name in NAMES if name != "botorch"])
        ),  # which takes seconds, and keeps no belief
        alphas,
        draw(st.integers(0, len(alphas) - 1)),
        draw(st.sampled_from(CLASSES)),
        draw(st.integers(0, 2**32 - 1)),
        policy,
        draw(st.lists(batch, min_size=1, max_size=25)),
    )


def answers(stream: Stream, batch: Batch, rng: np.random.Generator) -> Mapping[int, Tensor]:
    """The model's logits `[n, C]` of a batch, by alpha."""
    base = np.zeros((batch.images, stream.classes))
    if batch.kind == "random":
        base = rng.normal(size=base.shape) * 3.0
    elif batch.kind == "alternating":
        base[::2] = 50.0
    elif batch.kind == "frozen":  # the same picture again and again, also in the next batch
        base[:] = np.random.default_rng(stream.seed).normal(size=stream.classes) * 3.0
    found = {}
    for index, alpha in enumerate(stream.alphas):
        z = torch.from_numpy(base * (0.5 + alpha)).float()
        if index in batch.spoiled:
            z[: batch.rows] = batch.by
        found[index] = z
    return found


def appearance(batch: Batch, rng: np.random.Generator) -> Appearance | None:
    if batch.look is None:
        return None
    mean = np.full(len(STATISTICS), float(batch.look)) + rng.normal(size=len(STATISTICS)) * 0.05
    return Appearance.of(mean.tolist(), [0.01 * batch.look] * len(STATISTICS), batch.images)


def pass_through(stream: Stream) -> StreamState:
    """Pass the stream; each state goes through its bytes. Returns the last."""
    start = stream.alphas[stream.start]
    objective = raw_entropy if stream.seed % 2 else tsallis
    made = strategy(
        stream.name, alphas=stream.alphas, objective=objective, context="any", alpha=start, exploration=stream.policy
    )
    most = largest_bytes(made.initial().key, len(stream.alphas), 0, stream.policy.conditions)
    rng, state = np.random.default_rng(stream.seed), made.initial()
    for number, batch in enumerate(stream.batches):
        logits = answers(stream, batch, rng)
        rows, forwards = torch.arange(batch.images), Counter[int]()

        def evaluate(
            requested: Mapping[int, Sequence[Tensor]],
            logits: Mapping[int, Tensor] = logits,
            forwards: Counter[int] = forwards,
        ) -> dict[int, Tensor]:
            forwards.update({index: sum(map(len, parts)) for index, parts in requested.items()})
            return {index: logits[index][torch.cat(list(parts))] for index, parts in requested.items()}

        # no `restarts`: an error of a search is an error of this test
        (outcome,) = run([made.search(state, batch.images, appearance(batch, rng))], [rows], evaluate)
        assert outcome.state.is_finite()
        assert outcome.state.batches == number + 1
        assert max(forwards.values()) <= batch.images  # no image passes twice at an alpha: steps are bounded
        assert torch.equal(outcome.logits.nan_to_num(), logits[outcome.index].nan_to_num())
        if stream.name == "warm" and stream.start not in batch.spoiled:  # it can go back to where it began
            assert torch.isfinite(outcome.logits).all()
        if not batch.spoiled:
            assert np.isfinite(outcome.objective)
        data = outcome.state.to_bytes()
        assert len(data) <= most
        state = StreamState.from_bytes(data)
        assert state.to_bytes() == data
    return state


@given(streams())
def test_every_batch_of_any_stream_is_served_and_leaves_a_state_that_is_finite_bounded_and_read_back(
    stream: Stream,
) -> None:
    pass_through(stream)


@pytest.mark.soak
def test_a_stream_of_a_hundred_thousand_batches_ends_as_it_began() -> None:
    """State and time of a batch are bounded: nothing grows with the number of batches."""
    rng = np.random.default_rng(0)
    kinds, learned = ("random", "random", "random", "constant", "alternating", "frozen"), (None, 0, 1, 2, 3)
    batches = [
        Batch(
            int(rng.choice((8, 16, 33))),
            str(rng.choice(kinds)),
            frozenset({int(rng.integers(21))}) if rng.random() < 0.01 else frozenset(),
            float(rng.choice(SPOILED)),
            int(rng.integers(1, 33)),
            learned[(number // 500) % len(learned)],
        )
        for number in range(100_000)
    ]
    stream = Stream("warm", GRIDS[-1], 10, 10, 1, Exploration(), batches)
    state = pass_through(stream)
    assert state.batches == 100_000
    after = dataclasses.replace(stream, batches=batches[:1])
    assert pass_through(after).batches == 1
