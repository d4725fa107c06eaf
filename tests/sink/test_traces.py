from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from adawise.sink import layout, schemas, segment, traces
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


def test_deriving_them_again_changes_no_byte() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    before = dict(store.objects)
    traces.write(store, segment.read_footer(store.objects[KEY], KEY), KEY)
    assert store.objects == before


def test_a_segment_without_batches_has_traces_without_rows() -> None:
    footer = segment.read_footer(_empty_segment(), KEY)
    assert traces.derive(footer, KEY).num_rows == 0


def _empty_segment() -> bytes:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    empty = draft(0, 0)
    empty.next_offset = 3
    chain.commit(empty)
    return store.objects[KEY]
