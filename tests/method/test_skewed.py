"""Losses on classes of uneven frequency: what is drawn, and which figures come of it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adawise.demo.scene import CLASSES
from tools.method import skewed
from tools.method.skewed import FIGURES, counts, draw, figures, recalls
from tools.method.trap_site import Site

pytestmark = pytest.mark.check("tools")


def test_shares_of_ranks_follow_zipf_and_the_last_have_no_image() -> None:
    assert counts(1000, 1.0, 7) == [545, 273, 182, *[0] * 7]
    assert counts(100, 0.0, 0) == [10] * 10


def test_test_images_are_others_of_the_same_cameras(tmp_path: Path) -> None:
    each = {"car": 3, "dog": 2}
    for name, first in (("train", 0), ("again", 0), ("test", 50)):
        draw(tmp_path / name, each, Site(cameras=2), first)
    train, again, test = (pq.read_table(tmp_path / name).to_pydict() for name in ("train", "again", "test"))
    assert train == again
    assert Counter(train["label"]) == each
    assert not set(train["image"]) & set(test["image"])


def test_figures_are_means_of_recalls_over_the_classes_that_have_images() -> None:
    logits = torch.eye(10).repeat(2, 1)
    logits[10] = logits[1]  # the second image of the first class is wrong
    recall = recalls(logits, torch.arange(20) % 10)
    assert recall.tolist() == [0.5, *[1.0] * 9]
    each = dict(zip(CLASSES, [60, 20, 15, 5, *[0] * 6], strict=True))
    (found,) = figures(recall[None], each)
    assert dict(zip(FIGURES, found.tolist(), strict=True)) == {
        "balanced images": pytest.approx(0.875),
        "skewed images": pytest.approx(0.7),
        "rare": 1.0,
        "absent": 1.0,
    }
    assert np.isnan(figures(recall[None], dict.fromkeys(CLASSES, 1))[0, 3])


def test_it_prints_a_row_for_each_variant_alpha_and_choice_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(skewed, "TEST_EACH", 1)
    monkeypatch.setattr(skewed, "CAMERAS", 1)
    flags = [
        "--seeds",
        "2",
        "--images",
        "40",
        "--zipf",
        "0",
        "--epochs",
        "1",
        "--variants",
        "cross_entropy",
        "balanced",
    ]
    monkeypatch.setattr(sys, "argv", ["skewed", str(tmp_path), *flags])
    skewed.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| ") and "±" in line]
    names = ("cross_entropy", "cross_entropy macro", "balanced", "balanced macro")
    assert rows == [[f" {name} ", f" {alpha} "] for name in names for alpha in ("0", "0.25", "0.5", "0.75", "1")]
    assert "(+0.0 ±0.0)" in next(line for line in lines if line.startswith("| balanced | 0 |")), "theta_0 is the same"


def test_errors_are_those_of_a_mean_over_the_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recalls differ from those of the first variant by 0, 1, 2, 3 and 4 points: 2.0 with an error of .7."""

    def trained(folder: Path, variant: object, seed: int, args: object) -> dict[str, np.ndarray[tuple[int, ...], Any]]:
        gain = 0.01 * seed if variant is skewed.VARIANTS["balanced"] else 0.0
        return {how: np.full((len(skewed.ALPHAS), len(CLASSES)), 0.5 + gain) for how in ("", "by mean recall")}

    monkeypatch.setattr(skewed, "trained", trained)
    monkeypatch.setattr(skewed, "draw", lambda *_: None)
    flags = ["--seeds", "5", "--variants", "cross_entropy", "balanced"]
    monkeypatch.setattr(sys, "argv", ["skewed", str(tmp_path), *flags])
    skewed.main()
    assert "52.0 (+2.0 ±0.7)" in capsys.readouterr().out
