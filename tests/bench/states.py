"""What the states of many streams cost: bytes in a segment's footer, and a commit and a recovery with that many."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from pipeline.adapt.objective import raw_entropy
from pipeline.adapt.state import Heard, StreamState
from pipeline.adapt.strategies.warm import Exploration, WarmSearch
from pipeline.gather import BatchPolicy
from pipeline.partition import PartitionWork
from pipeline.ports import TopicIdentity
from pipeline.sink.store import LocalStore
from tests.bench.commits import TP, draft_from, open_chain

STREAMS, COMMITS = (1, 100, 10_000), 5
_ALPHAS = tuple(i / 20 for i in range(21))


def main() -> None:
    """Print bytes a stream, and milliseconds of a commit of 256 rows and of a recovery."""
    for streams in STREAMS:
        with tempfile.TemporaryDirectory() as name:
            nbytes, plain, commit_s, recovery_s = measured(Path(name), streams)
        print(
            f"{streams:6d} streams: {nbytes / streams:7.0f} bytes each in the footer ({plain / streams:.0f} before "
            f"compression), commit {1e3 * commit_s:7.1f} ms, recovery {1e3 * recovery_s:7.1f} ms"
        )


def measured(folder: Path, streams: int) -> tuple[int, int, float, float]:
    """Bytes of all states in the footer and before compression; seconds of a commit and of a recovery."""
    rng = np.random.default_rng(0)
    states = {f"camera-{number:05d}": a_state(rng, number) for number in range(streams)}
    store = LocalStore(folder)
    chain, identity, took = open_chain(store), TopicIdentity("cluster", "topic", 1), []
    head = chain.recover(TP, identity, 0)
    for _ in range(COMMITS):
        draft = draft_from(head.next_offset, 256, rng)
        draft.states = states
        started = time.perf_counter()
        head = chain.commit(draft).head
        took.append(time.perf_counter() - started)
    started = time.perf_counter()
    head = open_chain(store).recover(TP, identity, 0)
    initial = StreamState("", 10)
    PartitionWork(TP, head, BatchPolicy(16, 2.0), lambda: initial, forget_after_s=604_800.0)
    recovered = time.perf_counter() - started
    assert head.segment is not None
    footer = pq.read_metadata(folder / head.segment).metadata
    return len(footer[b"adawise.states"]), sum(map(len, states.values())), median(took), recovered


def a_state(rng: np.random.Generator, number: int) -> bytes:
    """What `warm` leaves of a stream: its prior, shaken, so that no two streams compress as one."""
    search = WarmSearch(_ALPHAS, raw_entropy, "", 10, Exploration())
    belief = search.surrogate.prior()
    shaken = replace(
        belief,
        mean=belief.mean + rng.standard_normal(len(belief.mean)),
        covariance=belief.covariance * rng.uniform(0.9, 1.1, belief.covariance.shape),
    )
    heard = Heard(1_700_000_000_000 + number, number, number)
    return replace(search.initial(), belief=shaken, batches=number, heard=heard).to_bytes()
