"""The loop that records from a source until a limit is reached, and the pace of the recording, for its progress."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from adawise.errors import AdawiseError, RetryableError, SourceError
from adawise.ports import Source
from adawise.recording.buffer import wall_ms
from adawise.recording.recorder import Recorder, RecordingProgress
from adawise.records import Message, TopicPartition
from adawise.text import as_duration, as_size

_POLL_S = 0.5
_HINT_EVERY_S = 60.0  # a hint that was lost in a rebalance is repeated by then
_SOON_S, _FEW = 10.0, 100  # seconds and messages that it may be behind and still count as having caught up


@dataclass(slots=True)
class Bounds:
    """The limits at which a recording run ends; None for no limit.

    Args:
        max_messages: exactly this many are recorded, if they come.
        max_bytes: of values; recording stops with the message that reaches it.
        max_seconds: since the call, by its clock.
        until_ms: a partition ends before its first message with this timestamp or a later one; the run ends when all
            have, or once the time has come and everything was read.
        until_drained: stop when every owned partition was read up to its end.
        ended: the partitions that ended by `until_ms`.
    """

    max_messages: int | None = None
    max_bytes: int | None = None
    max_seconds: float | None = None
    until_ms: int | None = None
    until_drained: bool = False
    ended: set[TopicPartition] = field(default_factory=set)  # by `until_ms`

    def is_full(self, recorded: RecordingProgress) -> bool:
        """Return True if enough was recorded."""
        enough = self.max_messages is not None and recorded.messages >= self.max_messages
        return enough or (self.max_bytes is not None and recorded.size_bytes >= self.max_bytes)

    def takes(self, message: Message) -> bool:
        """Return False for a message of a partition that has come to its end."""
        if self.until_ms is not None and message.timestamp_ms >= self.until_ms:
            self.ended.add(message.topic_partition)
        return message.topic_partition not in self.ended

    def is_over(self, source: Source, owned: set[TopicPartition], seconds: float, now_ms: int) -> bool:
        """Return True if there is nothing more to wait for."""
        if source.exhausted or (self.max_seconds is not None and seconds >= self.max_seconds):
            return True
        past = self.until_ms is not None and now_ms >= self.until_ms
        if not owned or not (self.until_drained or past or self.ended >= owned):
            return False
        return all(tp in self.ended or source.drained(tp) or source.blocked(tp) for tp in owned)


def record(
    source: Source,
    recorder: Recorder,
    bounds: Bounds | None = None,
    *,
    on_progress: Callable[[RecordingProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    skip_gaps: bool = False,
) -> RecordingProgress:
    """Record from `source` until it is over or `stop` returns True; then write the last files.

    Args:
        source: the messages.
        recorder: writes them.
        bounds: the limits of the run; None for none.
        on_progress: called after each poll.
        stop: asked before each poll.
        clock: monotonic seconds.
        skip_gaps: note what the broker has deleted unread as a gap, instead of raising SourceError.

    Raises:
        SourceError: the source no longer has, or never had, the offset at which the recording goes on; or the topic is
            another one: then nothing more is written. Or a partition is blocked, and all else was read.
        BrokerUnavailable, StoreUnavailable: what was read so far is written, as far as broker and store allow.
    """
    bounds = bounds or Bounds()
    began_s = clock()
    owned: set[TopicPartition] = set()
    hints = _Hints(source, recorder)
    standing: list[TopicPartition] = []
    try:
        while not stop():
            poll = source.poll(_POLL_S)
            owned = (owned - set(poll.lost)) | set(poll.assigned)
            recorder.forget(poll.lost)
            _begin(source, recorder, poll.assigned, skip_gaps=skip_gaps)
            full = _append(source, recorder, poll.messages, bounds, clock())
            recorder.flush_due(clock())
            hints.turn(clock())
            on_progress(recorder.recorded)
            if full or bounds.is_over(source, owned, clock() - began_s, wall_ms()):
                standing = [] if full else [tp for tp in sorted(owned - bounds.ended) if source.blocked(tp)]
                break
    except RetryableError:
        with suppress(AdawiseError):  # the next recorder reads it again
            recorder.flush()
        raise
    recorder.flush()
    hints.turn(clock())
    if standing:
        raise SourceError(
            f"{', '.join(map(str, standing))} cannot be read to the end: see the line above. Messages before it "
            "are stored; the same command continues from there, and with kafka.on_unreadable=skip past it."
        )
    return recorder.recorded


class _Hints:
    """The group's committed offsets, for lag tools: what is durable is committed, and all of it again now and then."""

    def __init__(self, source: Source, recorder: Recorder) -> None:
        self._source, self._recorder = source, recorder
        self._committed: dict[TopicPartition, int] = {}
        self._committed_s: float | None = None

    def turn(self, now_s: float) -> None:
        """Commit what is new; call it after each poll, and at the end."""
        durable = self._recorder.durable
        if self._committed_s is None or now_s - self._committed_s >= _HINT_EVERY_S:
            self._committed, self._committed_s = {}, now_s
        if news := {tp: at for tp, at in durable.items() if self._committed.get(tp) != at}:
            self._source.commit(news)
        self._committed = durable


def _begin(source: Source, recorder: Recorder, tps: Sequence[TopicPartition], *, skip_gaps: bool) -> None:
    for tp in tps:
        known = recorder.next_offset(tp)
        offset = recorder.folder.begin(tp, source.log.origin(tp)) if known is None else known
        start, end = source.log.bounds(tp)
        if offset > end or (offset < start and not skip_gaps):
            raise SourceError(
                f"the recording of {tp} goes on at offset {offset}, but the topic holds [{start}, {end}). "
                "Record into a new folder; the old one is complete up to there."
            )
        recorder.begin(tp, offset, start)
        source.seek(tp, max(offset, start))
    source.resume(tps)


def _append(source: Source, recorder: Recorder, messages: Sequence[Message], bounds: Bounds, now_s: float) -> bool:
    """Take messages up to the limits; return True if enough was recorded."""
    for message in messages:
        if bounds.is_full(recorder.recorded):
            return True
        if bounds.takes(message):
            recorder.append([message], now_s)
        else:
            source.pause([message.topic_partition])
    return bounds.is_full(recorder.recorded)


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
        self._since = clock(), RecordingProgress(), 0

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
