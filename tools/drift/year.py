"""`python -m tools.drift.year ROOT`: the traces that a year of 200 cameras leaves behind once it is compacted.

10^8 batches, one a minute and camera: one file per partition and day, as `adawise compact` encodes it, and the last
segment of each partition, which is never compacted. What happens to the cameras is written down (`--truth FILE`, see
`tools/drift/year_script.py`). There are no images, so `predictions/` holds empty heads alone: readers of traces and
`adawise files` see a root as any other, `adawise verify` and `adawise compact` miss the predictions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from adawise.output.compaction import sql_views
from adawise.output.compaction.merged import Facts, Replaced, encode
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import claims, columns, layout, schemas, segment
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.store.store import LocalStore
from tools.drift import year_script
from tools.drift.year_rows import FINGERPRINT, IMAGES, PartitionDay, Year
from tools.drift.year_script import YearCamera

TOPIC = "frames"


def make(root: Path, year: Year, *, processes: int = 1) -> list[YearCamera]:
    """Make it in a new folder; what happens to its cameras."""
    cameras = year_script.script(year.cameras, year.days, year.seed, year.begin)
    store = LocalStore(root)
    with patch("os.fsync"):  # nobody pulls the plug
        claims.sink_id(store, created_at=year.begin.isoformat())
        claims.topic(store, TOPIC, _identity(year))
        each = partial(_partition, root, year, cameras)
        if processes == 1:
            for partition in range(year.partitions):
                each(partition)
        else:
            with get_context("spawn").Pool(processes) as pool:
                pool.map(each, range(year.partitions), chunksize=1)
        sql_views.write(store, str(root))
    return cameras


def _identity(year: Year) -> TopicIdentity:
    return TopicIdentity("made-up-cluster", "made-up-topic", year.partitions)


def _partition(root: Path, year: Year, cameras: Sequence[YearCamera], partition: int) -> None:
    """All days of a partition, and its head."""
    with patch("os.fsync"):
        store, tp = LocalStore(root), TopicPartition(TOPIC, partition)
        sink = claims.sink_id(store, created_at="")
        claims.origin(
            store, tp, claims.ChainOrigin(0, _identity(year).cluster_id, _identity(year).topic_id, year.partitions)
        )
        mine = cameras[partition :: year.partitions]
        paths = [year_script.path(c, year.days, year.batches_per_day, year.seed, year.begin) for c in mine]
        rng = np.random.default_rng([year.seed, 1_000_000 + partition])
        previous, offset = None, 0
        for number in range(year.days):
            day = PartitionDay(tp, year, number, offset, rng)
            table, segments = day.table(mine, paths)
            if table.num_rows:
                previous = _write(store, sink, day, table, segments, previous)
                offset += IMAGES * table.num_rows
        _head(store, sink, year, tp, offset, previous)


def _write(
    store: LocalStore, sink: str, day: PartitionDay, table: pa.Table, segments: Sequence[Replaced], previous: str | None
) -> str:
    """The compacted file of a day; the key of its last segment."""
    identity, until = _identity(day.year), day.offset + IMAGES * table.num_rows
    last = layout.segment_key(day.tp, SegmentName(int(segments[-1].name)))
    facts = Facts(
        sink=sink,
        cluster_id=identity.cluster_id,
        topic_id=identity.topic_id,
        topic=TOPIC,
        partition=day.tp.partition,
        partitions=identity.partitions,
        previous=previous,
        last=last,
        first=day.offset,
        next=until,
        before=(),
        pending=(),
        gaps=(),
        segments=tuple(segments),
        rows=table.num_rows,
        digest="",  # nobody proves what was made up
        created_at=(day.begin + timedelta(days=1, hours=1)).isoformat(),
    )
    name = CompactedName(SegmentName(day.offset), SegmentName(until), day.begin.date().isoformat())
    store.create(layout.compacted_key(layout.TRACES, day.tp, name), encode(layout.TRACES, [table], facts))
    return last


def _head(store: LocalStore, sink: str, year: Year, tp: TopicPartition, offset: int, previous: str | None) -> None:
    """A segment without rows: the offset that it moves forward by is still pending."""
    identity = _identity(year)
    footer = SegmentFooter(
        sink=sink,
        cluster_id=identity.cluster_id,
        topic_id=identity.topic_id,
        topic=TOPIC,
        partition=tp.partition,
        partitions=identity.partitions,
        first=offset,
        sequence=0,
        next=offset + 1,
        previous=previous,
        attempt="head",
        writer="year",
        created_at=(year.begin + timedelta(days=year.days)).isoformat(),
        model_fingerprint=FINGERPRINT,
        config_fingerprint="made-up-settings",
        pending=(offset,),
    )
    key = layout.segment_key(tp, SegmentName(offset))
    store.create(key, segment.encode(schemas.PREDICTIONS.empty_table(), footer))
    columns.write_traces(store, footer, key)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make it, and say how much it is."""
    default = Year()
    parser = argparse.ArgumentParser(prog="python -m tools.drift.year", description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    for name in ("cameras", "days", "batches_per_day", "partitions", "segments_per_day", "seed"):
        value = getattr(default, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default: {value}")
    parser.add_argument("--truth", type=Path, help="write what happens to the cameras here, as JSON")
    parser.add_argument("--processes", type=int, default=1)
    given = vars(parser.parse_args(arguments))
    root, truth, processes = given.pop("root"), given.pop("truth"), given.pop("processes")
    if root.exists():
        parser.error(f"{root} exists; name a new folder")
    started = time.perf_counter()
    year = Year(**given)
    cameras = make(root, year, processes=processes)
    if truth:
        facts = {**given, "begin": year.begin.isoformat(), "images": IMAGES}
        truth.write_text(json.dumps(year_script.document(cameras, facts), indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in root.rglob("*.parquet"))
    print(f"{year.cameras} cameras, {year.days} days, {size / 2**20:.0f} MiB in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
