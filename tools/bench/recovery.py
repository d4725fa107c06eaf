"""How long a worker needs to take over a partition whose chain has 10,000 segments: a folder, and S3 by a local server.

All but the newest segment are empty objects with the right names: recovery must not read them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from adawise.sink import layout
from adawise.sink.layout import SegmentName
from adawise.store.store import LocalStore, Store, open_store
from tests.store.clouds import new_bucket, s3_environment, s3_server
from tools.bench.commits import FLUSH_ROWS, IDENTITY, TP, draft_from, open_chain

SEGMENTS, REPEATS = 10_000, 5


def main() -> None:
    """Print seconds, median of 5."""
    with tempfile.TemporaryDirectory() as name:
        measure(LocalStore(Path(name)), "a folder")
    with environment(s3_environment(s3_server())):
        measure(open_store(f"s3://{new_bucket()}/chain"), "S3 (moto, one process)")


def measure(store: Store, what: str) -> None:
    """Fill a chain and recover it again and again, each time as a worker that has just started."""
    fill(store)
    seconds = []
    for _ in range(REPEATS):
        chain = open_chain(store)
        started = time.perf_counter()
        head = chain.recover(TP, IDENTITY, 0)
        seconds.append(time.perf_counter() - started)
        assert head.next_offset == SEGMENTS * FLUSH_ROWS
    started = time.perf_counter()
    store.list(layout.folder(layout.PREDICTIONS, TP))
    listing = time.perf_counter() - started
    print(
        f"{what}: {SEGMENTS} segments recovered in {median(seconds):.2f} s "
        f"(from {min(seconds):.2f} to {max(seconds):.2f}; a listing alone {listing:.2f})"
    )


def fill(store: Store) -> None:
    """The newest segment through the chain, the names of all that came before it beside."""
    last = (SEGMENTS - 1) * FLUSH_ROWS
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, last)
    chain.commit(draft_from(last, FLUSH_ROWS, np.random.default_rng(0)))
    keys = [layout.segment_key(TP, SegmentName(number * FLUSH_ROWS)) for number in range(SEGMENTS - 1)]
    if isinstance(store, LocalStore):  # without an fsync for each
        for key in keys:
            (Path(str(store)) / key).touch()
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
