"""A topic as the broker has it: offset by offset, to be compared with a chain, or in one pass over all of it.

`KafkaLog` implements `output.verify.findings.BrokerLog`, `KafkaSourceLog` `ports.SourceLog`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer
from kafka.structs import TopicPartition as KafkaPartition

from adawise.errors import BrokerUnavailable, SourceError
from adawise.kafka.batches import BatchLimits, Unread, bound_batches
from adawise.kafka.client import kafka_errors, open_client
from adawise.kafka.topic import KafkaTopics
from adawise.ports import Source, TopicIdentity
from adawise.records import Message, TopicPartition, stated_ms

_Longs = npt.NDArray[np.int64]

_POLL_MS, _MESSAGES = 500, 500
PATIENCE_S = 30.0  # the longest wait for an answer that brings anything


class KafkaLog:
    """A reader of partitions without a consumer group; keys and values are dropped as they arrive.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        client_id: the prefix of the clients' names at the broker.
        max_partition_fetch_bytes: the most bytes held at once, not counting one message.
        batch_limits: batches beyond them are not read, as in a worker.
        security: kafka-python's arguments for TLS and SASL.
        patience_s: the longest wait in seconds for an answer that brings anything.

    Raises:
        BrokerUnavailable: no broker answered within 10 s.
        SettingsError: an argument cannot work.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        client_id: str,
        max_partition_fetch_bytes: int,
        batch_limits: BatchLimits,
        security: Mapping[str, object],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._servers, self._patience_s = bootstrap_servers, patience_s
        self._topics = KafkaTopics(bootstrap_servers=bootstrap_servers, client_id=client_id, security=security)
        try:
            self._consumer: Any = open_client(
                KafkaConsumer,
                bootstrap_servers,
                security,
                client_id=f"{client_id}-log",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level="read_committed",
                max_partition_fetch_bytes=max_partition_fetch_bytes,
            )
            bound_batches(self._consumer, batch_limits)
        except BaseException:
            self._topics.close()
            raise
        self._reading: KafkaPartition | None = None
        self._since = 0  # messages before this offset were returned
        self._ahead: list[tuple[int, int]] = []  # read, but beyond what was asked for

    def identity(self, topic: str) -> TopicIdentity:
        """See `Log.identity`."""
        return self._topics.identity(topic)

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `Log.bounds`."""
        return self._topics.bounds(tp)

    def committed(self, group: str, topic: str) -> dict[TopicPartition, tuple[int, str]]:
        """Return the offsets, with their metadata, that a group has committed for a topic; raise BrokerUnavailable."""
        return self._topics.committed(group, topic)

    def messages(self, tp: TopicPartition, first: int, until: int) -> tuple[_Longs, _Longs]:
        """See `Log.messages`; `until` is at most the log's end."""
        partition = KafkaPartition(*tp)
        with kafka_errors(self._servers, f"read the offsets [{first}, {until}) of {tp}"):
            position = self._begin(partition, first)
            found = self._ahead
            give_up_s = time.monotonic() + self._patience_s
            while position < until:
                records = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_MESSAGES).get(partition, [])
                found += [
                    (record.offset, stated_ms(record.timestamp))
                    for record in records
                    if not isinstance(record.checksum, Unread)
                ]
                # A log may end in transaction markers, which are no messages: the position still moves past them.
                before, position = position, self._consumer.position(partition, timeout_ms=10_000)
                if position > before:
                    give_up_s = time.monotonic() + self._patience_s
                elif time.monotonic() > give_up_s:
                    raise BrokerUnavailable(
                        f"{self._servers} has sent nothing of {tp} from offset {position} on for "
                        f"{self._patience_s:g} s. Check that the partition's leader is alive, and try again."
                    )
        self._ahead, self._since = [message for message in found if message[0] >= until], until
        wanted = np.asarray([message for message in found if first <= message[0] < until], np.int64).reshape(-1, 2)
        return wanted[:, 0], wanted[:, 1]

    def close(self) -> None:
        """Close the clients."""
        self._consumer.close()
        self._topics.close()

    def _begin(self, partition: KafkaPartition, first: int) -> int:
        """Move to `first`, unless messages from there on were read already, and return the position."""
        if partition != self._reading or first < self._since:
            self._consumer.assign([])  # drops what was fetched before, which would be returned again
            self._consumer.assign([partition])
            self._reading, self._ahead = partition, []
            self._consumer.seek(partition, first)
        position = int(self._consumer.position(partition, timeout_ms=10_000))
        if position < first:
            self._consumer.seek(partition, first)
            return first
        return position


