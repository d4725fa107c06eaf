"""Many small segments: queries of DuckDB and Polars before and after compaction; its time, memory, files and bytes."""

from __future__ import annotations

import gc
import os
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import polars as pl
import torch

from adawise.output.compaction.compact import FileLimits, compact
from adawise.ports import SegmentDraft, ServedBy, TopicIdentity
from adawise.records import BatchTrace, Frame, ImageBatch, Predictions, RowId, TopicPartition, TrialRecord
from adawise.sink import layout
from adawise.sink.chain import SegmentChain
from adawise.sink.files import data_files
from adawise.store.store import LocalStore

_PARTITIONS, _SEGMENTS, _ROWS, _BATCH, _CAMERAS, _CLASSES, _STATE_BYTES = 8, 250, 200, 10, 50, 10, 4400
_BEGIN = datetime(2026, 11, 20, tzinfo=UTC)
_EVERY_S = 86_400 / _SEGMENTS  # all of it is one day: 8 files
_REPEATS = 5
_QUERIES = {
    "count of rows": "select count(*) from {predictions}",
    "mean alpha by camera and hour": "select stream_id, date_trunc('hour', kafka_timestamp) as hour, avg(alpha), "
    "count(*) from {traces} group by all order by all",
    "labels of one camera in one hour": "select label, count(*) from {predictions} where stream_id = 'camera-07' and "
    "kafka_timestamp >= '2026-11-20 12:00:00Z' and kafka_timestamp < '2026-11-20 13:00:00Z' group by all order by 2",
}


def main() -> None:
    """Print files, bytes and seconds; queries are the median of 5, each list of files made anew."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        store = LocalStore(root)
        with patch("os.fsync"):  # making the input is not what is measured
            for partition in range(_PARTITIONS):
                _fill(store, TopicPartition("frames", partition))
        print(f"{_PARTITIONS} partitions of {_SEGMENTS} segments of {_ROWS} rows, {_CAMERAS} cameras")
        before = _measure(root, "segments")
        rss_mib, started, busy = _rss_mib(), time.perf_counter(), time.process_time()
        limits = FileLimits(max_rows=262_144, max_bytes=1 << 28, before=(_BEGIN + timedelta(days=2)).date())
        made = [m for p in range(_PARTITIONS) for m in compact(store, TopicPartition("frames", p), limits)]
        took, busy = time.perf_counter() - started, time.process_time() - busy
        rows = sum(m.rows for m in made)
        print(
            f"compact: {len(made)} files of {sum(m.segments for m in made)} segments, {rows} rows, in {took:.2f} s "
            f"({busy:.2f} s of processor time, {rows / busy:.0f} rows/s), peak memory +{_rss_mib() - rss_mib:.0f} MiB"
        )
        after = _measure(root, "compacted")
        for query, seconds in before.items():
            print(f"{query}: {1e3 * seconds:.0f} ms -> {1e3 * after[query]:.0f} ms, {seconds / after[query]:.1f} x")


def _measure(root: Path, what: str) -> dict[str, float]:
    files = {dataset: data_files(str(root), dataset) for dataset in (layout.PREDICTIONS, layout.TRACES)}
    for dataset, names in files.items():
        mib = sum(os.path.getsize(file) for file in names) / 2**20
        print(f"{what}: {dataset} in {len(names)} files, {mib:.1f} MiB")
    took = {}
    for query, sql in _QUERIES.items():
        with duckdb.connect() as connection:
            took[f"DuckDB, {query}"] = _seconds(partial(_by_duckdb, connection, root, sql))
    took["Polars, labels of one camera in one hour"] = _seconds(lambda: _by_polars(root))
    return took


def _by_duckdb(connection: duckdb.DuckDBPyConnection, root: Path, sql: str) -> list[Any]:
    """A query; making the list of files is part of its time."""
    tables = {name: f"read_parquet({data_files(str(root), name)})" for name in (layout.PREDICTIONS, layout.TRACES)}
    return connection.execute(sql.format(**tables)).fetchall()


def _by_polars(root: Path) -> pl.DataFrame:
    hour = datetime(2026, 11, 20, 12, tzinfo=UTC)
    rows = pl.scan_parquet(data_files(str(root))).filter(
        pl.col("stream_id") == "camera-07",
        pl.col("kafka_timestamp") >= hour,
        pl.col("kafka_timestamp") < hour + timedelta(hours=1),
    )
    return rows.group_by("label").len().collect()


def _seconds(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(_REPEATS):
        gc.collect()
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def _rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _fill(store: LocalStore, tp: TopicPartition) -> None:
    """A day of segments; every camera has its partition, and batches follow each other."""
    rng = np.random.default_rng(tp.partition)
    cameras = [f"camera-{number:02d}" for number in range(tp.partition, _CAMERAS, _PARTITIONS)]
    states = {camera: rng.bytes(_STATE_BYTES) for camera in cameras}
    now = _BEGIN
    chain = SegmentChain(
        store=store,
        by=ServedBy(tuple([f"class {number}" for number in range(_CLASSES)]), "model", "config"),
        writer="bench",
        now=lambda: now,
    )
    chain.check()
    chain.recover(tp, TopicIdentity("cluster", "topic", _PARTITIONS), 0)
    for number in range(_SEGMENTS):
        now = _BEGIN + timedelta(seconds=_EVERY_S * number)
        first = number * _ROWS
        batches = [
            _batch(tp, first + start, cameras[(first + start) // _BATCH % len(cameras)], now, rng)
            for start in range(0, _ROWS, _BATCH)
        ]
        chain.commit(SegmentDraft(tp, first + _ROWS, (), states, batches, ()))


def _batch(
    tp: TopicPartition, offset: int, camera: str, now: datetime, rng: np.random.Generator
) -> tuple[ImageBatch, Predictions, BatchTrace]:
    at_ms = int(now.timestamp() * 1e3)
    frames = tuple(
        Frame(RowId(*tp, offset + i, 0), at_ms + i, camera, torch.empty(0), frame_id=str(offset + i))
        for i in range(_BATCH)
    )
    predictions = Predictions(
        top_index=rng.integers(0, _CLASSES, (_BATCH, 5), dtype=np.int32),
        top_probability=rng.random((_BATCH, 5), dtype=np.float32),
        entropy=rng.random(_BATCH, dtype=np.float32),
        endpoint_index=np.full((2, _BATCH), -1, dtype=np.int32),
        endpoint_confidence=np.full((2, _BATCH), np.nan, dtype=np.float32),
    )
    alpha = float(rng.integers(0, 21)) / 20
    trace = BatchTrace(
        topic=tp.topic,
        partition=tp.partition,
        first_offset=offset,
        last_offset=offset + _BATCH - 1,
        stream_id=camera,
        batch_number=offset // _BATCH,
        captured_at_us=None,
        kafka_timestamp_ms=at_ms,
        images=_BATCH,
        alpha=alpha,
        previous_alpha=alpha,
        trials=(TrialRecord(alpha, _BATCH, rng.random()),),
        objective=rng.random(),
        posterior_mean=rng.random(),
        posterior_sd=0.1,
        trigger="none",
        reset=None,
        forward_equivalents=1.0,
    )
    return ImageBatch(camera, frames, torch.empty(0)), predictions, trace
