"""Writing a recording: messages of a source, as they are, into files that are created once and never change.

Resumable: the newest file of a partition says where to read on. What was not written yet when the process died is read
again. Two recorders of one topic may share a folder as members of a group; whoever still writes to a partition that it
has lost finds the name taken and stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from pipeline.ports import Source, TopicIdentity
from pipeline.records import Message, TopicPartition
from pipeline.sink.store import AlreadyExists, Store, open_store
from pipeline.source import recording_format as layout
from pipeline.source.recording_files import files_of

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """When a file is complete: whichever of the three comes first."""

    max_messages: int
    max_bytes: int  # of values
    max_age_s: float  # of its first message, since it was read

    def due(self, messages: int, size_bytes: int, age_s: float) -> bool:
        """Whether a file of this size and age is complete."""
        return messages >= self.max_messages or size_bytes >= self.max_bytes or age_s >= self.max_age_s


@dataclass(frozen=True, slots=True)
class Recorded:
    """How far a recording run has come."""

    messages: int  # read; those of lost partitions that were not written yet included
    size_bytes: int  # of their values
    files: int


@dataclass(slots=True)
class _Buffer:
    """The next file of a partition."""

    first: int
    next: int
    messages: list[Message] = field(default_factory=list)
    size_bytes: int = 0
    began_s: float = 0.0


class Recorder:
    """The files of one topic's recording.

    Args:
        root: the folder, or the URL of one.
        topic: the topic.
        identity: what the source says about it.
        policy: how files are cut.
        max_buffered_bytes: of values over all partitions; beyond it the largest file is cut early.

    Raises:
        SourceError: the folder holds a recording of something else.
        StoreUnavailable, SettingsError: as the store says.
    """

    def __init__(
        self, root: str, *, topic: str, identity: TopicIdentity, policy: FilePolicy, max_buffered_bytes: int
    ) -> None:
        self._root = root
        self._topic = topic
        self._identity = identity
        self._policy = policy
        self._max_buffered_bytes = max_buffered_bytes
        self._store: Store = open_store(root)
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._messages = self._bytes = self._files = 0
        self._claim()

    @property
    def recorded(self) -> Recorded:
        """How far this run has come."""
        return Recorded(self._messages, self._bytes, self._files)

    def next_offset(self, tp: TopicPartition) -> int | None:
        """Where the recording of a partition ends; None if there is none yet. Raises SourceError if it is damaged."""
        files = files_of(self._root, self._store, tp)
        return files[-1].footer().next if files else None

    def begin(self, tp: TopicPartition, offset: int) -> None:
        """Expect messages of a partition from `offset` on; what was buffered of it is forgotten."""
        self._buffers[tp] = _Buffer(offset, offset)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Drop what is not written: the partitions belong to somebody else, who reads it again."""
        for tp in tps:
            self._buffers.pop(tp, None)

    def append(self, messages: Iterable[Message], now_s: float) -> None:
        """Take messages in offset order within each partition, and write the files that they complete."""
        for message in messages:
            buffer = self._buffers[message.topic_partition]
            if not buffer.messages:
                buffer.began_s = now_s
            size_bytes = len(message.value or b"")
            buffer.messages.append(message)
            buffer.next = message.next_offset
            buffer.size_bytes += size_bytes
            self._messages += 1
            self._bytes += size_bytes
            if self._policy.due(len(buffer.messages), buffer.size_bytes, now_s - buffer.began_s):
                self._write(message.topic_partition)
            elif sum(each.size_bytes for each in self._buffers.values()) > self._max_buffered_bytes:
                self._write(max(self._buffers, key=lambda tp: self._buffers[tp].size_bytes))

    def flush_due(self, now_s: float) -> None:
        """Write the files that are complete by age."""
        for tp, buffer in self._buffers.items():
            if buffer.messages and self._policy.due(0, 0, now_s - buffer.began_s):
                self._write(tp)

    def flush(self) -> None:
        """Write everything that is buffered."""
        for tp, buffer in self._buffers.items():
            if buffer.messages:
                self._write(tp)

    def _write(self, tp: TopicPartition) -> None:
        buffer = self._buffers[tp]
        key = layout.key_of(tp, buffer.first)
        known = self._identity
        footer = layout.Footer(*tp, buffer.first, buffer.next, known.cluster_id, known.topic_id, known.partitions)
        try:
            self._store.create(key, layout.encode_file(buffer.messages, footer))
        except AlreadyExists:
            msg = (
                f"{self._root}/{key} was written by another recorder meanwhile. Record into a folder of its own, or "
                "give both recorders the same group, so that each partition belongs to one of them."
            )
            raise SourceError(msg) from None
        self._files += 1
        self._buffers[tp] = _Buffer(buffer.next, buffer.next)

    def _claim(self) -> None:
        known = self._identity
        mine = layout.Manifest(self._topic, known.cluster_id, known.topic_id, known.partitions)
        try:
            self._store.create(layout.MANIFEST, mine.encode())
        except AlreadyExists:
            where = f"{self._root}/{layout.MANIFEST}"
            theirs = layout.decode_manifest(self._store.get(layout.MANIFEST) or b"", where)
            if theirs != mine:
                msg = f"{where}: expected a recording of {mine}, but it is one of {theirs}. Record into a new folder."
                raise SourceError(msg) from None


