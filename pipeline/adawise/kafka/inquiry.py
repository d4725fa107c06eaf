"""Questions to a cluster about itself and a topic, for `adawise doctor`: nothing is written, joined or created.

A worker asks fewer questions (in `topic`), and must never wait for the answer to an optional one.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from kafka import KafkaAdminClient, errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition as KafkaPartition

from adawise.errors import AdawiseError
from adawise.kafka.client import EMBEDDED, kafka_errors, open_client, translated

T = TypeVar("T")

_EARLIEST, _LATEST = -2, -1  # sent in place of a timestamp
_PATIENCE_S, _AGAIN_S = 5.0, 0.1
_BOOTSTRAP_MS, _REACH_S = 6_000, 3.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that answers: its id, its number of brokers, and the version of Kafka they speak, such as 3.9."""

    id: str
    brokers: int
    version: str

    @property
    def is_embedded(self) -> bool:
        """True if it is the embedded broker, which supports few requests."""
        return self.id == EMBEDDED


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of one partition: how many there should be, how many are in sync, and whether one leads."""

    partition: int
    count: int
    in_sync: int
    is_led: bool


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's partitions, in order, and the operations that this user may do; None where the broker does not say."""

    partitions: tuple[Replicas, ...]
    rights: frozenset[str] | None


class KafkaInquiry:
    """A client of its own for questions to one cluster. It is not safe for use by several threads at once.

    Raises:
        BrokerUnavailable: no broker can be reached, or none answered within 6 s. Every question may raise it too.
        SettingsError: the security settings cannot work.
    """

    def __init__(self, *, bootstrap_servers: str, client_id: str, security: Mapping[str, object]) -> None:
        self._servers = bootstrap_servers
        expect_reachable(bootstrap_servers)
        self._admin: Any = open_client(
            KafkaAdminClient,
            bootstrap_servers,
            security,
            client_id=f"{client_id}-doctor",
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
        )

    def cluster(self) -> Cluster:
        """Return the cluster that answers."""
        answer = self._request("ask for the cluster", self._admin.describe_cluster)
        version = self._admin._manager.broker_version_data.broker_version
        return Cluster(answer["cluster_id"] or "", len(answer["brokers"]), ".".join(map(str, version)))

    def topic(self, name: str) -> Topic:
        """Return the topic, which must exist; raise our error for a refusal of the broker."""
        doing = f"describe topic {name!r}"
        (found,) = self._request(doing, lambda: self._admin.describe_topics([name]))
        if found["error_code"]:
            raise translated(errors.for_code(found["error_code"])(), self._servers, doing)
        rights = found.get("authorized_operations")
        partitions = (
            Replicas(
                partition=each["partition_index"],
                count=len(each["replica_nodes"]),
                in_sync=len(each["isr_nodes"]),
                is_led=each["leader_id"] >= 0,
            )
            for each in sorted(found["partitions"], key=lambda each: int(each["partition_index"]))
        )
        return Topic(tuple(partitions), None if rights is None else frozenset(rights))

    def configs(self, topic: str) -> Mapping[str, str] | None:
        """Return the topic's configuration with the cluster's defaults; None where the broker does not give it.

        That is the case without the ACL DESCRIBE_CONFIGS, and with the embedded broker, which hangs up on the request.
        """
        if self.cluster().is_embedded:
            return None
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        try:
            answer = self._request("ask", lambda: self._admin.describe_configs([resource], config_filter="All"))
        except AdawiseError:
            return None
        # The client does not report a refusal: the answer is empty then.
        return {name: str(each["value"]) for name, each in answer["topic"].get(topic, {}).items()} or None

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return (log start, log end) of each partition, with two requests to each broker."""
        numbers = tuple(partitions)
        starts, ends = (self._offsets(topic, dict.fromkeys(numbers, which)) for which in (_EARLIEST, _LATEST))
        return {number: (starts[number], ends[number]) for number in numbers}

    def offsets_at(self, topic: str, times_ms: Mapping[int, int]) -> dict[int, int | None]:
        """Return each partition's first offset not older than its time (ms since the epoch); None if all are older."""
        found = self._offsets(topic, times_ms)
        return {number: None if offset < 0 else offset for number, offset in found.items()}

    def members(self, group: str) -> int | None:
        """Return the number of live members of a consumer group; None where the broker does not say."""
        if self.cluster().is_embedded:
            return None
        try:
            answer = self._request("ask", lambda: self._admin.describe_groups([group]))
        except AdawiseError:  # the group never had a member, or this user may not see its members
            return None
        return len(answer[group]["members"])

    def sizes(self, topic: str, partitions: Iterable[int]) -> dict[int, int] | None:
        """Return the bytes of each partition, of its largest replica; None where the broker does not say."""
        if self.cluster().is_embedded:
            return None
        try:
            answer = self._request("ask", lambda: self._admin.describe_log_dirs({topic: list(partitions)}))
        except AdawiseError:
            return None
        sizes: dict[int, int] = {}
        for folder in (folder for broker in answer for folder in broker["log_dirs"]):
            for each in (each for found in folder["topics"] if found["name"] == topic for each in found["partitions"]):
                number = each["partition_index"]
                sizes[number] = max(sizes.get(number, 0), each["partition_size"])
        return sizes or None

    def close(self) -> None:
        """Close the client."""
        self._admin.close()

    def _offsets(self, topic: str, wanted: Mapping[int, int]) -> dict[int, int]:
        if not wanted:
            return {}
        of = {KafkaPartition(topic, number): at for number, at in wanted.items()}
        found = self._request(f"ask for offsets of topic {topic!r}", lambda: self._admin.list_partition_offsets(of))
        return {tp.partition: listed.offset for tp, listed in sorted(found.items())}

    def _request(self, doing: str, question: Callable[[], T]) -> T:
        """Return the answer; repeat the question if the broker is down, as the client may pick a dead one."""
        give_up_s = time.monotonic() + _PATIENCE_S
        with kafka_errors(self._servers, doing):
            while True:
                try:
                    return question()
                except errors.KafkaConnectionError:
                    if time.monotonic() > give_up_s:
                        raise
                    time.sleep(_AGAIN_S)


def expect_reachable(bootstrap_servers: str) -> None:
    """Return once one of the servers accepts a TCP connection.

    Raises:
        BrokerUnavailable: none does; it names the cause for each. Clients would try for ten seconds, and name one only.
    """
    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    answers: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def reach(server: str) -> None:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), _REACH_S):
                answers.put((server, ""))
        except OSError as error:
            answers.put((server, error.strerror or str(error)))
        except ValueError:  # the client says what is wrong with the address
            answers.put((server, ""))

    for server in servers:  # a name lookup cannot be interrupted, so daemon threads, not a pool
        Thread(target=reach, args=(server,), name="reach", daemon=True).start()
    found, until_s = dict.fromkeys(servers, f"no answer within {_REACH_S:g} s"), time.monotonic() + _REACH_S
    for _ in servers:
        try:
            server, why = answers.get(timeout=max(0.0, until_s - time.monotonic()))
        except Empty:
            break
        if not why:
            return
        found[server] = why
    reasons = "; ".join(f"{server}: {why}" for server, why in found.items())
    raise translated(errors.KafkaConnectionError(reasons), bootstrap_servers, "reach Kafka")
