from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.records import DecodedMessage, Message, TopicPartition
from adawise.worker.decode_pool import Prefetch
from adawise.worker.fair_queue import BOOKKEEPING_BYTES, Lane, Lanes
from tests.deadlines import scaled
from tests.frames import a_frame

IMAGE_BYTES = 48
WAIT_S = scaled(30.0)  # far more than any of this takes


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


class Pool(Prefetch):
    """All streams have committed batches, unless `known` says which."""

    def __init__(self, decode: Callable[[Message], DecodedMessage], *, threads: int, **changes: Any) -> None:
        super().__init__(decode, streams, threads=threads, **changes)

    def put(self, *messages: Message, known: Container[str] | None = None) -> None:
        for each in messages:
            self.submit(each, streams(each) if known is None else known)


def held(pool: Prefetch) -> int:
    """Bytes of all that it has."""
    return sum(lanes.waiting_bytes + lanes.held_bytes for lanes in pool._partitions.values())


def streams(message: Message) -> frozenset[str]:
    """By the key, which may name several."""
    return frozenset((message.key or b"cam").decode().split("+"))


@contextmanager
def prefetch(gate: Gate, threads: int = 4) -> Iterator[Pool]:
    pool = Pool(gate, threads=threads)
    try:
        yield pool
    finally:
        gate.let_all()
        pool.close()


def message(offset: int, partition: int = 0, size: int = 10, key: str | None = None) -> Message:
    return Message("frames", partition, offset, key.encode() if key else None, b"x" * size)


def tp(partition: int = 0) -> TopicPartition:
    return TopicPartition("frames", partition)


def taken(pool: Prefetch, partition: int = 0) -> list[int]:
    """Offsets that are ready now, in the order in which they come."""
    offsets = []
    while (took := pool.take(tp(partition))) is not None:
        offsets.append(took[0].message.offset)
    return offsets


def test_messages_come_back_in_order_although_a_later_one_is_decoded_first() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        for offset in range(3):
            pool.put(message(offset))
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
        pool.put(message(0, 0))
        pool.put(message(100, 1))
        gate.let(100)
        pool.wait(WAIT_S)
        assert taken(pool, 0) == []
        assert taken(pool, 1) == [100]
        assert not pool.is_empty


def test_bytes_count_the_message_and_its_image_and_return_to_zero() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        for offset in range(6):
            pool.put(message(offset, offset % 2, size=10 * offset))
        pool.put(Message("frames", 0, 6, None, None))  # a tombstone
        assert held(pool) == 7 * BOOKKEEPING_BYTES + 150
        assert pool.waiting_bytes(tp(0)) == (4 * BOOKKEEPING_BYTES + 60, 0)
        gate.let_all()
        count = 0
        while not pool.is_empty:
            pool.wait(WAIT_S)
            count += len(taken(pool, 0)) + len(taken(pool, 1))
        assert count == 7
        assert held(pool) == 0


def test_a_dropped_partition_is_forgotten_with_its_bytes_and_the_others_go_on() -> None:
    gate = Gate()
    with prefetch(gate, threads=1) as pool:
        for offset in range(4):
            pool.put(message(offset, 0))
        pool.put(message(100, 1))
        gate.wait_begun(2)  # the thread, and the one more
        pool.drop(tp(0))
        assert held(pool) == BOOKKEEPING_BYTES + 10
        assert pool.take(tp(0)) is None
        assert pool.waiting_bytes(tp(0)) == (0, 0)
        gate.let_all()
        pool.wait(WAIT_S)
        assert taken(pool, 1) == [100]
        assert sorted(gate.begun) == [0, 100]  # what had not begun was never decoded
        assert held(pool) == 0
        pool.drop(tp(5))


def test_a_partition_that_comes_back_after_a_drop_starts_empty() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.put(message(0))
        gate.wait_begun(1)
        pool.drop(tp())
        pool.put(message(7))
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
        pool.put(message(0))
        pool.wait(0.01)
        assert pool.take(tp()) is None
        assert not pool.is_empty


def test_closing_ends_the_threads_and_does_not_begin_what_waits() -> None:
    gate = Gate()
    before = set(threading.enumerate())
    pool = Pool(gate, threads=1)
    for offset in range(5):
        pool.put(message(offset))
    gate.wait_begun(2)
    gate.let(0, 1)
    pool.close()
    assert len(gate.begun) <= 4  # a thread may have taken the next one before it saw the end
    assert set(threading.enumerate()) <= before


