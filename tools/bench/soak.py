"""A worker's memory under a steady load: `python -m tools.bench soak [--minutes 60]`; the tiny pair, real Kafka."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from tests.worker.cameras import Live, Output
from tests.worker.process import WorkerProcess, wait_until
from tools.bench.stage import stage

CAMERAS, PARTITIONS, EVERY_S = 20, 4, 0.02
SAMPLE_S, FLAT = 5.0, 0.05

Samples = npt.NDArray[np.float64]  # [samples, 2]: minutes, MiB


def main(minutes: float = 60.0) -> None:
    """Print resident memory at intervals, from when on it is flat within 5 %, and its slope from then on."""
    with stage(PARTITIONS) as here:
        samples = list[tuple[float, float]]()
        with WorkerProcess(here.plan("worker")) as worker:
            worker.wait_for("recovered")
            with Live(here.topic, cameras=CAMERAS, partitions=PARTITIONS, every_s=EVERY_S):
                began, found = time.monotonic(), 0.0
                while (elapsed := time.monotonic() - began) < 60.0 * minutes:
                    samples.append((elapsed / 60.0, worker.rss_bytes / 2**20))
                    if elapsed >= found:
                        print(f"  minute {elapsed / 60:5.1f}: {samples[-1][1]:.0f} MiB", flush=True)
                        found += 60.0 * max(1.0, minutes / 12)
                    worker.listen(SAMPLE_S)
            output = Output(here.root)
            wait_until(lambda: output.rows >= here.topic.rows, worker)
            worker.stop()
        faults = output.faults(here.topic)
        lost = len(here.topic.lost)
        print(
            f"{output.rows} images in {minutes:g} minutes ({lost} never got to the broker), {len(faults)} faults",
            *faults[:3],
            sep="\n  ",
        )
    report(np.asarray(samples))


def report(samples: Samples) -> None:
    """From the first minute after which every sample lies within 5 % of the last quarter's median."""
    minutes, mib = samples.T
    settled = np.median(mib[-max(1, len(mib) // 4) :])
    outside = np.flatnonzero(np.abs(mib / settled - 1.0) > FLAT)
    first = int(outside[-1]) + 1 if len(outside) else 0
    if first >= len(mib) - 1:
        print(f"never flat within {FLAT:.0%}: {mib[0]:.0f} MiB at first, {mib[-1]:.0f} MiB at last")
        return
    slope = np.polyfit(minutes[first:], mib[first:], 1)[0] * 60.0
    print(
        f"flat within {FLAT:.0%} from minute {minutes[first]:.1f} on: {mib[first]:.0f} MiB then, {mib[-1]:.0f} MiB at "
        f"last, least {mib[first:].min():.0f}, most {mib[first:].max():.0f}, slope {slope:+.1f} MiB an hour"
    )
