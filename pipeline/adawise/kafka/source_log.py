"""The state of a source's topic: whether it is still the same one, its bounds, and the offsets of times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from adawise.errors import BrokerUnavailable, SourceError
from adawise.kafka.log import KafkaLog
from adawise.kafka.topic import KafkaTopics
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition


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
