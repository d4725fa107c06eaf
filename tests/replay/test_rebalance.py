"""Two dozen cameras, three workers, a rebalance and a death in the middle: one replay gives the same, bit by bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from adawise.labels.compare.compare import compare
from adawise.settings import read
from adawise.settings.tree import Settings
from tests.brokers import Broker, MakeTopic
from tests.models import write_pair
from tests.replay import runs
from tests.worker.cameras import Live, Topic
from tests.worker.output import Output
from tests.worker.process import Plan, WorkerProcess, wait_until

pytestmark = pytest.mark.check("replay")

CAMERAS, PARTITIONS = 24, 6
UNDISTURBED = ("--batch.max-age-s", "3000")  # a machine that is busy may hold up a frame; no clock ends a batch here


def worker_settings(folder: Path) -> Settings:
    settings = read((), environ={}, folder=folder, config=None).checked()
    changes = {
        "kafka": settings.kafka.model_copy(update={"max_poll_records": 40}),
        "batch": settings.batch.model_copy(update={"max_age_s": 3000.0}),
        "sink": settings.sink.model_copy(update={"root": str(folder / "live")}),
    }
    return settings.model_copy(update=changes)


def test_a_replay_equals_what_three_workers_wrote_who_came_and_went(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    live = Topic(broker, topic(PARTITIONS, dead_letters=True))
    runs.write_settings(tmp_path, broker.bootstrap_servers, live.name, write_pair(tmp_path / "pair"))
    settings, output = worker_settings(tmp_path), Output(tmp_path / "live")
    plans = [Plan(settings, tmp_path / f"worker-{n}.log") for n in range(3)]
    with WorkerProcess(plans[0]) as first, WorkerProcess(plans[1]) as second:
        with Live(live, cameras=CAMERAS, partitions=PARTITIONS, every_s=0.008):
            wait_until(lambda: bool(first.committed) and bool(second.committed), first, second)
            with WorkerProcess(plans[2]) as third:
                wait_until(lambda: len(third.committed) >= 1, first, second, third)
                third.send(
                    signal.SIGKILL
                )  # its partitions go to the others, and what it had not written is computed again
                assert third.exit_code() == -9
            before = len(first.recovered) + len(second.recovered)
            wait_until(lambda: len(first.recovered) + len(second.recovered) > before, first, second)
            second.stop()  # the first has all of them to itself
        wait_until(lambda: output.rows >= live.rows, first)
        first.stop()
    assert runs.adawise(tmp_path, "record", "-o", "recording") == 0
    assert runs.adawise(tmp_path, "replay", "recording", "-o", "again", *UNDISTURBED) == 0
    assert runs.adawise(tmp_path, "diff", "live", "again", "--whole") == 0
    found = compare(tmp_path / "live", tmp_path / "again")
    assert found.totals.images == live.rows
    assert len(found.streams) == CAMERAS
    assert found.a.settings == found.b.settings
    runs.assert_same(tmp_path / "again", tmp_path / "live")  # by a second judge: every column, by what is written
    assert runs.adawise(tmp_path, "verify", "again") == 0
