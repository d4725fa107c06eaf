"""What three brokers are for: one of them dies, and a topic can still be read and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.brokers import ApacheKafka, broker_of, create_topic, fresh_name
from tests.kafka.test_brokers import admin, consumer, fill, take

pytestmark = pytest.mark.check("brokers")

COPIES = 3


def partition(kafka: ApacheKafka, topic: str) -> Any:
    """Partition 0 as the cluster describes it."""
    with admin(broker_of(kafka)) as client:
        [described] = client.describe_topics([topic])
    return described["partitions"][0]


def wait_until(done: Callable[[], bool]) -> None:
    """Ask until it is so; how long that may take is up to the test's own time limit."""
    while not done():
        pass


def test_a_topic_survives_kill_9_of_the_broker_that_leads_it(three_brokers: ApacheKafka) -> None:
    kafka, name = three_brokers, fresh_name("survives")
    create_topic(broker_of(kafka), name, replication=COPIES)
    fill(broker_of(kafka), name, 10)
    leader = int(partition(kafka, name)["leader_id"])
    kafka.kill(leader)
    fill(broker_of(kafka), name, 10)  # to the two that are left, which is min.insync.replicas
    with consumer(broker_of(kafka), name, group_id=fresh_name("group")) as reader:
        assert [record.offset for record in take(reader, 20)] == list(range(20))
    assert partition(kafka, name)["leader_id"] != leader
    wait_until(kafka.revive())
    wait_until(lambda: len(partition(kafka, name)["isr_nodes"]) == COPIES)


def test_a_broker_is_restarted_by_its_number_and_the_others_are_left_alone(three_brokers: ApacheKafka) -> None:
    before = [three_brokers.pid(number) for number in (1, 2, 3)]
    three_brokers.restart(2)
    after = [three_brokers.pid(number) for number in (1, 2, 3)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
