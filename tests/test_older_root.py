"""What an older version wrote is gone on from: its root, the states of its strategies (`tests/fixtures`)."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from adawise.__main__ import main
from adawise.adapt.names import GRID
from adawise.adapt.objective import raw_entropy
from adawise.adapt.state import StreamState
from adawise.adapt.strategies import strategy
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.adapt.surrogate import Surrogate
from adawise.app.model import adaptation, load_model
from adawise.output.read.rows import read_predictions, read_traces
from adawise.recording.source import RecordingSource
from adawise.replay.replay import ReplayRequest, replay
from adawise.sink import schemas
from adawise.store.store import open_store
from tests.fixtures.making import serve, settings
from tests.sink.footers import read_segment_footers

FIXTURE = Path(__file__).parent / "fixtures" / "root_0_1_0"
FOLLOWING = FIXTURE / "following"
ORDER = [("stream_id", "ascending"), ("batch_number", "ascending")]
HEADS = [f"predictions/topic-frames/partition-0000{p}/{first:020d}.parquet" for p, first in enumerate((112, 116))]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root, to be written to."""
    return Path(shutil.copytree(FIXTURE / "root", tmp_path / "root"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The root, served on with these settings of the search; not to be changed."""

    @cache
    def served_with(**search: float) -> Path:
        root = Path(shutil.copytree(FIXTURE / "root", tmp_path_factory.mktemp("served") / "root"))
        serve_following(root, **search)
        return root

    return served_with


@pytest.fixture
def following(served: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of the root that was served on."""
    return Path(shutil.copytree(served(), tmp_path / "root"))


def states() -> dict[str, StreamState]:
    """Of all streams, where the root ends."""
    heads = [footer for key, footer in read_segment_footers(open_store(str(FIXTURE / "root"))) if key in HEADS]
    return {name: StreamState.from_bytes(data) for footer in heads for name, data in footer.states.items()}


def new_batches(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The traces, by stream, of the segments that the fixture does not have."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, footer in read_segment_footers(open_store(str(root))):
        for trace in [] if (FIXTURE / "root" / key).exists() else footer.trace.to_pylist():
            found.setdefault(trace["stream_id"], []).append(trace)
    return found


def assert_goes_on(batches: dict[str, list[dict[str, Any]]], before: dict[str, StreamState]) -> None:
    assert batches.keys() == before.keys()
    for stream, traces in batches.items():
        state, first = before[stream], traces[0]
        assert (first["batch_number"], first["previous_alpha"]) == (state.batches, GRID[state.alpha_index])
        assert [trace["batch_number"] for trace in traces] == list(range(14, 14 + len(traces)))
        assert not {"start", "settings_changed"} & {trace[why] for trace in traces for why in ("trigger", "reset")}


def serve_following(root: Path, **search: Any) -> None:
    source = RecordingSource(str(FOLLOWING), order="timestamp", seed=0, max_poll_records=512)
    serve(settings(root, **search), source)


def test_a_worker_goes_on_from_the_states_of_an_older_root(following: Path) -> None:
    before = states()
    assert {state.alpha_index for state in before.values()} == {0, 10}
    assert_goes_on(new_batches(following), before)
    assert main(["verify", str(following)]) == 0


def test_other_settings_than_an_older_root_was_written_with_begin_each_stream_anew(served: Callable[..., Path]) -> None:
    root = served(price=0.04)
    firsts = [traces[0] for traces in new_batches(root).values()]
    assert {(trace["batch_number"], trace["reset"]) for trace in firsts} == {(0, "settings_changed")}
    assert main(["verify", str(root)]) == 0


def test_rows_of_an_older_root_have_no_time_of_prediction_and_are_read_compacted_and_verified_beside_new_ones(
    following: Path,
) -> None:
    for made in ([], ["--before", "2100-01-01"]):
        if made:
            assert main(["compact", str(following), *made]) == 0
        rows = read_predictions(following, columns=["topic", "predicted_at", "status"]).table()
        known = rows["predicted_at"].is_valid().to_pylist()
        assert 0 < sum(known) < len(known)
        assert main(["verify", str(following)]) == 0
        assert main(["diff", str(following), str(following)]) == 0
    with duckdb.connect() as connection:
        connection.execute((following / "views.sql").read_text())
        counted = connection.execute("SELECT count(*), count(predicted_at) FROM predictions").fetchone()
    assert counted == (len(known), sum(known))


def test_batches_of_an_older_root_have_no_columns_that_came_later_and_are_read_compacted_and_verified_beside_new_ones(
    following: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [column.name for column in (*schemas.PIXELS, *schemas.OUTCOME) if column.name != "rejected"]
    tables = []
    for made in ([], ["--before", "2100-01-01"]):
        if made:
            assert main(["compact", str(following), *made]) == 0
        traces = read_traces(following, columns=["stream_id", "batch_number", "rejected", "off_list", *columns])
        found = traces.table().sort_by(ORDER)
        tables.append(found.to_pylist())
        of_now = [number >= 14 for number in found["batch_number"].to_pylist()]
        assert 0 < sum(of_now) < len(of_now)
        assert all(found[name].is_valid().to_pylist() == of_now for name in columns)
        assert found["off_list"].null_count == len(of_now), "no camera has a shortlist"
        assert found["rejected"].to_pylist() == [0 if n > 14 else None for n in found["batch_number"].to_pylist()]
        with duckdb.connect() as connection:
            requested = ", ".join(f"count({name})" for name in columns)
            (counts,) = traces.relation(connection).aggregate(requested).fetchall()
        assert counts == (sum(of_now),) * len(columns)
        assert main(["verify", str(following)]) == 0
        assert main(["drift", str(following), "--json"]) == 0
    assert tables[0] == tables[1]  # the compacted ones say the same
    with duckdb.connect() as connection:
        connection.execute((following / "views.sql").read_text())
        (counted,) = connection.execute(
            "SELECT sum(images), sum(list_sum(map_values(class_counts))) FROM traces WHERE class_counts IS NOT NULL"
        ).fetchall()
        assert counted[0] == counted[1] > 0
        rows = connection.execute(
            "SELECT count(*), min(luminance_mean), min(luminance_variance), max(luminance_mean) FROM traces "
            "WHERE colourfulness_mean IS NOT NULL"
        ).fetchone()
    assert rows is not None
    count, darkest, least, lightest = rows
    assert count == sum(of_now)
    assert math.log(0.02) <= darkest < lightest <= math.log(1.02)
    assert least >= 0
    capsys.readouterr()


def test_a_report_of_an_older_root_reads_rows_of_older_batches_alone(
    following: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = read_traces(following, columns=["batch_number", "time"]).table().to_pylist()
    since = max(trace["time"] for trace in traces if trace["batch_number"] < 14) + timedelta(microseconds=1)

    def cameras(*options: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["drift", str(following), "--json", *options]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["cameras"]
        return found

    whole, of_now = cameras(), cameras("--since", since.isoformat())
    assert all(camera["confidence"] is not None and camera["class_mix"] for camera in (*whole, *of_now))
    images = {camera["stream_id"]: camera["images"] for camera in whole}
    connection = duckdb.connect()
    rows = read_predictions(following, columns=["stream_id", "label", "confidence"]).relation(connection)
    counted = rows.filter("label IS NOT NULL").aggregate("stream_id, count(*), avg(confidence)").fetchall()
    assert {name: count for name, count, _ in counted} == images
    for name, _, confidence in counted:
        (camera,) = [camera for camera in whole if camera["stream_id"] == name]
        assert camera["confidence"] == pytest.approx(confidence, rel=1e-6)
    connection.close()
    shutil.rmtree(following / "predictions")
    assert cameras("--since", since.isoformat()) == of_now
    assert {camera["confidence"] for camera in cameras()} != {camera["confidence"] for camera in whole}


def test_traces_that_an_older_worker_wrote_of_a_segment_that_has_statistics_are_whole(following: Path) -> None:
    """It adopts the segment, and passes over what it does not know."""
    newest = max((following / "traces" / "topic-frames" / "partition-00000").glob("*.parquet"))
    traces = pq.read_table(newest, partitioning=None)
    pq.write_table(traces.drop_columns([name for name in traces.column_names if name in schemas.LATER]), newest)
    assert main(["verify", str(following)]) == 0
    pq.write_table(traces.drop_columns(["trigger"]), newest)
    assert main(["verify", str(following)]) == 3


def test_the_newest_traces_of_an_older_root_are_written_again_if_they_are_lost(root: Path) -> None:
    for head in HEADS:
        (root / head.replace("predictions", "traces", 1)).unlink()
    before = read_traces(FIXTURE / "root").table()
    serve_following(root)
    assert main(["verify", str(root)]) == 0
    after = read_traces(root).table().filter(pc.field("batch_number") < 14)
    assert repr(after.sort_by(ORDER).to_pylist()) == repr(before.sort_by(ORDER).to_pylist())  # nan equals nan


@pytest.mark.parametrize("head", HEADS)
def test_a_replay_goes_on_from_the_states_of_an_older_segment(tmp_path: Path, head: str) -> None:
    output, state_of = tmp_path / "again", f"{FIXTURE}/root/{head}"
    chosen = settings(tmp_path / "unused")
    request = ReplayRequest(chosen, str(output), recording=str(FOLLOWING), state_of=state_of)
    assert not replay(request).stopped
    batches = new_batches(output)
    assert len(batches) == 2
    assert_goes_on(batches, {stream: states()[stream] for stream in batches})
    assert main(["verify", str(output)]) == 0


def test_an_older_root_is_said_not_to_note_its_settings_and_notes_them_once_it_is_gone_on_from(
    served: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = served(price=0.04)
    capsys.readouterr()
    assert main(["diff", str(FIXTURE / "root"), str(root)]) in {0, 3}
    assert "which settings differ is not known: an earlier version wrote A (" in capsys.readouterr().out
    (noted,) = (root / "_settings").iterdir()
    assert json.loads(noted.read_text())["settings"]["search.price"] == 0.04


def test_an_older_root_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(FIXTURE / "root")]) == 0
    assert "is whole: 4 segments of 2 partitions" in capsys.readouterr().out


def test_the_states_of_every_strategy_and_setting_keep_their_keys() -> None:
    model = load_model(settings(FIXTURE).model, settings(FIXTURE).decode)
    for entry in json.loads((FIXTURE / "states.json").read_text()):
        made = adaptation(settings(FIXTURE, **entry["search"]), model).strategy
        if entry["fitted"]:
            assert isinstance(made, WarmSearch)
            made = replace(made, fitted=Surrogate(GRID, **entry["fitted"]))
        assert {StreamState.from_bytes(text.encode()).key for text in entry["states"]} == {made.key}


def test_a_worker_of_then_can_read_what_is_written_now() -> None:
    """All that it wrote is written, in the same form; only the key is another."""
    for entry in json.loads((FIXTURE / "states.json").read_text()):
        for text in entry["states"]:
            then, now = json.loads(text), json.loads(StreamState.from_bytes(text.encode()).to_bytes())
            assert then.pop("key").startswith(json.loads(now.pop("key"))["strategy"])
            assert then == now


@pytest.mark.parametrize("entry", json.loads((FIXTURE / "older_states.json").read_text()), ids=lambda e: e["commit"])
def test_states_of_older_formats_are_read(entry: dict[str, str]) -> None:
    """Those of `warm` were made with settings that are no defaults any more: they are read, and not gone on from."""
    then, state = json.loads(entry["state"]), StreamState.from_bytes(entry["state"].encode())
    assert (state.batches, state.alpha_index) == (8, then["alpha_index"])
    assert (state.belief is None, len(state.observations)) == (then["belief"] is None, len(then["observations"]))
    level = then["level"]
    assert list(asdict(state.level).values()) == (level if then["format"] == 1 else list(level.values()))
    made = strategy(
        entry["strategy"],
        alphas=GRID,
        objective=raw_entropy,
        context="entropy@0123456789abcdef",
        alpha=0.5,
        exploration=Exploration(),
    )
    assert (state.key == made.key) == (entry["strategy"] == "botorch")
    assert StreamState.from_bytes(state.to_bytes()).to_bytes() == state.to_bytes()
