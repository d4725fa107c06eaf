from __future__ import annotations

import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.output.compaction.merged import digest_of
from adawise.output.verify.root import verify
from adawise.sink import columns, layout, schemas, segment
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain

KEY = "predictions/topic-frames/partition-00003/00000000000000000000.parquet"


def test_the_traces_of_a_segment_are_one_row_per_batch_and_name_it() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    table = pq.ParquetFile(pa.BufferReader(store.objects[layout.traces_key(KEY)])).read()
    assert table.schema.equals(schemas.TRACES)
    (row,) = table.to_pylist()
    assert (row["images"], row["model_fingerprint"], row["segment"]) == (4, "model", KEY)


def as_0_2_1(traces: pa.Table) -> pa.Table:
    """As that version wrote them: nan, and not null, where there was no audit."""
    place, name = traces.schema.get_field_index(schemas.AUDIT_REGRET), schemas.AUDIT_REGRET
    return traces.set_column(place, pa.field(name, pa.float64(), nullable=False), traces[name].fill_null(math.nan))


def audited() -> DictStore:
    """Two batches, the second of which was an audit."""
    store, both = DictStore(), draft(0, 4)
    second = draft(4, 8, number=1)
    images, predictions, trace = second.accepted[0]
    accepted = [*both.accepted, (images, predictions, replace(trace, audit_regret=0.02))]
    both = replace(both, accepted=accepted, next_offset=8)
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(both)
    return store


def test_audit_regret_is_null_without_an_audit_and_nan_in_the_footer_for_0_2() -> None:
    store = audited()
    table = pq.ParquetFile(pa.BufferReader(store.objects[layout.traces_key(KEY)])).read()
    assert table["audit_regret"].to_pylist() == [None, 0.02]
    kept = segment.read_footer(store.objects[KEY], KEY).trace
    assert not kept.schema.field("audit_regret").nullable
    assert math.isnan(kept["audit_regret"][0].as_py())


def test_traces_that_an_earlier_version_wrote_with_nan_are_whole() -> None:
    store = audited()
    sink = pa.BufferOutputStream()
    written = pq.ParquetFile(pa.BufferReader(store.objects[layout.traces_key(KEY)])).read()
    pq.write_table(as_0_2_1(written), sink)
    store.objects[layout.traces_key(KEY)] = sink.getvalue().to_pybytes()
    assert list(verify(store)) == []
    sink = pa.BufferOutputStream()
    pq.write_table(as_0_2_1(written).set_column(8, "images", pa.array([4, 5], pa.int32())), sink)
    store.objects[layout.traces_key(KEY)] = sink.getvalue().to_pybytes()
    assert [fault.where for fault in verify(store)] == [KEY]


def test_compacted_traces_that_an_earlier_version_made_still_agree_with_their_checksum() -> None:
    new = pq.ParquetFile(pa.BufferReader(audited().objects[layout.traces_key(KEY)])).read()
    old = as_0_2_1(new)
    assert digest_of(layout.TRACES, new) == digest_of(layout.TRACES, old)
    other = old.set_column(old.schema.get_field_index("audit_regret"), "audit_regret", pa.array([0.0, 0.02]))
    assert digest_of(layout.TRACES, other) != digest_of(layout.TRACES, old)
    read = schemas.with_later(old, schemas.TRACES)
    assert read.schema.equals(schemas.TRACES)
    assert repr(read.to_pylist()) == repr(new.to_pylist())  # nan equals nan


def test_deriving_them_again_changes_no_byte() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    before = dict(store.objects)
    columns.write_traces(store, segment.read_footer(store.objects[KEY], KEY), KEY)
    assert store.objects == before


def test_a_segment_without_batches_has_traces_without_rows() -> None:
    footer = segment.read_footer(_empty_segment(), KEY)
    assert columns.traces_of(footer, KEY).num_rows == 0


def _empty_segment() -> bytes:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(replace(draft(0, 0), next_offset=3))
    return store.objects[KEY]
