from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.worker.cameras import Shot
from tools.chaos.verdict import ChaosVerdict, compare_dead_letters, compare_results, compare_returns, crashes, differing

NAN = float("nan")


def batch(number: int, alpha: float, regret: float = NAN) -> dict[str, Any]:
    return {"number": number, "alpha": alpha, "regret": regret}


def test_rows_that_are_equal_in_any_order_are_no_fault() -> None:
    verdict = ChaosVerdict(messages=2, acknowledged=2, rows=2)
    assert differing(verdict, ["number"], [batch(1, 0.5), batch(2, 0.25)], [batch(2, 0.25), batch(1, 0.5)]) == 0
    assert verdict.is_clean


def test_another_alpha_and_a_batch_that_only_one_side_has_are_counted_and_told() -> None:
    verdict = ChaosVerdict(messages=3, acknowledged=3, rows=3)
    mine, theirs = [batch(1, 0.5), batch(2, 0.25)], [batch(1, 0.55), batch(2, 0.25), batch(3, 1.0)]
    assert differing(verdict, ["number"], mine, theirs) == 2
    assert verdict.faults == ["(1,): alpha 0.5 instead of 0.55", "(3,): only in the replay"]
    assert not verdict.is_clean


def test_any_count_that_is_not_zero_spoils_a_verdict() -> None:
    assert ChaosVerdict(messages=1, acknowledged=1, rows=1).is_clean
    counts = [field.name for field in fields(ChaosVerdict) if field.type == "int"]
    for name in set(counts) - {"messages", "acknowledged", "rows"}:
        verdict = ChaosVerdict(messages=1, acknowledged=1, rows=1)
        setattr(verdict, name, 1)
        assert not verdict.is_clean


def result(offset: int, label: str = "car", attempt: str = "a") -> dict[str, Any]:
    found = dict.fromkeys(("reason", "top_probabilities", "alpha", "model_fingerprint"))
    found |= {"row_id": f"yard/0/{offset}/0", "stream_id": "north", "status": "accepted", "label": label}
    return found | {"partition": 0, "offset": offset, "attempt": attempt}


ROWS = {(row["row_id"], row["attempt"]): row for row in map(result, (1, 2, 3))}


def verdict_of(results: list[dict[str, Any]], when: str = "committed", owners: int | None = None) -> ChaosVerdict:
    verdict = ChaosVerdict(messages=3, acknowledged=3, rows=3)
    compare_results(verdict, ROWS, results, when, None if owners is None else {(41, 0): owners})
    return verdict


@pytest.mark.parametrize("offsets", [(1, 2, 3), (1, 2, 3, 2, 3), (1, 3, 2, 3), (2, 3, 1, 2, 3)])
def test_results_that_are_published_again_are_in_order_where_each_comes_once_after_the_one_before(
    offsets: tuple[int, ...],
) -> None:
    assert verdict_of([result(offset) for offset in offsets]).is_clean


def test_results_that_are_missing_out_of_order_of_no_row_or_that_differ_are_counted() -> None:
    assert verdict_of([result(1), result(3)]).results_missing == 1
    assert verdict_of([result(1), result(3), result(2)]).results_disordered == 1
    assert verdict_of([*map(result, (1, 2, 3, 4))]).results_wrong == 1
    assert verdict_of([*map(result, (1, 2, 3)), result(2, "bus")]).results_wrong == 1
    assert verdict_of([result(1, "bus"), result(2), result(3)]).results_wrong == 1


def test_results_that_are_published_more_often_than_their_partition_had_owners_are_counted() -> None:
    results = [*map(result, (1, 2, 3, 1, 2, 3))]
    assert verdict_of(results).is_clean
    assert verdict_of(results, owners=2).is_clean
    assert verdict_of(results, owners=1).results_doubled == 3


def test_an_early_result_of_another_attempt_is_of_a_worker_that_died() -> None:
    results = [result(1, "bus", "b"), *map(result, (1, 2, 3))]
    assert verdict_of(results, "early").is_clean
    assert verdict_of(results, "committed").results_wrong == 1
    assert verdict_of([result(4, attempt="b"), *map(result, (1, 2, 3))], "early").results_wrong == 1


SHOTS = {(0, 4): Shot(0, b"north", b"no image", dead=True), (0, 5): Shot(0, b"north", b"an image")}


def dead_letter(offset: int, value: bytes = b"no image", worker: int = 41, **text: str) -> Any:
    where = {"__connect.errors.partition": "0", "__connect.errors.offset": str(offset), "dlq.worker": f"host:{worker}"}
    headers = [(name.replace("_replays", "dlq.replays"), each.encode()) for name, each in (where | text).items()]
    return SimpleNamespace(key=b"north", value=value, headers=headers, timestamp=0)


RECEIPT = SimpleNamespace(key=None, value=b"", headers=[("dlq.replayed", b"0/0")], timestamp=0)


@pytest.mark.parametrize(
    ("dead_letters", "recovered", "found"),
    [
        ([dead_letter(4), RECEIPT], {(41, 0): 1}, (0, 0, 0)),
        ([dead_letter(4), dead_letter(4, worker=42)], {(41, 0): 1, (42, 0): 1}, (0, 0, 0)),
        ([dead_letter(4), dead_letter(4)], {(41, 0): 2}, (0, 0, 0)),
        ([dead_letter(4), dead_letter(4)], None, (0, 0, 0)),
        ([dead_letter(4), dead_letter(4)], {(41, 0): 1}, (0, 0, 1)),
        ([], {}, (1, 0, 0)),
        ([dead_letter(4), dead_letter(5, b"an image")], {(41, 0): 1}, (0, 1, 0)),
        ([dead_letter(4, b"no")], {(41, 0): 1}, (0, 1, 0)),
    ],
)
def test_dead_letters_that_are_missing_wrong_or_doubled_by_a_worker_that_had_the_message_once_are_counted(
    dead_letters: list[Any], recovered: dict[tuple[int, int], int] | None, found: tuple[int, int, int]
) -> None:
    verdict = ChaosVerdict(messages=2, acknowledged=2, rows=2)
    compare_dead_letters(verdict, SHOTS, dead_letters, recovered)
    assert (verdict.dead_letters_missing, verdict.dead_letters_wrong, verdict.dead_letters_doubled) == found


@pytest.mark.parametrize(("times", "found"), [(1, (0, 0)), (2, (1, 0)), (0, (0, 1))])
def test_dead_letters_that_came_back_twice_and_those_that_never_did_are_counted(
    times: int, found: tuple[int, int]
) -> None:
    back = SimpleNamespace(headers=[("dlq.origin", b"yard/0/4"), ("dlq.replays", b"1")])
    verdict = ChaosVerdict(messages=2, acknowledged=2, rows=2)
    compare_returns(verdict, "yard", [back] * times, [dead_letter(4), dead_letter(6, _replays="3"), RECEIPT])
    assert (verdict.sent_back_twice, verdict.never_sent_back) == found


def test_a_traceback_and_a_thread_that_failed_in_a_workers_log_are_found(tmp_path: Path) -> None:
    (tmp_path / "worker-0.log").write_text('{"event": "worker_started"}\n')
    assert [*crashes(tmp_path)] == []
    (tmp_path / "worker-1.log").write_text("Traceback (most recent call last):\n")
    (tmp_path / "worker-2.log").write_text('{"thread": "looks", "event": "thread_failed", "level": "error"}\n')
    assert [fault.split(":")[0] for fault in crashes(tmp_path)] == ["worker-1.log", "worker-2.log"]
