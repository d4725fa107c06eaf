from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tools.chaos.judge import Judgement, compare_results, differing

NAN = float("nan")


def batch(number: int, alpha: float, regret: float = NAN) -> dict[str, Any]:
    return {"number": number, "alpha": alpha, "regret": regret}


def test_rows_that_are_equal_in_any_order_are_no_fault() -> None:
    verdict = Judgement(messages=2, acknowledged=2, rows=2)
    assert differing(verdict, ["number"], [batch(1, 0.5), batch(2, 0.25)], [batch(2, 0.25), batch(1, 0.5)]) == 0
    assert verdict.is_clean


def test_another_alpha_and_a_batch_that_only_one_side_has_are_counted_and_told() -> None:
    verdict = Judgement(messages=3, acknowledged=3, rows=3)
    mine, theirs = [batch(1, 0.5), batch(2, 0.25)], [batch(1, 0.55), batch(2, 0.25), batch(3, 1.0)]
    assert differing(verdict, ["number"], mine, theirs) == 2
    assert verdict.faults == ["(1,): alpha 0.5 instead of 0.55", "(3,): only in the replay"]
    assert not verdict.is_clean


def test_any_count_that_is_not_zero_spoils_a_verdict() -> None:
    assert Judgement(messages=1, acknowledged=1, rows=1).is_clean
    counts = [field.name for field in fields(Judgement) if field.type == "int"]
    for name in set(counts) - {"messages", "acknowledged", "rows"}:
        verdict = Judgement(messages=1, acknowledged=1, rows=1)
        setattr(verdict, name, 1)
        assert not verdict.is_clean


def result(offset: int, label: str = "car", attempt: str = "a") -> dict[str, Any]:
    said = dict.fromkeys(("reason", "top_probabilities", "alpha", "model_fingerprint"))
    said |= {"row_id": f"yard/0/{offset}/0", "stream_id": "north", "status": "accepted", "label": label}
    return said | {"offset": offset, "attempt": attempt}


ROWS = {(row["row_id"], row["attempt"]): row for row in map(result, (1, 2, 3))}


def judged(results: list[dict[str, Any]], when: str = "committed") -> Judgement:
    verdict = Judgement(messages=3, acknowledged=3, rows=3)
    compare_results(verdict, ROWS, results, when)
    return verdict


@pytest.mark.parametrize("offsets", [(1, 2, 3), (1, 2, 3, 2, 3), (1, 3, 2, 3), (2, 3, 1, 2, 3)])
def test_results_that_are_published_again_are_in_order_where_each_comes_once_after_the_one_before(
    offsets: tuple[int, ...],
) -> None:
    assert judged([result(offset) for offset in offsets]).is_clean


def test_results_that_are_missing_out_of_order_of_no_row_or_that_differ_are_counted() -> None:
    assert judged([result(1), result(3)]).results_missing == 1
    assert judged([result(1), result(3), result(2)]).results_disordered == 1
    assert judged([*map(result, (1, 2, 3, 4))]).results_wrong == 1
    assert judged([*map(result, (1, 2, 3)), result(2, "bus")]).results_wrong == 1
    assert judged([result(1, "bus"), result(2), result(3)]).results_wrong == 1


def test_an_early_result_of_another_attempt_is_of_a_worker_that_died() -> None:
    results = [result(1, "bus", "b"), *map(result, (1, 2, 3))]
    assert judged(results, "early").is_clean
    assert judged(results, "committed").results_wrong == 1
    assert judged([result(4, attempt="b"), *map(result, (1, 2, 3))], "early").results_wrong == 1
