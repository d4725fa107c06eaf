"""What a broker forbids: the doctor finds it as a worker would, and a worker waits for what it can wait for.

The broker has an authorizer and one user; a resource with a rule for somebody else is forbidden to it.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from adawise.__main__ import main
from adawise.app.worker import run_worker
from adawise.worker.events import Event, RetryScheduled, SegmentCommitted
from tests.brokers import ApacheKafka, Broker, Unavailable, broker_of, create_topic, fresh_name
from tests.models import PairFolder
from tests.worker.cameras import Shot, Topic, settings_for, single
from tests.worker.loop import Journal

AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Broker]:
    try:
        with ApacheKafka(settings=AUTHORIZED) as kafka:
            yield broker_of(kafka)
    except Unavailable as reason:
        pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")


@contextmanager
def administration(broker: Broker) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
        yield admin


Captured = pytest.CaptureFixture[str]


def rule(kind: ResourceType, name: str, operation: ACLOperation, *, who: str = "somebody") -> ACL:
    """For somebody else, if not for us, who are `ANONYMOUS`."""
    return ACL(f"User:{who}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))


def outcomes(
    broker: Broker,
    topic: str,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *more: str,
) -> dict[str, str]:
    """The lines of the doctor by what they are of."""
    for name in ("THETA_0", "THETA_1", "CLASSES"):
        monkeypatch.setenv(f"ADAWISE_MODEL__{name}", "/dev/null")
    kafka = ["--kafka.bootstrap-servers", broker.bootstrap_servers, "--kafka.topic", topic, "--kafka.group", group]
    main(["doctor", *kafka, *more])
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()[:-1]]
    return {rest.partition(":")[0]: f"{status}: {rest.partition(': ')[2]}" for status, rest in lines}


def test_what_is_forbidden_is_found_by_the_check_and_what_is_allowed_leaves_nothing(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, group = fresh_name("yard"), fresh_name("group")
    create_topic(strict, name)
    root = ("--sink.root", str(tmp_path / "out"))
    found = outcomes(strict, name, group, monkeypatch, capsys, *root)
    assert found["consumer group"] == f"OK: {group} can be joined"
    assert found["dead letters"] == f"OK: {name}.dlq can be created, at the first dead letter"
    with administration(strict) as admin:
        assert f"{name}.dlq" not in admin.list_topics()
        assert admin.describe_groups([group])[group]["members"] == []
        create_topic(strict, f"{name}.dlq")
        assert (
            outcomes(strict, name, group, monkeypatch, capsys, *root)["dead letters"]
            == f"OK: {name}.dlq can be written"
        )
        forbidden = [
            rule(ResourceType.GROUP, group, ACLOperation.READ),
            rule(ResourceType.TOPIC, f"{name}.dlq", ACLOperation.WRITE),
        ]
        admin.create_acls(forbidden)
    found = outcomes(strict, name, group, monkeypatch, capsys, *root)
    assert found["topic"].startswith("OK")
    assert found["consumer group"].startswith(f"FAIL: could not join group '{group}'")
    assert "ACL READ on the consumer group" in found["consumer group"]
    assert found["dead letters"].startswith("FAIL: could not ")
    assert f"the dead-letter topic '{name}.dlq'" in found["dead letters"]
    assert "WRITE" in found["dead letters"]
    assert found["dead letters"].endswith("kafka.dead_letters = false.")
    assert list(tmp_path.iterdir()) == []


def test_a_topic_of_dead_letters_that_cannot_be_created_is_found_by_the_check(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = fresh_name("yard")
    create_topic(strict, name)
    create_topic(strict, f"{name}_dlq")  # the broker takes no two names that differ in "." and "_" alone
    found = outcomes(strict, name, fresh_name("group"), monkeypatch, capsys, "--sink.root", str(tmp_path))
    assert found["dead letters"].startswith(f"FAIL: could not create the dead-letter topic '{name}.dlq'")
    assert "collides with existing topic" in found["dead letters"]


def test_a_topic_of_results_is_looked_at_by_the_check_and_not_made(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = fresh_name("yard")
    create_topic(strict, name)
    flags = ("--sink.root", str(tmp_path), "--results.enabled")
    found = outcomes(strict, name, fresh_name("group"), monkeypatch, capsys, *flags)
    assert found["results"] == f"OK: {name}.results can be created, at the first result"
    create_topic(strict, f"{name}_results")
    found = outcomes(strict, name, fresh_name("group"), monkeypatch, capsys, *flags)
    assert found["results"].startswith(f"FAIL: could not create the results topic '{name}.results'")
    assert found["results"].endswith("results.enabled = false.")


def test_a_compacted_topic_fails_the_check_unless_it_is_meant(
    strict: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, group = fresh_name("yard"), fresh_name("group")
    create_topic(strict, name, configs={"cleanup.policy": "compact,delete"})
    root = ("--sink.root", str(tmp_path))
    found = outcomes(strict, name, group, monkeypatch, capsys, *root)
    assert found["topic"].startswith(f"FAIL: topic '{name}'")
    assert "kafka.on_compacted=skip" in found["topic"]
    found = outcomes(strict, name, group, monkeypatch, capsys, *root, "--kafka.on-compacted", "skip")
    assert found["topic"].startswith("WARN")


class Waiting(Journal):
    """Allows the letters when the other partition has gone on; ends the worker when all is written."""

    def __init__(self, allow: Callable[[], object]) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.is_allowed = self.is_reported = False
        self._allow = allow

    def observe(self, event: Event) -> None:
        super().observe(event)
        if isinstance(event, RetryScheduled):
            self.errors.append(str(event.error))
            self._inspect()
        elif isinstance(event, SegmentCommitted):
            self._inspect()
            if len({tp.partition for tp, _ in self.commits}) == 2 and not self.is_reported:
                self.is_reported = True
                os.kill(os.getpid(), signal.SIGTERM)

    def _inspect(self) -> None:
        if self.errors and self.commits and not self.is_allowed:
            self.is_allowed = True
            self._allow()


def test_letters_that_may_not_be_written_are_waited_for_and_other_partitions_go_on(
    strict: Broker, pair: PairFolder, root: Path
) -> None:
    name, rng = fresh_name("yard"), random.Random(1)
    create_topic(strict, name, 2)
    create_topic(strict, f"{name}.dlq")
    filled = Topic(strict, name)
    bad = Shot(0, b"camera-0", b"\xff\xd8\xff broken", reason="undecodable_image", dead=True)
    filled.produce([bad, *(single(rng, camera, 2) for camera in (0, 1))])
    with administration(strict) as admin:
        admin.create_acls([rule(ResourceType.TOPIC, f"{name}.dlq", ACLOperation.WRITE)])
        ours = rule(ResourceType.TOPIC, f"{name}.dlq", ACLOperation.ALL, who="ANONYMOUS")
        journal = Waiting(lambda: admin.create_acls([ours]))
        assert run_worker(settings_for(filled, pair, root, name), observer=journal) == 0
    assert journal.commits[0][0].partition == 1
    assert f"topic '{name}.dlq'" in journal.errors[0]
    assert "WRITE" in journal.errors[0]
    assert "Until then partitions with messages that cannot be read wait" in journal.errors[0]
