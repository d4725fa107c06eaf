"""Parquet files from outside, with a bound on the rows that they state: Arrow takes memory for them before it reads.

DuckDB needs none: it takes memory as it reads, and refuses a column that states other numbers than its row group.
"""

from __future__ import annotations

from collections.abc import Callable
from io import SEEK_END
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_A_BYTE = 64  # a row of ours takes more than a byte, since no two rows have the same offset and index


def open_parquet(
    source: pa.NativeFile | BinaryIO,
    *,
    memory_map: bool = False,
    page_checksum_verification: bool = False,
    thrift_string_size_limit: int | None = None,
) -> pq.ParquetFile:
    """Open a Parquet file. The options are those of `pyarrow.parquet.ParquetFile`.

    Raises:
        pyarrow.ArrowException: it is damaged, or states more rows than its row groups or a file of its size can have.
    """
    size_bytes = source.seek(0, SEEK_END)
    source.seek(0)
    try:
        file = pq.ParquetFile(
            source,
            memory_map=memory_map,
            page_checksum_verification=page_checksum_verification,
            thrift_string_size_limit=thrift_string_size_limit,
        )
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a name in its schema is no text: {error}") from error
    if misstated := misstated_rows(file.metadata, lambda: size_bytes):
        file.close()
        raise pa.ArrowInvalid(misstated)
    return file


def misstated_rows(metadata: pq.FileMetaData, size_bytes: Callable[[], int]) -> str:
    """Return what a footer states, if these are more rows than its row groups or a file of this size can have; else "".

    `size_bytes` returns the size of the file, and is called only if that of the footer alone does not suffice.
    """
    stated = metadata.num_rows
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    rows = sum(groups)
    if (
        stated == rows
        and min(groups, default=0) >= 0
        and (rows <= _ROWS_A_BYTE * metadata.serialized_size or rows <= _ROWS_A_BYTE * size_bytes())
    ):
        return ""
    return f"its footer states {stated:,} rows, but its row groups {rows:,}, in {size_bytes():,} bytes"


def read_whole(file: pq.ParquetFile) -> pa.Table:
    """Return all rows, for readers that judge whether a file is undamaged, since DuckDB reads it too.

    What a footer states of lists and maps is not compared.

    Raises:
        pyarrow.ArrowException: it is damaged, or a flat column states other values than its row group has rows. Arrow
            ignores that number.
    """
    metadata, schema = file.metadata, file.schema
    flat = [place for place in range(metadata.num_columns) if not schema.column(place).max_repetition_level]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in flat:
            if (stated := group.column(place).num_values) != group.num_rows:
                name = schema.column(place).path
                raise pa.ArrowInvalid(f"its footer states {stated:,} values of {name} in {group.num_rows:,} rows")
    return file.read()
