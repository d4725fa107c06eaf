"""The study of the class prior: what it prints is of the streams that `evaluate` draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.lab.evaluate.building import a_table
from tools.method.class_prior import STREAMS, judged

MADE = a_table("a", 0.5, images=400, classes=40)
TABLE = replace(MADE, logits=2 * MADE.logits)  # the gate is closed where a model is unsure of most images


@pytest.mark.parametrize("stream", STREAMS)
def test_few_classes_gain_and_all_of_them_do_not(stream: str) -> None:
    was, now, gate, ece, its_ece, *recalls = judged(TABLE, stream, 16, 2)
    if stream in ("control", "few25"):
        assert now == was
        assert its_ece == pytest.approx(ece)
        assert gate == 0.0
    else:
        assert now > was
        assert gate > 0.0
    assert np.isnan(recalls).all() == (stream != "rare")


def test_batches_are_as_long_as_they_are_to_be_and_a_surer_model_opens_the_gate_further() -> None:
    found = [judged(TABLE, "few5", batch, 2) for batch in (16, 16, 48)]
    assert (found[0][:5] == found[1][:5]).all()
    assert (found[0][:5] != found[2][:5]).any()
    assert judged(MADE, "few5", 16, 2)[2] < judged(MADE, "few5", 16, 2, temperature=0.5)[2]
