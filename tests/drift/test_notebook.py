"""The notebook of the documentation runs, from its first cell to its last."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from adawise.output.read.rows import read_predictions, read_traces
from adawise.store.store import LocalStore
from tests.output.compaction.building import Days, compacted

NOTEBOOK = Path(__file__).parents[2] / "docs" / "drift.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


def test_every_cell_of_the_notebook_runs_and_says_what_the_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(tmp_path / "out")
    Days(store).commit(18)
    compacted(store)
    images = read_predictions("out", columns=["row_id", "label"]).table()
    served = [row for row in images.to_pylist() if row["label"]]
    late = images.filter(images["label"].is_valid()).slice(0, 30)  # right, all of them
    pq.write_table(late, "labels.parquet")
    names: dict[str, Any] = {}
    for cell in cells("code"):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), names)
    output = capsys.readouterr().out
    assert f"{len(read_traces('out'))} batches" in output
    assert "30 of 30 served right" in output
    assert len(served) > 30
    assert sum(row["labelled"] for row in names["accuracy"].to_pylist()) == 30
    assert {row["served"] for row in names["accuracy"].to_pylist()} == {1.0}
    assert sum(names["hourly"]["batches"].to_pylist()) == len(read_traces("out"))
    (drawn,) = names["figure"].to_dict()["datasets"].values()
    assert sum(hour["batches"] for hour in drawn) == len(read_traces("out"))


def test_the_notebook_is_kept_without_outputs_and_names_no_place_of_a_machine() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
    text = "".join("".join(cell["source"]) for kind in ("code", "markdown") for cell in cells(kind))
    assert not re.search(r"""["'`(]/\w""", text)
