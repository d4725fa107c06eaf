from __future__ import annotations

import base64
import json
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.change import ClassMix, Level
from adawise.adapt.conditions import KnownCondition, LearnedAppearance, Memory
from adawise.adapt.disagreement import Disagreement
from adawise.adapt.last_seen import LastSeen, condition_in
from adawise.adapt.noise import PairedNoise
from adawise.adapt.state import Observation, StreamState, largest_bytes
from adawise.adapt.surrogate import Abridged, Belief
from adawise.errors import ChainError

number = st.floats(allow_nan=True, allow_infinity=True)
count = st.integers(0, 2**53)


@st.composite
def beliefs(draw: st.DrawFn) -> Belief:
    n = draw(st.integers(1, 6))
    P = np.array(draw(st.lists(number, min_size=n * n, max_size=n * n))).reshape(n, n)
    upper = np.triu_indices(n)
    P.T[upper] = P[upper]
    return Belief(np.array(draw(st.lists(number, min_size=n, max_size=n))), P)


def curve(points: int, number: float) -> Abridged:
    knots = min(6, points)
    covariance = np.eye(knots)[np.triu_indices(knots)]
    return Abridged(np.full(knots, number).astype("f4"), covariance.astype("f4"))


@st.composite
def states_of(draw: st.DrawFn, plain: st.SearchStrategy[StreamState]) -> StreamState:
    """With a place on the grid, and a curve of as many alphas as the belief has."""
    state = draw(plain)
    points = 0 if state.belief is None else len(state.belief.mean) - 1
    if not points:
        return state
    known = draw(st.none() | st.builds(curve, st.just(points), st.floats(-1e30, 1e30)))
    return replace(state, alpha_index=state.alpha_index % points, standardised=known)


plain = st.builds(
    StreamState,
    key=st.text(),
    alpha_index=count,
    batches=count,
    quiet_batches=count,
    pinned_batches=count,
    disagreement=st.builds(Disagreement, st.floats(0.0, 64.0), st.floats(0.0, 64.0)),
    drifting=st.none() | st.floats(0.0, 1.0),
    broken=st.lists(count, max_size=4).map(tuple),
    hazard=st.floats(0.0, 1.0, exclude_max=True),
    level=st.builds(Level, number, number, count),
    mix=st.builds(ClassMix, st.lists(number, max_size=4).map(tuple), st.builds(Level, number, number, count)),
    noise=st.builds(PairedNoise, number, number),
    belief=st.none() | beliefs(),
    observations=st.lists(st.builds(Observation, count, count, number, number), max_size=4).map(tuple),
)
states = states_of(plain)
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
    assert (back.quiet_batches, back.pinned_batches) == (state.quiet_batches, state.pinned_batches)
    assert back.broken == state.broken
    assert bits(back.disagreement.images) == bits(state.disagreement.images)
    assert bits(back.disagreement.differing) == bits(state.disagreement.differing)
    assert (back.drifting is None) == (state.drifting is None)
    assert (back.standardised is None) == (state.standardised is None)
    assert bits(back.hazard) == bits(state.hazard)
    assert bits(back.level.mean) == bits(state.level.mean)
    assert bits(back.level.variance) == bits(state.level.variance)
    assert back.level.batches == state.level.batches
    assert bits(back.noise.squares) == bits(state.noise.squares)
    assert bits(back.noise.degrees) == bits(state.noise.degrees)
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
    with pytest.raises(ChainError, match=r"expected format 2 or lower, got 7.*Run the version that wrote the chain"):
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
    assert isinstance(state.level.mean, float)
    assert isinstance(state.key, str)
    assert StreamState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()


LATER = {
    "pinned_batches",
    "capped_batches",
    "hazard",
    "mix",
    "noise",
    "broken",
}


@pytest.mark.parametrize("name", sorted(json.loads(StreamState("k", 3).to_bytes()).keys() - LATER))
def test_a_field_that_every_state_has_and_this_one_has_not_is_a_damaged_chain(name: str) -> None:
    fields = json.loads(StreamState("k", 3).to_bytes())
    del fields[name]
    with pytest.raises(ChainError, match=name):
        StreamState.from_bytes(json.dumps(fields).encode())


def test_what_came_later_and_is_missing_is_as_it_was_before() -> None:
    fields = json.loads(StreamState("k", 3, batches=5, level=Level(0.5, 0.25, 4)).to_bytes())
    for name in LATER:
        del fields[name]
    del fields["level"]["variance"]
    back = StreamState.from_bytes(json.dumps(fields).encode())
    assert back == StreamState("k", 3, batches=5, level=Level(0.5, 0.0, 4))


