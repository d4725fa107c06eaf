"""From an image sent to its durable row, at the default policies of batches and flushing: the tiny pair, real Kafka.

An image waits for its batch (16 images, or 2 s after the first), then for the model and the segment (4096 rows, or 10 s
after the first row). The row's time is Kafka's, made by the producer; the segment's is that of its link in the folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.worker.cameras import Live
from tests.worker.process import WorkerProcess
from tools.bench.stage import stage

CAMERAS, PARTITIONS, EVERY_S, SECONDS = 8, 2, 0.02, 60.0
BATCH, SINK = {"images": 16, "max_age_s": 2.0}, {"flush_rows": 4096, "flush_age_s": 10.0}

Seconds = npt.NDArray[np.float64]


def main() -> None:
    """Print percentiles of the whole and of its two parts."""
    with stage(PARTITIONS) as here:
        with WorkerProcess(here.plan("worker", batch=BATCH, sink=SINK)) as worker:
            worker.wait_for("recovered")
            with Live(here.topic, cameras=CAMERAS, partitions=PARTITIONS, every_s=EVERY_S):
                worker.listen(SECONDS)
            written = segments(here.root)  # without those that the stop will write before their time
            worker.stop()
        whole, gathering = measured(written)
        print(f"{len(whole)} images of {CAMERAS} cameras, {1 / EVERY_S:g} images/s; seconds:")
        for name, values in (
            ("sent to durable", whole),
            ("waiting for its batch", gathering),
            ("model and segment", whole - gathering),
        ):
            p50, p95, p99 = np.percentile(values, [50, 95, 99])
            print(f"  {name:22s} p50 {p50:5.2f}  p95 {p95:5.2f}  p99 {p99:5.2f}")


def segments(root: Path) -> list[Path]:
    """Of the predictions, so far."""
    return sorted(root.glob("predictions/**/*.parquet"))


def measured(paths: list[Path]) -> tuple[Seconds, Seconds]:
    """Of each accepted image: seconds until its segment was linked, and until the last image of its batch was sent."""
    whole, gathering = [np.empty(0)], [np.empty(0)]
    for path in paths:
        rows = pq.ParquetFile(path).read(["stream_id", "batch_number", "kafka_timestamp", "status"])
        rows = rows.filter(pc.equal(rows["status"], "accepted"))
        sent_s = rows["kafka_timestamp"].cast(pa.int64()).to_numpy() / 1e3
        batches = pc.binary_join_element_wise(rows["stream_id"], rows["batch_number"].cast(pa.string()), "/")
        _, which = np.unique(batches.to_numpy(zero_copy_only=False), return_inverse=True)
        last_s = np.full(which.max(initial=-1) + 1, -np.inf)
        np.maximum.at(last_s, which, sent_s)
        whole.append(path.stat().st_ctime - sent_s)
        gathering.append(last_s[which] - sent_s)
    return np.concatenate(whole), np.concatenate(gathering)
