"""What recording costs a worker: images/s with `record.enabled` over images/s without, in turns, on the same topic.

ViT-B-32 at a fixed alpha, JPEGs of 640 x 480 from 8 cameras, everything written to a folder on disk.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from statistics import median

from adawise.app.kafka import kafka_source
from adawise.app.model import ModelPair, load_model
from adawise.app.recording import worker_recorder
from adawise.app.worker import WorkerParts, make_worker
from adawise.bench.worker import Tally
from adawise.kafka.embedded import EmbeddedBroker
from adawise.publish.dead_letters.sink import NoDeadLetters
from adawise.settings import KafkaSettings, ModelSettings, SearchSettings, Settings, SinkSettings
from adawise.settings.recording import RecordSettings
from tools.bench.worker import IMAGES, produce, write_pair

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    """Print both rates and their ratio, median of the rounds."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, EmbeddedBroker() as broker:
        folder = Path(name)
        write_pair(folder)
        produce(broker.bootstrap_servers)
        model: ModelPair | None = None
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * ROUNDS):
            records = number % 2 == 1
            settings = settings_of(folder, broker.bootstrap_servers, f"round-{number}", records=records)
            model = model or load_model(settings.model, settings.decode)
            rates[records].append(rate_of(settings, model))
        without, with_ = median(rates[False]), median(rates[True])
        print(f"without {without:.1f} images/s, recording {with_:.1f}: ratio {with_ / without:.3f}, {ROUNDS} rounds")


def settings_of(folder: Path, bootstrap_servers: str, name: str, *, records: bool) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, group=name, session_timeout_ms=6000),
        model=ModelSettings(
            theta_0=str(folder / "theta_0.safetensors"),
            theta_1=str(folder / "theta_1.safetensors"),
            classes=folder / "classes.txt",
        ),
        search=SearchSettings(strategy="fixed"),
        sink=SinkSettings(root=str(folder / name)),
        record=RecordSettings(enabled=records, root=str(folder / f"{name}-recording")),
    )


def rate_of(settings: Settings, model: ModelPair) -> float:
    """Images a second from the first partition to the last segment."""
    tally = Tally(IMAGES)
    source = kafka_source(settings.kafka)
    make_worker(
        settings,
        model,
        WorkerParts(
            source=source,
            root=settings.sink.root,
            dead_letters=NoDeadLetters(),
            observer=tally,
            should_stop=tally.done,
            recorder=worker_recorder(settings, source, failpoint=lambda _: None),
        ),
    ).run()
    return tally.rows / tally.spent[0]
