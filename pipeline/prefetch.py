"""Decoding ahead of the model, by threads that serve whoever has used them least, so that no stream starves another.

Pillow releases the interpreter lock, so threads are enough, and the forward of one round overlaps with the decode of
the next.

Messages wait in lanes, one for each stream of a partition. A free thread goes to the partition, and there to the lane,
that has used the least time so far (start-time fair queueing). Who had nothing to do meanwhile is put where the others
are: he is served next, but saves nothing up. Time is charged as it was spent, a guess before and the rest after: that
asks for no look into a message, and is right where estimates are not. Deficit round robin would let a stream that comes
back wait for a turn of each of the others. Streams that have no committed batch share one lane: a name costs nothing.

The order in which messages are decoded changes no result: those of one stream come back in the order of the log.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from pipeline.records import DecodedMessage, Message, TopicPartition

BOOKKEEPING_BYTES = 4_096  # that a message takes beside its value, generously
_GUESS_S = 0.005  # what the first message of a lane is taken for; a camera's picture is about that


@dataclass(slots=True, eq=False)
class _Lane:
    """Messages that are decoded in their order; `used_s` is virtual: time used, and what it slept through."""

    stream: str | None
    used_s: float
    waiting: deque[_Job] = field(default_factory=deque)
    running: int = 0
    guess_s: float = _GUESS_S
    queued: bool = False


@dataclass(slots=True, eq=False)
class _Job:
    message: Message
    streams: frozenset[str]  # of these it must come back in its place
    lane: _Lane
    partition: _Partition
    charged_s: float = -1.0  # below 0: not begun
    decoded: DecodedMessage | BaseException | None = None
    image_bytes: int = 0

    @property
    def message_bytes(self) -> int:
        return len(self.message.value or b"") + BOOKKEEPING_BYTES


class _Partition:
    """Lanes of one partition, and the order in which each stream's messages are to come back."""

    def __init__(self) -> None:
        self.used_s = self._now_s = 0.0
        self.waiting = self.waiting_bytes = self.held_bytes = self.jobs = self._running = 0
        self.ready: deque[_Job] = deque()
        self._order: dict[str, deque[_Job]] = {}
        self._lanes: dict[str | None, _Lane] = {}
        self._heap: list[tuple[float, int, _Lane]] = []  # of what may be waiting; where more was used since, it is late
        self._numbers = itertools.count()

    def add(self, message: Message, streams: frozenset[str], *, shares_lane: bool) -> None:
        stream = None if shares_lane or len(streams) != 1 else next(iter(streams))
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = _Lane(stream, self._now_s)
        job = _Job(message, streams, lane, self)
        for name in streams:
            before = self._order.setdefault(name, deque())
            if stream is not None and before and before[-1].lane is not lane:  # it has become known
                for earlier in before:
                    if earlier.charged_s < 0.0 and earlier.lane is not lane:
                        earlier.lane = lane
                        lane.waiting.append(earlier)
            before.append(job)
        lane.waiting.append(job)
        self.jobs += 1
        self.waiting += 1
        self.waiting_bytes += job.message_bytes
        self._queue(lane)

    def begin(self) -> _Job:
        """The next one, of the lane that has used the least; there is one."""
        while True:
            key, _, lane = heapq.heappop(self._heap)
            lane.queued = False
            while lane.waiting and lane.waiting[0].lane is not lane:
                lane.waiting.popleft()
            if lane.used_s > key:
                self._queue(lane)
            elif lane.waiting:
                break
            elif not lane.running:  # as good as new
                del self._lanes[lane.stream]
        self._now_s = max(self._now_s, lane.used_s)
        job = lane.waiting.popleft()
        lane.running += 1
        self._running += 1
        self.waiting -= 1
        self._charge(job, lane.guess_s)
        job.charged_s = lane.guess_s
        self._queue(lane)
        return job

    def end(self, job: _Job, decoded: DecodedMessage | BaseException, took_s: float) -> None:
        job.decoded, job.lane.guess_s = decoded, took_s
        job.lane.running -= 1
        self._charge(job, took_s - job.charged_s)
        self._queue(job.lane)
        if isinstance(decoded, DecodedMessage):
            job.image_bytes = sum(frame.image.nbytes for frame in decoded.frames if frame.image is not None)
        self.waiting_bytes -= job.message_bytes
        self.held_bytes += job.image_bytes
        if self._is_next(job):
            self.ready.append(job)
        self._running -= 1
        if not self.waiting and not self._running:  # idle: nobody is ahead of anybody
            self._lanes.clear()
            self._heap.clear()

    def take(self) -> _Job | None:
        if not self.ready:
            return None
        job = self.ready.popleft()
        self.jobs -= 1
        self.held_bytes -= job.image_bytes
        for name in job.streams:
            following = self._order[name]
            following.popleft()
            if not following:
                del self._order[name]
            elif following[0].decoded is not None and self._is_next(following[0]):
                self.ready.append(following[0])
        return job

    def _is_next(self, job: _Job) -> bool:
        return all(self._order[name][0] is job for name in job.streams)

    def _charge(self, job: _Job, seconds: float) -> None:
        job.lane.used_s += seconds
        self.used_s += seconds

    def _queue(self, lane: _Lane) -> None:
        if not lane.queued:
            lane.queued = True
            heapq.heappush(self._heap, (lane.used_s, next(self._numbers), lane))


