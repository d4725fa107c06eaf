"""Topics that the worker writes to, dead letters and results: created at the first record, and looked at before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.protocol.producer import ProduceRequest

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError
from adawise.kafka.client import EMBEDDED, kafka_errors, open_client

HEADERS_ROOM_BYTES = 64 * 1024
"""Of a record, beside its value."""

_QUICK_MS = 5_000


@dataclass(frozen=True)
class OwnTopics:
    """Topics of one purpose at one cluster.

    Args:
        bootstrap_servers: "host:port", several separated by commas.
        client_id: who asks, for the broker's logs.
        security: kafka-python's arguments for TLS and SASL.
        what: the topic's purpose, for messages: "dead-letter topic".
        otherwise: what does without it, for messages: "set kafka.dead_letters = false".
        partitions: of a topic that is created; replicas are as the broker's default says.
        configs: of a topic that is created.
    """

    bootstrap_servers: str
    client_id: str
    security: Mapping[str, object]
    what: str
    otherwise: str
    partitions: int
    configs: Mapping[str, str] = field(default_factory=dict)

    def check(self, topic: str) -> bool:
        """Whether the topic exists; nothing is created or written.

        Raises:
            SettingsError: it could not be created, or not be written.
            BrokerUnavailable.
        """
        try:
            return self._with_admin(topic, validate_only=True)
        except FatalError as error:
            raise SettingsError(f"{error} Or {self.otherwise}.") from error

    def create(self, topic: str) -> None:
        """Create the topic unless it exists.

        Raises FatalError if that is refused, or the topic may not be written; BrokerUnavailable.
        """
        self._with_admin(topic, validate_only=False)

    def _with_admin(self, topic: str, *, validate_only: bool) -> bool:
        admin: Any = open_client(KafkaAdminClient, self.bootstrap_servers, self.security, client_id=self.client_id)
        try:
            exists = self._ensure(admin, topic, validate_only=validate_only)
            self._expect_right(admin, topic)
            if not exists and not validate_only:  # whoever may not write it would wait in vain
                with kafka_errors(self.bootstrap_servers, f"find the new {self.what} {topic!r}"):
                    admin.wait_for_topics([topic])
        finally:
            admin.close()
        return exists

    def _expect_right(self, admin: Any, topic: str) -> None:
        """Raise FatalError if the topic may not be written, by a batch of no bytes.

        No broker takes that, and whether it may be sent is looked at first. A producer hears of it after 10 s.
        """
        of_topic = ProduceRequest.TopicProduceData
        empty = of_topic(name=topic, partition_data=[of_topic.PartitionProduceData(index=0, records=b"")])
        request = ProduceRequest(
            transactional_id=None, acks=-1, timeout_ms=_QUICK_MS, topic_data=[empty], min_version=3, max_version=9
        )

        async def ask() -> Any:
            return await admin._manager.send(request)

        with kafka_errors(self.bootstrap_servers, f"write to the {self.what} {topic!r}"):
            refused = errors.for_code(admin._manager.run(ask).responses[0].partition_responses[0].error_code)
            if issubclass(refused, errors.AuthorizationError):
                raise refused

    def _ensure(self, admin: Any, topic: str, *, validate_only: bool) -> bool:
        """Create the topic unless it exists; whether it was there.

        The embedded broker does not know how to validate only, and refuses nobody.
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
