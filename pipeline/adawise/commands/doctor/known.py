"""What several checks go by, each asked for once."""

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
    from adawise.build.model import ModelPair
    from adawise.kafka.inquiry import Cluster, KafkaInquiry, Topic
    from adawise.kafka.topic import KafkaTopics


class Known:
    """The settings, and what was found out so far. Errors are of whoever answers; what failed is asked again.

    `failed` are the names of checks that failed, or could not be made. `model` is the pair, once it was loaded.
    `is_silent`: somebody had no answer, and still waits. `clients` are what was opened to the brokers; a client answers
    one thread at a time, and of what the broker knows, two lanes ask for `commits` alone.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failed: set[str] = set()
        self.model: ModelPair | None = None
        self.clients: list[Any] = []
        self.is_silent = False
        self._opened, self._asking = ExitStack(), threading.Lock()

    @cached_property
    def cluster(self) -> Cluster:
        """Who answers."""
        return self.inquiry.cluster()

    @cached_property
    def topic(self) -> Topic:
        """The topic that is read."""
        return self.inquiry.topic(self.settings.kafka.topic)

    @cached_property
    def configs(self) -> Mapping[str, str] | None:
        """Its settings at the broker; None where they are not told."""
        return self.inquiry.configs(self.settings.kafka.topic)

    @cached_property
    def identity(self) -> TopicIdentity:
        """Which topic it is. Raises SourceError: there is none of this name."""
        return self.topics.identity(self.settings.kafka.topic)

    @cached_property
    def commits(self) -> Mapping[TopicPartition, tuple[int, str]]:
        """What the group has committed, with the id of the root that it was for."""
        with self._asking:
            return self.topics.committed(self.settings.kafka.group, self.settings.kafka.topic)

    @cached_property
    def inquiry(self) -> KafkaInquiry:
        """Asks about clusters and topics."""
        from adawise.build.kafka import reach
        from adawise.kafka.inquiry import KafkaInquiry

        return self._opened.enter_context(closing(KafkaInquiry(**reach(self.settings.kafka))))

    @cached_property
    def topics(self) -> KafkaTopics:
        """Asks what a worker asks."""
        from adawise.build.kafka import kafka_topics

        return self._opened.enter_context(closing(kafka_topics(self.settings.kafka)))

    def close(self) -> None:
        """Free what was opened; who still waits for an answer gets none, and ends."""
        if not self.is_silent:
            self._opened.close()
        for client in self.clients:
            with suppress(RuntimeError):  # that it is closed already, by whoever opened it
                client.close()
