"""Scores, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from adawise_lab.evaluate.bench import Quality, joined
from adawise_lab.evaluate.score import (
    Score,
    calibration_error,
    domain_accuracy,
    flicker,
    mean,
    mean_nll,
    pooled_calibration_error,
    score,
    total,
)
from tests.lab.evaluate.building import a_bench, a_table

BENCH = a_bench(a_table("a", images=4), a_table("b", images=2), a_table("c", images=3))


def worth(*served: tuple[bool, float, float], predicted: Sequence[int] | None = None) -> Quality:
    correct, confidence, nll = (np.array(column) for column in zip(*served, strict=True))
    labels = np.array(predicted or [0] * len(served), dtype=np.int32)
    return Quality(correct.astype(bool), confidence.astype(float), nll.astype(float), labels)


def a_score() -> Score:
    """Image 0 twice (right once), image 1 once, image 4 of the second domain once; nothing of the third."""
    served = worth((True, 0.9, 0.1), (False, 0.7, 2.0), (True, 0.9, 0.3), (False, 0.5, 1.0))
    return score(BENCH, np.array([0, 0, 1, 4]), served, np.array([1.0, 1.0, 2.0, 5.0]))


def test_a_score_counts_visits_hits_nll_and_forwards() -> None:
    scored = a_score()
    assert scored.visits.tolist() == [2, 1, 0, 0, 1, 0, 0, 0, 0]
    assert scored.hits.tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert scored.nll == pytest.approx([2.4, 1.0, 0.0])
    assert scored.forwards.tolist() == [4.0, 5.0, 0.0]


def test_accuracy_is_a_mean_over_the_domains_that_came() -> None:
    accuracy = domain_accuracy(BENCH, a_score())
    assert accuracy[:2] == pytest.approx([2 / 3, 0.0])
    assert np.isnan(accuracy[2])
    assert mean(accuracy) == pytest.approx(1 / 3)
    assert mean(accuracy, [0, 2]) == pytest.approx(2 / 3)
    assert np.isnan(mean(accuracy, [2]))


def test_calibration_error_weighs_the_gap_of_each_bin_of_confidence() -> None:
    scored = a_score()
    # first domain: two of two right at .9, none of one at .7; second: none of one at .5
    first, second = (2 * 0.1 + 0.7) / 3, 0.5
    assert calibration_error(BENCH, scored)[:2] == pytest.approx([first, second])
    assert pooled_calibration_error(scored) == pytest.approx((0.2 + 0.7 + 0.5) / 4)


def test_pooling_lets_domains_cancel() -> None:
    sure = worth(*[(True, 0.6, 0.5)] * 2 + [(False, 0.6, 0.9)] * 2)  # .6 confident: all of a right, none of b
    scored = score(BENCH, np.array([0, 1, 4, 5]), sure, 1.0)
    assert calibration_error(BENCH, scored)[:2] == pytest.approx([0.4, 0.6])
    assert pooled_calibration_error(scored) == pytest.approx(0.1)


def test_full_confidence_is_in_the_last_bin() -> None:
    scored = score(BENCH, np.array([0]), worth((True, 1.0, 0.0)), 1.0)
    assert scored.bins[0, -1].tolist() == [1.0, 0.0]


def test_scores_add_up() -> None:
    once = a_score()
    twice = total([once, once])
    for name in ("visits", "hits", "bins", "nll", "forwards"):
        assert np.array_equal(getattr(twice, name), 2 * getattr(once, name))
    assert np.isnan(twice.pairs).all(), "the order is not known"
    parts = [worth((True, 0.9, 0.1)), worth((False, 0.2, 3.0))]
    assert joined(parts, np.concatenate).confidence.tolist() == [0.9, 0.2]


def test_nll_is_a_mean_over_the_images_of_each_domain() -> None:
    assert mean_nll(BENCH, a_score())[:2] == pytest.approx([0.8, 1.0])
    assert np.isnan(mean_nll(BENCH, a_score())[2])


def test_flicker_counts_neighbours_of_one_label_whose_predictions_differ() -> None:
    a, b, c = a_table("a", images=4), a_table("b", images=4), a_table("c", images=3, classes=7)
    same = np.zeros(4, dtype=np.int64)
    bench = a_bench(replace(a, labels=np.array([0, 0, 0, 1])), replace(b, labels=same), replace(c, labels=same[:3]))
    ids = np.array([0, 1, 2, 3, 4, 5, 8, 9, 10])
    predicted = [5, 5, 6, 6, 6, 7, 1, 2, 2]
    follows = np.array([False, True, True, True, True, False, True, True, True])
    served = worth(*[(False, 0.5, 1.0)] * 9, predicted=predicted)
    scored = score(bench, ids, served, 1.0, follows)
    # a: 0-1 and 1-2, of which the second changes; 3 has another label. b: 4 has another label than 3, and 5 begins a
    # stream. c: 8 is of other classes than 5; 8-9 changes, 9-10 does not.
    assert scored.pairs.tolist() == [2, 0, 2]
    assert scored.changes.tolist() == [1, 0, 1]
    found = flicker(scored)
    assert found[[0, 2]].tolist() == [0.5, 0.5]
    assert np.isnan(found[1])
    assert mean(found) == 0.5
