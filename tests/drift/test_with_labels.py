"""`adawise drift` with labels and with replays at other alphas, as people call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from adawise.__main__ import main
from tests.drift import answers, yard

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day, replays of it at alpha 0 and 1, and labels by which alpha 1 was always right, of every tenth image."""
    made = tmp_path_factory.mktemp("judged")
    yard.write(made / "yard")
    rows = yard.predictions()
    for name, alpha, column in (("zero", 0.0, "zero_shot_label"), ("one", 1.0, "fine_tuned_label")):
        accepted = pa.compute.equal(rows["status"], "accepted")
        fixed = pa.compute.if_else(accepted, pa.scalar(alpha), pa.scalar(None, pa.float64()))
        run = rows.set_column(rows.schema.get_field_index("alpha"), rows.schema.field("alpha"), fixed)
        run = run.set_column(rows.schema.get_field_index("label"), rows.schema.field("label"), rows[column])
        answers.write(made / name, run)
    labels = [
        {"stream_id": row["stream_id"], "captured_at": row["captured_at"].isoformat(), "label": row["fine_tuned_label"]}
        for row in rows.to_pylist()[:: 10 * yard.IMAGES]
        if row["status"] == "accepted"
    ]
    answers.labels_csv(made / "times.csv", labels)
    by_row = [
        {"row_id": row["row_id"], "label": row["fine_tuned_label"]}
        for row in rows.to_pylist()[::10]
        if row["status"] == "accepted"
    ]
    answers.labels_csv(made / "labels.csv", by_row)
    return made


def helped(capsys: Captured, folder: Path, *arguments: str) -> dict[str, Any]:
    assert main(["drift", str(folder / "yard"), "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["helped"]
    return found


def test_labels_and_replays_are_compared_and_the_best_alpha_named(folder: Path, capsys: Captured) -> None:
    against = f"{folder / 'zero'},{folder / 'one'}"
    found = helped(capsys, folder, "--labels", str(folder / "labels.csv"), "--against", against)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert list(arms) == ["served", "zero-shot", "fine-tuned", "best fixed alpha"]
    assert (arms["best fixed alpha"]["alpha"], arms["served"]["accuracy"]["value"]) == (1.0, 1.0)
    assert arms["zero-shot"]["accuracy"]["value"] == pytest.approx(0.9, abs=0.02)
    gain = arms["zero-shot"]["gain"]
    assert 0.0 < gain["low"] < gain["value"] < gain["high"] < 0.15
    assert set(found["by_camera"]) == set(yard.PLACES)
    assert found["labelled"] == arms["served"]["images"] == arms["zero-shot"]["images"]


def test_of_one_batch_no_interval_is_told(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    first, second, *_ = (folder / "labels.csv").read_text().splitlines(keepends=True)
    (tmp_path / "one.csv").write_text(first + second)
    requested = [
        "--labels",
        str(tmp_path / "one.csv"),
        "--against",
        str(folder / "zero"),
        "-o",
        str(tmp_path / "page.html"),
    ]
    assert main(["drift", str(folder / "yard"), *requested]) == 0
    out = capsys.readouterr().out
    assert "one batch" in out
    for shown in (out, (tmp_path / "page.html").read_text()):
        assert "nan to nan" not in shown
        assert "– to –" not in shown


def test_the_terminal_shows_what_helped_and_the_limits_go_by_it(folder: Path, capsys: Captured) -> None:
    limits = ["--fail-if", "gain<-0.5,accuracy<0.5"]
    code = main(["drift", str(folder / "yard"), "--labels", str(folder / "labels.csv"), *limits])
    out = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "did it help?" in out
    assert "gain<-0.5: no camera exceeds it" in out


def test_frames_that_share_a_time_are_told_and_left_out(folder: Path, capsys: Captured) -> None:
    found = helped(capsys, folder, "--labels", str(folder / "times.csv"), "--label-within", "1")
    assert found["labelled"] == 0
    assert any("labels name a time that several frames share" in note for note in found["notes"])


def test_a_file_of_labels_that_cannot_be_read_ends_with_its_name_and_the_remedy(folder: Path, capsys: Captured) -> None:
    (folder / "bad.csv").write_text("row,label\n1,car\n", encoding="utf-8")
    assert main(["drift", str(folder / "yard"), "--labels", str(folder / "bad.csv")]) == 2
    output = " ".join(capsys.readouterr().err.split())
    assert "bad.csv: expected the columns label and row_id" in output
    assert output.endswith("rename the columns")


def test_against_what_no_worker_wrote_is_refused(folder: Path, capsys: Captured) -> None:
    assert main(["drift", str(folder / "yard"), "--against", str(folder)]) == 2
    assert f"there is no output of a worker in {folder}" in capsys.readouterr().err
