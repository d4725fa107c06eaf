"""What the states of many streams cost: bytes in a segment's footer, and a commit and a recovery with that many."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from adawise.adapt.last_seen import LastSeen
from adawise.adapt.objective import raw_entropy
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import Exploration, WarmSearch
from adawise.ports import TopicIdentity
from adawise.sink.segment import StateBlocks
from adawise.store.store import LocalStore
from adawise.worker.batching import BatchPolicy
from adawise.worker.partition import PartitionPolicy, PartitionWork
from tests.frames import turn_of
from tools.bench.commits import TP, draft_from, open_chain

STREAMS, COMMITS, CHANGED = (1, 100, 10_000), 10, 16
_ALPHAS = tuple(i / 20 for i in range(21))


def main() -> None:
    """Print bytes a stream, and milliseconds of a commit of 256 rows of 16 streams and of a recovery.

    Every other commit encodes all states anew, as the first one does, so that the two are measured side by side.
    """
    for streams in STREAMS:
        with tempfile.TemporaryDirectory() as name:
            nbytes, plain, commit_s, anew_s, recovery_s = measured(Path(name), streams)
        print(
            f"{streams:6d} streams: {nbytes / streams:7.0f} bytes each in the footer ({plain / streams:.0f} before "
            f"compression), commit {1e3 * commit_s:7.1f} ms (all states encoded anew {1e3 * anew_s:.1f}), "
            f"recovery {1e3 * recovery_s:7.1f} ms"
        )


def measured(folder: Path, streams: int) -> tuple[int, int, float, float, float]:
    """Bytes of all states in the footer and before compression; seconds of two kinds of commits and of a recovery."""
    rng = np.random.default_rng(0)
    states = {f"camera-{number:05d}": a_state(rng, number) for number in range(streams)}
    store = LocalStore(folder)
    chain, identity = open_chain(store), TopicIdentity("cluster", "topic", 1)
    took: tuple[list[float], list[float]] = ([], [])
    head = chain.recover(TP, identity, 0)
    for turn in range(1 + 2 * COMMITS):
        draft = draft_from(head.next_offset, 256, rng)
        for number in rng.choice(streams, min(streams, CHANGED), replace=False):
            states[f"camera-{number:05d}"] = a_state(rng, int(number))
        draft = replace(draft, states=dict(states))
        if turn % 2:
            chain._blocks[TP] = StateBlocks()
        started = time.perf_counter()
        head = chain.commit(draft).head
        if turn:
            took[turn % 2].append(time.perf_counter() - started)
    started = time.perf_counter()
    head = open_chain(store).recover(TP, identity, 0)
    policy = PartitionPolicy(BatchPolicy(16, 2.0), forget_after_s=604_800.0, max_streams=streams)
    PartitionWork(TP, head, policy, turn_of(lambda: StreamState("", 10)))
    recovered = time.perf_counter() - started
    assert head.segment is not None
    footer = pq.read_metadata(folder / head.segment).metadata
    return len(footer[b"adawise.states"]), sum(map(len, states.values())), median(took[0]), median(took[1]), recovered


def a_state(rng: np.random.Generator, number: int) -> bytes:
    """What `warm` leaves of a stream: its prior, shaken, so that no two streams compress as one."""
    search = WarmSearch(_ALPHAS, raw_entropy, "", 10, Exploration())
    belief = search.surrogate.prior()
    shaken = replace(
        belief,
        mean=belief.mean + rng.standard_normal(len(belief.mean)),
        covariance=belief.covariance * rng.uniform(0.9, 1.1, belief.covariance.shape),
    )
    last_seen = LastSeen(1_700_000_000_000 + number, number, number)
    return replace(search.initial(), belief=shaken, batches=number, last_seen=last_seen).to_bytes()
