from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest

from adawise.errors import ChainError
from adawise.output.compaction.compact import CompactionPlan, choose_plan, claim_plan, read_plan
from adawise.sink import layout
from adawise.sink.files import segment_names
from adawise.sink.layout import CompactedName, SegmentName
from tests.output.compaction.building import LIMITS, Days
from tests.sink.building import TP, DictStore

PLAN = CompactionPlan(CompactedName(SegmentName(0), SegmentName(9, 1), "2026-11-25"), 3, 70)
KEY = "compacted/plans/topic-frames/partition-00003/00000000000000000000.json"


def test_the_first_plan_is_the_one_that_holds() -> None:
    store = DictStore()
    assert read_plan(store, TP, SegmentName(0)) is None
    assert claim_plan(store, TP, PLAN) == PLAN
    other = replace(PLAN, name=replace(PLAN.name, until=SegmentName(12)))
    assert claim_plan(store, TP, other) == PLAN == read_plan(store, TP, SegmentName(0))
    assert list(store.objects) == [KEY]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-5],
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
        lambda data: data.replace(b"_00000000000000000000-", b"_00000000000000000001-"),
        lambda data: data.replace(b'"rows": 70', b'"rows": null'),
        lambda data: b"[]",
    ],
)
def test_a_plan_that_cannot_be_read_is_an_error_with_the_remedy(change: Callable[[bytes], bytes]) -> None:
    store = DictStore()
    claim_plan(store, TP, PLAN)
    store.objects[KEY] = change(store.objects[KEY])
    with pytest.raises(ChainError, match=rf"{KEY}.*restore it or upgrade this program"):
        read_plan(store, TP, SegmentName(0))


def test_a_clock_that_goes_back_does_not_end_a_day() -> None:
    store = DictStore()
    days = Days(store)
    days.commit(3)  # 02:00, 06:00, 10:00 of November 21
    days.now -= timedelta(days=2)
    days.commit(1)
    days.now += timedelta(days=3)
    days.commit(2)
    names = segment_names(store, TP)
    plan = choose_plan(store, TP, names, LIMITS)
    assert plan is not None
    assert (plan.segments, plan.name.day, plan.name.until) == (4, "2026-11-21", names[4])


def test_there_is_nothing_to_do_without_a_day_that_is_over_and_never_with_the_head() -> None:
    store = DictStore()
    Days(store).commit(3)
    names = segment_names(store, TP)
    assert choose_plan(store, TP, [], LIMITS) is None
    assert choose_plan(store, TP, names[-1:], LIMITS) is None
    assert choose_plan(store, TP, names, replace(LIMITS, before=date(2026, 11, 21))) is None
    plan = choose_plan(store, TP, names, LIMITS)
    assert plan is not None
    assert plan.name.until == names[-1]


def test_bytes_limit_a_file_as_rows_do() -> None:
    store = DictStore()
    Days(store).commit(5)
    names = segment_names(store, TP)
    plan = choose_plan(store, TP, names, replace(LIMITS, max_bytes=1))
    assert plan is not None
    assert plan.segments == 1


def test_a_segment_that_is_gone_is_an_error() -> None:
    with pytest.raises(ChainError, match="it is gone; restore it"):
        choose_plan(DictStore(), TP, [SegmentName(0), SegmentName(5)], LIMITS)


def test_the_name_of_a_file_says_what_it_covers() -> None:
    assert str(PLAN.name) == "2026-11-25_00000000000000000000-00000000000000000009_000001.parquet"
    key = layout.compacted_key(layout.TRACES, TP, PLAN.name)
    assert key == f"compacted/traces/topic-frames/partition-00003/{PLAN.name}"
    assert layout.parse_compacted_key(key) == (TP, PLAN.name)