_POLL_S = 0.5


def read_whole(source: Source) -> Iterator[Message]:
    """Yield every message that was there when reading began, in offset order within a partition.

    Messages that arrive later are left out, and so is what cannot be read.

    Args:
        source: reads all partitions (no group); the caller closes it.

    Raises:
        BrokerUnavailable, SourceError: as the source raises them.
    """
    ends: dict[TopicPartition, int] = {}
    reached: dict[TopicPartition, int] = {}
    while True:
        poll = source.poll(_POLL_S)
        for tp in poll.assigned:
            start, ends[tp] = source.log.bounds(tp)
            source.seek(tp, max(start, reached.get(tp, start)))  # retention may overtake the reader
            reached.setdefault(tp, start)
        source.resume(poll.assigned)
        for message in poll.messages:
            tp = message.topic_partition
            reached[tp] = message.next_offset
            if message.offset < ends[tp] and message.missing is None:
                yield message
        # The last offsets of a partition may be transaction markers, which are never delivered.
        over = {tp for tp in ends if not poll.messages and (source.drained(tp) or source.blocked(tp))}
        if ends and all(reached[tp] >= end or tp in over for tp, end in ends.items()):
            return


class KafkaSourceLog:
    """The log of one topic, as `adawise.ports.SourceLog`.

    Args:
        topics: the client for questions, closed by its owner.
        topic: must exist.
        origin: where a partition without a chain begins: "earliest", "latest" or milliseconds since the epoch.
        open_log: opens the reader of messages, at the first question about timestamps; it is closed with this.
        servers: the brokers, for messages to people.

    Raises:
        SourceError: there is no such topic.
        BrokerUnavailable: no broker answered.
    """

    def __init__(
        self,
        topics: KafkaTopics,
        topic: str,
        origin: Literal["earliest", "latest"] | int,
        open_log: Callable[[], KafkaLog],
        *,
        servers: str,
    ) -> None:
        self._topics, self._topic, self._origin, self._servers = topics, topic, origin, servers
        self._open = open_log
        self._reader: KafkaLog | None = None
        self.first_identity = topics.identity(topic)
        self.checked_at = time.monotonic()

    def identity(self, topic: str) -> TopicIdentity:
        """See `SourceLog.identity`."""
        return self._topics.identity(topic)

    def check(self) -> None:
        """See `SourceLog.check`. A fetch goes by the topic's name, and would go on in a new topic of that name."""
        first, now = self.first_identity, self._topics.identity(self._topic)
        if now.topic_id != first.topic_id:
            raise SourceError(
                f"topic {self._topic!r} at {self._servers} was deleted and created again: its id was "
                f"{first.topic_id} and is {now.topic_id}. Use a new output for the new topic."
            )
        self.checked_at = time.monotonic()

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `SourceLog.bounds`."""
        return self._topics.bounds(tp)

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        """See `SourceLog.timestamps`; it uses a client of its own, so that the group's position does not move."""
        self._reader = self._reader or self._open()
        try:
            offsets, timestamps = self._reader.messages(tp, first, until)
        except BrokerUnavailable:
            self.close()  # as `KafkaTopics` does with its probe: the next question opens a new client
            raise
        return dict(zip(offsets.tolist(), timestamps.tolist(), strict=True))

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        """See `SourceLog.offset_at`."""
        return self._topics.offset_at(tp, timestamp_ms)

    def origin(self, tp: TopicPartition) -> int:
        """See `SourceLog.origin`: a time after the last message gives the log's end."""
        start, end = self._topics.bounds(tp)
        if self._origin == "earliest":
            return start
        if self._origin == "latest":
            return end
        found = self.offset_at(tp, int(self._origin))
        return end if found is None else found

    def close(self) -> None:
        """Close the reader's clients; the next question opens them again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
