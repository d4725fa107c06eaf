"""Whatever reads a root also reads one whose partition was switched to a pair of other classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from adawise.__main__ import main
from adawise.labels import proposal
from adawise.pairs.planned import PlannedPairs, read_plan
from adawise.store.store import LocalStore
from tests.pairs.test_switching import NEW, OLD, OTHERS, run, switched
from tests.sink.stored import read_predictions
from tests.worker.loop import CLASSES

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switched") / "yard"
    switched(6, store=LocalStore(folder))
    return folder


def output_of(capsys: Captured, *words: str | Path) -> Any:
    """What a command prints as JSON."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_whole_and_equal_to_its_replay(root: Path, tmp_path: Path, capsys: Captured) -> None:
    store = LocalStore(root)
    run(PlannedPairs(read_plan(store), {"old": OLD, "new": NEW}, OLD, keeps=False), LocalStore(tmp_path / "again"))
    assert main(["verify", str(root)]) == 0
    assert main(["diff", str(root), str(tmp_path / "again"), "--whole"]) == 0
    assert "are equal: 90 rows" in capsys.readouterr().out


def test_labels_are_judged_by_what_each_pair_could_say(root: Path, tmp_path: Path, capsys: Captured) -> None:
    rows = read_predictions(LocalStore(root)).to_pylist()
    assert {row["label"] for row in rows} > {*OTHERS}
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["row_id", "label"])
        for number, row in enumerate(rows):
            other = "lorry" if row["label"] in CLASSES else "car"  # which its pair does not know
            lines.writerow([row["row_id"], row["label"] if number % 5 else other])
    found = output_of(capsys, "drift", root, "--labels", tmp_path / "labels.csv")
    served = found["helped"]["arms"][0]
    assert (served["name"], served["images"], served["accuracy"]["value"]) == ("served", 90, pytest.approx(0.8))


def test_drift_and_status_name_both_pairs_and_the_classes_of_both(root: Path, capsys: Captured) -> None:
    found = output_of(capsys, "drift", root)
    assert [model["fingerprint"] for model in found["models"]] == ["model old", "model new"]
    for camera in found["cameras"]:
        assert {label for label, *_ in camera["class_mix"]} & {*OTHERS}
        assert {label for label, *_ in camera["class_mix"]} & {*CLASSES}
    assert main(["status", "--sink.root", str(root), "--no-broker", "--json"]) in {0, 3}
    cameras = json.loads(capsys.readouterr().out)["cameras"]
    assert {camera["stream_id"] for camera in cameras} == {"north", "south", "east"}


def test_shortlists_are_proposed_of_the_classes_of_both_or_of_those_that_serve_now(
    root: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "LEAST_IMAGES", 10)
    monkeypatch.setattr(proposal, "LEAST_CONFIDENCE", 0.0)
    (tmp_path / "classes.txt").write_text("\n".join(OTHERS), encoding="utf-8")
    both = output_of(capsys, "shortlists", root)["shortlists"]
    now = output_of(capsys, "shortlists", root, "--model.classes", tmp_path / "classes.txt")
    assert {name for each in both for name in each["classes"]} > {*OTHERS}
    listed = {entry["class"]: entry["listed"] for each in now["cameras"] for entry in each["classes"]}
    assert {*listed} > {*OTHERS}
    assert {name for name, is_listed in listed.items() if is_listed} <= {*OTHERS}
