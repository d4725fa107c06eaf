"""A nightly report that learns from what was before: from the root, or from a baseline that it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from adawise.__main__ import main
from adawise.drift.baseline import HOUR_US, merged, read_baseline
from tests.drift.worlds import BEGIN_US, DAY_US, CameraWorld, camera, write

DAYS = 16
NIGHT = 13  # the one that differs, of one camera
Captured = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


def noon(day: int) -> int:
    return BEGIN_US + day * DAY_US + DAY_US // 2


def a_night_that_differs(world: CameraWorld) -> CameraWorld:
    at = world.columns["captured_at"]
    odd = (at >= noon(NIGHT) + 8 * HOUR_US) & (at < noon(NIGHT) + 18 * HOUR_US)
    world.columns["alpha"][odd] = np.clip(0.9 - world.columns["alpha"][odd], 0.0, 1.0) ** 0.2
    world.columns["contrast_mean"][odd] -= 0.9
    world.columns["mean_confidence"][odd] -= 0.3
    return world


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What lies there at noon of each day, of three cameras with days and nights."""
    worlds = [camera(60, n, days=DAYS, searched=False) for n in (1, 2, 3)]
    worlds[1] = a_night_that_differs(worlds[1])
    folder = tmp_path_factory.mktemp("roots")
    return {day: write(folder / str(day), worlds, noon(day)) for day in range(9, DAYS)}


def told(root: Path, captured: Captured, *arguments: str, expected: int = 0) -> dict[str, Any]:
    captured.readouterr()
    assert main(["drift", str(root), "--json", *arguments]) == expected
    found: dict[str, Any] = json.loads(captured.readouterr().out)
    return found


def measures(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(event["stream_id"], event["measure"]) for event in found["events"] if event["severity"] != "noted"}


def nightly(day: int, *more: str) -> Sequence[str]:
    return ["--since", moment(noon(day - 1)), "--fail-if", "events>0", *more]


@pytest.mark.parametrize("way", ["reference", "baseline"])
def test_the_nightly_report_is_quiet_but_for_the_night_that_differs(
    roots: dict[int, Path], tmp_path: Path, capsys: Captured, way: str
) -> None:
    more = ["--reference", "8d"] if way == "reference" else ["--baseline", str(tmp_path / "yard.baseline")]
    by_day = {}
    for day, root in roots.items():
        is_odd = day == NIGHT + 1
        by_day[day] = measures(told(root, capsys, *nightly(day, *more), expected=3 if is_odd else 0))
    odd = by_day.pop(NIGHT + 1)
    assert {("camera-002", "confidence"), ("camera-002", "contrast")} <= odd
    assert {name for name, _ in odd} == {"camera-002"}
    assert set.union(*by_day.values()) == set()


def test_numbers_are_of_what_is_judged_and_the_baseline_of_what_was_before(
    roots: dict[int, Path], tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "yard.baseline"
    alone = told(roots[12], capsys, "--since", moment(noon(11)))
    kept = told(roots[12], capsys, *nightly(12, "--baseline", str(file)))
    assert [c["images"] for c in kept["cameras"]] == [c["images"] for c in alone["cameras"]]
    assert kept["judged_us"] == noon(11)
    baseline = read_baseline(file)
    assert baseline.until_us == noon(12) - HOUR_US, "the last hour may have more to come"
    assert file.stat().st_size < 300_000
    first_us = pq.read_table(file)["time_us"].to_numpy().min()
    assert BEGIN_US <= first_us < BEGIN_US + HOUR_US


def test_nights_that_were_left_out_are_read_with_the_next(
    roots: dict[int, Path], tmp_path: Path, capsys: Captured
) -> None:
    kept, whole = tmp_path / "kept.baseline", tmp_path / "whole.baseline"
    for day in (10, 14):
        told(roots[day], capsys, "--since", moment(noon(day - 1)), "--baseline", str(kept))
    told(roots[14], capsys, "--since", moment(noon(13)), "--baseline", str(whole))
    assert read_baseline(kept).hours.equals(read_baseline(whole).hours)


def test_baselines_are_put_together_and_an_hour_is_there_once(
    roots: dict[int, Path], tmp_path: Path, capsys: Captured
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    told(roots[12], capsys, "--since", moment(noon(11)), "--baseline", str(one), "--streams", "camera-001,camera-002")
    told(roots[12], capsys, "--since", moment(noon(11)), "--baseline", str(other), "--streams", "camera-002,camera-003")
    both = merged(read_baseline(one), read_baseline(other))
    assert set(both.hours["stream_id"].to_pylist()) == {"camera-001", "camera-002", "camera-003"}
    keys = [
        *zip(both.hours["stream_id"].to_pylist(), (both.hours["time_us"].to_numpy() // HOUR_US).tolist(), strict=True)
    ]
    assert len(set(keys)) == len(keys)
    found = told(roots[13], capsys, *nightly(13, "--baseline", str(one), "--streams", "camera-001"))
    assert [c["stream_id"] for c in found["cameras"]] == ["camera-001"]
    assert set(read_baseline(one).hours["stream_id"].to_pylist()) == {"camera-001", "camera-002"}, "it keeps others"


def test_what_is_no_baseline_is_refused_with_the_remedy(
    roots: dict[int, Path], tmp_path: Path, capsys: Captured
) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not one")
    pq.write_table(pq.read_table(next((roots[12] / "traces").rglob("*.parquet"))), tmp_path / "traces.parquet")
    for file, said in ((wrong, "cannot be read"), (tmp_path / "traces.parquet", "expected a baseline of format 1")):
        assert main(["drift", str(roots[12]), "--since", "1d", "--baseline", str(file)]) == 2
        error = capsys.readouterr().err
        assert f"--baseline {file}: {said}" in error
        assert "Name another file, or remove it" in error
        assert file.stat().st_size
    assert main(["drift", str(roots[12]), "--baseline", str(tmp_path / "new")]) == 2
    assert "expected --since beside it" in capsys.readouterr().err
