from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.output.compaction import merged
from adawise.output.compaction.check import Covered, check, foreign_keys
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.segments import ChainIdentity
from adawise.sink import layout, segment
from adawise.sink.files import compacted_names, data_keys, segment_names
from adawise.sink.layout import SegmentName
from tests.output.compaction.building import Days, compacted
from tests.sink.building import TP, DictStore, damaged_page
from tests.sink.footers import read_segment_footers

AGES_LATER = datetime(2027, 1, 1, tzinfo=UTC)
Harm = Callable[[DictStore], None]


def built() -> DictStore:
    """Four days, three of which are compacted."""
    made = DictStore()
    Days(made).commit(18)
    compacted(made)
    return made


@pytest.fixture(scope="module")
def whole() -> DictStore:
    return built()


@pytest.fixture
def store(whole: DictStore) -> DictStore:
    copy = DictStore()
    copy.objects = dict(whole.objects)
    return copy


def key_of(store: DictStore, number: int, dataset: str = layout.PREDICTIONS) -> str:
    return layout.compacted_key(dataset, TP, compacted_names(store, dataset, TP)[number])


def inside(store: DictStore, number: int) -> list[str]:
    """The segments that a file stands for."""
    name = compacted_names(store, layout.PREDICTIONS, TP)[number]
    return [layout.segment_key(TP, found) for found in segment_names(store, TP) if name.first <= found < name.until]


def faults_of(store: DictStore) -> list[tuple[str, str]]:
    return check(store, TP, ChainIdentity.of(store, TP), contiguous=True)[1] + foreign_keys(store)


def test_it_says_where_the_chain_goes_on(store: DictStore) -> None:
    covered, faults = check(store, TP, ChainIdentity.of(store, TP))
    last = inside(store, -1)[-1]
    footer = segment.read_footer(store.objects[last], last)
    until = compacted_names(store, layout.PREDICTIONS, TP)[-1].until
    files = compacted_names(store, layout.PREDICTIONS, TP)
    rows = sum(
        pq.read_metadata(pa.BufferReader(store.objects[layout.compacted_key(layout.PREDICTIONS, TP, name)])).num_rows
        for name in files
    )
    gaps = tuple(gap for _, each in read_segment_footers(store) if each.next <= footer.next for gap in each.gaps)
    assert gaps
    assert (covered, faults) == (
        Covered(until, last, footer.next, footer.pending, files=len(files), rows=rows, gaps=gaps),
        [],
    )
    gone = [key for file in deletable(store, TP, made_before=AGES_LATER) for key in delete(store, file)]
    assert check(store, TP, ChainIdentity.of(store, TP)) == (replace(covered, deleted=len(gone)), [])
    assert len(gone) > 10


def test_a_segment_of_which_the_traces_are_gone_counts_as_deleted(store: DictStore) -> None:
    """A deletion may have died there."""
    del store.objects[layout.traces_key(inside(store, 0)[0])]
    covered, faults = check(store, TP, ChainIdentity.of(store, TP))
    assert (covered.deleted, faults) == (1, [])


def test_without_compacted_files_that_is_its_origin() -> None:
    store = DictStore()
    Days(store).commit(2)
    assert check(store, TP, ChainIdentity.of(store, TP)) == (Covered(SegmentName(0), None, 0, ()), [])


def truncate(store: DictStore) -> None:
    store.objects[key_of(store, 1)] = store.objects[key_of(store, 1)][:-9]


def damage_a_page(store: DictStore) -> None:
    store.objects[key_of(store, 1)] = damaged_page(store.objects[key_of(store, 1)])


def lose_the_file(store: DictStore) -> None:
    del store.objects[key_of(store, 1)]


def lose_traces(store: DictStore) -> None:
    del store.objects[key_of(store, 1, layout.TRACES)]


def lose_the_plan(store: DictStore) -> None:
    del store.objects[layout.plan_key(TP, compacted_names(store, layout.PREDICTIONS, TP)[1].first)]


def swap(store: DictStore) -> None:
    one, other = key_of(store, 0), key_of(store, 1)
    store.objects[one], store.objects[other] = store.objects[other], store.objects[one]


