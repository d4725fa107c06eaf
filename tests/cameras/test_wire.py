"""What a reader's process tells comes through a pipe as it was, and nothing else does."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise_cameras import wire
from adawise_cameras.clock import Clock
from adawise_cameras.wire import Beat, CameraFrame, ClockOff, Drop, Dropped, End, Ended, Opened, WireMessage

MOST = 1_000_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read(pipe: int) -> WireMessage | None:
    return wire.read(pipe, timeout_s=5.0, max_frame_bytes=MOST)


@pytest.mark.parametrize(
    "messages",
    [
        *(CameraFrame(b"\xff\xd8...", 1_800_000_000_123_456, clock, clock == Clock.WALL) for clock in Clock),
        Opened("h264 640x480"),
        Beat(),
        *(ClockOff(off_us) for off_us in (0, -3_600_000_000, 3_600_000_000)),
        *(Dropped(reason) for reason in Drop),
        *(Ended("the connection was refused.", end) for end in End),
    ],
    ids=str,
)
def test_what_is_told_comes_as_it_was(pipe: tuple[int, int], messages: WireMessage) -> None:
    os.write(pipe[1], wire.written(messages) * 2)
    assert [read(pipe[0]), read(pipe[0])] == [messages, messages]


def test_a_pipe_that_ends_in_the_midst_is_at_its_end(pipe: tuple[int, int]) -> None:
    ends = os.pipe()
    os.write(ends[1], wire.written(Opened("h264"))[:-1])
    os.close(ends[1])
    assert read(ends[0]) is None
    os.close(ends[0])


def test_who_says_nothing_or_half_of_something_is_not_waited_for(pipe: tuple[int, int]) -> None:
    for expected in (b"", wire.written(Opened("h264"))[:5]):
        os.write(pipe[1], expected)
        with pytest.raises(wire.Silence):
            wire.read(pipe[0], timeout_s=0.0, max_frame_bytes=MOST)


def test_texts_come_without_control_characters_and_cut_short(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], wire.written(Ended("\x1b[2J\n" + "x" * 10_000, End.FAILED)))
    messages = read(pipe[0])
    assert isinstance(messages, Ended)
    assert messages.why.startswith("?[2J?xxx")
    assert len(messages.why) == 4_096


@given(st.binary(min_size=16, max_size=64))
def test_whatever_a_process_says_is_something_that_readers_say_or_refused(output: bytes) -> None:
    ends = os.pipe()
    try:
        os.write(ends[1], output)
        os.close(ends[1])
        messages = read(ends[0])
    except wire.NotAReader:
        return
    finally:
        os.close(ends[0])
    assert messages is None or isinstance(messages, WireMessage)


def test_no_frame_is_larger_than_was_agreed(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], struct.pack(">cBBqI", b"F", 0, 0, 0, MOST + 1))
    with pytest.raises(wire.NotAReader):
        read(pipe[0])
