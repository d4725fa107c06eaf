"""`adawise finetune` of a ViT-B-32 with random towers: what a real size costs, not what it learns.

In a process of its own, as a user runs it: images/s of training over the bare way through the image tower and back, the
time that was foretold against the time that it took, memory, and that a worker serves what was made. `BENCH_IMAGES` is
how many photographs (200), `BENCH_EPOCHS` how often (2).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import open_clip
import torch

from adawise.bench.worker import jpegs
from tests.brokers import running
from tools.bench.start import filled, start
from tools.bench.worker import CLASSES, write_pair

IMAGES, EPOCHS = int(os.environ.get("BENCH_IMAGES", "200")), int(os.environ.get("BENCH_EPOCHS", "2"))
BATCH, ROUNDS = 32, 5


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pair(folder)
        photographs = jpegs()
        for number in range(IMAGES):
            place = folder / "images" / f"thing {number % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(photographs[number % len(photographs)])
        before = bare()
        began = time.perf_counter()
        events = finetuned(folder)
        took = time.perf_counter() - began
        load = f"load {os.getloadavg()[0]:.1f}"
        fields = {line["event"]: line for line in reversed(events)}  # the first of each
        epochs = [line for line in events if line["event"] == "epoch_finished"]
        seconds = [datetime.fromisoformat(fields[event]["timestamp"]) for event in ("training_began", "epoch_finished")]
        one = (seconds[1] - seconds[0]).total_seconds()
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        print(f"bare tower there and back: {before:.1f} images/s before, {bare():.1f} after; {load}")
        print(f"the first epoch took {one:.1f} s, judging twice in it")
        print(f"{len(epochs)} epochs, with those of the rehearsal; {IMAGES} images; {took:.0f} s in all")
        print(
            f"foretold, after the first updates: {fields.get('duration_estimated', 'nothing, for there were too few')}"
        )
        print(f"peak {peak_mib} MiB; foretold: {fields['memory_estimated']}")
        made = folder / "made"
        made.mkdir()
        for link, target in (
            ("theta_0.safetensors", folder / "theta_0.safetensors"),
            ("theta_1.safetensors", folder / "pair" / "theta_1" / "open_clip_model.safetensors"),
            ("classes.txt", folder / "pair" / "classes.txt"),
        ):
            (made / link).symlink_to(target)
        with running() as broker:
            moments = start(made, filled(broker), "made", folder / "cache", ("batch_served",))
        print(f"a worker serves it after {moments['batch_served'][0]:.1f} s")


def finetuned(folder: Path) -> list[dict[str, Any]]:
    """What the command logged."""
    flags = {
        "labelled": folder / "images",
        "output": folder / "pair",
        "model.theta-0": folder / "theta_0.safetensors",
        "model.architecture": "ViT-B-32",
        "model.device": "cpu",
        "finetune.epochs": EPOCHS,
        "finetune.batch-images": BATCH,
        "log.format": "json",
    }
    words = (word for key, value in flags.items() for word in (f"--{key}", str(value)))
    call = [sys.executable, "-m", "adawise", "finetune", *words]
    done = subprocess.run(call, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def bare() -> float:
    """Images/s of the image tower alone, forward and backward in bfloat16, median of some batches."""
    model = open_clip.create_model("ViT-B-32")
    x, times = torch.randn(BATCH, 3, 224, 224), []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.encode_image(x, normalize=True).sum()
        torch.autograd.backward(loss)
        times.append(time.perf_counter() - began)
    return BATCH / median(times[1:])


if __name__ == "__main__":
    main()
