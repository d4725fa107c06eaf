"""What benches of whole workers share: a real broker, the tiny pair, a topic, cameras that send all the time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.brokers import create_topic, fresh_name, running
from tests.models import PairFolder, write_pair
from tests.processes import start_server
from tests.worker.cameras import Topic, settings_for
from tests.worker.process import Plan

GROUP = "bench"


@dataclass(frozen=True)
class BenchStage:
    """A topic of that many partitions, and a folder for everything."""

    topic: Topic
    pair: PairFolder
    folder: Path

    @property
    def root(self) -> Path:
        """Where workers write."""
        return self.folder / "output"

    def plan(self, name: str, **changes: dict[str, Any]) -> Plan:
        """A worker of the one group, by these settings; its log is called `name`."""
        return Plan(settings_for(self.topic, self.pair, self.root, GROUP, **changes), self.folder / f"{name}.log")


@contextmanager
def stage(partitions: int) -> Iterator[BenchStage]:
    """On the broker that the tests would run on; prints which one that is."""
    with tempfile.TemporaryDirectory() as name, running() as broker:
        print(f"broker: {broker.name}")
        topic = Topic(broker, fresh_name("bench"))
        create_topic(broker, topic.name, partitions)
        create_topic(broker, f"{topic.name}.dlq")
        start_server()
        yield BenchStage(topic, write_pair(Path(name) / "pair"), Path(name))
