"""Who starts anew and who is dropped: by the streams' own timestamps, whatever clocks the neighbours have."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.adapt.last_seen import LastSeen
from adawise.adapt.state import StreamState
from adawise.errors import ChainError
from adawise.ports import Head
from adawise.records import Message
from adawise.worker.stream_states import Arrivals, Expiry, PartitionClock, StreamStates

FORGET_S, FORGET_MS = 100.0, 100_000
NOW_MS = 1_700_000_000_000


def received_states(clock: PartitionClock) -> dict[str, bytes]:
    """What a footer keeps of it."""
    return {name: StreamState("k", 3, last_seen=last_seen).to_bytes() for name, last_seen in clock._last_seen.items()}


def both(clock: PartitionClock, last_ms: int) -> None:
    """Two of three streams: a majority."""
    clock.receive("b", last_ms)
    clock.receive("c", last_ms)


def test_a_stream_goes_on_up_to_the_limit_and_starts_anew_after_it_by_its_own_timestamps() -> None:
    clock = PartitionClock({}, FORGET_S)
    assert clock.expiry("a", NOW_MS) is None
    clock.receive("a", NOW_MS)
    assert clock.expiry("a", NOW_MS + FORGET_MS) is None
    assert clock.expiry("a", NOW_MS + FORGET_MS + 1) is Expiry.SILENT
    assert clock.expiry("a", NOW_MS + 2 * FORGET_MS) is Expiry.SILENT
    assert clock.expiry("a", NOW_MS + 2 * FORGET_MS + 1) is Expiry.FORGOTTEN


def test_going_back_in_time_is_no_silence() -> None:
    clock = PartitionClock({}, FORGET_S)
    clock.receive("a", NOW_MS)
    assert clock.expiry("a", NOW_MS - 1000 * FORGET_MS) is None


def test_without_timestamps_nothing_is_silent_and_nothing_dropped() -> None:
    clock = PartitionClock({}, FORGET_S)
    clock.receive("a", -1)
    clock.receive("b", NOW_MS)
    for n in range(10):
        clock.receive("b", NOW_MS + n * FORGET_MS)
    assert clock.expiry("a", NOW_MS) is None
    assert clock.expiry("b", -1) is None
    assert clock.forget() == set()


def test_a_silent_stream_is_dropped_once_its_neighbours_have_lived_twice_the_limit_without_it() -> None:
    clock = PartitionClock({}, FORGET_S)
    clock.receive("a", NOW_MS)
    for n in (0, 1, 2):
        both(clock, NOW_MS + n * FORGET_MS)
    assert clock.forget() == set()
    clock.receive("b", NOW_MS + 2 * FORGET_MS + 1)
    assert clock.forget() == set()  # one neighbour alone says nothing
    clock.receive("c", NOW_MS + 2 * FORGET_MS + 1)
    assert clock.forget() == {"a"}
    assert clock.forget() == set()
    assert clock.expiry("a", NOW_MS) is None  # it is a new stream now


@pytest.mark.parametrize("cameras", [1, 2, 5])
def test_a_producer_whose_timestamps_race_drops_no_neighbour_that_was_heard_a_moment_ago(cameras: int) -> None:
    clock, names = PartitionClock({}, FORGET_S), [f"camera-{n}" for n in range(cameras)]
    for name in names:
        clock.receive(name, NOW_MS)
    for n in range(1, 30):  # from 1970 upwards, each step as large as one that counts
        clock.receive("racing", n * FORGET_MS)
    assert clock.forget() == set()
    assert [clock.expiry(name, NOW_MS + 1_000) for name in names] == [None] * cameras


def test_a_step_of_more_than_the_limit_is_a_clock_that_was_set_and_drops_nobody() -> None:
    clock = PartitionClock({}, FORGET_S)
    clock.receive("a", NOW_MS)
    clock.receive("b", 5_000)  # it has booted without knowing the time
    clock.receive("b", NOW_MS)
    clock.receive("b", NOW_MS + 10**12)
    assert clock.forget() == set()
    assert clock.expiry("a", NOW_MS + 1_000) is None


def test_what_was_heard_is_read_back_from_the_states_and_the_clock_goes_on_from_there() -> None:
    clock = PartitionClock({}, FORGET_S)
    clock.receive("a", NOW_MS)
    both(clock, NOW_MS)
    both(clock, NOW_MS + FORGET_MS)
    again = PartitionClock(received_states(clock), FORGET_S)
    for each in (clock, again):
        both(each, NOW_MS + 2 * FORGET_MS)
        both(each, NOW_MS + 2 * FORGET_MS + 1)
    assert clock.forget() == again.forget() == {"a"}


def test_a_state_of_before_streams_were_forgotten_is_kept_until_it_is_heard_again() -> None:
    clock = PartitionClock({"old": StreamState("k", 3).to_bytes()}, FORGET_S)
    for n in range(9):
        both(clock, NOW_MS + n * FORGET_MS)
    assert clock.expiry("old", NOW_MS) is None
    assert clock.forget() == set()
    clock.receive("old", NOW_MS)
    for n in range(9, 13):
        both(clock, NOW_MS + n * FORGET_MS)
    assert clock.forget() == {"old"}


@pytest.mark.parametrize("data", [b"", b"3", b"[]x", b'{"heard":[1,2]}', b'{"heard":[1,2,"3"]}', b'{"heard":null}'])
def test_what_is_no_state_is_a_damaged_chain(data: bytes) -> None:
    with pytest.raises(ChainError, match="restore it from a copy"):
        PartitionClock({"a": data}, FORGET_S)


def test_when_a_stream_was_heard_survives_its_serialisation() -> None:
    state = StreamState("k", 3, last_seen=LastSeen(NOW_MS, 12, 34))
    assert StreamState.from_bytes(state.to_bytes()) == state
    assert StreamState.from_bytes(StreamState("k", 3).to_bytes()).last_seen is None


@pytest.mark.slow
@given(
    skews=st.lists(st.integers(-(10**13), 10**13), min_size=2, max_size=5),
    beats=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60_000)), min_size=20, max_size=120),
    cuts=st.sets(st.integers(0, 119)),
)
def test_no_stream_is_dropped_that_its_own_timestamps_would_let_go_on_however_wrong_the_clocks_are(
    skews: list[int], beats: list[tuple[int, int]], cuts: set[int]
) -> None:
    """Cameras in one real time, each with a clock of its own skew, heard in any order; cut into segments anywhere."""
    clock, now_ms, last = PartitionClock({}, FORGET_S), 10**13, dict[str, int]()
    for n, (camera, step_ms) in enumerate(beats):
        now_ms += step_ms
        name = f"camera-{camera % len(skews)}"
        stamp_ms = now_ms + skews[camera % len(skews)]
        expected = None
        if name in last and stamp_ms - last[name] > FORGET_MS:
            expected = Expiry.SILENT if stamp_ms - last[name] <= 2 * FORGET_MS else Expiry.FORGOTTEN
        found = clock.expiry(name, stamp_ms)
        if name not in clock._last_seen and name in last:
            # It begins anew. A stream first heard while the partition's clock lagged by as much as it may is dropped
            # so much earlier, and then the trace says nothing of a silence.
            assert expected is not None
        else:
            assert found is expected
        clock.receive(name, stamp_ms)
        last[name] = stamp_ms
        if n in cuts:
            clock.forget()
            clock = PartitionClock(received_states(clock), FORGET_S)


@pytest.mark.parametrize("dead", [0, 4])
def test_a_backlog_that_goes_on_although_its_state_may_have_been_dropped_is_late(dead: int) -> None:
    """Streams that are gone hold the clock back only until they are forgotten."""

    def is_late(silence: int, after_ms: int, stream_id: str = "a") -> bool:
        arrivals = Arrivals({}, FORGET_S)
        for name in ("a", *(f"dead-{n}" for n in range(dead))):
            arrivals.receive(name, NOW_MS, is_served=True)
        live = [f"live-{n}" for n in range(dead + 2)]
        for n in range(silence + 1):
            for name in live:
                assert not arrivals.receive(name, NOW_MS + n * FORGET_MS, is_served=True)
        return arrivals.receive(stream_id, NOW_MS + after_ms, is_served=True)

    assert [is_late(silence, 1_000) for silence in range(5)] == [False, False, False, True, True]
    assert not is_late(4, 2 * FORGET_MS + 1), "it starts anew in any case"
    assert not is_late(4, 1_000, "new")


def test_the_dead_do_not_hide_that_a_backlog_came_late() -> None:
    arrivals, dead, cut_off = Arrivals({}, FORGET_S), [f"dead-{n}" for n in range(4)], ["b", "c"]
    live = [f"live-{n}" for n in range(4)]
    for names, first, until in ((dead + cut_off + live, 0, 1), (cut_off + live, 1, 5), (live, 5, 12)):
        for n in range(first, until):
            for name in names:
                arrivals.receive(name, NOW_MS + n * FORGET_MS, is_served=name == "b")
    for name in cut_off:
        late = arrivals.receive(name, NOW_MS + 4 * FORGET_MS + 1_000, is_served=name == "b")
        assert late == (name == "b"), "of the streams that others serve it is not known"


@pytest.mark.parametrize("keeps_at", [range(9), [8]])
def test_a_stream_without_timestamps_is_not_late_and_one_without_a_place_neither(keeps_at: Collection[int]) -> None:
    """Also where it was forgotten before it lost its place."""
    for stream_ms, table in ((-1, ["a", "b", "c"]), (NOW_MS, ["b", "c"])):
        arrivals = Arrivals({}, FORGET_S)
        arrivals.receive("a", stream_ms, is_served=True)
        for n in range(9):
            for name in ("b", "c"):
                arrivals.receive(name, NOW_MS + n * FORGET_MS, is_served=False)
            if n in keeps_at:
                arrivals.keep(table.__contains__)
        assert not arrivals.receive("a", NOW_MS + 1_000, is_served=True)


@pytest.mark.parametrize("is_shared", [False, True])
def test_late_streams_are_noted_where_others_serve_their_neighbours_and_only_those_that_are_served(
    is_shared: bool,
) -> None:
    states = StreamStates(
        Head(0),
        lambda: StreamState("k", 3),
        forget_after_s=FORGET_S,
        max_streams=8,
        keeps_states=False,
        is_shared=is_shared,
    )

    def receive(stream_id: str, offset: int, at_ms: int, *, is_served: bool) -> None:
        message = Message("frames", 0, offset, stream_id.encode(), b"", timestamp_ms=at_ms)
        states.receive(stream_id, message, is_served=is_served)

    for stream_id in ("a", "other"):
        receive(stream_id, 0, NOW_MS, is_served=stream_id == "a")
    for n in range(4):
        for stream_id in ("b", "c", "d"):
            receive(stream_id, n, NOW_MS + n * FORGET_MS, is_served=False)
    for stream_id in ("a", "other"):
        receive(stream_id, 9, NOW_MS + 1_000, is_served=stream_id == "a")
    assert states.late == ({"a"} if is_shared else set())
