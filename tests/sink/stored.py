"""All rows of a store of any kind, also of one that has no path."""

from __future__ import annotations

import pyarrow as pa

from adawise.sink import schemas, segment
from adawise.sink.files import data_keys, read_bytes
from adawise.store.store import Store


def read_predictions(store: Store, columns: list[str] | None = None) -> pa.Table:
    """All rows of all partitions, each once, in the order of the chains; those of a compacted file by stream and time.

    Raises ChainError at a damaged file.
    """
    tables = [segment.read_rows(read_bytes(store, key), key, columns) for key in data_keys(store)]
    return pa.concat_tables(tables or [schemas.PREDICTIONS.empty_table().select(columns or schemas.PREDICTIONS.names)])
