"""Rows by Arrow: a dataset of files of one schema, whose row groups are skipped by their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from adawise.errors import ChainError
from adawise.output.read.query import CAPTURED_AT, EARLIEST, KAFKA_TIMESTAMP, LATEST, STREAM_ID, TIME, Query
from adawise.sink.schemas import AUDIT_REGRET

Found = TypeVar("Found", pa.Table, pa.RecordBatch)

_CAPTURED, _STATED = pc.field(CAPTURED_AT), pc.field(KAFKA_TIMESTAMP)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = (pa.scalar(limit, pa.timestamp("ms", tz="UTC")) for limit in (EARLIEST, LATEST))
_BELIEVED = (_STATED >= _EARLIEST) & (_STATED < _LATEST)
_BROKERS = pc.if_else(_BELIEVED, _STATED, pa.scalar(None, _LATEST.type)).cast(pa.timestamp("us", tz="UTC"))
_COMPUTED = pc.coalesce(_CAPTURED, _BROKERS)
_REGRET = pc.if_else(pc.is_nan(pc.field(AUDIT_REGRET)), pa.scalar(None, pa.float64()), pc.field(AUDIT_REGRET))
_FILES = 64
_READ_AHEAD = {"batch_readahead": 2, "fragment_readahead": 2}  # row groups and files that wait in memory


def table(root: str, files: Sequence[str], query: Query) -> pa.Table:
    """Return all rows. Raises ChainError for a file that is damaged or gone."""
    with translated(root):
        columns, condition = _projection(query), _condition(query)
        parts = [part.to_table(columns=columns, filter=condition) for part in _datasets(root, files, query)]
    return pa.concat_tables(_described(part, query) for part in parts) if parts else query.schema.empty_table()


def batches(root: str, files: Sequence[str], query: Query, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in parts of `rows` at most, none empty. Raises ChainError for a damaged or missing file."""
    asked = {"columns": _projection(query), "filter": _condition(query), "batch_size": rows, **_READ_AHEAD}
    with translated(root):
        for part in _datasets(root, files, query):
            yield from (_described(batch, query) for batch in part.to_batches(**asked) if batch.num_rows)


def count(root: str, files: Sequence[str], query: Query) -> int:
    """Return the number of rows. Raises ChainError for a file that is damaged or gone."""
    with translated(root):
        return sum(part.count_rows(filter=_condition(query)) for part in _datasets(root, files, query))


def _datasets(root: str, files: Sequence[str], query: Query) -> Iterator[ds.FileSystemDataset]:
    """Yield datasets of `_FILES` files each, because a dataset keeps the footers of all of its files in memory."""
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet, system = ds.ParquetFileFormat(default_fragment_scan_options=options), _file_system(root)
    for start in range(0, len(files), _FILES):
        some = list(files[start : start + _FILES])
        yield ds.FileSystemDataset.from_paths(some, schema=query.stored, format=parquet, filesystem=system)


def _described(found: Found, query: Query) -> Found:
    """Return the rows with the descriptions of the columns, also of the computed one."""
    return type(found).from_arrays(found.columns, schema=query.schema)


def _file_system(root: str) -> fs.FileSystem:
    if "://" not in root or root.startswith("file://"):
        return fs.LocalFileSystem()
    # Imported here, because only this needs the extra `s3`.
    from adawise.store.object_store import file_system

    return fs.PyFileSystem(fs.FSSpecHandler(file_system(root)))


def _projection(query: Query) -> dict[str, pc.Expression]:
    computed = {TIME: _COMPUTED, AUDIT_REGRET: _REGRET}  # earlier versions wrote the regret as nan for null
    return {name: computed.get(name, pc.field(name)) for name in query.schema.names}


def _condition(query: Query) -> pc.Expression | None:
    """Return the condition on rows, None for all rows.

    The conditions on one column are implied by the one on the computed time; they let row groups be skipped by
    statistics.
    """
    found = []
    if query.streams is not None:
        found.append(pc.field(STREAM_ID).isin(pa.array(query.streams, pa.string())))
    for bound, keeps in ((query.since, pc.greater_equal), (query.until, pc.less)):
        if bound is not None:
            limit = pa.scalar(bound, pa.timestamp("us", tz="UTC"))
            found.append(keeps(_COMPUTED, limit))
            found.append(_CAPTURED.is_null() | keeps(_CAPTURED, limit))
            up_ms = -((_EPOCH - bound) // timedelta(milliseconds=1))  # rounded up: the same for whole milliseconds
            found.append(
                _CAPTURED.is_valid() | keeps(pc.field(KAFKA_TIMESTAMP), pa.scalar(up_ms, pa.timestamp("ms", tz="UTC")))
            )
    condition = None
    for each in found:
        condition = each if condition is None else condition & each
    return condition


@contextmanager
def translated(root: str) -> Iterator[None]:
    """Raise ChainError, with the remedy, for errors of Arrow about files of `root`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ChainError(
            f"{root}: expected the files that were listed, but one is gone: {error}; "
            "read again, or restore it unless `retain` or `compact --delete-after` removed it"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ChainError(
            f"{root}: expected files that can be read, but {error}; "
            "find the damaged one with `adawise verify`, and restore it from a backup"
        ) from error
