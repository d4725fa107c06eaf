"""What an outbox promises beyond what dead letters need of it: their tests are in `tests/dead_letters/test_sink.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from kafka import errors

from adawise.errors import BrokerUnavailable
from adawise.kafka.outbox import Outbox
from tests.dead_letters.test_sink import FakeProducer, Future


@dataclass(frozen=True)
class Note:
    """A record of nothing but its value."""

    value: bytes
    topic: str = "notes"
    key: bytes | None = b"north"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.value)

    def smaller(self) -> Sequence[Note]:
        half = len(self.value) // 2
        return [Note(self.value[:half]), Note(self.value[half:])] if half else []


def outbox(
    producer: FakeProducer,
    *,
    max_inflight_bytes: int = 100,
    in_order: bool = True,
    prepare: Callable[[str], None] = lambda _: None,
) -> Outbox[Note]:
    return Outbox(
        connect=lambda: producer,
        prepare=prepare,
        where="broker:9092",
        what="a note",
        meanwhile="Notes wait.",
        max_inflight_bytes=max_inflight_bytes,
        timeout_s=1.0,
        in_order=in_order,
    )


def notes(*values: bytes) -> list[Note]:
    return [Note(value) for value in values]


def test_what_follows_a_record_that_failed_is_sent_again_so_that_the_last_copies_are_in_order() -> None:
    producer = FakeProducer(Future(), Future(errors.KafkaTimeoutError("no answer")), Future())
    box = outbox(producer)
    for note in notes(b"a", b"b", b"c"):
        box.send(note)
    with pytest.raises(BrokerUnavailable, match=r"send a note to topic .notes.*no answer"):
        box.flush()
    box.flush()
    assert producer.values() == [b"a", b"b", b"c", b"b", b"c"]


def test_a_topic_is_looked_at_again_after_a_failure_since_it_may_have_been_deleted() -> None:
    prepared: list[str] = []
    box = outbox(FakeProducer(Future(errors.KafkaTimeoutError("no metadata")), Future()), prepare=prepared.append)
    box.send(Note(b"a"))
    with pytest.raises(BrokerUnavailable):
        box.flush()
    box.flush()
    box.send(Note(b"b"))
    assert prepared == ["notes", "notes"]


def test_settle_waits_for_nobody_and_says_whether_something_is_on_its_way() -> None:
    waiting = Future(is_done=False)
    box = outbox(FakeProducer(Future(), waiting))
    assert box.settle()
    for note in notes(b"a", b"b"):
        box.send(note)
    assert not box.settle()
    assert not waiting.asked
    waiting.is_done = True
    assert box.settle()


def test_settle_raises_once_for_all_that_failed_and_sends_it_again_at_the_next_call() -> None:
    producer = FakeProducer(*(Future(errors.KafkaTimeoutError("expired")) for _ in range(3)))
    box = outbox(producer)
    for note in notes(b"a", b"b", b"c"):
        box.send(note)
    with pytest.raises(BrokerUnavailable, match="expired"):
        box.settle()
    assert box.settle()
    assert producer.values() == [b"a", b"b", b"c"] * 2


def test_there_is_room_until_so_many_bytes_are_on_their_way_and_what_need_not_wait_does_not() -> None:
    waiting = [Future(is_done=False), Future(is_done=False)]
    box = outbox(FakeProducer(*waiting), max_inflight_bytes=10)
    box.send(Note(b"x" * 9), wait=False)
    room = [box.has_room]
    box.send(Note(b"x" * 50), wait=False)
    room.append(box.has_room)
    assert not any(future.asked for future in waiting)
    for future in waiting:
        future.is_done = True
    assert box.settle()
    assert [*room, box.has_room] == [True, False, True]


def test_a_record_that_the_topic_does_not_take_is_replaced_in_its_place_by_smaller_ones() -> None:
    too_large = errors.MessageSizeTooLargeError("too large")
    producer = FakeProducer(Future(too_large), Future(), Future(too_large))
    box = outbox(producer)
    for note in notes(b"abcd", b"e"):
        box.send(note)
    box.flush()
    assert producer.values() == [b"abcd", b"e", b"ab", b"cd", b"a", b"b"]
    assert box.has_room


def test_a_producer_that_refuses_at_once_leaves_what_was_to_be_sent_again_for_the_next_call() -> None:
    producer = FakeProducer(Future(errors.KafkaTimeoutError("expired")), Future(errors.KafkaTimeoutError("expired")))
    box = outbox(producer)
    for note in notes(b"a", b"b"):
        box.send(note)
    with pytest.raises(BrokerUnavailable):
        box.settle()
    send, producer.send = producer.send, _refuse  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable, match="no memory"):
        box.settle()
    producer.send = send  # type: ignore[method-assign]
    assert box.settle()
    assert producer.values() == [b"a", b"b"] * 2


def _refuse(topic: str, **record: object) -> Future:
    raise errors.KafkaTimeoutError("no memory")
