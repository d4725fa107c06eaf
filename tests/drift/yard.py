"""A day of five cameras with a script: what a worker would have written of it, as tables and as a root.

gate stands still, and has another shortlist from noon on, which lacks trucks; ramp then has none any more. In the fog
from noon on, yard and ramp go from .8 to .2 together: the objective rises, the classes change. tunnel is silent from
06:00 to 09:00 and comes back at .7 in place of .3, every fourth of its images damaged. At 18:00 dock is served by
another pair of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from adawise.sink import claims, schemas
from adawise.store.store import LocalStore

BEGIN_US = 1_780_272_000_000_000  # 2026-06-01, a midnight
HOUR_US = 3_600_000_000
EVERY_US = 120_000_000
BATCHES, IMAGES = 720, 8
PLACES = ("dock", "gate", "ramp", "tunnel", "yard")
OLD, NEW = "0123456789abcdef", "fedcba9876543210"
NOON_US, EVENING_US = BEGIN_US + 12 * HOUR_US, BEGIN_US + 18 * HOUR_US
SILENT_US = (BEGIN_US + 6 * HOUR_US, BEGIN_US + 9 * HOUR_US)

_Numbers = npt.NDArray[Any]
_SHORTLISTS = ("0a" * 6, "0b" * 6)  # gate's, before noon and after it


def times(camera: str) -> _Numbers:
    """Of its batches."""
    found = BEGIN_US + EVERY_US * np.arange(BATCHES)
    return found[(found < SILENT_US[0]) | (found >= SILENT_US[1])] if camera == "tunnel" else found


def level(camera: str, at: _Numbers) -> _Numbers:
    """Alpha by the script."""
    bounds = {"yard": NOON_US, "ramp": NOON_US, "tunnel": SILENT_US[1], "dock": EVENING_US, "gate": BEGIN_US}
    heights = {"yard": (0.8, 0.2), "ramp": (0.8, 0.2), "tunnel": (0.3, 0.7), "dock": (0.3, 0.7), "gate": (0.8, 0.8)}
    before, after = heights[camera]
    return np.where(at < bounds[camera], before, after)


def is_fog(camera: str, at: _Numbers) -> _Numbers:
    """Whether the camera sees fog."""
    return (at >= NOON_US) & (camera in {"yard", "ramp"})


def traces(seed: int = 0) -> pa.Table:
    """A row a batch."""
    parts = []
    for place, camera in enumerate(PLACES):
        rng, at = np.random.default_rng([seed, place]), times(camera)
        n = len(at)
        alpha = np.clip(np.round((level(camera, at) + rng.choice([-0.05, 0.0, 0.0, 0.05], n)) * 20) / 20, 0.0, 1.0)
        trials = [[{"alpha": a, "images": IMAGES, "objective": 1.0}] for a in alpha]
        trials[n // 2].append({"alpha": 1.0, "images": IMAGES, "objective": 2.0})
        columns: dict[str, Any] = {
            "partition": np.full(n, place),
            "first_offset": IMAGES * np.arange(n),
            "last_offset": IMAGES * np.arange(n) + IMAGES - 1,
            "stream_id": [camera] * n,
            "batch_number": np.arange(n),
            "captured_at": at,
            "kafka_timestamp": at // 1000,
            "images": np.where((camera == "tunnel") & (at >= SILENT_US[1]), IMAGES - IMAGES // 4, IMAGES),
            "alpha": alpha,
            "trials": trials,
            "objective": np.where(is_fog(camera, at), 1.6, 0.8) + rng.normal(0.0, 0.1, n),
            "posterior_mean": np.zeros(n),
            "posterior_sd": np.full(n, 0.2),
            "trigger": ["none"] * n,
            "reset": [None] * (n - 1) + ["jump"],
            "forward_equivalents": np.full(n, 1.25),
            "audit_regret": np.full(n, np.nan),
            "milliseconds": [{"forward": 1.0}] * n,
            "model_fingerprint": np.where((camera == "dock") & (at >= EVENING_US), NEW, OLD),
            "shortlist": [_shortlist(camera, at_us) for at_us in at],
            "off_list": [_off_list(camera, batch, at_us) for batch, at_us in enumerate(at)],
        }
        parts.append(_table(schemas.TRACES, columns, n))
    return pa.concat_tables(parts)


def _shortlist(camera: str, at_us: int) -> str | None:
    """The digest of a camera's shortlist: gate has two, and ramp has none after noon."""
    if camera == "gate":
        return _SHORTLISTS[int(at_us >= NOON_US)]
    return _SHORTLISTS[0] if camera == "ramp" and at_us < NOON_US else None


def _off_list(camera: str, batch: int, at_us: int) -> list[tuple[str, int]] | None:
    """What the shortlist lacks in a batch: all of it in the morning, then trucks often and a bus at times."""
    if _shortlist(camera, at_us) is None:
        return None
    if at_us < NOON_US:
        return [("dog", IMAGES)]
    return [("bus", 1)] if batch % 50 == 0 else [("truck", 2)] if batch % 4 == 0 else []


