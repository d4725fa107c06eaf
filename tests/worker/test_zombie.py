"""A worker that stood still while another took its partition over, and then writes: it loses the race, or wins it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import Broker, MakeTopic, fresh_name
from tests.models import PairFolder
from tests.worker.cameras import Output, Topic, recorded, run_to_the_end, settings_for
from tests.worker.process import Plan, WorkerProcess, wait_until

# The zombie's segment is longer than any of its heir's, which holds one round (64 images and a message) at most.
LONG, SHORT = {"flush_rows": 150, "flush_age_s": 3_600.0}, {"flush_rows": 1}


@pytest.fixture
def filled(broker: Broker, topic: MakeTopic) -> Topic:
    filled = Topic(broker, topic(1, dead_letters=True))
    filled.produce(recorded(2, cameras=5, each=44, partitions=1))
    return filled


def zombie_plan(filled: Topic, pair: PairFolder, root: Path, group: str, *, overwrites: bool = False) -> Plan:
    """Stands still with its first segment ready to be written."""
    settings = settings_for(filled, pair, root, group, sink=LONG)
    log = root.with_suffix(".zombie.log")
    return Plan(settings, log, point="segment.encoded", then="stop", overwrites=overwrites)


def heir_plan(filled: Topic, pair: PairFolder, root: Path, group: str, point: str | None = None) -> Plan:
    settings = settings_for(filled, pair, root, group, sink=SHORT)
    return Plan(settings, root.with_suffix(".heir.log"), point=point, then="stop")


def until_it_stops(worker: WorkerProcess) -> None:
    worker.wait_for("at", "segment.encoded")
    worker.wait_stopped()


def test_a_zombie_loses_the_race_and_everything_is_there_once(filled: Topic, pair: PairFolder, root: Path) -> None:
    group, output = fresh_name("zombie"), Output(root)
    plan = zombie_plan(filled, pair, root, group)
    with ExitStack() as stack:
        zombie = stack.enter_context(WorkerProcess(plan))
        until_it_stops(zombie)
        heir = stack.enter_context(WorkerProcess(heir_plan(filled, pair, root, group)))
        wait_until(lambda: output.rows >= filled.rows, heir)
        zombie.send(signal.SIGCONT)
        assert not zombie.wait_for("committed").won
        assert '"race_lost"' in plan.log.read_text()
        heir.stop()
        zombie.stop()
    peace = run_to_the_end(filled, pair, root.with_name("peace"), fresh_name("peace"))
    assert output.faults(filled, peace) == []


@pytest.mark.check("kills")
def test_a_zombie_that_wins_the_race_is_adopted_by_its_heir(filled: Topic, pair: PairFolder, root: Path) -> None:
    group, output = fresh_name("zombie"), Output(root)
    with ExitStack() as stack:
        zombie = stack.enter_context(WorkerProcess(zombie_plan(filled, pair, root, group)))
        until_it_stops(zombie)
        heir = stack.enter_context(WorkerProcess(heir_plan(filled, pair, root, group, point="segment.encoded")))
        until_it_stops(heir)
        zombie.send(signal.SIGCONT)
        assert zombie.wait_for("committed").won
        heir.send(signal.SIGCONT)
        assert not heir.wait_for("committed").won
        zombie.stop()
        wait_until(lambda: output.rows >= filled.rows, heir)
        heir.stop()
    peace = run_to_the_end(filled, pair, root.with_name("peace"), fresh_name("peace"))
    assert output.faults(filled, peace) == []


@pytest.mark.check("kills")
def test_the_same_check_fails_if_the_zombies_store_overwrites(filled: Topic, pair: PairFolder, root: Path) -> None:
    group, output = fresh_name("zombie"), Output(root)
    plan = zombie_plan(filled, pair, root, group, overwrites=True)
    with ExitStack() as stack:
        zombie = stack.enter_context(WorkerProcess(plan))
        until_it_stops(zombie)
        heir = stack.enter_context(WorkerProcess(heir_plan(filled, pair, root, group)))
        wait_until(lambda: output.rows >= filled.rows, heir)
        assert output.faults(filled) == []
        zombie.send(signal.SIGCONT)
        assert zombie.wait_for("committed").won
    faults = output.faults(filled)
    assert any("doubled" in fault for fault in faults), faults  # ranges need not overlap
