"""More names than a partition has places, and two times that are none, on real processes: a replay finds the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from adawise.adapt.state import StreamState
from adawise.output.verify.root import verify
from adawise.store.store import open_store
from tests.brokers import Broker, create_topic, fresh_name
from tests.hostile import picture
from tests.models import write_pair
from tests.replay import runs
from tests.replay.street import FIRST_MS, HALVES_GAP_MS, Shot, send
from tests.sink.footers import read_segment_footers

pytestmark = pytest.mark.check("replay")

CROWDED = ("--limits.streams", "8")
CAMERAS, STRANGERS = 6, 40
NO_TIME_MS = 2**62


def shots(half: int, seed: int) -> list[Shot]:
    """Six cameras of twelve images each, and among the last nine strangers who are heard once or twice.

    Every fifth image cannot be read.
    """
    rng = random.Random(seed)
    cameras = [f"camera-{n}" for n in range(CAMERAS)]
    names = 9 * cameras
    names += [f"stranger-{half * 20 + n}" for n in range(STRANGERS)]  # half of the first half's come again
    rng.shuffle(names)
    names = 3 * cameras + names
    start_ms = FIRST_MS + half * HALVES_GAP_MS
    values = [picture(rng) if n % 5 else b"\xff\xd8\xff broken" for n in range(len(names))]
    sent = [
        Shot(start_ms + 20 * n, 0, name.encode(), value)
        for n, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    sent[-1] = replace(sent[-1], at_ms=NO_TIME_MS)
    mistaken = (("meta_site", b"north"), ("captured-at", b"noon"))  # neither costs the picture
    return [replace(shot, headers=mistaken) if shot.key == b"camera-0" else shot for shot in sent]


def test_a_flood_of_names_costs_no_camera_its_state_and_is_the_same_in_a_replay_after_a_kill(
    broker: Broker, tmp_path: Path
) -> None:
    topic = fresh_name("crowd")
    create_topic(broker, topic, 1, {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)})
    create_topic(broker, f"{topic}.dlq")
    runs.write_settings(tmp_path, broker.bootstrap_servers, topic, write_pair(tmp_path / "pair"))
    for half in range(2):
        sent = shots(half, seed=half)
        with runs.process(tmp_path, "run", *CROWDED) as worker:
            send(broker.bootstrap_servers, topic, sent)
            log = runs.wait_for_rows(runs.events(worker.stderr), len(sent))
            if half:
                assert runs.end(worker)[0] == 0  # the first is killed
        assert any(event["event"] == "streams_evicted" for event in log)
        assert [event["stream_id"] for event in log if event["event"] == "producer_mistaken"] == ["camera-0"]
    assert runs.adawise(tmp_path, "record", "-o", "recording") == 0
    assert runs.adawise(tmp_path, "replay", "recording", "-o", "again", *CROWDED) == 0
    runs.assert_same(tmp_path / "again", tmp_path / "live")
    traces = runs.traces(tmp_path / "live")
    crowded = {trace["stream_id"] for trace in traces if trace["reset"] == "crowded"}
    assert crowded
    assert len({trace["rejected"] for trace in traces}) > 2
    assert all(name.startswith("stranger-") for name in crowded)
    for camera in range(CAMERAS):
        numbers = [trace["batch_number"] for trace in traces if trace["stream_id"] == f"camera-{camera}"]
        assert numbers == list(range(len(numbers)))
    assert runs.predictions(tmp_path / "live")["kafka_timestamp"].null_count == 2
    assert runs.adawise(tmp_path, "drift", "live") == 0
    store = open_store(str(tmp_path / "live"))
    assert max(len(footer.states) for _, footer in read_segment_footers(store)) <= 8
    assert verify(store, read_state=StreamState.from_bytes) == []
