from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, cast

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition as KafkaPartition

from adawise.errors import BrokerUnavailable, Reason
from adawise.kafka.client import Reach
from adawise.kafka.embedded import EmbeddedBroker
from adawise.publish.dead_letters.record import DeadLetterRecord
from adawise.publish.dead_letters.sink import KafkaDeadLetters, NoDeadLetters, dead_letter_topics, open_dead_letters
from adawise.publish.outbox import Outbox, Producer
from adawise.records import Frame, Message, RowId
from tests.brokers import Broker, MakeTopic, free_ports


class Future:
    """Acknowledged at the first `get`, unless it was made to fail or to stay open."""

    def __init__(self, error: Exception | None = None, *, is_done: bool = True) -> None:
        self.error = error
        self.is_done = is_done
        self.requested = False

    def get(self, timeout: float | None = None) -> None:
        self.requested = True
        if self.error is not None:
            raise self.error

    def failed(self) -> bool:
        return self.is_done and self.error is not None


class FakeProducer:
    def __init__(self, *outcomes: Future) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[str, dict[str, Any], Future]] = []
        self.closed = 0
        self.topics: set[str] | None = None  # that it knows, if not any
        self.blocks_s = 60.0

    def knows(self, topic: str) -> bool:
        return self.topics is None or topic in self.topics

    def block_for(self, seconds: float) -> None:
        self.blocks_s = seconds

    def send(self, topic: str, **record: Any) -> Future:
        future = self.outcomes.pop(0) if self.outcomes else Future()
        self.sent.append((topic, record, future))
        return future

    def close(self, timeout: float | None = None) -> None:
        self.closed += 1

    def values(self) -> list[bytes]:
        return [record["value"] for _, record, _ in self.sent]


def dead_letter_sink(
    producer: FakeProducer,
    max_inflight_bytes: int = 1_000_000,
    connect: Callable[[], object] | None = None,
    prepare: Callable[[str], None] = lambda _: None,
) -> KafkaDeadLetters:
    outbox: Outbox[DeadLetterRecord] = Outbox(
        connect=cast("Callable[[], Producer]", connect or (lambda: producer)),
        prepare=prepare,
        where="broker:9092",
        what="a dead letter",
        meanwhile="",
        max_inflight_bytes=max_inflight_bytes,
        timeout_s=1.0,
        in_order=False,
    )
    return KafkaDeadLetters(outbox, topic=None, worker="worker-0")


def message(offset: int, value: bytes = b"garbage") -> tuple[Message, Frame]:
    frame = Frame(RowId("frames", 0, offset, 0), -1, None, reason=Reason.UNSUPPORTED_FORMAT, detail="expected an image")
    return Message("frames", 0, offset, b"north", value), frame


def test_nothing_is_connected_before_the_first_letter() -> None:
    connected: list[str] = []

    def connect() -> FakeProducer:
        connected.append("once")
        return FakeProducer()

    sink = dead_letter_sink(FakeProducer(), 1, connect, connected.append)
    sink.flush()
    sink.close()
    assert connected == []
    sink.send(*message(0))
    sink.send(*message(1))
    assert connected == ["once", "frames.dlq"]


def test_send_waits_for_the_oldest_letters_when_too_many_bytes_are_in_flight() -> None:
    producer = FakeProducer()
    dead = dead_letter_sink(producer, max_inflight_bytes=5_000)
    for offset in range(4):
        dead.send(*message(offset, b"x" * 2_000))
    assert [future.requested for _, _, future in producer.sent] == [True, True, False, False]
    dead.send(*message(4, b"x" * 50_000))  # larger than all that may be in flight: it goes alone
    assert [future.requested for _, _, future in producer.sent] == [True, True, True, True, False]


def test_flush_sends_again_what_failed_so_that_no_letter_is_lost() -> None:
    producer = FakeProducer(Future(), Future(errors.KafkaTimeoutError("no answer")), Future())
    dead = dead_letter_sink(producer)
    for offset in range(3):
        dead.send(*message(offset, b"%d" % offset))
    with pytest.raises(BrokerUnavailable, match=r"frames\.dlq.*broker:9092.*no answer"):
        dead.flush()
    dead.flush()
    assert producer.values() == [b"0", b"1", b"2", b"1"]
    dead.flush()
    assert len(producer.sent) == 4


