"""From kill -9 of a worker to the next committed row, beyond the session time-out: another worker stands by.

One partition, images all the time, segments of a second. The broker notices the death by the session time-out alone;
what is printed is what our side adds: the rebalance, the recovery of the chain, a batch, a commit.
"""

from __future__ import annotations

import signal
import time
from statistics import median

from kafka import KafkaAdminClient

from tests.worker.cameras import Live
from tests.worker.process import WorkerProcess
from tools.bench.stage import GROUP, BenchStage, stage

ROUNDS, SESSION_S = 5, 6.0
SETTINGS = {"kafka": {"session_timeout_ms": round(1000 * SESSION_S)}}


def main() -> None:
    """Print each round's seconds beyond the session time-out, to the recovery and to the first committed row."""
    beyond = []
    with stage(1) as here, Live(here.topic, cameras=4, partitions=1, every_s=0.02):
        for number in range(ROUNDS):
            recovered_s, committed_s = one_round(here, number)
            beyond.append(committed_s - SESSION_S)
            print(f"  recovered {recovered_s - SESSION_S:5.2f} s, next committed row {beyond[-1]:5.2f} s beyond it")
    told = f"median {median(beyond):.2f} s, worst {max(beyond):.2f} s beyond {SESSION_S:g} s"
    print(f"kill -9 to the next committed row: {told}")


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
