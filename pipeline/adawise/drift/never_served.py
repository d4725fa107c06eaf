"""Offsets that have no rows on purpose: what the footers of segments and compacted files say of them.

The traces know nothing of an image that was never served, so that a report without them would call the rest complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from duckdb import DuckDBPyConnection

from adawise.records import Gap, TopicPartition
from adawise.sink.read.rows import Rows
from adawise.sink.verify.findings import joined

_FOOTERS = """
SELECT decode(value) AS facts FROM parquet_kv_metadata(?)
WHERE decode(key) IN ('adawise.segment', 'adawise.compacted') AND decode(value) NOT LIKE '%"gaps": []%'
"""
_BESIDE = 10_000  # offsets around a gap in which rows are looked for that say when it was
_WHEN = """
SELECT epoch_us(max(kafka_timestamp) FILTER ("offset" < $first)),
    epoch_us(min(kafka_timestamp) FILTER ("offset" >= $until))
FROM served
WHERE topic = $topic AND partition = $partition
    AND ("offset" BETWEEN $first - $beside AND $first - 1 OR "offset" BETWEEN $until AND $until + $beside)
"""


@dataclass(frozen=True, slots=True)
class NeverServed:
    """So many offsets of a partition, between the rows beside them (microseconds; None where there are none)."""

    tp: TopicPartition
    gap: Gap
    after_us: int | None
    before_us: int | None


def never_served(
    connection: DuckDBPyConnection, rows: Rows, since_us: int | None = None, until_us: int | None = None
) -> Iterator[NeverServed]:
    """What lies, as far as anybody knows, in [since_us, until_us), by partition.

    `rows` are the predictions of all streams and times, with topic, partition, offset and kafka_timestamp. Every footer
    is read, and of the rows those beside a gap.
    """
    rows.relation(connection).create_view("served")  # which also opens the connection to the store
    found: list[tuple[TopicPartition, Gap]] = []
    for (text,) in connection.execute(_FOOTERS, [list(rows.files)]).fetchall() if rows.files else ():
        facts = json.loads(text)
        if facts.get("states_of") is None:  # else they are what the other root has
            tp = TopicPartition(facts["topic"], facts["partition"])
            found += [(tp, Gap.of(stored)) for stored in facts["gaps"]]
    for tp, gaps in groupby(sorted(found), key=lambda each: each[0]):
        for gap in joined(gap for _, gap in gaps):
            asked = {"topic": tp.topic, "partition": tp.partition, "first": gap.first, "until": gap.until}
            after_us, before_us = connection.execute(_WHEN, asked | {"beside": _BESIDE}).fetchone() or (None, None)
            is_before = since_us is not None and before_us is not None and before_us < since_us
            is_after = until_us is not None and after_us is not None and after_us >= until_us
            if not (is_before or is_after):
                yield NeverServed(tp, gap, after_us, before_us)
