from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline.errors import Lost
from pipeline.prefetch import Prefetch
from pipeline.records import DecodedMessage, Message, Missing, TopicPartition
from tests.frames import a_frame

IMAGE_BYTES = 1000
WAIT_S = 30.0  # far more than any of this takes


class Gate:
    """A decoder that holds each offset until it is let through."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open: set[int] = set()
        self._all = False
        self.begun: list[int] = []

    def __call__(self, message: Message) -> DecodedMessage:
        with self._condition:
            self.begun.append(message.offset)
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._all or message.offset in self._open, WAIT_S)
        return DecodedMessage(message, (a_frame(message.offset),))

    def let(self, *offsets: int) -> None:
        with self._condition:
            self._open.update(offsets)
            self._condition.notify_all()

    def let_all(self) -> None:
        with self._condition:
            self._all = True
            self._condition.notify_all()

    def wait_begun(self, count: int) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.begun) >= count, WAIT_S)


@contextmanager
def prefetch(gate: Gate, threads: int = 4) -> Iterator[Prefetch]:
    pool = Prefetch(gate, threads=threads, image_bytes=IMAGE_BYTES)
    try:
        yield pool
    finally:
        gate.let_all()
        pool.close()


def message(offset: int, partition: int = 0, size: int = 10) -> Message:
    return Message("frames", partition, offset, None, b"x" * size)


def tp(partition: int = 0) -> TopicPartition:
    return TopicPartition("frames", partition)


def taken(pool: Prefetch, partition: int = 0) -> list[int]:
    """Offsets that are ready now, in the order in which they come."""
    offsets = []
    while (decoded := pool.take(tp(partition))) is not None:
        offsets.append(decoded.message.offset)
    return offsets


def test_messages_come_back_in_order_although_a_later_one_is_decoded_first() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        for offset in range(3):
            pool.submit(message(offset))
        gate.wait_begun(3)
        gate.let(1, 2)
        assert taken(pool) == []
        gate.let(0)
        offsets: list[int] = []
        while len(offsets) < 3:
            pool.wait(WAIT_S)
            offsets += taken(pool)
        assert offsets == [0, 1, 2]


def test_a_partition_does_not_wait_for_another() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.submit(message(0, 0))
        pool.submit(message(100, 1))
        gate.let(100)
        pool.wait(WAIT_S)
        assert taken(pool, 0) == []
        assert taken(pool, 1) == [100]
        assert pool.waits(tp(0))
        assert not pool.waits(tp(1))


def test_bytes_count_the_message_and_its_image_and_return_to_zero() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        for offset in range(6):
            pool.submit(message(offset, offset % 2, size=10 * offset))
        pool.submit(Message("frames", 0, 6, None, None))  # a tombstone
        assert pool.bytes == 7 * IMAGE_BYTES + 150
        gate.let_all()
        count = 0
        while not pool.is_empty:
            pool.wait(WAIT_S)
            count += len(taken(pool, 0)) + len(taken(pool, 1))
        assert count == 7
        assert pool.bytes == 0


def test_a_dropped_partition_is_forgotten_with_its_bytes_and_the_others_go_on() -> None:
    gate = Gate()
    with prefetch(gate, threads=1) as pool:
        for offset in range(4):
            pool.submit(message(offset, 0))
        pool.submit(message(100, 1))
        gate.wait_begun(1)
        pool.drop(tp(0))
        assert pool.bytes == IMAGE_BYTES + 10
        assert pool.take(tp(0)) is None
        assert not pool.waits(tp(0))
        gate.let_all()
        pool.wait(WAIT_S)
        assert taken(pool, 1) == [100]
        assert gate.begun == [0, 100]  # what had not begun was never decoded
        assert pool.bytes == 0
        pool.drop(tp(5))


def test_a_partition_that_comes_back_after_a_drop_starts_empty() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.submit(message(0))
        gate.wait_begun(1)
        pool.drop(tp())
        pool.submit(message(7))
        gate.let_all()
        pool.wait(WAIT_S)
        assert taken(pool) == [7]


def test_waiting_for_nothing_returns() -> None:
    with prefetch(Gate()) as pool:
        pool.wait(WAIT_S)
        assert pool.is_empty
        assert pool.take(tp()) is None


def test_waiting_ends_with_its_time_while_nothing_is_decoded() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.submit(message(0))
        pool.wait(0.01)
        assert pool.take(tp()) is None
        assert pool.waits(tp())


def test_closing_ends_the_threads_and_does_not_begin_what_waits() -> None:
    gate = Gate()
    before = set(threading.enumerate())
    pool = Prefetch(gate, threads=1, image_bytes=IMAGE_BYTES)
    for offset in range(5):
        pool.submit(message(offset))
    gate.wait_begun(1)
    gate.let(0)
    pool.close()
    assert gate.begun in ([0], [0, 1])  # the thread may have taken the next one before it saw the end
    assert set(threading.enumerate()) <= before


def test_what_is_missing_waits_for_its_turn_and_is_not_decoded() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.submit(message(0))
        pool.submit(replace(message(9, size=0), missing=Missing(1, Lost.BATCH_TOO_LARGE)))
        pool.submit(message(10))
        gate.wait_begun(2)
        gate.let(10)
        assert taken(pool) == []
        gate.let_all()
        offsets: list[int] = []
        while len(offsets) < 3:
            pool.wait(WAIT_S)
            offsets += taken(pool)
        assert offsets == [0, 9, 10]
        assert sorted(gate.begun) == [0, 10]
        assert pool.bytes == 0
