"""Parquet files of a store, with a bound on the rows that they state."""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_A_BYTE = 64  # a row of ours takes more than a byte, since no two rows have the same offset and index


def open_parquet(
    source: pa.NativeFile | BinaryIO,
    size_bytes: int,
    *,
    memory_map: bool = False,
    page_checksum_verification: bool = False,
    thrift_string_size_limit: int | None = None,
) -> pq.ParquetFile:
    """Open a Parquet file of `size_bytes` bytes. The options are those of `pyarrow.parquet.ParquetFile`.

    Raises:
        pyarrow.ArrowException: it is damaged, or states more rows than its row groups or a file of this size can
            have. Arrow would allocate memory for them before it reads the first one, until the process is killed.
    """
    try:
        file = pq.ParquetFile(
            source,
            memory_map=memory_map,
            page_checksum_verification=page_checksum_verification,
            thrift_string_size_limit=thrift_string_size_limit,
        )
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a name in its schema is no text: {error}") from error
    stated = file.metadata.num_rows
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    rows = sum(groups)
    if max(stated, rows) <= _ROWS_A_BYTE * size_bytes and stated == rows and min(groups, default=0) >= 0:
        return file
    file.close()
    raise pa.ArrowInvalid(f"its footer states {stated:,} rows, but its row groups {rows:,}, in {size_bytes:,} bytes")
