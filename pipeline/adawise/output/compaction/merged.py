"""A compacted file: the rows of many segments of a partition, sorted by stream and time, in row groups of one size.

Readers of one stream, or of an hour, skip the other row groups by their statistics. Beside what Parquet needs, the
footer holds:

    adawise.compacted   JSON, the fields of `Facts`
    adawise.checksum    SHA-256 over it

The facts have a checksum of the rows. It is recorded when rows are copied to another file, and computed again from the
copy to prove it. So it is taken of values alone, whatever order, chunks, pages and encodings they are stored in: the
lengths and bytes of texts, the bits of numbers (nan equals nan), and which values are null.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.errors import ChainError
from adawise.records import Gap
from adawise.sink import layout, schemas
from adawise.sink.segment import FORMAT, format_of
from adawise.store.parquet import open_parquet, read_whole


def digest(table: pa.Table, identity: Sequence[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the rows in the order of the columns `identity`, which are unique."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in identity])
    hashed = hashlib.sha256()
    for name in table.column_names:  # one after the other, so that one sorted column is held at a time
        hashed.update(b"%s %d\n" % (name.encode(), table.num_rows))
        _feed(hashed, table[name].combine_chunks().take(order))
    return hashed.hexdigest()


def _feed(hashed: hashlib._Hash, array: pa.Array) -> None:
    """Add an array that is not a slice of another, so that its buffers begin where it begins."""
    _add(hashed, array.is_valid().cast(pa.uint8()).to_numpy())
    kind = array.type
    if pa.types.is_map(kind):
        _add(hashed, np.diff(array.offsets.to_numpy()))
        _feed(hashed, array.keys)
        _feed(hashed, array.items)
    elif pa.types.is_list(kind):
        _add(hashed, pc.fill_null(pc.list_value_length(array), 0).to_numpy())
        _feed(hashed, array.flatten())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            _feed(hashed, child)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        _add(hashed, pc.fill_null(pc.binary_length(array), 0).to_numpy())
        hashed.update(_texts(pc.drop_null(array)))
    else:
        numbers = array.view(pa.int64()) if pa.types.is_timestamp(kind) else array
        numbers = numbers.cast(pa.uint8()) if pa.types.is_boolean(kind) else numbers
        _add(hashed, pc.fill_null(numbers, 0).to_numpy())


def _texts(array: pa.Array) -> memoryview:
    """Return the bytes of a column of texts without nulls, one after the other."""
    _, ends, data = array.buffers()
    if not len(array) or data is None:
        return memoryview(b"")
    limits = np.frombuffer(ends, np.int32)[array.offset :][: len(array) + 1]
    return memoryview(data)[limits[0] : limits[-1]]


def _add(hashed: hashlib._Hash, numbers: npt.NDArray[np.generic]) -> None:
    hashed.update(np.ascontiguousarray(numbers).view(np.uint8).data)


ROW_GROUP = 16_384
"""Rows of a row group: the least that a reader of one stream or hour has to read (`python -m tools.bench compact`)."""

_FACTS, _CHECKSUM = b"adawise.compacted", b"adawise.checksum"
_SORTED_BY = ("stream_id", "kafka_timestamp")
_IDENTITY = {
    layout.PREDICTIONS: ("offset", "index"),
    layout.TRACES: ("segment", "stream_id", "batch_number", "first_offset"),
}
_THEN_BY = {layout.PREDICTIONS: ("offset", "index"), layout.TRACES: ("batch_number", "segment", "first_offset")}
_SCHEMA = {layout.PREDICTIONS: schemas.PREDICTIONS, layout.TRACES: schemas.TRACES}
_DICTIONARY = {layout.PREDICTIONS: schemas.PREDICTIONS_DICTIONARY, layout.TRACES: schemas.TRACES_DICTIONARY}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A segment whose rows are in a compacted file: its name without ending, the attempt that wrote it, its rows."""

    name: str
    attempt: str
    rows: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The footer of a compacted file: the segments that it replaces, and what the chain around it has to agree with.

    As for a segment, over delivered offsets: `rows ∪ pending = before ∪ [first, next)`. `previous` is the key of the
    segment before the first one, `last` that of the last one, which is kept for its state. `digest` is of the rows.
    """

    sink: str
    cluster_id: str
    topic_id: str
    topic: str
    partition: int
    partitions: int
    previous: str | None
    last: str
    first: int
    next: int
    before: tuple[int, ...]
    pending: tuple[int, ...]
    gaps: tuple[Gap, ...]
    segments: tuple[Replaced, ...]
    rows: int
    digest: str
    created_at: str


def digest_of(dataset: str, table: pa.Table) -> str:
    """Return the checksum of rows of this dataset, in any order.

    Columns that were added later are part of it only where a row has a value. A null audit regret is hashed as nan, as
    earlier versions wrote it, so that their files still agree with their checksums.
    """
    if (place := table.schema.get_field_index(schemas.AUDIT_REGRET)) >= 0:
        table = table.set_column(place, schemas.AUDIT_REGRET, pc.fill_null(table[schemas.AUDIT_REGRET], math.nan))
    later = [name for name in schemas.LATER if name in table.column_names]
    table = table.drop_columns([name for name in later if table[name].null_count == table.num_rows])
    return digest(table, _IDENTITY[dataset])


def encode(dataset: str, tables: Sequence[pa.Table], facts: Facts) -> bytes:
    """Return the compacted file of `tables`, which have the dataset's schema, with the rows sorted.

    Memory holds the rows twice while they are put together, and the file.
    """
    table = pa.concat_tables(tables).combine_chunks() if tables else _SCHEMA[dataset].empty_table()
    table = schemas.as_stored(table)
    schema = pa.schema([_SCHEMA[dataset].field(name) for name in table.column_names])
    keys = [(name, "ascending") for name in (*_SORTED_BY, *_THEN_BY[dataset])]
    order = pc.sort_indices(table, sort_keys=keys)
    stored = {"gaps": [gap.stored() for gap in facts.gaps]}
    text = json.dumps({"format": format_of(facts.gaps), **asdict(facts), **stored}).encode()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=list(_DICTIONARY[dataset]),
        write_page_checksum=True,
        sorting_columns=pq.SortingColumn.from_ordering(schema, keys),
    ) as writer:
        for start in range(0, table.num_rows, ROW_GROUP):
            writer.write_table(table.take(order.slice(start, ROW_GROUP)), row_group_size=ROW_GROUP)
        writer.add_key_value_metadata({_FACTS: text, _CHECKSUM: hashlib.sha256(text).hexdigest().encode()})
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_facts(data: bytes, key: str) -> Facts:
    """Return the facts in the footer of the compacted file `data`, found at `key`.

    Raises:
        ChainError: the file is damaged, is no compacted file, or is of a newer format.
    """
    try:
        found = open_parquet(pa.BufferReader(data)).metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _damaged(key, f"a readable Parquet file, but {error}") from error
    text = found.get(_FACTS)
    if text is None or found.get(_CHECKSUM) != hashlib.sha256(text).hexdigest().encode():
        raise _damaged(key, "a footer with the facts of a compacted file and their checksum, but they are missing")
    document: dict[str, Any] = json.loads(text)
    if (version := document.pop("format")) > FORMAT:
        raise ChainError(f"{key}: expected format {FORMAT} or older, but it is {version}; upgrade this program")
    document |= {name: tuple(document[name]) for name in ("before", "pending")}
    document["gaps"] = tuple(map(Gap.of, document["gaps"]))
    document["segments"] = tuple(Replaced(**entry) for entry in document["segments"])
    return Facts(**document)


def read_rows(dataset: str, data: bytes, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of the compacted file `data`, found at `key`, with each page checked against its checksum.

    Raises:
        ChainError: a page is damaged. Of all columns also as `read_whole`.
    """
    try:
        file = open_parquet(pa.BufferReader(data), page_checksum_verification=True)
        if columns is not None:
            return file.read(columns=list(columns))
        return schemas.with_later(read_whole(file), _SCHEMA[dataset])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(key, f"readable rows, but {error}") from error


def read_proven(dataset: str, data: bytes, key: str) -> tuple[Facts, pa.Table]:
    """Return the facts and rows of a compacted file, after proof that the rows are those that were written to it.

    Raises:
        ChainError: they are not.
    """
    facts, rows = read_facts(data, key), read_rows(dataset, data, key)
    if not rows.schema.equals(_SCHEMA[dataset]):
        raise _damaged(key, f"the columns {_SCHEMA[dataset].names}, but they are {rows.schema.names}")
    if rows.num_rows != facts.rows or digest_of(dataset, rows) != facts.digest:
        raise _damaged(
            key, f"{facts.rows} rows with the checksum of its footer, but {rows.num_rows} are there or differ"
        )
    return facts, rows


def _damaged(key: str, what: str) -> ChainError:
    return ChainError(
        f"{key}: expected {what}; restore the file from a backup, or, if its segments were not deleted, move it away "
        f"and run `adawise compact` again"
    )
