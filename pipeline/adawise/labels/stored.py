"""The labels that `adawise labels` stored under a root -> the table `given`."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from adawise.errors import ChainError
from adawise.store.store import open_store

FOLDER = "labels"
"""Under the root."""

_GIVEN = """
CREATE OR REPLACE TEMP TABLE given AS
SELECT row_number() OVER (ORDER BY timestamp_ms, topic, partition, "offset", place) AS number,
       label, row_id, stream_id, captured_at, problem,
       coalesce(labelled_at, CASE WHEN timestamp_ms BETWEEN 0 AND 7258118399999 -- of 2199, the last that is believed
                                  THEN make_timestamptz(timestamp_ms * 1000) END) AS labelled_at
FROM (
    SELECT topic, partition, "offset", timestamp_ms, generate_subscripts(labels, 1) AS place,
           unnest(labels, recursive := true)
    FROM read_parquet($files, hive_partitioning = false)
)
"""


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """What was found: labels, and those that could not be read."""

    messages: int = 0
    notes: tuple[str, ...] = ()


def read_chain(connection: duckdb.DuckDBPyConnection, root: str) -> StoredLabels:
    """Make `given` of the labels under a root, if there are any.

    Raises ChainError for a damaged file, StoreUnavailable.
    """
    folder = root.removeprefix("file://").rstrip("/")
    files = [f"{folder}/{key}" for key in open_store(root).list(FOLDER) if key.endswith(".parquet")]
    if not files:
        return StoredLabels()
    try:
        connection.execute(_GIVEN, {"files": files})
    except duckdb.Error as error:
        first = str(error).strip().partition("\n")[0]
        raise ChainError(
            f"{root}/{FOLDER}: expected files that `adawise labels` wrote, but: {first}; "
            "restore the file, or move it out of the folder"
        ) from error
    counted = connection.execute("SELECT count(*), count(problem), min(problem) FROM given").fetchall()
    messages, unread, why = counted[0]
    connection.execute("DELETE FROM given WHERE problem IS NOT NULL")
    notes = [f"{unread} labels under {root}/{FOLDER} could not be read, such as: {why}"] if unread else []
    return StoredLabels(messages, tuple(notes))
