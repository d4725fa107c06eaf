"""An S3 that is killed under a worker for two minutes: real processes, a real Kafka, cameras that go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.process_log import ProcessLog
from tests.processes import Started
from tests.store.clouds import open_s3, s3_environment, seaweedfs
from tests.worker.cameras import Live, Output, Topic, settings_for
from tests.worker.process import command_line

CAMERAS, PARTITIONS, OUTAGE_S, EVERY_S = 4, 2, 120.0, 0.1

pytestmark = [pytest.mark.soak, pytest.mark.broker, pytest.mark.timeout(900)]


def test_an_s3_that_is_killed_and_comes_back_two_minutes_later_has_every_row_once(
    broker: Broker, topic: MakeTopic, pair: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = seaweedfs(), f"s3://{seaweedfs().new_bucket()}/output"
    filled = Topic(broker, topic(PARTITIONS, dead_letters=True))
    settings = settings_for(filled, pair, root, fresh_name("outage"))
    environment = command_line(settings) | s3_environment(server.address)
    output = Output(tmp_path / "named", open_s3(monkeypatch, server.address, root))
    call = [sys.executable, "-m", "adawise", "run"]
    with Started(call, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            log = ProcessLog(process)
            with Live(filled, cameras=CAMERAS, partitions=PARTITIONS, every_s=EVERY_S):
                log.until(lambda: len(log.events("segment_committed")) >= 2 * PARTITIONS)
                server.kill()
                try:
                    log.until(lambda: bool(log.events("retry_scheduled")))
                    before = len(filled.sent)
                    log.until(lambda: len(filled.sent) - before >= OUTAGE_S / EVERY_S, within_s=3 * OUTAGE_S)
                    written = len(log.events("segment_committed"))
                finally:
                    server.start()
                log.until(lambda: len(log.events("segment_committed")) > written)
            log.until(lambda: output.rows == filled.rows)
            log.stop()
        finally:
            process.kill()
    retries = log.events("retry_scheduled")
    assert all("s3://" in event["error"] for event in retries)
    assert 4 <= len(retries) <= 60, "tried again and again, and not as fast as it can"
    assert output.faults(filled) == []
