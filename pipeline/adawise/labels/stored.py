"""Reads the labels that `adawise labels` stored under a root into the table `given`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from adawise.errors import ChainError
from adawise.store.store import as_pattern, open_store

FOLDER = "labels"
"""The folder under the root."""

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


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """The labels that were found, those that could not be read included; `notes` counts the latter."""

    messages: int = 0
    notes: tuple[str, ...] = ()
    source: str = ""


def read_chain(connection: duckdb.DuckDBPyConnection, roots: Sequence[str]) -> StoredLabels:
    """Create `given` from the labels under these roots, if there are any; a label that is under two roots counts once.

    Raises:
        ChainError: a file is damaged.
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
    folder = root.removeprefix("file://").rstrip("/")
    return [f"{folder}/{key}" for key in open_store(root).list(FOLDER) if key.endswith(".parquet")]
