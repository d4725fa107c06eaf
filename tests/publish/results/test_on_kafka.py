"""Results on a real topic, as a consumer sees them; and the consumer of the guide, as it stands there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from adawise.errors import BrokerUnavailable
from adawise.ports import Publication
from adawise.publish.results.sink import KafkaResults
from tests.brokers import Broker, create_topic, fresh_name
from tests.deadlines import DEADLINE_S
from tests.processes import Started
from tests.publish.results.topic import on_kafka, published_on
from tests.sink.building import TP, frame, served
from tests.test_documents import GUIDE, blocks

pytestmark = pytest.mark.broker


def batch(first: int, count: int, stream: str = "north") -> Publication:
    return Publication("a", served([frame(offset, stream=stream) for offset in range(first, first + count)]))


def as_here(recipe: str, broker: Broker, topic: str) -> str:
    assert "yard.results" in recipe
    return recipe.replace("yard.results", topic).replace("127.0.0.1:9092", broker.bootstrap_servers)


def test_the_consumer_of_the_guide_prints_each_row_once(broker: Broker) -> None:
    topic = fresh_name("yard.results")
    with closing(on_kafka(broker, topic)) as results:
        for _ in range(2):  # as after a lost acknowledgement
            results.send(batch(0, 3), wait=True)
        results.settled(wait=True)
    recipe = blocks(GUIDE / "results.md", "python")[0]
    assert len([line for line in recipe.splitlines() if line.strip() and "import" not in line]) <= 10
    program = as_here(recipe, broker, topic)
    with Started([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as consumer:
        try:
            assert consumer.stdout is not None
            lines = [consumer.stdout.readline().strip() for _ in range(3)]
            assert lines == ["north car 0.75", "north bus 0.75", "north empty street 0.75"]
            extra = batch(9, 1, "south")
            with closing(on_kafka(broker, topic)) as results:
                results.send(extra, wait=True)
            assert consumer.stdout.readline().startswith("south"), "the duplicates were passed over"
        finally:
            consumer.kill()


@pytest.mark.needs("describe_configs")  # the embedded broker speaks to no librdkafka
@pytest.mark.skipif(shutil.which("kcat") is None, reason="no kcat here: apt-get install kcat")
def test_kcat_prints_camera_and_result_as_the_guide_says(broker: Broker) -> None:
    topic = fresh_name("yard.results")
    with closing(on_kafka(broker, topic)) as results:
        results.send(batch(0, 2), wait=True)
        results.settled(wait=True)
    line = as_here(blocks(GUIDE / "results.md", "sh")[0], broker, topic)
    whole = line.replace("-o end", "-o beginning -e")
    done = subprocess.run(whole, shell=True, capture_output=True, text=True, timeout=DEADLINE_S)
    output = [each.partition(" ") for each in done.stdout.splitlines()]
    assert [(camera, json.loads(value)["label"]) for camera, _, value in output] == [("north", "car"), ("north", "bus")]


def test_the_recipe_of_the_guide_tells_the_attempt_of_each_segment(tmp_path: Path) -> None:
    from adawise.store.store import LocalStore
    from tests.sink.building import IDENTITY, draft, open_chain

    chain = open_chain(LocalStore(tmp_path / "runs" / "yard"))
    chain.recover(TP, IDENTITY, 0)
    chain.commit(replace(draft(0, 4), attempt="named-before"))
    recipe = blocks(GUIDE / "results.md", "python")[1]
    done = subprocess.run([sys.executable, "-c", recipe], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["00000000000000000000.parquet", "named-before"], done.stderr


def test_the_topic_is_made_with_the_partitions_of_the_images_and_forgets(broker: Broker) -> None:
    topic = fresh_name("results")
    with closing(on_kafka(broker, topic, partitions=3)) as results:
        results.send(batch(0, 1), wait=True)
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
        (result,) = admin.describe_topics([topic])
        assert len(result["partitions"]) == 3
        if "describe_configs" in broker.capabilities:
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="All")
            assert found["topic"][topic]["retention.ms"]["value"] == "86400000"
            assert found["topic"][topic]["cleanup.policy"]["value"] == "delete"


def test_messages_of_a_camera_lie_in_one_partition_in_order(broker: Broker) -> None:
    topic = fresh_name("results")
    cameras = [f"camera-{number}" for number in range(6)]
    with closing(on_kafka(broker, topic, partitions=3)) as results:
        for first in range(0, 40, 4):
            for camera in cameras:
                results.send(batch(first, 4, camera), wait=True)
    on_topic = published_on(broker, topic)
    for camera in cameras:
        mine = [event for event in on_topic.events if event.key == camera]
        assert len({event.partition for event in mine}) == 1
        assert [event.value["offset"] for event in mine] == list(range(40))


@pytest.mark.needs("message_limits")
def test_a_batch_that_the_topic_does_not_take_comes_in_parts(broker: Broker) -> None:
    topic = fresh_name("results")
    create_topic(broker, topic, configs={"max.message.bytes": "4000"})
    with closing(on_kafka(broker, topic, per="batch")) as results:
        results.send(batch(0, 32), wait=True)
        results.settled(wait=True)
    on_topic = published_on(broker, topic)
    assert len(on_topic.events) > 1
    assert sorted(on_topic.row_ids["north"]) == sorted(f"{TP.topic}/{TP.partition}/{n}/0" for n in range(32))


def test_a_topic_that_is_deleted_under_the_worker_is_made_anew(broker: Broker) -> None:
    topic = fresh_name("results")
    with closing(on_kafka(broker, topic, timeout_s=2.0)) as results:
        results.send(batch(0, 1), wait=True)
        assert results.settled(wait=True)
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
            admin.delete_topics([topic])
        with suppress(BrokerUnavailable):  # of a topic that is not there, which a producer may know by now
            results.send(batch(1, 1), wait=True)
        with suppress(BrokerUnavailable):
            results.send(batch(2, 1), wait=True)
        assert any(settled(results) for _ in range(10))
        results.send(batch(3, 1), wait=True)
    assert f"{TP.topic}/{TP.partition}/3/0" in published_on(broker, topic).row_ids["north"]


def settled(results: KafkaResults) -> bool:
    with suppress(BrokerUnavailable):
        return results.settled(wait=True)
    return False
