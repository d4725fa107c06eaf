"""Reading a sink from outside: footers and rows. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import ChainError
from pipeline.records import TopicPartition
from pipeline.sink import layout, schemas, segment
from pipeline.sink.segment import SegmentFooter
from pipeline.sink.store import Store


def segment_keys(store: Store) -> list[tuple[TopicPartition, str]]:
    """Every segment with its partition, in the order of the chains."""
    named = [(parsed, key) for key in store.list(layout.PREDICTIONS) if (parsed := layout.parse_key(key))]
    return [(tp, key) for (tp, _), key in sorted(named)]


def read_segment_footers(store: Store) -> Iterator[tuple[str, SegmentFooter]]:
    """Every segment's key and footer, in the order of the chains. Raises ChainError at a damaged one."""
    for _, key in segment_keys(store):
        yield key, segment.read_footer(read_bytes(store, key), key)


def read_predictions(store: Store, columns: list[str] | None = None) -> pa.Table:
    """All rows of all partitions, in the order of the chains. Raises ChainError at a damaged segment."""
    tables = [segment.read_rows(read_bytes(store, key), key, columns) for _, key in segment_keys(store)]
    return pa.concat_tables(tables or [schemas.PREDICTIONS.empty_table().select(columns or schemas.PREDICTIONS.names)])


def read_bytes(store: Store, key: str) -> bytes:
    """The bytes of a file that was listed. Raises ChainError if it is gone."""
    data = store.get(key)
    if data is None:
        raise ChainError(f"{store}: {key}: expected the segment that was listed, but it is gone; restore it")
    return data
