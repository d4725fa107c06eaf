"""Rows by DuckDB (extra `report`): a relation over the files. Of a query, only paths and column names become SQL."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

from adawise.errors import ChainError, SettingsError
from adawise.output.read.query import CAPTURED_AT, EARLIEST, KAFKA_TIMESTAMP, LATEST, STREAM_ID, TIME, Query
from adawise.sink.schemas import AUDIT_REGRET
from adawise.store import answers
from adawise.store.store import as_pattern, is_of_no_file

try:
    import duckdb
    from duckdb import (
        CaseExpression,
        CoalesceOperator,
        ColumnExpression,
        ConstantExpression,
        Expression,
        FunctionExpression,
    )
except ImportError as error:
    raise SettingsError(
        "relations need the package duckdb; install it with: pip install 'adawise[report]' (Arrow needs no extra)"
    ) from error


def relation(
    root: str, files: Sequence[str], query: Query, connection: duckdb.DuckDBPyConnection | None
) -> duckdb.DuckDBPyRelation:
    """Return the rows as a relation of the connection (None: the default one)."""
    chosen = duckdb.default_connection() if connection is None else connection
    empty = chosen.from_arrow(query.stored.empty_table())
    if not files:
        return chosen.from_arrow(query.schema.empty_table())
    if "://" in root and not root.startswith("file://"):
        _open_to(chosen, root)
    found = chosen.sql(_scan(files, empty))
    if conditions := _conditions(query):  # as one filter: a relation asks the engine for its schema at each step
        found = found.filter(reduce(Expression.__and__, conditions))
    return found.select(*(_COMPUTED.get(name, ColumnExpression(name)) for name in query.schema.names))


def connect(folder: str, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """Return a database in memory that spills to `folder`."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_bytes // 2**20}MiB",
        "temp_directory": folder,
        "preserve_insertion_order": False,
    }
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")  # also of times without a zone, as in a file of labels
    return connection


def union(
    connection: duckdb.DuckDBPyConnection, name: str, relations: Sequence[duckdb.DuckDBPyRelation]
) -> duckdb.DuckDBPyRelation:
    """Return all rows of relations of one schema; a view NAME_0, NAME_1 and so on is created for each of them.

    It is one query, because unions of unions reach the engine's limit of depth at 1,000 of them.
    """
    for number, each in enumerate(relations):
        each.create_view(f"{name}_{number}")
    return connection.sql(" UNION ALL ".join(f"SELECT * FROM {name}_{number}" for number in range(len(relations))))


@contextmanager
def translated(*roots: str) -> Iterator[None]:
    """Raise ChainError, with the remedy, for values that DuckDB cannot hold and files that it cannot read.

    A query that Ctrl-C interrupts raises KeyboardInterrupt, and one whose store does not answer StoreUnavailable.
    """
    try:
        yield
    except RuntimeError as error:
        # DuckDB takes the signal's KeyboardInterrupt, and raises this without a class or a cause of its own.
        if type(error) is RuntimeError and str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise
    except duckdb.ConversionException as error:
        first = str(error).strip().partition("\n")[0]
        raise ChainError(
            f"{' or '.join(roots)}: expected times that DuckDB can hold, but: {first}. An earlier version stored "
            "the Kafka timestamp of a producer, valid or not: `adawise replay` of that time (a recording, or "
            "--topic) with this version ignores it, and its output can be read"
        ) from error
    except duckdb.Error as error:
        if raised := _raised_in_python(error, " or ".join(roots)):
            raise raised from error
        first = str(error).strip().partition("\n")[0]
        if is_of_no_file(error):
            raise _gone(" or ".join(roots), first) from error
        # The error for a damaged page names no file, and has no class of its own.
        is_of_a_file = isinstance(error, (duckdb.InvalidInputException, duckdb.IOException)) and ".parquet" in first
        if not is_of_a_file and (type(error) is not duckdb.Error or first.startswith("Traceback")):
            raise
        raise ChainError(
            f"{' or '.join(roots)}: expected Parquet files that can be read, but: {first}. `adawise verify` of it "
            "names the damage and a remedy"
        ) from error


def _raised_in_python(error: duckdb.Error, where: str) -> BaseException | None:
    """Return what a file of an object store raised while DuckDB read it; None if it was not that.

    Python's signals are handled in such a file, too. DuckDB has no class for these errors, and of them only the text.
    """
    text_of = str(error).partition("\n\nLINE ")[0]  # DuckDB adds the query
    found = re.match(r"\s*Traceback .*?^(?:\w+\.)*(\w+): ?(.*)", text_of, re.DOTALL | re.MULTILINE)
    if type(error) is not duckdb.Error or found is None:
        return None
    name, text = found.groups()
    if name == "KeyboardInterrupt":
        return KeyboardInterrupt()
    if name == "ChainError":
        return ChainError(text)
    if name == "FileNotFoundError" and answers.is_absent(gone := FileNotFoundError(text)):
        return _gone(where, answers.brief(gone))
    kind = getattr(builtins, name, None)
    if name not in answers.RAISED and not (isinstance(kind, type) and issubclass(kind, OSError)):
        return None  # a fault of the program
    return answers.translated(type(name, (Exception,), {})(text), where)  # answers go by the name of the error


def _gone(where: str, what: str) -> ChainError:
    return ChainError(
        f"{where}: expected the files that were listed, but one is gone: {what}; read again, or restore it unless "
        "`retain` or `compact --delete-after` removed it"
    )


def _scan(files: Sequence[str], stored: duckdb.DuckDBPyRelation) -> str:
    """Return the SQL for all columns of the files; columns that an older file lacks are null.

    Given the columns, DuckDB opens a file only when it reads rows of it; to infer them, it would read all footers
    first.
    """
    columns = ", ".join(
        f"{_text(name)}: {{name: {_text(name)}, type: {_text(str(kind))}, default_value: NULL}}"
        for name, kind in zip(stored.columns, stored.types, strict=True)
    )
    names = ", ".join(_text(as_pattern(file)) for file in files)
    return f"SELECT * FROM read_parquet([{names}], schema = MAP {{{columns}}}, hive_partitioning = false)"


def _text(value: str) -> str:
    """Return a literal of SQL, in which a quote is the only special character."""
    return "'" + value.replace("'", "''") + "'"


def _open_to(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Let the connection read URLs as this root's store does, with its keys, endpoint and time-outs."""
    from adawise.store.object_store import file_system

    files = file_system(root)
    if files.protocol not in connection.list_filesystems():
        connection.register_filesystem(files)


def _conditions(query: Query) -> list[Expression]:
    """Return the conditions on rows.

    The conditions on one column are implied by the one on the computed time; they let row groups be skipped by
    statistics.
    """
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
_BELIEVED = (ConstantExpression(EARLIEST) <= _BROKERS) & (ConstantExpression(LATEST) > _BROKERS)
_TIME = CoalesceOperator(_CAPTURED, CaseExpression(_BELIEVED, _BROKERS))
_REGRET = ColumnExpression(AUDIT_REGRET)
_COMPUTED = {
    TIME: _TIME.alias(TIME),
    # earlier versions wrote nan for null
    AUDIT_REGRET: CaseExpression(~FunctionExpression("isnan", _REGRET), _REGRET).alias(AUDIT_REGRET),
}
