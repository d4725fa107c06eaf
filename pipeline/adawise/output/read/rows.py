"""The rows that workers wrote, of chosen streams and times, as Arrow or as a DuckDB relation.

Each committed row comes once, from segments and compacted files, whatever runs beside the reader. The files are chosen
by `data_keys` (`adawise.sink.files`), once, when `read_traces` or `read_predictions` is called. A listed file
stays for as long as `compact --delete-after` lets it. Until rows are asked for, only names are read; then only the row
groups whose statistics admit such rows.

Every table has one computed column more, `time`: when the camera took the image, or else the broker's timestamp.
`since` and `until` refer to it. They do not refer to a commit's day, which is in the names of compacted files: a replay
commits years after the camera's time.

Arrow reads a dataset of files of one schema, whose row groups are skipped by their statistics; `duckdb_rows` makes the
relations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from adawise.errors import ChainError, SettingsError
from adawise.output.near import did_you_mean
from adawise.output.read.query import (
    CAPTURED_AT,
    EARLIEST,
    KAFKA_TIMESTAMP,
    LATEST,
    STREAM_ID,
    TIME,
    Query,
    nullable,
    with_time,
)
from adawise.sink import layout, schemas
from adawise.sink.claims import read_sink_id
from adawise.sink.files import data_files
from adawise.sink.schemas import AUDIT_REGRET
from adawise.store.parquet import misstated_rows
from adawise.store.store import open_store

if TYPE_CHECKING:
    import duckdb

Found = TypeVar("Found", pa.Table, pa.RecordBatch)

_CAPTURED, _STATED = pc.field(CAPTURED_AT), pc.field(KAFKA_TIMESTAMP)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = (pa.scalar(limit, pa.timestamp("ms", tz="UTC")) for limit in (EARLIEST, LATEST))
_BELIEVED = (_STATED >= _EARLIEST) & (_STATED < _LATEST)
_BROKERS = pc.if_else(_BELIEVED, _STATED, pa.scalar(None, _LATEST.type)).cast(pa.timestamp("us", tz="UTC"))
_COMPUTED = pc.coalesce(_CAPTURED, _BROKERS)
_REGRET = pc.if_else(pc.is_nan(pc.field(AUDIT_REGRET)), pa.scalar(None, pa.float64()), pc.field(AUDIT_REGRET))
_FILES = 64
_READERS = 16  # footers that are read at a time, since an object store answers slowly
_READ_AHEAD = {"batch_readahead": 2, "fragment_readahead": 2}  # row groups and files that wait in memory

BATCH_ROWS = 65_536
"""The most rows of a record batch, unless another number is asked for."""


def read_traces(
    root: str | Path,
    streams: str | Iterable[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Rows:
    """Return one row per batch: how its alpha was chosen (`adawise.sink.schemas.TRACES`, and `time`).

    Args:
        root: the value of `sink.root`: a folder, or a URL as s3://bucket/prefix (extra `s3`).
        streams: one camera or several; None for all.
        since: the earliest time (with a time zone).
        until: the time (with a time zone) before which rows end. Rows without any time come only if neither is given.
        columns: names, in the order in which they are returned; None for all, `time` last.

    Example:
        >>> from datetime import UTC, datetime
        >>> since = datetime(2026, 6, 1, 22, tzinfo=UTC)
        >>> traces = adawise.read_traces("runs/yard", streams=["gate", "yard"], since=since, columns=["time", "alpha"])
        >>> len(traces)
        120
        >>> traces.table().sort_by("time")["time"][0].as_py().isoformat()
        '2026-06-01T22:00:00+00:00'

    Raises:
        SettingsError: no worker wrote to the root, or a column, a time or the range is not possible.
        StoreUnavailable: the store does not answer.
    """
    return _rows(root, layout.TRACES, schemas.TRACES, streams, since, until, columns)


def read_predictions(
    root: str | Path,
    streams: str | Iterable[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Rows:
    """Return one row per image, accepted or not, as `read_traces` (`adawise.sink.schemas.PREDICTIONS`, and `time`).

    Example:
        >>> rows = adawise.read_predictions("runs/yard", columns=["stream_id", "status"])
        >>> rejected = rows.relation().filter("status = 'rejected'")
        >>> rejected.aggregate("stream_id, count(*) AS images").fetchall()
        [('tunnel', 900)]
    """
    return _rows(root, layout.PREDICTIONS, schemas.PREDICTIONS, streams, since, until, columns)


@dataclass(frozen=True)
class Rows:
    """Rows that can be read any number of times, each time from the same files.

    Example:
        >>> rows = adawise.read_predictions("runs/yard", streams="gate", columns=["stream_id", "status"])
        >>> len(rows), rows.schema.names
        (5760, ['stream_id', 'status'])
        >>> rows.table().num_rows  # all of them, in memory
        5760
        >>> max(batch.num_rows for batch in rows.batches(1000)) <= 1000  # part by part
        True
        >>> rows.relation().aggregate("status, count(*) AS images").fetchall()  # by DuckDB
        [('accepted', 5760)]
    """

    root: str
    files: tuple[str, ...] = field(repr=False)
    """Paths or URLs, in the order of the chains. Some of them may hold no row that is asked for."""

    query: Query = field(repr=False)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the tables and batches. All columns are nullable: a file of an older version may lack one."""
        return self.query.schema

    def table(self) -> pa.Table:
        """Return all rows, in memory. Raises ChainError for a file that is damaged or gone."""
        with arrow_errors(self.root):
            columns, condition = _projection(self.query), _condition(self.query)
            parts = [part.to_table(columns=columns, filter=condition) for part in self._datasets()]
        return pa.concat_tables(map(self._described, parts)) if parts else self.schema.empty_table()

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the same rows in the same order, in parts of `rows` (>= 1) at most.

        Raises:
            ChainError: a file is damaged or gone.
        """
        options = {
            "columns": _projection(self.query),
            "filter": _condition(self.query),
            "batch_size": rows,
            **_READ_AHEAD,
        }
        with arrow_errors(self.root):
            for part in self._datasets():
                yield from (self._described(batch) for batch in part.to_batches(**options) if batch.num_rows)

    def count(self) -> int:
        """Return the number of rows. Raises ChainError for a file that is damaged or gone."""
        with arrow_errors(self.root):
            return sum(part.count_rows(filter=_condition(self.query)) for part in self._datasets())

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True  # without it, a test of an object for None would read files

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """Return the rows as a relation of this connection, or of the default one, which `duckdb.sql` finds by name.

        It is computed when its rows are asked for, and pushes columns and conditions down into the files. Its rows come
        in no order. DuckDB raises its own errors later.

        Raises:
            SettingsError: DuckDB is not installed.
        """
        # Imported here, because Arrow alone needs no extra.
        from adawise.output.read import duckdb_rows

        return duckdb_rows.relation(self.root, self.files, self.query, connection)

    def _datasets(self) -> Iterator[ds.FileSystemDataset]:
        """Yield datasets of `_FILES` files each, because a dataset keeps the footers of all of its files in memory."""
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet, system = ds.ParquetFileFormat(default_fragment_scan_options=options), _file_system(self.root)
        for start in range(0, len(self.files), _FILES):
            some = list(self.files[start : start + _FILES])
            part = ds.FileSystemDataset.from_paths(some, schema=self.query.stored, format=parquet, filesystem=system)
            with ThreadPoolExecutor(_READERS, "footers") as pool:
                list(pool.map(_check_rows, part.get_fragments()))
            yield part

    def _described(self, found: Found) -> Found:
        """Return the rows with the descriptions of the columns, also of the computed one."""
        return type(found).from_arrays(found.columns, schema=self.schema)


def _rows(
    root: str | Path,
    dataset: str,
    schema: pa.Schema,
    streams: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
    columns: Sequence[str] | None,
) -> Rows:
    where = str(root)
    stored = nullable(schema)
    query = Query(
        stored=stored,
        schema=_selected(with_time(stored), columns),
        streams=_streams(streams),
        since=_aware("since", since),
        until=_aware("until", until),
    )
    if since and until and since >= until:
        raise SettingsError(f"expected since before until, but got {since} and {until}; swap them")
    store = open_store(where)
    if read_sink_id(store) is None:
        raise SettingsError(
            f"{where}: expected the output of a worker, with a {layout.SINK}, but there is none; name the folder "
            f"or URL of sink.root or -o{did_you_mean(where)}"
        )
    return Rows(where, tuple(data_files(where, dataset, store)), query)


def _selected(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return schema
    names = [columns] if isinstance(columns, str) else list(columns)
    if unknown := [name for name in names if name not in schema.names]:
        raise SettingsError(
            f"expected columns among {', '.join(schema.names)}, but found {', '.join(map(repr, unknown))}; "
            "correct the names"
        )
    if len(set(names)) < len(names):
        raise SettingsError(f"expected each column once, but found {', '.join(names)}; name it once")
    return pa.schema([schema.field(name) for name in names])


def _streams(streams: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if streams is None:
        return None
    return (streams,) if isinstance(streams, str) else tuple(dict.fromkeys(streams))


def _aware(name: str, time: datetime | None) -> datetime | None:
    if time is not None and time.utcoffset() is None:
        raise SettingsError(
            f"{name}: expected a time with its zone, but {time} has none; pass datetime(..., tzinfo=UTC)"
        )
    return time


def _check_rows(fragment: ds.ParquetFileFragment) -> None:
    """Raise ArrowInvalid if the file states more rows than it can have. The fragment keeps its footer for the scan."""

    def size_bytes() -> int:
        with fragment.open() as file:
            return int(file.size())

    try:
        misstated = misstated_rows(fragment.metadata, size_bytes)
    except (pa.ArrowException, OSError):
        return  # the scan raises it, after the rows of the files before this one
    if misstated:
        raise pa.ArrowInvalid(f"{fragment.path}: {misstated}")


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
    return reduce(and_, found) if found else None


@contextmanager
def arrow_errors(root: str) -> Iterator[None]:
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
