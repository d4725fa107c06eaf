"""The order in which messages are decoded: who has used the least time is next, so that no stream starves another.

Messages wait in lanes, one for each stream of a partition; streams that have no committed batch share one, since a name
costs nothing. The next message is of the lane that has used the least so far (start-time fair queueing). A lane that
had nothing meanwhile is put where the others are: it is served next, but saves nothing up. Time is charged as it was
spent, a guess before and the rest after: that asks for no look into a message, and is right where estimates are not.
Deficit round robin would let a stream that comes back wait for a turn of each of the others.

Where memory is short, a message of one image is *held* until its stream is ripe (`ripening`), and a lane whose turn it
is begins a whole batch: what of it waits goes before all lanes, and room for its pixels is promised to it. If batches
were decoded in turns there, each could have half of its pixels, none all, and no room would be left.

The order in which messages are decoded changes no result: those of one stream come back in the order of the log.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from adawise.records import DecodedMessage, Message

BOOKKEEPING_BYTES = 1_024  # that a message takes beside its value and headers: 900 by tracemalloc
_HEADER_BYTES = 160  # a header beside its name and value
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
    held: int = 0

    @property
    def is_slow(self) -> bool:
        """True if its next message will take long, by the last one."""
        return self.guess_s > _QUICK_S

    def drop_begun(self) -> None:
        """Forget those at the front that no longer wait here: a lane may not be first for a long time."""
        while self.waiting and ((job := self.waiting[0]).lane is not self or job.is_begun or job.is_next):
            self.waiting.popleft()


@dataclass(slots=True, eq=False)
class Job:
    """A message on its way: `charged_s` is below 0 until it is begun; `decoded` may be what was raised.

    `is_single`: it may be held. `is_held`, `is_next`: it waits in no lane, but until it is ripe, or before all lanes.
    `is_promised`: there is room for its image.
    """

    message: Message
    streams: frozenset[str]  # of these it must come back in its place
    lane: Lane
    partition: Lanes
    apart: bool = False
    is_single: bool = False
    is_held: bool = False
    is_next: bool = False
    is_promised: bool = False
    charged_s: float = -1.0
    decoded: DecodedMessage | BaseException | None = None
    held_bytes: int = 0  # of the message and its images, until it is taken

    @property
    def stream(self) -> str:
        """Of one that is single."""
        return next(iter(self.streams))

    @property
    def is_begun(self) -> bool:
        """True if it is decoded, or under way."""
        return self.charged_s >= 0.0


def message_bytes(message: Message) -> int:
    """That a message takes until it is decoded."""
    headers = sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in message.headers)
    return len(message.value or b"") + headers + BOOKKEEPING_BYTES


_Heap = list[tuple[float, int, Lane]]  # by what was used when it was put there


class Lanes:
    """Lanes of one partition, and the order in which each stream's messages are to come back.

    `used_s` is the partition's as a whole. `waiting` are not begun, of them `held` not ripe, `jobs` not taken; bytes
    are of what is not decoded, and of images that were not taken. `singles` are those of `jobs` that may be held,
    `promised` images that have room and are not decoded.
    """

    def __init__(self) -> None:
        self.used_s = self._now_s = 0.0
        self.waiting = self.waiting_bytes = self.held_bytes = self.jobs = self._running = 0
        self.held = self.singles = self.promised = 0
        self.ready: deque[Job] = deque()
        self._order: dict[str, deque[Job]] = {}
        self._lanes: dict[str | None, Lane] = {}
        self._heaps: tuple[_Heap, _Heap] = (
            [],
            [],
        )  # quick and slow lanes; what is out of date is seen when it is first
        self._numbers = itertools.count()
        self._held: dict[str, deque[Job]] = {}
        self._next: tuple[deque[Job], deque[Job]] = deque(), deque()  # quick and slow: of batches that were begun
        self._ripe_until: dict[str, int] = {}  # offsets

    def add(
        self,
        message: Message,
        streams: frozenset[str],
        *,
        shares_lane: bool,
        apart: bool = False,
        is_single: bool = False,
        hold: bool = False,
    ) -> None:
        """A message that comes after those before it of these streams; to `hold` if it is single."""
        stream = None if shares_lane or len(streams) != 1 else next(iter(streams))
        lane = self._lane(stream)
        job = Job(message, streams, lane, self, apart, is_single)
        for name in streams:
            before = self._order.setdefault(name, deque())
            if stream is not None and before and before[-1].lane is not lane:  # it has become known
                for earlier in before:
                    if not earlier.is_begun and earlier.lane is not lane:
                        earlier.lane.held -= earlier.is_held
                        lane.held += earlier.is_held
                        earlier.lane = lane
                        if not (earlier.is_held or earlier.is_next):
                            lane.waiting.append(earlier)
            before.append(job)
        self.jobs += 1
        self.singles += is_single
        self.waiting += 1
        self.waiting_bytes += message_bytes(message)
        if is_single and (hold or job.stream in self._held):
            self._hold(job)
        else:
            lane.waiting.append(job)
        self._queue(lane)

    def ripen(self, stream: str, until: int) -> None:
        """Messages of a stream below an offset may be decoded, even where memory is short."""
        self._ripe_until[stream] = until
        held = self._held.get(stream)
        if held and held[0].message.offset < until:
            self.release(stream)

    def release(self, stream: str) -> None:
        """Let what is held of a stream go back to its lane: before what came later, or to the end of a shared one."""
        jobs = self._held.pop(stream)
        lane = jobs[0].lane
        lane.used_s = max(lane.used_s, self._now_s)  # it has slept
        for job in jobs:
            self._let(job)
        if lane.stream is None:
            lane.waiting.extend(jobs)
        else:
            lane.waiting.extendleft(reversed(jobs))
        self._queue(lane)

    def put_back(self, jobs: Sequence[tuple[Message, bool]], stream: str, *, shares_lane: bool) -> bool:
        """These (and whether apart) were taken, and come again before all others of their stream, held until ripe.

        False, and nothing is done, if one that comes after them is begun.
        """
        order = self._order.get(stream, deque())
        if any(job.is_begun or job.is_next or not job.is_single for job in order):
            return False
        self._order[stream] = order
        lane = order[0].lane if order else self._lane(None if shares_lane else stream)
        for message, apart in reversed(jobs):
            job = Job(message, frozenset([stream]), lane, self, apart, is_single=True)
            order.appendleft(job)
            self._hold(job, first=True)
            self.waiting_bytes += message_bytes(message)
        self.jobs += len(jobs)
        self.singles += len(jobs)
        self.waiting += len(jobs)
        self._ripe_until.pop(stream, None)
        return True

    def next(self, *, quick: bool, eager: bool, images: float, must: bool) -> Job | None:
        """Begin the next one (a `quick` one), if one may be: what belongs to a batch that was begun, or a lane's first.

        Unless it is `eager`, only what is no single image, or is ripe and begins a batch for whose `images` there is
        room; or any batch, if it `must` be.
        """
        while (lane := self.first(quick=quick)) is not None or (eager and not quick and self._held):
            if lane is None:
                self.release(next(iter(self._held)))
                continue
            job = lane.waiting[0]
            is_ripe = not job.is_single or job.message.offset < self._ripe_until.get(job.stream, 0)
            if not is_ripe and (not eager or job.stream in self._held):
                self._leave(lane)
                self._hold(job)
            elif eager or not job.is_single:
                self._leave(lane)
                return self._begin(job)
            else:
                batch = self._ripe(job.stream)
                if len(batch) > images and not must:
                    return None
                self._promise(batch)
                return self.begin_promised(quick=quick)
        return None

    def begin_promised(self, *, quick: bool) -> Job | None:
        """Begin the next of the batches that were begun (a `quick` one), if there is one."""
        for jobs in self._next[: 1 if quick else 2]:
            while jobs:
                job = jobs.popleft()
                if not job.is_begun:
                    return self._begin(job)
        return None

    def _ripe(self, stream: str) -> list[Job]:
        until = self._ripe_until[stream]
        return [j for j in self._order[stream] if not j.is_begun and j.is_single and j.message.offset < until]

    def _promise(self, batch: list[Job]) -> None:
        """Begin a batch: it goes before all lanes."""
        for job in batch:
            if job.is_held:
                self._let(job)
                held = self._held[job.stream]
                held.popleft()
                if not held:
                    del self._held[job.stream]
            job.is_next = job.is_promised = True
            self._next[job.lane.is_slow].append(job)
        self.promised += len(batch)
        for lane in {id(job.lane): job.lane for job in batch}.values():
            lane.drop_begun()

    def _hold(self, job: Job, *, first: bool = False) -> None:
        job.is_held = True
        job.lane.held += 1
        self.held += 1
        held = self._held.setdefault(job.stream, deque())
        (held.appendleft if first else held.append)(job)

    def _let(self, job: Job) -> None:
        job.is_held = False
        job.lane.held -= 1
        self.held -= 1

    def first(self, *, quick: bool) -> Lane | None:
        """The lane (a `quick` one) that has used the least of those in which something waits, if any does."""
        heaps = self._heaps[: 1 if quick else 2]
        while True:
            found = [lane for heap in heaps if (lane := self._first_of(heap)) is not None]
            if all(self._heaps[lane.is_slow][0][2] is lane for lane in found):  # none was moved before another
                return min(found, key=lambda lane: lane.used_s, default=None)

    def _leave(self, lane: Lane) -> None:
        """Take the next one from a lane that is first."""
        heapq.heappop(self._heaps[lane.is_slow])
        lane.queued = False
        lane.waiting.popleft()
        self._queue(lane)

    def begin_awaited(self) -> Job | None:
        """The first in the log of those that what is held waits for, if none is under way; None if none is awaited."""
        heads = (jobs[0] for jobs in self._order.values() if any(job.decoded is not None for job in jobs))
        awaited = min((job for job in heads if not job.is_begun), key=lambda job: job.message.offset, default=None)
        if awaited is None:
            return None
        if awaited.is_held:
            self.release(awaited.stream)
        return self._begin(awaited)

    def _begin(self, job: Job) -> Job:
        lane = job.lane
        self._now_s = max(self._now_s, lane.used_s)
        lane.running += 1
        self._running += 1
        self.waiting -= 1
        self.promised += not job.is_promised
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
        self.waiting_bytes -= message_bytes(job.message)
        self.promised -= 1
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
        self.singles -= job.is_single
        for name in job.streams:
            following = self._order[name]
            following.popleft()
            if not following:
                del self._order[name]
                self._ripe_until.pop(name, None)
            elif following[0].decoded is not None and self._is_next(following[0]):
                self.ready.append(following[0])
        return job

    def _first_of(self, heap: _Heap) -> Lane | None:
        while heap:
            key, _, lane = heap[0]
            lane.drop_begun()
            if lane.waiting and lane.used_s <= key and heap is self._heaps[lane.is_slow]:
                return lane
            heapq.heappop(heap)
            lane.queued = False
            if lane.waiting:
                self._queue(lane)
            elif not lane.running and not lane.held:  # as good as new
                del self._lanes[lane.stream]
        return None

    def _is_next(self, job: Job) -> bool:
        return all(self._order[name][0] is job for name in job.streams)

    def _charge(self, job: Job, seconds: float) -> None:
        job.lane.used_s += seconds
        self.used_s += seconds

    def _lane(self, stream: str | None) -> Lane:
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = Lane(stream, self._now_s)
        return lane

    def _queue(self, lane: Lane) -> None:
        if not lane.queued:
            lane.queued = True
            heapq.heappush(self._heaps[lane.is_slow], (lane.used_s, next(self._numbers), lane))
