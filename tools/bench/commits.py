"""A segment's commit against plain `pyarrow.parquet.write_table` of the same rows, on the local disk, in turn.

Both end when the file is durable, and use the same compression, dictionaries and page checksums. Beside it a commit
writes states, traces (twice: footer and table) and its checksums, and creates instead of replacing. Two ratios:

    from results   both begin with the results as the worker holds them, and build the table of rows by the same code
    from a table   that code's time is left out of both: write_table against all else that a commit does
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from adawise.ports import SegmentDraft, ServedBy, TopicIdentity
from adawise.records import BatchTrace, Frame, ImageBatch, Predictions, RowId, TopicPartition, TrialRecord
from adawise.sink import columns, schemas
from adawise.sink.chain import SegmentChain
from adawise.store.store import LocalStore, Store

BATCH, CLASSES, STREAMS = 32, 10, 20
FLUSH_ROWS, LARGE_BYTES = 4096, 64 * 2**20
LARGE_ROWS_PER_SMALL = 1.43  # a large segment compresses better: 54 bytes a row, a small one 77
TP, IDENTITY = TopicPartition("frames", 0), TopicIdentity("cluster", "topic", 1)
NAMES = [f"class {number}" for number in range(CLASSES)]


def main() -> None:
    """Print both sizes."""
    with tempfile.TemporaryDirectory() as name:
        size = compare(Path(name) / "small", FLUSH_ROWS, repeats=25)
        rows = round(LARGE_BYTES / (size / FLUSH_ROWS) / BATCH) * BATCH
        compare(Path(name) / "large", round(rows * LARGE_ROWS_PER_SMALL / BATCH) * BATCH, repeats=5)


@dataclass(frozen=True)
class Took:
    """Seconds of the clock and of the processor."""

    wall_s: float
    cpu_s: float

    def __sub__(self, part: Took) -> Took:
        return Took(self.wall_s - part.wall_s, self.cpu_s - part.cpu_s)


def took(step: Callable[[], object]) -> Took:
    """Do it; how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


class TimedTable:
    """`columns.prediction_table`, which a commit calls too; `took` is how long the last call was."""

    def __init__(self) -> None:
        self._build = columns.prediction_table
        self.took = Took(0.0, 0.0)

    def __call__(self, draft: SegmentDraft, *, classes: pa.StringArray, model_fingerprint: str) -> pa.Table:
        wall, cpu = time.perf_counter(), time.process_time()
        table = self._build(draft, classes=classes, model_fingerprint=model_fingerprint)
        self.took = Took(time.perf_counter() - wall, time.process_time() - cpu)
        return table


Pair = tuple[Took, Took]  # a commit, and write_table with its fsync


def ratio(pairs: Sequence[Pair]) -> str:
    """The median of how many times as fast as write_table a commit was: by the clock, and by processor time."""
    wall, cpu = (median(getattr(b, kind) / getattr(a, kind) for a, b in pairs) for kind in ("wall_s", "cpu_s"))
    return f"{wall:.2f} (by processor time {cpu:.2f})"


