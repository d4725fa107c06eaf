from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from adawise.errors import ChainError
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.merged import digest_of
from adawise.sink import layout, schemas
from adawise.sink.files import data_keys, is_covered, newest_names
from adawise.sink.layout import CompactedName, SegmentName
from tests.output.compaction.building import Days, compacted, content, found
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain
from tests.sink.footers import read_segment_footers
from tests.sink.stored import read_predictions


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


def test_footers_and_rows_come_in_the_order_of_the_chain(store: DictStore) -> None:
    assert [(name, footer.next) for name, footer in read_segment_footers(store)] == [
        (key(0), 4),
        (key(4), 9),
        (key(9), 12),
    ]
    rows = read_predictions(store, ["offset", "status"])
    assert rows["offset"].to_pylist() == list(range(12))
    assert rows.column_names == ["offset", "status"]
    assert read_predictions(DictStore()).schema.equals(schemas.PREDICTIONS)


def test_reading_rows_of_a_damaged_segment_is_an_error(store: DictStore) -> None:
    store.objects[key(4)] = store.objects[key(4)][:-9]
    with pytest.raises(ChainError, match=key(4)):
        read_predictions(store)


class Overtaken(DictStore):
    """All that is a day old is compacted and deleted while somebody lists: before the `at`-th answer reaches him."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0

    def list(self, prefix: str) -> list[str]:
        listed = super().list(prefix)
        self.at -= 1
        if self.at == 0:
            compacted(self)
            for covered in deletable(self, TP, made_before=datetime.max.replace(tzinfo=UTC)):
                [*delete(self, covered)]
        return listed


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("dataset", [layout.PREDICTIONS, layout.TRACES])
def test_a_reader_who_is_overtaken_by_compaction_and_deletion_lists_each_row_once(at: int, dataset: str) -> None:
    store, peace = Overtaken(), DictStore()
    Days(store).commit(14)
    Days(peace).commit(14)
    store.at = at
    listed = data_keys(store, dataset)
    assert store.at <= 0
    if at == 2:  # both lists are of before: what they name may be gone by now, but not within the time to wait
        store.objects = peace.objects | store.objects
    read = DictStore()
    read.objects = {key: store.objects[key] for key in listed}
    identity = ["row_id"] if dataset == layout.PREDICTIONS else ["stream_id", "batch_number"]
    rows = [tuple(row.values()) for row in found(read, dataset).select(identity).to_pylist()]
    assert len(rows) == len(set(rows))
    assert digest_of(dataset, found(read, dataset)) == content(peace)[dataset]


def test_a_file_covers_its_first_segment_and_all_up_to_the_next_file() -> None:
    covers = [CompactedName(SegmentName(*one), SegmentName(*other), "2026-11-25") for one, other in COVERS]
    names = [SegmentName(first, sequence) for first in range(12) for sequence in range(3)]
    covered = [name for name in names if is_covered(name, covers)]
    expected = [name for name in names if any(cover.first <= name < cover.until for cover in covers)]
    assert covered == expected
    assert not is_covered(SegmentName(3), [])


COVERS = [((2, 1), (4, 0)), ((4, 0), (5, 2)), ((7, 0), (9, 0))]


class Paged(DictStore):
    """Counts its pages, of ten keys."""

    pages = 0

    def __init__(self) -> None:
        super().__init__()
        self.page_keys = 10

    def page(self, folder: str, after: str = "") -> tuple[Sequence[str], bool]:
        self.pages += 1
        return super().page(folder, after)


def named(*names: SegmentName) -> Paged:
    store = Paged()
    for name in names:
        store.objects[layout.segment_key(TP, name)] = b""
    return store


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 12, 57, 100_000])
@pytest.mark.parametrize("spacing", [1, 4096])
@pytest.mark.cases("worker", every=4)
def test_the_newest_names_of_a_long_chain_are_found_in_few_requests(count: int, spacing: int) -> None:
    names = [SegmentName(n * spacing) for n in range(count)]
    store = named(*names)
    found, are_all = newest_names(store, TP)
    assert are_all == (count <= 10)
    assert found == names[-len(found) :] if found else not count
    assert len(found) >= min(count, 5)
    assert store.pages <= 40


def test_the_newest_names_are_found_behind_a_jump_of_the_offsets_and_among_many_of_one_offset() -> None:
    early = [SegmentName(n) for n in range(50)]
    late = [SegmentName(2**60 + n) for n in range(3)]
    same = [SegmentName(2**60 + 3, sequence) for sequence in range(35)]
    for names in ([*early, *late], [*early, *late, *same]):
        store = named(*names)
        found, _ = newest_names(store, TP)
        assert found == names[-len(found) :]
        assert store.pages <= 90
