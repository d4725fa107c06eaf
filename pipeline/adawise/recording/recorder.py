"""A recorder: it writes the messages of a source, as they are, into files that are created once and never change.

It is resumable: the newest file of a partition says where to read on. What was not yet written when the process died is
read again. Two recorders of one topic may share a folder as members of a group. A member that still writes to a
partition that it has lost finds the name taken and stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from adawise.decode.headers import read_stream
from adawise.errors import SourceError
from adawise.ports import Source, TopicIdentity
from adawise.recording.buffer import Buffer, Draft, FilePolicy, merged
from adawise.recording.folder import RecordingFolder
from adawise.recording.format import Beside, Retention
from adawise.records import Gap, Message, TopicPartition
from adawise.store.store import Failpoint
from adawise.text import as_size

__all__ = ["FilePolicy", "Recorder", "RecordingProgress", "Runs"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RecordingProgress:
    """The progress of a recording run."""

    messages: int = 0  # taken, including those of lost partitions that were not written yet
    size_bytes: int = 0  # of their values
    files: int = 0
    stored_bytes: int = 0  # of the files
    left_out: int = 0  # messages of other streams
    nameless: int = 0  # of those left out: they name no stream by key or headers
    missing: int = 0  # offsets that could not be read
    stored: int = 0  # messages that are in files

    def summary(self, topic: str, root: str) -> str:
        """Return what a run added to the recording of a topic in `root`, and what it left out."""
        size = as_size(self.size_bytes)
        text = f"{self.messages} messages ({size}) of topic {topic} added to {root}, in {self.files} files"
        if self.left_out:
            text += f"; {self.left_out} messages of other streams were left out"
        if self.nameless:
            text += f", {self.nameless} of them name no stream in key or headers"
        if self.missing:
            text += f"; {self.missing} offsets could not be read, which the recording notes (the log has the reasons)"
        return text


class Runs:
    """The recorders of one command, one after the other, as each ends with an outage. Their progress is added up.

    The buffers of one that ended are dropped: in an outage of the store they are full, and what they hold is read
    again.
    """

    def __init__(self) -> None:
        self._ended = RecordingProgress()
        self._current: tuple[Recorder, Source] | None = None
        self.began = False
        """True once there was a recorder."""

    @contextmanager
    def of(self, recorder: Recorder, source: Source) -> Iterator[Recorder]:
        """Use this recorder, which records from `source`, as the current one until the block ends."""
        self._current, self.began = (recorder, source), True
        try:
            yield recorder
        finally:
            self._ended, self._current = self.recorded, None
            recorder.forget(recorder.partitions)

    @property
    def recorded(self) -> RecordingProgress:
        """The progress of all of them together. `messages` are those in files: the others are read again."""
        runs = [asdict(self._ended)] + ([asdict(self._current[0].recorded)] if self._current else [])
        total = RecordingProgress(**{name: sum(run[name] for run in runs) for name in runs[0]})
        return replace(total, messages=total.stored)

    @property
    def taken(self) -> int:
        """The number of messages that are stored, or that the current recorder holds."""
        return self._ended.stored + (self._current[0].recorded.messages if self._current else 0)

    @property
    def waiting(self) -> int:
        """The number of messages that the topic has beyond these."""
        if self._current is None:
            return 0
        recorder, source = self._current
        return sum(source.lag(tp) or 0 for tp in recorder.partitions)


class Recorder:
    """The files of one topic's recording.

    Args:
        root: the folder, or the URL of one.
        topic: the topic.
        identity: the topic's identity, from the source.
        policy: how files are cut.
        max_buffered_bytes: of values over all partitions; beyond it the largest file is cut early.
        streams: patterns of the streams to record; None for all.
        retention: how long data is kept; None in it means the folder's promise.
        beside: further columns of the files.
        on_race: what to do where another recorder wrote first: "fail", or "adopt" to go on after what it wrote.
        check: called before each file is written; raises if the topic is no longer the one that was read from.
        failpoint: called at each point where a recorder can die, for tests that kill there.

    Raises:
        SourceError: the folder holds a recording of something else.
        StoreUnavailable, SettingsError: as the store raises them.
    """

    def __init__(
        self,
        root: str,
        *,
        topic: str,
        identity: TopicIdentity,
        policy: FilePolicy,
        max_buffered_bytes: int,
        streams: str | None = None,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        beside: Beside | None = None,
        on_race: Literal["fail", "adopt"] = "fail",
        check: Callable[[], None] = lambda: None,
        failpoint: Failpoint = lambda _: None,
    ) -> None:
        self.folder = RecordingFolder(
            root,
            topic=topic,
            identity=identity,
            streams=streams,
            retention=retention,
            beside=beside,
            failpoint=failpoint,
        )
        self._root = root
        self._streams = Streams(streams)
        self._policy = policy
        self._max_buffered_bytes = max_buffered_bytes
        self._check = check
        self._on_race = on_race
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._done = RecordingProgress()

    @property
    def recorded(self) -> RecordingProgress:
        """The progress of this run."""
        return replace(self._done, nameless=self._streams.nameless)

    @property
    def durable(self) -> dict[TopicPartition, int]:
        """The offset, of each partition that is recorded now, below which everything is in files."""
        return {tp: buffer.first for tp, buffer in self._buffers.items()}

    @property
    def partitions(self) -> list[TopicPartition]:
        """The partitions that are recorded now."""
        return list(self._buffers)

    def next_offset(self, tp: TopicPartition) -> int | None:
        """Return where a partition's recording ends, None if there is none yet; raise SourceError if it is damaged."""
        return self.folder.next_offset(tp)

    def begin(self, tp: TopicPartition, offset: int, log_start: int = 0) -> None:
        """Expect messages of a partition from `offset` on; what was buffered of it is dropped.

        If `log_start` is greater, the range between is noted as a gap: the broker no longer has it.
        """
        gaps = (Gap(offset, log_start),) if offset < log_start else ()
        self._buffers[tp] = Buffer(offset, max(offset, log_start), gaps)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Drop what is not written: another member owns the partitions, and reads it again."""
        for tp in tps:
            self._buffers.pop(tp, None)

    def append(self, messages: Iterable[Message], now_s: float) -> None:
        """Take messages in offset order within each partition, and write the files that they complete."""
        for message in messages:
            buffer = self._buffers[message.topic_partition]
            if message.offset < buffer.next:
                continue  # another recorder has written it
            if message.missing is not None:
                self._done.missing += message.next_offset - max(message.missing.first, buffer.next)
                buffer.add(message, wanted=False, now_s=now_s)
                continue
            wanted = self._streams.has(message)
            buffer.add(message, wanted=wanted, now_s=now_s)
            self._done.messages += wanted
            self._done.left_out += not wanted
            self._done.size_bytes += len(message.value or b"") if wanted else 0
            if buffer.due(self._policy, now_s):
                self._write(message.topic_partition)
            elif sum(each.size_bytes for each in self._buffers.values()) > self._max_buffered_bytes:
                self._write(max(self._buffers, key=lambda tp: self._buffers[tp].size_bytes))

    def flush_due(self, now_s: float) -> None:
        """Write the files that are complete by age."""
        for tp, buffer in self._buffers.items():
            if buffer.due(self._policy, now_s):
                self._write(tp)

    def flush(self) -> None:
        """Write everything that was read; if no message of it was wanted, an empty file covers the range."""
        for tp in self._buffers:
            # Repeat: another recorder may have written a part of it.
            while self._buffers[tp].next > self._buffers[tp].first:
                self._write(tp)

    def _write(self, tp: TopicPartition) -> None:
        buffer = self._buffers[tp]
        self._check()
        created = self.folder.create(Draft(tp, buffer))
        if not created.won and self._on_race == "adopt":
            _log.info("%s: another recorder wrote offsets %d to %d", tp, buffer.first, created.next - 1)
            self._buffers[tp] = merged(buffer, Buffer(buffer.next, buffer.next), created.next)
            return
        if not created.won:
            raise SourceError(
                f"{self._root}: {tp} from offset {buffer.first} was written by another recorder meanwhile. Record "
                "into a separate folder, or give both recorders the same group, so that each partition belongs to "
                "one."
            )
        self._done.files += 1
        self._done.stored_bytes += created.size_bytes
        self._done.stored += len(buffer.messages)
        self._buffers[tp] = Buffer(buffer.next, buffer.next)


class Streams:
    """Shell patterns of the stream ids to record: `camera-1`, `yard-*`, `gate-[ab]`.

    A message's stream is what its key and headers name: the key, else the header `stream-id`, else CloudEvents. An
    Arrow batch that names its streams only in its rows has none in this sense: a message is recorded whole or not at
    all, and nothing is decoded for that. So it is left out, and so is a message that names no stream.

    Args:
        patterns: separated by commas; None for every message, whatever its stream.
    """

    def __init__(self, patterns: str | None) -> None:
        self._patterns = None if patterns is None else tuple(each.strip() for each in patterns.split(","))
        self.nameless = 0  # messages left out because neither key nor headers name a stream

    def has(self, message: Message) -> bool:
        """Return True if the message is of one of the streams."""
        if self._patterns is None:
            return True
        stream_id = stream_of(message)
        if stream_id is None:
            self.nameless += 1
            return False
        return self.has_stream(stream_id)

    def has_stream(self, stream_id: str) -> bool:
        """Return True if this is one of the streams."""
        return self._patterns is None or any(fnmatchcase(stream_id, pattern) for pattern in self._patterns)


def stream_of(message: Message) -> str | None:
    """Return the stream that key and headers name; None if they name no valid one."""
    stream = read_stream(message.key, message.headers)
    return None if stream.refused else stream.stream_id
