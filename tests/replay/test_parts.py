"""Parts of what was recorded: by time, by stream, from states that another run had; straight from the topic, too."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adawise.labels.compare.compare import compare
from adawise.store.store import open_store
from tests.replay.runs import Recorded, adawise, assert_same, events, predictions, process, traces
from tests.replay.street import FIRST_MS, HALVES_GAP_MS
from tests.sink.footers import read_segment_footers

MIDDLE = datetime.fromtimestamp((FIRST_MS + HALVES_GAP_MS) / 1000, UTC).isoformat()
Captured = pytest.CaptureFixture[str]


def replay(recorded: Recorded, output: Path, *arguments: str) -> int:
    return adawise(recorded.folder, "replay", "-o", str(output), *arguments)


def diff(recorded: Recorded, output: Path, *arguments: str) -> int:
    return adawise(recorded.folder, "diff", "live", str(output), *arguments)


def test_a_replay_straight_from_the_topic_equals_the_live_run(recorded: Recorded, tmp_path: Path) -> None:
    assert replay(recorded, tmp_path / "again", "--topic", recorded.topic) == 0
    assert_same(tmp_path / "again", recorded.live)
    assert diff(recorded, tmp_path / "again", "--whole") == 0


@pytest.mark.check("replay")
def test_what_is_open_at_until_is_left_out_and_all_before_it_is_as_it_was(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    assert replay(recorded, tmp_path / "half", "recording", "--until", MIDDLE) == 0
    assert "batches that are open at --until lack their later messages" in capsys.readouterr().out
    rows = predictions(tmp_path / "half")
    assert 0 < rows.num_rows < recorded.rows
    assert max(rows["kafka_timestamp"].to_pylist()) < datetime.fromisoformat(MIDDLE)
    assert diff(recorded, tmp_path / "half") == 0
    assert diff(recorded, tmp_path / "half", "--whole") == 3
    found = compare(recorded.live, tmp_path / "half").totals
    assert (found.images, found.beyond) == (rows.num_rows, (recorded.rows - rows.num_rows, 0))
    assert adawise(recorded.folder, "verify", str(tmp_path / "half")) == 0


def test_messages_from_a_time_on_are_replayed_alone(recorded: Recorded, tmp_path: Path) -> None:
    assert replay(recorded, tmp_path / "rest", "recording", "--from-time", MIDDLE) == 0
    late = predictions(recorded.live)
    late = late.filter([at >= datetime.fromisoformat(MIDDLE) for at in late["kafka_timestamp"].to_pylist()])
    assert predictions(tmp_path / "rest")["row_id"].to_pylist() == late["row_id"].to_pylist()


def test_some_streams_are_replayed_alone_and_as_they_were(recorded: Recorded, tmp_path: Path) -> None:
    assert replay(recorded, tmp_path / "two", "recording", "--streams", "camera-03,camera-08") == 0
    assert set(predictions(tmp_path / "two")["stream_id"].to_pylist()) == {"camera-03", "camera-08"}
    assert diff(recorded, tmp_path / "two", "--streams", "camera-03,camera-08", "--whole") == 0


def test_a_replay_goes_on_from_the_states_of_a_segment_exactly_as_the_live_run_did(
    recorded: Recorded, tmp_path: Path
) -> None:
    chain = [(key, footer) for key, footer in read_segment_footers(open_store(str(recorded.live)))]
    key, footer = next((key, footer) for key, footer in chain if footer.pending and len(footer.states) > 3)
    assert replay(recorded, tmp_path / "on", "recording", "--state-of", str(recorded.live / key)) == 0
    assert diff(recorded, tmp_path / "on") == 0
    rows = predictions(tmp_path / "on")
    assert set(rows["partition"].to_pylist()) == {footer.partition}
    assert set(footer.pending) <= set(rows["offset"].to_pylist())
    assert max(number for number in rows["batch_number"].to_pylist() if number is not None) > 1
    assert min(trace["batch_number"] for trace in traces(tmp_path / "on")) > 0 or footer.states
    assert adawise(recorded.folder, "verify", str(tmp_path / "on")) == 0


@pytest.mark.check("replay")
def test_a_replay_goes_on_from_what_all_partitions_had_at_a_time(recorded: Recorded, tmp_path: Path) -> None:
    chain = [footer for _, footer in read_segment_footers(open_store(str(recorded.live)))]
    moments = sorted(footer.created_at for footer in chain)
    moment = moments[len(moments) // 2]
    assert replay(recorded, tmp_path / "on", "recording", "--state-of", f"{recorded.live}@{moment}") == 0
    written = sum(len(footer.trace) for footer in chain if footer.created_at > moment)
    assert len(traces(tmp_path / "on")) == written
    found = compare(recorded.live, tmp_path / "on")
    assert not found.differs
    assert found.totals.alone == (0, 0)
    assert found.totals.beyond[0] == recorded.rows - predictions(tmp_path / "on").num_rows
    assert adawise(recorded.folder, "verify", str(tmp_path / "on")) == 0


def test_states_whose_pending_messages_were_not_recorded_are_refused(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    key = next(key for key, footer in read_segment_footers(open_store(str(recorded.live))) if footer.pending)
    late = tmp_path / "late"
    assert adawise(recorded.folder, "record", "-o", str(late), "--from", "latest", "--max-seconds", "0.1") == 0
    capsys.readouterr()
    assert replay(recorded, tmp_path / "on", str(late), "--state-of", str(recorded.live / key)) == 1
    assert key in (output := capsys.readouterr().err)
    assert output.endswith(("Name a later segment, or record from there.\n", "Name an earlier segment.\n"))


@pytest.mark.parametrize(
    ("state_of", "expected"),
    [
        ("nowhere", "expected a segment ROOT/predictions/topic-T/partition-P/OFFSET.parquet, or ROOT@TIME"),
        ("live@yesterday", "it cannot be read"),
        ("nowhere@1h", "there is no output of a worker in nowhere"),
        ("live@2026-01-01T00:00:00Z", "name a later moment"),
        ("live/predictions/topic-t/partition-00000/00000000000000000000.parquet", "there is no such segment"),
    ],
)
def test_states_that_are_not_there_are_named(
    recorded: Recorded, tmp_path: Path, capsys: Captured, state_of: str, expected: str
) -> None:
    assert replay(recorded, tmp_path, "recording", "--state-of", state_of) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.check("kills")
def test_a_replay_that_is_killed_goes_on_by_the_same_command(recorded: Recorded, tmp_path: Path) -> None:
    command = ("replay", "recording", "-o", str(tmp_path / "parts"), "--sink.flush-rows", "16")
    with process(recorded.folder, *command, pipe_bytes=4096) as running:
        assert any(event["event"] == "segment_committed" for event in events(running.stderr))
        running.kill()
        assert running.wait() == -9
    assert 0 < predictions(tmp_path / "parts").num_rows < recorded.rows
    assert adawise(recorded.folder, *command) == 0
    assert_same(tmp_path / "parts", recorded.live)
    assert diff(recorded, tmp_path / "parts", "--whole") == 0


def test_an_output_takes_no_other_replay(recorded: Recorded, tmp_path: Path, capsys: Captured) -> None:
    assert replay(recorded, tmp_path, "recording", "--search", "fixed", "--until", MIDDLE) == 0
    capsys.readouterr()
    assert replay(recorded, tmp_path, "recording", "--search", "grid", "--until", MIDDLE) == 2
    assert capsys.readouterr().err.endswith("holds a replay with other settings; use a new folder\n")


def test_a_worker_s_output_takes_no_replay(recorded: Recorded, capsys: Captured) -> None:
    assert replay(recorded, recorded.live, "recording", "--sink.root", "elsewhere") == 2
    output = capsys.readouterr().err
    assert f"belongs to the workers of group {recorded.topic!r} on topic {recorded.topic!r}" in output
    assert output.endswith(", not to a replay; use a new folder\n")


def test_another_strategy_parts_from_the_live_run_and_diff_says_where(
    recorded: Recorded, grid: Path, capsys: Captured
) -> None:
    capsys.readouterr()
    assert diff(recorded, grid, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    assert found["totals"]["images"] == recorded.rows
    live, others = traces(recorded.live), traces(grid)
    gaps = sum(one["alpha"] != other["alpha"] for one, other in zip(live, others, strict=True))
    assert found["totals"]["batches_apart"] == gaps
    assert found["a"]["models"] == found["b"]["models"]
    assert found["a"]["settings"] != found["b"]["settings"]
    assert found["settings"] == [{"name": "search.strategy", "a": ["warm"], "b": ["grid"]}]
    first = {s["stream_id"]: s["first_batch"] for s in found["streams"] if s["first_batch"]}
    parted = [(a, b) for a, b in zip(live, others, strict=True) if a["stream_id"] == "camera-00" and repr(a) != repr(b)]
    assert first["camera-00"]["first_offset"] == parted[0][0]["first_offset"]
    assert {"trigger", "trials"} <= set(first["camera-00"]["what"])
    assert diff(recorded, grid) == 3
    output = capsys.readouterr().out
    assert "where they differ: the first differing batch of each stream" in output
    assert any(stream in output for stream in first)