def predictions(seed: int = 0) -> pa.Table:
    """A row an image; every fourth of tunnel's is rejected after its silence."""
    parts = []
    for place, camera in enumerate(PLACES):
        rng, at = np.random.default_rng([seed, 100 + place]), np.repeat(times(camera), IMAGES)
        n = len(at)
        rejected = np.arange(n) % 4 == 0 if camera == "tunnel" else np.zeros(n, bool)
        rejected &= at >= SILENT_US[1]
        label = np.where(is_fog(camera, at) & (rng.random(n) < 0.6), "empty street", rng.choice(["car", "bus"], n))
        zero = np.where(rng.random(n) < 0.9, label, "dog")
        columns: dict[str, Any] = {
            "row_id": [f"frames/{place}/{i}/0" for i in range(n)],
            "partition": np.full(n, place),
            "offset": np.arange(n),
            "index": np.zeros(n, np.int32),
            "stream_id": [camera] * n,
            "captured_at": at,
            "kafka_timestamp": at // 1000,
            "status": np.where(rejected, "rejected", "accepted"),
            "reason": _unless(~rejected, ["undecodable_image"] * n),
            "label": _unless(rejected, label),
            "confidence": _unless(rejected, np.where(is_fog(camera, at), 0.6, 0.9) + rng.normal(0.0, 0.02, n)),
            "zero_shot_label": _unless(rejected, zero),
            "fine_tuned_label": _unless(rejected, label),
            "alpha": _unless(rejected, level(camera, at)),
            "batch_number": _unless(rejected, np.arange(n) // IMAGES),
            "meta": [{}] * n,
            "model_fingerprint": np.where((camera == "dock") & (at >= EVENING_US), NEW, OLD),
        }
        parts.append(_table(schemas.PREDICTIONS, columns, n))
    return pa.concat_tables(parts)


def _unless(gone: _Numbers, values: Any) -> list[Any]:
    return [None if out else value for out, value in zip(gone.tolist(), np.asarray(values).tolist(), strict=True)]


def _table(schema: pa.Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    """With the topic and, where nothing is said of a column, nulls or empty words."""
    fields = {"topic": ["frames"] * rows, **columns}
    arrays = []
    for field in schema:
        values = fields.get(field.name, [None] * rows if field.nullable else [""] * rows)
        kind = pa.int64() if pa.types.is_timestamp(field.type) and field.name in fields else field.type
        arrays.append(pa.array(values, kind).cast(field.type))
    return pa.table(arrays, schema=schema)


def database(seed: int = 0) -> duckdb.DuckDBPyConnection:
    """The day as the tables that the analysis asks."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name, rows in (("traces", traces(seed)), ("predictions", predictions(seed))):
        connection.register("made", rows)
        connection.execute(f"CREATE TABLE {name} AS SELECT *, captured_at AS time FROM made")
        connection.unregister("made")
    connection.execute("CREATE TABLE levels (alpha DOUBLE, reference DOUBLE)")
    return connection


def measure(connection: duckdb.DuckDBPyConnection, since_us: int = BEGIN_US) -> None:
    """Have the traces from a time on say what came of their batches, as their rows do."""
    outcome = {
        "mean_confidence": "avg(confidence)::FLOAT",
        "compared": "count(zero_shot_label)",  # where one endpoint was evaluated, the other was
        "agreed": "count(*) FILTER (zero_shot_label = fine_tuned_label)",
        "class_counts": "histogram(label)",
        "rejected": "count(*) FILTER (status = 'rejected')",
    }
    is_known = f"time >= make_timestamptz({since_us})"
    known = ", ".join(f"CASE WHEN {is_known} THEN o.{name} ELSE traces.{name} END AS {name}" for name in outcome)
    made = ", ".join(f"{sql} AS {name}" for name, sql in outcome.items())
    connection.execute(
        f"CREATE TABLE measured_traces AS SELECT traces.* REPLACE ({known}) FROM traces JOIN "
        f"(SELECT stream_id, time, {made} FROM predictions GROUP BY ALL) o USING (stream_id, time)"
    )
    connection.execute("DELETE FROM traces; INSERT INTO traces FROM measured_traces; DROP TABLE measured_traces")


def write(root: Path, seed: int = 0, called: Mapping[str, str] | None = None) -> Path:
    """The day as a root, one segment for each camera; it has rows and names, and no footers of a chain.

    A camera may be `called` otherwise.
    """
    claims.sink_id(LocalStore(root), created_at="2026-06-01T00:00:00+00:00")
    for dataset, rows in (("traces", traces(seed)), ("predictions", predictions(seed))):
        for place, camera in enumerate(PLACES):
            folder = root / dataset / "topic-frames" / f"partition-{place:05d}"
            folder.mkdir(parents=True)
            of_it = rows.filter(pa.compute.equal(rows["partition"], place))
            names = pa.array([(called or {}).get(camera, camera)] * len(of_it))
            named = of_it.set_column(of_it.schema.get_field_index("stream_id"), of_it.schema.field("stream_id"), names)
            pq.write_table(named, folder / f"{0:020d}.parquet")
    return root
