"""SIGTERM ends a start with 0, within seconds. A start waits for a broker, and for room on a disk."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adawise.app import worker
from adawise.kafka import client
from adawise.output.verify.root import verify
from adawise.settings import Settings
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.kafka.cluster import free_ports
from tests.models import PairFolder
from tests.process_log import ProcessLog, fill, mounted
from tests.processes import Started
from tests.worker.cameras import Live, Output, Topic, settings_for, single
from tests.worker.prepared import Prepared
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, command_line, wait_until

FULL = '"store_filled"'
_SLOW_IMPORT = """
import sys, time
print('{"event": "imports"}', file=sys.stderr, flush=True)
time.sleep(3_600)
"""


def interpreter(settings: Settings, *before: str) -> Started:
    """`adawise run` by an interpreter of its own, after these lines of Python."""
    code = "\n".join(
        ["import sys", *before, "from adawise.__main__ import program", "sys.argv[1:] = ['run']", "program()"]
    )
    environment = command_line(settings)
    return Started([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)


def ended(expected: ProcessLog) -> str:
    """SIGTERM; what it said. What it stands at takes longer than any test."""
    output = expected.stop()
    assert "Traceback" not in output
    return output


def slow(*_: object, **__: object) -> None:
    """In place of a part of a start."""
    print('{"event": "slow"}', file=sys.stderr, flush=True)
    time.sleep(3_600)


def slow_pair() -> None:
    vars(worker)["starting_pair"] = slow


def slow_worker() -> None:
    vars(worker)["make_worker"] = slow


def impatient() -> None:
    """Ask a broker that is not there for 1 s, and not for 10."""
    client.BOOTSTRAP_TIMEOUT_MS = 1_000


@pytest.fixture
def filled(broker: Broker, topic: MakeTopic) -> Topic:
    filled, rng = Topic(broker, topic(1)), random.Random(3)
    filled.produce(single(rng, camera, 1) for _ in range(16) for camera in range(3))
    return filled


def test_sigterm_while_modules_are_loaded_ends_the_process_with_0(
    filled: Topic, pair: PairFolder, tmp_path: Path
) -> None:
    """A module that takes an hour, in place of torch's seconds."""
    (tmp_path / "open_clip.py").write_text(_SLOW_IMPORT)
    settings = settings_for(filled, pair, tmp_path / "root", fresh_name("start"))
    with interpreter(settings, f"sys.path.insert(0, {str(tmp_path)!r})") as process:
        log = ProcessLog(process)
        log.until(lambda: bool(log.events("imports")))
        ended(log)


@pytest.mark.parametrize("prepare", [slow_pair, slow_worker], ids=["while models load", "while heads are encoded"])
def test_sigterm_in_the_middle_of_a_start_ends_it_with_0_and_says_so(
    prepare: Callable[[], None], filled: Topic, pair: PairFolder, tmp_path: Path
) -> None:
    """At a point that takes an hour."""
    settings = settings_for(filled, pair, tmp_path / "root", fresh_name("start"))
    with Prepared(prepare, "run", stderr=subprocess.PIPE, env=command_line(settings)) as process:
        log = ProcessLog(process)
        log.until(lambda: bool(log.events("slow")))
        ended(log)
        assert "before its first step" in log.events("worker_stopped")[0]["note"]
    assert not (tmp_path / "root" / "predictions").exists()


def test_a_worker_without_a_broker_says_so_with_the_remedy_and_waits_until_sigterm_ends_the_wait(
    filled: Topic, pair: PairFolder, tmp_path: Path
) -> None:
    nobody = f"127.0.0.1:{free_ports(1)}"
    settings = settings_for(filled, pair, tmp_path / "root", fresh_name("start"), kafka={"bootstrap_servers": nobody})
    with Prepared(impatient, "run", stderr=subprocess.PIPE, env=command_line(settings)) as process:
        log = ProcessLog(process)
        log.until(lambda: len(log.events("retry_scheduled")) == 2)
        error = log.events("retry_scheduled")[1]["error"]
        assert f"could not connect to Kafka at {nobody}: " in error
        assert f"or `adawise broker --port {nobody.rpartition(':')[2]}`, or name another with --kafka" in error
        ended(log)


@pytest.mark.slow
@pytest.mark.check("worker")
def test_a_disk_that_is_full_at_the_start_and_later_is_waited_for_and_nothing_is_lost(
    broker: Broker, topic: MakeTopic, pair: PairFolder, tmp_path: Path
) -> None:
    """Claims, segments, traces, marks of starts and the recording, all on the disk that is full twice."""
    made, group = Topic(broker, topic(2, dead_letters=True)), fresh_name("full")
    log = tmp_path / "worker.log"
    with mounted(tmp_path / "disk", "size=4m") as disk:
        ballast, output = disk / "ballast", Output(disk / "out")
        recording = {"enabled": True, "root": str(disk / "recording")}
        settings = settings_for(made, pair, disk / "out", group, record=recording)
        fill(ballast)
        with WorkerProcess(Plan(settings, log)) as running, Live(made, cameras=4, partitions=2, every_s=0.01):
            when_full(running, log, 2)
            ballast.unlink()
            running.wait_for("committed")
            before = log.read_text().count(FULL)
            fill(ballast)
            when_full(running, log, before + 2)
            ballast.unlink()
            for _ in range(3):
                running.wait_for("committed")
        assert output.rows > 0
        with WorkerProcess(Plan(settings, log)) as running:
            wait_until(lambda: output.rows >= made.rows, running)
            running.stop()
        assert output.faults(made) == []
        assert verify(LocalStore(disk / "out")) == []
        assert not list(disk.rglob(".tmp-*"))


def when_full(running: WorkerProcess, log: Path, count: int) -> None:
    """Until it has said so often that the disk is full."""
    give_up = time.monotonic() + DEADLINE_S
    while not log.exists() or log.read_text().count(FULL) < count:
        assert time.monotonic() < give_up, running.diary
        running.listen(0.1)
