"""`adawise compact` and `adawise files` as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from adawise.__main__ import main
from adawise.output.compaction import delete
from adawise.output.verify.root import verify
from adawise.sink import layout
from adawise.sink.files import data_keys, segment_names
from adawise.store.store import LocalStore
from tests.output.compaction.building import Days
from tests.process_log import fill, mounted
from tests.sink.building import TP, DictStore
from tests.sink.stored import read_predictions

Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days in 18 segments."""
    folder, store = tmp_path_factory.mktemp("template") / "yard", DictStore()
    Days(store).commit(18)
    for key, data in store.objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "runs" / "yard"))


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def compact(*options: str) -> int:
    return main(["compact", "runs/yard", "--before", "2026-12-01", *options])


def test_it_says_what_it_made_and_writes_the_views(root: Path, capsys: Captured) -> None:
    assert compact() == 0
    out, err = capsys.readouterr()
    first, last = out.splitlines()
    assert first.startswith("runs/yard: made 3 files of 17 segments, ")
    assert " KiB of segments -> " in first
    assert last == (
        "readers need 4 files of predictions: list them with `adawise files runs/yard`, or use its views.sql in DuckDB"
    )
    assert err.startswith("compacted ")
    assert f"'{root.resolve()}'" in (root / "views.sql").read_text()


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(root: Path, capsys: Captured) -> None:
    before = files_of(root)
    assert compact("--dry-run", "--delete-after", "1") == 0
    assert files_of(root) == before
    *planned, summary = capsys.readouterr().out.splitlines()
    assert len(planned) == 3
    assert planned[0].startswith("frames/3: 6 segments, ")
    assert " rows -> 2026-11-21_00000000000000000000-" in planned[0]
    assert summary.startswith("runs/yard: would make 3 files of 17 segments, ")


def test_as_json_it_is_data(root: Path, capsys: Captured) -> None:
    assert compact("--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["root"], document["dry_run"], document["segments"], document["deleted"]) == (
        "runs/yard",
        False,
        17,
        0,
    )
    assert document["rows"] == sum(made["rows"] for made in document["made"])
    assert document["files_to_read"] == len(data_keys(LocalStore(root))) == 4
    assert document["bytes_after"] > 0


def test_segments_are_deleted_only_when_their_time_has_come(root: Path, capsys: Captured) -> None:
    rows = read_predictions(LocalStore(root)).sort_by("row_id")
    assert compact("--delete-after", "1") == 0
    assert len(segment_names(LocalStore(root), TP)) == 18
    _made_long_ago(root)
    capsys.readouterr()
    assert compact("--delete-after", "1h", "--dry-run") == 0
    assert "would delete 14 segments that have been compacted" in capsys.readouterr().out
    assert compact("--delete-after", "1h") == 0
    assert "\ndeleted 14 segments that have been compacted\n" in capsys.readouterr().out
    assert len(segment_names(LocalStore(root), TP)) == 4
    assert read_predictions(LocalStore(root)).sort_by("row_id").equals(rows)


@pytest.mark.parametrize(
    ("after", "is_over"),
    [("1d", True), ("47h", True), ("47", True), ("46.5", True), ("3d", False), ("49h", False), ("72", False)],
)
def test_the_time_has_a_unit_and_a_bare_number_is_of_hours_as_up_to_0_2(
    root: Path, capsys: Captured, after: str, is_over: bool
) -> None:
    assert compact() == 0
    _made_long_ago(root, time.time() - 2 * 86_400.0)
    capsys.readouterr()
    assert compact("--delete-after", after, "--dry-run") == 0
    assert ("would delete 14 segments" in capsys.readouterr().out) == is_over


def test_a_compactor_whose_clock_is_hours_ahead_deletes_nothing_before_its_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=5)

    monkeypatch.setattr(delete, "datetime", Ahead)
    assert compact("--delete-after", "1") == 0
    assert len(segment_names(LocalStore(root), TP)) == 18
    assert not list(root.glob("_clock*"))


def _made_long_ago(root: Path, at_s: float = 1e9) -> None:
    """By the clock of the folder; what the compactor's own clock showed then does not matter."""
    for path in (root / "compacted").rglob("*.parquet"):
        os.utime(path, (at_s, at_s))


def test_the_list_of_files_is_what_readers_need(root: Path, capsys: Captured) -> None:
    compact()
    capsys.readouterr()
    assert main(["files", "runs/yard"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == [f"runs/yard/{key}" for key in data_keys(LocalStore(root))]
    assert all(Path(name).is_file() for name in names)
    assert main(["files", "runs/yard", "--table", "traces", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(names)


def test_files_lists_no_name_that_could_move_a_terminal_s_cursor(root: Path, capsys: Captured) -> None:
    [segment, *_] = sorted((root / "predictions" / "topic-frames").rglob("*.parquet"))
    for name in ("topic-ev\x1b[2Jil", "topic-ev\u202eil", "topic-ev\nil"):
        folder = root / "predictions" / name / "partition-00000"
        folder.mkdir(parents=True)
        shutil.copy(segment, folder / segment.name)
    assert main(["files", "runs/yard"]) == 0
    out = capsys.readouterr().out
    assert "evil" not in out
    assert out.replace("\n", "").isprintable()
    assert all(Path(name).is_file() for name in out.splitlines())


@pytest.mark.parametrize("command", ["compact", "files"])
def test_a_folder_that_no_worker_wrote_to_is_named(command: str, tmp_path: Path, capsys: Captured) -> None:
    assert main([command, "nowhere"]) == 2
    assert capsys.readouterr().err == (
        "adawise: there is no output of a worker in nowhere; name the folder of sink.root or -o\n"
    )


def test_a_damaged_segment_is_named_with_the_remedy(root: Path, capsys: Captured) -> None:
    key = layout.segment_key(TP, segment_names(LocalStore(root), TP)[3])
    (root / key).write_bytes((root / key).read_bytes()[:-9])
    assert compact() == 1
    err = capsys.readouterr().err
    assert f"adawise: segment {key}: expected a readable Parquet file" in err
    assert "restore the file from a backup" in err


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--before", "yesterday", "expected a day such as 2026-11-25"),
        ("--max-rows", "0", "expected a whole number from 1"),
        ("--delete-after", "0.5", "expected an hour or more, such as 24h or 7d"),
        ("--delete-after", "30m", "expected an hour or more, such as 24h or 7d"),
        ("--delete-after", "nan", "expected an hour or more, such as 24h or 7d"),
        ("--delete-after", "a week", "expected an hour or more, such as 24h or 7d"),
    ],
)
def test_a_wrong_option_is_told(root: Path, capsys: Captured, flag: str, value: str, expected: str) -> None:
    assert compact(flag, value) == 2
    assert expected in capsys.readouterr().err


def test_on_a_full_disk_it_ends_leaves_the_root_whole_and_goes_on_once_there_is_room(
    template: Path, tmp_path: Path, capsys: Captured
) -> None:
    with mounted(tmp_path / "runs", "size=4m") as disk:
        root = Path(shutil.copytree(template, disk / "yard"))
        before = files_of(root)
        fill(disk / "ballast")
        assert compact() == 1
        assert "expected room for a file, but: No space left on device; free space" in capsys.readouterr().err
        assert files_of(root) == before  # also no part of a file
        (disk / "ballast").unlink()
        assert compact() == 0
        assert capsys.readouterr().out.startswith("runs/yard: made 3 files of 17 segments, ")
        assert verify(LocalStore(root)) == []