class Prefetch:
    """Messages under decode.

    Args:
        decode: message -> frames; called from the threads, must not raise.
        streams: of which streams a message may have images, told without decoding it.
        threads: >= 1; they begin with the first message.
        clock: seconds of this thread.
    """

    def __init__(
        self,
        decode: Callable[[Message], DecodedMessage],
        streams: Callable[[Message], frozenset[str]],
        *,
        threads: int,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._decode, self._streams, self._clock, self._room_bytes = decode, streams, clock, sys.maxsize
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._changed = threading.Condition()
        self._running, self._now_s, self._closed = 0, 0.0, False
        self._threads = [threading.Thread(target=self._work, name=f"decode_{n}", daemon=True) for n in range(threads)]

    def submit(self, message: Message, known: Container[str]) -> frozenset[str]:
        """Begin to decode a message, after those that came before it of the same streams, which are returned.

        `known`: streams of its partition that have a lane of their own.
        """
        streams = self._streams(message)
        with self._changed:
            partition = self._partitions.setdefault(message.topic_partition, _Partition())
            if not partition.waiting:
                partition.used_s = max(partition.used_s, self._now_s)
            partition.add(message, streams, shares_lane=not all(name in known for name in streams))
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return streams

    def take(self, tp: TopicPartition) -> DecodedMessage | None:
        """A message of the partition that is decoded, as those before it of its streams were taken; None if none is."""
        with self._changed:
            partition = self._partitions.get(tp)
            job = partition.take() if partition is not None else None
            self._changed.notify_all()
        decoded = job.decoded if job is not None else None
        if isinstance(decoded, BaseException):
            raise decoded
        return decoded

    @property
    def is_empty(self) -> bool:
        """True if nothing is under way."""
        with self._changed:
            return not any(partition.jobs for partition in self._partitions.values())

    @property
    def bytes(self) -> int:
        """Of messages that are not decoded, and of images that wait to be taken."""
        with self._changed:
            return sum(partition.waiting_bytes + partition.held_bytes for partition in self._partitions.values())

    def waiting_bytes(self, tp: TopicPartition) -> int:
        """Of the partition's messages that are not decoded."""
        with self._changed:
            return self._partitions[tp].waiting_bytes if tp in self._partitions else 0

    def make_room(self, size_bytes: int) -> None:
        """Let the images that wait to be taken have so many bytes; above, nothing more is decoded."""
        with self._changed:
            self._room_bytes = size_bytes
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Return when a message can be taken, or after `timeout_s`; at once if none is under way."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    any(p.ready for p in self._partitions.values())
                    or not any(p.jobs for p in self._partitions.values())
                ),
                timeout_s,
            )

    def drop(self, tp: TopicPartition) -> None:
        """Forget all messages of a partition that is no longer ours."""
        with self._changed:
            self._partitions.pop(tp, None)

    def close(self) -> None:
        """End the threads; what is not begun is not done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (job := self._next()) is None and not self._closed:
                    self._changed.wait()
            if job is None:
                return
            self._do(job)

    def _next(self) -> _Job | None:
        """Begin one, if there is room, or if what is held waits for one that is not decoded. With the lock."""
        partitions = self._partitions.values()
        waiting = [partition for partition in partitions if partition.waiting]
        is_full = sum(partition.held_bytes for partition in partitions) >= self._room_bytes
        if self._closed or not waiting or (is_full and (self._running or any(p.ready for p in partitions))):
            return None
        partition = min(waiting, key=lambda partition: partition.used_s)
        self._now_s = max(self._now_s, partition.used_s)
        self._running += 1
        return partition.begin()

    def _do(self, job: _Job) -> None:
        began_s = self._clock()
        decoded: DecodedMessage | BaseException
        try:
            decoded = self._decode(job.message)
        except BaseException as error:  # noqa: BLE001 -- a fault of ours: `take` raises it
            decoded = error
        took_s = self._clock() - began_s
        with self._changed:
            self._running -= 1
            job.partition.end(job, decoded, took_s)
            self._changed.notify_all()
