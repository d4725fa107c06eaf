"""Settings -> recorders: the worker's, and those of the commands `record` and `labels`; how they cut and keep files."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Literal

import structlog

from adawise.app.kafka import kafka_source
from adawise.app.signals import StopRequest
from adawise.app.waiting import again_and_again
from adawise.console import Progress
from adawise.errors import AdawiseError, SettingsError, SourceError
from adawise.kafka.source import KafkaSource
from adawise.labels.message import LabelColumns
from adawise.output.near import did_you_mean
from adawise.ports import Source, TopicIdentity
from adawise.recording.buffer import FilePolicy
from adawise.recording.folder import RecordingFolder
from adawise.recording.format import Retention
from adawise.recording.recorder import Recorder, RecordingProgress, Runs
from adawise.recording.retention import RecordingRetention, Tidied, tidying
from adawise.recording.run import Bounds, Pace, record
from adawise.recording.write_ahead import WorkerRecorder
from adawise.records import TopicPartition
from adawise.settings import KafkaSettings, Settings
from adawise.sink.claims import read_sink_id
from adawise.store.store import Failpoint, open_store
from adawise.worker.observer import outage_event
from adawise.worker.passes import Passes

FILES = FilePolicy(max_messages=10_000, max_bytes=64 * 2**20, max_age_s=60.0)
_LABEL_FILES = FilePolicy(max_messages=10_000, max_bytes=2 * 2**20, max_age_s=60.0)  # 0.3 million labels at most


def worker_recorder(settings: Settings, source: Source, *, failpoint: Failpoint) -> WorkerRecorder | None:
    """Return the recorder that runs beside the worker, None if it is not enabled."""
    wanted = settings.record
    if not wanted.enabled:
        return None
    folder = recording_folder(settings, source.log.identity(settings.kafka.topic), failpoint=failpoint)
    return WorkerRecorder(
        folder,
        check=source.log.check,
        policy=FILES,
        max_buffered_bytes=wanted.inflight_mib * 2**20,
        streams=wanted.streams,
        skip_gaps=settings.kafka.on_gap == "skip",
        tidying=tidying_of(folder),
    )


def recording_folder(
    settings: Settings, identity: TopicIdentity, *, failpoint: Failpoint = lambda _: None
) -> RecordingFolder:
    """Return the folder of the worker's recording, claimed for this topic.

    Raises:
        SourceError: the folder is of another topic.
        SettingsError: the folder cannot be used.
    """
    wanted = settings.record
    return RecordingFolder(
        wanted.root,
        topic=settings.kafka.topic,
        identity=identity,
        streams=wanted.streams,
        retention=Retention(wanted.keep, wanted.forget_images_after),
        failpoint=failpoint,
    )


def tidying_of(folder: RecordingFolder) -> Passes[TopicPartition, Tidied]:
    """Return the passes that remove old files of a recording, and log it."""
    log = structlog.get_logger("recording")
    return tidying(
        RecordingRetention(folder.root, folder.store, folder.retention, failpoint=folder.failpoint),
        finished=lambda done: log.info("recording_tidied", root=folder.root, done=str(done)),
        failed=lambda text: log.warning("recording_not_tidied", root=folder.root, error=text),
    )


def record_topic(
    kafka: KafkaSettings,
    output: str,
    bounds: Bounds,
    *,
    origin: Literal["earliest", "latest"] | int,
    follows: bool,
    stop: StopRequest,
    bar: Progress,
    streams: str | None = None,
    retention: Retention,
) -> Runs:
    """Record the raw messages of a topic, from where an earlier run into the same folder ended.

    Args:
        kafka: the broker and the topic.
        output: the folder of the recording, or the URL of one.
        bounds: the limits of the run.
        origin: where a new recording begins; a number is a time in ms since the epoch.
        follows: wait for a broker or a store that does not answer, and go on.
        stop: ends the run in order.
        bar: advanced by the messages, with the pace beside it.
        streams: patterns of the streams to record; None for all.
        retention: how long data is kept; None in it means the folder's promise.

    Raises:
        SourceError: the folder holds a recording of something else, or the topic cannot be read.
        BrokerUnavailable, StoreUnavailable: without `follows`.
    """
    recorder = partial(
        Recorder,
        output,
        topic=kafka.topic,
        policy=FILES,
        max_buffered_bytes=256 * 2**20,
        streams=streams,
        retention=retention,
    )
    opened = partial(kafka_source, kafka, group=False, origin=origin)
    run = partial(record, bounds=bounds)
    return _recorded("recording", kafka.topic, opened, recorder, run, follows, stop, bar, pace=Pace(output))


def record_labels(
    kafka: KafkaSettings,
    root: str,
    columns: LabelColumns,
    *,
    follows: bool,
    stop: StopRequest,
    bar: Progress,
) -> Runs:
    """Record the topic of labels under the root whose images they are of.

    Members of one group share the partitions. Whichever process dies, each message is stored once: its file is created
    only if absent, under a name that says where the next one goes on. The group's offset is committed once the file is
    durable. The arguments are as in `record_topic`; `columns` are those beside the messages.

    Raises:
        SettingsError: no worker wrote to the root.
        SourceError: there is no such topic, or the labels there are of another one.
        BrokerUnavailable, StoreUnavailable: without `follows`.
    """
    folder = f"{root.rstrip('/')}/labels"

    def opened() -> KafkaSource:
        if read_sink_id(open_store(root)) is None:
            raise SettingsError(
                f"{root}: expected the output of a worker, where labels are stored, but there is none; name the folder "
                f"or URL of sink.root or -o{did_you_mean(root)}"
            )
        return kafka_source(kafka)

    def recorder(**source: Any) -> Recorder:
        try:
            return Recorder(
                folder,
                topic=kafka.topic,
                policy=_LABEL_FILES,
                max_buffered_bytes=64 * 2**20,
                beside=columns,
                on_race="adopt",
                **source,
            )
        except SourceError as error:
            raise SourceError(
                f"{error} {folder} takes labels of one topic at a time: to store those of another, move its files into "
                f"a folder below it, such as {folder}/before, where reports still find them."
            ) from error

    run = partial(record, bounds=Bounds(until_drained=not follows), skip_gaps=kafka.on_gap == "skip")
    return _recorded("labels", kafka.topic, opened, recorder, run, follows, stop, bar)


def _recorded(
    name: str,
    topic: str,
    opened: Callable[[], KafkaSource],
    recorder_of: Callable[..., Recorder],
    run: Callable[..., object],
    follows: bool,
    stop: StopRequest,
    bar: Progress,
    *,
    pace: Pace | None = None,
) -> Runs:
    """Record to the end or until `stop`; if it follows, begin again after each outage, which is logged.

    Labels have no `pace`, and are all kept.
    """
    log, runs = structlog.get_logger(name), Runs()

    def attempt() -> None:
        with ExitStack() as stack:
            with stop.interrupts():
                source = stack.enter_context(closing(opened()))
                made = recorder_of(identity=source.log.identity(topic), check=source.log.check)
                recorder = stack.enter_context(runs.of(made, source))
            tidying = None if pace is None else stack.enter_context(closing(tidying_of(recorder.folder)))
            known = 0

            def proceeded(recorded: RecordingProgress) -> None:
                nonlocal known
                bar.advance(recorded.messages - known)
                known = recorded.messages
                if pace is not None and tidying is not None:
                    bar.note(pace.of(runs.recorded, runs.taken, runs.waiting))
                    tidying.turn(recorder.partitions, time.monotonic())

            run(source, recorder, on_progress=proceeded, stop=stop)

    def failed(error: AdawiseError, wait_s: float) -> None:
        if not follows:
            raise error
        log.warning(
            outage_event(error, "labels_retried" if name == "labels" else "recording_retried"),
            error=str(error),
            wait_s=wait_s,
        )

    again_and_again(attempt, failed, stop)
    return runs
