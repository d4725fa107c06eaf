from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapt.state import Observation, StreamState
from pipeline.adapt.surrogate import Belief
from pipeline.errors import ChainError

number = st.floats(allow_nan=True, allow_infinity=True)
count = st.integers(0, 2**53)


@st.composite
def beliefs(draw: st.DrawFn) -> Belief:
    n = draw(st.integers(1, 6))
    P = np.array(draw(st.lists(number, min_size=n * n, max_size=n * n))).reshape(n, n)
    upper = np.triu_indices(n)
    P.T[upper] = P[upper]
    return Belief(np.array(draw(st.lists(number, min_size=n, max_size=n))), P)


states = st.builds(
    StreamState,
    key=st.text(),
    alpha_index=count,
    batches=count,
    quiet_batches=count,
    level_mean=number,
    level_variance=number,
    level_count=count,
    belief=st.none() | beliefs(),
    observations=st.lists(st.builds(Observation, count, count, number, number), max_size=4).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | number | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def bits(value: float) -> bytes:
    return np.float64(value).tobytes() if not math.isnan(value) else b"nan"


@given(states)
def test_a_state_comes_back_bit_by_bit(state: StreamState) -> None:
    back = StreamState.from_bytes(state.to_bytes())
    assert back.to_bytes() == state.to_bytes()
    assert (back.key, back.alpha_index, back.batches) == (state.key, state.alpha_index, state.batches)
    assert (back.quiet_batches, back.level_count) == (state.quiet_batches, state.level_count)
    assert bits(back.level_mean) == bits(state.level_mean)
    assert bits(back.level_variance) == bits(state.level_variance)
    for theirs, ours in zip(back.observations, state.observations, strict=True):
        assert (theirs.batch, theirs.index) == (ours.batch, ours.index)
        assert bits(theirs.value) == bits(ours.value)
        assert bits(theirs.noise_variance) == bits(ours.noise_variance)
    if state.belief is None:
        assert back.belief is None
    else:
        assert back.belief is not None
        assert back.belief.mean.tobytes() == state.belief.mean.tobytes()
        assert back.belief.covariance.tobytes() == state.belief.covariance.tobytes()


def test_a_state_of_the_default_strategy_is_a_few_kilobytes() -> None:
    belief = Belief(np.random.default_rng(0).standard_normal(22), np.eye(22))
    assert len(StreamState("warm/entropy@0123456789abcdef/10/21", 10, belief=belief).to_bytes()) < 4096


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"{", b"null", b"[]", b"3", b"{}", b'"state"', b"[" * 100_000])
def test_what_is_not_a_state_is_a_damaged_chain(data: bytes) -> None:
    with pytest.raises(ChainError, match=r"not readable.*restore it from a copy"):
        StreamState.from_bytes(data)


def test_another_format_is_named_with_both_numbers() -> None:
    fields = json.loads(StreamState("k", 3).to_bytes())
    fields["format"] = 7
    with pytest.raises(ChainError, match=r"expected format 1, got 7.*Run the version that wrote the chain"):
        StreamState.from_bytes(json.dumps(fields).encode())


@given(st.sampled_from(sorted(json.loads(StreamState("k", 3).to_bytes()))), json_values)
def test_a_field_of_another_kind_is_refused_or_read_as_a_whole_state(name: str, value: object) -> None:
    fields = json.loads(StreamState("k", 3).to_bytes())
    fields[name] = value
    try:
        state = StreamState.from_bytes(json.dumps(fields).encode())
    except ChainError:
        return
    assert isinstance(state.alpha_index, int)
    assert isinstance(state.level_mean, float)
    assert isinstance(state.key, str)
    assert StreamState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()


@pytest.mark.parametrize("name", sorted(json.loads(StreamState("k", 3).to_bytes())))
def test_a_field_that_is_missing_is_a_damaged_chain(name: str) -> None:
    fields = json.loads(StreamState("k", 3).to_bytes())
    del fields[name]
    with pytest.raises(ChainError, match=name):
        StreamState.from_bytes(json.dumps(fields).encode())


def test_the_level_is_a_plain_mean_at_first_and_forgets_later() -> None:
    values = [0.5, 0.7, 0.3, 0.9]
    state = StreamState("k", 0)
    for value in values:
        state = state.with_level(value)
    assert math.isclose(state.level_mean, np.mean(values))
    assert math.isclose(state.level_variance, np.var(values))
    for _ in range(200):
        state = state.with_level(2.0)
    assert math.isclose(state.level_mean, 2.0, abs_tol=1e-6)
    assert state.level_variance < 1e-6
    assert state.level_count == 204
