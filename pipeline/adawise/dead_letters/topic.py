"""The topic of dead letters: created at the first letter if nobody did before, and looked at by `run --check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaAdminClient, errors
from kafka.protocol.producer import ProduceRequest

from adawise.errors import AdawiseError, BrokerUnavailable, FatalError, SettingsError
from adawise.kafka.client import EMBEDDED, kafka_errors, open_client

HEADERS_ROOM_BYTES = 64 * 1024
"""Of a letter, beside the message in it."""

_QUICK_MS = 5_000


def check_dead_letters(
    *,
    bootstrap_servers: str,
    client_id: str,
    security: Mapping[str, object],
    topic: str,
    retention_s: int,
    retention_bytes: int,
    max_message_bytes: int,
) -> bool:
    """Whether the topic of dead letters exists; nothing is created or written.

    Raises:
        SettingsError: it could not be created, or not be written.
        BrokerUnavailable.
    """
    configs = topic_configs(max_message_bytes, retention_s, retention_bytes)
    admin: Any = open_client(KafkaAdminClient, bootstrap_servers, security, client_id=client_id)
    try:
        exists = _ensure(admin, bootstrap_servers, configs, topic, validate_only=True)
        _expect_right(admin, bootstrap_servers, topic)
    except FatalError as error:
        raise SettingsError(f"{error} Or set kafka.dead_letters = false.") from error
    finally:
        admin.close()
    return exists


def _expect_right(admin: Any, bootstrap_servers: str, topic: str) -> None:
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

    with kafka_errors(bootstrap_servers, f"write to the dead-letter topic {topic!r}"):
        refused = errors.for_code(admin._manager.run(ask).responses[0].partition_responses[0].error_code)
        if issubclass(refused, errors.AuthorizationError):
            raise refused


def topic_configs(max_message_bytes: int, retention_s: int, retention_bytes: int) -> dict[str, str]:
    """Of the topic, for messages that large: it forgets letters by age and size."""
    return {
        "max.message.bytes": str(max_message_bytes + HEADERS_ROOM_BYTES),
        "cleanup.policy": "delete",  # whatever the cluster's default: letters have no key of their own
        "retention.ms": str(retention_s * 1000),
        "retention.bytes": str(retention_bytes),
    }


def create_topic(
    bootstrap_servers: str, client_id: str, security: Mapping[str, object], configs: Mapping[str, str], topic: str
) -> None:
    """Create the topic unless it exists.

    Raises FatalError if that is refused, or the topic may not be written; BrokerUnavailable.
    """
    admin = open_client(KafkaAdminClient, bootstrap_servers, security, client_id=client_id)
    try:
        _ensure(admin, bootstrap_servers, configs, topic)
        _expect_right(admin, bootstrap_servers, topic)
    finally:
        admin.close()


def _ensure(
    admin: Any, bootstrap_servers: str, configs: Mapping[str, str], topic: str, *, validate_only: bool = False
) -> bool:
    """Create the dead-letter topic unless it exists: one partition, replicas as the broker's default says.

    Returns whether it was there. The embedded broker does not know how to validate only, and refuses nobody.
    """
    options = {"num_partitions": 1, "replication_factor": -1, "configs": configs}
    try:
        with kafka_errors(bootstrap_servers, f"create the dead-letter topic {topic!r}"):
            if topic in admin.list_topics():
                return True
            if validate_only and admin.describe_cluster()["cluster_id"] == EMBEDDED:
                return False
            admin.create_topics({topic: options}, validate_only=validate_only, wait_for_metadata=not validate_only)
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, errors.TopicAlreadyExistsError):
            return True  # another worker was quicker
        raise
    except AdawiseError as error:
        raise SettingsError(f"{error} Or create the topic yourself, or set kafka.dead_letters = false.") from error
    return False
