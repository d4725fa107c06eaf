"""The work of `adawise record`: store the raw messages of a topic, or prune a recording."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from adawise.app.kafka import kafka_source
from adawise.app.recording import FILES, tidying_of, told
from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.app.waiting import again_and_again
from adawise.console import progress
from adawise.errors import AdawiseError, SourceError
from adawise.kafka.source import KafkaSource
from adawise.recording.files import partitions_of
from adawise.recording.manifest import MANIFEST, Retention, decode_manifest
from adawise.recording.recorder import Recorder, RecordingProgress, Runs
from adawise.recording.retention import RecordingRetention
from adawise.recording.run import Bounds
from adawise.recording.run import record as record_all
from adawise.settings.moments import milliseconds
from adawise.store.store import open_store
from adawise.text import as_duration, as_size
from adawise.worker.observer import outage_event

if TYPE_CHECKING:
    from adawise.cli.record.options import RecordCommand

_BUFFERED_BYTES = 256 * 2**20
_SOON_S, _FEW = 10.0, 100  # seconds and messages that it may be behind and still count as having caught up


def record(asked: RecordCommand) -> int:
    """Store the raw messages of the topic, from where an earlier run into the same folder ended; or only prune.

    Without limits it ends when it has all that the topic holds. With --follow, or with --from latest and no limit, it
    goes on until it is stopped, and waits for a broker or a store that does not answer.

    Returns:
        130 if it was stopped before its end, 1 if something could not be pruned, else 0.
    """
    if asked.prune_only:
        return _prune(asked)
    kafka, output = asked.settings.kafka, asked.output
    origin = asked.origin if asked.from_time is None else milliseconds(asked.from_time)
    bounds = Bounds(
        max_messages=asked.max_messages,
        max_bytes=asked.max_bytes,
        max_seconds=asked.max_seconds,
        until_ms=None if asked.until is None else milliseconds(asked.until),
    )
    limited = bounds != Bounds()
    follow = asked.follow or (origin == "latest" and not limited)
    bounds.until_drained = not (limited or follow)
    log, runs, pace = structlog.get_logger("recording"), Runs(), Pace(output)

    def failed(error: AdawiseError, wait_s: float) -> None:
        if not follow:
            raise error
        log.warning(outage_event(error, "recording_retried"), error=str(error), wait_s=wait_s)

    with stop_signals() as stop, progress("recorded", total=asked.max_messages, unit="messages") as bar:

        def attempt() -> None:
            with ExitStack() as stack:
                with stop.interrupts():
                    source = stack.enter_context(closing(kafka_source(kafka, group=False, origin=origin)))
                    recorder = stack.enter_context(runs.of(_recorder(asked, source)))
                tidying = stack.enter_context(closing(tidying_of(recorder.folder)))
                told = 0

                def tell(recorded: RecordingProgress) -> None:
                    nonlocal told
                    bar.advance(recorded.messages - told)
                    waiting = sum(source.lag(tp) or 0 for tp in recorder.partitions)
                    bar.note(pace.of(runs.recorded, runs.taken, waiting))
                    told = recorded.messages
                    tidying.turn(recorder.partitions, time.monotonic())

                record_all(source, recorder, bounds, on_progress=tell, stop=stop)

        again_and_again(attempt, failed, stop)
        stopped = stop()
    if runs.began:
        print(_summary(runs.recorded, kafka.topic, output))
    if stopped and not follow:
        print("stopped before the end; the same command goes on from here")
        return INTERRUPTED
    return 0


def _recorder(asked: RecordCommand, source: KafkaSource) -> Recorder:
    topic = asked.settings.kafka.topic
    return Recorder(
        asked.output,
        topic=topic,
        identity=source.log.identity(topic),
        policy=FILES,
        max_buffered_bytes=_BUFFERED_BYTES,
        streams=asked.streams,
        retention=Retention(asked.keep, asked.forget_images_after),
        check=source.log.check,
    )


def _prune(asked: RecordCommand) -> int:
    """Remove from a recording what is older than it promises to keep, or than shorter times that were given.

    Returns:
        1 if something could not be removed, else 0.

    Raises:
        SourceError: there is no recording.
    """
    root = asked.output
    store = open_store(root)
    where = f"{root}/{MANIFEST}"
    data = store.get(MANIFEST)
    if data is None:
        raise SourceError(f"expected a recording in {root}, but it holds no {MANIFEST}. Correct --output.")
    promise = decode_manifest(data, where).promise
    retention = Retention(asked.keep, asked.forget_images_after).within(promise, where)
    if retention == Retention():
        print(f"{root} keeps everything: it was started without --keep and --forget-images-after; give one of them")
        return 0
    done = RecordingRetention(root, store, retention).tidy(partitions_of(store))
    print(f"{root}: {told(done)}")
    for text in done.errors:
        print(text)
    return 1 if done.errors else 0


class Pace:
    """The pace at which a recording grows, and how long the disk has room for that.

    Args:
        root: where the recording is stored.
        free_bytes: returns the bytes that are free there; None if that is not known.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        root: str,
        *,
        free_bytes: Callable[[str], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._free_bytes, self._clock = root, free_bytes or _free_bytes, clock
        self._is_behind = False
        self._since = clock(), RecordingProgress(0, 0, 0), 0

    def of(self, recorded: RecordingProgress, taken: int, waiting: int) -> str:
        """Return the progress as `1.2 MiB, 4.50 GB/h, disk full in 7 h`.

        Size and rate count the bytes of the messages; the time until the disk is full counts what is stored of them.
        While more than a hundred messages wait, and taking them needs more than ten seconds, the recorder is catching
        up. Its rate then says nothing about the topic's, which is measured from the moment when it has caught up.

        Args:
            recorded: what is stored so far.
            taken: messages that were taken, stored or not yet.
            waiting: messages that the topic has beyond these.
        """
        now_s, size = self._clock(), as_size(recorded.size_bytes)
        since_s, before, had = self._since
        elapsed_s = max(now_s - since_s, 1e-3)
        if waiting > _FEW and waiting * elapsed_s > _SOON_S * max(1, taken - had):
            self._is_behind = True
            return f"{size}, {waiting:,} messages behind"
        if self._is_behind:
            self._is_behind, self._since = False, (now_s, recorded, taken)
            return size
        if had and elapsed_s < _SOON_S:
            return size
        rate = f"{(recorded.size_bytes - before.size_bytes) / elapsed_s * 3600 / 1e9:.3g} GB/h"
        free, stored = self._free_bytes(self._root), recorded.stored_bytes - before.stored_bytes
        if free is None or not stored:
            return f"{size}, {rate}"
        return f"{size}, {rate}, disk full in {as_duration(free / stored * elapsed_s)}"


def _free_bytes(root: str) -> int | None:
    if "://" in root:
        return None
    folder = Path(root)
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _summary(done: RecordingProgress, topic: str, output: str) -> str:
    size = as_size(done.size_bytes)
    text = f"{done.messages} messages ({size}) of topic {topic} added to {output}, in {done.files} files"
    if done.left_out:
        text += f"; {done.left_out} messages of other streams were left out"
    if done.nameless:
        text += f", {done.nameless} of them name no stream in key or headers"
    if done.missing:
        text += f"; {done.missing} offsets could not be read, which the recording notes (the log has the reasons)"
    return text
