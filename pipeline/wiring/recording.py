"""Settings -> a recording of the topic."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline.console import progress
from pipeline.settings import Settings
from pipeline.source.recorder import FilePolicy, Recorded, Recorder
from pipeline.source.recorder import record as record_all
from pipeline.wiring.kafka import kafka_source
from pipeline.wiring.signals import stop_signals

_FILES = FilePolicy(max_messages=10_000, max_bytes=64 * 2**20, max_age_s=60.0)
_BUFFERED_BYTES = 256 * 2**20


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
    size = f"{done.messages} messages ({done.size_bytes / 2**20:.1f} MiB)"
    print(f"{size} of topic {kafka.topic} added to {output}, in {done.files} files")
    return 0
