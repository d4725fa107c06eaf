"""SIGTERM while the topic of results is gone: within their grace what is due is told, or left to whoever goes on."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from adawise.ports import When
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.models import PairFolder
from tests.publish.results.topic import published_on
from tests.worker.cameras import IMAGES, Output, Topic, run_to_the_end, settings_for, single
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess


def until(done: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < give_up_s


def exists(broker: Broker, topic: str) -> bool:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        return topic in admin.list_topics()


def remove(broker: Broker, topic: str) -> None:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        admin.delete_topics([topic])
    until(lambda: not exists(broker, topic))


@pytest.mark.needs("describe_configs")  # an Apache Kafka
@pytest.mark.parametrize(
    ("when", "for_good"),
    [
        pytest.param("early", False, id="early, may be made anew", marks=pytest.mark.check("brokers")),
        pytest.param("early", True, id="early, for good"),
        pytest.param("committed", False, id="committed, may be made anew"),
        pytest.param("committed", True, id="committed, for good", marks=pytest.mark.check("brokers")),
    ],
)
def test_a_worker_that_is_told_to_stop_ends_within_the_grace_of_results(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, when: When, for_good: bool
) -> None:
    """Rows whose results are to be told before they are written are left to the next run, and that is code 1."""
    filled, rng, name, group = Topic(broker, topic(1)), random.Random(3), fresh_name("results"), fresh_name("gone")
    results = {"enabled": True, "topic": f"{name}.all", "when": when}
    seldom = {"sink": {"flush_rows": IMAGES, "flush_age_s": 3_600.0}, "batch": {"max_age_s": 3_000.0}}
    settings = settings_for(filled, pair, root, group, results=results, **seldom)
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".log"))) as worker:
        filled.produce(single(rng, 0, 1) for _ in range(IMAGES))
        worker.wait_for("committed")
        until(lambda: exists(broker, f"{name}.all") and len(published_on(broker, f"{name}.all").events) == IMAGES)
        remove(broker, f"{name}.all")
        if for_good:
            create_topic(broker, f"{name}_all")  # the broker takes no two names that differ in "." and "_" alone
        filled.produce(single(rng, 0, 1) for _ in range(IMAGES))
        worker.wait_for("served")
        worker.send(signal.SIGTERM)
        code = worker.exit_code()  # what waits for a topic that is gone would wait for ever
    is_left = when == "early" and for_good
    assert code == (1 if is_left else 0), worker.diary
    assert output.rows == (IMAGES if is_left else 2 * IMAGES)
    if is_left:
        assert "8 rows could not be written" in worker.diary
        assert "since the broker accepted none of the records published before them. Nothing is lost" in worker.diary
    elif not for_good:
        found = published_on(broker, f"{name}.all").row_ids["camera-0"]
        assert set(filled.row_ids[IMAGES:]) <= set(found)
    if is_left:
        run_to_the_end(filled, pair, root, group, results={**results, "topic": f"{name}-again"}, **seldom)
    assert output.faults(filled) == []