def test_an_outage_that_failed_many_letters_raises_once() -> None:
    producer = FakeProducer(*(Future(errors.KafkaTimeoutError("expired")) for _ in range(5)))
    dead = dead_letter_sink(producer)
    for offset in range(5):
        dead.send(*message(offset, b"%d" % offset))
    with pytest.raises(BrokerUnavailable, match="expired"):
        dead.flush()
    dead.flush()
    assert producer.values() == [b"0", b"1", b"2", b"3", b"4"] * 2


def test_flush_does_not_send_again_what_may_still_be_acknowledged() -> None:
    waiting = Future(errors.KafkaTimeoutError("not yet"), is_done=False)
    producer = FakeProducer(waiting)
    dead = dead_letter_sink(producer)
    dead.send(*message(0))
    with pytest.raises(BrokerUnavailable):
        dead.flush()
    waiting.error = None
    dead.flush()
    assert len(producer.sent) == 1


def test_a_message_that_the_topic_does_not_take_is_replaced_by_a_note_where_it_is() -> None:
    producer = FakeProducer(Future(errors.MessageSizeTooLargeError("too large")))
    dead = dead_letter_sink(producer)
    dead.send(*message(17, b"x" * 10_000))
    dead.flush()
    _, record, _ = producer.sent[1]
    assert record["value"] == b""
    assert dict(record["headers"])["__connect.errors.offset"] == b"17"
    assert "dlq.omitted" in dict(record["headers"])


def test_a_note_that_the_topic_does_not_take_either_is_an_error_and_not_a_loop() -> None:
    too_large = errors.MessageSizeTooLargeError("too large")
    dead = dead_letter_sink(FakeProducer(Future(too_large), Future(too_large)))
    dead.send(*message(0))
    with pytest.raises(BrokerUnavailable, match="too large"):
        dead.flush()


def test_close_frees_the_producer_once_even_if_letters_cannot_be_flushed() -> None:
    producer = FakeProducer(Future(errors.KafkaTimeoutError("no answer")))
    dead = dead_letter_sink(producer)
    dead.send(*message(0))
    with pytest.raises(BrokerUnavailable):
        dead.close()
    dead.close()
    assert producer.closed == 1


def test_dead_letters_switched_off_do_nothing() -> None:
    dead = NoDeadLetters()
    dead.send(*message(0))
    dead.flush()
    dead.close()


def on(broker: Broker, **overrides: Any) -> KafkaDeadLetters:
    return at(broker.bootstrap_servers, **overrides)


def at(bootstrap_servers: str, **overrides: Any) -> KafkaDeadLetters:
    arguments: dict[str, Any] = {
        "topic": None,
        "worker": "worker-0",
        "max_message_bytes": 1_000_000,
        "max_inflight_bytes": 1_000_000,
        "timeout_s": 20.0,
    }
    reach: Reach = {"bootstrap_servers": bootstrap_servers, "client_id": "test", "security": {}}
    arguments |= overrides
    largest = arguments["max_message_bytes"]
    topics = dead_letter_topics(reach, retention_s=3_600, retention_bytes=2**21, max_message_bytes=largest)
    return open_dead_letters(topics, **arguments)


def read(broker: Broker, topic: str, count: int) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers.split(","), auto_offset_reset="earliest")
    try:
        consumer.assign([KafkaPartition(topic, 0)])
        records: list[Any] = []
        while len(records) < count:
            records += [record for batch in consumer.poll(timeout_ms=1_000).values() for record in batch]
        return records
    finally:
        consumer.close()


@pytest.fixture
def opened() -> Any:
    """Closes what a test opened on a real broker."""
    made: list[KafkaDeadLetters] = []

    def keep(dead: KafkaDeadLetters) -> KafkaDeadLetters:
        made.append(dead)
        return dead

    yield keep
    for dead in made:
        dead.close()


Keep = Callable[[KafkaDeadLetters], KafkaDeadLetters]


