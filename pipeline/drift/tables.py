"""A root -> a database with the tables that the questions are asked of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import duckdb

from pipeline.drift import queries
from pipeline.drift.read import read_predictions, read_traces

_Mix = Mapping[str, tuple[int, int]]


class Tables:
    """The connection with `traces`, `predictions` and `levels`, and the questions about single changes.

    Args:
        root: what `sink.root` named.
        streams, since, until: as of `read_traces`.
        levels: the card's mean objective by alpha; empty without a card.

    Raises SettingsError as `read_traces` does.
    """

    def __init__(
        self,
        root: str,
        *,
        streams: Iterable[str] | None,
        since: datetime | None,
        until: datetime | None,
        levels: Mapping[float, float],
    ) -> None:
        wanted = None if streams is None else list(streams)
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        for name, read in (("traces", read_traces), ("predictions", read_predictions)):
            read(root, wanted, since, until).relation(self.connection).create_view(name)
        self.connection.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
        if levels:
            self.connection.executemany("INSERT INTO levels VALUES (?, ?)", [list(item) for item in levels.items()])

    def mix(self, stream_id: str, at_us: int, since_us: int, until_us: int) -> _Mix:
        """Rows by class before and after a moment; see `causes.Mixes`."""
        asked = {"stream": stream_id, "at": at_us, "since": since_us, "until": until_us}
        rows: dict[str, list[int]] = {}
        for before, label, count in self.connection.execute(queries.AROUND, asked).fetchall():
            rows.setdefault(label, [0, 0])[0 if before else 1] += count
        return {label: (counts[0], counts[1]) for label, counts in rows.items()}

    def close(self) -> None:
        """Free the connection."""
        self.connection.close()
