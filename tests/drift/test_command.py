"""`adawise drift` as people and programs call it, on the day in `tests.drift.yard`."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adawise import analyse
from adawise.__main__ import main
from adawise.console import paper
from adawise_drift.events.result import CameraGroup
from adawise_drift.show import show
from tests.drift import yard
from tests.drift.page.building import a_yard
from tests.drift.worlds import BEGIN_US, DAY_US, HOUR_US, camera, with_conditions, write
from tests.labels.folders.places import write_singles

_RECORDED = 240  # images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yard.write(tmp_path_factory.mktemp("yard"))


def test_the_terminal_shows_cameras_changes_and_what_else_changed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"{root}: 5 cameras, 3510 batches, 27180 images, 2026-06-01 00:00 to 2026-06-01 23:58" in out
    assert "cameras: 1 ok, 1 changed, 3 failing, 0 silent\n" in out
    lines = [line for line in out.splitlines() if line.startswith(("  failing ", "  changed "))]
    by_camera = {line.split()[1]: line for line in lines}
    assert "mix: empty street 0\u00a0% to 60\u00a0%" in by_camera["yard"]
    assert "objective .81 to 1.61; confidence .90 to .60" in by_camera["yard"]
    assert "-0.30 (-0.48 to -0.12, estimated)   1 of 4 other cameras moved the same way then: ramp" in by_camera["yard"]
    assert "rejects 0\u00a0% to 25\u00a0%; alpha .30 to .70; a silence" in by_camera["tunnel"]
    assert "   unknown   " in by_camera["tunnel"], "its cost cannot be told from nothing"
    assert "the camera was silent for 3 hours" in by_camera["tunnel"]
    assert "another model began to serve" in by_camera["dock"]


def test_a_calendar_is_a_line_in_text_and_a_list_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, knowing = (camera(5, number, days=4, searched=False) for number in range(2))
    hour = (knowing.columns["captured_at"] - BEGIN_US) // HOUR_US % 24
    night = np.where((hour < 6) | (hour >= 18), 1, 0)
    root = write(tmp_path / "yard", [plain, replace(with_conditions(knowing, night), name="cam[/2]")])
    assert main(["drift", str(root)]) == 0
    output = [line for line in capsys.readouterr().out.splitlines() if "condition" in line]
    (line,) = (line for line in output if "returns" in line)
    assert line.startswith("cam[/2]: 2 conditions, 7 returns; condition ")
    assert "condition 1 from 18 h to 6 h" in line
    assert main(["drift", str(root), "--json"]) == 0
    calendars = {each["stream_id"]: each["calendar"] for each in json.loads(capsys.readouterr().out)["cameras"]}
    assert calendars[plain.name] == {"count": 0, "returns": 0, "alarms": 0, "conditions": []}
    assert calendars["cam[/2]"]["returns"] == 7
    by_name = {each["name"]: each for each in calendars["cam[/2]"]["conditions"]}
    assert by_name["1"]["hours"] == [[18, 6]]
    assert {name: each["alarms"] for name, each in by_name.items()} == {"0": 0.0, "1": 1.0}


def test_a_camera_is_called_what_it_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich would read a name as its markup, in which `[/2]` is an error and `[bold]` and `:door:` are no text."""
    names = {"yard": "hall[/2]", "ramp": "[bold]gate[/bold]", "dock": ":door:"}
    root = yard.write(tmp_path / "output[/1]", called=names)
    assert main(["drift", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"{root}: 5 cameras" in out
    for name in names.values():
        assert out.count(f"\n  {name} ") + out.count(f"\n {name} ") >= 1, name
    assert max(map(len, out.splitlines())) > 80, "a pipe has room for every column"


def test_a_name_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"yard": "yard\x1b[2J", "ramp": "\u202egpj.pmar", "dock": "dock\rgate"}
    root = yard.write(tmp_path / "output", called=names)
    assert main(["drift", str(root), "--fail-if", "drift>0.1"]) == 3
    out = capsys.readouterr().out
    assert not {character for character in out if not character.isprintable()} - {"\n", "\u00a0"}
    assert "yard?[2J" in out


def test_groups_are_told_with_the_names_of_their_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    group = CameraGroup(("hall[/2]", "[bold]gate[/bold]"), 2, 0.01, "2 cameras moved the same way at 2 moments.")
    show(replace(a_yard(2), groups=(group,)), paper())
    assert "2 cameras moved the same way at 2 moments. (hall[/2], [bold]gate[/bold])" in capsys.readouterr().out


def test_what_shortlists_lack_is_named_with_the_remedy(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root)]) == 0
    output = capsys.readouterr().out
    sentence = "172 of 2880 images surely show 'truck', which is not on its shortlist"
    assert f"gate: {sentence}\n  -> where that is right, add the class to scene.shortlists" in output
    assert main(["drift", str(root), "--json"]) == 0
    found = {each["stream_id"]: each["lacking"] for each in json.loads(capsys.readouterr().out)["cameras"]}
    assert found == {name: [sentence] * (name == "gate") for name in yard.PLACES}
    many = [replace(camera, lacking=(f"class {n}",)) for n, camera in enumerate(a_yard(12).cameras)]
    show(replace(a_yard(12), cameras=tuple(many)), paper())
    output = capsys.readouterr().out
    assert (output.count(": class "), "and 4 more like it" in output, output.count("  -> ")) == (8, True, 1)