def swap_traces(store: DictStore) -> None:
    one, other = key_of(store, 0, layout.TRACES), key_of(store, 1, layout.TRACES)
    store.objects[one], store.objects[other] = store.objects[other], store.objects[one]


def lose_a_row(store: DictStore) -> None:
    """With a footer that knows nothing of it."""
    _rewrite(store, lambda rows: rows.slice(1))


def double_a_row(store: DictStore) -> None:
    _rewrite(store, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))


def change_a_row(store: DictStore) -> None:
    _rewrite(store, _changed)


def change_a_row_and_its_checksum(store: DictStore) -> None:
    """What only the segments that are still there can tell."""
    key = key_of(store, 1)
    facts, rows = merged.read_proven(layout.PREDICTIONS, store.objects[key], key)
    rows = _changed(rows)
    facts = replace(facts, digest=merged.digest_of(layout.PREDICTIONS, rows))
    store.objects[key] = merged.encode(layout.PREDICTIONS, [rows], facts)


def _changed(rows: pa.Table) -> pa.Table:
    labels = ["nothing", *rows["reason"].to_pylist()[1:]]
    return rows.set_column(rows.column_names.index("reason"), rows.schema.field("reason"), pa.array(labels))


def _rewrite(store: DictStore, change: Callable[[pa.Table], pa.Table]) -> None:
    key = key_of(store, 1)
    rows = merged.read_rows(layout.PREDICTIONS, store.objects[key], key)
    kept = pq.ParquetFile(pa.BufferReader(store.objects[key])).metadata.metadata
    facts = {name: value for name, value in kept.items() if name.startswith(b"adawise.")}
    store.objects[key] = segment.parquet(change(rows), [], facts)


def lose_the_last_segment(store: DictStore) -> None:
    del store.objects[inside(store, 1)[-1]]


def come_later(store: DictStore) -> None:
    """A segment of another chain under the name of one that was compacted."""
    other = DictStore()
    Days(other, seed=1).commit(1)
    store.objects[inside(store, 0)[0]] = other.objects[data_keys(other)[0]]


def add_a_file(store: DictStore) -> None:
    store.objects["compacted/predictions/notes.parquet"] = b""


def add_a_file_to_the_plans(store: DictStore) -> None:
    store.objects["compacted/plans/topic-frames/partition-00003/notes.json"] = b"{}"


def leave_traces_of_nothing(store: DictStore) -> None:
    store.objects[key_of(store, 1, layout.TRACES).replace("2026-", "2025-")] = b""


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (truncate, "expected a readable Parquet file"),
        (damage_a_page, "expected readable rows"),
        (lose_the_file, "there is a gap"),
        (lose_traces, "expected its traces beside it"),
        (lose_the_plan, "expected the plan of"),
        (swap, "expected its footer to name it"),
        (swap_traces, "expected as many images as accepted rows"),
        (lose_a_row, "rows with the checksum of its footer"),
        (double_a_row, "rows with the checksum of its footer"),
        (change_a_row, "rows with the checksum of its footer"),
        (change_a_row_and_its_checksum, "but the rows there differ"),
        (lose_the_last_segment, "which is never deleted"),
        (come_later, "readers skip it"),
        (add_a_file, "but this is another file"),
        (add_a_file_to_the_plans, "but this is another file"),
        (leave_traces_of_nothing, "expected predictions of this name"),
    ],
)
@pytest.mark.cases("damage", every=3)
def test_it_finds_what_is_wrong(store: DictStore, harm: Harm, what: str) -> None:
    assert faults_of(store) == []
    harm(store)
    assert any(what in text for _, text in faults_of(store)), faults_of(store)


@pytest.mark.parametrize("harm", [truncate, lose_a_row, change_a_row, lose_the_last_segment])
def test_it_finds_it_without_the_segments_too(store: DictStore, harm: Harm) -> None:
    for covered in deletable(store, TP, made_before=AGES_LATER):
        list(delete(store, covered))
    assert faults_of(store) == []
    harm(store)
    assert faults_of(store)


def test_the_newest_files_traces_may_still_be_missing(store: DictStore) -> None:
    del store.objects[key_of(store, -1, layout.TRACES)]
    assert faults_of(store) == []