def test_one_more_thread_is_there_for_those_that_are_quick() -> None:
    gate = Gate()
    with prefetch(gate, threads=1) as pool:
        with pool._changed:  # both lanes are known to be slow
            pool._partitions[tp()] = partition = Lanes()
            partition._lanes = {name: Lane(name, 0.0, guess_s=1.0) for name in ("slow", "slower")}
        pool.put(message(0, key="slow"), message(1, key="slower"))
        gate.wait_begun(1)
        pool.put(message(2, key="quick"))
        gate.wait_begun(2)
        assert gate.begun[1] == 2


def test_a_fault_of_the_decoder_is_raised_where_its_message_is_taken() -> None:
    def broken(message: Message) -> DecodedMessage:
        raise ZeroDivisionError(message.offset)

    pool = Pool(broken, threads=1)
    pool.put(message(3))
    pool.wait(WAIT_S)
    with pytest.raises(ZeroDivisionError, match="3"):
        pool.take(tp())
    pool.close()


def test_a_fault_that_ends_a_thread_is_raised_where_messages_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Lanes, "end", broken)
    gate = Gate()
    gate.let_all()
    pool = Pool(gate, threads=1)
    pool.put(message(3))
    pool.wait(WAIT_S)
    with pytest.raises(ZeroDivisionError):
        pool.take(tp())
    pool.close()


# -- fairness: without threads, by a clock that the decoder moves


