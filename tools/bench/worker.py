"""The worker on a topic of camera frames, ViT-B-32, against the bare image tower in the same run.

2,000 JPEGs of 640 x 480 from 8 cameras, random weights by seed. The bare tower is timed before, and after, on decoded
chunks; what is printed is images/s x FE of the worker over images/s of the bare tower: 1 would mean that everything but
forwards was free.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from PIL import Image
from safetensors.torch import save_file

from adawise.app.kafka import kafka_source
from adawise.app.model import load_model
from adawise.app.worker import WorkerParts, make_worker
from adawise.clip.classifier import PairClassifier
from adawise.kafka.embedded import EmbeddedBroker
from adawise.output.verify.root import verify
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.records import BatchTrace
from adawise.settings import KafkaSettings, ModelSettings, Settings, SinkSettings
from adawise.store.store import open_store
from adawise.worker.events import BatchServed, Event, PartitionRecovered, SegmentCommitted

IMAGES, CAMERAS, PARTITIONS, CLASSES = int(os.environ.get("BENCH_IMAGES", "2000")), 8, 4, 10


class Tally:
    """An observer that counts, and says when all images are committed."""

    def __init__(self, images: int) -> None:
        self.images, self.rows, self.traces = images, 0, list[BatchTrace]()
        self.started = self.ended = 0.0

    def observe(self, event: Event) -> None:
        match event:
            case PartitionRecovered():
                self.started = self.started or time.perf_counter()
            case BatchServed():
                self.traces.append(event.trace)
            case SegmentCommitted():
                self.rows += event.commit.rows
                self.ended = time.perf_counter()
            case _:
                pass

    def done(self) -> bool:
        return sum(trace.images for trace in self.traces) >= self.images


def main() -> None:
    """Print the ratio, RSS, FE and the decision time a batch."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        write_pair(folder)
        create_topic(broker.bootstrap_servers)
        produce(broker.bootstrap_servers)
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers, session_timeout_ms=6000),
            model=ModelSettings(
                theta_0=str(folder / "theta_0.safetensors"),
                theta_1=str(folder / "theta_1.safetensors"),
                classes=folder / "classes.txt",
            ),
            sink=SinkSettings(root=str(folder / "output")),
        )
        model = load_model(settings.model, settings.decode)
        prepare(model.classifier)
        before = bare(model.classifier)
        tally = Tally(IMAGES)
        worker = make_worker(
            settings,
            model,
            WorkerParts(
                source=kafka_source(settings.kafka),
                root=settings.sink.root,
                dead_letters=NoDeadLetters(),
                observer=tally,
                should_stop=tally.done,
            ),
        )
        worker.run()
        after = bare(model.classifier)
        report(tally, before, after, len(verify(open_store(settings.sink.root))))


def prepare(classifier: PairClassifier) -> None:
    """Merge every copy and encode every head: the steady state of a long run, or of one with the card's heads."""
    started = time.perf_counter()
    for index in range(len(classifier.alphas)):
        classifier.bank.tower(index)
    merged = time.perf_counter()
    for index in range(len(classifier.alphas)):
        classifier._head(index)
    print(f"{merged - started:.1f} s for merging every alpha, {time.perf_counter() - merged:.1f} s for its text head")


def report(tally: Tally, before: float, after: float, faults: int) -> None:
    served = sum(trace.images for trace in tally.traces)
    fe = sum(trace.forward_equivalents * trace.images for trace in tally.traces) / served
    rate, floor = served / (tally.ended - tally.started), (before + after) / 2.0
    decision = median(trace.milliseconds["search"] for trace in tally.traces)
    mean = sum(trace.milliseconds["search"] for trace in tally.traces) / len(tally.traces)
    forward = sum(trace.milliseconds["forward"] for trace in tally.traces) / 1e3
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"images {served}, rows {tally.rows}, faults {faults}, FE {fe:.3f}")
    print(f"bare tower {before:.1f} images/s before, {after:.1f} after; worker {rate:.1f} images/s")
    print(
        f"worker x FE / bare = {rate * fe / floor:.3f}; forwards {forward / (tally.ended - tally.started):.3f} of time"
    )
    print(f"decision {decision:.2f} ms a batch (median), {mean:.2f} mean; peak RSS {rss:.0f} MiB")


def bare(classifier: PairClassifier) -> float:
    """Images/s of the served tower alone, on chunks of pixels, median of 15."""
    x = torch.randn(classifier.chunk_rows, 3, 224, 224).to(classifier.dtype)
    tower, times = classifier.bank.tower(10), []
    with torch.inference_mode():
        for _ in range(16):
            started = time.perf_counter()
            tower(x)
            times.append(time.perf_counter() - started)
    return classifier.chunk_rows / median(times[1:])


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


def create_topic(bootstrap_servers: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    admin.create_topics([NewTopic("frames", PARTITIONS, 1)])
    admin.close()


def pictures() -> list[bytes]:
    """40 smooth random pictures with some noise, JPEGs of about 40 KB each."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(40):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(small).astype(np.int16) + rng.integers(-12, 13, (480, 640, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        values.append(buffer.getvalue())
    return values


def produce(bootstrap_servers: str) -> None:
    """Pictures, dealt to the cameras."""
    values = pictures()
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=False)
    for number in range(IMAGES):
        camera = f"camera-{number % CAMERAS}".encode()
        producer.send("frames", key=camera, value=values[number % len(values)], partition=number % PARTITIONS)
        if number % 100 == 99:
            producer.flush()
    producer.close()
    print(f"{IMAGES} JPEGs 640x480, {sum(map(len, values)) / len(values) / 1e3:.0f} KB each, {CAMERAS} cameras")
