"""The broker that the tests run on, and how it is chosen.

In this order: the one that KAFKA_BOOTSTRAP_SERVERS names; Apache Kafka in Docker, where an engine answers; Apache Kafka
by Maven (deploy/kafka); the embedded one. In CI (CI=true) the embedded one does not count: without an Apache Kafka the
tests fail. ADAWISE_TEST_BROKER=docker|kafka|embedded forces one.

A test says what it needs beyond topics, groups and offsets with `@pytest.mark.needs(...)`; it is skipped on a broker
that cannot do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kafka import KafkaAdminClient

from adawise.kafka.embedded import EmbeddedBroker
from tests.kafka.cluster import KAFKA, ApacheKafka, Unavailable, free_ports

__all__ = ["KAFKA", "ApacheKafka", "Unavailable", "free_ports"]  # for those who have them from here

FORCE = "ADAWISE_TEST_BROKER"
IMAGE = "confluentinc/cp-kafka:7.9.0"  # Apache Kafka 3.9; testcontainers drives the scripts of this image only

# What Apache Kafka does and the embedded broker does not (shown in tests/kafka/test_brokers.py, or by the
# tests that need it).
CAPABILITIES = frozenset(
    {
        "aborted_transactions",  # hidden from read_committed consumers
        "compaction",  # of topics with cleanup.policy=compact, soon
        "commit_metadata",  # the string beside a committed offset
        "create_partitions",  # more partitions for an existing topic
        "delete_records",  # move the log's start: a retention gap on demand
        "describe_configs",
        "first_generation",  # a group with one member stays in its first generation
        "end_offsets",  # the true end of a log that holds batches
        "message_limits",  # max.message.bytes is enforced
        "persistence",  # topics outlive the broker's process
        "poll_interval_eviction",  # a member that stops polling leaves, and the group settles
        "static_membership",  # group_instance_id, and its takeover after the session timeout
        "times",  # offsets_for_times by the records' own timestamps
    }
)


@dataclass(frozen=True)
class Broker:
    """A running broker: its name with version, where it came from, and what it can do of CAPABILITIES."""

    bootstrap_servers: str
    name: str
    where: str
    capabilities: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} at {self.bootstrap_servers} ({self.where})"

    def lacks(self, needed: tuple[str, ...]) -> list[str]:
        """What of `needed` it cannot do; a name that is no capability is an error."""
        if unknown := set(needed) - CAPABILITIES:
            raise ValueError(f"needs() takes {sorted(CAPABILITIES)}, got {sorted(unknown)}")
        return [name for name in needed if name not in self.capabilities]


class MakeTopic(Protocol):
    """What the `topic` fixture gives: creates a topic of a fresh name, and deletes it after the test."""

    def __call__(
        self, partitions: int = 1, *, dead_letters: bool = False, configs: Mapping[str, str] | None = None
    ) -> str: ...


def order(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Which kinds to try, in order."""
    forced = environ.get(FORCE)
    if forced and environ.get("CI") == "true" and forced == "embedded":
        raise ValueError(f"{FORCE} is embedded, and CI runs on an Apache Kafka: unset one of the two")
    if forced:
        if forced not in ("docker", "kafka", "embedded"):
            raise ValueError(f"{FORCE} must be docker, kafka or embedded, got {forced!r}")
        return (forced,)
    if environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return ("external",)
    return ("docker", "kafka") if environ.get("CI") == "true" else ("docker", "kafka", "embedded")


@contextlib.contextmanager
def running(environ: Mapping[str, str] = os.environ, kinds: Mapping[str, Start] | None = None) -> Iterator[Broker]:
    """The first broker of `order` that can be had; says of those before it why they could not."""
    refusals: list[str] = []
    for kind in order(environ):
        with contextlib.ExitStack() as stack:
            try:
                broker = stack.enter_context((kinds or KINDS)[kind]())
            except Unavailable as reason:
                refusals.append(f"{kind}: {reason}")
                continue
            instead = f"; instead of {' | '.join(refusals)}" if refusals and kind == "embedded" else ""
            yield Broker(broker.bootstrap_servers, broker.name, broker.where + instead, broker.capabilities)
            return
    raise RuntimeError("the tests need a broker, none could be had\n  " + "\n  ".join(refusals))


