"""The rows that workers wrote, of the streams and the time that are wanted, as Arrow or as a DuckDB relation.

Each committed row comes once, from segments and compacted files, whatever runs beside the reader: the files are chosen
by `data_keys` (`adawise.sink.read.files`), once, when `read_traces` or `read_predictions` is called. A listed file
stays for as long as `compact --delete-after` lets it. Nothing but names is read until rows are asked for, and of the
files then only the row groups whose statistics admit rows that are wanted.

Every table has one computed column more, `time`: when the camera took the image, or else the broker's timestamp.
`since` and `until` are about it. A commit's day, which is in the names of compacted files, is not: a replay commits
years after the camera's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from adawise.errors import SettingsError
from adawise.sink import layout, schemas
from adawise.sink.claims import read_sink_id
from adawise.sink.near import did_you_mean
from adawise.sink.read import arrow_rows
from adawise.sink.read.files import data_files
from adawise.sink.read.query import TIME, Query, nullable, with_time
from adawise.store.store import open_store

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 65_536
"""Rows of a record batch, at most, unless another number is asked for."""


def read_traces(
    root: str | Path,
    streams: str | Iterable[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Rows:
    """One row per batch: how its alpha was chosen (`adawise.sink.schemas.TRACES`, and `time`).

    Args:
        root: what `sink.root` named: a folder, or a URL as s3://bucket/prefix (extra `s3`).
        streams: one camera or several; None for all.
        since: no rows before it (time zone needed).
        until: no rows from it on (time zone needed). Rows without any time come only if neither is given.
        columns: names, in the order that is wanted; None for all, `time` last.

    Raises SettingsError if no worker wrote there, or for a column, a time or a range that cannot be, and
    StoreUnavailable.
    """
    return _rows(root, layout.TRACES, schemas.TRACES, streams, since, until, columns)


def read_predictions(
    root: str | Path,
    streams: str | Iterable[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    columns: Sequence[str] | None = None,
) -> Rows:
    """One row per image, accepted or not (`adawise.sink.schemas.PREDICTIONS`, and `time`). Else as `read_traces`."""
    return _rows(root, layout.PREDICTIONS, schemas.PREDICTIONS, streams, since, until, columns)


@dataclass(frozen=True)
class Rows:
    """Rows that can be read as often as is wanted, each time from the same files."""

    root: str
    files: tuple[str, ...] = field(repr=False)
    """Paths or URLs, in the order of the chains. Not all of them need hold rows that are wanted."""

    query: Query = field(repr=False)

    @property
    def schema(self) -> pa.Schema:
        """Of the tables and batches. All columns are nullable: a file of an older version may lack one."""
        return self.query.schema

    def table(self) -> pa.Table:
        """All rows, in memory. Raises ChainError for a file that is damaged or gone."""
        return arrow_rows.table(self.root, self.files, self.query)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The same rows in the same order, a part at a time, of `rows` (>= 1) at most.

        Raises ChainError for a file that is damaged or gone.
        """
        return arrow_rows.batches(self.root, self.files, self.query, rows)

    def count(self) -> int:
        """How many rows there are. Raises ChainError for a file that is damaged or gone."""
        return arrow_rows.count(self.root, self.files, self.query)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True  # or a test of an object for None would read files

    def relation(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """The rows as a relation of this connection, or of the default one, that `duckdb.sql` finds by its variable.

        It is computed when its rows are asked for, and pushes columns and conditions down into the files. Its rows come
        in no order. Raises SettingsError if DuckDB is not installed; DuckDB raises its own errors later.
        """
        # Here, because Arrow alone needs no extra.
        from adawise.sink.read import duckdb_rows

        return duckdb_rows.relation(self.root, self.files, self.query, connection)


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
        raise SettingsError(f"expected since before until, but they are {since} and {until}; exchange them")
    store = open_store(where)
    if read_sink_id(store) is None:
        raise SettingsError(
            f"{where}: expected the output of a worker, with a {layout.SINK}, but there is none; "
            f"name the folder or URL that sink.root or -o named{did_you_mean(where)}"
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
            f"{name}: expected a time with its zone, but {time} has none; say datetime(..., tzinfo=UTC)"
        )
    return time


__all__ = ["BATCH_ROWS", "TIME", "Query", "Rows", "read_predictions", "read_traces"]
