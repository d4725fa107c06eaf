"""Settings -> the worker on a recording."""

from __future__ import annotations

from pathlib import Path

import structlog

from pipeline.console import Progress, progress
from pipeline.errors import SettingsError
from pipeline.records import BatchTrace, Frame, TopicPartition
from pipeline.settings import Settings
from pipeline.sink.dead_letters import NoDeadLetters
from pipeline.source.recording import Order, RecordingSource
from pipeline.telemetry import LogObserver
from pipeline.wiring.signals import stop_signals

_POLL_RECORDS = 512


def replay(settings: Settings, *, recording: Path, output: str, order: Order = "timestamp", seed: int = 0) -> int:
    """The worker on a recording, writing to `output`. Interrupted, the same command goes on where it was."""
    if Path(output).resolve() == Path(settings.sink.root).resolve():
        raise SettingsError(
            f"-o {output} is sink.root, where the live worker writes; a replay needs a folder of its own"
        )
    log = structlog.get_logger("worker")
    source = RecordingSource(str(recording), order=order, seed=seed, max_poll_records=_POLL_RECORDS)
    from pipeline.wiring.model import load_model  # with torch, which takes seconds: what is wrong above is told at once
    from pipeline.wiring.stream import describe, make_worker

    with stop_signals() as should_stop:
        model = load_model(settings.model)
        log.info("model_loaded", **describe(settings, model))
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
    if observer.images or observer.rejected:
        each = observer.passed / max(observer.images, 1)
        print(f"{observer.images} images served, {observer.rejected} rejected, {each:.2f} forwards per image: {output}")
    elif not stopped:
        print(f"nothing was left to do: {output} has all of {recording}; for another strategy, take a new folder")
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
