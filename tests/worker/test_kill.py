"""kill -9 at every point between complete rows and committed offset, and at any moment: nothing lost or doubled."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adawise.sink import schemas
from adawise.store.store import FAILPOINTS
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.models import CLASSES, PairFolder
from tests.worker.cameras import IMAGES, Live, Output, Topic, recorded, run_to_the_end, settings_for
from tests.worker.process import Plan, WorkerProcess

POINTS = ("worker.rows_complete", *FAILPOINTS, "worker.segment_committed", "worker.offset_committed")
OUTCOME = [column.name for column in schemas.OUTCOME]
SIGKILLED = -signal.SIGKILL
KILLS = 10
NEVER_BY_CLOCK = {"max_age_s": 3_000.0}


@dataclass(frozen=True)
class Undisturbed:
    """A topic, and what one worker makes of it in peace."""

    topic: Topic
    output: Output


@pytest.fixture(scope="module")
def undisturbed(broker: Broker, pair: PairFolder, memory: Path) -> Undisturbed:
    topic = Topic(broker, fresh_name("kill"))
    for name in (topic.name, f"{topic.name}.dlq"):
        create_topic(broker, name, partitions=2)
    topic.produce(recorded(1, cameras=5, each=28, partitions=2))
    return Undisturbed(topic, run_to_the_end(topic, pair, memory / "undisturbed", fresh_name("undisturbed")))


def test_an_undisturbed_run_is_right_in_itself(undisturbed: Undisturbed) -> None:
    assert undisturbed.output.faults(undisturbed.topic) == []
    alphas = {row["alpha"] for row in undisturbed.output.traces}
    assert len(alphas) > 1  # or there would be nothing to compare
    assert any(row["images"] < IMAGES for row in undisturbed.output.traces)  # cut by time
    rejected = [r for r in undisturbed.output.predictions["reason"].to_pylist() if r is not None]
    assert sorted(rejected) == sorted(shot.reason for shot in undisturbed.topic.sent.values() if shot.reason)
    assert [{name: trace[name] for name in OUTCOME} for trace in undisturbed.output.traces] == [
        *outcomes(undisturbed.output)
    ]
    assert sum(trace["rejected"] for trace in undisturbed.output.traces) > 4


def outcomes(output: Output) -> Iterator[dict[str, Any]]:
    """What came of each traced batch, as the rows have it."""
    rows, last = output.predictions.to_pylist(), dict[tuple[int, str], int]()
    for trace in output.traces:
        stream = trace["partition"], trace["stream_id"]
        of_stream = [row for row in rows if (row["partition"], row["stream_id"]) == stream]
        batch = [row for row in of_stream if row["batch_number"] == trace["batch_number"]]
        both = [row for row in batch if row["zero_shot_label"] and row["fine_tuned_label"]]
        bad = [row["offset"] for row in of_stream if row["status"] == "rejected"]
        yield {
            "mean_confidence": np.float32(np.mean([row["confidence"] for row in batch])),
            "compared": len(both),
            "agreed": sum(row["zero_shot_label"] == row["fine_tuned_label"] for row in both),
            "class_counts": [(name, n) for name in CLASSES if (n := sum(row["label"] == name for row in batch))],
            "rejected": sum(last.get(stream, -1) < offset <= trace["last_offset"] for offset in bad),
        }
        last[stream] = trace["last_offset"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.cases("kills", every=4)
def test_a_worker_that_is_killed_at_a_point_is_continued_by_another_without_a_trace(
    undisturbed: Undisturbed, pair: PairFolder, root: Path, point: str
) -> None:
    topic, group = undisturbed.topic, fresh_name("killed")
    plan = Plan(settings_for(topic, pair, root, group), root.with_suffix(".killed.log"), point=point, time=2)
    with WorkerProcess(plan) as worker:
        worker.wait_for("at", point)
        assert worker.exit_code() == SIGKILLED
    assert Output(root).rows < topic.rows
    output = run_to_the_end(topic, pair, root, group)
    assert output.faults(topic, undisturbed.output) == []


@pytest.mark.soak
def test_workers_that_are_killed_at_any_moment_ten_times_in_a_row_lose_and_double_nothing(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    live, group = Topic(broker, topic(2)), fresh_name("killed")
    settings = settings_for(live, pair, root, group, batch=NEVER_BY_CLOCK)
    moments = random.Random(8)
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        for number in range(KILLS):
            with WorkerProcess(Plan(settings, root.with_suffix(f".{number}.log"))) as worker:
                worker.wait_for("recovered")
                time.sleep(moments.uniform(0.0, 1.0))  # any moment: it is not for us to know what it is doing
                worker.send(signal.SIGKILL)
                assert worker.exit_code() == SIGKILLED
    assert Output(root).rows > 0  # they came to work between the kills
    output = run_to_the_end(live, pair, root, group, batch=NEVER_BY_CLOCK)
    peace = run_to_the_end(live, pair, root.with_name("peace"), fresh_name("peace"), batch=NEVER_BY_CLOCK)
    assert output.faults(live, peace) == []
