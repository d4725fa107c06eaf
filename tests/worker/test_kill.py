"""kill -9 at every point between complete rows and committed offset, and at any moment: nothing lost or doubled."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from pipeline.sink.store import CRASH_POINTS
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.models import PairFolder
from tests.worker.cameras import IMAGES, Output, Shot, Topic, recorded, settings_for, single
from tests.worker.process import Plan, WorkerProcess, wait_until

POINTS = ("worker.rows_complete", *CRASH_POINTS, "worker.segment_committed", "worker.offset_committed")
SIGKILLED = -signal.SIGKILL
KILLS = 10


@dataclass(frozen=True)
class Undisturbed:
    """A topic, and what one worker makes of it in peace."""

    topic: Topic
    output: Output


def run_to_the_end(topic: Topic, pair: PairFolder, root: Path, group: str, **changes: dict[str, object]) -> Output:
    """One worker from wherever the output ends until all is there."""
    output = Output(root)
    with WorkerProcess(Plan(settings_for(topic, pair, root, group, **changes), root.with_suffix(".log"))) as worker:
        wait_until(lambda: output.rows >= topic.rows, worker)
        worker.stop()
    return output


@pytest.fixture(scope="module")
def undisturbed(broker: Broker, pair: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    topic = Topic(broker, fresh_name("kill"))
    for name in (topic.name, f"{topic.name}.dlq"):
        create_topic(broker, name, partitions=2)
    topic.produce(recorded(1, cameras=5, each=40, partitions=2))
    root = tmp_path_factory.mktemp("kill") / "undisturbed"
    return Undisturbed(topic, run_to_the_end(topic, pair, root, fresh_name("undisturbed")))


def test_an_undisturbed_run_is_right_in_itself(undisturbed: Undisturbed) -> None:
    assert undisturbed.output.faults(undisturbed.topic) == []
    alphas = {row["alpha"] for row in undisturbed.output.traces}
    assert len(alphas) > 2  # or there would be nothing to compare
    assert any(row["images"] < IMAGES for row in undisturbed.output.traces)  # cut by time
    rejected = [r for r in undisturbed.output.predictions["reason"].to_pylist() if r is not None]
    assert sorted(rejected) == sorted(shot.reason for shot in undisturbed.topic.sent.values() if shot.reason)


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_at_a_point_is_continued_by_another_without_a_trace(
    undisturbed: Undisturbed, pair: PairFolder, tmp_path: Path, point: str
) -> None:
    topic, group, root = undisturbed.topic, fresh_name("killed"), tmp_path / "output"
    settings = settings_for(topic, pair, root, group)
    with WorkerProcess(Plan(settings, tmp_path / "killed.log", point=point, time=2)) as worker:
        worker.wait_for("at", point)
        assert worker.exit_code() == SIGKILLED
    assert Output(root).rows < topic.rows
    output = run_to_the_end(topic, pair, root, group)
    assert output.faults(topic, undisturbed.output) == []


def test_workers_that_are_killed_at_any_moment_ten_times_in_a_row_lose_and_double_nothing(
    broker: Broker, topic: MakeTopic, pair: PairFolder, tmp_path: Path
) -> None:
    rng = random.Random(7)
    live = Topic(broker, topic(2))
    enough = threading.Event()

    def shots() -> Iterator[Shot]:
        """Whole batches of each camera, so that no clock has to close one; until the killing is over."""
        while not enough.is_set():
            yield from chain.from_iterable([single(rng, camera, 2) for camera in range(4)] for _ in range(IMAGES))

    producing = threading.Thread(target=lambda: live.produce(shots(), every_s=0.005))
    producing.start()
    root, group = tmp_path / "output", fresh_name("killed")
    settings = settings_for(live, pair, root, group, batch={"max_age_s": 3_000.0})
    moments = random.Random(8)
    try:
        for number in range(KILLS):
            with WorkerProcess(Plan(settings, tmp_path / f"{number}.log")) as worker:
                worker.wait_for("recovered")
                time.sleep(moments.uniform(0.0, 1.0))
                worker.signal(signal.SIGKILL)
                assert worker.exit_code() == SIGKILLED
    finally:
        enough.set()
        producing.join()
    output = run_to_the_end(live, pair, root, group, batch={"max_age_s": 3_000.0})
    peace = run_to_the_end(live, pair, tmp_path / "peace", fresh_name("peace"), batch={"max_age_s": 3_000.0})
    assert len(live.sent) > 500
    assert output.faults(live, peace) == []
