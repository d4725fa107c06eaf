"""Every way of harming a sink is named with the file and the remedy; what only looks like harm is not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import structlog
from typing_extensions import override

from adawise.adapt.state import StreamState
from adawise.errors import ChainError, Lost, Reason, SettingsError, SourceError
from adawise.output.compaction.delete import deletable, delete
from adawise.output.compaction.retain import removal
from adawise.output.compaction.retain import remove as remove_retained
from adawise.output.compaction.segments import ChainIdentity
from adawise.output.verify.findings import DERIVE, RESTORE_OR_REPAIR, STALE, Finding
from adawise.output.verify.root import verify, verify_root, walk
from adawise.output.verify.show import as_document, in_words
from adawise.ports import SegmentDraft, TopicIdentity
from adawise.records import Gap, TopicPartition
from adawise.sink import claims, layout
from adawise.sink.files import compacted_names, segment_keys, segment_names
from adawise.sink.layout import SegmentName
from adawise.sink.owner import Owner, claim_owner
from adawise.sink.segment import read_rows
from adawise.store.store import Store
from tests.damage.hostile_parquet import more_values_than_rows
from tests.output.compaction.building import Days, compacted
from tests.sink.building import IDENTITY, TP, DictStore, damaged_page, draft, frame, open_chain
from tests.sink.footers import read_segment_footers
from tests.sink.forging import History, an_honest_sink, changed, footer_of, forge, key, state
from tests.sink.stored import read_predictions


def faults_of(store: Store) -> list[Finding]:
    return verify(store, read_state=StreamState.from_bytes)


@pytest.fixture
def store() -> DictStore:
    """Segments [0, 4), [4, 9) and [9, 12) of two cameras."""
    return an_honest_sink()


def other_sink(*cuts: int, origin: int = 0, of: DictStore | None = None) -> DictStore:
    """Another chain of the same partition, with segments that end at `cuts`; with the id of another sink."""
    made = DictStore()
    if of is not None:
        made.objects[layout.SINK] = of.objects[layout.SINK]
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, origin)
    for number, (first, until) in enumerate(zip((origin, *cuts), cuts, strict=False)):
        chain.commit(draft(first, until, number=number))
    return made


@pytest.mark.parametrize("key", [layout.OWNER, layout.NUMERICS])
@pytest.mark.parametrize("data", [b"", b"{}", b'{"layout": 1, "topic": 7, "precision": 16}'])
def test_a_claim_of_the_whole_root_that_cannot_be_read_is_named(store: DictStore, key: str, data: bytes) -> None:
    store.objects[key] = data
    (fault,) = faults_of(store)
    assert (fault.kind, fault.where) == ("damage", key)
    assert fault.remedy.endswith("that starts writes it again")


def test_a_root_whose_owner_is_not_known_is_compared_with_the_topic_and_not_called_complete(store: DictStore) -> None:
    store.objects[layout.OWNER] = b"{}"
    report = verify_root(store, log=FakeLog(range(12)), read_state=StreamState.from_bytes, expects_all=True)
    assert [fault.where for fault in report.faults] == [layout.OWNER]
    assert [chain.messages for chain in report.chains] == [12]
    assert "partitions that were never read are not known" in report.commits_unknown
    assert as_document("root", report, broker=True)["complete"] is False


@pytest.mark.parametrize("key", [layout.OWNER, layout.NUMERICS])
def test_the_remedy_for_a_claim_without_the_right_to_read_it_is_that_right(
    store: DictStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = store.get

    def denied(asked: str) -> bytes | None:
        if asked == key:
            raise SettingsError("the access key lacks the right to do this")
        return get(asked)

    monkeypatch.setattr(store, "get", denied)
    (fault,) = faults_of(store)
    assert fault.where == key
    assert fault.remedy.startswith("give this user the right to read it")


def test_a_whole_sink_has_no_fault(store: DictStore) -> None:
    assert verify(store, contiguous=True, read_state=StreamState.from_bytes) == []
    assert faults_of(DictStore()) == []


@pytest.mark.parametrize("folder", [layout.PREDICTIONS, layout.TRACES, layout.COMPACTED])
def test_a_column_that_states_other_values_than_there_are_rows_is_damage_as_it_is_for_duckdb(
    folder: str, tmp_path: Path
) -> None:
    Days(store := DictStore()).commit(18)
    compacted(store)
    assert verify_root(store, read_state=None).faults == []
    damaged = next(name for name in store.list(folder) if name.endswith(".parquet"))
    (path := tmp_path / "damaged.parquet").write_bytes(store.objects[damaged])
    more_values_than_rows(path)
    with duckdb.connect() as connection, pytest.raises(duckdb.Error):
        connection.execute(f"SELECT * FROM read_parquet('{path}')").fetchall()
    store.objects[damaged] = path.read_bytes()
    assert damaged in str(verify_root(store, read_state=None).faults[0])


def test_a_walk_says_how_much_it_has_seen(store: DictStore) -> None:
    steps = list[int]()
    (report,) = walk(store, on_segment=lambda: steps.append(1))
    assert (report.segments, report.rows, report.pending, report.next_offset) == (3, 12, 0, 12)
    assert len(steps) == 3
    assert report.messages is None


# -- files


def remove(store: DictStore) -> None:
    del store.objects[key(4)]


def rename(store: DictStore) -> None:
    store.objects[key(5)] = store.objects.pop(key(4))


def copy(store: DictStore) -> None:
    store.objects[key(12)] = store.objects[key(4)]


def swap(store: DictStore) -> None:
    store.objects[key(4)], store.objects[key(9)] = store.objects[key(9)], store.objects[key(4)]


def overlap(store: DictStore) -> None:
    store.objects[key(3)] = other_sink(8, origin=3, of=store).objects[key(3)]


def replace_by_a_shorter_one(store: DictStore) -> None:
    store.objects[key(4)] = other_sink(7, origin=4, of=store).objects[key(4)]


def take_from_another_partition(store: DictStore) -> None:
    other = DictStore()
    chain = open_chain(other)
    tp = TopicPartition(TP.topic, 2)
    chain.recover(tp, IDENTITY, 4)
    chain.commit(SegmentDraft(tp, 9, tuple(range(4, 9)), {}, (), ()))
    (found,) = (data for name, data in other.objects.items() if name.startswith(layout.PREDICTIONS))
    store.objects[key(4)] = found


def truncate(store: DictStore) -> None:
    store.objects[key(4)] = store.objects[key(4)][:-9]


def empty(store: DictStore) -> None:
    store.objects[key(4)] = b""


def damage_a_page(store: DictStore) -> None:
    store.objects[key(4)] = damaged_page(store.objects[key(4)])


def damage_the_footer(store: DictStore) -> None:
    data = store.objects[key(4)]
    at = data.index(b"adawise.states") + 200
    store.objects[key(4)] = data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :]


def lose_the_origin(store: DictStore) -> None:
    del store.objects[layout.origin_key(TP)]


def lose_the_sink(store: DictStore) -> None:
    del store.objects[layout.SINK]


def damage_the_origin(store: DictStore) -> None:
    store.objects[layout.origin_key(TP)] = b"?"


def begin_elsewhere(store: DictStore) -> None:
    store.objects[layout.origin_key(TP)] = other_sink(origin=2).objects[layout.origin_key(TP)]


def come_from_another_sink(store: DictStore) -> None:
    store.objects[layout.SINK] = an_honest_sink().objects[layout.SINK]


def add_a_file(store: DictStore) -> None:
    store.objects["predictions/notes.parquet"] = b""


def lose_traces(store: DictStore) -> None:
    del store.objects[layout.traces_key(key(4))]


def mix_up_traces(store: DictStore) -> None:
    store.objects[layout.traces_key(key(4))] = store.objects[layout.traces_key(key(0))]


def truncate_traces(store: DictStore) -> None:
    store.objects[layout.traces_key(key(9))] = store.objects[layout.traces_key(key(9))][:-3]


def edit_traces(store: DictStore) -> None:
    """One alpha, in the derived file alone."""
    whole = store.objects[key(4)]
    forge(store, key(4), trace=changed(footer_of(store, key(4)).trace, "alpha", 0, 0.4))
    store.objects[key(4)] = whole


def lose_the_newest_segment(store: DictStore) -> None:
    del store.objects[key(9)]


# -- contents of which every checksum holds


def write_after_another(store: DictStore) -> None:
    forge(store, key(9), previous=key(0))


def skip_a_batch(store: DictStore) -> None:
    trace = footer_of(store, key(4)).trace
    forge(store, key(4), lambda rows: changed(rows, "batch_number", 4, 3), trace=changed(trace, "batch_number", 1, 3))


def count_wrong(store: DictStore) -> None:
    forge(store, key(4), states={"north": state(4), "south": state(1)})


def keep_a_stale_state(store: DictStore) -> None:
    forge(store, key(4), states=footer_of(store, key(0)).states)


def change_a_state_without_a_batch(store: DictStore) -> None:
    forge(store, key(4), states={"north": state(3), "south": state(1, index=3)})


def lose_a_state(store: DictStore) -> None:
    forge(store, key(4), states={"north": state(3)})


def invent_a_state(store: DictStore) -> None:
    forge(store, key(4), states={"north": state(3), "south": state(1), "east": state(2)})


def write_no_state(store: DictStore) -> None:
    forge(store, key(4), states={"north": b"\x00", "south": state(1)})


def start_anew_without_a_reason(store: DictStore) -> None:
    trace = changed(footer_of(store, key(9)).trace, "batch_number", 1, 0)
    forge(
        store, key(9), lambda rows: changed(rows, "batch_number", 2, 0), trace=changed(trace, "previous_alpha", 1, None)
    )


def lose_a_row(store: DictStore) -> None:
    forge(store, key(4), lambda rows: rows.filter(pa.array([o != 5 for o in rows["offset"].to_pylist()])))


def double_a_row(store: DictStore) -> None:
    forge(store, key(4), lambda rows: pa.concat_tables([rows.slice(0, 3), rows.slice(2)]))


def add_a_row_of_before(store: DictStore) -> None:
    earlier = store.objects[key(0)]
    forge(store, key(4), lambda rows: pa.concat_tables([read_rows(earlier, "earlier").slice(0, 1), rows]))


def serve_another_alpha(store: DictStore) -> None:
    forge(store, key(4), lambda rows: changed(rows, "alpha", 1, 0.5))


def name_a_row_wrong(store: DictStore) -> None:
    forge(store, key(4), lambda rows: changed(rows, "row_id", 1, "frames/3/4/1"))


def call_a_row_of_another_partition(store: DictStore) -> None:
    forge(store, key(4), lambda rows: changed(rows, "partition", 1, 2))


def drop_a_column(store: DictStore) -> None:
    forge(store, key(4), lambda rows: rows.rename_columns({"label": "lable"}))


def leave_out_a_gap(store: DictStore) -> None:
    """The offset 3, pending after the first segment, was lost by the broker, but nothing says so."""
    trace = changed(footer_of(store, key(4)).trace, "images", 0, 2)
    forge(store, key(4), lambda rows: rows.slice(1), trace=changed(trace, "first_offset", 0, 4))


TRACES_4, TRACES_9 = layout.traces_key(key(4)), layout.traces_key(key(9))
RESTORE, REPORT = "restore the file from a backup", "report it"


@pytest.mark.parametrize(
    ("harm", "where", "what", "remedy"),
    [
        (remove, key(9), f"go on with {key(4)}: there is a gap", RESTORE_OR_REPAIR),
        (rename, key(5), "restore its name", ""),
        (copy, key(12), "restore its name", ""),
        (swap, key(4), "restore its name", ""),
        (overlap, key(3), "there is an overlap", "move the foreign file away"),
        (replace_by_a_shorter_one, key(4), f"the successor of {key(0)}, but it was written after None", RESTORE),
        (take_from_another_partition, key(4), "restore its name", ""),
        (truncate, key(4), "restore the file from a backup", ""),
        (empty, key(4), "readable Parquet file", ""),
        (damage_a_page, key(4), "readable rows", ""),
        (damage_the_footer, key(4), "agrees with its checksum", ""),
        (lose_the_origin, layout.origin_key(TP), "expected this claim", RESTORE_OR_REPAIR),
        (lose_the_sink, layout.SINK, "expected this claim", RESTORE_OR_REPAIR),
        (damage_the_origin, layout.origin_key(TP), "damaged; restore it", ""),
        (begin_elsewhere, key(0), "an overlap", ""),
        (come_from_another_sink, key(0), "it was written to", RESTORE),
        (add_a_file, "predictions/notes.parquet", "only segments", "move it away"),
        (lose_traces, TRACES_4, "there are none", DERIVE),
        (mix_up_traces, key(4), f"expected {TRACES_4} to hold this segment's traces", RESTORE),
        (truncate_traces, key(9), f"expected {TRACES_9} to hold this segment's traces", RESTORE),
        (edit_traces, key(4), f"expected {TRACES_4} to hold this segment's traces", RESTORE),
        (lose_the_newest_segment, TRACES_9, "expected a segment of this name", STALE),
        (
            write_after_another,
            key(9),
            f"expected the successor of {key(4)}, but it was written after {key(0)}",
            RESTORE,
        ),
        (skip_a_batch, key(4), "expected batch 2 of 'north' next, but it is batch 3", REPORT),
        (count_wrong, key(4), "expected the state of 'north' after 3 batches, not 4", REPORT),
        (keep_a_stale_state, key(4), "expected the state of 'north' after 3 batches, not 1", REPORT),
        (change_a_state_without_a_batch, key(4), "'south', which had no batch here, to be unchanged", REPORT),
        (lose_a_state, key(4), "state of 'south', which was not silent for long, but there is none", REPORT),
        (invent_a_state, key(4), "expected the state of 'east' after 0 batches, not 2", REPORT),
        (write_no_state, key(4), "adaptation state: not readable", ""),
        (start_anew_without_a_reason, key(9), "expected batch 3 of 'north' next, but it is batch 0", REPORT),
        (lose_a_row, key(4), "batch 1 of 'north' has 2 images of the offsets 3 to 4", REPORT),
        (double_a_row, key(4), "index 0, 1, 2 ... in order: 5", REPORT),
        (add_a_row_of_before, key(4), "neither pending nor in [4, 9): 0", REPORT),
        (serve_another_alpha, key(4), "alphas 0.35 to 0.5 in the rows", REPORT),
        (name_a_row_wrong, key(4), "but 1 are not: frames/3/4/1", REPORT),
        (call_a_row_of_another_partition, key(4), "expected rows of partition 3, but some are of 2", REPORT),
        (drop_a_column, key(4), "expected the columns label, but there are none; restore the file", ""),
        (leave_out_a_gap, key(4), "neither rows nor pending: 3", REPORT),
    ],
)
@pytest.mark.cases("damage", every=4)
def test_verify_names_the_first_fault_with_its_file_and_the_remedy(
    store: DictStore, harm: Callable[[DictStore], None], where: str, what: str, remedy: str
) -> None:
    harm(store)
    found = faults_of(store)
    assert any(f.where == where and what in f.what and remedy in f.remedy for f in found), list(map(str, found))
    assert found[0].where == where


def test_an_offset_that_was_lost_and_is_declared_as_a_gap_is_no_fault(store: DictStore) -> None:
    leave_out_a_gap(store)
    forge(store, key(4), gaps=(Gap(3, 4),))
    assert faults_of(store) == []


def test_states_are_left_alone_by_whoever_cannot_read_them(store: DictStore) -> None:
    write_no_state(store)
    assert verify(store) == []


def test_an_alpha_that_is_not_that_of_the_state_before_is_a_fault() -> None:
    made = an_honest_sink()
    for where, batches in ((key(0), (1, 1)), (key(4), (3, 1)), (key(9), (4, 2))):
        forge(made, where, states={"north": state(batches[0], index=3), "south": state(batches[1], index=3)})
    assert faults_of(made) == []  # one grid or another: an index means the alpha that the traces say
    trace = footer_of(made, key(9)).trace
    forge(made, key(9), trace=changed(trace, "previous_alpha", 0, 0.9))
    (fault,) = faults_of(made)
    assert (fault.where, "to follow one at alpha 0.35, not 0.9" in fault.what) == (key(9), True)


def test_after_a_broken_segment_the_chain_has_one_fault_and_other_chains_are_still_walked(store: DictStore) -> None:
    other = TopicPartition(TP.topic, 4)
    chain = open_chain(store)
    chain.recover(other, IDENTITY, 0)
    chain.commit(SegmentDraft(other, 2, (0, 1), {}, (), ()))
    truncate(store)
    reports = list(walk(store))
    assert [(r.tp.partition, r.segments, len(r.faults)) for r in reports] == [(3, 1, 1), (4, 1, 0)]


def test_a_topic_may_have_got_more_partitions_on_a_broker_without_topic_ids_too(store: DictStore) -> None:
    for where in (key(4), key(9)):
        forge(store, where, partitions=8, topic_id="")
    assert faults_of(store) == []


def test_the_newest_segments_traces_may_still_be_missing(store: DictStore) -> None:
    del store.objects[TRACES_9]
    assert faults_of(store) == []


def test_traces_that_are_no_file_are_one_fault_beside_which_others_are_found(
    store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = layout.traces_key(key(4))
    del store.objects[layout.traces_key(key(0))]

    def get(asked: str) -> bytes | None:
        if asked == where:
            raise ChainError(f"{asked}: it is a pipe")
        return store.objects.get(asked)

    monkeypatch.setattr(store, "get", get)
    found = faults_of(store)
    assert {finding.where for finding in found} == {where, layout.traces_key(key(0))}


def test_an_offset_that_nothing_mentions_is_a_fault_only_if_the_log_has_no_holes() -> None:
    made = other_sink(4)
    chain = open_chain(made)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(6, 8, number=1))
    assert verify(made) == []
    (fault,) = verify(made, contiguous=True)
    assert fault.what.endswith("neither rows nor pending: 4, 5")


# -- streams that start anew, and states that are dropped


def test_a_stream_may_start_anew_for_a_reason() -> None:
    for reset in ("settings_changed", "silent", "crowded", "shortlist"):
        store = DictStore()
        history = History(store)
        history.write(2, ("north", [0, 1]))
        history.write(4, ("north", [2, 3]), reset=reset)
        assert faults_of(store) == []


def test_a_state_may_be_dropped_when_others_were_heard_long_after_it_and_the_stream_is_new_then() -> None:
    store = DictStore()
    history = History(store)
    history.write(2, ("north", [0]), ("south", [1]))
    history.write(4, ("north", [2, 3]), at_ms=130_000, drop=["south"])
    history.write(6, ("south", [4, 5]), at_ms=131_000)
    assert faults_of(store) == []


def test_a_state_may_not_be_dropped_while_one_is_kept_that_was_heard_before_it() -> None:
    store = DictStore()
    history = History(store)
    history.write(1, ("east", [0]), at_ms=10)
    history.write(2, ("south", [1]), at_ms=20)
    history.write(4, ("north", [2, 3]), at_ms=130_100, drop=["south"])
    (fault,) = faults_of(store)
    assert "state of 'south', which was not silent for long" in fault.what


@pytest.mark.parametrize(
    ("limit", "received", "expected"),
    [
        (2, ("north", "west"), []),
        (3, ("north", "west"), ["a state of 'south', which was not silent for long, but there is none"]),
        (2, ("north", "south"), ["a state of 'south', which was not", "'west' is not there"]),
    ],
)
def test_a_state_may_leave_only_with_its_place_and_only_when_all_are_taken(
    limit: int, received: Sequence[str], expected: Sequence[str]
) -> None:
    store = DictStore()
    history = History(store)
    history.write(2, ("north", [0]), ("south", [1]))
    table = json.dumps({"limit": limit, "heard": {name: [1, 0] for name in received}, "entered": []}).encode()
    history.write(4, ("north", [2]), ("west", [3]), drop=["south"], table=table)
    found = sorted(fault.what for fault in faults_of(store))
    assert len(found) == len(expected)
    assert all(part in what for part, what in zip(expected, found, strict=True))


# -- a compacted sink


def test_a_compacted_sink_is_whole_also_when_its_old_segments_are_gone() -> None:
    store = DictStore()
    days = Days(store)
    days.commit(14)
    assert compacted(store)
    assert verify(store, contiguous=True) == []
    gone = [
        key
        for each in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC))
        for key in delete(store, each)
    ]
    assert len(gone) > 3
    assert verify(store, contiguous=True) == []
    days.commit(2)
    assert verify(store, contiguous=True) == []
    damaged = layout.compacted_key(layout.PREDICTIONS, TP, compacted_names(store, layout.PREDICTIONS, TP)[0])
    store.objects[damaged] = store.objects[damaged][:-9]
    assert verify(store)[0].where == damaged


def test_a_compacted_sink_of_which_every_segment_was_lost_is_not_whole() -> None:
    store = DictStore()
    Days(store).commit(14)
    assert compacted(store)
    for segment in store.list(layout.PREDICTIONS):
        store.delete(segment)
    first, *_ = faults_of(store)
    assert first.where.startswith(layout.PREDICTIONS)
    assert "expected the last segment of a compacted file, which is never deleted; restore it" in first.what


# -- what is gone as a whole


def only_claims(store: DictStore) -> None:
    """Remove every segment and every file of traces."""
    for name in [name for name in store.objects if not name.startswith("_")]:
        del store.objects[name]


def test_a_chain_that_began_and_has_no_segment_is_reported(store: DictStore) -> None:
    only_claims(store)
    (report,) = walk(store)
    assert (report.tp, report.is_empty, report.segments, report.faults) == (TP, True, 0, [])


def test_a_chain_whose_every_segment_is_gone_is_a_fault_where_its_group_had_committed_more(store: DictStore) -> None:
    only_claims(store)
    (report,) = walk(store, log=FakeLog(range(20)), committed={TP: 9})
    (fault,) = report.faults
    assert (fault.where, report.lag) == (key(0), 20)
    assert "expected the chain to reach offset 9, which its group has committed, but it ends at 0" in fault.what
    (report,) = walk(store, log=FakeLog(range(20)), committed={TP: 0})
    assert (report.faults, report.lag) == ([], 20)


def begun(store: DictStore, offset: int, owner: Owner | None = None) -> TopicPartition:
    """Begin another partition at an offset; claim the root."""
    if owner is not None:
        claim_owner(store, owner)
    other = TopicPartition("frames", 5)
    open_chain(store).recover(other, IDENTITY, offset)
    return other


@pytest.mark.parametrize(("end", "is_known"), [(12, True), (11, False), (13, False)])
def test_a_partition_whose_log_ends_where_its_chain_begins_had_nothing_to_serve(
    store: DictStore, end: int, is_known: bool
) -> None:
    """A log that ends before has lost messages; one that ends later has, or had, some."""
    other, log = begun(store, 12), FakeLog(range(12))
    log.empty[other] = end
    report = verify_root(store, log=log)
    assert [chain.tp for chain in report.unproved] == ([] if is_known else [other])
    whole, named, *_ = in_words("ROOT", report, True)
    assert named.startswith("frames/5: it begins at offset 12, and there is no segment: ")
    if is_known:
        assert whole.startswith("ROOT is whole: 3 segments of 1 partitions, 12 rows, every offset once; footers")
        assert named.endswith(": the log of the broker ends there too")
    else:
        assert "1 more began, and whether they lost rows is not known" in whole
        assert named.endswith("the group's committed offset is not known")
    assert [chain.tp for chain in verify_root(store).unproved] == [other], "without the broker it is not known"


def test_a_log_that_is_not_known_to_be_of_the_same_topic_proves_nothing(store: DictStore) -> None:
    other, log = begun(store, 12), FakeLog(range(12))
    log.empty[other] = 12
    log.topic = replace(IDENTITY, topic_id="")
    assert [chain.tp for chain in verify_root(store, log=log).unproved] == [other]


def test_a_log_that_ends_where_a_chain_begins_proves_nothing_while_the_commits_are_not_known(store: DictStore) -> None:
    class Denied(FakeLog):
        @override
        def committed(self, group: str, topic: str) -> dict[TopicPartition, tuple[int, str]]:
            raise SettingsError("not allowed to read the offsets of this group")

    other, log = begun(store, 12, replace(REPLAYER, group="workers", purpose="run")), Denied(range(12))
    log.empty[other] = 12
    report = verify_root(store, log=log)
    assert "not allowed" in report.commits_unknown
    assert [chain.tp for chain in report.unproved] == [other]


def test_a_part_of_a_replay_that_is_empty_elsewhere_proves_nothing_of_a_chain(store: DictStore) -> None:
    other = begun(store, 0, REPLAYER)
    store.objects[layout.REPLAY] = replay_claim({"3": (0, 12), "5": (12, 12)})
    assert [chain.tp for chain in verify_root(store).unproved] == [other]


REPLAYER = Owner("cluster", "frames", "", "replay")


@pytest.mark.parametrize("end", [None, 12, 15])
@pytest.mark.parametrize("owner", [REPLAYER, None])
def test_a_partition_of_which_a_replay_reads_nothing_had_nothing_to_serve(
    store: DictStore, end: int | None, owner: Owner | None
) -> None:
    """Whatever the topic has got since then, and without a broker."""
    other, log = begun(store, 12, owner), FakeLog(range(12))
    log.empty[other] = end or 0
    store.objects[layout.REPLAY] = replay_claim({"3": (0, 12), "5": (12, 12)})
    report = verify_root(store, log=None if end is None else log)
    assert report.unproved == []
    lines = [*in_words("ROOT", report, end is not None)]
    assert lines[0].startswith("ROOT is whole: 3 segments of 1 partitions")
    assert lines[1] == (
        "frames/5: it begins at offset 12, and there is no segment: the part that was replayed ends there too"
    )


def replay_claim(ranges: dict[str, tuple[int, int]]) -> bytes:
    return json.dumps({"topic": "frames", "ranges": ranges}).encode()


@pytest.mark.parametrize("claim", [replay_claim({"3": (0, 12), "5": (0, 12)}), b'{"topic": "frames"}'])
@pytest.mark.parametrize("broker", [False, True])
def test_a_replay_that_may_have_lost_rows_is_to_be_repeated(store: DictStore, claim: bytes, broker: bool) -> None:
    other, log = begun(store, 0, REPLAYER), FakeLog(range(12))
    log.empty[other] = 12  # its messages are deleted
    store.objects[layout.REPLAY] = claim
    report = verify_root(store, log=log if broker else None)
    assert [chain.tp for chain in report.unproved] == [other]
    named = [line for line in in_words("ROOT", report, broker) if line.startswith("frames/5")]
    assert named == [
        "frames/5: it begins at offset 0, and there is no segment: nothing was served there yet, its part has no "
        "message of these cameras, or every segment is lost; the same `adawise replay` into it goes on, and serves "
        "what is missing"
    ]


@pytest.mark.parametrize("owner", [REPLAYER, None])
def test_a_root_whose_claim_of_a_replay_cannot_be_read_is_verified_all_the_same(
    store: DictStore, owner: Owner | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, get = begun(store, 12, owner), store.get

    def refuse(key: str) -> bytes | None:
        if key == layout.REPLAY:
            raise SettingsError("a folder is in its place")
        return get(key)

    monkeypatch.setattr(store, "get", refuse)
    report = verify_root(store)
    assert (report.faults, [chain.tp for chain in report.unproved]) == ([], [other])


def test_a_replay_whose_topic_the_broker_does_not_have_is_to_be_verified_without_it(store: DictStore) -> None:
    class Elsewhere(FakeLog):
        @override
        def identity(self, topic: str) -> TopicIdentity:
            raise SourceError(f"there is no topic {topic!r} at here:9092. Create the topic, or name one that exists")

    with pytest.raises(SourceError, match="Create the topic"):
        verify_root(store, log=Elsewhere(range(12)))
    log = FakeLog(range(12))
    log.topic = TopicIdentity("cluster", "another-id", 4)
    (fault,) = verify_root(store, log=log).faults
    assert "set another sink.root for the new topic" in fault.what
    claim_owner(store, REPLAYER)
    with pytest.raises(SourceError) as raised:
        verify_root(store, log=Elsewhere(range(12)))
    (fault,) = verify_root(store, log=log).faults
    for text in (str(raised.value), str(fault)):
        assert text.endswith("verify it without --broker, or name the brokers that have its topic")
    assert "Create" not in str(raised.value)
    assert "sink.root" not in str(fault)
    assert (fault.where, "has id another-id" in fault.what) == (layout.origin_key(TP), True)


def test_the_newer_half_of_a_chain_that_is_gone_is_a_fault_and_no_lag(store: DictStore) -> None:
    for first in (4, 9):
        del store.objects[key(first)], store.objects[layout.traces_key(key(first))]
    assert faults_of(store) == [], "nothing in the root says that there was more"
    (report,) = walk(store, log=FakeLog(range(12)), committed={TP: 12})
    (fault,) = report.faults
    assert (fault.where, "offset 12" in fault.what, "ends at 4" in fault.what) == (key(4), True, True)
    (report,) = walk(store, log=FakeLog(range(12)), committed={TP: 4})
    assert report.faults == []


def test_a_partition_that_a_damaged_claim_hides_is_a_fault(store: DictStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_checked", {})  # by no test before
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    store.objects[layout.retained_key(TP, SegmentName(10**9))] = b""
    for _ in range(2):
        with pytest.warns(UserWarning, match="expected a claim"):
            assert segment_keys(store) == []
        claims._checked.clear()
    with warnings.catch_warnings(action="error"), pytest.raises(UserWarning):
        segment_keys(store)
    with pytest.warns(UserWarning, match="expected a claim"):  # what was raised counts as not named
        assert segment_keys(store) == []
    (fault,) = faults_of(store)
    assert fault.where == layout.origin_key(TP)
    assert "_retained" in fault.what


def test_a_chain_that_retention_has_cut_and_that_has_no_segment_is_a_fault() -> None:
    store = DictStore()
    days = Days(store)
    days.commit(6)
    names = segment_names(store, TP)
    what = removal(store, TP, before=date.max, now=datetime.max.replace(tzinfo=UTC))
    assert what is not None
    assert list(remove_retained(store, what))
    assert verify(store) == []
    only_claims(store)
    (fault,) = verify(store)
    assert fault.where in {layout.segment_key(TP, name) for name in names}
    assert "retention keeps the newest segments" in fault.what


@pytest.mark.parametrize("name", ["yard (copy)", "yard\nfake", "..", ".", "x" * 250])
def test_a_folder_that_is_no_topics_is_named_as_foreign(store: DictStore, name: str) -> None:
    folder = f"topic-{name}"
    strange = key(0).replace("topic-frames", folder)
    store.objects[strange] = store.objects[key(0)]
    store.objects[layout.origin_key(TP).replace("topic-frames", folder)] = store.objects[layout.origin_key(TP)]
    claim, segment = sorted(faults_of(store), key=lambda fault: fault.where)
    assert (segment.where, segment.what) == (strange, "expected only segments here, but this is another file")
    assert (claim.where, claim.what) == (
        layout.origin_key(TP).replace("topic-frames", folder),
        "expected only claims of partitions here, but this is another file",
    )


# -- the topic


Longs = npt.NDArray[np.int64]
FIRST_MS = 1_700_000_000_000


class FakeLog:
    """A topic in memory: the offsets of one partition that are delivered."""

    def __init__(self, offsets: range | list[int], *, start: int = 0, end: int | None = None) -> None:
        self.delivered = np.asarray(offsets, np.int64)
        self.start, self.end = start, max(offsets) + 1 if end is None else end
        self.topic = IDENTITY
        self.requests: list[tuple[int, int]] = []
        self.empty: dict[TopicPartition, int] = {}  # where the logs of partitions without a message begin and end
        self.rewritten: dict[int, int] = {}  # offset -> another timestamp than `building.frame` gives

    def identity(self, topic: str) -> TopicIdentity:
        return self.topic

    def committed(self, group: str, topic: str) -> dict[TopicPartition, tuple[int, str]]:
        return {}

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return (self.empty[tp], self.empty[tp]) if tp in self.empty else (self.start, self.end)

    def messages(self, tp: TopicPartition, first: int, until: int) -> tuple[Longs, Longs]:
        assert self.start <= first < until <= self.end
        assert not self.requests or self.requests[-1][1] <= first  # as the port demands
        self.requests.append((first, until))
        found = self.delivered[(self.delivered >= first) & (self.delivered < until)]
        return found, np.asarray([self.rewritten.get(o, FIRST_MS + o) for o in found.tolist()], np.int64)


def compared(store: Store, log: FakeLog) -> tuple[int | None, int | None, list[Finding]]:
    (report,) = walk(store, log=log, read_state=StreamState.from_bytes)
    return report.messages, report.lag, report.faults


def test_messages_beyond_the_head_are_lag_and_what_the_broker_deleted_is_not_asked_for(store: DictStore) -> None:
    assert compared(store, FakeLog(range(12))) == (12, 0, [])
    assert compared(store, FakeLog(range(20))) == (12, 8, [])
    assert compared(store, FakeLog(range(6, 20), start=6)) == (6, 8, [])
    assert compared(store, FakeLog(range(30, 40), start=30)) == (0, 10, [])


def test_offsets_that_the_broker_does_not_deliver_are_no_fault(store: DictStore) -> None:
    assert compared(store, FakeLog([0, 1, 2, 4, 8, 11])) == (6, 0, [])


def test_a_message_before_the_head_without_a_row_is_a_fault_also_where_a_gap_is_claimed() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 4, (3,), {}, (), [frame(0, reason=Reason.EMPTY)], gaps=[Gap(1, 2)]))
    assert verify(store) == []
    _, _, (fault,) = compared(store, FakeLog(range(6)))
    assert fault.where == key(0)
    assert "a row for each message that the broker has, but there is none for the offsets 1, 2" in fault.what


def test_what_a_gap_says_nobody_could_read_is_told_and_no_fault_though_the_broker_has_it() -> None:
    store, gap = DictStore(), Gap(1, 3, Lost.BATCH_TOO_LARGE)
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 5, (4,), {}, (), [frame(0, reason=Reason.EMPTY)], gaps=[gap]))
    (report,) = walk(store, log=FakeLog([0, 1, 2, 4]))
    assert (report.faults, report.gaps) == ([], [gap])
    (report,) = walk(store, log=FakeLog(range(5)))
    assert "there is none for the offsets 3" in report.faults[0].what


@pytest.fixture
def divided() -> DictStore:
    """The root of a shard whose cameras sent offsets 0 and 3 of [0, 5), and two of three images at 3."""
    store = DictStore()
    store.objects[layout.REPLAY] = b'{"plan": "1234", "shard": 1, "shards": 2}'
    chain = open_chain(store, divided=True)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(
        SegmentDraft(TP, 5, (), {}, (), [frame(o, i, reason=Reason.EMPTY) for o, i in ((0, 0), (3, 0), (3, 2))])
    )
    return store


def test_messages_of_other_shards_are_no_fault_of_a_shard(divided: DictStore) -> None:
    report = verify_root(divided, log=FakeLog(range(6)))
    assert (report.faults, report.is_shard, report.chains[0].messages) == ([], True, 2)
    assert as_document("ROOT", report, True)["shard"] == 1, "who reads the JSON alone must know that this is not all"
    whole, compared_ = in_words("ROOT", report, True)
    assert "3 rows, none twice; footers" in whole
    assert compared_.startswith("the broker still has the messages of 2 offsets of this shard. One shard does not show")
    log = FakeLog(range(6))
    log.rewritten = {3: 5}
    (fault,) = verify_root(divided, log=log).faults
    assert "the broker has others at 1 of these offsets: at 3" in fault.what


def test_a_damaged_claim_of_a_replay_is_named_and_its_segments_are_not_called_wrong(divided: DictStore) -> None:
    divided.objects[layout.REPLAY] = b"garbage"
    (fault,) = faults_of(divided)
    assert (fault.where, fault.what) == (layout.REPLAY, "expected the claim of a replay, but it is damaged")


@pytest.mark.parametrize("claim", [b'{"plan": "1234", "shard": 1, "shards": 2}', b"garbage"])
def test_the_claim_of_a_replay_in_a_root_of_workers_excuses_nothing(divided: DictStore, claim: bytes) -> None:
    del divided.objects[layout.REPLAY]
    claim_owner(divided, replace(REPLAYER, group="workers", purpose="run"))
    divided.objects[layout.REPLAY] = claim
    (fault,) = faults_of(divided)
    assert "offsets whose rows are not index 0, 1, 2 ... in order: 3" in fault.what
    assert not ChainIdentity.of(divided, TP).divided


def test_a_log_that_ends_before_the_head_is_a_fault_of_the_broker(store: DictStore) -> None:
    *_, (fault,) = compared(store, FakeLog(range(11)))
    assert (fault.where, "reach offset 12, but it ends at 11" in fault.what) == (key(9), True)
    assert "restore the broker" in fault.remedy


def test_a_log_that_ends_before_many_segments_is_one_fault_and_what_it_has_is_compared(store: DictStore) -> None:
    log = FakeLog(range(3))
    log.rewritten = {2: 5}
    messages, _, (first, second) = compared(store, log)
    assert (messages, first.where, second.where) == (3, key(0), key(0))
    assert "reach offset 4, but it ends at 3" in first.what
    assert "the broker has others at 1 of these offsets: at 2 one of 1970-01-01T00:00:00.005+00:00" in second.what


def test_a_log_that_was_rewritten_is_a_fault_of_every_segment_whose_messages_are_gone(store: DictStore) -> None:
    log = FakeLog(range(20))
    log.rewritten = {offset: FIRST_MS + 100 + offset for offset in range(7, 20)}
    *_, faults = compared(store, log)
    assert [fault.where for fault in faults] == [key(4), key(9)]
    assert "others at 2 of these offsets: at 7 one of" in faults[0].what
    assert "its log was rewritten" in faults[0].remedy


def test_a_message_that_was_pending_is_compared_when_its_row_is_there() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 4, (1, 3), {}, (), [frame(0, reason=Reason.EMPTY), frame(2, reason=Reason.EMPTY)]))
    chain.commit(SegmentDraft(TP, 5, (3,), {}, (), [frame(1, reason=Reason.EMPTY), frame(4, reason=Reason.EMPTY)]))
    chain.commit(SegmentDraft(TP, 5, (), {}, (), [frame(3, reason=Reason.EMPTY)]))
    log = FakeLog(range(5))
    assert compared(store, log) == (5, 0, [])
    log.requests, log.rewritten = [], {1: 7, 3: 7}
    *_, faults = compared(store, log)
    assert [fault.where for fault in faults] == [key(4), key(5)]


def test_what_was_compacted_is_compared_by_its_timestamps_too(year: tuple[DictStore, list[int], list[int]]) -> None:
    store, known, gaps = year
    log = FakeLog(known, end=max([*known, *gaps]) + 1)
    log.rewritten = {known[0]: 7}
    (report,) = walk(store, log=log)
    (fault,) = report.faults
    assert fault.where.startswith(layout.COMPACTED)
    assert f"at {known[0]} one of 1970" in fault.what


def test_another_topic_of_the_same_name_is_one_fault(store: DictStore) -> None:
    log = FakeLog(range(12))
    log.topic = TopicIdentity("cluster", "another-id", 4)
    *_, (fault,) = compared(store, log)
    assert fault.where == layout.origin_key(TP)
    assert "deleted and created again" in fault.what


@pytest.fixture
def year() -> tuple[DictStore, list[int], list[int]]:
    """A sink of which most was compacted and deleted, the offsets that it accounts for, and those of its gaps."""
    return a_year(Lost.DELETED)


def a_year(lost: Lost) -> tuple[DictStore, list[int], list[int]]:
    store = DictStore()
    days = Days(store, lost=lost)
    days.commit(14)
    footers = [footer for _, footer in read_segment_footers(store)]
    gaps = [offset for footer in footers for gap in footer.gaps for offset in range(gap.first, gap.until)]
    known = sorted({*read_predictions(store)["offset"].to_pylist(), *days.head.pending})
    assert compacted(store)
    for each in deletable(store, TP, made_before=datetime.max.replace(tzinfo=UTC)):
        assert list(delete(store, each))
    return store, known, gaps


def test_what_was_compacted_and_deleted_is_compared_with_the_topic_too(
    year: tuple[DictStore, list[int], list[int]],
) -> None:
    store, known, gaps = year
    end = max([*known, *gaps]) + 1
    log = FakeLog(known, end=end)
    (report,) = walk(store, log=log)
    assert (report.messages, report.lag, report.faults) == (len(known), 0, [])
    assert log.requests[0][0] == 0
    assert report.compacted > 1
    assert report.rows == read_predictions(store).num_rows
    start = log.requests[1][0] + 1  # the broker has deleted the first file's range and a bit of the second's
    log = FakeLog([offset for offset in known if offset >= start], start=start, end=end)
    (report,) = walk(store, log=log)
    assert (report.messages, report.faults) == (len(log.delivered), [])


def test_what_a_compacted_file_says_nobody_could_read_is_told_and_no_fault() -> None:
    store, known, gaps = a_year(Lost.BATCH_TOO_LARGE)
    (report,) = walk(store, log=FakeLog(sorted([*known, *gaps])))
    assert report.faults == []
    assert report.compacted > 1
    assert [offset for gap in report.gaps for offset in range(gap.first, gap.until)] == gaps
    assert {gap.reason for gap in report.gaps} == {Lost.BATCH_TOO_LARGE}


def test_a_message_that_only_a_compacted_file_could_have_is_missed_there(
    year: tuple[DictStore, list[int], list[int]],
) -> None:
    store, known, gaps = year
    covers = compacted_names(store, layout.PREDICTIONS, TP)
    lost = next(offset for offset in gaps if covers[0].first.first <= offset < covers[-1].until.first)
    log = FakeLog(sorted([*known, lost]), end=max([*known, *gaps]) + 1)
    (report,) = walk(store, log=log)
    (fault,) = report.faults
    (cover,) = [name for name in covers if name.first.first <= lost < name.until.first]
    assert fault.where == layout.compacted_key(layout.PREDICTIONS, TP, cover)
    assert f"there is none for the offsets {lost}" in fault.what


def test_a_log_that_ends_within_what_was_compacted_is_one_fault_of_the_broker(
    year: tuple[DictStore, list[int], list[int]],
) -> None:
    store, known, _ = year
    (report,) = walk(store, log=FakeLog(known[:3], end=known[3]))
    (fault,) = report.faults
    assert "restore the broker" in fault.remedy
