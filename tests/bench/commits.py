"""A segment's commit against plain `pyarrow.parquet.write_table` of the same rows, on the local disk, in turn."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch

from pipeline.ports import SegmentDraft, TopicIdentity
from pipeline.records import BatchTrace, Frame, ImageBatch, Predictions, RowId, TopicPartition, TrialRecord
from pipeline.sink.chain import SegmentChain
from pipeline.sink.read import read_predictions
from pipeline.sink.store import LocalStore

_ROWS, _BATCH, _REPEATS, _CLASSES = 4096, 16, 9, 10
_TP = TopicPartition("frames", 0)


def main() -> None:
    """Print milliseconds of both, median of 9."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(Path(name) / "chain")
        chain = SegmentChain(
            store=store,
            classes=[f"class {number}" for number in range(_CLASSES)],
            model_fingerprint="model",
            config_fingerprint="config",
            writer="bench",
        )
        chain.check()
        head = chain.recover(_TP, TopicIdentity("cluster", "topic", 1), 0)
        commits, plain = [], []
        for _ in range(_REPEATS):
            draft = draft_from(head.next_offset, rng)
            started = time.perf_counter()
            head = chain.commit(draft).head
            commits.append(time.perf_counter() - started)
            table = read_predictions(store).slice(0, _ROWS)
            started = time.perf_counter()
            pq.write_table(table, Path(name) / "plain.parquet", compression="zstd")
            plain.append(time.perf_counter() - started)
    ours, theirs = 1e3 * median(commits), 1e3 * median(plain)
    print(f"{_ROWS} rows: commit {ours:.1f} ms (with fsync, traces and states), write_table {theirs:.1f} ms")


def draft_from(offset: int, rng: np.random.Generator) -> SegmentDraft:
    """256 batches of 16 rows."""
    accepted = [batch_at(offset + start, rng) for start in range(0, _ROWS, _BATCH)]
    states = {f"camera-{number}": bytes(rng.integers(0, 256, 3000, dtype=np.uint8)) for number in range(20)}
    return SegmentDraft(_TP, offset + _ROWS, (), states, accepted, ())


def batch_at(offset: int, rng: np.random.Generator) -> tuple[ImageBatch, Predictions, BatchTrace]:
    stream = f"camera-{offset // _BATCH % 20}"
    frames = tuple(
        Frame(
            RowId("frames", 0, offset + i, 0), 1_700_000_000_000 + offset + i, stream, torch.empty(0), frame_id=str(i)
        )
        for i in range(_BATCH)
    )
    predictions = Predictions(
        top_index=rng.integers(0, _CLASSES, (_BATCH, 5), dtype=np.int32),
        top_probability=rng.random((_BATCH, 5), dtype=np.float32),
        entropy=rng.random(_BATCH, dtype=np.float32),
        endpoint_index=np.full((2, _BATCH), -1, dtype=np.int32),
        endpoint_confidence=np.full((2, _BATCH), np.nan, dtype=np.float32),
    )
    trace = BatchTrace(
        topic="frames",
        partition=0,
        first_offset=offset,
        last_offset=offset + _BATCH - 1,
        stream_id=stream,
        batch_number=offset // _BATCH,
        captured_at_us=None,
        kafka_timestamp_ms=1_700_000_000_000,
        images=_BATCH,
        alpha=0.5,
        previous_alpha=0.5,
        trials=(TrialRecord(0.5, _BATCH, 0.3),),
        objective=0.3,
        posterior_mean=0.0,
        posterior_sd=0.1,
        trigger="none",
        reset=None,
        forward_equivalents=1.0,
    )
    return ImageBatch(stream, frames, torch.empty(0)), predictions, trace
