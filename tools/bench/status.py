"""How long `adawise status` takes to look at an output: 1,000 cameras with an hour of segments, and very many names.

The names are empty files with the right names before the first real segment: status must list them and read none.
Beside the clock's seconds stand the processor's.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.layout import SegmentName
from adawise.store.object_store import ObjectStore
from adawise.store.store import LocalStore, Store, open_store
from adawise.watch.status.fleet import FleetQuestion, fleet_status
from adawise.watch.status.root import RootReader
from tests.store.clouds import new_bucket, s3_environment, s3_server
from tests.watch.status.yard import NOW_S, OWNER, Yard
from tools.bench.paired import is_interrupted, text, until_interrupted
from tools.bench.recovery import environment

CAMERAS, PARTITIONS, EVERY_S, HOUR_S, REPEATS = 1_000, 4, 10, 3_600.0, 5
MANY_NAMES = 300_000  # segments of a partition: five weeks at the default flush
IN_OBJECT_STORE = 5_000
QUESTION = FleetQuestion("yard", OWNER.topic, OWNER.group, HOUR_S, wants_broker=False)
BEGIN = 1_000  # offsets between two of them
_WAVE = 8  # segments that are read at once behind the head, the last of them before the window


def main() -> None:
    """Print seconds of the first look and of the next ones."""
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    for check in (an_hour, many_names, on_s3):
        with until_interrupted():
            if not is_interrupted():
                check()
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def an_hour() -> None:
    """Of 1,000 cameras, in a folder."""
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(Path(name))
        began = time.perf_counter()
        hour(store, PARTITIONS, origin=0)
        size = sum(path.stat().st_size for path in Path(name).rglob("*.parquet")) / 2**20
        print(f"made in {time.perf_counter() - began:.0f} s: {size:.0f} MiB", flush=True)
        measure(store, f"{CAMERAS} cameras, {PARTITIONS} partitions, an hour of segments, a folder")


def many_names() -> None:
    """Names without end, in a folder."""
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(Path(name))
        hour(
            store, 1, origin=MANY_NAMES * BEGIN, cameras=10, segments=_WAVE
        )  # first: it would take a name for its head
        names(Path(name), MANY_NAMES)
        measure(store, f"{MANY_NAMES} names before a minute of segments, a folder")


def on_s3() -> None:
    """Thousands of names, on a stand-in for S3."""
    with environment(s3_environment(s3_server())):
        remote = open_store(f"s3://{new_bucket()}/yard")
        hour(remote, 1, origin=IN_OBJECT_STORE * BEGIN, cameras=10, segments=_WAVE)
        for number in range(IN_OBJECT_STORE):
            remote.put(f"{layout.folder(layout.PREDICTIONS, _tp())}{SegmentName(number * BEGIN)}", b"")
        measure(remote, f"{IN_OBJECT_STORE} names before a minute of segments, S3 (moto, one process)")


def measure(store: Store, what: str) -> None:
    """The first look of a command, and what `--watch` does afterwards."""
    first: list[float] = []
    next_: list[float] = []
    own: list[float] = []
    facts = ""
    with until_interrupted():
        for _ in range(REPEATS):
            reader, own_before = RootReader(store), time.process_time()
            for seconds in (first, next_):
                began = time.perf_counter()
                root = reader.read(NOW_S - HOUR_S)
                found = fleet_status(QUESTION, root, None, {}, now_s=NOW_S)
                seconds.append(time.perf_counter() - began)
                if seconds is first:
                    own.append(time.process_time() - own_before)
            facts = f"{len(found.cameras)} cameras, {sum(each.rows for each in found.partitions)} rows"
        if isinstance(store, ObjectStore):
            facts += f", {_requests(store)} requests"
    print(
        f"{what}: first look {text(first)} s, of the processor {text(own)}; the next {text(next_, '.3f')} s; {facts}",
        flush=True,
    )


class _Counted:
    """A store, and how often it was asked."""

    def __init__(self, store: Store) -> None:
        self._store, self.requests = store, 0

    def __getattr__(self, name: str) -> Any:
        self.requests += 1
        return getattr(self._store, name)


def _requests(store: Store) -> int:
    """Of a first look."""
    counted = _Counted(store)
    RootReader(cast(Store, counted)).read(NOW_S - HOUR_S)
    return counted.requests


def hour(store: Store, partitions: int, *, origin: int, cameras: int = CAMERAS, segments: int | None = None) -> None:
    """Segments of every partition, the cameras shared among them, each with a batch of 16 a minute."""
    yard, count = Yard(store), segments or round(HOUR_S / EVERY_S)
    for partition in range(partitions):
        yard.begin(partition, origin)
        mine = [f"camera-{number:04d}" for number in range(cameras) if number % partitions == partition]
        rounds = 60 // EVERY_S
        if segments is not None:  # where a look ends: what lies before it is not read
            yard.write(partition, ago_s=HOUR_S + 60.0, batches=[(mine[0], 16, 0.5)])
        for number in range(count):
            batches = [(name, 16, 0.5) for name in mine[number % rounds :: rounds]]
            yard.write(partition, ago_s=(count - number) * EVERY_S, batches=batches)


def names(folder: Path, count: int) -> None:
    """So many empty files with the names of segments."""
    where = folder / layout.folder(layout.PREDICTIONS, _tp())
    where.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        os.close(os.open(where / str(SegmentName(number * BEGIN)), os.O_CREAT | os.O_WRONLY, 0o644))


def _tp() -> TopicPartition:
    return TopicPartition(OWNER.topic, 0)
