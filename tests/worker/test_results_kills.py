"""Results on a real broker, of real workers under kill -9: none is lost, and which are the truth can be told."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from adawise.sink import segment
from adawise.sink.files import read_bytes
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.models import PairFolder
from tests.publish.results.topic import published_on
from tests.sink.footers import read_segment_footers
from tests.worker.cameras import Live, Output, Topic, recorded, run_to_the_end, settings_for
from tests.worker.process import Plan, WorkerProcess, wait_until

SIGKILLED = -signal.SIGKILL
POINTS = ("worker.rows_complete", "worker.results_told", "segment.created", "worker.segment_committed")
EITHER = pytest.mark.parametrize("when", ["early", "committed"])
SOME_KILLS = pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.soak)])
Whenever = Literal["early", "committed"]


@pytest.fixture(scope="module")
def recording(broker: Broker) -> Topic:
    """Five cameras with every kind of message."""
    topic = Topic(broker, fresh_name("results"))
    for name in (topic.name, f"{topic.name}.dlq"):
        create_topic(broker, name, partitions=2)
    topic.produce(recorded(2, cameras=5, each=24, partitions=2))
    return topic


def results_to(name: str, when: Whenever, per: str) -> dict[str, Any]:
    return {"results": {"enabled": True, "topic": name, "when": when, "per": per}}


def check(broker: Broker, name: str, output: Output, when: Whenever) -> None:
    """Every row of the output was told by the attempt that its segment names; and of committed results nothing else."""
    truth: dict[tuple[str, str], dict[str, Any]] = {}
    for key, footer in read_segment_footers(output.store):
        for row in segment.read_rows(read_bytes(output.store, key), key).to_pylist():
            truth[row["row_id"], footer.attempt] = row
    on_topic = published_on(broker, name)
    fields: dict[tuple[str, str], dict[str, Any]] = {}
    for result in on_topic.results:
        before = fields.setdefault((result["row_id"], result["attempt"]), result)
        assert result == before, "a duplicate of the same attempt says the same"
    assert truth.keys() <= fields.keys()
    assert {row for row, _ in fields} == {row for row, _ in truth}
    if when == "committed":
        assert fields.keys() == truth.keys()
    for place, row in truth.items():
        found = fields[place]
        assert {name: found[name] for name in SAME} == {name: row[name] for name in SAME}
    of_camera: dict[tuple[str, str | None], list[int]] = {}
    for (_, attempt), result in fields.items():
        if result["status"] == "accepted":
            of_camera.setdefault((attempt, result["stream_id"]), []).append(result["offset"])
    assert all(offsets == sorted(offsets) for offsets in of_camera.values()), "in order for each camera"


SAME = (
    *("stream_id", "frame_id", "status", "reason", "label", "confidence", "top_labels", "top_probabilities", "alpha"),
    *("entropy", "zero_shot_label", "fine_tuned_label", "batch_number", "model_fingerprint"),
)


# One in the first tier: of what every point leaves, tests/worker/test_results.py is exhaustive without a broker.
PLACES = [
    pytest.param(when, per, point, marks=() if (when, point) == ("early", POINTS[1]) else pytest.mark.check("kills"))
    for when, per in (("early", "image"), ("committed", "batch"))
    for point in POINTS
]


@pytest.mark.parametrize(("when", "per", "point"), PLACES)
def test_a_worker_that_is_killed_at_a_point_leaves_no_row_untold(
    recording: Topic, pair: PairFolder, root: Path, when: Whenever, per: str, point: str
) -> None:
    name, group = fresh_name("told"), fresh_name("killed")
    changes = results_to(name, when, per)
    settings = settings_for(recording, pair, root, group, **changes)
    with WorkerProcess(Plan(settings, root.with_suffix(".killed.log"), point=point, time=2)) as worker:
        worker.wait_for("at", point)
        assert worker.exit_code() == SIGKILLED
    output = run_to_the_end(recording, pair, root, group, **changes)
    assert output.faults(recording) == []
    check(recording.broker, name, output, when)


@pytest.mark.check("kills")
@SOME_KILLS
@EITHER
def test_workers_that_are_killed_at_any_moment_leave_no_row_untold(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, when: Whenever, kills: int
) -> None:
    live, name, group = Topic(broker, topic(2)), fresh_name("told"), fresh_name("killed")
    changes = results_to(name, when, "image") | {"batch": {"max_age_s": 3_000.0}}
    settings = settings_for(live, pair, root, group, **changes)
    moments = random.Random(9)
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        for number in range(kills):
            with WorkerProcess(Plan(settings, root.with_suffix(f".{number}.log"))) as worker:
                worker.wait_for("recovered")
                time.sleep(moments.uniform(0.2, 1.2))  # any moment: it is not for us to know what it is doing
                worker.send(signal.SIGKILL)
                assert worker.exit_code() == SIGKILLED
    output = run_to_the_end(live, pair, root, group, **changes)
    assert output.faults(live) == []
    check(broker, name, output, when)


@pytest.mark.check("kills")
@SOME_KILLS
@EITHER
def test_alerts_of_workers_that_are_killed_at_any_moment_are_raised_once_and_cleared_once(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, when: Whenever, kills: int
) -> None:
    live, group = Topic(broker, topic(2)), fresh_name("killed")
    label, *_ = Path(pair.classes).read_text().split("\n")
    rules = [
        {"name": "seen", "labels": [label], "confidence": 0.0, "frames": 1, "of": 2, "clear_frames": 3},
        {"name": "silent", "silent_after": "2s", "streams": "camera-*"},
    ]
    changes: dict[str, dict[str, Any]] = {"alerts": {"rules": rules}, "batch": {"max_age_s": 3_000.0}}
    result, peace = fresh_name("told"), fresh_name("peace")
    settings = settings_for(live, pair, root, group, **changes, **results_to(result, when, "image"))
    moments = random.Random(10)
    with Live(live, cameras=4, partitions=2, every_s=0.02):
        for number in range(kills):
            with WorkerProcess(Plan(settings, root.with_suffix(f".{number}.log"))) as worker:
                worker.wait_for("recovered")
                time.sleep(moments.uniform(0.2, 1.2))  # any moment
                worker.send(signal.SIGKILL)
                assert worker.exit_code() == SIGKILLED
    with WorkerProcess(Plan(settings, root.with_suffix(".log"))) as worker:
        output = Output(root)
        wait_until(lambda: output.rows >= live.rows and silent_in(output) == 4, worker)  # all cameras are silent now
        worker.stop()
    assert output.faults(live) == []
    run_to_the_end(
        live, pair, root.with_name("peace"), fresh_name("peace"), **changes, **results_to(peace, when, "image")
    )
    found, expected = alerts_on(broker, result), alerts_on(broker, peace)
    labels = {alert for alert in found if alert[0] == "seen"}
    assert labels == {alert for alert in expected if alert[0] == "seen"}
    assert labels, "or there would be nothing to compare"
    raised = {alert[:2] for alert in found if alert[0] == "silent" and alert[2] == "raised"}
    cleared = {alert[:2] for alert in found if alert[0] == "silent" and alert[2] == "cleared"}
    assert cleared <= raised
    assert len(raised - cleared) == 4, "each camera is silent in the end, and by one alert"


def silent_in(output: Output) -> int:
    """Cameras of which the newest segments say that they are silent."""
    newest: dict[int, bytes] = {}
    for _, footer in read_segment_footers(output.store):
        newest[footer.partition] = footer.alerts
    states = [json.loads(alerts)["state"]["silent"]["raised"] for alerts in newest.values() if alerts]
    return sum(map(len, states))


def alerts_on(broker: Broker, name: str) -> set[tuple[str, str, str]]:
    """(rule, identity, state) of what was told; that a duplicate says the same but for the attempt is looked at."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event in published_on(broker, name).events:
        if event.headers["ce_type"].startswith("adawise.alert"):
            fields = {key: value for key, value in event.value.items() if key not in ("attempt", "changed_at")}
            key = event.value["rule"], event.value["alert_id"], event.value["state"]
            assert found.setdefault(key, fields) == fields
    return set(found)
