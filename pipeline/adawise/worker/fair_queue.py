"""The order in which messages are decoded: who has used the least time is next, so that no stream starves another.

Messages wait in lanes, one for each stream of a partition; streams that have no committed batch share one, since a name
costs nothing. The next message is of the lane that has used the least so far (start-time fair queueing). A lane that
had nothing meanwhile is put where the others are: it is served next, but saves nothing up. Time is charged as it was
spent, a guess before and the rest after: that asks for no look into a message, and is right where estimates are not.
Deficit round robin would let a stream that comes back wait for a turn of each of the others.

The order in which messages are decoded changes no result: those of one stream come back in the order of the log.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from adawise.records import DecodedMessage, Message

BOOKKEEPING_BYTES = 4_096  # that a message takes beside its value, generously
_GUESS_S = 0.005  # what the first message of a lane is taken for; a camera's picture is about that
_QUICK_S = 0.025


@dataclass(slots=True, eq=False)
class Lane:
    """Messages that are decoded in their order; `used_s` is virtual: time used, and what it slept through."""

    stream: str | None
    used_s: float
    waiting: deque[Job] = field(default_factory=deque)
    running: int = 0
    guess_s: float = _GUESS_S
    queued: bool = False

    @property
    def is_slow(self) -> bool:
        """True if its next message will take long, by the last one."""
        return self.guess_s > _QUICK_S


@dataclass(slots=True, eq=False)
class Job:
    """A message on its way: `charged_s` is below 0 until it is begun; `decoded` may be what was raised."""

    message: Message
    streams: frozenset[str]  # of these it must come back in its place
    lane: Lane
    partition: Lanes
    apart: bool = False
    charged_s: float = -1.0
    decoded: DecodedMessage | BaseException | None = None
    held_bytes: int = 0  # of the message and its images, until it is taken

    @property
    def message_bytes(self) -> int:
        """That it takes until it is decoded."""
        return len(self.message.value or b"") + BOOKKEEPING_BYTES


_Heap = list[tuple[float, int, Lane]]  # by what was used when it was put there


class Lanes:
    """Lanes of one partition, and the order in which each stream's messages are to come back.

    `used_s` is the partition's as a whole. `waiting` are not begun, `jobs` not taken; bytes are of what is not decoded,
    and of images that were not taken.
    """

    def __init__(self) -> None:
        self.used_s = self._now_s = 0.0
        self.waiting = self.waiting_bytes = self.held_bytes = self.jobs = self._running = 0
        self.ready: deque[Job] = deque()
        self._order: dict[str, deque[Job]] = {}
        self._lanes: dict[str | None, Lane] = {}
        self._heaps: tuple[_Heap, _Heap] = (
            [],
            [],
        )  # quick and slow lanes; what is out of date is seen when it is first
        self._numbers = itertools.count()

    def add(self, message: Message, streams: frozenset[str], *, shares_lane: bool, apart: bool = False) -> None:
        """A message that comes after those before it of these streams."""
        stream = None if shares_lane or len(streams) != 1 else next(iter(streams))
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = Lane(stream, self._now_s)
        job = Job(message, streams, lane, self, apart)
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

    def first(self, *, quick: bool) -> Lane | None:
        """The lane (a `quick` one) that has used the least of those in which something waits, if any does."""
        heaps = self._heaps[: 1 if quick else 2]
        while True:
            found = [lane for heap in heaps if (lane := self._first_of(heap)) is not None]
            if all(self._heaps[lane.is_slow][0][2] is lane for lane in found):  # none was moved before another
                return min(found, key=lambda lane: lane.used_s, default=None)

    def begin(self, lane: Lane) -> Job:
        """The next one of a lane that is first."""
        heapq.heappop(self._heaps[lane.is_slow])
        lane.queued = False
        return self._begin(lane.waiting.popleft())

    def begin_awaited(self) -> Job | None:
        """The first in the log of those that what is held waits for, if none is under way; None if none is awaited."""
        heads = (jobs[0] for jobs in self._order.values() if len(jobs) > 1)
        awaited = min((job for job in heads if job.charged_s < 0.0), key=lambda job: job.message.offset, default=None)
        return self._begin(awaited) if awaited is not None else None

    def _begin(self, job: Job) -> Job:
        lane = job.lane
        self._now_s = max(self._now_s, lane.used_s)
        lane.running += 1
        self._running += 1
        self.waiting -= 1
        self._charge(job, lane.guess_s)
        job.charged_s = lane.guess_s
        self._queue(lane)
        return job

    def end(self, job: Job, decoded: DecodedMessage | BaseException, took_s: float) -> None:
        """A job is done, and took so long."""
        job.decoded, job.lane.guess_s = decoded, took_s
        job.lane.running -= 1
        self._charge(job, took_s - job.charged_s)
        self._queue(job.lane)
        if isinstance(decoded, DecodedMessage):
            job.held_bytes = len(job.message.value or b"")
            job.held_bytes += sum(frame.image.nbytes for frame in decoded.frames if frame.image is not None)
        self.waiting_bytes -= job.message_bytes
        self.held_bytes += job.held_bytes
        if self._is_next(job):
            self.ready.append(job)
        self._running -= 1
        if not self.waiting and not self._running:  # nobody is ahead of anybody
            self._lanes, self._heaps = {}, ([], [])

    def take(self) -> Job | None:
        """One that is done, as are those before it of its streams; None if none is."""
        if not self.ready:
            return None
        job = self.ready.popleft()
        self.jobs -= 1
        self.held_bytes -= job.held_bytes
        for name in job.streams:
            following = self._order[name]
            following.popleft()
            if not following:
                del self._order[name]
            elif following[0].decoded is not None and self._is_next(following[0]):
                self.ready.append(following[0])
        return job

    def _first_of(self, heap: _Heap) -> Lane | None:
        while heap:
            key, _, lane = heap[0]
            while lane.waiting and (lane.waiting[0].lane is not lane or lane.waiting[0].charged_s >= 0.0):
                lane.waiting.popleft()
            if lane.waiting and lane.used_s <= key and heap is self._heaps[lane.is_slow]:
                return lane
            heapq.heappop(heap)
            lane.queued = False
            if lane.waiting:
                self._queue(lane)
            elif not lane.running:  # as good as new
                del self._lanes[lane.stream]
        return None

    def _is_next(self, job: Job) -> bool:
        return all(self._order[name][0] is job for name in job.streams)

    def _charge(self, job: Job, seconds: float) -> None:
        job.lane.used_s += seconds
        self.used_s += seconds

    def _queue(self, lane: Lane) -> None:
        if not lane.queued:
            lane.queued = True
            heapq.heappush(self._heaps[lane.is_slow], (lane.used_s, next(self._numbers), lane))
