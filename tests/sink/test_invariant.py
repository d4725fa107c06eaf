from __future__ import annotations

import numpy as np
import pytest

from adawise.ports import Head, SegmentDraft
from adawise.records import Gap
from adawise.sink.invariant import breaches, check
from adawise.sink.schemas import PREDICTIONS
from tests.sink.building import TP


def found(
    rows: list[tuple[int, int]],
    *,
    before: list[int] | None = None,
    pending: list[int] | None = None,
    gaps: list[Gap] | None = None,
    until: int = 14,
    contiguous: bool = False,
    divided: bool = False,
) -> list[str]:
    """Breaches of a segment [10, until) with these (offset, index) rows."""
    return breaches(
        first=10,
        next_offset=until,
        before=before or [],
        pending=pending or [],
        gaps=gaps or [],
        offsets=np.array([offset for offset, _ in rows], np.int64),
        indices=np.array([index for _, index in rows], np.int32),
        contiguous=contiguous,
        divided=divided,
    )


@pytest.mark.parametrize("contiguous", [False, True])
def test_rows_and_pending_that_cover_what_was_pending_and_delivered_are_in_order(contiguous: bool) -> None:
    rows = [(7, 0), (7, 1), (10, 0), (12, 0), (12, 1), (12, 2)]
    assert found(rows, before=[4, 7], pending=[4, 11, 13], contiguous=contiguous) == []
    assert found([], until=10, contiguous=contiguous) == []


def test_of_a_message_a_divided_chain_may_have_any_rows_in_order() -> None:
    assert found([(10, 1), (10, 4), (12, 3), (13, 0)], before=[7], divided=True) == []


def test_a_divided_chain_is_not_extended_by_a_draft_that_lost_a_pending_message() -> None:
    draft = SegmentDraft(TP, 14, (8,), {}, [], (), gaps=(Gap(6, 7),), others=(7,))
    rows = PREDICTIONS.empty_table()
    check(draft, Head(10, (6, 7, 8)), rows, divided=True)
    with pytest.raises(ValueError, match=r"neither rows nor pending: 5$"):
        check(draft, Head(10, (5, 6, 7, 8)), rows, divided=True)


@pytest.mark.parametrize(
    ("rows", "arguments", "what"),
    [
        ([(9, 0)], {}, r"rows of offsets .* \[10, 14\): 9$"),
        ([(14, 0)], {}, r"rows of offsets .*: 14$"),
        ([], {"pending": [9]}, r"pending offsets .*: 9$"),
        ([], {"pending": [14]}, r"pending offsets .*: 14$"),
        ([(10, 0)], {"pending": [10]}, r"both rows and pending: 10$"),
        ([(10, 0)], {"before": [7]}, r"neither rows nor pending: 7$"),
        ([(10, 1)], {}, r"index 0, 1, 2 .*: 10$"),
        ([(10, 0), (10, 0)], {}, r"index 0, 1, 2 .*: 10$"),
        ([(10, 0), (10, 2)], {}, r"index 0, 1, 2 .*: 10$"),
        ([(10, 2), (10, 2)], {"divided": True}, r"index 0, 1, 2 .*: 10$"),
        ([(10, 2), (10, 1)], {"divided": True}, r"index 0, 1, 2 .*: 10$"),
        ([(11, 1), (10, 2)], {"divided": True}, r"index 0, 1, 2 .*: 10$"),
        ([(11, 0), (10, 0)], {}, r"index 0, 1, 2 .*: 10$"),
        ([], {"until": 9}, r"next 9 lies before first 10"),
        ([(10, 0), (11, 0), (13, 0)], {"contiguous": True}, r"neither rows nor pending: 12$"),
    ],
)
def test_each_breach_is_named_with_its_offsets(
    rows: list[tuple[int, int]], arguments: dict[str, object], what: str
) -> None:
    (result,) = found(rows, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=what):
        raise ValueError(result)


def test_a_gap_that_was_recorded_accounts_for_its_offsets_pending_ones_too() -> None:
    assert found([(13, 0)], before=[7], gaps=[Gap(7, 8), Gap(10, 13)], contiguous=True) == []


def test_without_contiguous_an_offset_that_nothing_mentions_is_a_hole_of_the_log() -> None:
    assert found([(10, 0), (13, 0)]) == []


def test_many_offsets_are_counted_and_not_listed() -> None:
    (result,) = found([], until=1010, contiguous=True)
    assert result.endswith("10, 11, 12, 13, 14 and others (1000 in all)")
