"""The brokers that the tests stand on: what every one must do, and each capability that a test may need."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import MessageSizeTooLargeError
from kafka.structs import OffsetAndMetadata

from tests.brokers import CAPABILITIES, ApacheKafka, Broker, MakeTopic, Unavailable, create_topic, fresh_name
from tests.deadlines import DEADLINE_S


@contextmanager
def producer(broker: Broker, **settings: Any) -> Iterator[Any]:
    """Not idempotent: after a refused message kafka-python 3.0.12 sometimes waited for ever in `close` (seen here)."""
    settings = {"enable_idempotence": "transactional_id" in settings, **settings}
    sender = KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(","), **settings)
    try:
        yield sender
    finally:
        sender.close(timeout=DEADLINE_S)


def consumer(broker: Broker, *topics: str, **settings: Any) -> Any:
    """A consumer with short timeouts: the embedded broker lets a group form after half a session timeout."""
    short = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 500} if "group_id" in settings else {}
    chosen = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **short, **settings}
    reader = KafkaConsumer(*topics, bootstrap_servers=broker.bootstrap_servers.split(","), **chosen)
    for name in topics:  # kafka-python 3.0.12 can lose its first rebalance for ever if it joins without the metadata
        reader.partitions_for_topic(name)
    return closing(reader)


def admin(broker: Broker) -> Any:
    return closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(",")))


def fill(broker: Broker, topic: str, count: int) -> None:
    """`count` records in one partition, sent as batches of several."""
    with producer(broker, linger_ms=100) as sender:
        for i in range(count):
            sender.send(topic, value=b"%d" % i, partition=0)
        sender.flush()


def take(reader: Any, count: int) -> Iterator[Any]:
    """The next `count` records; how long that may take is up to the test's own time limit."""
    while count:
        for records in reader.poll(timeout_ms=500, max_records=count).values():
            count -= len(records)
            yield from records


@pytest.fixture(params=["broker", "embedded_broker"])
def each_broker(request: pytest.FixtureRequest) -> Broker:
    chosen: Broker = request.getfixturevalue(request.param)
    return chosen


def test_a_record_comes_back_with_its_key_headers_and_timestamp(each_broker: Broker) -> None:
    name = fresh_name("round-trip")
    create_topic(each_broker, name, partitions=3)
    headers = [("content-type", b"image/jpeg"), ("stream-id", "kamera-\N{SNOWMAN}".encode()), ("empty", b"")]
    with producer(each_broker) as sender:
        sent = [
            sender.send(
                name, key=b"cam-%d" % (i % 5), value=bytes([i]) * 100_000, headers=headers, timestamp_ms=1000 + i
            )
            for i in range(30)
        ]
        places = [(m.partition, m.offset) for m in (future.get(timeout=DEADLINE_S) for future in sent)]
    with consumer(each_broker, name, group_id=fresh_name("group")) as reader:
        got = {(r.partition, r.offset): r for r in take(reader, 30)}
    for i, place in enumerate(places):
        record = got[place]
        assert (record.key, record.value) == (b"cam-%d" % (i % 5), bytes([i]) * 100_000)
        assert [(k, bytes(v)) for k, v in record.headers] == headers
        assert record.timestamp == 1000 + i
    assert len({partition for partition, _ in places}) > 1, "five keys should reach more than one of three partitions"


def test_one_key_stays_in_one_partition_in_order(each_broker: Broker) -> None:
    name = fresh_name("order")
    create_topic(each_broker, name, partitions=3)
    with producer(each_broker, linger_ms=20) as sender:
        for i in range(60):
            sender.send(name, key=b"cam-%d" % (i % 4), value=b"%d" % i)
        sender.flush()
    with consumer(each_broker, name, group_id=fresh_name("group")) as reader:
        got = list(take(reader, 60))
    for camera in range(4):
        mine = [r for r in got if r.key == b"cam-%d" % camera]
        assert len({r.partition for r in mine}) == 1
        assert [int(r.value) for r in mine] == list(range(camera, 60, 4))


def test_a_new_member_goes_on_at_the_committed_offset(each_broker: Broker) -> None:
    name, group = fresh_name("resume"), fresh_name("group")
    create_topic(each_broker, name)
    fill(each_broker, name, 20)
    tp = TopicPartition(name, 0)
    with consumer(each_broker, name, group_id=group) as reader:
        assert [int(r.value) for r in take(reader, 7)] == list(range(7))
        reader.commit({tp: OffsetAndMetadata(7, "", -1)})
    with consumer(each_broker, name, group_id=group) as reader:
        assert next(iter(take(reader, 1))).offset == 7


def test_a_topic_nobody_created_does_not_appear(broker: Broker) -> None:
    name = fresh_name("misspelt")
    with consumer(broker, allow_auto_create_topics=False) as reader:
        assert not reader.partitions_for_topic(name)


def test_the_topic_fixture_makes_the_dead_letter_topic_too(broker: Broker, topic: MakeTopic) -> None:
    name = topic(partitions=2, dead_letters=True)
    with consumer(broker) as reader:
        assert reader.partitions_for_topic(name) == {0, 1}
        assert reader.partitions_for_topic(f"{name}.dlq") == {0, 1}


