"""The made-up year is a root as any other, and what its truth says has happened can be found in it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from adawise.output.compaction.merged import read_facts
from adawise.output.read.rows import read_predictions, read_traces
from adawise.sink import layout, schemas
from adawise.sink.files import data_files
from tools.drift import year
from tools.drift.year_rows import IMAGES, Year
from tools.drift.year_script import BEGIN

DAYS, CAMERAS, A_DAY = 20, 24, 144


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Twenty days of 24 cameras, and the truth about them."""
    folder = tmp_path_factory.mktemp("year")
    amounts = {"cameras": CAMERAS, "days": DAYS, "batches-per-day": A_DAY, "partitions": 2, "segments-per-day": 24}
    flags = [flag for name, value in amounts.items() for flag in (f"--{name}", str(value))]
    assert year.main([str(folder / "out"), *flags, "--truth", str(folder / "truth.json")]) == 0
    return folder / "out", json.loads((folder / "truth.json").read_text(encoding="utf-8"))


@pytest.mark.check("tools")
def test_a_year_has_the_files_columns_and_facts_of_a_compacted_root(made: tuple[Path, dict[str, Any]]) -> None:
    root, _ = made
    rows = read_traces(root)
    compacted = [file for file in rows.files if layout.COMPACTED in file]
    assert (len(compacted), len(rows.files)) == (2 * DAYS, 2 * DAYS + 2)
    assert list(rows.files) == data_files(str(root), layout.TRACES)
    assert read_predictions(root).count() == 0
    table = rows.table().drop_columns("time").cast(schemas.TRACES)
    table.validate(full=True)
    assert pc.min(table["alpha"]).as_py() >= 0
    assert pc.max(table["alpha"]).as_py() <= 1
    facts = [read_facts(Path(file).read_bytes(), file) for file in compacted]
    assert sum(each.rows for each in facts) == table.num_rows
    assert facts[0].next == facts[1].first
    offsets = np.sort(table.filter(pc.field("partition") == 0)["first_offset"].to_numpy())
    assert np.array_equal(offsets, np.arange(len(offsets)) * IMAGES)


@pytest.mark.check("tools")
def test_every_event_of_the_truth_is_in_the_rows(made: tuple[Path, dict[str, Any]]) -> None:
    root, truth = made
    day = timedelta(days=1)  # with its night
    found: dict[str, int] = {}
    for camera in truth["cameras"]:
        spans = [tuple(datetime.fromisoformat(event[name]) for name in ("at", "until")) for event in camera["events"]]
        for event, (at, until) in zip(camera["events"], spans, strict=True):
            if event["kind"] == "dropout":
                assert read_traces(root, camera["stream_id"], at, until).count() == 0
                found["dropout"] = found.get("dropout", 0) + 1
                continue
            near = [other for other in spans if other[0] < until + day and other[1] > at - day]
            if len(near) > 1 or at - day < BEGIN or until + day > BEGIN + DAYS * day:
                continue
            before = mean(root, camera["stream_id"], at - day, at)
            after = mean(root, camera["stream_id"], until, until + day)
            edge = 0.12 + camera["day_night"]  # nothing is cut off at an end of [0, 1]
            if edge < before < 1 - edge and edge < after < 1 - edge:
                error = 0.05 + 0.4 * camera["day_night"]  # some twenty looks a day, at any hour
                assert after - before == pytest.approx(event["size"], abs=error)
                found[event["kind"]] = found.get(event["kind"], 0) + 1
    assert found.keys() == {"step", "ramp", "dropout"}


def mean(root: Path, camera: str, since: datetime, until: datetime) -> float:
    return float(pc.mean(read_traces(root, camera, since, until, columns=["alpha"]).table()["alpha"]).as_py())


def test_the_same_seed_makes_the_same_year(tmp_path: Path) -> None:
    small = Year(cameras=3, days=2, batches_per_day=10, partitions=2, seed=5)
    for name in ("one", "other"):
        year.make(tmp_path / name, small)
    one, other = (read_traces(tmp_path / name).table() for name in ("one", "other"))
    assert repr(one.to_pydict()) == repr(other.to_pydict())
