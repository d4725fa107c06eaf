"""The facts that several checks share, each queried once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.settings import Settings

if TYPE_CHECKING:
    from adawise.app.model import ModelPair
    from adawise.app.precision import PrecisionChoice
    from adawise.kafka.inquiry import Cluster, KafkaInquiry, Topic
    from adawise.kafka.topic import KafkaTopics


class Known:
    """The settings, and what was found out so far.

    Errors come from the system that is asked. A query that failed is made again at the next access.

    Attributes:
        failed: names of checks that failed, or could not be made.
        model: the pair, once it was loaded.
        precision: the number format in which it was loaded, likewise.
        is_silent: True once a check had no answer in its time and still waits.
        clients: the Kafka clients that were opened. A client serves one thread at a time. `commits` is the only fact
            from the broker that two lanes query, so it has a lock.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failed: set[str] = set()
        self.model: ModelPair | None = None
        self.precision: PrecisionChoice | None = None
        self.clients: list[Any] = []
        self.is_silent = False
        self._opened, self._connecting = ExitStack(), threading.Lock()

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster of the broker that answers."""
        return self.inquiry.cluster()

    @cached_property
    def topic(self) -> Topic:
        """The topic that is read."""
        return self.inquiry.topic(self.settings.kafka.topic)

    @cached_property
    def configs(self) -> Mapping[str, str] | None:
        """The topic's configuration at the broker; None if the broker does not disclose it."""
        return self.inquiry.configs(self.settings.kafka.topic)

    @cached_property
    def identity(self) -> TopicIdentity:
        """The topic's identity. Raises SourceError if there is no topic of this name."""
        return self.topics.identity(self.settings.kafka.topic)

    @cached_property
    def commits(self) -> Mapping[TopicPartition, tuple[int, str]]:
        """The offsets that the group has committed, each with the id of the root that it was for."""
        with self._connecting:
            return self.topics.committed(self.settings.kafka.group, self.settings.kafka.topic)

    @cached_property
    def inquiry(self) -> KafkaInquiry:
        """The client that queries clusters and topics."""
        from adawise.app.kafka import reach
        from adawise.kafka.inquiry import KafkaInquiry

        return self._opened.enter_context(closing(KafkaInquiry(**reach(self.settings.kafka))))

    @cached_property
    def topics(self) -> KafkaTopics:
        """The client that makes a worker's queries."""
        from adawise.app.kafka import kafka_topics

        return self._opened.enter_context(closing(kafka_topics(self.settings.kafka)))

    def close(self) -> None:
        """Free what was opened. A check that still waits for an answer gets none, and ends."""
        if not self.is_silent:
            self._opened.close()
        for client in self.clients:
            with suppress(RuntimeError):  # its owner has closed it already
                client.close()
