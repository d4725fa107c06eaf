from __future__ import annotations

from typing import Any

from tools.chaos.judge import Judgement, differing

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
    for name in ("lost_by_broker", "missing", "doubled", "foreign", "wrong_rows", "wrong_batches", "letters_missing"):
        verdict = Judgement(messages=1, acknowledged=1, rows=1)
        setattr(verdict, name, 1)
        assert not verdict.is_clean
