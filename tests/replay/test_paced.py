"""Messages at the pace of their timestamps, by a clock that the test turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typing_extensions import override

from adawise.ports import Poll, Source
from adawise.records import Message, TopicPartition
from adawise.replay.bounded import BoundedSource
from adawise.replay.paced import PacedSource
from tests.fakes import FakeSource

P0, P1 = TopicPartition("frames", 0), TopicPartition("frames", 1)


class Clock:
    """Turned by whoever sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.001)


def message(partition: int, offset: int, at_s: float) -> Message:
    return Message("frames", partition, offset, b"camera", b"value", (), round(1000 * at_s))


class Faulty(FakeSource):
    """Its client has a lasting fault: partition 1 brings nothing, and it is not known why."""

    @override
    def poll(self, timeout_s: float) -> Poll:
        poll = super().poll(timeout_s)
        return replace(poll, messages=[message for message in poll.messages if message.partition == 0])

    @override
    def drained(self, tp: TopicPartition) -> bool:
        if tp == P1:
            raise RuntimeError("a bug of the client")
        return super().drained(tp)

    @override
    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        return None if tp == P1 else super().lag(tp, since)


def bounded(messages: list[Message], kind: type[FakeSource] = FakeSource, *, ends_streams: bool = True) -> Source:
    source = kind(messages, partitions=2, max_poll_records=3)
    ends = {tp: max((m.next_offset for m in messages if m.topic_partition == tp), default=0) for tp in (P0, P1)}
    return BoundedSource(source, {tp: (0, end) for tp, end in ends.items()}, ends_streams=ends_streams)


def delivered(source: Source, clock: Clock) -> list[tuple[float, int, int]]:
    """All that comes: (seconds since the first poll, partition, offset)."""
    found = []
    began_s = clock.now_s
    for _ in range(10_000):
        poll = source.poll(0.05)
        for tp in poll.assigned:
            source.seek(tp, 0)
        source.resume(poll.assigned)
        found += [(clock.now_s - began_s, m.partition, m.offset) for m in poll.messages]
        if source.exhausted:
            return found
    raise AssertionError(f"it did not end: {found}")


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_messages_come_at_their_times_over_the_speed_whatever_their_partition(speed: float) -> None:
    clock = Clock()
    times = {(0, 0): 5.0, (0, 1): 7.0, (0, 2): 15.0, (1, 0): 6.0, (1, 1): 6.5, (1, 2): 30.0, (1, 3): 30.0}
    source = PacedSource(
        bounded([message(*place, at_s) for place, at_s in times.items()]), speed=speed, clock=clock, sleep=clock.sleep
    )
    found = delivered(source, clock)
    assert [(p, o) for _, p, o in found] == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2), (1, 3)]
    for came_s, partition, offset in found:
        assert came_s == pytest.approx((times[partition, offset] - 5.0) / speed, abs=0.2)  # two polls


def test_a_night_without_messages_is_skipped_and_a_camera_of_another_year_holds_up_its_own_partition_alone() -> None:
    clock = Clock()
    year_s = 365 * 86_400.0
    source = PacedSource(
        bounded([message(0, 0, 0.0), message(0, 1, year_s), *(message(1, n, 5.0 * n) for n in range(5))]),
        speed=1.0,
        clock=clock,
        sleep=clock.sleep,
    )
    found = delivered(source, clock)
    assert [(p, o) for _, p, o in found] == [(0, 0), *((1, n) for n in range(5)), (0, 1)]
    assert found[-2][0] == pytest.approx(20.0, abs=0.3)
    assert found[-1][0] == pytest.approx(20.0, abs=0.3)


def test_what_has_no_time_is_due_with_what_comes_before_it() -> None:
    clock = Clock()
    no_time = -0.001
    times = [(0, 0, no_time), (0, 1, 1e9), (0, 2, no_time), (1, 0, no_time), (1, 1, 1e9 + 10.0), (1, 2, no_time)]
    source = PacedSource(bounded([message(*each) for each in times]), speed=1e6, clock=clock, sleep=clock.sleep)
    assert max(came_s for came_s, _, _ in delivered(source, clock)) < 1.0


@pytest.mark.parametrize("ends_streams", [True, False])
def test_a_partition_that_was_read_up_to_the_end_of_its_part_keeps_no_other_waiting(ends_streams: bool) -> None:
    """Also where the topic goes on after the part, so that the partition is not drained."""
    clock = Clock()
    messages = [message(0, 0, 5.0), *(message(1, n, 3600.0 * 24 * n) for n in range(3))]
    part = bounded(messages, ends_streams=ends_streams)
    found = delivered(PacedSource(part, speed=1.0, clock=clock, sleep=clock.sleep), clock)
    assert [(p, o) for _, p, o in found] == [(1, 0), (0, 0), (1, 1), (1, 2)]


def test_a_lasting_fault_of_the_client_ends_the_replay_with_its_error() -> None:
    clock = Clock()
    part = bounded([message(0, n, float(n)) for n in range(4)] + [message(1, 0, 0.0)], Faulty)
    with pytest.raises(RuntimeError, match="a bug of the client"):
        delivered(PacedSource(part, speed=1.0, clock=clock, sleep=clock.sleep), clock)


def test_what_is_held_of_a_partition_is_forgotten_by_a_seek_and_kept_by_a_pause() -> None:
    clock = Clock()
    source = PacedSource(
        bounded([message(0, n, float(n)) for n in range(4)]), speed=1.0, clock=clock, sleep=clock.sleep
    )
    for tp in source.poll(0.0).assigned:
        source.seek(tp, 0)
    source.resume([P0, P1])
    assert [m.offset for m in source.poll(0.0).messages] == [0]
    assert source.lag(P0) == 3
    source.pause([P0])
    clock.now_s += 10.0
    assert not source.poll(0.0).messages
    assert not source.drained(P0)
    source.seek(P0, 2)
    source.resume([P0])
    offsets = [m.offset for _ in range(5) for m in source.poll(0.05).messages]
    assert offsets == [2, 3]
    assert source.exhausted