def test_json_has_everything_and_a_limit_ends_with_its_own_code(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root), "--json", "--fail-if", "drift>0.5,rejects>0.5"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert set(found["beyond"]["drift>0.5"]) == {"yard", "ramp"}
    assert found["beyond"]["rejects>0.5"] == {}
    assert found["cameras"][0]["stream_id"] in {"yard", "ramp"}
    assert found["cameras"][0]["changes"][0]["size"] == pytest.approx(-0.6, abs=0.05)
    assert "series" not in found["cameras"][0]
    first = found["events"][0]
    assert (first["stream_id"], first["measure"], first["shape"], first["severity"]) == (
        "yard",
        "mix",
        "step",
        "failing",
    )
    assert (first["since"], first["to"]) == ("2026-06-01T12:00:00+00:00", pytest.approx(0.6, abs=0.05))
    assert first["cost"]["how"] == "estimated"
    assert {event["incident"] for event in found["events"] if event["stream_id"] == "yard"} == {first["incident"]}
    assert found["fleet"] == {"ok": 1, "changed": 1, "failing": 3, "silent": 0}
    assert found["queries"]["series"].startswith("SELECT stream_id")
    assert found["command"] == f"adawise drift {root} --fail-if 'drift>0.5,rejects>0.5' --json"


