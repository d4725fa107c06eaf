"""Rows by DuckDB (extra `report`): a relation over the files. Values of a query never become SQL text."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.drift.read_query import CAPTURED_AT, KAFKA_TIMESTAMP, STREAM_ID, TIME, Query
from pipeline.errors import SettingsError

try:
    import duckdb
    from duckdb import CoalesceOperator, ColumnExpression, ConstantExpression, Expression
except ImportError as error:
    msg = "relations need the package duckdb; install it with: pip install 'adawise[report]' (Arrow needs no extra)"
    raise SettingsError(msg) from error


def relation(
    root: str, files: Sequence[str], query: Query, connection: duckdb.DuckDBPyConnection | None
) -> duckdb.DuckDBPyRelation:
    """The rows as a relation of the connection (None: the default one)."""
    chosen = connection or duckdb.default_connection()
    empty = chosen.from_arrow(query.stored.empty_table())
    if not files:
        return empty.select(*_columns(query, empty, empty)).filter("false")
    if "://" in root and not root.startswith("file://"):
        _open_to(chosen, root)
    found = chosen.read_parquet(list(files), union_by_name=True, hive_partitioning=False)
    for condition in _conditions(query):
        found = found.filter(condition)
    return found.select(*_columns(query, found, empty))


def _open_to(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Let the connection read URLs as this root's, with our keys, endpoint and time-outs."""
    from pipeline.sink.object_store import file_system

    files = file_system(root)
    if files.protocol not in connection.list_filesystems():
        connection.register_filesystem(files)


def _columns(query: Query, found: duckdb.DuckDBPyRelation, stored: duckdb.DuckDBPyRelation) -> list[Expression]:
    """The columns that are wanted; null, with its type, where no file has one."""
    types = dict(zip(stored.columns, stored.types, strict=True))
    there = {
        name: ColumnExpression(name) if name in found.columns else ConstantExpression(None).cast(kind)
        for name, kind in types.items()
    }
    there[TIME] = _TIME
    return [there[name].alias(name) for name in query.schema.names]


def _conditions(query: Query) -> list[Expression]:
    """What rows must fulfil. Conditions on one column alone say nothing new: they meet a row group's statistics."""
    conditions: list[Expression] = []
    if query.streams is not None:
        streams = [ConstantExpression(stream) for stream in query.streams]
        conditions.append(ColumnExpression(STREAM_ID).isin(*streams) if streams else ConstantExpression(False))
    for bound, keeps in ((query.since, Expression.__ge__), (query.until, Expression.__lt__)):
        if bound is not None:
            limit = ConstantExpression(bound)
            conditions.append(keeps(_TIME, limit))
            conditions.append(_CAPTURED.isnull() | keeps(_CAPTURED, limit))
            conditions.append(_CAPTURED.isnotnull() | keeps(_BROKERS, limit))
    return conditions


_CAPTURED, _BROKERS = ColumnExpression(CAPTURED_AT), ColumnExpression(KAFKA_TIMESTAMP)
_TIME = CoalesceOperator(_CAPTURED, _BROKERS)