def test_what_a_later_version_adds_is_passed_over() -> None:
    state = StreamState("k", 3, level=Level(0.5, 0.25, 4), mix=ClassMix((0.5, 0.5)))
    fields = json.loads(state.to_bytes())
    for part in (fields, fields["level"], fields["noise"], fields["mix"], fields["mix"]["likeness"]):
        part["of_tomorrow"] = [{"new": 1}]
    assert StreamState.from_bytes(json.dumps(fields).encode()) == state


def night(number: int, seed: int) -> KnownCondition:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    curve = Abridged(rng.normal(size=6).astype("f4"), (root @ root.T)[np.triu_indices(6)].astype("f4"))
    known = KnownCondition(number, 3, 40, curve, rng.normal(size=5), batches=12, level=math.pi, alpha_index=7)
    return replace(known, disagreement=Disagreement(60.1, 20.2)).rounded()


def seen() -> StreamState:
    rng = np.random.default_rng(0)
    one, two, three, four = rng.normal(size=(4, 5))
    learned = LearnedAppearance(one, two**2, three, four**2, batches=7, overall_batches=300, restless=1 / 3)
    belief = Belief(np.zeros(22), np.eye(22))
    return StreamState("k", 3, belief=belief, looks=learned, memory=Memory(5, 2, 9, (night(4, 1), night(8, 2))))


def test_how_a_stream_looks_and_what_it_remembers_are_the_same_after_the_bytes() -> None:
    state = seen()
    back = StreamState.from_bytes(state.to_bytes())
    assert back.to_bytes() == state.to_bytes()
    assert back.looks is not None
    assert state.looks is not None
    np.testing.assert_array_equal(back.looks.spread, state.looks.spread)
    assert (back.looks.batches, back.looks.overall_batches, back.looks.restless) == (7, 300, 1 / 3)
    assert (back.memory.number, back.memory.visits, back.memory.condition_count) == (5, 2, 9)
    for theirs, ours in zip(back.memory.known, state.memory.known, strict=True):
        assert (theirs.number, theirs.visits, theirs.left, theirs.batches) == (ours.number, 3, 40, 12)
        assert (theirs.level, theirs.alpha_index, theirs.disagreement) == (ours.level, 7, ours.disagreement)
        np.testing.assert_array_equal(theirs.appearance, ours.appearance)
        np.testing.assert_array_equal(theirs.curve.mean, ours.curve.mean)
        np.testing.assert_array_equal(theirs.curve.covariance, ours.curve.covariance)


def test_a_state_of_before_has_no_memory_and_its_bytes_stay_as_they_were() -> None:
    fields = json.loads(StreamState("k", 3).to_bytes())
    assert not {"looks", "conditions"} & fields.keys()
    back = StreamState.from_bytes(json.dumps(fields).encode())
    assert back.looks is None
    assert back.memory == Memory()


@pytest.mark.parametrize("numbers", ["", "AAAA", "AAAAAA==", 7, None])
def test_a_damaged_memory_is_a_damaged_chain(numbers: object) -> None:
    fields = json.loads(seen().to_bytes())
    fields["conditions"][3][0][-1] = numbers
    with pytest.raises(ChainError, match="not readable"):
        StreamState.from_bytes(json.dumps(fields).encode())


def packed(numbers: npt.ArrayLike, kind: str) -> str:
    return base64.b64encode(np.asarray(numbers, dtype=kind).tobytes()).decode()


def remembered(level: float, covariance: float, knots: int = 6) -> str:
    halves, upper = [level, 1.0, 0.0, *[0.1] * (5 + knots)], [covariance] * (knots * (knots + 1) // 2)
    return base64.b85encode(np.array(halves, "<f2").tobytes() + np.array(upper, "<f4").tobytes()).decode()


LOOKS = np.ones((4, 5))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("alpha_index",), index) for index in (-1, 21)),
        *((("served_index",), index) for index in (-1, 21)),
        *((("hazard",), hazard) for hazard in (-0.1, 1.0, math.nan)),
        *((("drifting",), drifting) for drifting in (-0.1, 1.1, math.nan)),
        *((("disagreement",), seen) for seen in ([-8.0, 0.0], [math.nan, 0.0], [1.0, math.inf])),
        *((("standardised",), packed([number] * 27, "<f4")) for number in (math.nan, math.inf, -1.0, 1e38)),
        *((("standardised",), packed([0.1] * length, "<f4")) for length in (2, 20)),
        *((("looks", 0), packed(LOOKS * number, "<f8")) for number in (math.nan, math.inf, -1.0, 1e300)),
        *((("looks", 1), batches) for batches in (-1, 10**400)),
        *((("looks", 2), batches) for batches in (0, 10**400)),
        *((("looks", 3), restless) for restless in (0.0, 1.0, math.nan)),
        *((("conditions", 0), number) for number in (-1,)),
        *((("conditions", 1), visits) for visits in (0, 10**400)),
        *((("conditions", 2), count) for count in (0,)),
        *((("conditions", 3, 0, 0), number) for number in (-1,)),
        *((("conditions", 3, 0, 1), visits) for visits in (0, 10**400)),
        *((("conditions", 3, 0, 3), batches) for batches in (0, 10**400)),
        *((("conditions", 3, 0, 4), index) for index in (-1, 21)),
        (("conditions", 3, 0, 5), remembered(math.nan, 0.1)),
        (("conditions", 3, 0, 5), remembered(0.5, math.inf)),
        (("conditions", 3, 0, 5), remembered(0.5, -1.0)),
        (("conditions", 3, 0, 5), remembered(0.5, 0.1, knots=3)),
        (("belief",), None),  # the curves beside it are of none
    ],
)
def test_numbers_that_no_search_writes_are_a_damaged_chain(path: tuple[str | int, ...], value: object) -> None:
    fields = json.loads(seen().to_bytes())
    part = fields
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(ChainError, match=r"not readable \(ValueError"):
        StreamState.from_bytes(json.dumps(fields).encode())


