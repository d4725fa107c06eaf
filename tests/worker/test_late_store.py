"""A worker that starts while its store is down waits outside its group, says so, and begins once the store is up."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import stamina
from kafka import KafkaAdminClient

from adawise.app.worker import run_worker
from adawise.output.verify.root import verify
from adawise.settings import Settings
from adawise.worker.events import Event, PartitionRecovered, RetryScheduled, SegmentCommitted
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.sink.stored import read_predictions
from tests.store.clouds import new_bucket, open_s3, s3_environment, s3_server
from tests.store.faults import FaultyProxy
from tests.worker.cameras import IMAGES, Topic, settings_for, single
from tests.worker.loop import Journal


class Acting(Journal):
    """Does something when a try has failed, and sends SIGTERM when all is written."""

    def __init__(self, failed: Callable[[int], None]) -> None:
        super().__init__()
        self.errors: list[str] = []
        self._failed = failed

    def observe(self, event: Event) -> None:
        super().observe(event)
        match event:
            case RetryScheduled():
                self.errors.append(str(event.error))
                self._failed(len(self.errors))
            case SegmentCommitted():
                if sum(each.rows for _, each in self.commits) == 2 * IMAGES:
                    os.kill(os.getpid(), signal.SIGTERM)
            case PartitionRecovered():
                assert self.errors
            case _:
                pass


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """Of an S3 that is down, which is where the environment says that it is."""
    proxy = FaultyProxy(s3_server())
    proxy.up()
    proxy.down()
    for name, value in s3_environment(proxy.address).items():
        monkeypatch.setenv(name, value)
    return proxy


@pytest.fixture
def settings(broker: Broker, topic: MakeTopic, pair: PairFolder) -> Settings:
    """Two batches in a topic, an output in a bucket."""
    filled, rng = Topic(broker, topic(1)), random.Random(3)
    filled.produce(single(rng, 0, 1) for _ in range(2 * IMAGES))
    return settings_for(filled, pair, Path("unused"), fresh_name("late"), sink={"root": f"s3://{new_bucket()}/output"})


def has_members(settings: Settings) -> bool:
    with closing(KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers.split(","))) as admin:
        return settings.kafka.group in str(admin.list_groups())


def test_it_waits_until_the_store_is_up_and_then_writes_all(
    settings: Settings, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(tries: int) -> None:
        assert not has_members(settings)
        if tries == 2:
            proxy.up()

    observer = Acting(failed)
    with stamina.set_testing(True, attempts=1):
        assert run_worker(settings, observer=observer) == 0
    assert has_members(settings)  # so that this can tell
    proxy.down()
    assert observer.waits_s[:2] == [1.0, 2.0]
    assert all(settings.sink.root in error and "tries again" in error for error in observer.errors)
    store = open_s3(monkeypatch, s3_server(), settings.sink.root)
    assert verify(store) == []
    assert read_predictions(store, ["row_id"]).num_rows == 2 * IMAGES


def test_sigterm_ends_it_with_0_while_the_store_is_down(settings: Settings, proxy: FaultyProxy) -> None:
    observer = Acting(lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with stamina.set_testing(True, attempts=1):
        assert run_worker(settings, observer=observer) == 0
    assert len(observer.errors) == 1
    assert (observer.recovered, observer.commits) == ([], [])
    assert not has_members(settings)
