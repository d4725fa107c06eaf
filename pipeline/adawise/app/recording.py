"""Settings -> the worker's recorder, and how it and `record` cut files and remove old ones."""

from __future__ import annotations

import structlog

from adawise.ports import Source, TopicIdentity
from adawise.recording.buffer import FilePolicy
from adawise.recording.folder import RecordingFolder
from adawise.recording.manifest import Retention
from adawise.recording.retention import RecordingRetention, Tidied, tidying
from adawise.recording.write_ahead import WorkerRecorder
from adawise.records import TopicPartition
from adawise.settings import Settings
from adawise.store.store import Failpoint
from adawise.worker.passes import Passes

FILES = FilePolicy(max_messages=10_000, max_bytes=64 * 2**20, max_age_s=60.0)


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
        tell=lambda done: log.info("recording_tidied", root=folder.root, done=told(done)),
        failed=lambda text: log.warning("recording_not_tidied", root=folder.root, error=text),
    )


def told(done: Tidied) -> str:
    """Return what was removed, in a sentence."""
    return (
        f"{done.removed} files removed, {done.forgotten} without images now, "
        f"{done.leftovers} leftovers of an earlier pass removed"
    )