def test_what_half_precision_cannot_hold_is_remembered_as_far_as_it_can() -> None:
    known = replace(night(4, 1), level=1e6).rounded()
    state = replace(seen(), memory=Memory(5, 2, 9, (known,)))
    assert StreamState.from_bytes(state.to_bytes()).memory.known[0].level == known.level == 65504.0


@pytest.mark.parametrize("name", ["level", "noise"])
@pytest.mark.parametrize("value", ["mean", ["mean"], None, 3])
def test_numbers_that_are_in_no_object_are_a_damaged_chain(name: str, value: object) -> None:
    fields = json.loads(StreamState("k", 3).to_bytes()) | {name: value}
    with pytest.raises(ChainError, match="not readable"):
        StreamState.from_bytes(json.dumps(fields).encode())


def test_a_state_of_format_1_is_read() -> None:
    """Its level was a list; `tests/test_older_root.py` reads states that the code of then wrote."""
    fields = json.loads(StreamState("k", 3, batches=5).to_bytes())
    first = {name: value for name, value in fields.items() if name not in LATER}
    first |= {"format": 1, "level": [0.5, 0.25, 4]}
    back = StreamState.from_bytes(json.dumps(first).encode())
    assert back == StreamState("k", 3, batches=5, level=Level(0.5, 0.25, 4))
    for level in ([0.5, 0.25], [0.5, 0.25, 4, 4], "abc", 7):
        with pytest.raises(ChainError, match="not readable"):
            StreamState.from_bytes(json.dumps({**first, "level": level}).encode())


def test_no_state_takes_more_than_the_largest() -> None:
    level, belief = Level(-math.pi, math.pi, 20), Belief(np.full(21, -math.pi), np.full((21, 21), -math.pi))
    state = StreamState(
        "key",
        20,
        2**40,
        level=level,
        mix=ClassMix((math.pi,) * 64, level),
        belief=belief,
        observations=(Observation(2**40, 20, -math.pi, math.pi),) * 10,
        last_seen=LastSeen(2**41, 2**41, 2**41),
    )
    assert largest_bytes("key", 21) - 400 < len(state.to_bytes()) < largest_bytes("key", 21, 10)
    four = np.full(5, -math.pi)
    learned = LearnedAppearance(four, four, four, four, batches=30, overall_batches=2**40, restless=1 / 3)
    memory = Memory(2**40, 2**40, 2**40, tuple(night(2**40, seed) for seed in range(16)))
    assert len(replace(state, looks=learned, memory=memory).to_bytes()) < largest_bytes("key", 21, 10, 16)


def test_a_state_with_sixteen_conditions_takes_8_kb() -> None:
    level = Level(math.pi, math.pi, 20)
    state = replace(
        seen(),
        level=level,
        mix=ClassMix((math.pi,) * 64, level),
        belief=Belief(np.full(22, math.pi), np.full((22, 22), math.pi)),
        memory=Memory(20, 2, 21, tuple(night(20, seed) for seed in range(16))),
    )
    assert len(state.to_bytes()) <= 8_192


@pytest.mark.parametrize("data", [b"[]", b"5", b"null", b"{", b'{"conditions":[1]}', b'{"conditions":[0.5,1,1,[]]}'])
def test_what_status_looks_for_in_a_damaged_state_is_told_as_a_damaged_segment(data: bytes) -> None:
    with pytest.raises(ChainError, match="restore it from a copy"):
        condition_in(data)


def test_a_state_without_pixels_is_in_no_condition() -> None:
    assert condition_in(StreamState("k", 7, last_seen=LastSeen(1, 2, 3)).to_bytes()) == (LastSeen(1, 2, 3), None, 0)


def test_the_former_name_of_last_seen_is_accepted_with_a_warning() -> None:
    seen = LastSeen(1, 2, 3)
    state = StreamState("k", 0, last_seen=seen)
    with pytest.warns(DeprecationWarning, match="is last_seen now"):
        assert state.heard is seen
