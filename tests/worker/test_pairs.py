"""Another pair, with other classes, under a worker that is not stopped: real processes on real Kafka, and kill -9."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from adawise.app.pairs import checked_document
from adawise.errors import SettingsError
from adawise.pairs.operate import open_orders, rollback, stage, switch
from adawise.pairs.planned import read_plan
from adawise.pairs.reports import read_reports
from adawise.pairs.show import show
from adawise.replay.replay import ReplayRequest, replay
from adawise.settings import Settings
from adawise.sink import schemas
from adawise.store.store import LocalStore
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder, write_pair
from tests.worker.cameras import Live, Output, Topic, settings_for
from tests.worker.process import DEADLINE_S, Plan, WorkerProcess, wait_until

CHECKS: dict[str, Any] = {"look_s": 0.2}
SHADOWED = {column.name for column in schemas.SHADOW}
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


def described(output: Output) -> list[str]:
    """Traces, but for the shadow of a pair that was staged then: a replay has none."""
    return [repr({name: each for name, each in row.items() if name not in SHADOWED}) for row in output.traces]


def check_replay(topic: Topic, settings: Settings, root: Path, output: Output) -> None:
    """From the topic, by the pairs that served: equal bit by bit."""
    again = root.with_name("again")
    assert not replay(ReplayRequest(settings, str(again), pairs_of=str(root))).stopped
    assert output.faults(topic) == []
    theirs = Output(again)
    assert output.predictions.equals(theirs.predictions)
    assert described(output) == described(theirs)


def staged(settings: Settings, root: Path, shadow: int, *, keeps: bool) -> bool:
    """True once every worker of the root has prepared the pair of these settings."""
    store, orders = open_orders(str(root))
    return stage(store, orders, checked_document(settings), shadow, keeps=keeps, wait_s=DEADLINE_S)


def test_a_worker_that_is_killed_between_the_switches_of_its_partitions_is_continued_by_the_chain(
    live: Topic, pair: PairFolder, other: PairFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = fresh_name("pairs")
    ours = settings_for(live, pair, root, group, pairs=CHECKS, batch={"max_age_s": 3_000.0})
    theirs = settings_for(live, other, root, group, batch={"max_age_s": 3_000.0})
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        with WorkerProcess(Plan(ours, root.with_suffix(".log"), point="worker.pair_switched", time=2)) as worker:
            wait_until(lambda: len(worker.committed) == 2, worker)
            with pytest.raises(SettingsError, match="nothing is staged"):
                switch(str(root), None, None, anyway=False, wait_s=0)
            assert staged(theirs, root, 0, keeps=False)
            [report] = read_reports(LocalStore(root))[0]
            assert report.state(1) == "ready"
            assert switch(str(root), None, None, anyway=False, wait_s=0)
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
    assert show(str(root), as_json=False)
    out = capsys.readouterr().out
    assert "pair 1" in out
    assert "serves" in out
    assert rollback(str(root), None, wait_s=0)


POINTS = ("segment.encoded", "segment.created", "traces.written", "worker.segment_committed", "worker.rows_complete")


@pytest.mark.soak
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_after_it_began_with_another_pair_is_continued_by_the_chain(
    live: Topic, pair: PairFolder, other: PairFolder, root: Path, point: str, keeps: bool
) -> None:
    group = fresh_name("pairs")
    ours = settings_for(live, pair, root, group, pairs=CHECKS, batch={"max_age_s": 3_000.0})
    theirs = settings_for(live, other, root, group, batch={"max_age_s": 3_000.0})
    with Live(live, cameras=6, partitions=2, every_s=0.01):
        with WorkerProcess(Plan(ours, root.with_suffix(".log"))) as worker:
            wait_until(lambda: len(worker.committed) == 2, worker)
            assert staged(theirs, root, 50, keeps=keeps)
            worker.send(signal.SIGKILL)
        assert switch(str(root), None, None, anyway=True, wait_s=0)
        for time in (1, 2, 3):
            with WorkerProcess(Plan(ours, root.with_suffix(f".{time}.log"), point=point, time=time)) as worker:
                worker.wait_for("at", point)
                assert worker.exit_code() == -signal.SIGKILL
    check_replay(live, ours, root, end(live, ours, root))
    assert serves_both(root)


@pytest.mark.soak
def test_back_and_forth_between_pairs_in_two_workers_is_replayed(
    live: Topic, pair: PairFolder, other: PairFolder, root: Path
) -> None:
    group = fresh_name("pairs")
    ours = settings_for(live, pair, root, group, pairs=CHECKS, batch={"max_age_s": 3_000.0})
    theirs = settings_for(live, other, root, group, batch={"max_age_s": 3_000.0})
    with (
        Live(live, cameras=6, partitions=2, every_s=0.02),
        WorkerProcess(Plan(ours, root.with_suffix(".a.log"))) as one,
        WorkerProcess(Plan(ours, root.with_suffix(".b.log"))) as two,
    ):
        wait_until(lambda: bool(one.committed and two.committed), one, two)
        assert staged(theirs, root, 10, keeps=True)
        assert switch(str(root), None, None, anyway=False, wait_s=DEADLINE_S)
        assert rollback(str(root), None, wait_s=DEADLINE_S)
        assert switch(str(root), 1, False, anyway=False, wait_s=DEADLINE_S)
        two.send(signal.SIGKILL)
        assert two.exit_code() == -signal.SIGKILL
        wait_until(lambda: len(one.recovered) == 2, one)
        one.stop()
    check_replay(live, ours, root, end(live, ours, root))


@pytest.mark.soak
def test_a_worker_that_cannot_get_the_pair_stands_where_it_served_and_goes_on_elsewhere(
    live: Topic, pair: PairFolder, other: PairFolder, root: Path, tmp_path: Path
) -> None:
    group = fresh_name("pairs")
    ours = settings_for(live, pair, root, group, pairs=CHECKS, batch={"max_age_s": 3_000.0})
    theirs = settings_for(live, other, root, group, batch={"max_age_s": 3_000.0})
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        with WorkerProcess(Plan(ours, root.with_suffix(".log"))) as worker:
            wait_until(lambda: len(worker.committed) == 2, worker)
            assert staged(theirs, root, 0, keeps=False)
            assert switch(str(root), None, None, anyway=False, wait_s=0)
            wait_until(lambda: serves_both(root), worker)
            worker.stop()
        weights = other.weights(1)
        away = weights.rename(tmp_path / "away")
        try:
            with WorkerProcess(Plan(ours, root.with_suffix(".2.log"))) as worker:
                give_up = time.monotonic() + DEADLINE_S
                while "partition_blocked" not in worker.diary and time.monotonic() < give_up:
                    worker.listen(0.5)  # it has nothing to tell but its log
                assert "expected pair 1" in worker.diary
                worker.listen(4.0)
                assert not worker.committed
                worker.stop()
        finally:
            away.rename(weights)
    check_replay(live, ours, root, end(live, ours, root))
