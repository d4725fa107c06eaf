"""`adawise bench` on a ViT-B-32 pair with random weights; and what other benches share: the pair, a topic of images."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file

from adawise.bench.worker import jpegs, send_images
from adawise.produce.sender import ensure_topic
from adawise.settings import KafkaSettings

IMAGES, CAMERAS, PARTITIONS, CLASSES = int(os.environ.get("BENCH_IMAGES", "2000")), 8, 4, 10


def main(arguments: Sequence[str] = ()) -> int:
    """Run the command with these further arguments; heads are cached in the temporary folder alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pair(folder)
        files = {"theta-0": "theta_0.safetensors", "theta-1": "theta_1.safetensors", "classes": "classes.txt"}
        pair = [f"--model.{key}={folder / file}" for key, file in {**files, "cache": "heads"}.items()]
        call = [sys.executable, "-m", "adawise", "bench", "--model.architecture=ViT-B-32", *pair, *arguments]
        with subprocess.Popen(call) as process:
            while True:
                # Ctrl-C reaches both, and the command ends its broker first; `subprocess.call` would kill it.
                with suppress(KeyboardInterrupt):
                    return process.wait()


def write_pair(folder: Path) -> None:
    """ViT-B-32 with random weights by seed, and the same a little further on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip

    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-32").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "theta_0.safetensors")
    moved = {
        key: value + 0.1 * value.std() * torch.randn_like(value) if value.ndim > 1 else value
        for key, value in state.items()
    }
    save_file({key: value.contiguous() for key, value in moved.items()}, folder / "theta_1.safetensors")
    (folder / "classes.txt").write_text("".join(f"thing {number}\n" for number in range(CLASSES)))


def produce(bootstrap_servers: str) -> None:
    """Create the topic `frames`, and send it the images of all cameras."""
    kafka, values = KafkaSettings(bootstrap_servers=bootstrap_servers, topic="frames"), jpegs()
    ensure_topic(
        bootstrap_servers=bootstrap_servers,
        security={},
        client_id="bench",
        topic="frames",
        create=True,
        partitions=PARTITIONS,
        replication=1,
    )
    send_images(kafka, values, CAMERAS, range(IMAGES))
    print(f"{IMAGES} JPEGs 640x480, {sum(map(len, values)) / len(values) / 1e3:.0f} KB each, {CAMERAS} cameras")
