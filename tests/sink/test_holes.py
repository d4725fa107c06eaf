"""A segment that is gone from the middle of a chain is seen at a start, whatever compaction has done to the chain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from adawise.output.compaction.delete import deletable, delete
from adawise.ports import Head
from adawise.sink import layout
from adawise.sink.files import compacted_names, segment_keys, segment_names
from adawise.sink.holes import of_root
from tests.fakes import FakeSource
from tests.output.compaction.building import Days, compacted
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain
from tests.sink.forging import footer_of, forge
from tests.worker.loop import Bench, images


def recovered(store: DictStore) -> tuple[str, ...]:
    """What a worker that starts now is told."""
    holes = tuple(open_chain(store).recover(TP, IDENTITY, 0).holes)
    assert [hole for _, hole in of_root(store)] == list(holes)
    return holes


def chain(count: int = 30) -> DictStore:
    store = DictStore()
    Days(store, seed=count).commit(count)
    return store


def keys(store: DictStore) -> list[str]:
    return [key for _, key in segment_keys(store)]


def test_a_whole_chain_has_no_hole_and_its_head_is_all_that_is_read() -> None:
    store, read = chain(), list[str]()

    class Counting(DictStore):
        def get(self, key: str) -> bytes | None:
            read.append(key)
            return super().get(key)

    counting = Counting()
    counting.objects = store.objects
    assert recovered(store) == ()
    assert open_chain(counting).recover(TP, IDENTITY, 0).is_counted
    assert len([key for key in read if key.startswith(layout.PREDICTIONS)]) == 2  # the head, and what would follow it


@pytest.mark.parametrize("at", range(0, 28, 3))
@pytest.mark.parametrize("count", [1, 2])
def test_a_hole_is_told_with_the_segments_around_it(at: int, count: int) -> None:
    store = chain()
    names, read = segment_names(store, TP), list[str]()
    for key in keys(store)[at : at + count]:
        store.delete(key)

    class Counting(DictStore):
        def get(self, key: str) -> bytes | None:
            read.append(key)
            return super().get(key)

    counting = Counting()
    counting.objects = store.objects
    before = "the beginning" if at == 0 else names[at - 1].stem
    gone = "1 segment is" if count == 1 else f"{count} segments are"
    assert recovered(store) == (f"between {before} and {names[at + count].stem} {gone} missing",)
    open_chain(counting).recover(TP, IDENTITY, 0)
    assert len(read) < 12, "found by halving, and not by opening all"


def test_a_foreign_segment_is_told_as_one_that_is_not_of_the_chain() -> None:
    store = chain()
    names = segment_names(store, TP)
    store.objects[layout.segment_key(TP, replace(names[5], sequence=77))] = store.objects[keys(store)[5]]
    assert "segments that do not belong to the chain are" in recovered(store)[0]


@pytest.mark.parametrize("deleted", [False, True])
def test_compaction_and_deletion_leave_no_hole_and_one_after_or_within_them_is_told(deleted: bool) -> None:
    store = DictStore()
    days = Days(store)
    days.commit(20)
    assert compacted(store)
    if deleted:
        for each in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
            assert list(delete(store, each))
    days.commit(10)
    assert recovered(store) == ()
    covers = compacted_names(store, layout.PREDICTIONS, TP)
    after = [name for name in segment_names(store, TP) if name >= covers[-1].until]

    harmed = DictStore()
    harmed.objects = dict(store.objects)
    harmed.delete(layout.segment_key(TP, after[3]))
    assert recovered(harmed) == (f"between {after[2].stem} and {after[4].stem} 1 segment is missing",)

    harmed.objects = dict(store.objects)
    harmed.delete(layout.compacted_key(layout.PREDICTIONS, TP, covers[1]))
    (found,) = recovered(harmed)
    assert found.endswith(f"no file begins with {covers[1].first.stem}")


def extended(store: DictStore, first: int, count: int) -> Head:
    """So many segments of two images more."""
    opened = open_chain(store)
    head = opened.recover(TP, IDENTITY, 0)
    for number in range(first, first + count):
        opened.commit(draft(2 * number, 2 * number + 2, number=number))
    return head


def test_counting_begins_with_the_head_of_an_earlier_version() -> None:
    store = DictStore()
    extended(store, 0, 12)
    for key in keys(store):
        forge(store, key, lambda rows: rows.replace_schema_metadata(None), lineage=None)
    head = extended(store, 12, 5)
    assert (head.is_counted, head.holes) == (False, ())
    names = segment_names(store, TP)
    lineage = footer_of(store, keys(store)[-1]).lineage
    assert lineage is not None
    assert (lineage.since, lineage.count) == (names[11], 5)
    assert recovered(store) == ()
    whole = dict(store.objects)
    store.delete(keys(store)[3])  # nobody counted it
    assert recovered(store) == ()
    store.objects = whole
    store.delete(keys(store)[13])
    assert recovered(store) == (f"between {names[12].stem} and {names[14].stem} 1 segment is missing",)


def test_a_worker_says_it_loudly_and_goes_on() -> None:
    store = DictStore()
    Bench(FakeSource(images(120, "north", "south"), finite=True), store).run()
    victim = keys(store)[2]
    store.delete(victim)
    with capture_logs() as lines:
        bench = Bench(FakeSource(images(160, "north", "south"), finite=True), store).run()
    (line,) = [line for line in lines if line["event"] == "hole_found"]
    assert line["log_level"] == "error"
    assert "1 segment is missing" in line["hole"]
    assert "`adawise repair ROOT`" in line["note"]
    assert bench.table["offset"].to_pylist()[-1] == 159
