from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adawise.errors import ChainError
from adawise.output.compaction.check import check
from adawise.output.compaction.delete import deletable, delete, delete_older
from adawise.output.compaction.segments import ChainIdentity
from adawise.sink import layout, segment
from adawise.sink.files import compacted_names, data_keys, segment_names
from adawise.store.store import Store
from tests.output.compaction.building import Days, compacted, content
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain

MADE = datetime(2026, 12, 1, tzinfo=UTC)
LATER = MADE + timedelta(seconds=1)


@pytest.fixture
def store() -> DictStore:
    """Five days, four of which are compacted."""
    made = DictStore()
    Days(made).commit(24)
    compacted(made)
    return made


def deleted(store: Store, made_before: datetime = LATER) -> list[str]:
    return [key for covered in deletable(store, TP, made_before=made_before) for key in delete(store, covered)]


def test_readers_find_the_same_when_the_segments_are_gone(store: DictStore) -> None:
    before, keys = content(store), data_keys(store)
    gone = deleted(store)
    assert len(gone) > 10
    assert not {*gone, *map(layout.traces_key, gone)} & store.objects.keys()
    assert (content(store), data_keys(store)) == (before, keys)
    assert check(store, TP, ChainIdentity.of(store, TP), contiguous=True)[1] == []
    assert deleted(store) == []


def test_the_last_segment_of_each_file_stays_with_its_state_and_so_does_all_that_is_not_compacted(
    store: DictStore,
) -> None:
    names = segment_names(store, TP)
    ends = [name.until for name in compacted_names(store, layout.PREDICTIONS, TP)]
    last = [max(name for name in names if name < end) for end in ends]
    deleted(store)
    kept = segment_names(store, TP)
    assert kept == sorted({*last, *(name for name in names if name >= ends[-1])})
    keys = [layout.segment_key(TP, name) for name in kept]
    assert all(segment.read_footer(store.objects[key], key).states for key in keys)
    assert all(layout.traces_key(key) in store.objects for key in keys)


def test_nothing_is_deleted_before_its_time_or_before_traces_are_there(store: DictStore) -> None:
    objects = dict(store.objects)
    assert deleted(store, MADE) == []
    newest = compacted_names(store, layout.PREDICTIONS, TP)[-1]
    del store.objects[layout.compacted_key(layout.TRACES, TP, newest)]
    gone = deleted(store)
    assert gone
    assert all(parsed[1] < newest.first for key in gone if (parsed := layout.parse_key(key)))
    assert {key for key in objects if key.startswith("predictions/")} - set(gone) <= store.objects.keys()


def test_a_dry_run_yields_what_would_be_deleted_and_changes_nothing() -> None:
    store, day = DictStore(), timedelta(days=1)
    store.now = datetime(2026, 1, 1, tzinfo=UTC)
    Days(store).commit(24)
    compacted(store)
    objects = dict(store.objects)
    planned = list(delete_older(store, [TP], day, dry_run=True))
    assert planned
    assert list(delete_older(store, [TP], day, dry_run=False)) == []  # by the store's clock it is too early
    assert store.objects == objects
    store.now += 2 * day
    assert list(delete_older(store, [TP], day, dry_run=False)) == planned
    assert not {*planned} & store.objects.keys()


@pytest.mark.parametrize("dataset", [layout.PREDICTIONS, layout.TRACES])
def test_nothing_is_deleted_for_a_file_that_is_damaged(store: DictStore, dataset: str) -> None:
    first, second, *_ = [layout.compacted_key(dataset, TP, name) for name in compacted_names(store, dataset, TP)]
    store.objects[first] = store.objects[first][:-9]
    segments = segment_names(store, TP)
    with pytest.raises(ChainError, match="move it away"):
        deleted(store)
    store.objects[first] = store.objects[second]  # whole, but of other rows
    if dataset == layout.PREDICTIONS:
        with pytest.raises(ChainError, match="never deleted"):
            deleted(store)
    assert segment_names(store, TP)[:3] == segments[:3]


def test_a_worker_goes_on_from_the_head(store: DictStore) -> None:
    deleted(store)
    chain = open_chain(store)
    head = chain.recover(TP, IDENTITY, 0)
    again = replace(draft(head.next_offset, head.next_offset + 4), pending=head.pending)
    assert chain.commit(again).won
    assert check(store, TP, ChainIdentity.of(store, TP), contiguous=True)[1] == []


def test_what_a_worker_writes_that_slept_since_before_is_not_read_and_goes_with_the_next_deletion() -> None:
    store = DictStore()
    zombie = open_chain(store, "zombie")
    zombie.check()
    zombie.recover(TP, IDENTITY, 0)
    days = Days(store)
    days.commit(20)
    compacted(store)
    deleted(store)
    before = content(store)
    assert zombie.commit(draft(0, 5)).won  # the name is free again
    assert content(store) == before
    (_, what), *_ = check(store, TP, ChainIdentity.of(store, TP))[1]
    assert "readers skip it" in what
    assert len(deleted(store)) == 1
    assert check(store, TP, ChainIdentity.of(store, TP))[1] == []
