"""`adawise retain` as an operator calls it, its neighbours on a root that it cut, kills, earlier versions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path

import pytest
import structlog

import adawise
from adawise.__main__ import main
from adawise.app import worker
from adawise.app.worker import housekeeping
from adawise.output.compaction import retain
from adawise.output.compaction.retain import FAILPOINTS
from adawise.output.verify.root import verify
from adawise.records import TopicPartition
from adawise.settings import Settings, SinkSettings
from adawise.sink import layout
from adawise.sink.files import data_keys, segment_names
from adawise.sink.layout import SegmentName
from adawise.store.store import LocalStore
from tests.dying import exit_code
from tests.sink.stored import read_predictions
from tests.watch.status.yard import Yard

Captured = pytest.CaptureFixture[str]
TP = TopicPartition("frames", 0)
DAY_S = 86_400.0

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


DAYS, KEPT = 14, 10  # of a segment each


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[date], Path]:
    """By the day that it is: days of a segment each, of two partitions; files as old as what is in them."""

    @cache
    def made(day: date) -> Path:
        folder = tmp_path_factory.mktemp("written")
        store, now_s = LocalStore(folder), datetime.combine(day, time(12), UTC).timestamp()
        yard = Yard(store, now_s=now_s)
        for partition in (0, 1):
            for days in range(DAYS, 0, -1):
                key = yard.write(partition, ago_s=days * DAY_S, batches=[("north", 4, 0.5)])
                for path in (folder / key, folder / layout.traces_key(key)):
                    os.utime(path, (now_s - days * DAY_S,) * 2)
        return folder

    return made


@pytest.fixture
def root(written: Callable[[date], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, today, and for all of the test."""
    now = datetime.now(UTC)
    for module in (retain, worker):
        monkeypatch.setattr(module, "now_of", lambda store: now)
    return Path(shutil.copytree(written(now.date()), tmp_path / "yard"))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_says_first_what_would_go_and_removes_it_with_yes(root: Path, capsys: Captured) -> None:
    before = contents(root)
    assert main(["retain", str(root), "--keep", "10d"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("frames/0: 8 files, 16 rows")
    assert "it would begin at offset 16" in out
    assert "nothing was changed; to remove it, add --yes" in out
    assert contents(root) == before
    assert main(["retain", str(root), "--keep", "10d", "--json"]) == 0
    [one, _] = json.loads(capsys.readouterr().out)["partitions"]
    assert (one["partition"], one["begins"], one["files"], one["rows"]) == (0, 16, 8, 16)
    assert one["bytes"] == sum(len(before[key]) for key in before if "partition-00000/" in key and _offset(key) < 16)
    assert main(["retain", str(root), "--keep", "10d", "--yes"]) == 0
    assert "removed 16 files of 2 partitions, 32 rows" in capsys.readouterr().out
    assert read_predictions(LocalStore(root)).num_rows == 80
    assert main(["retain", str(root), "--keep", "10d", "--yes"]) == 0
    assert "nothing that was committed before" in capsys.readouterr().out
    assert main(["verify", str(root)]) == 0
    out = capsys.readouterr().out
    assert "is whole: 20 segments of 2 partitions, 80 rows" in out
    assert "frames/1: begins where retention cut it" in out
    assert main(["verify", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chains"][0]["retained"]["rows"] == 16
    assert main(["repair", str(root)]) == 0
    assert main(["compact", str(root)]) == 0
    assert main(["verify", str(root)]) == 0
    capsys.readouterr()
    main(["status", "--root", str(root), "--no-broker", "--json"])
    assert [each["holes"] for each in json.loads(capsys.readouterr().out)["partitions"]] == [[], []]


def _offset(key: str) -> int:
    named = layout.parse_key(key)
    return 10**9 if named is None else named[1].first


def test_less_than_a_day_or_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: Captured) -> None:
    assert main(["retain", str(tmp_path), "--keep", "1h"]) == 2
    assert "--keep" in capsys.readouterr().err
    assert main(["retain", str(tmp_path), "--keep", "7d", "--yes"]) == 2
    assert "there is no output of a worker" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_diff_of_a_retained_root_with_its_copy_compares_what_both_have(
    root: Path, tmp_path: Path, capsys: Captured
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    assert main(["retain", str(root), "--keep", "10d", "--yes"]) == 0
    capsys.readouterr()
    assert main(["diff", str(root), str(tmp_path / "copy")]) == 0
    assert "80" in capsys.readouterr().out


def test_a_damaged_claim_is_named_and_keeps_no_other_partition_from_its_turn(root: Path, capsys: Captured) -> None:
    store, other = LocalStore(root), TopicPartition("frames", 1)
    before = [key for key in store.list(layout.PREDICTIONS) if "partition-00000" in key]
    claim = root / layout.retained_key(TP, segment_names(store, TP)[-1])
    claim.parent.mkdir(parents=True)
    claim.write_bytes(b"")
    assert main(["retain", str(root), "--keep", "10d", "--yes"]) == 1
    out, err = capsys.readouterr()
    assert "removed" in out
    assert "_retained/topic-frames/partition-00000/" in err
    assert [key for key in store.list(layout.PREDICTIONS) if "partition-00000" in key] == before
    assert len(segment_names(store, other)) < DAYS


COMMANDS = (
    "files ROOT",
    "files ROOT --json",
    "files ROOT --table traces --json",
    "retain ROOT --keep 10d --json",
    "retain ROOT --keep 10d",
    "compact ROOT --dry-run --json",
    "compact ROOT",
    "diff ROOT COPY --json",
    "repair ROOT",
    "verify ROOT --json",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_claim_that_hides_a_partition_is_named_once_by_each_command_and_removes_nothing(
    root: Path, tmp_path: Path, capsys: Captured, command: str
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    key = layout.retained_key(TP, SegmentName(10**9))
    LocalStore(root).create(key, b"garbage")
    before = set(root.rglob("*.parquet"))
    places = {"ROOT": str(root), "COPY": str(tmp_path / "copy")}
    code = main([places.get(word, word) for word in command.split()])
    out, err = capsys.readouterr()
    named = [line for line in err.splitlines() if "claim_damaged" in line]
    assert [key in line for line in named] == [True]
    assert "verify" in named[0]
    assert code == (3 if command.split()[0] in {"repair", "verify"} else 0)
    if "--json" in command:
        json.loads(out)
    if command.startswith("repair"):
        assert f"beyond repair: {root}: {key}" in out
        assert "nothing to repair" not in out
    assert before <= set(root.rglob("*.parquet"))


def test_a_program_that_reads_a_root_with_a_damaged_claim_gets_a_python_warning(root: Path, capsys: Captured) -> None:
    structlog.reset_defaults()  # as in a program that only imports this one
    key = layout.retained_key(TP, SegmentName(10**9))
    LocalStore(root).create(key, b"garbage")
    with pytest.warns(UserWarning, match=re.escape(f"{root}: {key}: expected a claim")):
        rows = adawise.read_predictions(root)
    assert len(rows) == DAYS * 4, "the other partition"
    assert capsys.readouterr().out == ""


def remove_and_die(root: Path, fatal: str, nth: int) -> None:
    """Remove what is older than ten days, and be killed where that failpoint is passed for the nth time."""
    store, now, left = LocalStore(root), datetime.now(UTC), nth

    def die(point: str) -> None:
        nonlocal left
        left -= point == fatal
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    what = retain.removal(store, TP, before=(now - timedelta(days=KEPT)).date(), now=now)
    assert what is not None
    for _ in retain.remove(store, what, failpoint=die):
        pass


@pytest.mark.parametrize("point", [point for point in FAILPOINTS if point != "retain.forgotten"])
def test_a_process_that_is_killed_leaves_a_root_that_is_whole(root: Path, point: str) -> None:
    store = LocalStore(root)
    assert exit_code(remove_and_die, root, point, 2 if point == "retain.removed" else 1) == -signal.SIGKILL
    assert verify(store) == []
    rows = read_predictions(store).num_rows
    assert rows == (112 if point == "retain.planned" else 96)
    assert main(["retain", str(root), "--keep", "10d", "--yes"]) == 0
    assert verify(store) == []
    assert read_predictions(store).num_rows == 80
    assert not [key for key in store.list("") if _offset(key) < 16]


def test_a_worker_s_setting_does_the_same_in_the_course_of_its_passes(root: Path) -> None:
    keeper = housekeeping(Settings(sink=SinkSettings(root=str(root), keep="10d")))  # type: ignore[arg-type]
    assert keeper is not None
    assert housekeeping(Settings()) is None
    store = LocalStore(root)
    assert keeper._remove(TP, lambda: True) == 0
    assert read_predictions(store).num_rows == 112
    assert keeper._remove(TP, lambda: False) > 0
    assert len(segment_names(store, TP)) == 10
    assert verify(store) == []


@pytest.mark.parametrize("fixture", ["root_0_1_0", "before_0_2"])
def test_outputs_of_earlier_versions_are_retained_too(
    fixture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(__file__).parents[1] / "fixtures" / fixture / "root"
    shutil.copytree(folder, tmp_path / "root")
    store, tps = LocalStore(tmp_path / "root"), set()
    before = len(data_keys(store))
    for key in store.list(layout.PREDICTIONS):
        named = layout.parse_key(key)
        assert named is not None
        tps.add(named[0])
    later = datetime.now(UTC) + timedelta(days=40)
    removed = 0
    for tp in tps:
        what = retain.removal(store, tp, before=later.date(), now=later)
        removed += 0 if what is None else len([*retain.remove(store, what)])
    assert verify(store) == []
    assert removed == 0 or len(data_keys(store)) < before
