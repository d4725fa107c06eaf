"""What cameras notice of workers that die, and of workers that are restarted one after the other.

Killed: one partition, images all the time, segments of a second, another worker stands by. The broker notices the death
by the session time-out alone; what is printed is what our side adds: the rebalance, the recovery of the chain, a batch,
a commit. Rolling: six partitions, three workers, each told to stop and replaced, by SIGTERM. The stall of a partition
is the longest time between two of its predictions, the wait of an image that from the broker's timestamp to its own.
`BENCH_ROUNDS` is how many kills (3).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
from kafka import KafkaAdminClient

from adawise.output.read.rows import read_predictions
from adawise.sink.schemas import PREDICTED_AT
from tests.worker.cameras import Live
from tests.worker.process import WorkerProcess, wait_until
from tools.bench.paired import is_interrupted, text, until_interrupted
from tools.bench.stage import GROUP, BenchStage, stage

ROUNDS, SESSION_S, PARTITIONS = int(os.environ.get("BENCH_ROUNDS", "3")), 6.0, 6
SETTINGS: dict[str, dict[str, Any]] = {"kafka": {"session_timeout_ms": round(1000 * SESSION_S)}}


def main() -> None:
    """Print each round's seconds beyond the session time-out, to the recovery and to the first committed row."""
    beyond: list[float] = []
    print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    with until_interrupted(), stage(1) as here, Live(here.topic, cameras=4, partitions=1, every_s=0.02):
        for number in range(ROUNDS):
            recovered_s, committed_s = one_round(here, number)
            beyond.append(committed_s - SESSION_S)
            print(
                f"  recovered {recovered_s - SESSION_S:5.2f} s, next committed row {beyond[-1]:5.2f} s beyond it",
                flush=True,
            )
    print(f"kill -9 to the next committed row: {text(beyond)} s beyond {SESSION_S:g} s", flush=True)
    for static in (False, True):
        with until_interrupted():
            if not is_interrupted():
                rolling(static=static)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def rolling(*, static: bool) -> None:
    """Print the longest stall of a partition and the longest wait of an image, in peace and while all are replaced."""
    with stage(PARTITIONS) as here, ExitStack() as stack:
        stack.enter_context(Live(here.topic, cameras=2 * PARTITIONS, partitions=PARTITIONS, every_s=0.01))

        def start(number: int, life: int) -> WorkerProcess:
            kafka = SETTINGS["kafka"] | ({"static_member": f"worker-{number}"} if static else {})
            return stack.enter_context(WorkerProcess(here.plan(f"rolling-{number}-{life}", kafka=kafka)))

        workers = [start(number, 0) for number in range(3)]
        everyone: list[WorkerProcess] = [*workers]
        wait_until(lambda: all(worker.committed for worker in workers), *workers)
        wait_for_members(here, 3)
        listen(everyone, 3 * SESSION_S)
        began_us = time.time_ns() // 1_000
        stops = []
        for number, worker in enumerate(workers):
            signalled_s = time.monotonic()
            worker.send(signal.SIGTERM)
            code = worker.exit_code()
            assert code == 0, worker.diary
            stops.append(time.monotonic() - signalled_s)
            everyone.remove(worker)
            everyone.append(start(number, 1))
            wait_until(lambda: bool(everyone[-1].committed), *everyone)
            listen(everyone, SESSION_S)
        ended_us = time.time_ns() // 1_000
        for worker in everyone:
            worker.send(signal.SIGTERM)
        for worker in everyone:
            assert worker.exit_code() == 0, worker.diary
        rows = read_predictions(here.root, columns=["partition", "kafka_timestamp", PREDICTED_AT]).table()
    kind = "static members" if static else "dynamic members"
    peace_us = began_us - round(2e6 * SESSION_S), began_us
    calm, rolled = (worst(rows, within) for within in (peace_us, (began_us, ended_us)))
    print(
        f"three in turn, {kind}: longest stall of a partition {rolled[0]:.2f} s (in peace {calm[0]:.2f}), "
        f"longest wait of an image {rolled[1]:.2f} s (in peace {calm[1]:.2f} s); ended within {max(stops):.2f} s"
    )


def listen(workers: Sequence[WorkerProcess], seconds: float) -> None:
    """Let them work for so long."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for worker in workers:
            worker.listen(0.05)


def worst(rows: pa.Table, within_us: tuple[int, int]) -> tuple[float, float]:
    """A partition's longest stall and an image's longest wait, in seconds, of predictions of that time."""
    predicted = rows[PREDICTED_AT].cast("int64").to_numpy()
    taken = (predicted >= within_us[0]) & (predicted < within_us[1])
    partition, predicted = rows["partition"].to_numpy()[taken], predicted[taken]
    sent = rows["kafka_timestamp"].cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy()[taken]
    stalls = [np.diff(np.sort(predicted[partition == number])).max() for number in np.unique(partition)]
    return float(max(stalls)) / 1e6, float((predicted - sent).max()) / 1e6


def wait_for_members(here: BenchStage, count: int) -> None:
    """Until so many workers are in the group."""
    servers = here.topic.broker.bootstrap_servers.split(",")
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        while len(admin.describe_groups([GROUP])[GROUP]["members"]) < count:
            time.sleep(0.1)


def one_round(here: BenchStage, number: int) -> tuple[float, float]:
    """Seconds from the kill to the other's recovery and to its first segment."""
    with WorkerProcess(here.plan(f"first-{number}", **SETTINGS)) as first:
        first.wait_for("committed")
        with WorkerProcess(here.plan(f"second-{number}", **SETTINGS)) as second:
            wait_for_members(here, 2)
            for _ in range(3):
                first.wait_for("committed")
            first.send(signal.SIGKILL)
            killed = time.monotonic()
            second.wait_for("recovered")
            recovered = time.monotonic()
            second.wait_for("committed")
            committed = time.monotonic()
            second.stop()
    return recovered - killed, committed - killed
