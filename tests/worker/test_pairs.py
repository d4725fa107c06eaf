"""Another pair, with other classes, under a worker that is not stopped: real processes on real Kafka, and kill -9."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from adawise.commands.pair.run import list_pairs, reports, rollback, switch
from adawise.commands.pair.stage import stage
from adawise.commands.replay.run import replay
from adawise.errors import SettingsError
from adawise.pairs.planned import read_plan
from adawise.settings import Settings
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder, write_pair
from tests.worker.cameras import Live, Output, Topic, settings_for
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, wait_until

LOOKS: dict[str, Any] = {"look_s": 0.2}
CLASSES = ("lorry", "tram", "cyclist", "nobody", "dog", "fog")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    """A pair of other weights and classes."""
    return write_pair(tmp_path_factory.mktemp("other"), seed=5, classes=CLASSES)


@pytest.fixture
def live(broker: Broker, topic: MakeTopic) -> Topic:
    return Topic(broker, topic(2))


def serves_both(root: Path) -> bool:
    """True once both partitions have rows of another pair than the first."""
    plan = read_plan(LocalStore(root))
    return len(plan) == 2 and all(len(switches) > 1 for switches in plan.values())


def end(topic: Topic, settings: Settings, root: Path) -> Output:
    """Another worker, until all is written."""
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".end.log"))) as worker:
        wait_until(lambda: output.rows >= topic.rows, worker)
        worker.stop()
    return output


def check_replay(topic: Topic, settings: Settings, root: Path, output: Output) -> None:
    """From the topic, by the pairs that served: equal bit by bit."""
    again = root.with_name("again")
    assert replay(settings, recording=None, output=str(again), pairs_of=str(root)) == 0
    assert output.faults(topic) == []
    theirs = Output(again)
    assert output.predictions.equals(theirs.predictions)
    assert repr(output.traces) == repr(theirs.traces)


def test_a_worker_that_is_killed_between_the_switches_of_its_partitions_is_continued_by_the_chain(
    live: Topic, pair: PairFolder, other: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = fresh_name("pairs")
    ours = settings_for(live, pair, root, group, pairs=LOOKS, batch={"max_age_s": 3_000.0})
    theirs = settings_for(live, other, root, group, batch={"max_age_s": 3_000.0})
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        with WorkerProcess(Plan(ours, root.with_suffix(".log"), point="worker.pair_switched", time=2)) as worker:
            wait_until(lambda: len(worker.committed) == 2, worker)
            with pytest.raises(SettingsError, match="nothing is staged"):
                switch(ours, root=None, number=None, keeps=None, anyway=False, wait_s=0)
            assert stage(theirs, root=str(root), shadow=0, keeps=False, wait_s=DEADLINE_S) == 0
            [told] = reports(LocalStore(root))
            assert told.pairs[1][0] == "ready"
            assert switch(ours, root=None, number=None, keeps=None, anyway=False, wait_s=0) == 0
            worker.wait_for("at", "worker.pair_switched")
            assert worker.exit_code() == -signal.SIGKILL
        assert not serves_both(root)
        with WorkerProcess(Plan(ours, root.with_suffix(".2.log"))) as worker:  # its settings name the old pair
            wait_until(lambda: serves_both(root), worker)
            assert "pair_taken" in root.with_suffix(".2.log").read_text()
            worker.stop()
    output = end(live, ours, root)
    assert set(output.predictions["label"].to_pylist()) <= {*CLASSES, *pair.classes.read_text().splitlines(), None}
    check_replay(live, ours, root, output)
    assert list_pairs(ours, root=None, as_json=False) == 0
    out = capsys.readouterr().out
    assert "pair 1" in out
    assert "serves" in out
    assert rollback(ours, root=None, keeps=None, wait_s=0) == 0
