"""The rows that workers wrote, of chosen streams and times, as Arrow or as a DuckDB relation.

Each committed row comes once, from segments and compacted files, whatever runs beside the reader. The files are chosen
by `data_keys` (`adawise.sink.files`), once, when `read_traces` or `read_predictions` is called. A listed file
stays for as long as `compact --delete-after` lets it. Until rows are asked for, only names are read; then only the row
groups whose statistics admit such rows.

Every table has one computed column more, `time`: when the camera took the image, or else the broker's timestamp.
`since` and `until` refer to it. They do not refer to a commit's day, which is in the names of compacted files: a replay
commits years after the camera's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from adawise.errors import SettingsError
from adawise.output.near import did_you_mean
from adawise.output.read import arrow_rows
from adawise.output.read.query import TIME, Query, nullable, with_time
from adawise.sink import layout, schemas
from adawise.sink.claims import read_sink_id
from adawise.sink.files import data_files
from adawise.store.store import open_store

if TYPE_CHECKING:
    import duckdb

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
    """Return one row per image, accepted or not, as `read_traces` (`adawise.sink.schemas.PREDICTIONS`, and `time`)."""
    return _rows(root, layout.PREDICTIONS, schemas.PREDICTIONS, streams, since, until, columns)


@dataclass(frozen=True)
class Rows:
    """Rows that can be read any number of times, each time from the same files."""

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
        return arrow_rows.table(self.root, self.files, self.query)

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the same rows in the same order, in parts of `rows` (>= 1) at most.

        Raises:
            ChainError: a file is damaged or gone.
        """
        return arrow_rows.batches(self.root, self.files, self.query, rows)

    def count(self) -> int:
        """Return the number of rows. Raises ChainError for a file that is damaged or gone."""
        return arrow_rows.count(self.root, self.files, self.query)

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


__all__ = ["BATCH_ROWS", "TIME", "Query", "Rows", "read_predictions", "read_traces"]
