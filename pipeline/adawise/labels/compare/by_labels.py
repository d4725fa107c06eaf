"""The accuracy of each of two runs on the same labelled images, and how much of the difference is chance.

Labels are joined and intervals computed as in `drift`: the first run is what was served, the second the alternative.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np

from adawise.labels.arrays import concatenated
from adawise.labels.benefit import queries
from adawise.labels.benefit.bootstrap import Kinds, intervals
from adawise.labels.benefit.estimate import ENOUGH
from adawise.labels.benefit.helped import Interval
from adawise.labels.compare.result import Accuracies, ByLabels
from adawise.labels.join import label

Place = tuple[str, int, str | None]


def by_labels(
    connection: duckdb.DuckDBPyConnection, roots: Sequence[str], *, file: str | None, within_us: int
) -> tuple[ByLabels, dict[Place, Accuracies]]:
    """Compare the accuracies on images that have a label and that both runs served, and those of each stream alone.

    Args:
        connection: with `a_rows` and `b_rows`; it gets the views of `label` and `answers`.
        roots: the two outputs, which may contain labels.
        file: a file of labels; if given, the only source of labels.
        within_us: as in `label`.

    Raises:
        SettingsError, ChainError, StoreUnavailable: as `label`.
    """
    connection.execute("CREATE VIEW predictions AS SELECT * FROM a_rows")
    connection.execute("CREATE VIEW run_0 AS SELECT * FROM b_rows WHERE label IS NOT NULL")
    found = connection.execute("SELECT DISTINCT label FROM run_0").fetchall()
    labels = label(connection, roots, file=file, within_us=within_us, classes=[name for (name,) in found])
    kinds: dict[Place, Kinds] = {}
    if labels.labelled:
        connection.execute(queries.create_answers([queries.of_run(0)], 1))
        kinds = _by_place(connection.execute(queries.KINDS).fetchall())
    whole = _accuracies(concatenated(list(kinds.values()))) if kinds else None
    by_stream: dict[str, list[Kinds]] = {}
    for (_, _, stream_id), each in kinds.items():
        by_stream.setdefault(stream_id or "", []).append(each)
    streams = {name: concatenated(parts) for name, parts in sorted(by_stream.items())}
    return ByLabels(
        source=labels.source,
        whole=whole,
        streams={name: _accuracies(each) for name, each in streams.items() if each.total >= ENOUGH},
        notes=labels.notes,
    ), {place: _accuracies(each) for place, each in kinds.items()}


def _by_place(rows: Sequence[tuple[int, str | None, str, int, int, int, int, int]]) -> dict[Place, Kinds]:
    counts: dict[Place, list[tuple[int, int, int, int]]] = {}
    for _, stream_id, topic, partition, *kind in rows:
        images, a, b, times = kind
        counts.setdefault((topic, partition, stream_id), []).append((images, a, b, times))
    return {place: Kinds(*np.array(each, np.int64).T) for place, each in counts.items()}


def _accuracies(kinds: Kinds) -> Accuracies:
    b, less = intervals(kinds, seed=0)
    a, _ = intervals(Kinds(kinds.images, kinds.served, kinds.served, kinds.times), seed=0)
    return Accuracies(
        images=kinds.total,
        batches=kinds.batches,
        right=(int(kinds.times @ kinds.served), int(kinds.times @ kinds.own)),
        accuracy=(a, b),
        difference=Interval(0.0 - less.value, 0.0 - less.high, 0.0 - less.low),  # avoids -0.0
    )
