"""How the tests choose their broker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.brokers import (
    CAPABILITIES,
    Broker,
    Start,
    Unavailable,
    create_topic,
    fresh_name,
    order,
    running,
    shared_kafka,
    stop_shared,
)


def offers(kind: str) -> Start:
    @contextlib.contextmanager
    def start() -> Iterator[Broker]:
        yield Broker("127.0.0.1:1", kind, "here", frozenset())

    return start


def refuses(reason: str) -> Start:
    def start() -> AbstractContextManager[Broker]:
        raise Unavailable(reason)

    return start


def test_ci_runs_on_no_broker_that_lacks_something() -> None:
    with pytest.raises(ValueError, match="CI runs on an Apache Kafka"):
        order({"ADAWISE_TEST_BROKER": "embedded", "CI": "true"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("docker", "kafka", "embedded")),
        ({"CI": "true"}, ("docker", "kafka")),
        ({"KAFKA_BOOTSTRAP_SERVERS": "b:9092", "CI": "true"}, ("external",)),
        ({"ADAWISE_TEST_BROKER": "embedded", "KAFKA_BOOTSTRAP_SERVERS": "b:9092"}, ("embedded",)),
        ({"ADAWISE_TEST_BROKER": "kafka", "CI": "true"}, ("kafka",)),
    ],
)
def test_the_environment_decides_what_is_tried(environ: dict[str, str], expected: tuple[str, ...]) -> None:
    assert order(environ) == expected


def test_a_misspelt_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="docker, kafka or embedded, got 'kakfa'"):
        order({"ADAWISE_TEST_BROKER": "kakfa"})


def test_the_first_that_can_be_had_is_taken_and_says_what_it_stands_in_for() -> None:
    kinds = {"docker": refuses("no engine"), "kafka": refuses("no Java"), "embedded": offers("Tansu")}
    with running({}, kinds) as broker:
        assert broker.name == "Tansu"
        assert "instead of docker: no engine | kafka: no Java" in str(broker)


def test_in_ci_the_embedded_broker_does_not_stand_in_for_apache_kafka() -> None:
    kinds = {"docker": refuses("no engine"), "kafka": refuses("no Java"), "embedded": offers("Tansu")}
    with pytest.raises(RuntimeError, match="no Java"), running({"CI": "true"}, kinds):
        pass


def test_a_capability_that_does_not_exist_is_an_error_not_a_skip() -> None:
    broker = Broker("127.0.0.1:1", "any", "here", frozenset({"times"}))
    assert broker.lacks(("times", "end_offsets")) == ["end_offsets"]
    with pytest.raises(ValueError, match="statik_membership"):
        broker.lacks(("statik_membership",))
    assert "static_membership" in CAPABILITIES


def test_a_fresh_name_is_one_that_kafka_allows() -> None:
    first, second = fresh_name("a b/ü" + "x" * 300), fresh_name("a b/ü")
    assert first != second
    assert first.startswith("a-b--x")
    assert len(first) < 200


@pytest.mark.check("brokers")
def test_processes_of_a_run_share_one_kafka_that_the_first_starts(tmp_path: Path) -> None:
    with shared_kafka(tmp_path) as first:
        create_topic(first, "made-by-the-first")
    with shared_kafka(tmp_path) as second, KafkaAdminClient(bootstrap_servers=second.bootstrap_servers) as admin:
        assert "made-by-the-first" in admin.list_topics()
    stop_shared(tmp_path)
    host, _, port = first.bootstrap_servers.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_a_kafka_that_no_process_needed_is_not_started_to_be_stopped(tmp_path: Path) -> None:
    stop_shared(tmp_path)
    assert [*tmp_path.iterdir()] == []
