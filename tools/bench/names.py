"""A flood of names in one partition: 200,000 streams that send one image each, among a camera that was there before.

No model runs: what `warm` leaves of a stream is put in its place. Run with another `limits.streams` it shows what the
bound is for: 200,000 states would be half a gigabyte in each segment.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from adawise.adapt.state import StreamState
from adawise.ports import Head, TopicIdentity
from adawise.records import DecodedMessage, Frame, Message, Predictions, RowId
from adawise.settings import Settings
from adawise.store.store import LocalStore
from adawise.worker.adaptation import Adapted
from adawise.worker.batching import BatchPolicy
from adawise.worker.partition import PartitionPolicy, PartitionWork
from tests.frames import turn_of
from tools.bench.commits import FLUSH_ROWS, TP, batch_at, open_chain
from tools.bench.states import a_state

NAMES, CAMERA_EVERY, OLD = 200_000, 500, 5_000  # one image of the camera for so many names; images before the flood


def main() -> None:
    """Print what a commit and a recovery take at the end of the flood, and what became of the camera."""
    limit = Settings().limits.streams
    with tempfile.TemporaryDirectory() as name:
        flood(Path(name), limit)


def flood(folder: Path, limit: int) -> None:
    """Commit all of it; what is printed is of the last ten commits."""
    rng = np.random.default_rng(0)
    samples = [StreamState.from_bytes(a_state(rng, number)) for number in range(200)]
    _, predictions, trace = batch_at(0, rng)
    one = Predictions(
        predictions.top_index[:1],
        predictions.top_probability[:1],
        predictions.entropy[:1],
        predictions.endpoint_index[:, :1],
        predictions.endpoint_confidence[:, :1],
    )
    chain, commits, sizes, batches = open_chain(LocalStore(folder)), [0.0], [0], 0
    head = chain.recover(TP, TopicIdentity("cluster", "topic", 1), 0)
    work = _work(head, limit)
    began = time.perf_counter()
    for offset, stream in enumerate(_streams()):
        row = RowId(*TP, offset, 0)
        frame = Frame(row, 1_700_000_000_000 + offset, stream, torch.zeros(3, 2, 2, dtype=torch.uint8))
        message = Message(*TP, offset, None, b"")
        work.read(message, frozenset([stream]))
        work.add(DecodedMessage(message, (frame,)), 0.0)
        batch = work.ready.popleft()
        before = work.state(batch)
        state = replace(samples[offset % len(samples)], batches=before.batches + 1)
        found = replace(trace, images=1, first_offset=offset, last_offset=offset, stream_id=stream)
        work.complete(batch, Adapted(one, replace(found, batch_number=before.batches), state), 0.0)
        batches = before.batches + 1 if stream == "camera" else batches
        if work.rows >= FLUSH_ROWS:
            started = time.perf_counter()
            commit = chain.commit(work.draft())
            commits.append(time.perf_counter() - started)
            sizes.append(commit.size_bytes)
            work.committed(commit.head)
    took, started = time.perf_counter() - began, time.perf_counter()
    head = open_chain(LocalStore(folder)).recover(TP, TopicIdentity("cluster", "topic", 1), 0)
    _work(head, limit)
    print(
        f"{NAMES} names in one partition, limits.streams {limit}: {len(head.states)} states at the end, a segment of "
        f"{FLUSH_ROWS} rows {sizes[-1] / 2**20:.1f} MiB\n"
        f"commit {median(commits[-10:]):.2f} s ({max(commits):.2f} at most), recovery "
        f"{time.perf_counter() - started:.2f} s, {took:.0f} s in all, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB at most\n"
        f"the camera's batches in a row: {batches} of {OLD + NAMES // CAMERA_EVERY}"
    )


def _work(head: Head, limit: int) -> PartitionWork:
    policy = PartitionPolicy(BatchPolicy(1, 2.0), forget_after_s=604_800.0, max_streams=limit)
    return PartitionWork(TP, head, policy, turn_of(lambda: StreamState("", 10)))


def _streams() -> list[str]:
    names = (["camera", f"stranger-{n:06d}"] if n % CAMERA_EVERY == 0 else [f"stranger-{n:06d}"] for n in range(NAMES))
    return ["camera"] * OLD + [stream for some in names for stream in some]
