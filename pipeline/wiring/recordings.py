"""Settings -> a recording of the topic, and the worker on a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import structlog

from pipeline.console import Progress, progress
from pipeline.errors import SettingsError
from pipeline.records import BatchTrace, Frame, TopicPartition
from pipeline.settings import Settings
from pipeline.sink.dead_letters import NoDeadLetters
from pipeline.source.recorder import FilePolicy, Recorded, Recorder
from pipeline.source.recorder import record as record_all
from pipeline.source.recording import Order, RecordingSource
from pipeline.telemetry import LogObserver
from pipeline.wiring.model import load_model
from pipeline.wiring.stream import describe, kafka_source, make_worker, stop_signals

_FILES = FilePolicy(max_messages=10_000, max_bytes=64 * 2**20, max_age_s=60.0)
_BUFFERED_BYTES = 256 * 2**20
_POLL_RECORDS = 512


def record(
    settings: Settings,
    *,
    output: Path,
    origin: Literal["earliest", "latest"],
    max_messages: int | None,
    max_seconds: float | None,
    max_bytes: int | None,
) -> int:
    """Store the topic's raw messages; goes on where an earlier run into the same folder ended.

    From `earliest` without limits it ends when it has all that the topic holds.
    """
    kafka = settings.kafka
    unlimited = max_messages is None and max_seconds is None and max_bytes is None
    source = kafka_source(kafka, group=False, origin=origin)
    try:
        recorder = Recorder(
            str(output),
            topic=kafka.topic,
            identity=source.identity(kafka.topic),
            policy=_FILES,
            max_buffered_bytes=_BUFFERED_BYTES,
        )
        with progress("recorded", total=max_messages, unit="messages") as bar, stop_signals() as should_stop:
            told = 0

            def tell(recorded: Recorded) -> None:
                nonlocal told
                bar.advance(recorded.messages - told)
                bar.note(f"{recorded.size_bytes / 2**20:.1f} MiB")
                told = recorded.messages

            done = record_all(
                source,
                recorder,
                max_messages=max_messages,
                max_bytes=max_bytes,
                max_seconds=max_seconds,
                until_drained=unlimited and origin == "earliest",
                on_progress=tell,
                stop=should_stop,
            )
    finally:
        source.close()
    print(
        f"{done.messages} messages ({done.size_bytes / 2**20:.1f} MiB) of {kafka.topic} in {done.files} files: {output}"
    )
    return 0


def replay(settings: Settings, *, recording: Path, output: str, order: Order = "timestamp", seed: int = 0) -> int:
    """The worker on a recording, writing to `output`. Interrupted, the same command goes on where it was."""
    if Path(output).resolve() == Path(settings.sink.root).resolve():
        raise SettingsError(
            f"-o {output} is sink.root, where the live worker writes; a replay needs a folder of its own"
        )
    log = structlog.get_logger("worker")
    source = RecordingSource(str(recording), order=order, seed=seed, max_poll_records=_POLL_RECORDS)
    with stop_signals() as should_stop:
        model = load_model(settings.model)
        log.info("model_loaded", **describe(model))
        with progress("replayed") as bar:
            observer = _ReplayObserver(bar)
            worker = make_worker(
                settings,
                model,
                source=source,
                root=output,
                dead_letters=NoDeadLetters(),
                observer=observer,
                should_stop=should_stop,
            )
            worker.run()
        stopped = should_stop()
    served = max(observer.images, 1)
    print(
        f"{observer.images} images served, {observer.rejected} rejected, "
        f"{observer.passed / served:.2f} forwards per image: {output}"
    )
    if stopped:
        print("stopped before the end; the same command goes on from here")
    return 0


class _ReplayObserver(LogObserver):
    """Counts for the bar and the summary, beside the log."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self.images = self.rejected = 0
        self.passed = 0.0

    def partition_lost(self, tp: TopicPartition) -> None:
        """A recording's partitions are never lost."""

    def frame_rejected(self, frame: Frame) -> None:
        """See `Observer`; each was logged when it was live."""
        del frame
        self.rejected += 1
        self._bar.advance(1)

    def batch_served(self, trace: BatchTrace) -> None:
        """See `Observer`."""
        super().batch_served(trace)
        self.images += trace.images
        self.passed += trace.forward_equivalents * trace.images
        self._bar.advance(trace.images)
        self._bar.note(f"FE {self.passed / self.images:.2f}")
