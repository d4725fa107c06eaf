from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.sink import layout
from pipeline.sink.layout import SegmentName
from pipeline.sink.verify import verify
from tests.sink.building import IDENTITY, TP, DictStore, damaged_page, draft, open_chain


def key(first: int) -> str:
    return layout.segment_key(TP, SegmentName(first))


@pytest.fixture
def store() -> DictStore:
    """A chain of three segments: [0, 4), [4, 9), [9, 12)."""
    made = DictStore()
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, 0)
    for number, (first, until) in enumerate([(0, 4), (4, 9), (9, 12)]):
        chain.commit(draft(first, until, number=number))
    return made


def other_chain(*cuts: int, origin: int = 0) -> DictStore:
    made = DictStore()
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, origin)
    for number, (first, until) in enumerate(zip((origin, *cuts), cuts, strict=False)):
        chain.commit(draft(first, until, number=number))
    return made


def test_a_whole_chain_has_no_fault(store: DictStore) -> None:
    assert verify(store, contiguous=True) == []
    assert verify(DictStore()) == []


def remove(store: DictStore) -> None:
    del store.objects[key(4)]


def rename(store: DictStore) -> None:
    store.objects[key(5)] = store.objects.pop(key(4))


def overlap(store: DictStore) -> None:
    store.objects[key(3)] = other_chain(3, 8).objects[key(3)]


def replace_by_a_shorter_one(store: DictStore) -> None:
    store.objects[key(4)] = other_chain(4, 7).objects[key(4)]


def truncate(store: DictStore) -> None:
    store.objects[key(4)] = store.objects[key(4)][:-9]


def damage_a_page(store: DictStore) -> None:
    store.objects[key(4)] = damaged_page(store.objects[key(4)])


def lose_the_origin(store: DictStore) -> None:
    del store.objects[layout.origin_key(TP)]


def lose_the_sink(store: DictStore) -> None:
    del store.objects[layout.SINK]


def damage_the_origin(store: DictStore) -> None:
    store.objects[layout.origin_key(TP)] = b"?"


def begin_elsewhere(store: DictStore) -> None:
    store.objects[layout.origin_key(TP)] = other_chain(origin=2).objects[layout.origin_key(TP)]


def come_from_another_sink(store: DictStore) -> None:
    store.objects[layout.SINK] = other_chain().objects[layout.SINK]


def add_a_file(store: DictStore) -> None:
    store.objects["predictions/notes.parquet"] = b""


def lose_traces(store: DictStore) -> None:
    del store.objects[layout.traces_key(key(4))]


def mix_up_traces(store: DictStore) -> None:
    store.objects[layout.traces_key(key(4))] = store.objects[layout.traces_key(key(0))]


def truncate_traces(store: DictStore) -> None:
    store.objects[layout.traces_key(key(9))] = store.objects[layout.traces_key(key(9))][:-3]


def leave_traces_of_nothing(store: DictStore) -> None:
    store.objects[layout.traces_key(key(77))] = b""


@pytest.mark.parametrize(
    ("harm", "where", "what"),
    [
        (remove, key(9), "there is a gap"),
        (rename, key(5), "give it its name back"),
        (overlap, key(3), "there is an overlap"),
        (replace_by_a_shorter_one, key(9), "there is a gap"),
        (truncate, key(4), "readable Parquet file"),
        (damage_a_page, key(4), "readable rows"),
        (lose_the_origin, layout.origin_key(TP), "expected this claim"),
        (lose_the_sink, layout.SINK, "expected this claim"),
        (damage_the_origin, layout.origin_key(TP), "damaged"),
        (begin_elsewhere, key(0), "an overlap"),
        (come_from_another_sink, key(0), "it was written to"),
        (add_a_file, "predictions/notes.parquet", "only segments"),
        (lose_traces, layout.traces_key(key(4)), "there are none"),
        (mix_up_traces, key(4), "to hold this segment's traces"),
        (truncate_traces, key(9), "to hold this segment's traces"),
        (leave_traces_of_nothing, layout.traces_key(key(77)), "there is none"),
    ],
)
def test_verify_finds_what_is_wrong_and_says_where(
    store: DictStore, harm: Callable[[DictStore], None], where: str, what: str
) -> None:
    harm(store)
    assert any(fault.key == where and what in fault.what for fault in verify(store)), list(map(str, verify(store)))


def test_the_newest_segments_traces_may_still_be_missing(store: DictStore) -> None:
    del store.objects[layout.traces_key(key(9))]
    assert verify(store) == []


def test_an_offset_that_nothing_mentions_is_a_fault_only_if_the_log_has_no_holes() -> None:
    made = other_chain(4)
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, 0)
    jumped = draft(6, 8, number=1)
    chain.commit(jumped)
    assert verify(made) == []
    (fault,) = verify(made, contiguous=True)
    assert fault.what.endswith("neither rows nor pending: 4, 5")
