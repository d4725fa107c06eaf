"""A few updates of the real model on real photographs of shared/data, where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.real.test_real_pair import DATA, TEMPLATES, checkpoint
from tests.replay.runs import adawise

pytestmark = [
    pytest.mark.check("real"),
    pytest.mark.usefixtures("logs_of_this_process"),
    pytest.mark.skipif(
        not (DATA / "pair" / "theta0").is_dir(),
        reason=f"no real pair in {DATA} (ADAWISE_REAL_DATA names another folder)",
    ),
]


def test_a_few_small_updates_start_from_what_theta_0_is_known_to_do_and_spoil_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source, every in (("train", "train_base", 30), ("held", "validation_base", 15)):
        table = pq.read_table(DATA / "images" / f"{source}.parquet")
        pq.write_table(table.take(list(range(0, len(table), every))), tmp_path / f"{name}.parquet")
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES[:2]))
    flags = ["--labelled", "train.parquet", "--validation", "held.parquet", "-o", "out"]
    flags += ["--model.theta-0", checkpoint(0), "--model.templates", "templates.txt", "--model.device", "cpu"]
    flags += ["--finetune.epochs", "1", "--finetune.batch-images", "25", "--finetune.learning-rate", "1e-6"]
    flags += ["--finetune.judged-images", "8", "--no-finetune.rehearsal"]
    assert adawise(tmp_path, "finetune", *flags, "--finetune.card-images", "8") == 0
    capsys.readouterr()
    record = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert record["images"] == {"train": 100, "held_out": 100, "skipped": 0}
    zero, one = record["curve"]
    assert 0.6 < zero["accuracy"] < 0.85  # .723 on all 1,500
    assert abs(one["nll"] - zero["nll"]) < 0.3
    assert one["accuracy"] > 0.55
    assert record["theta_1"]["hash"] != record["theta_0"]["hash"]
