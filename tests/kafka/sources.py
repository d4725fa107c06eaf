"""What the tests of the Kafka source share: opening one, filling a topic, waiting for a condition by polling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import TopicAlreadyExistsError

from adawise.errors import SourceError
from adawise.kafka.batches import BatchLimits
from adawise.kafka.source import KafkaSource
from adawise.ports import Poll
from adawise.records import Message, TopicPartition
from tests.brokers import Broker
from tests.deadlines import DEADLINE_S

__all__ = ["DEADLINE_S"]  # for those who have it from here


class BytesName(str):
    """A header's name that goes over the wire as any bytes, which kafka-python's producer would not send."""

    raw: bytes

    def __new__(cls, raw: bytes) -> BytesName:
        self = super().__new__(cls, "raw")
        self.raw = raw
        return self

    def encode(self, *_: Any, **__: Any) -> bytes:
        return self.raw


def open_source(broker: Broker, topic: str, group: str | None, **changes: Any) -> KafkaSource:
    """A source with short timeouts, from the log's start."""
    arguments: dict[str, Any] = {
        "origin": "earliest",
        "client_id": "test",
        "static_member": None,
        "session_timeout_ms": 6_000,
        "max_poll_interval_ms": 60_000,
        "max_poll_records": 500,
        "max_partition_fetch_bytes": 1 << 20,
        "batch_limits": BatchLimits(64 << 20, 100_000),
        "on_unreadable": "stop",
        "security": {},
    }
    return KafkaSource(bootstrap_servers=broker.bootstrap_servers, topic=topic, group=group, **(arguments | changes))


def produce(broker: Broker, messages: Iterable[Message], *, batched: bool = True) -> None:
    """Send and wait for every acknowledgement; offsets are the broker's. `batched`: as few record batches as can be."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(","), linger_ms=20 if batched else 0)
    try:
        for message in messages:
            sent = producer.send(
                message.topic,
                message.value,
                key=message.key,
                headers=list(message.headers),
                partition=message.partition,
                timestamp_ms=None if message.timestamp_ms < 0 else message.timestamp_ms,
            )
            if not batched:
                sent.get(timeout=DEADLINE_S)
        producer.flush(timeout=DEADLINE_S)
    finally:
        producer.close()


def numbered(topic: str, partition: int, count: int, first: int = 0) -> list[Message]:
    """Messages whose value says where they belong."""
    return [Message(topic, partition, n, None, f"{partition}:{n}".encode()) for n in range(first, first + count)]


def poll_until(source: KafkaSource, done: Callable[[Poll], bool], *others: KafkaSource) -> Poll:
    """Poll until `done` of all that came so far; the `others` are polled in turn and take over what they are given."""
    so_far = Poll()
    give_up = time.monotonic() + DEADLINE_S
    while not done(so_far):
        assert time.monotonic() < give_up, f"after {DEADLINE_S} s there were only {so_far}"
        new = source.poll(0.05)
        so_far = Poll([*so_far.messages, *new.messages], [*so_far.assigned, *new.assigned], [*so_far.lost, *new.lost])
        for other in others:
            take_over(other, other.poll(0.05).assigned)
    return so_far


def take_over(source: KafkaSource, tps: Iterable[TopicPartition]) -> None:
    """Read from the start of each, as a worker does whose chain is empty."""
    tps = list(tps)
    for tp in tps:
        source.seek(tp, source.log.origin(tp))
    source.resume(tps)


def consume(source: KafkaSource, messages: int) -> list[Message]:
    """Take over whatever is assigned and read until so many messages came."""
    return consume_all([source], messages)[0]


def consume_all(sources: list[KafkaSource], messages: int) -> list[list[Message]]:
    """The same with several members in turn; the messages that each got, so many in all."""
    found: list[list[Message]] = [[] for _ in sources]
    give_up = time.monotonic() + DEADLINE_S
    while sum(map(len, found)) < messages:
        assert time.monotonic() < give_up, f"after {DEADLINE_S} s there were {found} and not {messages} messages"
        for mine, source in zip(found, sources, strict=True):
            poll = source.poll(0.05)
            take_over(source, poll.assigned)
            mine += poll.messages
    return found


def share(sources: list[KafkaSource], each: int) -> list[set[TopicPartition]]:
    """Poll all members of a group in turn until every one owns `each` partitions; returns who owns what."""
    owned: list[set[TopicPartition]] = [set() for _ in sources]
    give_up = time.monotonic() + DEADLINE_S
    while any(len(one) != each for one in owned):
        assert time.monotonic() < give_up, f"after {DEADLINE_S} s the partitions were shared as {owned}"
        for one, source in zip(owned, sources, strict=True):
            poll = source.poll(0.05)
            one -= set(poll.lost)
            one |= set(poll.assigned)
    return owned


def recreate(admin: KafkaAdminClient, source: KafkaSource, name: str, first: str) -> None:
    """Create the topic once its deletion is through; Tansu creates it anew by itself if a client asks for it."""
    give_up = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < give_up
        try:
            if source.log.identity(name).topic_id != first:
                return
        except SourceError:  # it is gone
            with suppress(TopicAlreadyExistsError):
                admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
