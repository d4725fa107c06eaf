"""The order in which messages are decoded: the stream that has used the least time is next, so that none starves.

Messages wait in lanes, one for each stream of a partition. Streams that have no committed batch share one lane, since a
producer can make up any number of names. The next message is taken from the lane that has used the least time so far
(start-time fair queueing). A lane that was empty meanwhile is advanced to the others: it is served next, but saves
nothing up. A guess of the time is charged before the decode and corrected after it, so messages need not be looked into
for an estimate. Deficit round robin would let a stream that comes back wait for a turn of each of the others.

Where memory is short, a message of one image is *held* until its stream is ready to be decoded (`readiness`). A lane
whose turn it is then begins a whole batch: the waiting messages of the batch go before all lanes, and room for their
pixels is promised to them. If batches took turns there, each could have half of its pixels and none all, with no room
left.

How far a message is, is kept once: in the stage of its job. All counts follow from the stages (`Lanes._count`).

The order in which messages are decoded changes no result: those of one stream come back in the order of the log.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from adawise.records import DecodedMessage, Message
from adawise.worker.batching import NOTHING_OPEN, OpenPart

BOOKKEEPING_BYTES = 1_024  # that a message takes beside its value and headers: 900 by tracemalloc
_HEADER_BYTES = 160  # a header beside its name and value
_GUESS_S = 0.005  # what the first message of a lane is taken for; a camera's picture is about that
_QUICK_S = 0.025


class JobStage(IntEnum):
    """The stages of a message on its way through the queue."""

    WAITING = 0  # in its lane; its batch is not complete, and it is decoded only where memory is not short
    DECODABLE = 1  # in its lane; it may be decoded, since its batch is complete or it is no single image
    HELD = 2  # in no lane: its batch is not complete, and memory is short
    NEXT = 3  # of a batch that was begun, which goes before all lanes
    DECODING = 4
    DECODED = 5  # not all that came before it of its streams was taken
    READY = 6  # to be taken
    TAKEN = 7  # a message that is put back has a new job, which begins as held


WAITING, DECODABLE, HELD, NEXT, DECODING, DECODED, READY, TAKEN = JobStage

_STEPS: dict[JobStage, set[JobStage]] = {
    WAITING: {DECODABLE, HELD, DECODING},
    DECODABLE: {NEXT, DECODING},
    HELD: {WAITING, DECODABLE},
    NEXT: {DECODING},
    DECODING: {DECODED},
    DECODED: {READY},
    READY: {TAKEN},
    TAKEN: set(),
}


@dataclass(slots=True, eq=False)
class Lane:
    """A queue of messages that are decoded in order.

    Attributes:
        stream: the stream of the lane; None for the shared lane.
        used_s: virtual time: the time that the lane has used, advanced when it comes back after it was empty.
        waiting: messages to be decoded; some that no longer wait here are dropped when they come to the front.
        undecoded: the number of its messages that are not decoded. A lane that has some is not deleted.
        guess_s: seconds that its next message is expected to take, which is what the last one took.
        queued: True while the lane is in a heap.
    """

    stream: str | None
    used_s: float
    waiting: deque[Job] = field(default_factory=deque)
    undecoded: int = 0
    guess_s: float = _GUESS_S
    queued: bool = False

    @property
    def is_slow(self) -> bool:
        """True if its next message is expected to take long."""
        return self.guess_s > _QUICK_S

    def drop_begun(self) -> None:
        """Drop the messages at the front that no longer wait here: a lane may not come first for a long time."""
        while self.waiting and ((job := self.waiting[0]).lane is not self or job.stage > DECODABLE):
            self.waiting.popleft()


@dataclass(slots=True, eq=False)
class Job:
    """A message on its way through the queue.

    Attributes:
        message: the message.
        streams: the streams among whose messages it must come back in its place.
        lane: its lane.
        partition: the lanes of its partition.
        isolated: True if it is decoded in an isolated process.
        is_single: True if it is one image, which may wait until its batch is complete.
        stage: how far it is.
        size_bytes: bytes of the message, and of its images once it is decoded.
        read_s: when the message was read, or when the first of its batch was if it was put back.
        part: of a single image, the batch that would be open after it (`readiness`).
        charged_s: seconds that its lane was charged when its decode began.
        decoded: the result, or the exception that the decode raised.
    """

    message: Message
    streams: frozenset[str]
    lane: Lane
    partition: Lanes
    isolated: bool
    is_single: bool
    stage: JobStage
    size_bytes: int
    read_s: float
    part: OpenPart = NOTHING_OPEN
    charged_s: float = 0.0
    decoded: DecodedMessage | BaseException | None = None

    @property
    def stream(self) -> str:
        """The stream of a single image."""
        return next(iter(self.streams))

    @property
    def is_unready(self) -> bool:
        """True if it waits for the rest of its batch, and is decoded before only where memory is not short."""
        stage = self.stage  # read once: a decode thread may move it from one to the other meanwhile
        return stage is WAITING or stage is HELD


def message_bytes(message: Message) -> int:
    """Return the bytes that a message takes until it is decoded."""
    headers = sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in message.headers)
    return len(message.value or b"") + headers + BOOKKEEPING_BYTES


_Heap = list[tuple[float, int, Lane]]  # by what was used when it was put there


class Lanes:
    """The lanes of one partition, and the order in which each stream's messages are to come back.

    Attributes:
        used_s: seconds of decoding that the whole partition was charged.
        counts: the number of jobs in each stage.
        sizes: the bytes of the jobs in each stage.
        singles: the number of jobs that are single images and not taken.
        order: the jobs of each stream that are not taken, in the order of the log. Only the thread that adds and takes
            messages changes what is in it, so that this thread may read it at any time.
        ready: the jobs that can be taken.
        lacks_room: True if the last `next` found a batch, but no room for it.
    """

    def __init__(self) -> None:
        self.used_s = self._now_s = 0.0
        self.counts, self.sizes, self.singles = [0] * len(JobStage), [0] * len(JobStage), 0
        self.order: dict[str, deque[Job]] = {}
        self.ready: deque[Job] = deque()
        self.lacks_room = False
        self._lanes: dict[str | None, Lane] = {}
        # Of quick and of slow lanes; an entry that is out of date is seen when it is first.
        self._heaps: tuple[_Heap, _Heap] = [], []
        self._numbers = itertools.count()
        self._held: dict[str, None] = {}  # the streams with held messages, those that were held first at the front
        self._next: tuple[deque[Job], deque[Job]] = deque(), deque()  # quick and slow: of batches that were begun

    @property
    def jobs(self) -> int:
        """The number of messages that are not taken."""
        return sum(self.counts[:TAKEN])

    @property
    def waiting(self) -> int:
        """The number of messages whose decode has not begun."""
        return sum(self.counts[:DECODING])

    @property
    def decoded(self) -> int:
        """The number of messages that are decoded and not taken."""
        return self.counts[DECODED] + self.counts[READY]

    @property
    def held(self) -> int:
        """The number of messages that are held until their batch is ready to be decoded."""
        return self.counts[HELD]

    @property
    def promised(self) -> int:
        """The number of messages that are not decoded and for whose images room is reserved."""
        return self.counts[NEXT] + self.counts[DECODING]

    @property
    def waiting_bytes(self) -> int:
        """Bytes of messages that are not decoded."""
        return sum(self.sizes[:DECODED])

    @property
    def unready_bytes(self) -> int:
        """Bytes of messages that wait for the rest of their batch."""
        return self.sizes[WAITING] + self.sizes[HELD]

    @property
    def held_bytes(self) -> int:
        """Bytes of messages and images that are decoded and not taken."""
        return self.sizes[DECODED] + self.sizes[READY]

    def add(
        self,
        message: Message,
        streams: frozenset[str],
        *,
        shares_lane: bool,
        isolated: bool = False,
        is_single: bool = False,
        hold: bool = False,
        read_s: float = 0.0,
    ) -> None:
        """Queue a message behind the earlier messages of its streams.

        Args:
            message: the message.
            streams: the streams of which it may have images.
            shares_lane: put it into the shared lane, since not all of its streams have a lane of their own.
            isolated: decode it in an isolated process.
            is_single: it is a single image.
            hold: hold it, if it is a single image, until its batch is ready to be decoded.
            read_s: when it was read.
        """
        stream = None if shares_lane or len(streams) != 1 else next(iter(streams))
        lane = self._lane(stream)
        hold = is_single and (hold or next(iter(streams)) in self._held)
        stage = HELD if hold else WAITING if is_single else DECODABLE
        before = self.order.get(stream) if stream is not None else None
        if before and before[-1].lane is not lane:  # it has become known
            self._change_lane(before, lane)
        job = Job(message, streams, lane, self, isolated, is_single, stage, message_bytes(message), read_s)
        self._count(job, 1)
        for name in streams:
            if not is_single:  # it is decoded at once, so the earlier messages that it waits for must be too
                self.make_ready(name, message.offset)
            self.order.setdefault(name, deque()).append(job)
        if hold:
            self._held[job.stream] = None
        else:
            lane.waiting.append(job)
        self._queue(lane)

    def _change_lane(self, jobs: Iterable[Job], lane: Lane) -> None:
        for job in jobs:
            if job.stage < DECODING and job.lane is not lane:
                self._count(job, -1)
                job.lane = lane
                self._count(job, 1)
                if job.stage <= DECODABLE:
                    lane.waiting.append(job)

    def unready(self, stream: str) -> Iterator[Job]:
        """Yield the messages of a stream that wait for the rest of their batch, the newest first."""
        for job in reversed(self.order.get(stream, ())):
            if job.is_unready:
                yield job
            elif job.stage < DECODING:  # what comes before is ready, too
                break

    def make_ready(self, stream: str, until: int) -> None:
        """Let the messages of a stream below an offset be decoded, even where memory is short."""
        ready = [job for job in self.unready(stream) if job.message.offset < until]
        if any(job.stage is HELD for job in ready):
            self.release(stream, until)
        for job in ready:
            if job.stage is WAITING:
                self._move(job, DECODABLE)

    def release(self, stream: str, until: int = 0) -> None:
        """Return the held messages of a stream to its lane; those below an offset may be decoded at once.

        They go before later messages of the stream, or to the end of the shared lane.
        """
        del self._held[stream]
        jobs = [job for job in self.unready(stream) if job.stage is HELD][::-1]
        lane = jobs[0].lane
        self._change_lane(jobs, lane)  # while they were held, the stream may have lost its own
        lane.used_s = max(lane.used_s, self._now_s)  # it has slept
        for job in jobs:
            self._move(job, DECODABLE if job.message.offset < until else WAITING)
        if lane.stream is None:
            lane.waiting.extend(jobs)
        else:
            lane.waiting.extendleft(reversed(jobs))
        self._queue(lane)

    def put_back(
        self, jobs: Sequence[tuple[Message, bool]], stream: str, *, shares_lane: bool, read_s: float = 0.0
    ) -> bool:
        """Hold messages that were taken, before all others of their stream.

        Args:
            jobs: each message, and whether it is decoded in an isolated process.
            stream: their stream.
            shares_lane: whether the stream has no lane of its own.
            read_s: when the first of them was read.

        Returns:
            False, without any change, if a later message of the stream is ready to be decoded, or its decode has begun.
        """
        order = self.order.get(stream, deque())
        if not all(job.is_unready for job in order):
            return False
        lane = order[0].lane if order else self._lane(None if shares_lane else stream)
        self.order[stream], self._held[stream], streams = order, None, frozenset([stream])
        for message, isolated in reversed(jobs):
            job = Job(message, streams, lane, self, isolated, True, HELD, message_bytes(message), read_s)
            self._count(job, 1)
            order.appendleft(job)
        return True

    def next(self, *, quick: bool, eager: bool, images: float, must: bool) -> Job | None:
        """Begin the next message, if one may be begun, and return its job.

        Args:
            quick: consider lanes of quick messages only.
            eager: there is memory to decode any message. Otherwise only these are begun: messages that are no single
                image, and whole batches that are ready to be decoded and for which there is room.
            images: how many images there is room for.
            must: begin a batch even if there is not enough room for it.
        """
        if not quick:
            self.lacks_room = False
        # While a batch lacks room, its lane is looked at even if it is slow: all other threads may be busy.
        while (lane := self.first(quick=quick and (eager or not self.lacks_room))) is not None or (
            eager and not quick and self._held
        ):
            if lane is None:
                self.release(next(iter(self._held)))
                continue
            job = lane.waiting[0]
            if job.stage is WAITING and (not eager or job.stream in self._held):
                self._leave(lane)
                self._move(job, HELD)
                self._held[job.stream] = None
            elif eager or not job.is_single:
                if quick and lane.is_slow:
                    self.lacks_room = False
                    continue
                self._leave(lane)
                return self._begin(job)
            else:
                batch = self._batch(job.stream)
                self.lacks_room = len(batch) > images and not must
                if self.lacks_room:
                    return None
                self._promise(batch)
                if (begun := self.begin_promised(quick=quick)) is not None:
                    return begun
                images, must = images - len(batch), False  # the other threads decode it
        self.lacks_room = False
        return None

    def begin_promised(self, *, quick: bool) -> Job | None:
        """Begin the next message (a `quick` one) of the batches that were begun, and return its job; None if none."""
        for jobs in self._next[: 1 if quick else 2]:
            while jobs:
                job = jobs.popleft()
                if job.stage is NEXT:
                    return self._begin(job)
        return None

    def _batch(self, stream: str) -> list[Job]:
        """Return a stream's first messages that may be decoded, up to the end of a batch.

        Its other batches take their turns among the other lanes: how long they take is only known by decoding one.
        """
        found = list[Job]()
        for job in self.order[stream]:
            if job.is_single and job.stage is DECODABLE:
                found.append(job)
                # It is the last of its batch, or it came too late for the batch before, which it ends.
                if not job.part.images or (job.part.images == 1 and len(found) > 1):
                    break
        return found

    def _promise(self, batch: list[Job]) -> None:
        """Begin a batch: its messages go before all lanes."""
        for job in batch:
            self._move(job, NEXT)
            self._next[job.lane.is_slow].append(job)
        for lane in {id(job.lane): job.lane for job in batch}.values():
            lane.drop_begun()

    def _move(self, job: Job, to: JobStage) -> None:
        """Move a job to its next stage."""
        assert to in _STEPS[job.stage], f"{job.message.offset}: from {job.stage!r} to {to!r}"
        self._count(job, -1)
        job.stage = to
        self._count(job, 1)

    def _count(self, job: Job, sign: int) -> None:
        """Count a job as what it is now (1), or no longer (-1)."""
        stage = job.stage
        self.counts[stage] += sign
        self.sizes[stage] += sign * job.size_bytes
        self.singles += sign * (job.is_single and stage is not TAKEN)
        job.lane.undecoded += sign * (stage < DECODED)

    def first(self, *, quick: bool) -> Lane | None:
        """Return the lane (a `quick` one) that has used the least of those with waiting messages; None if none has."""
        heaps = self._heaps[: 1 if quick else 2]
        while True:
            found = [lane for heap in heaps if (lane := self._first_of(heap)) is not None]
            if all(self._heaps[lane.is_slow][0][2] is lane for lane in found):  # none was moved before another
                return min(found, key=lambda lane: lane.used_s, default=None)

    def _leave(self, lane: Lane) -> None:
        """Remove the next message from a lane that is first."""
        heapq.heappop(self._heaps[lane.is_slow])
        lane.queued = False
        lane.waiting.popleft()
        self._queue(lane)

    def begin_awaited(self) -> Job | None:
        """Begin the message, first in the log, that decoded messages wait for; return its job.

        Return None if no decoded message waits for one that is not begun.
        """
        heads = (jobs[0] for jobs in self.order.values() if any(job.stage >= DECODED for job in jobs))
        awaited = min((job for job in heads if job.stage < DECODING), key=lambda job: job.message.offset, default=None)
        if awaited is None:
            return None
        if awaited.stage is HELD:
            self.release(awaited.stream)
        return self._begin(awaited)

    def _begin(self, job: Job) -> Job:
        lane = job.lane
        self._now_s = max(self._now_s, lane.used_s)
        self._move(job, DECODING)
        self._charge(job, lane.guess_s)
        job.charged_s = lane.guess_s
        self._queue(lane)
        return job

    def end(self, job: Job, decoded: DecodedMessage | BaseException, took_s: float) -> None:
        """Note that a job's decode ended with a result or an exception, and how many seconds it took."""
        job.decoded, job.lane.guess_s = decoded, took_s
        self._charge(job, took_s - job.charged_s)
        self._queue(job.lane)
        self._count(job, -1)
        job.size_bytes = 0
        if isinstance(decoded, DecodedMessage):
            job.size_bytes = len(job.message.value or b"")
            job.size_bytes += sum(frame.image.nbytes for frame in decoded.frames if frame.image is not None)
        self._count(job, 1)
        self._move(job, DECODED)
        if self._is_next(job):
            self._make_ready(job)
        if not any(self.counts[:DECODED]):  # all is decoded: no lane is ahead of another
            self._lanes, self._heaps = {}, ([], [])

    def take(self) -> Job | None:
        """Return a decoded job whose predecessors of the same streams were all taken; None if there is none."""
        if not self.ready:
            return None
        job = self.ready.popleft()
        self._move(job, TAKEN)
        for name in job.streams:
            following = self.order[name]
            following.popleft()
            if not following:
                del self.order[name]
            elif following[0].stage is DECODED and self._is_next(following[0]):
                self._make_ready(following[0])
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
            elif not lane.undecoded:  # as good as new
                del self._lanes[lane.stream]
        return None

    def _is_next(self, job: Job) -> bool:
        return all(self.order[name][0] is job for name in job.streams)

    def _make_ready(self, job: Job) -> None:
        self._move(job, READY)
        self.ready.append(job)

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
