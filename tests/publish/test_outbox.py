"""What an outbox promises beyond what dead letters need of it, which `dead_letters/test_sink.py` tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest
from kafka import errors
from typing_extensions import override

from adawise.errors import BrokerUnavailable, FatalError, PermissionRefused, SettingsError, TopicUnavailable
from adawise.kafka.client import kafka_errors
from adawise.publish.outbox import Outbox
from tests.publish.dead_letters.test_sink import FakeProducer, Future


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
    assert not waiting.requested
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
    assert not any(future.requested for future in waiting)
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


@pytest.mark.parametrize("is_producer", [True, False], ids=["producer", "look"])
def test_a_right_that_is_lacking_is_no_broker_that_is_away(is_producer: bool) -> None:
    refused = errors.TopicAuthorizationFailedError("notes")

    def check(topic: str) -> None:
        try:
            with kafka_errors("broker:9092", f"write to topic {topic!r}"):
                raise refused
        except FatalError as error:
            raise SettingsError(f"{error} Or do without.") from error

    producer = FakeProducer(Future(refused)) if is_producer else FakeProducer(Future())
    box = outbox(producer, prepare=(lambda _: None) if is_producer else check)
    with pytest.raises(PermissionRefused, match=r"ACL WRITE on the topic.*Notes wait"):
        send_all(box)


def send_all(box: Outbox[Note]) -> None:
    box.send(Note(b"a"))
    box.flush()


def test_a_topic_that_is_there_and_takes_nothing_is_no_broker_that_is_away() -> None:
    expired = errors.KafkaTimeoutError("expired")  # all that kafka-python tells of too few replicas
    box = outbox(FakeProducer(Future(expired), Future(expired), Future(), Future(expired)))
    with pytest.raises(BrokerUnavailable) as first:
        send_all(box)
    with pytest.raises(TopicUnavailable, match=r"the topic exists.*min\.insync\.replicas"):
        box.flush()
    box.flush()
    assert box.acknowledged == 1
    with pytest.raises(BrokerUnavailable) as anew:
        send_all(box)
    assert not isinstance(first.value, TopicUnavailable)
    assert not isinstance(anew.value, TopicUnavailable), "it has acknowledged since"


def _refuse(topic: str, **record: object) -> Future:
    raise errors.KafkaTimeoutError("no memory")


# -- whoever sends ends soon


class Unanswered(Future):
    """Nobody answers, and the time that is waited for it goes by."""

    def __init__(self, moves: Callable[[float], object]) -> None:
        super().__init__(is_done=False)
        self._moves = moves

    @override
    def get(self, timeout: float | None = None) -> None:
        assert timeout is not None
        self._moves(timeout)
        raise errors.KafkaTimeoutError("no answer")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited; the outbox's clock goes by them."""
    waited: list[float] = []
    monkeypatch.setattr("adawise.publish.outbox.time.monotonic", lambda: sum(waited))
    return waited


def test_once_in_a_hurry_all_waits_together_take_no_longer_than_was_said(clock: list[float]) -> None:
    producer = FakeProducer(*(Unanswered(clock.append) for _ in range(6)))
    box = outbox(producer, max_inflight_bytes=2)
    for note in notes(b"a", b"b"):
        box.send(note)
    box.hurry(2.5)
    box.send(Note(b""), wait=False)
    assert producer.blocks_s == 1.0  # for a topic, as long as it is patient
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="no answer"):
            box.flush()
    with pytest.raises(BrokerUnavailable):
        box.send(Note(b"c"))
    with suppress(BrokerUnavailable):
        box.close()
    assert sum(clock) == pytest.approx(2.5)
    assert producer.closed == 1


def test_without_a_hurry_each_wait_has_its_time(clock: list[float]) -> None:
    box = outbox(FakeProducer(*(Unanswered(clock.append) for _ in range(6))))
    box.send(Note(b"a"))
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            box.flush()
    assert sum(clock) == pytest.approx(3.0)


def test_once_in_a_hurry_a_topic_that_is_gone_is_made_anew_without_waiting_for_the_failure(clock: list[float]) -> None:
    prepared: list[str] = []
    answer = Unanswered(clock.append)
    producer = FakeProducer(answer)

    def prepare(topic: str) -> None:
        prepared.append(topic)
        if len(prepared) > 1:  # and its producer sends what it holds
            producer.topics = {topic}
            answer.is_done, answer.get = True, lambda timeout=None: None  # type: ignore[method-assign]

    box = outbox(producer, prepare=prepare)
    box.send(Note(b"a"))
    producer.topics = set()
    box.hurry(10.0)
    box.flush()
    assert prepared == ["notes", "notes"]
    assert sum(clock) == pytest.approx(1.0)


def test_once_in_a_hurry_a_topic_that_cannot_be_made_is_told_at_once(clock: list[float]) -> None:
    allowed = [True]

    def prepare(topic: str) -> None:
        if not allowed:
            raise FatalError(f"could not create {topic!r}.")
        allowed.pop()

    producer = FakeProducer(Unanswered(clock.append))
    box = outbox(producer, prepare=prepare)
    box.send(Note(b"a"))
    producer.topics = set()
    box.hurry(10.0)
    with pytest.raises(BrokerUnavailable, match=r"could not create 'notes'\. Notes wait\."):
        box.flush()
    assert sum(clock) == pytest.approx(1.0)


def test_once_no_time_is_left_nobody_is_connected_to(clock: list[float]) -> None:
    box = outbox(FakeProducer())
    box.hurry(0.0)
    with pytest.raises(BrokerUnavailable, match=r"could not send a note to topic 'notes': no time is left for it"):
        box.send(Note(b"a"))