def compare(root: Path, rows: int, *, repeats: int) -> float:
    """Print medians, and the median of the ratios of pairs, every second pair in the other order; bytes a segment."""
    draft = draft_from(0, rows, np.random.default_rng(0))
    gc.collect()
    gc.freeze()  # a collection in the middle would walk the whole draft, for either
    sizes: list[int] = []
    whole: list[Pair] = []
    written: list[Pair] = []
    with patch.object(columns, "prediction_table", TimedTable()) as table:
        for turn in range(repeats + 1):
            chain = open_chain(LocalStore(root / f"chain-{turn}"))
            chain.recover(TP, IDENTITY, 0)

            def commit(chain: SegmentChain = chain) -> None:
                sizes.append(chain.commit(draft).size_bytes)

            def write() -> None:
                rows = table(draft, classes=pa.array(NAMES), model_fingerprint="model")
                write_plainly(rows, root / "plain.parquet")

            steps = (commit, write) if turn % 2 else (write, commit)
            times = [(took(step), table.took) for step in steps]
            ours, theirs = times if turn % 2 else times[::-1]
            whole.append((ours[0], theirs[0]))
            written.append((ours[0] - ours[1], theirs[0] - theirs[1]))
    gc.unfreeze()
    whole, written = whole[1:], written[1:]  # the first of each is a warm-up
    seconds = [median(pair[side].wall_s for pair in pairs) for pairs in (whole, written) for side in (0, 1)]
    commit_s, plain_s, rest_s, write_s = seconds
    mib = sizes[0] / 2**20
    print(
        f"{rows} rows, {mib:.1f} MiB, {rows // BATCH} batches, medians of {repeats} pairs\n"
        f"  from results: commit {1e3 * commit_s:.0f} ms = {1 / commit_s:.1f} commits/s, {mib / commit_s:.1f} MiB/s; "
        f"write_table and fsync {1e3 * plain_s:.0f} ms = {mib / plain_s:.1f} MiB/s; ratio {ratio(whole)}\n"
        f"  from a table: commit {1e3 * rest_s:.0f} ms = {mib / rest_s:.1f} MiB/s; "
        f"write_table and fsync {1e3 * write_s:.0f} ms = {mib / write_s:.1f} MiB/s; ratio {ratio(written)}"
    )
    return sizes[0]


def write_plainly(table: pa.Table, path: Path) -> None:
    """What a writer without a chain does: the same Parquet settings, durable, but neither atomic nor create-only."""
    pq.write_table(
        table, path, compression="zstd", use_dictionary=list(schemas.PREDICTIONS_DICTIONARY), write_page_checksum=True
    )
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def open_chain(store: Store) -> SegmentChain:
    """A chain whose root is checked."""
    chain = SegmentChain(store=store, by=ServedBy(tuple(NAMES), "model", "config"), writer="bench")
    chain.check()
    return chain


def draft_from(offset: int, rows: int, rng: np.random.Generator) -> SegmentDraft:
    """Batches of 32 rows from 20 cameras, frame ids that do not compress, two columns of the producer's."""
    accepted = [batch_at(offset + start, rng) for start in range(0, rows, BATCH)]
    states = {f"camera-{number}": rng.bytes(3000) for number in range(STREAMS)}
    return SegmentDraft(TP, offset + rows, (), states, accepted, ())


def batch_at(offset: int, rng: np.random.Generator) -> tuple[ImageBatch, Predictions, BatchTrace]:
    """One batch of results, as the worker keeps them."""
    stream = f"camera-{offset // BATCH % STREAMS}"
    meta = {"meta_site": "north", "meta_lane": "2"}
    frames = tuple(
        Frame(
            RowId("frames", 0, offset + i, 0),
            1_700_000_000_000 + offset + i,
            stream,
            torch.empty(0),
            frame_id=str(uuid.UUID(bytes=rng.bytes(16))),
            captured_at_us=1_700_000_000_000_000 + 1000 * (offset + i),
            meta=meta,
        )
        for i in range(BATCH)
    )
    predictions = Predictions(
        top_index=rng.integers(0, CLASSES, (BATCH, 5), dtype=np.int32),
        top_probability=rng.random((BATCH, 5), dtype=np.float32),
        entropy=rng.random(BATCH, dtype=np.float32),
        endpoint_index=np.full((2, BATCH), -1, dtype=np.int32),
        endpoint_confidence=np.full((2, BATCH), np.nan, dtype=np.float32),
    )
    trace = BatchTrace(
        topic="frames",
        partition=0,
        first_offset=offset,
        last_offset=offset + BATCH - 1,
        stream_id=stream,
        batch_number=offset // BATCH,
        captured_at_us=None,
        kafka_timestamp_ms=1_700_000_000_000,
        images=BATCH,
        alpha=0.5,
        previous_alpha=0.5,
        trials=(TrialRecord(0.5, BATCH, 0.3),),
        objective=float(rng.random()),
        posterior_mean=float(rng.random()),
        posterior_sd=0.1,
        trigger="none",
        reset=None,
        forward_equivalents=1.0,
        milliseconds={"forward": float(rng.random()), "search": float(rng.random())},
    )
    return ImageBatch(stream, frames, torch.empty(0)), predictions, trace