@pytest.mark.needs("end_offsets")
def test_the_end_of_a_log_counts_records_not_batches(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    fill(broker, name, 25)
    tp = TopicPartition(name, 0)
    with consumer(broker) as reader:
        assert reader.end_offsets([tp]) == {tp: 25}


@pytest.mark.needs("times")
def test_an_offset_is_found_by_the_records_own_time(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    tp = TopicPartition(name, 0)
    with producer(broker) as sender:
        for i in range(10):
            sender.send(name, value=b"x", partition=0, timestamp_ms=1_700_000_000_000 + 1000 * i)
        sender.flush()
    with consumer(broker) as reader:
        assert reader.offsets_for_times({tp: 1_700_000_003_500})[tp].offset == 4
        assert reader.offsets_for_times({tp: 1_700_000_999_000})[tp] is None


@pytest.mark.needs("aborted_transactions")
def test_records_of_an_aborted_transaction_are_not_delivered(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    with producer(broker, transactional_id=fresh_name("tx")) as sender:
        sender.init_transactions()
        for value, commit in ((b"aborted", False), (b"committed", True)):
            sender.begin_transaction()
            sender.send(name, value=value, partition=0)
            sender.flush()
            (sender.commit_transaction if commit else sender.abort_transaction)()
    with consumer(broker, name, group_id=fresh_name("group"), isolation_level="read_committed") as reader:
        assert [r.value for r in take(reader, 1)] == [b"committed"]


@pytest.mark.needs("commit_metadata")
def test_a_commit_keeps_the_string_beside_the_offset(broker: Broker, topic: MakeTopic) -> None:
    tp = TopicPartition(topic(), 0)
    with consumer(broker, group_id=fresh_name("group")) as reader:
        reader.assign([tp])
        reader.commit({tp: OffsetAndMetadata(0, "segment 17", -1)})
        assert reader.committed(tp, metadata=True).metadata == "segment 17"


@pytest.mark.needs("create_partitions")
def test_a_topic_can_be_given_more_partitions(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    with admin(broker) as client:
        client.create_partitions({name: 4})
        end = time.monotonic() + DEADLINE_S  # the broker answers before it has made them
        while len(client.describe_topics([name])[0]["partitions"]) != 4:
            assert time.monotonic() < end


@pytest.mark.needs("delete_records")
def test_the_start_of_a_log_can_be_moved(broker: Broker, topic: MakeTopic) -> None:
    tp = TopicPartition(topic(), 0)
    fill(broker, tp.topic, 20)
    with admin(broker) as client, consumer(broker) as reader:
        client.delete_records({tp: 12})
        assert reader.beginning_offsets([tp]) == {tp: 12}


@pytest.mark.needs("describe_configs", "message_limits")
def test_a_topic_keeps_and_enforces_its_message_limit(broker: Broker, topic: MakeTopic) -> None:
    name = topic(configs={"max.message.bytes": "5000"})
    with admin(broker) as client:
        found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    assert "'5000'" in str(found)
    with producer(broker) as sender, pytest.raises(MessageSizeTooLargeError):
        sender.send(name, value=b"x" * 6000).get(timeout=DEADLINE_S)


@pytest.mark.needs("static_membership")
def test_a_static_member_that_returns_moves_no_partition(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(), fresh_name("group")
    fill(broker, name, 4)
    settings = {"group_id": group, "group_instance_id": "worker-0", "session_timeout_ms": 30_000}
    with consumer(broker, name, **settings) as reader:
        list(take(reader, 2))
        generation = reader.group_metadata().generation_id
        reader.commit()
    with consumer(broker, name, **settings) as reader:
        list(take(reader, 2))
        assert reader.group_metadata().generation_id == generation


@pytest.mark.needs("poll_interval_eviction")
def test_a_member_that_stops_polling_loses_its_partitions(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(partitions=2), fresh_name("group")
    both = {TopicPartition(name, 0), TopicPartition(name, 1)}
    settings = {"group_id": group, "session_timeout_ms": 6000, "max_poll_interval_ms": 6000}
    with consumer(broker, name, **settings) as idle, consumer(broker, name, **settings) as busy:
        while not (len(idle.assignment()) == len(busy.assignment()) == 1):
            idle.poll(timeout_ms=100)
            busy.poll(timeout_ms=100)
        while busy.assignment() != both:
            busy.poll(timeout_ms=100)


@pytest.mark.check("brokers")
@pytest.mark.needs("persistence")
def test_apache_kafka_that_is_killed_comes_back_with_its_records() -> None:
    with contextlib.ExitStack() as stack:
        try:
            kafka = stack.enter_context(ApacheKafka())
        except Unavailable as reason:
            pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")
        it = Broker(kafka.bootstrap_servers, "Apache Kafka", "", CAPABILITIES)
        name = fresh_name("kept")
        create_topic(it, name)
        fill(it, name, 10)
        kafka.kill(1)  # returns when it is gone: `start` leaves a broker that lives, or is still dying, as it is
        kafka.start()
        with consumer(it, name, group_id=fresh_name("group")) as reader:
            assert [int(r.value) for r in take(reader, 10)] == list(range(10))
