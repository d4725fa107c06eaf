from __future__ import annotations

import numpy as np
import pytest

from adawise_drift.changes.find import moves

VARIANCE = 0.05


def line(batches: int, start: int, end: int) -> np.ndarray:
    return np.interp(np.arange(batches), [start, end], [0.2, 0.9]) + np.random.default_rng(1).normal(0, 0.02, batches)


def test_a_staircase_over_a_ramp_becomes_the_ramp() -> None:
    (move,) = moves(line(500, 100, 400), [0, 150, 250, 350, 500], VARIANCE, price=3.0, least=60)
    assert [move.start, move.end] == pytest.approx([100, 400], abs=25)
    assert [move.before, move.after] == pytest.approx([0.2, 0.9], abs=0.03)


def test_two_steps_in_one_direction_stay_two_steps() -> None:
    found = moves(np.repeat([0.1, 0.5, 0.9], 200), [0, 200, 400, 600], VARIANCE, price=3.0, least=60)
    assert [(move.start, move.end) for move in found] == [(200, 200), (400, 400)]


def test_steps_to_and_fro_are_never_one_ramp() -> None:
    found = moves(np.repeat([0.1, 0.5, 0.1], 200), [0, 200, 400, 600], VARIANCE, price=3.0, least=60)
    assert len(found) == 2


def test_a_move_that_is_over_at_once_is_a_step() -> None:
    (move,) = moves(line(400, 195, 215), [0, 205, 400], VARIANCE, price=3.0, least=60)
    assert move.start == move.end == 205


def test_no_bound_is_no_move() -> None:
    assert moves(np.zeros(50), [0, 50], VARIANCE, price=3.0, least=60) == []
