"""Recording inside the worker, by `adawise.worker.commit`: no segment before the recording has its messages.

A thread of its own writes the files while the model runs, one at a time for each partition, since the name of the next
file follows from the outcome of the last. A race that is lost to another worker loses no data: the recording goes on
where the other's file ends, with the messages after that which are still in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from adawise.errors import LogEndsEarly, RetryableError, SourceError
from adawise.recording.buffer import Buffer, Draft, FilePolicy, merged
from adawise.recording.folder import Created, RecordingFolder
from adawise.recording.recorder import Streams
from adawise.recording.retention import Tidied
from adawise.records import Gap, Message, TopicPartition
from adawise.worker.passes import Passes

_log = logging.getLogger(__name__)

_TRY_AGAIN_S = 5.0  # if no segment waits for the file; a segment that waits has a backoff of its own


@dataclass(slots=True)
class _Part:
    """The recording of one partition: durable below `durable`, then the draft, then the buffer."""

    durable: int
    buffer: Buffer
    draft: Draft | None = None
    writing: Future[Created] | None = None
    error: RetryableError | None = None  # of the last attempt, until `ensure_durable` raises it
    again_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """The bytes of values in memory."""
        return self.buffer.size_bytes + (self.draft.buffer.size_bytes if self.draft else 0)

    def is_free(self, now_s: float) -> bool:
        """Return True if no file of it is being written, and an attempt is allowed."""
        return self.writing is None and now_s >= self.again_s


class WorkerRecorder:
    """The recording of what a worker reads.

    Args:
        folder: the folder to write to.
        check: called before each file is written; raises if the topic is no longer the one that was read from.
        policy: how files are cut, in addition to the cuts that segments need.
        max_buffered_bytes: of values, buffered and being written, over all partitions.
        streams: patterns of the streams to record; None for all.
        skip_gaps: go on where the broker's log begins if it no longer has what comes next, and note the gap.
        tidying: the passes that keep the promises of the folder.
        pool: runs the writes, in place of a thread.
    """

    def __init__(
        self,
        folder: RecordingFolder,
        *,
        check: Callable[[], None],
        policy: FilePolicy,
        max_buffered_bytes: int,
        streams: str | None = None,
        skip_gaps: bool = False,
        tidying: Passes[TopicPartition, Tidied] | None = None,
        pool: Executor | None = None,
    ) -> None:
        self._folder, self._check, self._policy = folder, check, policy
        self._max_buffered_bytes, self._skip_gaps, self._tidying = max_buffered_bytes, skip_gaps, tidying
        self._streams = Streams(streams)
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._parts: dict[TopicPartition, _Part] = {}
        self._now_s = 0.0
        self.races_lost = 0

    @property
    def share(self) -> float:
        """See `WriteAheadRecorder`."""
        return sum(part.size_bytes for part in self._parts.values()) / self._max_buffered_bytes

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """See `WriteAheadRecorder`."""
        known, (start, end) = self._folder.begin(tp, offset), log
        if known > end:
            raise LogEndsEarly(
                f"{tp}: the recording in {self._folder.root} goes on at offset {known}, but the broker's log ends "
                f"at {end}: the broker lost data, or this is another cluster. Restore the broker, or use another "
                "record.root."
            )
        gaps: tuple[Gap, ...] = ()
        if known < start:
            if not self._skip_gaps:
                raise SourceError(
                    f"{tp}: the recording in {self._folder.root} goes on at offset {known}, but the broker has "
                    f"deleted the messages before {start} (retention). To go on and record the gap, set "
                    "kafka.on_gap=skip; or use another record.root."
                )
            gaps = (Gap(known, start),)
        self._parts[tp] = _Part(known, Buffer(known, max(known, start), gaps))
        return min(offset, max(known, start))

    def take(self, message: Message) -> None:
        """See `WriteAheadRecorder`."""
        part = self._parts.get(message.topic_partition)
        if part is not None and message.offset >= part.buffer.next:
            wanted = message.missing is None and self._streams.has(message)
            part.buffer.add(message, wanted=wanted, now_s=self._now_s)

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """See `WriteAheadRecorder`."""
        part = self._parts[tp]
        until = min(until, part.buffer.next)  # the rest was in the chain before recording began
        while part.durable < until:
            self._settle(tp, part)
            if part.error is not None:
                error, part.error = part.error, None
                raise error
            if part.durable < until and part.writing is None:
                self._write(tp, part)
            if not wait:
                return part.durable >= until
            if part.writing is not None:
                futures.wait([part.writing])
        return True

    def turn(self, now_s: float) -> None:
        """See `WriteAheadRecorder`."""
        self._now_s = now_s
        for tp, part in self._parts.items():
            self._settle(tp, part)
            waits = part.draft is not None or part.buffer.due(self._policy, now_s)
            if waits and part.is_free(now_s):
                # Above half of the limit, the largest partition is written early.
                self._try(tp, part)
        free = {tp: part for tp, part in self._parts.items() if part.size_bytes and part.is_free(now_s)}
        if free and self.share > 0.5:
            self._try(*max(free.items(), key=lambda item: item[1].size_bytes))
        if self._tidying is not None:
            self._tidying.turn(self._parts, now_s)

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """See `WriteAheadRecorder`.

        A file that is being written is finished, and the partition's new owner goes on after it.
        """
        for tp in tps:
            self._parts.pop(tp, None)

    def close(self) -> None:
        """See `WriteAheadRecorder`."""
        self._parts.clear()
        self._pool.shutdown(wait=True)
        if self._tidying is not None:
            self._tidying.close()

    def _settle(self, tp: TopicPartition, part: _Part) -> None:
        """Note the outcome of the file that was being written; if it failed, the draft is kept."""
        if part.writing is None or not part.writing.done():
            return
        written, part.writing = part.writing, None
        try:
            created = written.result()
        except RetryableError as error:
            self._failed(part, error)
            return
        assert part.draft is not None
        part.durable, draft, part.draft = created.next, part.draft, None
        if created.won:
            return
        self.races_lost += 1
        part.buffer = merged(draft.buffer, part.buffer, created.next)
        _log.info("%s: another worker recorded offsets %d to %d", tp, draft.buffer.first, created.next - 1)

    def _write(self, tp: TopicPartition, part: _Part) -> None:
        """Begin to write the draft, or all that is buffered; raise what `check` raises."""
        self._check()
        part.error = None
        if part.draft is None:
            part.draft, part.buffer = Draft(tp, part.buffer), Buffer(part.buffer.next, part.buffer.next)
        part.writing = self._pool.submit(self._folder.create, part.draft)

    def _try(self, tp: TopicPartition, part: _Part) -> None:
        try:
            self._write(tp, part)
        except RetryableError as error:
            self._failed(part, error)

    def _failed(self, part: _Part, error: RetryableError) -> None:
        part.error, part.again_s = error, self._now_s + _TRY_AGAIN_S
        _log.warning("a file of the recording is written again in %g s: %s", _TRY_AGAIN_S, error)
