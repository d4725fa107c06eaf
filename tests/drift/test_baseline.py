"""A nightly report that learns from what was before: from the root, or from a baseline that it keeps."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import adawise
from adawise.__main__ import main
from adawise.errors import SettingsError
from adawise_drift.baseline import Baseline, merged, read_baseline, write_baseline
from adawise_drift.changes.times import HOUR_US
from tests.damage.hostile_parquet import little_memory, more_rows_than_there_are
from tests.drift.worlds import BEGIN_US, DAY_US, CameraWorld, camera, write

DAYS = 40
ODD = 31  # the night that differs, of one camera
SOME = (*range(9, ODD - 1, 4), *range(ODD - 1, ODD + 4), DAYS - 1)  # nights; those between are read with the next
EARLIER = Path(__file__).parents[1] / "fixtures" / "baseline_1.parquet"
Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


def noon(day: int) -> int:
    return BEGIN_US + day * DAY_US + DAY_US // 2


def a_night_that_differs(world: CameraWorld) -> CameraWorld:
    at = world.columns["captured_at"]
    odd = (at >= noon(ODD) + 8 * HOUR_US) & (at < noon(ODD) + 18 * HOUR_US)
    world.columns["alpha"][odd] = np.clip(0.9 - world.columns["alpha"][odd], 0.0, 1.0) ** 0.2
    world.columns["contrast_mean"][odd] -= 0.9
    world.columns["mean_confidence"][odd] -= 0.3
    return world


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies there of three cameras with days and nights."""
    worlds = [camera(60, n, days=DAYS, searched=False) for n in (1, 2, 3)]
    worlds[1] = a_night_that_differs(worlds[1])
    return write(tmp_path_factory.mktemp("yard"), worlds)


def reported(root: Path, captured: Captured, *arguments: str, expected: int = 0) -> dict[str, Any]:
    captured.readouterr()
    assert main(["drift", str(root), "--json", *arguments]) == expected
    found: dict[str, Any] = json.loads(captured.readouterr().out)
    return found


def measures(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(event["stream_id"], event["measure"]) for event in found["events"] if event["severity"] != "noted"}


def nightly(day: int, *more: str) -> Sequence[str]:
    """What the guide has, as if it were noon of that day."""
    return ["--since", moment(noon(day - 1)), "--until", moment(noon(day)), "--fail-if", "events>0", *more]


@dataclass(frozen=True)
class Learned:
    """A night, and the baseline after it."""

    reported: dict[str, Any]
    baseline: bytes


@pytest.fixture(scope="module")
def nights() -> dict[int, Learned]:
    """Those that `learn` has had, by day."""
    return {}


def learn(root: Path, captured: Captured, nights: dict[int, Learned], day: int, file: Path) -> dict[str, Any]:
    """Write the baseline of all cameras up to a day, which is learned once, and return what is told of its night."""
    if day not in nights:
        nights[day] = Learned(reported(root, captured, *nightly(day, "--baseline", str(file))), file.read_bytes())
    file.write_bytes(nights[day].baseline)
    return nights[day].reported


@pytest.mark.parametrize(
    ("days", "more"),
    [
        pytest.param(SOME, ["--baseline", "FILE"], marks=pytest.mark.check("drift")),
        # All thirty.
        pytest.param(range(9, DAYS), ["--baseline", "FILE"], marks=pytest.mark.check("drift")),
        (range(ODD - 1, ODD + 3), ["--reference", "8d"]),
    ],
)
def test_thirty_nights_are_quiet_but_for_the_one_that_differs_which_is_told_then(
    root: Path, tmp_path: Path, capsys: Captured, days: Sequence[int], more: list[str]
) -> None:
    more = [word.replace("FILE", str(tmp_path / "yard.baseline")) for word in more]
    by_day = {}
    for day in days:
        expected = 3 if day == ODD + 1 else 0
        by_day[day] = measures(reported(root, capsys, *nightly(day, *more), expected=expected))
    odd = by_day.pop(ODD + 1)
    assert {("camera-002", "confidence"), ("camera-002", "contrast")} <= odd
    assert {name for name, _ in odd} == {"camera-002"}
    assert set.union(*by_day.values()) == set()


