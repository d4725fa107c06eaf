"""What the doctor says of broker and topic, on real ones that are as they should not be."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ACLOperation, ResourceType
from kafka.structs import TopicPartition as KafkaPartition

from adawise.doctor import broker as module
from adawise.doctor.checks import PARTS, check
from adawise.doctor.known import CheckResult, Known
from adawise.errors import BrokerUnavailable, FatalError, SettingsError, SourceError
from adawise.kafka import batches
from adawise.kafka.inquiry import expect_reachable
from adawise.settings import Settings
from tests.brokers import ApacheKafka, Broker, MakeTopic, broker_of, create_topic, fresh_name
from tests.deadlines import DEADLINE_S
from tests.kafka.certificates import Authority
from tests.worker.test_rights import administration, rule, strict

__all__ = ["strict"]  # a broker with an authorizer

pytestmark = pytest.mark.broker

HOUR_MS = 3_600_000
FoundFleet = Iterator[Known]


@contextmanager
def facts(broker: Broker, topic: str, group: str = "adawise", **groups: Mapping[str, Any]) -> Iterator[Known]:
    kafka = {"bootstrap_servers": broker.bootstrap_servers, "topic": topic, "group": group}
    known = Known(Settings.model_validate({**groups, "kafka": {**kafka, **groups.get("kafka", {})}}))
    with closing(known):
        yield known


def fill(broker: Broker, topic: str, *, at_ms: int | None = None, count: int = 5, size: int = 10) -> None:
    """Messages of this time, now if none, in every partition."""
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers.split(","))) as producer:
        for partition in sorted(producer.partitions_for(topic)):
            for _ in range(count):
                producer.send(topic, b"x" * size, key=b"a", partition=partition, timestamp_ms=at_ms)
        producer.flush()


def now_ms() -> int:
    return int(time.time() * 1000)


def test_nobody_who_answers_fails_with_what_to_do() -> None:
    nobody = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
    with closing(Known(nobody)) as known, pytest.raises(BrokerUnavailable, match="Check that the broker is running"):
        module.broker(known)


def test_of_brokers_that_cannot_be_reached_each_is_told_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reachable:
        alive = f"127.0.0.1:{reachable.getsockname()[1]}"
        expect_reachable(f"127.0.0.1:1,{alive}")
        expect_reachable(f"none.invalid:9092,{alive}")
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1: Connection refused; none\.invalid:9092: .*[Nn]ame"):
        expect_reachable("127.0.0.1:1, none.invalid:9092")


def test_certificates_that_have_ended_or_end_soon_are_told_with_the_date_and_what_to_do(tmp_path: Path) -> None:
    ours, gone = Authority(tmp_path, "ours", days=300), Authority(tmp_path, "gone", days=-1)

    def examined(authority: Authority, days: float) -> dict[str, CheckResult]:
        pair = authority.pair("worker", days=days)
        files = {"ssl_ca": authority.certificate, "ssl_certificate": pair.certificate, "ssl_key": pair.key}
        kafka = {"bootstrap_servers": "127.0.0.1:1", "security": {"protocol": "SSL", **files}}
        parts = [part for part in PARTS if part.name in ("certificates", "broker")]
        found = check(Settings.model_validate({"kafka": kafka}), (), parts)
        return {each.name: replace(each, name="") for each in found}

    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    result = examined(ours, 30)["certificates"]
    assert result.status == "ok"
    assert re.fullmatch(f"ssl_ca until {moment}, ssl_certificate until {moment}", result.detail)
    result = examined(ours, 0.5)["certificates"]
    assert result.status == "warn"
    assert re.match(
        rf"kafka\.security\.ssl_certificate: \S+ours-worker\.crt expires at {moment}, in 12 h; then no new "
        r"connection is accepted\. Replace it, and restart",
        result.detail,
    )
    both = examined(gone, -0.5)
    assert both["certificates"].status == "fail"
    assert re.fullmatch(
        rf"kafka\.security\.ssl_ca: \S+gone-ca\.pem expired at {moment}; kafka\.security\.ssl_certificate: "
        rf"\S+gone-worker\.crt expired at {moment}: no connection is accepted\. Renew it, or correct the clock of this "
        r"machine\.",
        both["certificates"].detail,
    )
    assert both["broker"] == CheckResult("skip", "needs certificates")


def test_certificates_are_no_part_where_none_is_named() -> None:
    (part,) = [part for part in PARTS if part.name == "certificates"]
    assert not part.wanted(Settings())


@pytest.mark.needs("describe_configs")
def test_a_topic_as_it_should_be_passes_all_that_is_asked_of_it(broker: Broker, topic: MakeTopic) -> None:
    limits = {"max.message.bytes": str(8 * 2**20)}
    name, group = topic(2, configs=limits), fresh_name("group")
    fill(broker, name)
    kafka = {"bootstrap_servers": broker.bootstrap_servers, "topic": name, "group": group}
    settings = Settings.model_validate({"kafka": kafka})
    of_kafka = [part for part in PARTS if "kafka" in part.reads and not part.reads & {"sink", "record"}]
    found = {each.name: each for each in check(settings, (), of_kafka)}
    assert {each.status for each in found.values()} == {"ok"}, found
    assert found["broker"].detail.startswith("cluster ")
    assert found["topic"].detail == f"{name} at {broker.bootstrap_servers} has 2 partitions, and can be read"
    assert found["replicas"].detail == "all in sync, 1 copy of each partition"
    assert found["retention"].detail == "10 messages not read yet, kept for 7 days"
    assert found["workers"].detail == f"0 members of group '{group}' now, for 2 partitions"


def test_the_embedded_broker_is_asked_what_it_can_answer(embedded_broker: Broker) -> None:
    name = fresh_name("yard")
    create_topic(embedded_broker, name, 2)
    with facts(embedded_broker, name) as known:
        assert "the embedded broker" in module.broker(known).detail
        assert module.topic(known).status == module.replicas(known).status == "ok"
        found = [module.message_size(known), module.retention(known), module.timestamps(known)]
        assert [answer.status for answer in found] == ["skip"] * 3
        assert module.workers(known).detail.endswith("the members are not known")


def refusal(known: Known) -> str:
    """Why a topic may not be read, once the broker has heard of the rules that it was given."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        try:
            module.topic(known)
        except SourceError as error:
            return str(error)
        threading.Event().wait(0.05)
    return "it may be read"


