"""Topics that the worker writes to (dead letters, results): checked before the run, created at the first record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.protocol.producer import ProduceRequest

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError
from adawise.kafka.client import EMBEDDED, kafka_errors, open_client

HEADERS_ROOM_BYTES = 64 * 1024
"""The room in a record for everything but its value, such as headers."""

_QUICK_MS = 5_000


@dataclass(frozen=True)
class OwnTopics:
    """The topics of one purpose at one cluster.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        client_id: the client's name in the broker's logs.
        security: kafka-python's arguments for TLS and SASL.
        what: the topic's purpose, for messages: "dead-letter topic".
        otherwise: how to do without it, for messages: "set kafka.dead_letters = false".
        partitions: the number of partitions of a topic that is created; the broker's default sets the replicas.
        configs: the configuration of a topic that is created.
    """

    bootstrap_servers: str
    client_id: str
    security: Mapping[str, object]
    what: str
    otherwise: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)

    def check(self, topic: str) -> bool:
        """Return True if the topic exists; create and write nothing.

        Raises:
            SettingsError: it could not be created, or not be written.
            BrokerUnavailable: no broker answered.
        """
        try:
            return self._with_admin(topic, validate_only=True)
        except FatalError as error:
            raise SettingsError(f"{error} Or {self.otherwise}.") from error

    def create(self, topic: str) -> None:
        """Create the topic unless it exists.

        Raises:
            FatalError: that is refused, or the topic may not be written.
            BrokerUnavailable: no broker answered.
        """
        self._with_admin(topic, validate_only=False)

    def _with_admin(self, topic: str, *, validate_only: bool) -> bool:
        admin: Any = open_client(KafkaAdminClient, self.bootstrap_servers, self.security, client_id=self.client_id)
        try:
            exists = self._ensure(admin, topic, validate_only=validate_only)
            self._expect_right(admin, topic)
            if not exists and not validate_only:  # after the right is known: without it, the wait would be in vain
                with kafka_errors(self.bootstrap_servers, f"find the new {self.what} {topic!r}"):
                    admin.wait_for_topics([topic])
        finally:
            admin.close()
        return exists

    def _expect_right(self, admin: Any, topic: str) -> None:
        """Raise FatalError if the topic may not be written, found out by sending a batch of no bytes.

        No broker accepts such a batch, but it checks the right first. A producer would learn of the refusal only after
        10 s.
        """
        of_topic = ProduceRequest.TopicProduceData
        empty = of_topic(name=topic, partition_data=[of_topic.PartitionProduceData(index=0, records=b"")])
        request = ProduceRequest(
            transactional_id=None, acks=-1, timeout_ms=_QUICK_MS, topic_data=[empty], min_version=3, max_version=9
        )

        async def send() -> Any:
            return await admin._manager.send(request)

        with kafka_errors(self.bootstrap_servers, f"write to the {self.what} {topic!r}"):
            refused = errors.for_code(admin._manager.run(send).responses[0].partition_responses[0].error_code)
            if issubclass(refused, errors.AuthorizationError):
                raise refused

    def _ensure(self, admin: Any, topic: str, *, validate_only: bool) -> bool:
        """Create the topic unless it exists; return True if it existed.

        The embedded broker cannot validate only, and never refuses.
        """
        options = {"num_partitions": self.partitions, "replication_factor": -1, "configs": self.configs}
        try:
            with kafka_errors(self.bootstrap_servers, f"create the {self.what} {topic!r}"):
                if topic in admin.list_topics():
                    return True
                if validate_only and admin.describe_cluster()["cluster_id"] == EMBEDDED:
                    return False
                admin.create_topics({topic: options}, validate_only=validate_only)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, errors.TopicAlreadyExistsError):
                return True  # another worker was quicker
            raise
        except AdawiseError as error:
            raise SettingsError(f"{error} Or create the topic yourself, or {self.otherwise}.") from error
        return False
