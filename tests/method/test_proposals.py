"""What a proposed shortlist is worth, on tables of logits of which it is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adawise_lab.evaluate.tables import LogitTable, write_table
from tools.method import proposals

pytestmark = pytest.mark.check("tools")

CLASSES = 30
SHOWN = 27
EACH = 4


def table(right: float) -> LogitTable:
    """Images of `SHOWN` of the classes, four of each, the last of which a class that is not shown is confused with.

    `right`: logit of the class of an image, if that of the other one is 4.
    """
    labels = np.repeat(np.arange(SHOWN), EACH)
    logits = np.full((3, len(labels), CLASSES), -6.0)
    logits[:, np.arange(len(labels)), labels] = right
    confused = np.arange(len(labels)) % EACH == EACH - 1
    logits[:, confused, SHOWN + labels[confused] % (CLASSES - SHOWN)] = 4.0
    names = tuple(f"class {number}" for number in range(CLASSES))
    return LogitTable("made", logits.astype(np.float32), labels, (0.0, 0.5, 1.0), names)


def test_a_camera_whose_classes_are_recognised_has_them_listed() -> None:
    found = proposals.camera(table(right=6.0), 5, seed=0, is_zipf=False)
    assert (found.is_proposed, found.gain, found.lost, found.shown) == (True, 0.0, 0, 5)
    assert found.classes == 5


def test_a_sure_mistake_is_listed_beside_the_classes_and_takes_the_gain() -> None:
    found = proposals.camera(table(right=3.0), 5, seed=0, is_zipf=True)
    assert (found.gain, found.lost, found.shown) == (0.0, 0, 5)
    assert 5 < found.classes <= 8


def test_what_a_shortlist_brings_is_that_of_the_later_images() -> None:
    """The images before have no confusion, and nothing is left to gain; later ones have it, if they are others."""
    with_some = table(right=6.0)
    confused = np.arange(SHOWN * EACH) % EACH == EACH - 1
    logits = with_some.logits.copy()
    logits[:, confused, SHOWN:] *= 2  # surely another class, that no camera shows
    made = replace(with_some, logits=logits)
    same = [proposals.camera(made, 5, seed, is_zipf=False) for seed in range(6)]
    other = [proposals.camera(made, 5, seed, is_zipf=False, others=True) for seed in range(6)]
    assert all(each.is_proposed for each in (*same, *other))
    assert all(each.gain == 0.0 for each in same), "what it is confused with is listed"
    assert max(each.gain for each in other) > 0.05
    assert all(each.gain <= each.right for each in (*same, *other))
    assert np.mean([each.right for each in same]) == pytest.approx(0.25, abs=0.02)


def test_a_temperature_makes_a_camera_sure() -> None:
    unsure = table(right=2.0)
    logits = np.where(unsure.logits < 0, 0.0, unsure.logits)
    made = replace(unsure, logits=logits.astype(np.float32))
    assert proposals.camera(made, 5, seed=0, is_zipf=False) == proposals.Proposed(False)
    assert proposals.camera(made, 5, seed=0, is_zipf=False, temperature=0.2).is_proposed


def test_nothing_is_proposed_for_a_camera_without_confidence() -> None:
    assert proposals.camera(table(right=-5.0), 5, seed=0, is_zipf=False) == proposals.Proposed(False)


def test_it_prints_a_row_for_each_domain_size_and_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "made.npz", table(right=6.0))
    monkeypatch.setattr(sys, "argv", ["proposals", str(tmp_path / "made.npz"), "--seeds", "1"])
    proposals.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| 5 | made | 1 of 1 | +0.0 | +0.0 | +0.0 | +0.0 | 5.0 | 0 of 5 |"
    assert len(lines) == 2 + 2 * 2 * len(proposals.SIZES)
