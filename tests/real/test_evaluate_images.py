"""Tables made of the real photographs of shared/data by the real pair, at three alphas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adawise.clip.classifier import PairClassifier
from adawise.clip.device import Plain
from adawise.clip.load import load_checkpoints
from adawise_lab.evaluate.corrupt import parse
from adawise_lab.evaluate.images import ImageSet, Sample, make_tables
from tests.real.test_real_pair import DATA, IMAGES, TEMPLATES, checkpoint, photographs

pytestmark = [
    pytest.mark.check("real"),
    pytest.mark.skipif(
        not (DATA / "pair" / "theta0").is_dir(),
        reason=f"no real pair in {DATA} (ADAWISE_REAL_DATA names another folder)",
    ),
]


def test_tables_of_real_photographs_are_plausible_clean_and_corrupted(tmp_path: Path) -> None:
    pair = load_checkpoints(None, checkpoint(0), checkpoint(1))
    photos = photographs(pair, "validation_base")
    classifier = PairClassifier(
        pair,
        classes=photos.classes,
        templates=TEMPLATES,
        alphas=(0.0, 0.5, 1.0),
        chunk_rows=8,
        dtype=torch.float32,
        device=Plain(torch.device("cpu")),
        bank_bytes=2**30,
        head="text",
    )

    def samples() -> list[Sample]:
        return [Sample(f"row {i}", x, int(photos.labels[i])) for i, x in enumerate(photos.images)]

    images = ImageSet("base", photos.classes, "validation", IMAGES, samples)
    made = make_tables(images, parse("gaussian_noise:5,jpeg:1"), classifier, fingerprint="real", cache=tmp_path, seed=0)
    clean, noisy, stored = ((one.table.logits.argmax(axis=-1) == one.table.labels).mean(axis=1) for one in made)  # [3]
    known = np.array([0.63, 0.73, 0.74])  # of the whole split; 64 images have a standard error of .06
    assert (np.abs(clean - known) < 0.18).all()
    assert (noisy < clean - 0.2).all()
    assert (np.abs(stored - clean) < 0.2).all()
