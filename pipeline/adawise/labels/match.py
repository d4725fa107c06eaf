"""The matching of labels to rows, at most one label per row: the tables `found` and `truths`, in SQL.

A label names its row, or its stream and the time of the image. A label with a time belongs to the nearest frame within
a tolerance; of two equally near frames, to the earlier one. If several frames share that time, it belongs to none,
since the right one is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

_BY_ROW = """
CREATE OR REPLACE TEMP TABLE found AS
SELECT parts[1] AS topic, parts[2]::INTEGER AS partition, parts[3]::BIGINT AS "offset", parts[4]::INTEGER AS "index",
       label, labelled_at, number
FROM (SELECT *, string_split(row_id, '/') AS parts FROM given WHERE row_id IS NOT NULL)
"""

_NEAREST = """
CREATE OR REPLACE TEMP TABLE nearest AS
WITH wanted AS (
    SELECT number, stream_id, label, labelled_at, epoch_us(captured_at) AS us,
           unnest(CASE WHEN $within = 0 THEN [epoch_us(captured_at)]
                       ELSE [epoch_us(captured_at) // $width + step FOR step IN [-1, 0, 1]] END) AS bucket
    FROM given WHERE row_id IS NULL
), frames AS (
    SELECT stream_id, epoch_us(captured_at) AS frame_us, {t: topic, p: partition, o: "offset", i: "index"} AS row
    FROM predictions WHERE captured_at IS NOT NULL
), at_times AS (
    SELECT number, any_value(label) AS label, any_value(labelled_at) AS labelled_at, us, frame_us,
           min(row) AS row, count(*) AS frames
    FROM wanted JOIN frames ON wanted.stream_id = frames.stream_id AND bucket = frame_us // $width
    WHERE abs(frame_us - us) <= $within
    GROUP BY number, us, frame_us
)
SELECT number, any_value(label) AS label, any_value(labelled_at) AS labelled_at,
       arg_min({row: row, frames: frames}, 2 * abs(frame_us - us) + (frame_us > us)::INTEGER) AS best
FROM at_times GROUP BY number
"""

_BY_TIME = """
INSERT INTO found
SELECT best.row.t, best.row.p, best.row.o, best.row.i, label, labelled_at, number FROM nearest WHERE best.frames = 1
"""

_TRUTHS = """
CREATE OR REPLACE TEMP TABLE truths AS
SELECT topic, partition, "offset", "index",
       arg_max(coalesce(label, ''), {'at': coalesce(epoch_us(labelled_at), 0), 'number': number}) AS truth,
       count(*) AS labels, min(coalesce(label, '')) <> max(coalesce(label, '')) AS contradictory
FROM found GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Matched:
    """Counts of the matching: labels that were given, and rows that have one."""

    given: int
    rows: int
    without_frame: int  # labels by time without a frame of that time
    ambiguous: int  # labels whose time several frames share
    superseded: int  # rows with more than one label
    contradictory: int  # of them, rows whose labels differ


def match(connection: duckdb.DuckDBPyConnection, *, within_us: int) -> Matched:
    """Create `truths` from `given`: a row's latest label by `labelled_at`, then by `number`; '' if it was withdrawn.

    Args:
        connection: with `given` and `predictions`.
        within_us: how far a label's time may be from its frame's, microseconds, >= 0.
    """
    connection.execute(_BY_ROW)
    timed = _count(connection, "SELECT count(*) FROM given WHERE row_id IS NULL")
    matched = ambiguous = 0
    if timed:
        connection.execute(_NEAREST, {"within": within_us, "width": max(within_us, 1)})
        matched = _count(connection, "SELECT count(*) FROM nearest")
        ambiguous = _count(connection, "SELECT count(*) FROM nearest WHERE best.frames > 1")
        connection.execute(_BY_TIME)
        connection.execute("DROP TABLE nearest")
    given = _count(connection, "SELECT count(*) FROM given")
    connection.execute(_TRUTHS)
    connection.execute("DROP TABLE found; DROP TABLE given")
    return Matched(
        given=given,
        rows=_count(connection, "SELECT count(*) FROM truths"),
        without_frame=timed - matched,
        ambiguous=ambiguous,
        superseded=_count(connection, "SELECT count(*) FROM truths WHERE labels > 1"),
        contradictory=_count(connection, "SELECT count(*) FROM truths WHERE contradictory"),
    )


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