class Costs:
    """A decoder for which each message takes as many seconds as its offset has hundreds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[int] = []
        self.some: tuple[float, ...] = ()

    def __call__(self, message: Message) -> DecodedMessage:
        self.now_s += self.some[message.offset % 2] if self.some else message.offset // 100
        self.order.append(message.offset)
        return DecodedMessage(message, (a_frame(message.offset),))


def by_hand() -> tuple[Costs, Pool]:
    costs = Costs()
    return costs, Pool(costs, threads=0, clock=lambda: costs.now_s)


def decode(pool: Prefetch, count: int = 1_000) -> None:
    """What one thread would do next."""
    while count and (job := pool._next()) is not None:
        pool._do(job)
        count -= 1


def test_a_stream_is_served_before_those_that_have_used_more_in_its_partition_and_in_others() -> None:
    costs, pool = by_hand()
    pool.put(*(message(1_000 + n, key="bad") for n in range(20)))  # 10 s each
    pool.put(*(message(2_000 + n, partition=1, key="worse") for n in range(20)))
    decode(pool, 6)
    pool.put(message(101, key="good"), message(102, key="good"), message(103, partition=1, key="good"))
    decode(pool, 4)
    assert {101, 103} <= set(costs.order[6:8])
    assert 102 in costs.order[6:10]


def test_time_is_shared_equally_by_those_who_always_have_something() -> None:
    costs, pool = by_hand()
    for n in range(100):
        pool.put(message(100 + n % 100, key="cheap"), message(400 + n % 100, key="dear"))
    decode(pool, 100)
    cheap = [offset for offset in costs.order if offset < 200]
    assert 76 <= len(cheap) <= 84  # 1 s against 4 s


def test_a_stream_that_was_away_saves_nothing_up() -> None:
    costs, pool = by_hand()
    pool.put(message(100, key="away"), *(message(101 + n, key="busy") for n in range(60)))
    decode(pool, 40)
    pool.put(*(message(161 + n, key="away") for n in range(30)))
    decode(pool, 20)
    assert 9 <= sum(offset > 160 for offset in costs.order[-20:]) <= 11


def test_streams_without_a_committed_batch_share_one_lane() -> None:
    costs, pool = by_hand()
    pool.put(*(message(100 + n, key=f"new-{n}") for n in range(60)), known={"old"})
    decode(pool, 5)
    pool.put(*(message(160 + n, key="old") for n in range(30)), known={"old"})
    decode(pool, 40)
    assert 19 <= sum(offset >= 160 for offset in costs.order[5:]) <= 21


def test_a_stream_that_has_become_known_takes_what_waits_with_it() -> None:
    costs, pool = by_hand()
    crowd = [message(100 + n, key=f"new-{n}") for n in range(50)]
    pool.put(*crowd[:20], message(120, key="cam"), *crowd[21:], known=set())
    pool.put(message(151, key="cam"), known={"cam"})
    decode(pool, 4)
    assert costs.order.index(120) < costs.order.index(151) <= 3
    decode(pool)
    assert sorted(costs.order) == [*range(100, 150), 151]  # each once


def test_the_messages_of_a_stream_come_back_in_order_also_when_some_have_several_streams() -> None:
    _, pool = by_hand()
    pool.put(*(message(100 + n, key=f"new-{n}") for n in range(5)), known={"a", "b"})
    pool.put(message(105, key="b+a"), message(106, key="a"), message(107, key="c"), known={"a", "b"})
    pool.put(message(108, key="b"), known={"a", "b"})
    decode(pool, 2)
    assert 106 not in taken(pool)
    decode(pool)
    came = taken(pool)
    assert [offset for offset in came if offset in (105, 106)] == [105, 106]
    assert [offset for offset in came if offset in (105, 108)] == [105, 108]
    assert pool.is_empty


def test_nothing_is_decoded_while_there_is_no_room_but_what_others_wait_for() -> None:
    costs, pool = by_hand()
    pool.make_room(2 * IMAGE_BYTES)
    pool.put(*(message(100 + n, key="a") for n in range(4)))
    decode(pool)
    assert costs.order == [100, 101]
    pool.make_room(0)
    assert taken(pool) == [100, 101]
    decode(pool)
    assert costs.order == [100, 101, 102]  # then it is known what it is: the next one waits until it is taken
    assert taken(pool) == [102]


def test_a_message_of_two_streams_that_waits_for_one_of_them_holds_back_no_more_than_there_is_room_for() -> None:
    now_s = 0.0

    def costly(sent: Message) -> DecodedMessage:
        nonlocal now_s
        now_s += 50.0 if sent.key == b"k" else 0.001
        return DecodedMessage(sent, (a_frame(sent.offset),))

    pool = Pool(costly, threads=0, clock=lambda: now_s)
    pool.make_room(10 * IMAGE_BYTES)
    pool.put(*(message(n, key="k") for n in range(4)), message(4, key="k+y"), known="k")
    pool.put(*(message(n, key="y") for n in range(5, 99)), known="k")
    most, order = 0, list[int]()
    while not pool.is_empty:
        decode(pool, 1)
        most = max(most, sum(lanes.held_bytes for lanes in pool._partitions.values()))
        order += taken(pool)
    assert sorted(order) == list(range(99))
    assert [offset for offset in order if offset > 3] == list(range(4, 99))
    assert most <= 11 * (IMAGE_BYTES + 10)


def test_a_lane_that_nobody_uses_any_more_is_forgotten() -> None:
    _, pool = by_hand()
    for n in range(200):
        pool.put(message(100, key=f"cam-{n}"))
        decode(pool)
        taken(pool)
    assert len(pool._partitions[tp()]._lanes) < 5


@pytest.mark.slow
@given(st.data())
def test_whatever_comes_everything_is_decoded_once_and_comes_back_in_the_order_of_its_streams(
    data: st.DataObject,
) -> None:
    """Messages of one or several streams, in lanes of their own or not, with hardly any room, taken now and then."""
    costs, pool = by_hand()
    costs.some = (0.001, 1.0)
    pool.make_room(data.draw(st.sampled_from([0, IMAGE_BYTES, 5 * IMAGE_BYTES, 10**9])))
    sent, came = list[Message](), list[int]()
    for offset in range(100, 100 + data.draw(st.integers(0, 40))):
        key = "+".join(data.draw(st.sets(st.sampled_from("abcd"), min_size=1, max_size=3)))
        each = message(2 * offset + data.draw(st.integers(0, 1)), key=key)  # quick or slow
        pool.put(each, known=data.draw(st.sets(st.sampled_from("abcd"))))
        sent.append(each)
        decode(pool, data.draw(st.integers(0, 2)))
        if data.draw(st.booleans()):
            came += taken(pool)
    for _ in range(2 * len(sent) + 1):  # where quick and slow ones alternate, a turn may begin nothing
        decode(pool, 1)
        came += taken(pool)
    assert pool.is_empty
    assert held(pool) == 0
    assert sorted(costs.order) == sorted(came) == sorted(each.offset for each in sent)
    for stream in "abcd":
        of_stream = [each.offset for each in sent if stream in streams(each)]
        assert [offset for offset in came if offset in of_stream] == of_stream


def test_the_pool_is_waited_for_until_so_many_messages_are_decoded() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.put(*(message(offset) for offset in range(4)))
        gate.wait_begun(4)
        gate.let(0, 1)
        pool.wait(WAIT_S, 2)
        assert taken(pool) == [0, 1]


def test_nobody_waits_for_more_messages_than_there_is_room_for() -> None:
    gate = Gate()
    with prefetch(gate) as pool:
        pool.make_room(IMAGE_BYTES)
        pool.put(*(message(offset) for offset in range(4)))
        gate.let_all()
        while len(gate.begun) < 4:
            pool.wait(WAIT_S, 100)
            assert taken(pool)
