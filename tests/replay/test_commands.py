"""record, replay and verify as a user calls them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.brokers import Broker, MakeTopic, fresh_name
from tests.publish.results.topic import published_on
from tests.replay.runs import Recorded, adawise, recorded_messages, traces

Captured = pytest.CaptureFixture[str]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.fixture
def copy(recorded: Recorded, tmp_path: Path) -> Path:
    """The live output, to be damaged."""
    return Path(shutil.copytree(recorded.live, tmp_path / "copy"))


def segments(root: Path) -> list[Path]:
    """Of one partition, in the order of the chain."""
    found = sorted((root / "predictions").glob("*/partition-00000/*.parquet"))
    assert len(found) > 3
    return found


@pytest.mark.check("replay")
def test_a_recording_with_a_limit_is_continued_by_the_same_command_without_touching_what_is_there(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    output = tmp_path / "parts"
    assert adawise(recorded.folder, "record", "-o", str(output), "--max-messages", "101") == 0
    assert recorded_messages(output) == 101
    printed = capsys.readouterr().out
    assert re.match(r"101 messages \(\d+ KiB\) ", printed)
    assert f"of topic {recorded.topic} added to {output}" in printed
    first = files_of(output)
    assert adawise(recorded.folder, "record", "-o", str(output), "--max-bytes", "60000") == 0
    assert 101 < recorded_messages(output) < recorded.messages
    assert adawise(recorded.folder, "record", "-o", str(output)) == 0
    assert recorded_messages(output) == recorded.messages
    assert first.items() <= files_of(output).items()
    assert adawise(recorded.folder, "record", "-o", str(output)) == 0
    assert "\n0 messages" in capsys.readouterr().out


def test_another_topic_is_not_recorded_into_the_same_folder(
    recorded: Recorded, topic: MakeTopic, capsys: Captured
) -> None:
    other = topic()
    before = files_of(recorded.recording)
    assert adawise(recorded.folder, "record", "-o", "recording", "--kafka.topic", other) == 1
    output = capsys.readouterr().err
    assert recorded.topic in output
    assert other in output
    assert output.endswith("Record into a new folder.\n")
    assert files_of(recorded.recording) == before


@pytest.mark.check("replay")
def test_a_replay_with_another_strategy_gives_other_alphas_for_the_same_batches(recorded: Recorded, grid: Path) -> None:
    live, other = traces(recorded.live), traces(grid)
    for name in ("stream_id", "batch_number", "images", "first_offset", "last_offset"):
        assert [trace[name] for trace in other] == [trace[name] for trace in live]
    assert [trace["alpha"] for trace in other] != [trace["alpha"] for trace in live]
    assert all(len(trace["trials"]) == 21 for trace in other if trace["images"] >= 3)


def test_a_replay_does_not_write_where_the_live_worker_does(recorded: Recorded, capsys: Captured) -> None:
    before = files_of(recorded.live)
    for same in ("live", "./recording/../live", str(recorded.live)):
        assert adawise(recorded.folder, "replay", "recording", "-o", same) == 2
        assert capsys.readouterr().err.endswith("a replay needs a separate folder\n")
    assert files_of(recorded.live) == before


def test_a_replay_of_what_was_replayed_says_that_nothing_is_left(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    for _ in range(2):
        assert adawise(recorded.folder, "replay", "recording", "-o", str(tmp_path), "--search.strategy", "fixed") == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if str(tmp_path) in line)
    assert "images served" in first
    assert second.startswith("nothing was left to do")


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "none at all"])
def test_a_damaged_recording_is_named_with_the_remedy(
    recorded: Recorded, tmp_path: Path, capsys: Captured, damage: str
) -> None:
    recording = tmp_path / "recording"
    for most in ("30", "30", "30", "30", "520"):  # so that one partition has three files, and one in the middle
        assert adawise(recorded.folder, "record", "-o", str(recording), "--max-messages", most) == 0
    file = next(files[1] for folder in recording.glob("*/*") if len(files := sorted(folder.iterdir())) > 2)
    data = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "truncated":
            file.write_bytes(data[: len(data) // 2])
        case "flipped":
            middle = len(data) // 2
            file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case _:
            recording = tmp_path
    capsys.readouterr()
    assert adawise(recorded.folder, "replay", str(recording), "-o", str(tmp_path / "again")) == 1
    output = capsys.readouterr().err
    assert "Traceback" not in output
    message = next(line for line in output.splitlines() if line.startswith("adawise: "))
    assert str(recording) in message
    assert output.rstrip().endswith(("replayed (--until).", "or record again.", "`adawise record`."))


def test_a_whole_output_is_called_whole(recorded: Recorded, capsys: Captured) -> None:
    assert adawise(recorded.folder, "verify", "live") == 0
    assert capsys.readouterr().out.startswith("live is whole: ")
    assert adawise(recorded.folder, "verify", "live", "--json") == 0
    assert json.loads(capsys.readouterr().out)["whole"] is True


def test_a_folder_without_an_output_is_not_called_whole(recorded: Recorded, tmp_path: Path, capsys: Captured) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", recorded.recording):
        assert adawise(recorded.folder, "verify", str(folder)) == 2
        assert f"there is no output of a worker in {folder}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_segment_that_is_missing_in_the_middle_is_found(recorded: Recorded, copy: Path, capsys: Captured) -> None:
    chain = segments(copy)
    chain[1].unlink()
    assert adawise(recorded.folder, "verify", str(copy)) == 3
    first = capsys.readouterr().out.splitlines()[1]
    assert chain[2].name in first
    assert f"expected the chain to go on with {chain[1].relative_to(copy)}: there is a gap" in first


def test_a_segment_that_was_cut_short_is_found(recorded: Recorded, copy: Path, capsys: Captured) -> None:
    damaged = segments(copy)[1]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert adawise(recorded.folder, "verify", str(copy), "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] is False
    assert damaged.relative_to(copy).as_posix() == found["faults"][0]["file"]


def test_a_worker_does_not_go_on_after_a_damaged_segment(recorded: Recorded, copy: Path, capsys: Captured) -> None:
    head = segments(copy)[-1]
    head.write_bytes(head.read_bytes()[:-100])
    assert adawise(recorded.folder, "run", "--sink.root", str(copy)) == 1
    output = capsys.readouterr().err
    assert "Traceback" not in output
    assert head.name in output.splitlines()[-1]


def test_a_recording_whose_images_were_forgotten_is_replayed_without_them_only_if_that_is_wanted(
    recorded: Recorded, tmp_path: Path, capsys: Captured
) -> None:
    old = tmp_path / "old"
    shutil.copytree(recorded.recording, old)
    assert adawise(recorded.folder, "record", "-o", str(old), "--prune-only", "--forget-images-after", "0s") == 0
    assert adawise(recorded.folder, "replay", str(old), "-o", str(tmp_path / "out")) == 1
    assert "--skip-forgotten" in capsys.readouterr().err
    assert adawise(recorded.folder, "replay", str(old), "-o", str(tmp_path / "out"), "--skip-forgotten") == 0
    assert "nothing was left to do" in capsys.readouterr().out


@pytest.mark.check("replay")
def test_a_replay_tells_nobody_unless_it_is_asked_and_then_every_row(
    recorded: Recorded, broker: Broker, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fresh_name("told")
    monkeypatch.setenv("ADAWISE_RESULTS__ENABLED", "true")  # the worker's own
    monkeypatch.setenv("ADAWISE_RESULTS__TOPIC", name)
    cheap = ("--search.strategy", "fixed")  # whoever chooses alpha, the same rows are told
    assert adawise(recorded.folder, "replay", "recording", "-o", str(tmp_path / "quiet"), *cheap) == 0
    arguments = ("--results-to", name, "--results.per", "batch", "--results.when", "committed", *cheap)
    assert adawise(recorded.folder, "replay", "recording", "-o", str(tmp_path / "asked"), *arguments) == 0
    found = published_on(broker, name)
    rows = [result["row_id"] for result in found.results]
    assert len(rows) == len(set(rows)) == recorded.rows, "of the replay that was asked, and of no other"
    capsys.readouterr()
    assert (
        adawise(recorded.folder, "replay", "recording", "-o", str(tmp_path / "x"), "--results-to", recorded.topic) == 2
    )
    assert "it is a topic whose messages are read as images" in capsys.readouterr().err