def test_a_topic_that_is_not_there_fails(broker: Broker) -> None:
    with facts(broker, fresh_name("yard")) as known, pytest.raises(SourceError, match="there is no topic"):
        module.topic(known)


@pytest.mark.check("secured")  # what is forbidden to join or to write, tests/worker/test_rights.py shows at once
def test_a_topic_that_may_not_be_read_fails(strict: Broker) -> None:
    name = fresh_name("yard")
    create_topic(strict, name)
    with administration(strict) as admin:
        admin.create_acls(
            [
                rule(ResourceType.TOPIC, name, ACLOperation.READ),
                rule(ResourceType.TOPIC, name, ACLOperation.DESCRIBE, who="ANONYMOUS"),
            ]
        )
    with facts(strict, name) as known:
        assert "this user has DESCRIBE. Give the user the ACLs READ and DESCRIBE" in refusal(known)
        assert module.message_size(known) == CheckResult("skip", module.NOT_PERMITTED)
        assert module.retention(known) == CheckResult("skip", f"0 messages not read yet; {module.NOT_PERMITTED}")


@pytest.mark.needs("describe_configs")
def test_a_compacted_topic_is_a_warning_where_it_is_meant_and_fails_otherwise(broker: Broker, topic: MakeTopic) -> None:
    name = topic(configs={"cleanup.policy": "compact"})
    with facts(broker, name) as known, pytest.raises(SettingsError, match=r"cleanup\.policy=compact"):
        module.topic(known)
    with facts(broker, name, kafka={"on_compacted": "skip"}) as known:
        answer = module.topic(known)
        assert answer.status == "warn"
        assert answer.detail.endswith("Set cleanup.policy=delete")


@pytest.mark.needs("describe_configs")
@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (9 * 2**20, "those above decode.max_message_bytes (8388608) are rejected as too_large"),
        (2**22, "kafka.max_partition_fetch_bytes is 1048576: larger ones are fetched one at a time"),
    ],
)
def test_a_topic_that_takes_more_than_is_read_is_a_warning(
    broker: Broker, topic: MakeTopic, largest: int, expected: str
) -> None:
    name = topic(configs={"max.message.bytes": str(largest)})
    with facts(broker, name, kafka={"max_partition_fetch_bytes": 2**20}) as known:
        answer = module.message_size(known)
    assert answer.status == "warn"
    assert expected in answer.detail


@pytest.mark.needs("describe_configs", "times")
def test_messages_that_will_be_deleted_before_they_are_read_are_a_warning(broker: Broker, topic: MakeTopic) -> None:
    by_age = topic(2, configs={"retention.ms": str(10 * HOUR_MS)})
    fill(broker, by_age, at_ms=now_ms() - 5 * HOUR_MS)
    with facts(broker, by_age) as known:
        assert module.retention(known) == CheckResult("ok", "10 messages not read yet, kept for 10 h")
    other = topic(2, configs={"retention.ms": str(10 * HOUR_MS)})
    fill(broker, other, at_ms=now_ms() - 9 * HOUR_MS)
    with facts(broker, other) as known:
        answer = module.retention(known)
    assert answer.status == "warn"
    assert "partition 0, 1 has messages not read yet that are older than 80% of retention.ms (10 h)" in answer.detail


@pytest.mark.needs("describe_configs")
def test_more_bytes_than_the_topic_keeps_are_a_warning(broker: Broker, topic: MakeTopic) -> None:
    name = topic(configs={"retention.bytes": str(2**20), "max.message.bytes": str(2**20)})
    fill(broker, name, count=10, size=100_000)
    with facts(broker, name) as known:
        answer = module.retention(known)
    assert answer.status == "warn"
    assert "partition 0 has more unread bytes than 80% of retention.bytes (1048576)" in answer.detail


