"""drift, files and verify of several outputs: other cameras, and the same ones after they moved to another cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.ports import TopicIdentity
from tests.labels.test_given import collect
from tests.replay.cameras import BATCHES, CAMERAS, run, taken, write_recording

Captured = pytest.CaptureFixture[str]
MOVED = BATCHES // 2
ELSEWHERE = TopicIdentity("another-cluster", "another-topic", 2)

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`: all that was recorded; `north`, `south`: a camera each; `before`, `after`: on two clusters."""
    folder = tmp_path_factory.mktemp("runs")
    recording = write_recording(folder / "recording")
    run(recording, folder / "whole")
    for camera in CAMERAS:
        run(recording, folder / camera, streams=camera)
    run(write_recording(folder / "there", range(MOVED)), folder / "before")
    run(write_recording(folder / "here", range(MOVED, BATCHES), ELSEWHERE), folder / "after")
    return folder


@pytest.fixture
def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def drift(capsys: Captured, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["drift", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.check("replay")
@pytest.mark.usefixtures("at")
def test_a_report_of_several_outputs_is_that_of_one_which_has_all_rows(capsys: Captured) -> None:
    whole, both = drift(capsys, "whole"), drift(capsys, "north", "south")
    assert {camera["stream_id"] for camera in both["cameras"]} == {*CAMERAS}
    assert both["cameras"] == whole["cameras"]
    assert (both["root"], both["command"]) == ("north and south", "adawise drift north south --json")


@pytest.mark.usefixtures("at")
@pytest.mark.check("replay")
def test_cameras_that_moved_to_another_cluster_have_one_path_and_their_row_ids_are_told_apart(
    capsys: Captured, tmp_path: Path
) -> None:
    found = drift(capsys, "before", "after")
    assert {camera["stream_id"]: camera["batches"] for camera in found["cameras"]} == dict.fromkeys(CAMERAS, BATCHES)
    (note,) = [note for note in found["notes"] if note.startswith("topic frames of these outputs is several topics")]
    assert "frames.1 (of before), frames.2 (of after)" in note
    assert not [note for note in found["notes"] if "never served" in note]
    labels = tmp_path / "labels.csv"
    rows = [f"{camera},{taken(batch).isoformat()},car" for camera in CAMERAS for batch in range(BATCHES)]
    labels.write_text("\n".join(["stream_id,captured_at,label", *rows]))
    helped = drift(capsys, "before", "after", "--labels", str(labels))["helped"]
    assert helped["labelled"] == 2 * BATCHES
    labels.write_text("row_id,label\nframes/0/5/0,car\n")
    assert drift(capsys, "before", "after", "--labels", str(labels))["helped"]["labelled"] == 0  # of which image?
    assert drift(capsys, "before", "--labels", str(labels))["helped"]["labelled"] == 1


def test_labels_under_any_of_them_count(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    south = Path(shutil.copytree(folder / "south", tmp_path / "south"))
    collect(south, {"stream_id": "south", "captured_at": taken(3).isoformat(), "label": "car"})
    assert drift(capsys, str(folder / "north"), str(south))["helped"]["labelled"] == 1


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("command", ["drift", "files"])
def test_the_same_rows_twice_are_refused_and_diff_is_named(capsys: Captured, command: str) -> None:
    assert main([command, "north", "whole"]) == 2
    output = capsys.readouterr().err
    assert "north and whole have the same rows: both have served offsets 0 to " in output
    assert output.endswith("`adawise diff north whole`\n")


@pytest.mark.usefixtures("at")
def test_files_of_several_outputs_are_those_of_each(capsys: Captured) -> None:
    lists = []
    for roots in (["north"], ["south"], ["north", "south"]):
        assert main(["files", *roots, "--json"]) == 0
        lists.append(json.loads(capsys.readouterr().out))
    assert lists[2] == lists[0] + lists[1]
    assert all(Path(name).is_file() for name in lists[2])


@pytest.mark.usefixtures("at")
def test_several_outputs_are_verified_one_after_the_other_with_one_summary(capsys: Captured, tmp_path: Path) -> None:
    assert main(["verify", "north", "south"]) == 0
    *each, last = capsys.readouterr().out.splitlines()
    # A camera's messages are all of one partition: of the others, each root only says that they began.
    whole = [line.split(" is whole: ")[0] for line in each if "is whole" in line]
    assert whole == ["what north holds", "what south holds"]
    assert last == "2 of 2 outputs have no fault, with 192 rows; whether all is there is not known of north, south"
    harmed = tmp_path / "harmed"
    shutil.copytree("whole", harmed)
    next((harmed / "predictions").rglob("*.parquet")).write_bytes(b"")
    for place in range(3):  # of a flag among them
        roots = ["north", str(harmed)]
        assert main(["verify", *roots[:place], "--json", *roots[place:]]) == 3
        found = json.loads(capsys.readouterr().out)
        assert (found["whole"], [root["whole"] for root in found["roots"]]) == (False, [True, False])
    assert main(["verify", str(harmed), "north"]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"1 of 2 outputs have no fault, with 96 rows; look at {harmed}; whether ")


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("command", ["drift", "files", "verify"])
@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        ([], "ROOT  (not given)"),
        (["north", "./north/"], "expected folders or URLs, each once: north is there twice"),
        (["north", "recording"], "recording"),
        (["north", "nowhere"], "nowhere"),
    ],
)
def test_a_folder_that_is_none_or_there_twice_is_named(
    capsys: Captured, command: str, roots: list[str], expected: str
) -> None:
    assert main([command, *roots]) == 2
    output = capsys.readouterr().err
    assert expected in output
    assert "Traceback" not in output
