"""The labelled rows of an output by condition, as far as its traces have conditions.

A condition belongs to a stream and has the number that the search gave it. If the search gave none (an earlier version,
another strategy, no pixels), a day of the stream takes its place.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from adawise.errors import SettingsError
from adawise.output.read.rows import read_predictions, read_traces
from adawise.records import RowId

try:
    import duckdb
except ImportError as error:
    raise SettingsError(
        "labels that came late need the package duckdb; install it with: pip install 'adawise[report]'"
    ) from error

_KEY = ("topic", "partition", "stream_id")
_ROWS = (
    *(*_KEY, "offset", "index", "captured_at", "kafka_timestamp", "time", "status", "batch_number", "true_label"),
    *("label", "top_labels", "zero_shot_label", "fine_tuned_label"),
)
_BATCHES = (*_KEY, "batch_number", "first_offset", "last_offset", "condition")
_RENAMED = "topic AS t, partition AS p, stream_id AS s, batch_number AS b, first_offset, last_offset, condition"

_BY_CONDITION = """
SELECT topic, partition, "offset", "index", any_value(truth),
       coalesce(stream_id, 'no name') || ', ' || coalesce(
           'condition ' || any_value(condition), any_value(make_timestamp(epoch_us(time))::DATE)::VARCHAR, 'no time'
       ) AS name, coalesce(any_value(first_offset), any_value(batch_number))
FROM labelled LEFT JOIN batches ON labelled.topic = t AND labelled.partition = p AND labelled.stream_id = s
     AND labelled.batch_number = b AND "offset" BETWEEN first_offset AND last_offset
GROUP BY topic, partition, "offset", "index", stream_id
ORDER BY topic, partition, "offset", "index"
"""


class LabelledRow(NamedTuple):
    """A row of a known class, the name of its condition, and its batch, by the batch's first offset.

    For a batch without a trace, the batch's number in its stream takes the place of the first offset.
    """

    row_id: RowId
    truth: str
    condition: str
    batch: int


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The rows in the order of their messages, the source of their labels, and notes on labels that were not used."""

    rows: tuple[LabelledRow, ...]
    source: str
    notes: tuple[str, ...]


def labelled_rows(root: str, classes: Collection[str], *, file: str | None = None, within_us: int = 0) -> LabelledRows:
    """Return the accepted rows under a root that have a label, as `label` joins them.

    Raises:
        SettingsError: no worker wrote there, or as `label`.
        ChainError, StoreUnavailable: as `label`.
    """
    from adawise.labels.join import label  # imported here, after the check for DuckDB above
    from adawise.output.read.duckdb_rows import translated

    with translated(root), closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        read_predictions(root, columns=_ROWS).relation(connection).create_view("predictions")
        read_traces(root, columns=_BATCHES).relation(connection).project(_RENAMED).create_view("batches")
        found = label(connection, root, file=file, within_us=within_us, classes=classes)
        rows = tuple(
            LabelledRow(RowId(*place), truth, condition, batch)
            for *place, truth, condition, batch in connection.execute(_BY_CONDITION).fetchall()
        )
    return LabelledRows(rows, found.source, found.notes)
