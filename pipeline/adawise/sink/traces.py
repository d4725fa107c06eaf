"""The traces file of a segment: a table of its own, all of whose values are in the segment's footer.

It is written after the segment, by the worker that committed or adopted it and before any worker extends the chain from
there. So only the newest segment's file can be missing, and writing it again changes nothing.
"""

from __future__ import annotations

import pyarrow as pa

from adawise.sink import layout, schemas, segment
from adawise.sink.segment import SegmentFooter
from adawise.store.store import Store


def derive(footer: SegmentFooter, key: str) -> pa.Table:
    """Return the traces, with the columns of `schemas.TRACES`, of the segment that was found at `key`."""
    rows = footer.trace.num_rows
    constants = {"model_fingerprint": pa.repeat(footer.model_fingerprint, rows), "segment": pa.repeat(key, rows)}
    trace = schemas.regret_or_null(footer.trace)
    columns = constants | {name: trace[name].combine_chunks() for name in trace.column_names}
    return pa.Table.from_arrays([columns[name] for name in schemas.TRACES.names], schema=schemas.TRACES)


def write(store: Store, footer: SegmentFooter, key: str) -> None:
    """Write the traces of the segment at `key` under the same name in the traces dataset."""
    facts = {b"adawise.segment": key.encode(), b"adawise.attempt": footer.attempt.encode()}
    data = segment.parquet(derive(footer, key), schemas.TRACES_DICTIONARY, facts)
    store.put(layout.traces_key(key), data)
