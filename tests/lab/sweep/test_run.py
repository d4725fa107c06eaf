"""A sweep: which shards are run again, and that a failed variant does not stop the others."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.app.signals import StopRequest
from adawise.console import Lines
from adawise.errors import AdawiseError, SettingsError
from adawise.replay.claim import is_finished
from adawise.replay.replay import ReplayRequest
from adawise.settings import Settings
from adawise.sink import layout
from adawise_lab.sweep import run
from adawise_lab.sweep.grid import parse_grid
from adawise_lab.sweep.run import SweepRequest, settings_of, sweep
from adawise_lab.sweep.table import figures
from tests.deadlines import DEADLINE_S
from tests.lab.sweep.children import run_shard, sweep_until_killed
from tests.models import PairFolder
from tests.replay import crowd, runs

NEVER = StopRequest(lambda: None)
GRID = "search.strategy=warm,fixed,grid"


@contextmanager
def unshown(total: int) -> Iterator[Lines]:
    yield Lines("replayed", total, "shards", write=lambda _: None)


def test_a_shard_that_is_killed_is_tried_again_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_replay_shard", run_shard)
    monkeypatch.setattr(run, "_PRELOADED", ["tests.lab.sweep.children"])
    monkeypatch.setattr(run, "is_finished", lambda root: "/done/" in root)
    kinds = ["well", "killed", "fails", "killed once", "ended once", "done"]
    tasks = [
        run._Task(number, ReplayRequest(Settings(), str(tmp_path / kind), kind, shard=shard))
        for number, kind in enumerate(kinds)
        for shard in range(2)
    ]
    lines = Lines("replayed", len(tasks), "shards", write=lambda _: None)
    found = dict(run._failures(deque(tasks), 1, NEVER, lines))
    assert found == {1: "shard 0: its process ended 3 times, the last one with -9", 2: "shard 0: no such pair"}
    starts = {kind: (tmp_path / kind).read_text().split() for kind in kinds if (tmp_path / kind).exists()}
    assert starts == {"well": ["0", "1"], "killed": ["0"] * 3, "fails": ["0"], "killed once": ["0", "0", "1"]} | {
        "ended once": ["0", "0", "1"]
    }
    assert lines._done == len(tasks)


def test_all_mistakes_in_the_values_of_a_grid_are_in_one_error(pair_folder: PairFolder) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_of(
            crowd.settings(pair_folder), parse_grid("search.strategy=warm,best search.price=x,.1 batch.images=0")
        )
    problems = [line.split(" =")[0].strip(" -") for line in str(refused.value).splitlines() if "(flag --grid)" in line]
    assert sorted(problems) == ["batch.images", "search.price", "search.strategy"]


def test_a_variant_has_its_values_and_all_others_of_the_shared_settings(pair_folder: PairFolder) -> None:
    shared = crowd.settings(pair_folder)
    first, second = settings_of(shared, parse_grid("search.price=.5 decode.threads=none,3"))
    keeping = shared.model_copy(update={"sink": shared.sink.model_copy(update={"keep": 864_000.0})})
    assert settings_of(keeping, parse_grid("search.price=.5"))[0].sink.keep == 864_000.0
    assert first.model_copy(update={"search": shared.search, "decode": shared.decode}) == shared
    assert (first.search.price, first.search.explore_images) == (0.5, shared.search.explore_images)
    assert (first.decode.threads, second.decode.threads) == (None, 3)


@pytest.mark.parametrize("other", ["grid", "recording", "shards", "settings", "root"])
def test_a_folder_of_something_else_is_refused_and_nothing_is_written(
    other: str, tmp_path: Path, pair_folder: PairFolder
) -> None:
    recording = crowd.record(tmp_path / "recording")
    request = SweepRequest(crowd.settings(pair_folder), str(recording), str(tmp_path / "out"), parse_grid(GRID))
    run._claimed(request, 1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / layout.PLAN).write_text("{}")
    changed: dict[str, Any] = {
        "grid": replace(request, variants=parse_grid("search.strategy=warm")),
        "recording": replace(request, recording="elsewhere"),
        "shards": replace(request, shards=3),
        "settings": replace(request, settings=crowd.settings(pair_folder, batch={"images": 3})),
        "root": replace(request, output=str(tmp_path / "root")),
    }
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=r"holds .*new folder"):
        sweep(changed[other], stop=NEVER, shown=unshown)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("none.csv", "expected a file of labels, but there is none"),
        (".", "expected 1 to 4000 files such as 2026-06-01.csv"),
        ("s3://labels/a.csv", "expected a file of labels on this machine"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_before_anything_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], labels: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "recording", "-o", "out", "--grid", GRID, "--labels", labels]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recording_that_cannot_be_read_claims_nothing(tmp_path: Path, pair_folder: PairFolder) -> None:
    request = SweepRequest(crowd.settings(pair_folder), str(tmp_path / "no"), str(tmp_path / "out"), parse_grid(GRID))
    with pytest.raises(AdawiseError, match="no"):
        sweep(request, stop=NEVER, shown=unshown)
    assert not (tmp_path / "out" / run.SWEEP).exists()


def test_a_shard_is_finished_once_nothing_is_left_to_do(tmp_path: Path, pair_folder: PairFolder) -> None:
    recording, output = crowd.record(tmp_path / "recording"), tmp_path / "out"
    assert not is_finished(str(output))
    crowd.planned(recording, output, 1)
    crowd.replayed(crowd.settings(pair_folder), recording, output, 0)
    root = Path(layout.shard_root(str(output), 0))
    assert is_finished(str(root))
    max((root / "predictions").rglob("*.parquet")).unlink()
    assert not is_finished(str(root))


@pytest.mark.check("lab")
def test_a_sweep_that_is_killed_goes_on_and_ends_with_the_table_of_one_that_is_not(
    tmp_path: Path, pair_folder: PairFolder
) -> None:
    recording = crowd.record(tmp_path / "recording")
    undisturbed, killed = (
        SweepRequest(
            crowd.settings(pair_folder), str(recording), str(tmp_path / name), parse_grid(GRID), shards=2, processes=2
        )
        for name in ("undisturbed", "killed")
    )
    done = sweep(undisturbed, stop=NEVER, shown=unshown)
    assert (done.failed, done.stopped) == ({}, False)
    for shards in (1, 3, 5):
        child = get_context("forkserver").Process(target=sweep_until_killed, args=(killed, shards))
        child.start()
        child.join(DEADLINE_S)
        assert child.exitcode == -signal.SIGKILL
    again = sweep(killed, stop=NEVER, shown=unshown)
    rows = [
        row
        for shard in range(2)
        for row in runs.predictions(tmp_path / f"undisturbed/variant-001/shard-0000{shard}").to_pylist()
        if row["status"] == "accepted"
    ]
    labels = tmp_path / "labels.csv"
    lines = ["row_id,label", *(f"{row['row_id']},{row['label']}" for row in rows)]
    labels.write_text("\n".join(lines), encoding="utf-8")
    variants = parse_grid(GRID)
    tables = [figures("recording", variants, each.roots, each.failed, labels=str(labels)) for each in (done, again)]
    assert tables[0] == tables[1]
    warm, fixed, grid = tables[0].variants
    assert [each.images for each in tables[0].variants] == [len(rows)] * 3
    assert (warm.relabelled, fixed.forward_equivalents, fixed.labelled) == (0, 1.0, len(rows))
    assert (grid.forward_equivalents or 0.0) > (warm.forward_equivalents or 0.0) > 1.0
    assert fixed.accuracy is not None
    assert fixed.difference is not None
    assert fixed.accuracy.value == 1.0
    assert fixed.difference.value > 0.0
    assert any("looks better than it is" in note for note in tables[0].notes)
    for a, b in zip(done.roots, again.roots, strict=True):
        assert main(["diff", a, b, "--whole"]) == 0
