"""What was lost is mended as far as it can be: on a folder and on S3, and by hand in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from adawise.adapt.state import StreamState
from adawise.errors import ChainError
from adawise.output.compaction.delete import deletable, delete
from adawise.output.verify.repair import RepairPlan, plan
from adawise.output.verify.root import verify
from adawise.sink import layout
from adawise.sink.files import compacted_names, segment_keys, segment_names
from adawise.sink.holes import of_root
from adawise.store.store import Store
from tests.output.compaction.building import Days, compacted
from tests.sink.building import IDENTITY, TP, DictStore, ForgetfulStore, damaged_page, open_chain
from tests.sink.forging import an_honest_sink, footer_of, key
from tests.sink.stored import read_predictions


def keys(store: Store) -> list[str]:
    return [key for _, key in segment_keys(store)]


def repaired(store: Store) -> RepairPlan:
    """Planned, which changes nothing, then done; afterwards there is nothing left to do."""
    before = {key: store.get(key) for key in store.list("")}
    found = plan(store)
    assert {key: store.get(key) for key in store.list("")} == before
    for step in found.steps:
        step.do()
    after = {key: store.get(key) for key in store.list("")}
    assert all(before[key] in (after.get(key), after.get(f"_set_aside/{key}")) for key in before)
    assert plan(store).steps == []
    return found


def test_a_whole_root_needs_nothing() -> None:
    for store in (an_honest_sink(), DictStore()):
        assert plan(store) == RepairPlan()


def test_a_hole_is_bridged_so_that_links_states_and_offsets_hold_again() -> None:
    store = an_honest_sink()
    store.delete(key(4))
    found = repaired(store)
    stale = layout.traces_key(key(4))
    assert [step.what for step in found.steps] == [
        f"move {stale}, whose segment is missing, to _set_aside/{stale}",
        f"create {key(4)} without rows, so that {key(9)} follows again: of 6 offsets (3 to 8) the rows are lost",
    ]
    assert f"--state-of {store}/{key(0)} -o FOLDER" in found.steps[1].again
    assert verify(store, contiguous=True, read_state=StreamState.from_bytes) == []
    assert list(of_root(store)) == []
    assert open_chain(store).recover(TP, IDENTITY, 0).next_offset == 12


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 2), (2, 3), (3, 5)])
@pytest.mark.cases("worker", every=2)
def test_whatever_was_lost_between_two_segments_is_bridged(seed: int, count: int) -> None:
    whole = DictStore()
    Days(whole, seed).commit(10)
    for at in range(seed % 2, 10 - count, 4):
        store = DictStore()
        store.objects = dict(whole.objects)
        lost = keys(store)[at : at + count]
        for each in lost:
            store.delete(each)
            store.delete(layout.traces_key(each))
        left = set(read_predictions(store)["row_id"].to_pylist())
        found = repaired(store)
        assert (len(found.steps), found.beyond) == (1, []), (at, found)
        assert verify(store) == [], at
        assert list(of_root(store)) == []
        assert set(read_predictions(store)["row_id"].to_pylist()) == left
        gaps = {o for each in keys(store) for g in footer_of(store, each).gaps for o in range(g.first, g.until)}
        rows = read_predictions(store)["offset"].to_pylist()
        head = footer_of(store, keys(store)[-1])
        assert gaps | {*rows} | {*head.pending} == {*range(head.next)}
        compacted(store)
        assert verify(store) == []


def test_the_names_that_are_known_are_no_longer_free_and_a_second_hole_later_is_told() -> None:
    store = DictStore()
    days = Days(store, 1)
    days.commit(20)
    names = segment_names(store, TP)
    for name in names[5:9]:
        store.delete(layout.segment_key(TP, name))
    repaired(store)
    assert {names[5], names[8]} <= {*segment_names(store, TP)}
    days.commit(5)
    assert verify(store) == []
    head = open_chain(store).recover(TP, IDENTITY, 0)
    assert (head.next_offset, list(head.holes)) == (days.head.next_offset, [])
    victim = segment_names(store, TP)[-3]
    store.delete(layout.segment_key(TP, victim))
    ((_, hole),) = of_root(store)
    assert hole.endswith("1 segment is missing")


def test_a_hole_after_what_was_compacted_is_bridged_and_one_among_compacted_files_is_beyond() -> None:
    store = DictStore()
    days = Days(store)
    days.commit(20)
    assert compacted(store)
    for each in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
        assert list(delete(store, each))
    days.commit(8)
    covers = compacted_names(store, layout.PREDICTIONS, TP)
    after = [name for name in segment_names(store, TP) if name >= covers[-1].until]
    for name in after[:2]:
        store.delete(layout.segment_key(TP, name))
    repaired(store)
    assert verify(store) == []
    whole = dict(store.objects)
    store.delete(layout.compacted_key(layout.PREDICTIONS, TP, covers[1]))
    (result,) = plan(store).beyond
    assert f"{covers[1]} is gone, but its traces are there: restore it" in result
    store.delete(layout.compacted_key(layout.TRACES, TP, covers[1]))
    (result,) = plan(store).beyond
    assert "a compacted file between others is gone" in result
    store.objects = whole
    kept = [name for name in segment_names(store, TP) if name < covers[-1].until][-1]
    store.delete(layout.segment_key(TP, kept))
    found = plan(store)
    assert [step.what.split()[0] for step in found.steps] == ["move"]  # its traces
    assert found.beyond == [f"{TP}: the last segment before {covers[-1].until.stem} is gone: restore it"]


def test_a_removed_root_document_and_other_claims_are_read_off_the_segments() -> None:
    store = an_honest_sink()
    claim = store.objects.pop(layout.origin_key(TP))
    del store.objects[layout.SINK]
    with pytest.raises(ChainError, match="adawise repair"):
        open_chain(store).check()
    found = repaired(store)
    assert [step.what.split()[1] for step in found.steps] == [layout.SINK, layout.origin_key(TP)]
    assert store.objects[layout.origin_key(TP)] == claim
    open_chain(store).check()
    assert verify(store, contiguous=True, read_state=StreamState.from_bytes) == []


def test_stale_traces_are_set_aside_and_missing_ones_derived() -> None:
    store = an_honest_sink()
    stale = layout.traces_key(key(77))
    expected = store.objects[layout.traces_key(key(4))]
    store.objects[stale] = store.objects.pop(layout.traces_key(key(4)))
    repaired(store)
    assert store.objects[f"_set_aside/{stale}"] == expected
    assert verify(store, contiguous=True, read_state=StreamState.from_bytes) == []
    store.objects[stale] = b"another of that name"
    plan(store).steps[0].do()
    assert stale not in store.objects
    assert len([name for name in store.objects if name.startswith("_set_aside/") and name.endswith(stale)]) == 2


def damaged(store: DictStore) -> None:
    store.objects[key(4)] = store.objects[key(4)][:-9]


def overlapping(store: DictStore) -> None:
    store.objects[key(5)] = store.objects[key(4)]


def renamed(store: DictStore) -> None:
    store.objects[key(5)] = store.objects.pop(key(4))
    store.objects[layout.traces_key(key(5))] = store.objects.pop(layout.traces_key(key(4)))


@pytest.mark.parametrize("harm", [damaged, overlapping, renamed])
def test_what_cannot_be_mended_is_said_and_nothing_is_done_about_it(harm: Callable[[DictStore], None]) -> None:
    store = an_honest_sink()
    harm(store)
    found = plan(store)
    assert (found.steps, len(found.beyond)) == ([], 1)


def test_a_page_that_is_damaged_beside_a_hole_is_told() -> None:
    store = an_honest_sink()
    store.delete(key(4))
    store.objects[key(9)] = damaged_page(store.objects[key(9)])
    found = plan(store)
    assert len(found.beyond) <= 1


def test_a_segment_that_comes_back_meanwhile_is_not_overwritten() -> None:
    store = an_honest_sink()
    data = store.objects.pop(key(4))
    _, step = plan(store).steps
    store.objects[key(4)] = data
    with pytest.raises(ChainError, match="is there again"):
        step.do()
    assert store.objects[key(4)] == data


def test_a_bridge_of_which_the_answer_was_lost_is_built() -> None:
    store = ForgetfulStore()
    store.objects = an_honest_sink().objects
    store.delete(key(4))
    repaired(store)
    assert verify(store, contiguous=True, read_state=StreamState.from_bytes) == []


def a_compacted_root() -> DictStore:
    """Two files whose segments were deleted, and segments after them."""
    store = DictStore()
    days = Days(store, 3)
    days.commit(24)
    compacted(store)
    for each in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
        list(delete(store, each))
    days.commit(8)
    assert verify(store) == []
    return store


@pytest.mark.parametrize("which", [0, -1], ids=["first", "newest"])
def test_a_compacted_file_that_is_gone_at_an_end_is_asked_for_and_nothing_is_put_in_its_place(which: int) -> None:
    store = a_compacted_root()
    name = compacted_names(store, layout.PREDICTIONS, TP)[which]
    store.delete(layout.compacted_key(layout.PREDICTIONS, TP, name))
    assert verify(store)
    found = plan(store)
    assert found.steps == []
    assert any(str(name) in output and "restore it from a backup" in output for output in found.beyond)


def test_the_newest_traces_are_missed_once_their_segments_are_deleted() -> None:
    store = a_compacted_root()
    store.delete(layout.compacted_key(layout.TRACES, TP, compacted_names(store, layout.TRACES, TP)[-1]))
    assert ["without which its segments are not deleted" in str(fault) for fault in verify(store)] == [True]
