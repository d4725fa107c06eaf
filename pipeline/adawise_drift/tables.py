"""A root -> a database with the tables that the questions are asked of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import reduce
from types import MappingProxyType

import duckdb
from duckdb import CaseExpression, ColumnExpression, ConstantExpression, DuckDBPyRelation

from adawise.errors import SettingsError
from adawise.output.read.rows import read_predictions, read_traces
from adawise.output.read.several import check_apart
from adawise.records import RowId
from adawise_drift import queries
from adawise_drift.changes.times import DAY_US
from adawise_drift.events.result import Example, GalleryFrame

_NAMED = 5  # cameras that are near one that is not known


class Tables:
    """The connection with `traces`, `predictions` and `levels`, and the questions about single changes.

    Args:
        roots: what `sink.root` named, of one or several, whose rows are taken together.
        streams, since, until: as of `read_traces`; without `until` up to now, for only clocks that are wrong are later.
        levels: the card's mean objective by alpha; empty without a card.

    `notes` say what is to be known of several roots.

    Raises SettingsError as `read_traces` does, and if two roots have the same rows.
    """

    def __init__(
        self,
        roots: Sequence[str],
        streams: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        levels: Mapping[float, float] = MappingProxyType({}),
    ) -> None:
        self._roots, self._streams = roots, streams
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        clashing = sorted(check_apart(roots))
        now = "true" if until is not None else f"time <= make_timestamptz({_now_us()})"
        self.notes = tuple(_clash(topic, roots) for topic in clashing)
        for name, read in (("traces", read_traces), ("predictions", read_predictions)):
            parts = [read(each, streams, since, until).relation(self.connection) for each in roots]
            numbered = [_numbered(part, number, clashing) for number, part in enumerate(parts, start=1)]
            rows = reduce(DuckDBPyRelation.union, numbered)
            rows.filter(f"time IS NOT NULL AND {now}").create_view(name)
            rows.filter("time IS NULL").create_view(f"untimed_{name}")
            rows.filter(f"NOT ({now})").create_view(f"ahead_{name}")
        self._others = [] if streams is None else [read_traces(each, None, since, until) for each in roots]
        self._now = now
        self.connection.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
        if levels:
            self.connection.executemany("INSERT INTO levels VALUES (?, ?)", [list(item) for item in levels.items()])

    def expect_streams(self) -> None:
        """Raise SettingsError if a camera that is wanted has no batch at any time, with the nearest that have."""
        if self._streams is None:
            return
        seen = _streams(self.connection)
        missing = [name for name in self._streams if name not in seen]
        if not missing:
            return
        with closing(Tables(self._roots)) as whole:
            names = sorted(_streams(whole.connection))
        unknown = [name for name in missing if name not in names]
        if unknown:
            nearest = get_close_matches(unknown[0], names, _NAMED, 0.4) or names[:_NAMED]
            raise SettingsError(
                f"no camera {unknown[0]!r} under {' and '.join(self._roots)}; of {len(names)} cameras the nearest are "
                f"{', '.join(map(repr, nearest))}"
            )

    def untimed(self) -> int:
        """Count the batches that are left out because nothing says when they were."""
        ((count,),) = self.connection.execute("SELECT count(*) FROM untimed_traces").fetchall()
        return int(count)

    def ahead(self) -> dict[str, int]:
        """Count the batches that are left out because they are of a time to come, by camera."""
        sql = "SELECT stream_id, count(*) FROM ahead_traces GROUP BY stream_id ORDER BY stream_id"
        return {str(name): int(count) for name, count in self.connection.execute(sql).fetchall()}

    def end_us(self) -> int | None:
        """Return when the last batch of any camera was, also of those that are not looked at.

        None where all cameras are looked at, or there is no batch.
        """
        ends = [
            end
            for read in self._others
            for (end,) in read.relation(self.connection).filter(self._now).aggregate("epoch_us(max(time))").fetchall()
            if end is not None
        ]
        return max(map(int, ends), default=None)

    def nearest(
        self, stream_id: str, before_us: int, after_us: int, since_us: int, until_us: int, *, count: int
    ) -> list[tuple[RowId, Example]]:
        """Return the last `count` rows before a time and the first after another, within the last two.

        Their pictures are not there yet.
        """
        given = {"stream": stream_id, "from": before_us, "to": after_us, "since": since_us, "until": until_us}
        rows = self.connection.execute(queries.NEAREST, given | {"count": count}).fetchall()
        found = []
        for side, time_us, *place, label, confidence, alpha in sorted(rows, key=lambda row: row[1]):
            row = RowId(*place)
            found.append((row, Example(side, time_us, str(row), label, confidence, alpha, "")))
        return found

    def gallery(
        self, bounds: Callable[[str, int], tuple[int, int]], *, days: int, count: int
    ) -> tuple[str, list[tuple[RowId, GalleryFrame]]]:
        """Return rows of the last days of a recording, up to `count` of a kind, and the query that chose them.

        Of each camera the one that is least confident and that on which the endpoints disagree with most confidence, of
        each class the most confident. Their pictures are not there yet.

        Args:
            bounds: (topic, partition) -> [first, next) of the offsets that the recording has.
        """
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE recorded (topic VARCHAR, partition INTEGER, first BIGINT, until BIGINT)"
        )
        for topic, partition in self.connection.execute("SELECT DISTINCT topic, partition FROM traces").fetchall():
            known = [topic, partition, *bounds(topic, partition)]
            self.connection.execute("INSERT INTO recorded VALUES (?, ?, ?, ?)", known)
        ((first_us, last_us),) = self.connection.execute(queries.RECORDED).fetchall()
        if first_us is None:
            return "", []
        sql = queries.gallery(max(first_us, last_us - days * DAY_US), last_us, count)
        found = []
        rows = self.connection.execute(sql).fetchall()
        for kind, stream_id, time_us, *place, label, zero_shot, fine_tuned, confidence in rows:
            row = RowId(*place)
            found.append(
                (row, GalleryFrame(kind, stream_id, time_us, str(row), label, zero_shot, fine_tuned, confidence, ""))
            )
        return sql, found

    def close(self) -> None:
        """Free the connection."""
        self.connection.close()


def _streams(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT DISTINCT stream_id FROM traces").fetchall()}


def _now_us() -> int:
    return round(datetime.now(UTC).timestamp() * 1e6)


def _numbered(rows: DuckDBPyRelation, root: int, clashing: Sequence[str]) -> DuckDBPyRelation:
    """Return these rows with the number of their root behind the name of a topic that another root has, too."""
    if not clashing:
        return rows
    topic = ColumnExpression("topic")
    for name in clashing:
        is_this = ColumnExpression("topic") == ConstantExpression(name)
        topic = CaseExpression(is_this, ConstantExpression(f"{name}.{root}")).otherwise(topic)
    return rows.select(*(topic.alias(name) if name == "topic" else ColumnExpression(name) for name in rows.columns))


def _clash(topic: str, roots: Sequence[str]) -> str:
    called = ", ".join(f"{topic}.{number} (of {root})" for number, root in enumerate(roots, start=1))
    return (
        f"topic {topic} of these outputs is several topics, so row ids are ambiguous: they are named {called} "
        "here. Labels by row_id, replays to compare with and recordings cannot be matched; labels by stream_id "
        "and captured_at can"
    )