def test_a_recording_gives_frames_to_what_happened_and_a_gallery(tmp_path: Path, root: Path) -> None:
    """Of the first partition alone, whose camera is the dock, and of its first hours."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(out, "PNG")
    write_singles(tmp_path / "recording", [(out.getvalue(), ())] * _RECORDED)
    page, printed = tmp_path / "page.html", tmp_path / "drift.json"
    words = ["--recording", str(tmp_path / "recording"), "-o", str(page)]
    with printed.open("w") as file, redirect_stdout(file):
        assert main(["drift", str(root), *words, "--json"]) == 0
    gallery = json.loads(printed.read_text())["gallery"]
    kinds = {frame["kind"]: frame for frame in gallery}
    assert [*kinds] == ["least confident", "endpoints disagree", "class"]
    assert {frame["stream_id"] for frame in gallery} == {"dock"}
    assert kinds["endpoints disagree"]["zero_shot"] != kinds["endpoints disagree"]["fine_tuned"]
    assert {frame["label"] for frame in gallery if frame["kind"] == "class"} == {"car", "bus"}
    rows = pq.read_table(root / "predictions" / "topic-frames" / "partition-00000").slice(0, _RECORDED)
    assert kinds["least confident"]["confidence"] == pytest.approx(pa.compute.min(rows["confidence"]).as_py())
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg') >= len(gallery)
    assert 'id="query-gallery"' in text


def test_a_limit_that_nobody_is_beyond_ends_well(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root), "--fail-if", "drift>0.9"]) == 0
    assert "drift>0.9: no camera exceeds it" in capsys.readouterr().out


def test_streams_and_times_narrow_what_is_looked_at(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    since = ["--since", "2026-06-01T12:30:00Z", "--until", "2026-06-01T20:00:00Z"]
    assert main(["drift", str(root), "--json", "--streams", "yard, dock", *since]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {camera["stream_id"]: len(camera["changes"]) for camera in found["cameras"]} == {"dock": 1, "yard": 0}


@pytest.mark.check("drift")
def test_a_camera_that_ended_is_silent_also_where_it_alone_is_looked_at(tmp_path: Path) -> None:
    still, dead = camera(60, 1, days=3, searched=False), camera(60, 2, days=3, searched=False)
    kept = dead.columns["captured_at"] < BEGIN_US + DAY_US
    dead = replace(dead, columns={name: each[kept] for name, each in dead.columns.items()}, counts=dead.counts[kept])
    folder = str(write(tmp_path / "yard", [still, dead]))
    assert analyse(folder).fleet["silent"] == 1
    assert analyse(folder, streams=["camera-002"]).fleet["silent"] == 1
    assert analyse(folder, streams=["camera-001"]).fleet["silent"] == 0
    by_then = datetime.fromtimestamp(BEGIN_US / 1e6, UTC) + timedelta(days=1)
    assert analyse(folder, streams=["camera-002"], until=by_then).fleet["silent"] == 0


def test_a_clock_that_is_ahead_makes_no_other_camera_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worlds = [camera(60, n, days=3, searched=False) for n in (1, 2)]
    worlds[0].columns["captured_at"][-3:] += 200 * 365 * DAY_US // 2
    root = str(write(tmp_path / "yard", worlds))
    assert main(["drift", root]) == 0
    out = capsys.readouterr().out
    assert "cameras: 2 ok, 0 changed, 0 failing, 0 silent" in out
    assert "note: 3 batches are left out, because their time is in the future: the clocks of camera-001 are" in out


def test_a_file_that_is_cut_off_is_told_with_who_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = yard.write(tmp_path / "yard")
    file = next((root / "traces").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["drift", str(root)]) == 1
    output = capsys.readouterr().err
    assert f"{file}" in output
    assert "`adawise verify`" in output


def test_one_batch_of_1970_is_said_to_hide_what_is_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = camera(60, 1, days=3, searched=False)
    world.columns["captured_at"][3] = 1000
    assert main(["drift", str(write(tmp_path / "yard", [world]))]) == 0
    assert "days are not found, since the data begin at 1970-01-01" in capsys.readouterr().out


def test_a_short_time_is_told_to_say_little(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root), "--until", "2026-06-01T03:00:00Z"]) == 0
    assert "note: 5 of 5 cameras have fewer than 128 batches: their changes are uncertain" in capsys.readouterr().out
    assert main(["drift", str(root)]) == 0
    assert "batches: their changes are uncertain" not in capsys.readouterr().out


def test_nothing_in_that_time_is_said_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root), "--since", "2030-01-01T00:00:00Z"]) != 0
    assert "there is no batch of these cameras in this time" in capsys.readouterr().err


def test_a_folder_that_no_worker_wrote_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(tmp_path)]) == 2
    assert f"there is no output of a worker in {tmp_path}" in capsys.readouterr().err


def test_a_time_that_ends_before_it_begins_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", str(root), "--since", "1d", "--until", "2d"]) != 0
    assert "expected since before until" in capsys.readouterr().err


@pytest.mark.parametrize(("ms", "code"), [(32_503_680_000_000, 0), (2**62, 1)])
def test_a_timestamp_that_is_no_time_is_not_believed_and_one_that_cannot_be_read_is_told_with_the_remedy(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ms: int, code: int
) -> None:
    """As earlier versions wrote them."""
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    path = min((copy / "traces").rglob("*.parquet"))
    rows = pq.ParquetFile(path).read()
    times = {name: rows[name].to_pylist() for name in ("captured_at", "kafka_timestamp")}
    times["captured_at"][7] = None
    times["kafka_timestamp"] = pa.array([*range(7), ms, *range(8, rows.num_rows)], rows["kafka_timestamp"].type)
    for name, values in times.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    pq.write_table(rows, path)
    assert main(["drift", str(copy)]) == code
    out, err = capsys.readouterr()
    assert ("2026-06-01 00:00 to 2026-06-01 23:58" in out) == (code == 0)
    assert ("`adawise replay` of that time" in err) == (code == 1)
    assert "Traceback" not in err


def test_a_wrong_limit_is_told_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "runs/nowhere", "--fail-if", "hope>1"]) == 2
    output = capsys.readouterr().err
    assert "--fail-if" in output
    assert "the name one of events" in output


def test_an_empty_zone_is_one_mistake_and_an_empty_output_of_diff_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "nowhere", "--time-zone", ""]) == 2
    assert "1 thing to correct" in capsys.readouterr().err
    assert main(["diff", "nowhere,", "elsewhere"]) == 2
    assert "expected folders or URLs separated by commas, got 'nowhere,'" in capsys.readouterr().err
