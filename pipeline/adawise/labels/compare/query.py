"""The queries behind `compare`: two runs side by side, row by row and batch by batch, in DuckDB.

Each is one full join and one aggregation, so that memory is bounded whatever the size of the runs: what does not fit is
spilled to disk. Nan equals nan, null equals null, and 0 equals -0. Values never become SQL text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adawise.errors import SettingsError
from adawise.output.read.duckdb_rows import union
from adawise.output.read.rows import read_predictions, read_traces
from adawise.sink import schemas

try:
    import duckdb
except ImportError as error:
    raise SettingsError(
        "comparing runs needs the package duckdb; install it with: pip install 'adawise[report]'"
    ) from error

SERVED = (
    *("status", "reason", "label", "confidence", "top_labels", "top_probabilities", "entropy", "alpha"),
    *("zero_shot_label", "zero_shot_confidence", "fine_tuned_label", "fine_tuned_confidence"),
    *("scene_label", "scene_confidence"),
)
GIVEN = ("stream_id", "frame_id", "captured_at", "kafka_timestamp", "detail", "true_label", "meta")
BATCH = (  # in the order in which they are reported
    *("last_offset", "images", "rejected", *(column.name for column in schemas.PIXELS)),
    *("reset", "previous_alpha", "alpha", "trials", "objective", "trigger"),
    *("posterior_mean", "posterior_sd", "audit_regret", "forward_equivalents"),
    *("mean_confidence", "compared", "agreed", "class_counts", "off_list", "scene_gate", "scene_smoothing"),
)
_ROW_KEY = ("topic", "partition", "offset", "index")
_BATCH_KEY = ("topic", "partition", "stream_id", "first_offset")
_BESIDE = ("batch_number", "kafka_timestamp", "captured_at")  # shown, not compared


@dataclass(frozen=True, slots=True)
class CoveredOffsets:
    """The part of a partition that a run has read: offsets [first, until) without `gaps`, and those open at its end.

    `plan` is that of a shard, which has read all of them for its cameras; "" for other roots.
    """

    topic: str
    partition: int
    first: int
    until: int
    open: frozenset[int]
    gaps: tuple[range, ...] = ()
    plan: str = ""


Row = Mapping[str, Any]


def load(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    roots: Sequence[str],
    streams: Sequence[str] | None,
    covered: Iterable[CoveredOffsets],
) -> None:
    """Create the views and tables of the run at `roots`: `NAME_rows`, `NAME_batches`, `NAME_covered`, `NAME_open`.

    Raises:
        SettingsError: no worker wrote there.
        StoreUnavailable: a store does not answer.
    """
    of_rows = [*_ROW_KEY, *SERVED, *GIVEN, "batch_number"]
    of_batches = [*_BATCH_KEY, *BATCH, *_BESIDE, "model_fingerprint"]
    rows = [read_predictions(root, streams, columns=of_rows).relation(connection) for root in roots]
    batches = [read_traces(root, streams, columns=of_batches).relation(connection) for root in roots]
    union(connection, f"{name}_rows", rows).create_view(f"{name}_rows")
    union(connection, f"{name}_batches", batches).create_view(f"{name}_batches")
    connection.execute(f"CREATE TABLE {name}_covered (t VARCHAR, p INT, begins BIGINT, ends BIGINT)")
    connection.execute(f"CREATE TABLE {name}_open (t VARCHAR, p INT, waits BIGINT)")
    for part in covered:
        connection.execute(
            f"INSERT INTO {name}_covered VALUES (?, ?, ?, ?)", [part.topic, part.partition, part.first, part.until]
        )
        if part.open:
            connection.execute(
                f"INSERT INTO {name}_open SELECT ?, ?, unnest(?)", [part.topic, part.partition, sorted(part.open)]
            )
        for gap in part.gaps:
            bounds = [part.topic, part.partition, gap.start, gap.stop]
            connection.execute(f"INSERT INTO {name}_open SELECT ?, ?, unnest(range(?, ?))", bounds)


def models(connection: duckdb.DuckDBPyConnection, name: str) -> set[str]:
    """Return the fingerprints of all models that served batches of the run `name`."""
    query = f"SELECT DISTINCT model_fingerprint FROM {name}_batches WHERE model_fingerprint IS NOT NULL"
    return {fingerprint for (fingerprint,) in connection.execute(query).fetchall()}


def rows(connection: duckdb.DuckDBPyConnection) -> tuple[list[Row], list[Row]]:
    """Return the facts of each stream of a partition, and the number of images of each pair of labels.

    It takes one pass over both runs.
    """
    differ = {name: f"(a.{name} IS DISTINCT FROM b.{name})" for name in (*SERVED, *GIVEN)}
    both = "a_there AND b_there"
    query = f"""
    WITH joined AS (
      SELECT topic, partition, "offset", "index", coalesce(a.stream_id, b.stream_id) AS stream_id,
        coalesce(a.there, false) AS a_there, coalesce(b.there, false) AS b_there,
        {_covered("a", "offset")} AS a_covers, {_covered("b", "offset")} AS b_covers,
        a.label AS a_label, b.label AS b_label,
        abs(a.alpha - b.alpha) AS gap, a.batch_number IS DISTINCT FROM b.batch_number AS renumbered,
        {" OR ".join(differ[name] for name in SERVED)} AS served,
        {" OR ".join(differ[name] for name in GIVEN)} AS given,
        {{'offset': "offset", 'index': "index", 'a_label': a.label, 'b_label': b.label, 'a_confidence': a.confidence,
          'b_confidence': b.confidence, 'a_alpha': a.alpha, 'b_alpha': b.alpha,
          'a_there': coalesce(a.there, false), 'b_there': coalesce(b.there, false),
          'differs': list_filter([{", ".join(f"CASE WHEN {flag} THEN '{name}' END" for name, flag in differ.items())}],
                                 lambda x: x IS NOT NULL)}} AS seen
      FROM (SELECT *, true AS there FROM a_rows) a
      FULL JOIN (SELECT *, true AS there FROM b_rows) b USING ({", ".join(f'"{name}"' for name in _ROW_KEY)})
      {_cover_joins("offset")}
    ), judged AS (
      SELECT *, (a_there AND NOT b_there AND b_covers) AS a_alone, (b_there AND NOT a_there AND a_covers) AS b_alone,
        ({both} AND (served OR given)) AS differs
      FROM joined
    )
    SELECT topic, partition, stream_id, a_label, b_label, grouping(stream_id) AS by_label,
      count(*) FILTER ({both}) AS images, count(*) FILTER (a_alone) AS a_alone, count(*) FILTER (b_alone) AS b_alone,
      count(*) FILTER (a_there AND NOT b_there AND NOT b_covers) AS a_beyond,
      count(*) FILTER (b_there AND NOT a_there AND NOT a_covers) AS b_beyond,
      count(*) FILTER (differs) AS differing, count(*) FILTER ({both} AND given) AS given_differing,
      count(*) FILTER ({both} AND renumbered) AS renumbered,
      count(*) FILTER ({both} AND a_label IS DISTINCT FROM b_label) AS relabelled,
      count(gap) AS adapted, count(*) FILTER (gap > 0) AS gap_images,
      sum(gap) AS gap_sum, max(gap) AS gap_max,
      arg_min(seen, ("offset", "index")) FILTER (differs OR a_alone OR b_alone) AS first_row
    FROM judged
    GROUP BY GROUPING SETS ((topic, partition, stream_id), (a_label, b_label))
    """
    found = _fetch(connection, query)
    return [row for row in found if not row["by_label"]], [row for row in found if row["by_label"] and row["images"]]


def batches(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """Return facts about the batches of each stream; batches that begin with the same message are matched."""
    differ = {name: _differs(name) for name in BATCH}
    both = "(a_there AND b_there)"
    query = f"""
    WITH joined AS (
      SELECT topic, partition, stream_id, first_offset,
        coalesce(a.there, false) AS a_there, coalesce(b.there, false) AS b_there,
        ({_covered("a", "first_offset")} OR {_covered("a", "b.last_offset", "tail")}) AS a_covers,
        ({_covered("b", "first_offset")} OR {_covered("b", "a.last_offset", "tail")}) AS b_covers,
        {" OR ".join(differ.values())} AS differs_, a.alpha <> b.alpha AS gap,
        a.images * a.forward_equivalents AS a_passed, b.images * b.forward_equivalents AS b_passed,
        a.images AS a_images, b.images AS b_images,
        {_struct("a")} AS a_batch, {_struct("b")} AS b_batch,
        list_filter([{", ".join(f"CASE WHEN {flag} THEN '{name}' END" for name, flag in differ.items())}],
                    lambda x: x IS NOT NULL) AS what
      FROM (SELECT *, true AS there FROM a_batches) a
      FULL JOIN (SELECT *, true AS there FROM b_batches) b USING ({", ".join(_BATCH_KEY)})
      {_cover_joins("first_offset")}
      {_tail_joins()}
    ), judged AS (
      SELECT *, {both} AND differs_ OR (a_there AND NOT b_there AND b_covers) OR (b_there AND NOT a_there AND a_covers)
        AS differs
      FROM joined
    )
    SELECT topic, partition, stream_id, count(*) FILTER ({both}) AS batches, count(*) FILTER (differs) AS differing,
      count(*) FILTER ({both} AND gap) AS gap,
      sum(a_passed) FILTER ({both}) AS a_passed, sum(b_passed) FILTER ({both}) AS b_passed,
      sum(a_images) FILTER ({both}) AS a_images, sum(b_images) FILTER ({both}) AS b_images,
      max(first_offset) FILTER (a_there) AS a_last, max(first_offset) FILTER (b_there) AS b_last,
      min(first_offset) FILTER (differs) AS first_offset,
      arg_min({{'a': a_batch, 'b': b_batch, 'what': what, 'a_there': a_there, 'b_there': b_there}}, first_offset)
        FILTER (differs) AS first_batch
    FROM judged GROUP BY topic, partition, stream_id
    """
    return _fetch(connection, query)


def _differs(name: str) -> str:
    """Return SQL for a difference; a column that one run wrote and an earlier version did not is no difference."""
    if name in schemas.LATER:
        return f"coalesce(a.{name} <> b.{name}, false)"
    return f"(a.{name} IS DISTINCT FROM b.{name})"


def _struct(side: str) -> str:
    return "{" + ", ".join(f"'{name}': {side}.{name}" for name in (*BATCH, *_BESIDE)) + "}"


def _covered(side: str, offset: str, which: str = "open") -> str:
    """Return SQL that is true if the run `side` has processed what lies at an offset."""
    at = f'"{offset}"' if "." not in offset else offset
    within = f"{at} >= {side}_covered.begins AND {at} < {side}_covered.ends"
    return f"coalesce({within} AND {side}_{which}.waits IS NULL, false)"


def _cover_joins(offset: str) -> str:
    return "\n".join(
        f"LEFT JOIN {side}_covered ON {side}_covered.t = topic AND {side}_covered.p = partition\n"
        f"LEFT JOIN {side}_open ON {side}_open.t = topic AND {side}_open.p = partition "
        f'AND {side}_open.waits = "{offset}"'
        for side in "ab"
    )


def _tail_joins() -> str:
    return "\n".join(
        f"LEFT JOIN {side}_open {side}_tail ON {side}_tail.t = topic AND {side}_tail.p = partition "
        f"AND {side}_tail.waits = {other}.last_offset"
        for side, other in ("ab", "ba")
    )


def _fetch(connection: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
