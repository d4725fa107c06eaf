"""What ten neighbours who send the costliest pictures do to a good camera: its time from sent to durable, beside alone.

Each way a worker of its own, flush 1 s. Once the good camera is served, every neighbour sends 40 lossless WebP of one
colour at once, as large as their 16 KB may ask for: about .15 s of decoding each, a minute in all on one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adawise.decode import cost
from tests.worker.cameras import Live, Shot
from tests.worker.process import WorkerProcess
from tools.bench.latency import Seconds, segments
from tools.bench.stage import stage
from tools.fuzz.extremes import FAMILIES

NEIGHBOURS, EACH, BYTES = 10, 40, 16_000
EVERY_S, BEFORE_S, SECONDS, AFTER_S = 0.1, 8.0, 20.0, 5.0
BATCH, SINK = {"images": 4, "max_age_s": 1.0}, {"flush_rows": 4096, "flush_age_s": 1.0}
GOOD = b"camera-0"
SIDE = int((0.98 * cost.allowed_ns(BYTES) / 12.0) ** 0.5)  # px; 12 ns a pixel


def main() -> int:
    """Print the percentiles of each way; 1 if the 95th is more than twice that of the camera alone."""
    print(f"1 image each {EVERY_S:g} s; neighbours send {NEIGHBOURS * EACH} of {SIDE} x {SIDE} px; seconds:")
    alone = p95_of("alone", None)
    worst = max(p95_of("beside ten, same partition", 0), p95_of("beside ten, another partition", 1))
    print(f"p95: {worst / alone:.2f} times that of the camera alone")
    return int(worst > 2.0 * alone)


def p95_of(what: str, partition: int | None) -> float:
    """Of the good camera in partition 0, with neighbours in `partition`."""
    with stage(2) as here, WorkerProcess(here.plan("worker", batch=BATCH, sink=SINK, decode={"threads": 2})) as worker:
        worker.wait_for("recovered")
        with Live(here.topic, cameras=1, partitions=1, every_s=EVERY_S):
            worker.listen(BEFORE_S)
            since_s, before = time.time(), len(here.topic.sent)
            if partition is not None:
                here.topic.produce(costly(partition))
            worker.listen(SECONDS)
        worker.listen(AFTER_S)
        sent = [shot for shot in list(here.topic.sent.values())[before:] if shot.key == GOOD]
        seconds = waits(segments(here.root), since_s)
    missing = max(0, len(sent) - len(seconds))  # they wait still
    p50, p95, most = np.percentile(np.append(seconds, np.full(missing, np.inf)), [50, 95, 100], method="higher")
    print(f"  {what:30s} p50 {p50:5.2f}  p95 {p95:5.2f}  most {most:5.2f}  ({len(sent)} images)")
    return float(p95)


def waits(paths: list[Path], since_s: float) -> Seconds:
    """Seconds until their segment was linked, of the good camera's images that were sent since."""
    found = [np.empty(0)]
    for path in paths:
        rows = pq.ParquetFile(path).read(["stream_id", "kafka_timestamp"])
        rows = rows.filter(pc.equal(rows["stream_id"], GOOD.decode()))
        sent_s = rows["kafka_timestamp"].cast(pa.int64()).to_numpy() / 1e3
        found.append(path.stat().st_ctime - sent_s[sent_s >= since_s])
    return np.concatenate(found)


def costly(partition: int) -> Iterator[Shot]:
    """All that the neighbours send, in turns."""
    picture = FAMILIES["WebP lossless"](SIDE, SIDE)
    value = picture + bytes(BYTES - len(picture))
    for _ in range(EACH):
        for number in range(NEIGHBOURS):
            yield Shot(partition, b"bad-%d" % number, value)
