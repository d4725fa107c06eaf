"""When a frame was taken, and which frames are taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise_cameras.clock import Clock, FrameClock, FramePace

NOW = 1_800_000_000_000_000
S = 1_000_000


def test_the_cameras_wall_clock_counts_from_its_first_report_on() -> None:
    clock = FrameClock("stream")
    clock.came(0, NOW, None)
    assert clock.time(0, NOW) == (NOW, Clock.STREAM)
    clock.came(5 * S, NOW + 5 * S, NOW + 5 * S - 40_000)
    assert clock.time(5 * S, NOW + 5 * S) == (NOW + 5 * S - 40_000, Clock.WALL)
    assert clock.time(5 * S - 200_000, NOW + 5 * S) == (NOW + 5 * S - 240_000, Clock.WALL)  # frames out of order


@pytest.mark.parametrize("off_s", [-86_400, -61, 61, 3_600])
def test_a_wall_clock_that_is_more_than_a_minute_off_is_not_believed(off_s: int) -> None:
    clock = FrameClock("stream")
    clock.came(0, NOW, NOW + off_s * S)
    assert clock.off_us == off_s * S
    assert clock.time(0, NOW) == (NOW, Clock.STREAM)
    clock.came(S, NOW + S, NOW + S - 1)  # somebody set it
    assert clock.time(S, NOW + S) == (NOW + S - 1, Clock.WALL)


def test_frames_that_come_in_a_bunch_are_as_far_apart_as_in_the_stream() -> None:
    clock = FrameClock("stream")
    for number in range(25):  # buffered while the stream was looked at
        clock.came(number * 40_000, NOW, None)
    times = [clock.time(number * 40_000, NOW)[0] for number in range(25)]
    assert times == [NOW - (24 - number) * 40_000 for number in range(25)]


def test_no_frame_is_of_the_future() -> None:
    clock = FrameClock("stream")
    clock.came(0, NOW, None)
    clock.came(S, NOW + S // 2, None)
    assert clock.time(2 * S, NOW + S) == (NOW + S, Clock.STREAM)


def test_a_quartz_that_is_slow_is_followed_and_a_jump_is_taken_at_once() -> None:
    clock = FrameClock("stream")
    for second in range(3_600):  # 200 parts in a million: .7 s an hour
        clock.came(second * S, NOW + second * S + second * 200, None)
    last = 3_599
    assert NOW + last * S + last * 200 - clock.time(last * S, NOW + last * S + last * 200)[0] < 1_000
    clock.came(0, NOW + 4_000 * S, None)  # the camera began its count anew
    assert clock.time(0, NOW + 4_000 * S) == (NOW + 4_000 * S, Clock.STREAM)


def test_without_a_place_in_the_stream_or_by_setting_a_frame_is_of_its_arrival() -> None:
    clock = FrameClock("stream")
    clock.came(None, NOW, NOW)
    assert clock.time(None, NOW + 1) == (NOW + 1, Clock.ARRIVAL)
    by_arrival = FrameClock("arrival")
    by_arrival.came(0, NOW, NOW - 5)
    assert by_arrival.time(0, NOW) == (NOW, Clock.ARRIVAL)


@given(st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.0, 25.0]), st.sampled_from([5, 10, 15, 25, 30, 60]))
def test_a_rate_is_kept_whatever_that_of_the_stream(rate: float, frames_per_s: int) -> None:
    pace = FramePace(rate)
    taken = [n for n in range(60 * frames_per_s) if pace.due(n / frames_per_s)]
    assert abs(len(taken) - 60 * min(rate, frames_per_s)) <= 1


def test_a_pace_takes_all_without_a_rate_and_goes_on_after_a_pause_or_a_jump_back() -> None:
    assert all(FramePace(None).due(at_s) for at_s in (0.0, 0.0, 5.0, -5.0))
    pace = FramePace(1.0)
    assert [pace.due(at_s) for at_s in (0.0, 0.5, 100.0, 100.5, 101.0)] == [True, False, True, False, True]
    assert pace.due(3.0)  # the stream began its count anew
    assert not pace.due(3.5)
