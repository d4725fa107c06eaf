"""The labels to be joined, as the table `given`: from a file, or from what `adawise labels` stored under a root.

A file (CSV, Parquet or Arrow) is written by other programs, and every row of it is checked.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from adawise.errors import ChainError, SettingsError
from adawise.labels.sample.days import is_sample, read_days
from adawise.store.store import as_pattern, check_regular, is_of_no_file, open_store

EXPECTED = "the columns label and row_id, or label, stream_id and captured_at (and optionally labelled_at)"

ROW_ID = "[^/]{1,249}/[0-9]{1,9}/[0-9]{1,18}/[0-9]{1,9}"
"""The pattern of a row id: topic/partition/offset/index."""

_PARQUET = "FROM read_parquet(?, hive_partitioning = false)"
_CSV = (
    """FROM read_csv(?, auto_detect = false, header = true, columns = {%s}, delim = ',', quote = '"', escape = '"')"""
)
_FORMS = {
    **{".csv": "csv", ".gz": "csv", ".parquet": "parquet", ".pq": "parquet"},
    **{".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"},
}
_TEXTS, _TIMES = ("label", "row_id", "stream_id"), ("captured_at", "labelled_at")
_ROW_TEXT = 80  # characters of the wrong value that are shown
_HEADER_TEXT = 65_536  # characters of the line that names the columns

# DuckDB raises RuntimeError for a name or a text that is not UTF-8.
_UNREADABLE = (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError, RuntimeError)

_CHECK = f"""
SELECT number, problem, found FROM (
    SELECT number,
           CASE WHEN row_id IS NOT NULL AND NOT regexp_full_match(row_id, '{ROW_ID}')
                THEN 'row_id: expected topic/partition/offset/index'
                WHEN captured_at_text IS NOT NULL AND captured_at IS NULL
                THEN 'captured_at: expected a time as 2026-05-01T12:00:00.25Z'
                WHEN labelled_at_text IS NOT NULL AND labelled_at IS NULL
                THEN 'labelled_at: expected a time as 2026-05-01T12:00:00.25Z'
                WHEN row_id IS NULL AND (stream_id IS NULL OR captured_at IS NULL)
                THEN 'expected a row_id, or a stream_id and a captured_at' END AS problem,
           CASE problem[:3] WHEN 'row' THEN row_id WHEN 'cap' THEN captured_at_text WHEN 'lab' THEN labelled_at_text
                ELSE 'neither' END AS found
    FROM given
) WHERE problem IS NOT NULL ORDER BY number LIMIT 1
"""

FOLDER = "labels"
"""The folder of stored labels under a root."""

_GIVEN = """
CREATE OR REPLACE TEMP TABLE given AS
SELECT row_number() OVER (ORDER BY timestamp_ms, topic, partition, "offset", place) AS number,
       label, row_id, stream_id, captured_at, problem,
       coalesce(labelled_at, CASE WHEN timestamp_ms BETWEEN 0 AND 7258118399999 -- of 2199, the last that is believed
                                  THEN make_timestamptz(timestamp_ms * 1000) END) AS labelled_at
FROM (
    SELECT DISTINCT topic, partition, "offset", timestamp_ms, generate_subscripts(labels, 1) AS place,
           unnest(labels, recursive := true)
    FROM read_parquet($files, hive_partitioning = false)
)
"""


def read_labels(connection: duckdb.DuckDBPyConnection, file: str) -> None:
    """Create the table `given` from a file: `number` from 1 in file order, `label`, what it labels, `labelled_at`.

    The folder of a sample (`labels.sample`) is read as one file.

    Raises:
        SettingsError: the file cannot be read, columns are missing, or a row is wrong; the first such row is named.
    """
    if is_sample(file):
        _load_sample(connection, file)
        return
    path = _existing(file)
    form = _FORMS[path.suffix.lower()]
    try:
        columns = _columns(connection, path, form)
        _expect_columns(columns, file, typed=form != "csv")
        _load(connection, path, form, columns)
        wrong = connection.execute(_CHECK).fetchall()
    except _UNREADABLE as error:
        if _is_interrupted(error):
            raise
        first = str(error).strip().partition("\n")[0]
        raise SettingsError(f"{file}: expected a {form} file of labels, but: {first}; correct the file") from error
    for number, problem, found in wrong:
        raise SettingsError(f"{file}, row {number}: {problem}, got {str(found)[:_ROW_TEXT]!r}; correct the file")


def expect_labels(file: str) -> None:
    """Raise SettingsError if there is no file of labels of a known format, and no sample; rows of a file are not read.

    To be called before long work, at whose end the labels are read.
    """
    if is_sample(file):
        read_days(Path(file))
    else:
        _existing(file)


def _load_sample(connection: duckdb.DuckDBPyConnection, folder: str) -> None:
    images = [each for of_day in read_days(Path(folder)).values() for each in of_day if each.label]
    columns = {"row_id": [each.row_id for each in images], "label": [each.label for each in images]}
    table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
    connection.register("sampled_labels", table)
    try:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE given AS SELECT row_number() OVER () AS number, label, row_id, "
            "NULL::VARCHAR AS stream_id, NULL::TIMESTAMPTZ AS captured_at, NULL::TIMESTAMPTZ AS labelled_at "
            "FROM sampled_labels"
        )
    finally:
        connection.unregister("sampled_labels")


def _is_interrupted(error: Exception) -> bool:
    """Return True for Ctrl-C, and for an object store that does not answer; `duckdb_rows.translated` raises these."""
    return str(error).lstrip().startswith(("Query interrupted", "Traceback "))


def _existing(file: str) -> Path:
    if "://" in file and not file.startswith("file://"):
        raise SettingsError(f"{file}: expected a file of labels on this machine; copy it here and name the copy")
    path = Path(file.removeprefix("file://"))
    if not path.is_file():
        raise SettingsError(f"{file}: expected a file of labels, but there is none; correct --labels")
    if path.suffix.lower() not in _FORMS:
        names = ", ".join(_FORMS)
        raise SettingsError(f"{file}: expected a file whose name ends in one of {names}; name it by its format")
    return path


def _columns(connection: duckdb.DuckDBPyConnection, path: Path, form: str) -> dict[str, str]:
    """Return the names and types of the columns, in DuckDB's words."""
    if form == "arrow":
        with pa.memory_map(str(path)) as source:
            schema = pa.ipc.open_file(source).schema
        relation = connection.from_arrow(schema.empty_table())
        return dict(zip(relation.columns, map(str, relation.types), strict=True))
    if form == "csv":
        return dict.fromkeys(_header(path), "VARCHAR")
    described = connection.execute(f"DESCRIBE SELECT * {_PARQUET}", [as_pattern(str(path))]).fetchall()
    return {str(row[0]): str(row[1]) for row in described}


