"""The bench of cameras at many alphas: rounds as a worker gathers them, with as many evaluations in both ways."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adawise.clip.classifier import PairClassifier, PairRound
from tests.models import classifier, load, random_images, write_pair
from tools.bench.spread import turn

pytestmark = pytest.mark.check("tools")


def test_many_cameras_share_a_round_and_one_camera_has_rounds_of_its_own_with_the_same_fe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = classifier(load(write_pair(tmp_path)), copies=4)
    opened: list[list[int]] = []
    open_round = PairClassifier.open

    def noted(self: PairClassifier, batches: Sequence[Tensor]) -> PairRound:
        opened.append([len(batch) for batch in batches])
        return open_round(self, batches)

    monkeypatch.setattr(PairClassifier, "open", noted)
    batches = torch.split(random_images(32), 4)
    many = turn(subject, batches, cycle([0, 5, 10, 15, 20]), len(batches))
    one = turn(subject, batches, cycle([10]), 1)
    assert opened == [[4] * 8] + 8 * [[4]]
    assert many.fe == one.fe == 1 + 2 * 2 / 32, "two of eight batches probe two images"
    assert many.merges == 7, "five alphas, the one after 0, and after 20 again 0: the bank has room for four"
    assert one.merges <= 2