def test_letters_arrive_on_a_real_broker_with_the_original_bytes_and_a_time_of_their_own(
    broker: Broker, topic: MakeTopic, opened: Keep
) -> None:
    name = topic(dead_letters=True)
    dead = opened(on(broker))
    frame = Frame(RowId(name, 0, 5, 0), 1_700_000_000_123, None, reason=Reason.BAD_ARROW, detail="expected a stream")
    original = Message(name, 0, 5, b"north", bytes(range(256)), (("content-type", b"x/y"),), 1_700_000_000_123)
    before_ms = time.time_ns() // 1_000_000
    dead.send(original, frame)
    dead.flush()
    (record,) = read(broker, f"{name}.dlq", 1)
    assert (record.key, record.value) == (original.key, original.value)
    assert record.timestamp >= before_ms, "or the topic's retention would delete the letter of an old frame at once"
    headers = dict(record.headers)
    assert headers["dlq.timestamp"] == b"1700000000123"
    assert headers["content-type"] == b"x/y"
    assert headers["dlq.reason"] == b"bad_arrow"
    assert headers["__connect.errors.offset"] == b"5"


def test_the_dead_letter_topic_is_created_if_it_is_absent(broker: Broker, topic: MakeTopic, opened: Keep) -> None:
    name = topic()
    for dead in (opened(on(broker)), opened(on(broker))):
        dead.send(Message(name, 0, 5, None, b"x"), message(5)[1])
        dead.flush()
    assert [record.value for record in read(broker, f"{name}.dlq", 2)] == [b"x", b"x"]


@pytest.mark.needs("describe_configs")
def test_the_topic_that_is_created_forgets_by_age_and_size(broker: Broker, topic: MakeTopic, opened: Keep) -> None:
    name = topic()
    dead = opened(on(broker))
    dead.send(Message(name, 0, 5, None, b"x"), message(5)[1])
    dead.flush()
    resource = ConfigResource(ConfigResourceType.TOPIC, f"{name}.dlq")
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
        (found,) = admin.describe_configs([resource], config_filter="all").values()
    values = {key: config["value"] for key, config in found[f"{name}.dlq"].items()}
    assert (values["retention.ms"], values["retention.bytes"]) == ("3600000", str(2**21))
    assert values["cleanup.policy"] == "delete"


def test_a_message_above_the_producers_limit_becomes_a_note_on_a_real_broker(
    broker: Broker, topic: MakeTopic, opened: Keep
) -> None:
    name = topic(dead_letters=True)
    dead = opened(on(broker, max_message_bytes=1_000))
    dead.send(Message(name, 0, 5, None, b"x" * 100_000), message(5)[1])
    dead.flush()
    (record,) = read(broker, f"{name}.dlq", 1)
    assert record.value == b""
    assert b"more than this topic accepts" in dict(record.headers)["dlq.omitted"]


def test_a_broker_that_cannot_be_reached_is_retryable() -> None:
    dead = at(f"127.0.0.1:{free_ports(1)}", max_message_bytes=1_000, max_inflight_bytes=1_000, timeout_s=1.0)
    with pytest.raises(BrokerUnavailable, match="could not connect"):
        dead.send(*message(0))


@pytest.mark.check("brokers")
@pytest.mark.timeout(280)
def test_a_frozen_broker_holds_no_more_than_the_bound_in_memory() -> None:
    """kafka-python's producer alone took 600 MB for as many letters within half a second (measured)."""
    bound, dead_letter_bytes = 8 * 2**20, 2**20
    me = psutil.Process()
    with EmbeddedBroker() as broker:
        dead = at(
            broker.bootstrap_servers, max_message_bytes=dead_letter_bytes, max_inflight_bytes=bound, timeout_s=1.0
        )
        dead.send(*message(0, bytes(1_000)))
        dead.flush()
        assert broker.pid is not None
        process, before = psutil.Process(broker.pid), me.memory_info().rss
        process.suspend()
        try:
            refusals = [
                not taken(dead, offset, random.Random(offset).randbytes(dead_letter_bytes)) for offset in range(12)
            ]
            assert refusals == [False] * 7 + [True] * 5, "seven letters of 1 MiB and their headers fit into 8 MiB"
            assert me.memory_info().rss - before < 4 * bound
        finally:
            process.resume()
        for _ in range(2):  # some expired meanwhile: heard of once, and sent again
            with suppress(BrokerUnavailable):
                dead.flush()
        dead.flush()
        dead.close()


def taken(dead: KafkaDeadLetters, offset: int, value: bytes) -> bool:
    try:
        dead.send(*message(offset, value))
    except BrokerUnavailable:
        return False
    return True
