"""Labelled images of which it is known how often each alpha is right: rows as workers write them, and replays of them.

Hardness is of a batch: on a hard one every alpha is wrong more often, so images of a batch are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from adawise.sink import claims, schemas
from adawise.store.store import LocalStore

BEGIN_US = 1_780_272_000_000_000
EVERY_US = 1_000_000
CLASSES = np.array(["bus", "car", "dog"])

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class World:
    """Images in batches of cameras, their truth, and how hard the batches are."""

    batches: int = 100
    images: int = 8
    cameras: int = 1
    seed: int = 0
    spread: float = 0.0  # of a batch's accuracy around the mean

    @property
    def rows(self) -> int:
        return self.batches * self.images * self.cameras

    def truth(self) -> _Array:
        return np.random.default_rng([self.seed, 0]).integers(0, len(CLASSES), self.rows)

    def answers(self, accuracy: float, number: int) -> _Array:
        """Class indices of an alpha that is right so often; `number` tells alphas apart."""
        rng = np.random.default_rng([self.seed, 1 + number])
        hard = np.random.default_rng([self.seed, 1]).choice([-self.spread, self.spread], self.batches * self.cameras)
        right = rng.random(self.rows) < accuracy + np.repeat(hard, self.images)
        truth = self.truth()
        return np.where(right, truth, (truth + 1) % len(CLASSES))

    def table(self, **columns: Any) -> pa.Table:
        """Accepted rows, with these columns in place of what is said here; `frames/<camera>/<n>/0`, one a second."""
        n, each = self.rows, self.batches * self.images
        camera, place = np.arange(n) // each, np.arange(n) % each
        at = BEGIN_US + EVERY_US * place
        fields: dict[str, Any] = {
            "row_id": [f"frames/{c}/{p}/0" for c, p in zip(camera, place, strict=True)],
            "topic": ["frames"] * n,
            "partition": camera,
            "offset": place,
            "index": np.zeros(n, np.int32),
            "stream_id": [f"camera-{c}" for c in camera],
            "captured_at": at,
            "kafka_timestamp": at // 1000,
            "status": ["accepted"] * n,
            "label": CLASSES[self.truth()],
            "confidence": np.full(n, 0.8),
            "alpha": np.full(n, 0.5),
            "batch_number": place // self.images,
            "meta": [{}] * n,
            "model_fingerprint": ["0123456789abcdef"] * n,
            **columns,
        }
        return _table(schemas.PREDICTIONS, fields, n)


def named(indices: _Array, where: _Array | None = None) -> list[Any]:
    """Class names; None where the answer is not known."""
    names = CLASSES[indices].tolist()
    return names if where is None else [name if there else None for name, there in zip(names, where, strict=True)]


def connected(predictions: pa.Table) -> duckdb.DuckDBPyConnection:
    """With the table `predictions` as `adawise_drift.collect` has it."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("made", predictions)
    connection.execute("CREATE TABLE predictions AS SELECT *, captured_at AS time FROM made")
    connection.unregister("made")
    return connection


def write(root: Path, predictions: pa.Table, traces: pa.Table | None = None) -> Path:
    """A root with these rows, of one segment a partition; it has names, and no footers of a chain."""
    claims.sink_id(LocalStore(root), created_at="2026-06-01T00:00:00+00:00")
    for dataset, rows in (("predictions", predictions), ("traces", traces)):
        for place in sorted(set(rows["partition"].to_pylist())) if rows is not None else ():
            folder = root / dataset / "topic-frames" / f"partition-{place:05d}"
            folder.mkdir(parents=True)
            assert rows is not None
            pq.write_table(rows.filter(pa.compute.equal(rows["partition"], place)), folder / f"{0:020d}.parquet")
    return root


def labels_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file as people write it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _table(schema: pa.Schema, expected: Mapping[str, Any], rows: int) -> pa.Table:
    arrays = []
    for field in schema:
        values = expected.get(field.name, [None] * rows if field.nullable else [""] * rows)
        kind = pa.int64() if pa.types.is_timestamp(field.type) and field.name in expected else field.type
        arrays.append(pa.array(values, kind).cast(field.type))
    return pa.table(arrays, schema=schema)
