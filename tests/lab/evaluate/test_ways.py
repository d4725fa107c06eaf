"""The way to being told the condition, against what follows from the domains' curves."""

from __future__ import annotations

import pytest

from adawise_lab.evaluate.references import DOMAIN_ORACLE, SPLIT_HALF_ORACLE, ways
from adawise_lab.evaluate.run import AlphaPath
from tests.lab.evaluate.building import a_bench, a_table

BENCH = a_bench(a_table("a", 0.1), a_table("b", 0.9), a_table("never", 0.5))


def a_path(*served: tuple[int, float]) -> AlphaPath:
    """Of (domain, alpha) batch by batch."""
    return AlphaPath(domain=[d for d, _ in served], alpha=[alpha for _, alpha in served])


def curve(*alphas: float) -> float:
    """Mean accuracy of the first two domains by their curves."""
    return sum(float(BENCH.accuracy[d, BENCH.alphas.index(a)]) for d, a in enumerate(alphas)) / len(alphas)


BEST = [BENCH.alphas[int(BENCH.accuracy[d].argmax())] for d in (0, 1)]


def test_who_serves_the_best_alpha_of_each_condition_went_all_the_way_and_half_the_batches_are_half() -> None:
    base = a_path((0, 0.5), (1, 0.5), (1, 0.5))
    all_of_it, half = a_path((0, BEST[0]), (1, BEST[1])), a_path((0, BEST[0]), (0, 0.5), (1, 0.5), (1, BEST[1]))
    whole, part, none = ways(BENCH, "base", [base], [[all_of_it], [half], [base]])
    worth = whole[DOMAIN_ORACLE].worth
    assert worth.difference == pytest.approx(curve(*BEST) - curve(0.5, 0.5))
    assert worth.ci[0] <= worth.difference <= worth.ci[1]
    assert [way[DOMAIN_ORACLE].share for way in (whole, part, none)] == pytest.approx([1.0, 0.5, 0.0])
    assert whole[DOMAIN_ORACLE].ci == pytest.approx((1.0, 1.0))
    assert whole[SPLIT_HALF_ORACLE].worth.difference <= worth.difference  # it does not know these images
    share = whole[SPLIT_HALF_ORACLE].share
    assert share is not None
    assert share >= 1.0


def test_seeds_count_batch_by_batch() -> None:
    base, best = a_path((0, 0.5), (1, 0.5)), a_path((0, BEST[0]), (1, BEST[1]))
    (way,) = ways(BENCH, "base", [base], [[best, best, base]])
    assert way[DOMAIN_ORACLE].share == pytest.approx(2 / 3)


def test_where_being_told_is_worth_nothing_there_is_no_share() -> None:
    (way,) = ways(BENCH, "base", [a_path((0, BEST[0]), (1, BEST[1]))], [[a_path((0, 0.5), (1, 0.5))]])
    assert way[DOMAIN_ORACLE].worth.difference == 0.0
    assert (way[DOMAIN_ORACLE].share, way[DOMAIN_ORACLE].ci) == (None, None)
