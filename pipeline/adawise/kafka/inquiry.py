"""What a cluster says of itself and of a topic to whoever asks: nothing is written, joined or created.

For `adawise doctor`. A worker asks less (`topic`), and what it asks must never wait for a second opinion.
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

_EARLIEST, _LATEST = -2, -1  # in place of a time
_PATIENCE_S, _AGAIN_S = 5.0, 0.1
_BOOTSTRAP_MS, _REACH_S = 6_000, 3.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Who answers: the cluster's id, its brokers, and the version of Kafka that they speak, such as 3.9."""

    id: str
    brokers: int
    version: str

    @property
    def is_embedded(self) -> bool:
        """Whether it is the embedded broker, which knows few questions."""
        return self.id == EMBEDDED


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of one partition: how many copies there are to be, how many are in sync, and whether one leads."""

    partition: int
    count: int
    in_sync: int
    is_led: bool


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's partitions, in order, and what this user may do with it; None where the broker does not say."""

    partitions: tuple[Replicas, ...]
    rights: frozenset[str] | None


class KafkaInquiry:
    """Questions to one cluster, by a client of its own. Not for several threads at once.

    Raises:
        BrokerUnavailable: no broker can be reached, or none answered within 6 s; also of every question.
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
        """Who answers."""
        told = self._ask("ask for the cluster", self._admin.describe_cluster)
        version = self._admin._manager.broker_version_data.broker_version
        return Cluster(told["cluster_id"] or "", len(told["brokers"]), ".".join(map(str, version)))

    def topic(self, name: str) -> Topic:
        """The topic, which exists. Raises what the broker refuses."""
        doing = f"describe topic {name!r}"
        (found,) = self._ask(doing, lambda: self._admin.describe_topics([name]))
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
        """The topic's settings, the cluster's defaults among them; None where the broker does not tell them.

        That is one without the right DESCRIBE_CONFIGS, and the embedded one, which hangs up on the question.
        """
        if self.cluster().is_embedded:
            return None
        asked = ConfigResource(ConfigResourceType.TOPIC, topic)
        try:
            told = self._ask("ask", lambda: self._admin.describe_configs([asked], config_filter="All"))
        except AdawiseError:
            return None
        # The client says nothing of a refusal: there is nothing then.
        return {name: str(each["value"]) for name, each in told["topic"].get(topic, {}).items()} or None

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """(log start, log end) of each partition, by one question a broker for either."""
        numbers = tuple(partitions)
        starts, ends = (self._offsets(topic, dict.fromkeys(numbers, which)) for which in (_EARLIEST, _LATEST))
        return {number: (starts[number], ends[number]) for number in numbers}

    def offsets_at(self, topic: str, times_ms: Mapping[int, int]) -> dict[int, int | None]:
        """By partition, the first offset that is not older than its time (ms since the epoch); None if all are."""
        found = self._offsets(topic, times_ms)
        return {number: None if offset < 0 else offset for number, offset in found.items()}

    def members(self, group: str) -> int | None:
        """Live members of a consumer group; None where the broker does not tell."""
        if self.cluster().is_embedded:
            return None
        try:
            told = self._ask("ask", lambda: self._admin.describe_groups([group]))
        except AdawiseError:  # nobody has ever been in it, or its members are not told to this user
            return None
        return len(told[group]["members"])

    def sizes(self, topic: str, partitions: Iterable[int]) -> dict[int, int] | None:
        """Bytes of each partition, of its largest copy; None where the broker does not tell."""
        if self.cluster().is_embedded:
            return None
        try:
            told = self._ask("ask", lambda: self._admin.describe_log_dirs({topic: list(partitions)}))
        except AdawiseError:
            return None
        sizes: dict[int, int] = {}
        for folder in (folder for broker in told for folder in broker["log_dirs"]):
            for each in (each for found in folder["topics"] if found["name"] == topic for each in found["partitions"]):
                number = each["partition_index"]
                sizes[number] = max(sizes.get(number, 0), each["partition_size"])
        return sizes or None

    def close(self) -> None:
        """Free the client."""
        self._admin.close()

    def _offsets(self, topic: str, asked: Mapping[int, int]) -> dict[int, int]:
        if not asked:
            return {}
        of = {KafkaPartition(topic, number): at for number, at in asked.items()}
        found = self._ask(f"ask for offsets of topic {topic!r}", lambda: self._admin.list_partition_offsets(of))
        return {tp.partition: said.offset for tp, said in sorted(found.items())}

    def _ask(self, doing: str, question: Callable[[], T]) -> T:
        """The answer; of another broker, where one is down: the client asks any that it knows, dead ones too."""
        give_up_s = time.monotonic() + _PATIENCE_S
        with kafka_errors(self._servers, doing):
            while True:
                try:
                    return question()
                except errors.KafkaConnectionError:
                    if time.monotonic() > give_up_s:
                        raise
                    time.sleep(_AGAIN_S)


def expect_reachable(bootstrap_servers: str, within_s: float = _REACH_S) -> None:
    """Return once one of them takes a connection.

    Raises BrokerUnavailable if none does, with what became of each: clients try again for ten seconds, and tell of one.
    """
    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    answers: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def reach(server: str) -> None:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), within_s):
                answers.put((server, ""))
        except OSError as error:
            answers.put((server, error.strerror or str(error)))
        except ValueError:  # no port: the client says what is wrong with it
            answers.put((server, ""))

    for server in servers:  # a name that is looked up keeps its thread, whoever wants to stop it
        Thread(target=reach, args=(server,), name="reach", daemon=True).start()
    found, until_s = dict.fromkeys(servers, f"no answer within {within_s:g} s"), time.monotonic() + within_s
    for _ in servers:
        try:
            server, why = answers.get(timeout=max(0.0, until_s - time.monotonic()))
        except Empty:
            break
        if not why:
            return
        found[server] = why
    told = "; ".join(f"{server}: {why}" for server, why in found.items())
    raise translated(errors.KafkaConnectionError(told), bootstrap_servers, "reach Kafka")
