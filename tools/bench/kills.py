"""ViT-B-32 on the worker benchmark's topic, killed with SIGKILL ten times on the way; every image must be there once.

The topic is recorded too, and replayed by an undisturbed worker: alphas and predictions must be equal, bit by bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from adawise.kafka.embedded import EmbeddedBroker
from adawise.output.read.rows import read_predictions
from adawise.output.verify.root import verify
from adawise.sink.files import segment_keys
from adawise.store.store import open_store
from tools.bench.worker import IMAGES, produce, write_pair

KILLS, SEED, DEADLINE_S = 10, 0, 1800.0
EQUAL = ["row_id", "status", "label", "top_labels", "top_probabilities", "entropy", "alpha", "batch_number"]


def main() -> None:
    """Print what was lost, doubled or different: three zeros."""
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        write_pair(folder)
        produce(broker.bootstrap_servers)
        (folder / "adawise.toml").write_text(
            f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\nsession_timeout_ms = 2000\n'
            '[model]\narchitecture = "ViT-B-32"\ntheta_0 = "theta_0.safetensors"\ntheta_1 = "theta_1.safetensors"\n'
            'classes = "classes.txt"\n[sink]\nroot = "live"\nflush_age_s = 1.0\n[log]\nlevel = "warning"\n'
        )
        adawise(folder, "record", "--output", "recording")
        kills = run_and_kill(folder)
        adawise(folder, "replay", "recording", "-o", "again")
        live, again = (read_predictions(folder / root).table() for root in ("live", "again"))
        faults = [*verify(open_store(str(folder / "live"))), *verify(open_store(str(folder / "again")))]
        distinct = len(set(live.column("row_id").to_pylist()))
        print(f"{kills} kills, {IMAGES} images: {IMAGES - distinct} missing, {live.num_rows - distinct} doubled")
        print(f"faults found by verify: {len(faults)}; replay equal: {comparable(live).equals(comparable(again))}")


def run_and_kill(folder: Path) -> int:
    """Run workers one after the other, kill each at a moment of its own, until all rows are written."""
    rng, kills, deadline = random.Random(SEED), 0, time.monotonic() + DEADLINE_S
    root = str(folder / "live")
    while time.monotonic() < deadline:
        rows = count(root)
        process = subprocess.Popen([sys.executable, "-m", "adawise", "run"], cwd=folder, env=os.environ)
        lives_s = rng.uniform(0.0, 4.0)
        dies_at = float("inf")
        while count(root) < IMAGES and time.monotonic() < min(dies_at, deadline):
            if dies_at == float("inf") and count(root) > rows and kills < KILLS:  # it works: now its time runs
                dies_at = time.monotonic() + lives_s
            time.sleep(0.2)
        finished = count(root) >= IMAGES
        process.send_signal(signal.SIGTERM if finished else signal.SIGKILL)
        process.wait()
        kills += not finished
        if finished:
            return kills
    return kills


def count(root: str) -> int:
    """Rows in the chain by now."""
    return read_predictions(root).count() if segment_keys(open_store(root)) else 0


def comparable(table: pa.Table) -> pa.Table:
    """The columns that a replay must find again, in one order."""
    return table.select(EQUAL).sort_by("row_id").combine_chunks()


def adawise(folder: Path, *arguments: str) -> None:
    """Run a command to its end."""
    subprocess.run([sys.executable, "-m", "adawise", *arguments], cwd=folder, check=True, env=os.environ)
