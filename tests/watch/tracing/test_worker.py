"""`adawise run` as a process: its batches arrive at a collector, from the messages' traces to the commit."""

from __future__ import annotations

import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers import Broker, MakeTopic, fresh_name
from tests.deadlines import DEADLINE_S
from tests.models import PairFolder
from tests.processes import Command
from tests.watch.tracing.test_export import Collector, collector
from tests.worker.cameras import IMAGES, Topic, single
from tests.worker.process import command_line
from tests.worker.test_stop import events, slow

__all__ = ["collector"]  # the fixture


@pytest.mark.check("worker")
def test_a_worker_that_a_collector_is_named_to_exports_every_batch_with_its_commit(
    broker: Broker, topic: MakeTopic, pair_folder: PairFolder, tmp_path: Path, collector: Collector
) -> None:
    filled, rng = Topic(broker, topic(1)), random.Random(3)
    filled.produce(single(rng, camera, 1) for _ in range(IMAGES) for camera in range(2))
    environment = command_line(slow(filled, pair_folder, tmp_path / "yard", fresh_name("traced")))
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.address
    with Command("run", stderr=subprocess.PIPE, env=environment) as process:
        try:
            seen = Counter[str]()
            for event in events(process):
                seen[event["event"]] += 1
                if seen["batch_served"] == 2:
                    process.send_signal(signal.SIGTERM)
                    break
            seen.update(event["event"] for event in events(process))
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert seen["tracing_started"] == 1
    spans = [
        span
        for request in collector.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    found = Counter(span.name for span in spans)
    assert found == {"batch": 2, "gather": 2, "adapt": 2, "forward": 2, "commit": 2}
    batches = {span.span_id for span in spans if span.name == "batch"}
    assert {span.parent_span_id for span in spans if span.name == "commit"} == batches
