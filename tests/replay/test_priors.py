"""Replays with a class prior: what stands beside the predictions, and what a camera goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from adawise.demo.scene import StreetCamera
from adawise.demo.weather import PRESETS
from adawise.labels.compare.compare import compare
from adawise.output.compaction.compact import FileLimits, compact
from adawise.output.read.rows import read_predictions, read_traces
from adawise.output.verify.root import verify
from adawise.records import TopicPartition
from adawise.sink.columns import results_of
from adawise.store.store import open_store
from tests.fixtures.making import TOPIC
from tests.replay.cameras import BATCHES, run, taken, write_recording

pytestmark = pytest.mark.usefixtures("logs_of_this_process")

LIMITS = FileLimits(1_000_000, 1 << 30, date(2100, 1, 1))
SCENE = ["scene_label", "scene_confidence"]


def buses(partition: int) -> Iterator[bytes]:
    """Frames of a street that has nothing but buses, in clear weather."""
    camera = StreetCamera("street", seed=partition)
    shots = (camera.jpeg(number, PRESETS["clear"]) for number in count())
    return (jpeg for jpeg, label in shots if label == "bus")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording"), pictures=buses)


@pytest.fixture(scope="module")
def plain(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def beside(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(recording, tmp_path_factory.mktemp("runs") / "beside", prior="beside")


def test_the_corrected_label_is_beside_rows_that_are_as_without_a_prior(plain: Path, beside: Path) -> None:
    without, rows = (read_predictions(root).table().drop(["predicted_at"]) for root in (plain, beside))
    assert rows.drop(SCENE).equals(without.drop(SCENE))
    assert [without[name].null_count for name in SCENE] == [len(without)] * 2
    assert [rows[name].null_count for name in SCENE] == [0, 0]
    gates = read_traces(beside, columns=["scene_gate"]).table()["scene_gate"].to_pylist()
    assert len(gates) == 2 * BATCHES
    assert min(gates) == 0.0
    assert 0.0 < max(gates) <= 1.0
    assert read_traces(plain).table()["scene_gate"].null_count == 2 * BATCHES
    assert [*verify(open_store(str(beside)))] == []
    for root, expected in ((plain, set[str]()), (beside, {*SCENE})):  # earlier versions read rows without a prior
        for file in root.rglob("predictions/**/*.parquet"):
            assert {*pq.read_schema(file).names} & {*SCENE} == expected


def test_a_compacted_root_has_the_corrected_labels_where_there_are_some(
    plain: Path, beside: Path, tmp_path: Path
) -> None:
    for root, expected in ((plain, set[str]()), (beside, {*SCENE})):
        copied = Path(shutil.copytree(root, tmp_path / root.name))
        before = read_predictions(copied).table().sort_by("row_id")
        store = open_store(str(copied))
        for partition in (0, 1):
            made = [*compact(store, TopicPartition(TOPIC, partition), LIMITS)]
            assert made
        files = [*copied.glob("compacted/predictions/**/*.parquet")]
        assert len(files) >= 2
        assert all({*pq.read_schema(file).names} & {*SCENE} == expected for file in files)
        assert read_predictions(copied).table().sort_by("row_id").equals(before)
        assert [*verify(store)] == []


def test_results_are_made_with_the_corrected_label(beside: Path) -> None:
    rows = read_predictions(beside).table()
    results = [result for batch in results_of(rows) for result in batch]
    assert [result.scene_label for result in results] == rows["scene_label"].to_pylist()
    assert [result.scene_confidence for result in results] == rows["scene_confidence"].to_pylist()


def test_a_replay_with_a_prior_is_equal(recording: Path, beside: Path, tmp_path: Path) -> None:
    assert not compare(beside, run(recording, tmp_path / "again", prior="beside")).differs


def test_a_replay_without_one_differs_by_the_corrected_labels_alone(plain: Path, beside: Path) -> None:
    found = compare(beside, plain)
    assert found.differs
    assert [stream.first_row and stream.first_row.what for stream in found.streams] == [tuple(SCENE)] * 2
    assert [stream.relabelled for stream in found.streams] == [0, 0]


def test_a_camera_goes_on_from_the_prior_of_its_state(recording: Path, beside: Path, tmp_path: Path) -> None:
    on = run(recording, tmp_path / "on", state_of=f"{beside}@{taken(7).isoformat()}", prior="beside")
    assert not compare(beside, on).differs
    files = [*on.glob("predictions/**/*.parquet")]  # the first ones have no rows
    assert files
    assert all({*SCENE} <= {*pq.read_schema(file).names} for file in files)


@pytest.mark.check("replay")
def test_smoothed_labels_are_beside_rows_that_are_otherwise_the_same(
    beside: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Frames of this street are alike, and in no order.
    for name, value in (("_SURE", (0.0, 1e-6)), ("_ALIKE", (5.0, 4.0)), ("_ODDS", 1e-12)):
        monkeypatch.setattr(f"adawise.adapt.smoothing.{name}", value)
    smoothed = run(recording, tmp_path / "smoothed", prior="beside", smoothing="beside")
    without, rows = (read_predictions(root).table().drop(["predicted_at"]) for root in (beside, smoothed))
    assert rows.drop(SCENE).equals(without.drop(SCENE))
    assert rows["scene_confidence"] != without["scene_confidence"]
    weights = read_traces(smoothed, columns=["scene_smoothing"]).table()["scene_smoothing"]
    assert weights.null_count == 0
    assert max(weights.to_pylist()) > 0.9
    assert read_traces(beside).table()["scene_smoothing"].null_count == 2 * BATCHES
    assert [*verify(open_store(str(smoothed)))] == []
    again = run(recording, tmp_path / "again", prior="beside", smoothing="beside")
    state_of = f"{smoothed}@{taken(7).isoformat()}"
    on = run(recording, tmp_path / "on", state_of=state_of, prior="beside", smoothing="beside")
    assert not any(compare(smoothed, other).differs for other in (again, on))