@contextlib.contextmanager
def external() -> Iterator[Broker]:
    """The broker that the environment names. It is taken for an Apache Kafka unless it says that it is a Tansu."""
    servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    with KafkaAdminClient(bootstrap_servers=servers.split(",")) as admin:
        tansu = admin.describe_cluster()["cluster_id"] == "tansu_cluster"
    can = frozenset[str]() if tansu else CAPABILITIES
    yield Broker(servers, "Tansu" if tansu else "Apache Kafka", "named by KAFKA_BOOTSTRAP_SERVERS", can)


@contextlib.contextmanager
def docker() -> Iterator[Broker]:
    """Apache Kafka in a container, on a port of loopback."""
    if shutil.which("docker") is None:
        raise Unavailable("no docker on PATH")
    arguments = subprocess.run(["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if arguments.returncode:
        raise Unavailable("no Docker engine answers")
    from docker.errors import DockerException
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer(IMAGE).with_kraft()
    for name, value in {
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "MESSAGE_MAX_BYTES": "10485760",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    }.items():
        container.with_env(f"KAFKA_{name}", value)
    try:
        container.start()
    except (DockerException, OSError, RuntimeError) as error:  # no image, no network, no room: the next kind may do
        container.stop()
        raise Unavailable(f"{IMAGE} does not start: {error}") from error
    try:
        yield Broker(container.get_bootstrap_server(), f"Apache Kafka ({IMAGE})", "Docker", CAPABILITIES)
    finally:
        container.stop()


@contextlib.contextmanager
def apache_kafka() -> Iterator[Broker]:
    """Apache Kafka from Maven's jars."""
    with ApacheKafka() as kafka:
        yield broker_of(kafka)


@contextlib.contextmanager
def shared_kafka(folder: Path) -> Iterator[Broker]:
    """The Apache Kafka of `folder`, which all processes of a run share: the first that needs it starts it.

    It is left running; `stop_shared` stops it.
    """
    port = folder / "port"
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = int(port.read_text()) if port.exists() else free_ports(2)
        kafka = ApacheKafka(folder=folder, port=number)
        kafka.start()  # does nothing if it runs
        port.write_text(str(number))
    yield broker_of(kafka)


def stop_shared(folder: Path) -> None:
    """Stop the Apache Kafka of `folder`, if one was started."""
    if (folder / "port").exists():
        ApacheKafka(folder=folder).stop()


def broker_of(kafka: ApacheKafka) -> Broker:
    """As the tests' functions take it."""
    version = next(KAFKA.parent.glob("libs/kafka_2.13-*.jar")).stem.split("-")[-1]
    return Broker(kafka.bootstrap_servers, f"Apache Kafka {version}", "KRaft, jars by Maven", CAPABILITIES)


@contextlib.contextmanager
def embedded() -> Iterator[Broker]:
    """Tansu, in memory."""
    with EmbeddedBroker() as broker:
        yield Broker(broker.bootstrap_servers, f"Tansu {broker.version}", "embedded, in memory", frozenset())


Start = Callable[[], AbstractContextManager[Broker]]
KINDS: Mapping[str, Start] = {"external": external, "docker": docker, "kafka": apache_kafka, "embedded": embedded}


def create_topic(
    broker: Broker, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None, *, replication: int = 1
) -> None:
    """Create a topic and return once every partition of it has a leader."""
    options = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(configs or {})}
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(",")) as admin:
        admin.create_topics({name: options}, wait_for_metadata=True)


def fresh_name(stem: str) -> str:
    """A topic or group name that was never used: `stem` in the characters that Kafka allows, and a random end."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    return f"{kept[:80]}-{uuid.uuid4().hex[:8]}"