def record(
    source: Source,
    recorder: Recorder,
    *,
    max_messages: int | None = None,
    max_bytes: int | None = None,
    max_seconds: float | None = None,
    until_drained: bool = False,
    on_progress: Callable[[Recorded], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Recorded:
    """Record from `source` until one of the limits is reached or `stop` says so; the last files are written then.

    Args:
        max_messages: exactly so many are recorded, if they come.
        max_bytes: of values; recording stops with the message that reaches it.
        max_seconds: since the call, by `clock`.
        until_drained: stop when every owned partition was read up to its end.
        on_progress: called after each poll.

    Raises:
        SourceError: the source no longer has, or never had, the offset at which the recording goes on.
        BrokerUnavailable, StoreUnavailable: what was read so far is written, as far as the store allows.
    """
    began_s = clock()
    owned: set[TopicPartition] = set()
    try:
        while not stop():
            poll = source.poll(_POLL_S)
            owned = (owned - set(poll.lost)) | set(poll.assigned)
            recorder.forget(poll.lost)
            _begin(source, recorder, poll.assigned)
            full = _append(recorder, poll.messages, max_messages, max_bytes, clock())
            recorder.flush_due(clock())
            on_progress(recorder.recorded)
            drained = until_drained and owned and all(source.drained(tp) for tp in owned)
            late = max_seconds is not None and clock() - began_s >= max_seconds
            if full or drained or late or source.exhausted:
                break
    finally:
        recorder.flush()
    return recorder.recorded


def _begin(source: Source, recorder: Recorder, tps: Sequence[TopicPartition]) -> None:
    for tp in tps:
        known = recorder.next_offset(tp)
        offset = source.origin(tp) if known is None else known
        start, end = source.bounds(tp)
        if not start <= offset <= end:
            msg = (
                f"the recording of {tp} goes on at offset {offset}, but the topic holds [{start}, {end}). "
                "Record into a new folder; the old one is complete up to there."
            )
            raise SourceError(msg)
        recorder.begin(tp, offset)
        source.seek(tp, offset)
    source.resume(tps)


def _append(
    recorder: Recorder, messages: Sequence[Message], max_messages: int | None, max_bytes: int | None, now_s: float
) -> bool:
    """Take messages up to the limits; returns whether one was reached."""
    for message in messages:
        if max_messages is not None and recorder.recorded.messages >= max_messages:
            return True
        recorder.append([message], now_s)
        if max_bytes is not None and recorder.recorded.size_bytes >= max_bytes:
            return True
    return max_messages is not None and recorder.recorded.messages >= max_messages
