"""SIGTERM: what is complete is written, the rest is for the next run. A second signal ends the process at once."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.settings import Settings
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.kafka.sources import open_source, poll_until
from tests.models import PairFolder
from tests.processes import Command
from tests.sink.footers import read_segment_footers
from tests.worker.cameras import IMAGES, Output, Topic, run_to_the_end, settings_for, single
from tests.worker.prepared import Prepared
from tests.worker.process import Plan, WorkerProcess, command_line

CAMERAS, LEFT_OVER = 3, 3
NEVER_BY_CLOCK = {"max_age_s": 3_000.0}


@pytest.fixture
def filled(broker: Broker, topic: MakeTopic) -> Topic:
    """Two whole batches of each camera and three images."""
    filled = Topic(broker, topic(1))
    send(filled, 2 * IMAGES + LEFT_OVER, seed=3)
    return filled


def send(topic: Topic, images: int, seed: int) -> None:
    rng = random.Random(seed)
    topic.produce(single(rng, camera, 1) for _ in range(images) for camera in range(CAMERAS))


def slow(filled: Topic, pair: PairFolder, root: Path, group: str) -> Settings:
    """A worker that neither writes a segment nor closes a batch before it is told to stop."""
    never = {"flush_rows": 100_000, "flush_age_s": 3_600.0}
    return settings_for(filled, pair, root, group, sink=never, batch=NEVER_BY_CLOCK)


def reporting_joins() -> None:
    logging.getLogger("kafka.coordinator").setLevel(logging.INFO)


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stderr is not None
    for line in process.stderr:
        assert line.startswith("{"), line + process.stderr.read()
        yield json.loads(line)


def test_sigterm_writes_what_is_complete_ends_with_0_and_leaves_the_rest_to_the_next_run(
    filled: Topic, pair: PairFolder, root: Path
) -> None:
    group, output = fresh_name("stopped"), Output(root)
    environment = command_line(slow(filled, pair, root, group))
    with Command("run", stderr=subprocess.PIPE, env=environment) as process:
        try:
            served = 0
            for event in events(process):
                served += event["event"] == "batch_served"
                if served == 2 * CAMERAS:
                    break
            assert output.rows == 0
            process.send_signal(signal.SIGTERM)
            rest = [event["event"] for event in events(process)]
            assert process.wait() == 0
        finally:
            process.kill()
    assert rest[-2:] == ["segment_committed", "worker_stopped"]
    assert output.rows == 2 * IMAGES * CAMERAS
    [(_, footer)] = read_segment_footers(output.store)
    assert set(footer.pending) <= {offset for _, offset in sorted(filled.sent)[-LEFT_OVER * CAMERAS :]}
    send(filled, IMAGES - LEFT_OVER, seed=4)  # so that every batch ends by count, however slow the machine is
    run_to_the_end(filled, pair, root, group, batch=NEVER_BY_CLOCK)
    peace = run_to_the_end(filled, pair, root.with_name("peace"), fresh_name("peace"), batch=NEVER_BY_CLOCK)
    assert output.faults(filled, peace) == []


def test_ctrl_c_while_partitions_are_awaited_leaves_no_member_behind_and_verify_says_that_nothing_was_read(
    embedded_broker: Broker,
    pair: PairFolder,
    root: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the embedded broker, which lets every group wait; with the session timeout that a user has."""
    name = fresh_name("awaited")
    create_topic(embedded_broker, name, 2)
    filled, rng = Topic(embedded_broker, name), random.Random(3)
    filled.produce(single(rng, camera, 2) for camera in (0, 1, 0))
    settings = settings_for(filled, pair, root, name, kafka={"session_timeout_ms": 45_000})
    with Prepared(reporting_joins, "run", stderr=subprocess.PIPE, env=command_line(settings)) as process:
        try:
            line = events(process)
            joins = (event for event in line if event["event"].startswith("(Re-)joining"))
            assert next(joins)  # to get a member's id
            assert next(joins)  # and then the partitions
            process.send_signal(signal.SIGINT)
            rest = list(line)
            assert process.wait() == 0
        finally:
            process.kill()
    assert rest[-1]["event"] == "worker_stopped"
    assert {event["level"] for event in rest} <= {"info", "debug"}, "debug: kafka-python's own"
    servers = ["--kafka.bootstrap-servers", embedded_broker.bootstrap_servers]
    assert main(["verify", str(root), "--broker", *servers]) == 3
    output = capsys.readouterr().out
    assert "is not complete: 2 partitions that hold messages were never read" in output
    assert f"{name}/0: offsets 0 to 1 wait" in output
    assert "is whole" not in output
    assert "accounted for" not in output
    with (
        caplog.at_level(logging.INFO, "kafka.coordinator"),
        closing(open_source(embedded_broker, name, name)) as source,
    ):
        poll_until(source, lambda poll: len(poll.assigned) == 2)
    rejoins = [record for record in caplog.records if record.getMessage().startswith("(Re-)joining")]
    assert len(rejoins) == 2  # there is nobody whom the group waits for


def test_a_second_signal_ends_a_worker_that_hangs_and_nothing_is_lost(
    filled: Topic, pair: PairFolder, root: Path
) -> None:
    group = fresh_name("hanging")
    plan = Plan(settings_for(filled, pair, root, group), root.with_suffix(".log"), point="segment.encoded", then="hang")
    with WorkerProcess(plan) as worker:
        worker.wait_for("at", "segment.encoded")
        assert worker.insist(signal.SIGTERM) == 128 + signal.SIGTERM
    output = Output(root)
    assert output.rows == 0
    run_to_the_end(filled, pair, root, group)
    assert output.faults(filled) == []