def _header(path: Path) -> list[str]:
    """Return the column names of a CSV, from its first line.

    DuckDB's own detection skips a first line that does not fit the others.
    """
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader([lines.readline(_HEADER_TEXT)]), [])
    if len(set(names)) < len(names):
        raise SettingsError(f"{path}: expected each column once, but found {', '.join(names)[:400]}; rename them")
    return names


def _expect_columns(columns: dict[str, str], file: str, *, typed: bool) -> None:
    if "label" not in columns or not ("row_id" in columns or {"stream_id", "captured_at"} <= set(columns)):
        found = ", ".join(columns)[:400] or "none"
        raise SettingsError(f"{file}: expected {EXPECTED}, but found {found}; rename the columns")
    if not typed:
        return
    for name in columns:
        kind = columns[name]
        if name in _TEXTS and not (kind == "VARCHAR" or kind.startswith("ENUM")):
            raise SettingsError(f"{file}: expected text in the column {name}, but it is {kind}; write it as text")
        if name in _TIMES and not kind.startswith("TIMESTAMP"):
            raise SettingsError(f"{file}: expected a timestamp in {name}, but it is {kind}; write it as a timestamp")


def _load(connection: duckdb.DuckDBPyConnection, path: Path, form: str, columns: dict[str, str]) -> None:
    texts = [f"nullif(trim({_or_null(name, columns)}), '') AS {name}" for name in _TEXTS]
    times = [f"try_cast({_or_null(name, columns)} AS TIMESTAMPTZ) AS {name}" for name in _TIMES]
    written = [f"nullif({_or_null(name, columns)}, '') AS {name}_text" for name in _TIMES]
    head = f"CREATE OR REPLACE TEMP TABLE given AS SELECT row_number() OVER () AS number, {', '.join(texts + times)}"
    head += f", {', '.join(written)}"
    if form != "arrow":
        # All columns of a CSV are read as text, so that a value of the wrong form can be reported with its row.
        named = ", ".join("'" + name.replace("'", "''") + "': 'VARCHAR'" for name in columns)
        scan = _PARQUET if form == "parquet" else _CSV % named
        connection.execute(f"{head} {scan}", [as_pattern(str(path))])
        return
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        given: Any = pa.RecordBatchReader.from_batches(reader.schema, batches)
        connection.register("arrow_labels", given)
        try:
            connection.execute(f"{head} FROM arrow_labels")
        finally:
            connection.unregister("arrow_labels")


def _or_null(name: str, columns: dict[str, str]) -> str:
    return f"{name}::VARCHAR" if name in columns else "NULL::VARCHAR"


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """The labels that were found, those that could not be read included; `notes` counts the latter."""

    messages: int = 0
    notes: tuple[str, ...] = ()
    source: str = ""


def read_chain(connection: duckdb.DuckDBPyConnection, roots: Sequence[str]) -> StoredLabels:
    """Create `given` from the labels under these roots, if there are any; a label that is under two roots counts once.

    Raises:
        ChainError: a file is damaged, or is a pipe or a device.
        StoreUnavailable: a store does not answer.
    """
    by_root = {root: _files(root) for root in roots}
    files = [file for found in by_root.values() for file in found]
    if not files:
        return StoredLabels()
    source = " and ".join(f"{root}/{FOLDER}" for root, found in by_root.items() if found)
    try:
        connection.execute(_GIVEN, {"files": [as_pattern(file) for file in files]})
    except duckdb.Error as error:
        if _is_interrupted(error) or is_of_no_file(error):
            raise
        first = str(error).strip().partition("\n")[0]
        raise ChainError(
            f"{source}: expected files that `adawise labels` wrote, but: {first}; "
            "restore the file, or move it out of the folder"
        ) from error
    counted = connection.execute("SELECT count(*), count(problem), min(problem) FROM given").fetchall()
    messages, unread, why = counted[0]
    connection.execute("DELETE FROM given WHERE problem IS NOT NULL")
    notes = [f"{unread} labels under {source} could not be read, such as: {why}"] if unread else []
    return StoredLabels(messages, tuple(notes), source)


def _files(root: str) -> list[str]:
    folder, store = root.removeprefix("file://").rstrip("/"), open_store(root)
    keys = [key for key in store.list(FOLDER) if key.endswith(".parquet")]
    check_regular(store, keys)
    return [f"{folder}/{key}" for key in keys]
