"""Parquet files that are whole by every checksum of Parquet's, and say what is not so.

Each function alters one file in place. The key-values of the footer stay, unless they are what is altered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BEYOND = 1 << 28
"""Rows that no file of a test has, and offsets that no chain has. For 2^40 rows Arrow takes all memory there is."""

_LONG = "a" * (1 << 20)
_POOLS = list[pa.MemoryPool]()
_END = 8  # bytes: the length of the footer, and PAR1
_I64, _LIST = b"\x16", b"\x19"  # the header of Thrift's next field


def more_rows_than_there_are(path: Path) -> None:
    """The file, each row group and each column state 2^28 rows."""
    _state_rows(path, b"")


def more_rows_than_its_groups_have(path: Path) -> None:
    """The file states 2^28 rows, its row groups as many as they have."""
    _state_rows(path, _LIST)


def more_values_than_rows(path: Path) -> None:
    """The columns state 2^28 values, the file and its row groups as many rows as they have."""
    _state_rows(path, _I64)


def rows_twice(path: Path) -> None:
    """Each row comes once more."""
    _rewrite(path, lambda table: pa.concat_tables([table, table]))


def nulls_in_all_columns(path: Path) -> None:
    """No row has any value."""
    _each_column(path, lambda column: pa.nulls(len(column), column.type))


def nested_columns(path: Path) -> None:
    """The columns have their names, and lists of records with what they had."""
    _each_column(path, _nested)


def columns_of_another_type(path: Path) -> None:
    """Columns of text have numbers, and all others have text."""
    _each_column(path, _of_another_type)


def long_texts(path: Path) -> None:
    """Each text has 1 MiB, which the dictionary of its column has once."""
    _each_column(path, lambda column: pa.array([_LONG] * len(column)) if _is_text(column.type) else column)


def other_offsets(path: Path) -> None:
    """The rows are those of messages far beyond what the file's name says."""

    place = pq.read_schema(path).get_field_index("offset")
    if place < 0:
        return  # the rows of traces have no offsets

    def moved(table: pa.Table) -> pa.Table:
        offsets = [None if offset is None else offset + BEYOND for offset in table["offset"].to_pylist()]
        return table.set_column(place, table.schema.field(place), pa.array(offsets, table.schema.field(place).type))

    _rewrite(path, moved)


def no_rows(path: Path) -> None:
    """The columns are there, and no row is."""
    _rewrite(path, lambda table: table.slice(0, 0))


def no_key_values(path: Path) -> None:
    """The rows are there, and nothing of ours about them."""
    if _key_values(path):
        _rewrite(path, lambda table: table, {})


def null_key_values(path: Path) -> None:
    """Each key of ours has the JSON value null."""
    if kept := _key_values(path):
        _rewrite(path, lambda table: table, dict.fromkeys(kept, b"null"))


def key_values_of_another_file(path: Path) -> None:
    """What the footer says of the rows is of the next file of the folder, or of the one before."""
    beside = sorted(each for each in path.parent.glob("*.parquet") if each != path and each.is_file())
    if beside:
        _rewrite(path, lambda table: table, _key_values(beside[-1]))


HOSTILE: Mapping[str, Callable[[Path], None]] = {
    damage.__name__: damage
    for damage in (
        *(more_rows_than_there_are, more_rows_than_its_groups_have, more_values_than_rows, rows_twice),
        *(nulls_in_all_columns, nested_columns, columns_of_another_type, long_texts, other_offsets, no_rows),
        *(no_key_values, null_key_values, key_values_of_another_file),
    )
}


@contextmanager
def little_memory(most_bytes: int = 1 << 28) -> Iterator[None]:
    """Fail if Arrow takes more at once. Rows that are only stated would take that for a column of numbers."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    _POOLS.append(pool)  # what was read, as a traceback keeps it, gives its memory back later
    pa.set_memory_pool(pool)
    try:
        yield
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() <= most_bytes


def _key_values(path: Path) -> dict[bytes, bytes]:
    kept = pq.read_metadata(path).metadata or {}
    return {key: value for key, value in kept.items() if key != b"ARROW:schema"}


def _rewrite(
    path: Path, change: Callable[[pa.Table], pa.Table], key_values: Mapping[bytes, bytes] | None = None
) -> None:
    kept = _key_values(path) if key_values is None else key_values
    with pq.ParquetFile(path) as file:
        table = change(file.read())
    with pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(dict(kept))


def _each_column(path: Path, change: Callable[[pa.Array], pa.Array]) -> None:
    def changed(table: pa.Table) -> pa.Table:
        return pa.table({name: change(table[name].combine_chunks()) for name in table.column_names})

    _rewrite(path, changed)


def _nested(column: pa.Array) -> pa.Array:
    inside = pa.StructArray.from_arrays([column], ["value"])
    return pa.ListArray.from_arrays(pa.array(range(len(column) + 1), pa.int32()), inside)


def _of_another_type(column: pa.Array) -> pa.Array:
    return pa.array(range(len(column)) if _is_text(column.type) else ["a"] * len(column))


def _is_text(kind: pa.DataType) -> bool:
    inside = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inside) or pa.types.is_large_string(inside))


def _state_rows(path: Path, before: bytes) -> None:
    """Alter the numbers of rows in the footer; with `before`, only one that is followed by these bytes."""
    rows, data = pq.read_metadata(path).num_rows, path.read_bytes()
    at = len(data) - _END - int.from_bytes(data[-_END:-4], "little")
    footer = data[at:-_END].replace(_I64 + _varint(rows) + before, _I64 + _varint(BEYOND) + before)
    path.write_bytes(data[:at] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _varint(number: int) -> bytes:
    """Return the number as Thrift's compact protocol writes it: zigzag, seven bits a byte."""
    left, found = number << 1, bytearray()
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    found.append(left)
    return bytes(found)