@pytest.mark.needs("delete_records", "describe_configs")
def test_messages_that_were_deleted_before_they_were_read_fail_unless_gaps_are_recorded(
    broker: Broker, topic: MakeTopic
) -> None:
    name, group = topic(), fresh_name("group")
    fill(broker, name)
    with administration(broker) as admin, closing(consumer(broker, group)) as reader:
        reader.assign([KafkaPartition(name, 0)])
        reader.seek(KafkaPartition(name, 0), 1)
        reader.commit()
        admin.delete_records({KafkaPartition(name, 0): 3})
    deleted = pytest.raises(SourceError, match="has deleted 2 messages of partition 0 before they were read")
    with facts(broker, name, group) as known, deleted:
        module.retention(known)
    with facts(broker, name, group, kafka={"on_gap": "skip"}) as known:
        assert module.retention(known).status == "warn"


def consumer(broker: Broker, group: str) -> Any:
    return KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers.split(","), group_id=group, enable_auto_commit=False
    )


@pytest.mark.needs("describe_configs")
def test_what_is_not_read_from_the_end_is_no_lag(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    fill(broker, name)
    with facts(broker, name, fresh_name("group"), kafka={"origin": "latest"}) as known:
        assert module.retention(known).detail == "0 messages not read yet"


@pytest.mark.needs("times", "describe_configs")
def test_a_clock_that_runs_ahead_is_a_warning(broker: Broker, topic: MakeTopic) -> None:
    name = topic(2)
    fill(broker, name)
    with facts(broker, name) as known:
        assert module.timestamps(known) == CheckResult(
            "ok", "by the producers' clock (CreateTime); none is ahead of this machine's"
        )
    fill(broker, name, at_ms=now_ms() + 600_000)
    with facts(broker, name) as known:
        answer = module.timestamps(known)
    assert answer.status == "warn"
    assert answer.detail.startswith("partition 0, 1 has messages more than 60 s ahead of this machine's clock")
    with facts(broker, topic(configs={"message.timestamp.type": "LogAppendTime"})) as known:
        assert module.timestamps(known).detail.startswith("by the broker's clock (LogAppendTime)")


@pytest.mark.needs("describe_configs")
def test_more_workers_than_partitions_are_a_warning(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(1), fresh_name("group")
    with closing(consumer(broker, group)) as reader:
        reader.subscribe([name])
        while not reader.assignment():
            reader.poll(100)
        with facts(broker, name, group) as known:
            answer = module.workers(known)
    assert answer.status == "warn"
    assert answer.detail.startswith(f"1 member of group '{group}' for 1 partition: one more waits in reserve")


@pytest.mark.needs("describe_configs")
def test_dead_letters_that_have_no_room_for_the_message_are_a_warning(broker: Broker, topic: MakeTopic) -> None:
    name = topic(dead_letters=True, configs={"max.message.bytes": str(2**20)})
    with facts(broker, name) as known:
        answer = module.dead_letters(known)
    assert answer.status == "warn"
    assert "takes up to 1048576 bytes: dead letters of larger messages do not contain the message" in answer.detail
    assert answer.detail.endswith(f"Set its max.message.bytes to {8 * 2**20 + 65536}")


def test_a_codec_that_is_not_here_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(Settings())
    assert module.codecs(known) == CheckResult("ok", "none, gzip, snappy, lz4, zstd")
    monkeypatch.setattr(batches, "missing_codecs", lambda: ["lz4"])
    with pytest.raises(FatalError, match="lacks lz4: a batch compressed with one of these blocks its partition"):
        module.codecs(known)


@pytest.mark.check("brokers")
def test_copies_that_are_behind_missing_or_too_few_are_told(three_brokers: ApacheKafka) -> None:
    kafka, cluster = three_brokers, broker_of(three_brokers)
    strictest, loose, single = fresh_name("strictest"), fresh_name("loose"), fresh_name("single")
    create_topic(cluster, strictest, 2, {"min.insync.replicas": "3"}, replication=3)
    create_topic(cluster, loose, 1, {"min.insync.replicas": "1"}, replication=3)
    create_topic(cluster, single, 3)
    with facts(cluster, loose) as known:
        answer = module.replicas(known)
        assert answer.status == "warn"
        assert answer.detail.startswith("min.insync.replicas=1 with 3 replicas: acknowledged frames")
    kafka.kill(3)
    while True:  # until the cluster has noticed
        with facts(cluster, strictest) as known:
            if any(each.in_sync < 3 for each in known.topic.partitions):
                break
    with facts(cluster, strictest) as known:
        answer = module.replicas(known)
        assert answer.status == "warn"
        assert "has fewer in-sync replicas than min.insync.replicas=3: producers are refused" in answer.detail
    with facts(cluster, loose) as known:
        assert "has replicas that are behind, or whose broker is down" in module.replicas(known).detail
    with facts(cluster, single) as known, pytest.raises(SourceError, match=r"partition \d of topic .* has no leader"):
        module.replicas(known)
    revived = kafka.revive()
    while not revived():
        pass