def test_numbers_are_of_what_is_judged_and_the_baseline_of_what_was_before(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    file = tmp_path / "yard.baseline"
    alone = reported(root, capsys, "--since", moment(noon(11)), "--until", moment(noon(12)))
    kept = learn(root, capsys, nights, 12, file)
    assert [c["images"] for c in kept["cameras"]] == [c["images"] for c in alone["cameras"]]
    assert kept["judged_us"] == noon(11)
    baseline = read_baseline(file)
    assert baseline.until_us == noon(12) - HOUR_US, "the last hour may have more to come"
    assert file.stat().st_size < 300_000
    first_us = pq.read_table(file)["time_us"].to_numpy().min()
    assert BEGIN_US <= first_us < BEGIN_US + HOUR_US


@pytest.mark.check("drift")
def test_nights_that_were_left_out_are_read_with_the_next(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    kept, whole = tmp_path / "kept.baseline", tmp_path / "whole.baseline"
    for day in (10, 14):
        reported(root, capsys, *nightly(day, "--baseline", str(kept)))
    learn(root, capsys, nights, 14, whole)
    assert read_baseline(kept).hours.equals(read_baseline(whole).hours)


def test_baselines_are_put_together_and_an_hour_is_there_once(root: Path, tmp_path: Path, capsys: Captured) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    reported(root, capsys, *nightly(12, "--baseline", str(one), "--streams", "camera-001,camera-002"))
    reported(root, capsys, *nightly(12, "--baseline", str(other), "--streams", "camera-002,camera-003"))
    both = merged(read_baseline(one), read_baseline(other))
    assert set(both.hours["stream_id"].to_pylist()) == {"camera-001", "camera-002", "camera-003"}
    keys = [
        *zip(both.hours["stream_id"].to_pylist(), (both.hours["time_us"].to_numpy() // HOUR_US).tolist(), strict=True)
    ]
    assert len(set(keys)) == len(keys)
    found = reported(root, capsys, *nightly(13, "--baseline", str(one), "--streams", "camera-001"))
    assert [c["stream_id"] for c in found["cameras"]] == ["camera-001"]
    assert set(read_baseline(one).hours["stream_id"].to_pylist()) == {"camera-001", "camera-002"}, "it keeps others"


def test_what_is_no_baseline_is_refused_with_the_remedy(root: Path, tmp_path: Path, capsys: Captured) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not one")
    pq.write_table(pq.read_table(next((root / "traces").rglob("*.parquet"))), tmp_path / "traces.parquet")
    for file, expected in ((wrong, "cannot be read"), (tmp_path / "traces.parquet", "expected a baseline of format 1")):
        assert main(["drift", str(root), "--since", "1d", "--baseline", str(file)]) == 2
        error = capsys.readouterr().err
        assert f"--baseline {file}: {expected}" in error
        assert "Name another file, or remove it" in error
        assert file.stat().st_size
    assert main(["drift", str(root), "--baseline", str(tmp_path / "new")]) == 2
    assert "expected --since beside it" in capsys.readouterr().err


def test_a_baseline_that_states_too_many_rows_is_refused_before_memory_is_taken_for_them(tmp_path: Path) -> None:
    file = Path(shutil.copy(EARLIER, tmp_path))
    more_rows_than_there_are(file)
    with little_memory(), pytest.raises(SettingsError, match=r"states 268,435,456 rows.*Name another file"):
        read_baseline(file)


@pytest.mark.check("drift")
@pytest.mark.parametrize("more", [["--baseline", "FILE"], ["--reference", "8d"]])
def test_a_night_in_which_no_camera_sent_is_told_of_each_of_them(
    root: Path, tmp_path: Path, capsys: Captured, more: list[str]
) -> None:
    more = [word.replace("FILE", str(tmp_path / "yard.baseline")) for word in more]
    reported(root, capsys, *nightly(DAYS, *more))
    page = tmp_path / "silent.html"
    night = reported(root, capsys, *nightly(DAYS + 2, *more, "-o", str(page)), expected=3)
    assert night["fleet"] == {"ok": 0, "changed": 0, "failing": 0, "silent": 3}
    assert {(e["stream_id"], e["shape"], e["severity"]) for e in night["events"]} == {
        (f"camera-00{n}", "ended", "failing") for n in (1, 2, 3)
    }
    assert night["until_us"] == noon(DAYS + 2)
    assert all(camera["images"] == 0 for camera in night["cameras"])
    assert "3</b> silent" in page.read_text()
    alone = ["drift", str(root), "--since", moment(noon(DAYS + 1))]
    assert main(alone) == 2, "nobody knows of a camera"
    assert "there is no batch of these cameras in this time" in capsys.readouterr().err


def test_a_camera_that_the_baseline_knows_and_that_sent_nothing_is_told(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    file, copy = str(tmp_path / "yard.baseline"), tmp_path / "copy"
    learn(root, capsys, nights, 12, Path(file))
    shutil.copytree(root, copy)
    (gone,) = (copy / "traces" / "topic-frames" / "partition-00001").iterdir()
    gone.unlink()
    night = reported(copy, capsys, *nightly(13, "--baseline", file), expected=3)
    assert [(e["stream_id"], e["shape"]) for e in night["events"]] == [("camera-002", "ended")]
    assert night["fleet"]["silent"] == 1


@pytest.mark.check("drift")
def test_what_takes_nights_to_be_sure_of_is_told_once_it_is(tmp_path: Path, capsys: Captured) -> None:
    """Another mix of classes, which a day of 70 batches cannot tell from chance."""
    worlds = [camera(62, n, kinds=kinds, days=24, searched=False) for n, kinds in ((12, ("mix_step",)), (13, ()))]
    (happening,) = worlds[0].happenings
    root, file = write(tmp_path / "yard", worlds), str(tmp_path / "yard.baseline")
    begun = (happening.since_us - BEGIN_US - DAY_US // 2) // DAY_US + 1
    nights = [has_reported(root, capsys, *nightly(day, "--baseline", file)) for day in range(begun - 2, begun + 7)]
    first = next(n for n, night in enumerate(nights) if ("camera-012", "mix") in measures(night))
    assert first > 2, "the first night after it began has too little of it"
    assert all(("camera-012", "mix") not in measures(night) for night in nights[first + 1 :]), "it is told once"


def has_reported(root: Path, captured: Captured, *arguments: str) -> dict[str, Any]:
    """Whatever it says."""
    captured.readouterr()
    assert main(["drift", str(root), "--json", *arguments]) in {0, 3}
    found: dict[str, Any] = json.loads(captured.readouterr().out)
    return found


def test_a_baseline_is_of_its_root_and_its_copies_and_of_two_that_were_named_once(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    file, other = tmp_path / "yard.baseline", tmp_path / "other"
    learn(root, capsys, nights, 12, file)
    shutil.copytree(root, tmp_path / "copy")
    reported(tmp_path / "copy", capsys, *nightly(13, "--baseline", str(file)))
    write(other, [camera(60, 9, days=15, searched=False)])
    was = file.read_bytes()
    assert main(["drift", str(other), *nightly(14, "--baseline", str(file))]) == 2
    error = capsys.readouterr().err
    assert f"--baseline {file}: expected one that was learned from {other}" in error
    assert "Name another file" in error
    assert "name both outputs once" in error
    assert file.read_bytes() == was
    ids = {json.loads((each / "_sink.json").read_text())["sink"] for each in (root, other)}
    (roots,) = {read_baseline(file).roots}
    assert roots < ids
    both = merged(read_baseline(file), Baseline(read_baseline(file).hours, frozenset(ids)))
    write_baseline(file, both)
    assert read_baseline(file).roots == ids
    has_reported(other, capsys, *nightly(14, "--baseline", str(file)))


def test_a_baseline_of_an_earlier_version_is_read_and_gets_the_id(root: Path, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "yard.baseline"
    shutil.copy(EARLIER, file)
    assert read_baseline(file).roots == frozenset()
    has_reported(root, capsys, *nightly(5, "--baseline", str(file)))
    assert len(read_baseline(file).roots) == 1


def test_a_reference_of_less_than_a_day_is_refused_with_what_is_the_least(root: Path, capsys: Captured) -> None:
    assert main(["drift", str(root), "--since", "1d", "--reference", "1h"]) == 2
    assert "expected a day or more, such as 1d, 36h or 28d" in capsys.readouterr().err


@pytest.mark.check("drift")
def test_night_after_night_in_which_no_camera_sends_is_told(root: Path, tmp_path: Path, capsys: Captured) -> None:
    file = str(tmp_path / "yard.baseline")
    reported(root, capsys, *nightly(DAYS - 1, "--baseline", file))
    for day in (DAYS + 1, DAYS + 2, DAYS + 3):
        found = reported(root, capsys, *nightly(day, "--baseline", file), expected=3)
        assert found["fleet"] == {"ok": 0, "changed": 0, "failing": 0, "silent": 3}, day


@pytest.mark.check("drift")
def test_tables_of_a_night_in_which_no_camera_sent_are_empty(root: Path, tmp_path: Path) -> None:
    def night(day: int) -> adawise.Analysis:
        since, until = moment(noon(day - 1)), moment(noon(day))
        return adawise.analyse(str(root), since=since, until=until, baseline=tmp_path / "yard.baseline")

    last, *_, silent = [night(day) for day in (DAYS, DAYS + 2, DAYS + 3)]
    assert silent.fleet["silent"] == 3
    assert len(last.series) > len(silent.series) == 0
    assert silent.series.arrow.schema == last.series.arrow.schema


def test_a_baseline_that_is_written_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    stale, fresh, foreign = (tmp_path / f".tmp-{name}" for name in ("0a" * 16, "0b" * 16, "of-another-program"))
    for path in (stale, fresh, foreign):
        path.write_bytes(b"half")
    for path in (stale, foreign):
        os.utime(path, (1e9, 1e9))
    write_baseline(tmp_path / "yard.baseline", read_baseline(EARLIER))
    assert sorted(tmp_path.iterdir()) == sorted([fresh, foreign, tmp_path / "yard.baseline"])
    assert read_baseline(tmp_path / "yard.baseline").hours.equals(read_baseline(EARLIER).hours)
    with pytest.raises(SettingsError, match=r"none/yard.baseline: cannot be written .* Name a file in a folder that"):
        write_baseline(tmp_path / "none" / "yard.baseline", read_baseline(EARLIER))
    assert not (tmp_path / "none").exists()


def test_a_baseline_on_a_disk_that_is_only_read_is_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(pq, "write_table", refuses)
    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(SettingsError, match=r"yard.baseline: cannot be written .Read-only file system."):
        write_baseline(tmp_path / "yard.baseline", read_baseline(EARLIER))


def test_a_look_at_one_camera_takes_no_night_from_the_others(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    kept, other = tmp_path / "kept.baseline", tmp_path / "other.baseline"
    for file in (kept, other):
        learn(root, capsys, nights, 12, file)
    found = reported(root, capsys, *nightly(13, "--baseline", str(kept), "--streams", "camera-001"))
    assert f"--baseline {kept} is of all cameras" in found["notes"][0]
    assert kept.read_bytes() == other.read_bytes()
    first, second = (reported(root, capsys, *nightly(14, "--baseline", str(file))) for file in (kept, other))
    assert first["events"] == second["events"]
    assert read_baseline(kept).hours.equals(read_baseline(other).hours)


@pytest.mark.check("drift")
def test_a_baseline_of_some_cameras_is_learned_anew_for_all(
    root: Path, tmp_path: Path, capsys: Captured, nights: dict[int, Learned]
) -> None:
    some, whole = tmp_path / "some.baseline", tmp_path / "whole.baseline"
    reported(root, capsys, *nightly(12, "--baseline", str(some), "--streams", "camera-001"))
    reported(root, capsys, *nightly(13, "--baseline", str(some), "--streams", "camera-001"))
    assert read_baseline(some).streams == frozenset({"camera-001"})
    for found in (
        reported(root, capsys, *nightly(14, "--baseline", str(some))),
        learn(root, capsys, nights, 14, whole),
    ):
        assert not any("--baseline" in note for note in found["notes"])
    assert read_baseline(some).hours.equals(read_baseline(whole).hours)
    assert read_baseline(some).streams is None
