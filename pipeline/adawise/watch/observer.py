"""A queue of events from the worker's thread to the HTTP thread.

An event costs the worker's thread a tuple and an append. Events that the HTTP thread does not take in time are dropped
and counted, so that the queue cannot fill the memory. If the HTTP thread has taken nothing for a minute, it is presumed
dead: from then on fewer events are kept, until it takes some again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from adawise.errors import RetryableError
from adawise.records import ImageBatch
from adawise.watch.counts import Counters
from adawise.watch.row import LiveView
from adawise.watch.worker import LiveWorker, Pixels
from adawise.worker.events import (
    BatchServed,
    Event,
    ProducerMistaken,
    RetriesEnded,
    RetryScheduled,
    Stepped,
    WorkerProgress,
)

MOST = 65_536
"""The maximum number of events in the queue."""

MOST_UNREAD = 1_024
"""The maximum number of events in the queue once the HTTP thread has taken nothing for `_UNREAD_TURNS`."""

_PROGRESS_S = 1.0
_UNREAD_TURNS = 60  # progress reports, one each `_PROGRESS_S`: time in which the process was suspended does not count
_PICTURE_S = 10.0  # between two pictures of a camera
_PICTURES = 100_000  # cameras for which the time of the last picture is remembered


class _Progress(NamedTuple):
    """The worker's progress at a moment, its membership in the group, and the number of partitions of the topic."""

    progress: WorkerProgress
    is_member: bool
    partitions: int | None


class LiveObserver:
    """An observer of the worker that queues events until the HTTP thread calls `catch_up`.

    Args:
        worker: takes the events, only in the thread that calls `catch_up`.
        counters: updated by the events, only in that thread.
        keeps_pictures: True to keep the last image of each camera every ten seconds, at half its width and height.
        clock: seconds since the epoch that never go back, such as `steady()`.
    """

    def __init__(
        self, worker: LiveWorker, counters: Counters, *, keeps_pictures: bool, clock: Callable[[], float]
    ) -> None:
        self._worker, self._keeps_pictures, self._clock = worker, keeps_pictures, clock
        self.counters = counters
        self._events: deque[tuple[float, Event | _Progress, Pixels | None]] = deque()
        self._beat_s, self._stepped_s = clock(), 0.0
        self._pictured_s: dict[str, float] = {}
        self._unread_turns = 0
        self._failing: set[str] = set()
        self.is_member: Callable[[], bool] = lambda: True
        self.partitions: Callable[[], int | None] = lambda: None
        self.dropped = 0

    def catch_up(self) -> LiveWorker:
        """Take all queued events and return the worker's state. Only one thread may call it, not the worker's."""
        self._unread_turns = 0
        for _ in range(len(self._events)):
            try:
                now_s, event, pixels = self._events.popleft()
            except IndexError:  # the worker's thread dropped them meanwhile
                break
            if isinstance(event, _Progress):
                self._worker.progressed(now_s, event.progress, event.is_member, event.partitions)
            else:
                self._worker.observe(now_s, event, pixels)
                self.counters.add(event)
        for what in [*self._worker.health.outages]:
            # The event of its end may have been dropped, and no later event would end the outage.
            if what not in self._failing:
                self._worker.health.ended(what)
        self._worker.health.beat_s = self._beat_s
        self._worker.now_s = self._clock()
        return self._worker

    @property
    def waiting(self) -> int:
        """The number of events in the queue."""
        return len(self._events)

    def view(self) -> LiveView:
        """See `Provider`."""
        return self.catch_up().view()

    def picture(self, key: str) -> bytes | None:
        """See `Provider`."""
        return self._worker.picture(key)

    def _put(self, event: Event | _Progress, pixels: Pixels | None = None) -> None:
        now_s = self._beat_s = self._clock()
        is_unread = self._unread_turns >= _UNREAD_TURNS
        if is_unread and len(self._events) >= MOST_UNREAD:
            self.dropped += len(self._events)
            self._events.clear()
        if len(self._events) >= MOST:
            self.dropped += 1
        else:
            self._events.append((now_s, event, pixels))

    def observe(self, event: Event) -> None:
        """See `Observer`. Progress is queued about once a second; of a batch's images only a small picture is kept."""
        match event:
            case RetryScheduled():
                self._failing.add(event.what)
                self._put(event)
            case RetriesEnded():
                self._failing.discard(event.what)
                self._put(event)
            case Stepped():
                self._step(event.progress)
            case BatchServed(batch=ImageBatch() as batch):
                self._put(replace(event, batch=None, error=None), self._picture(batch))  # both hold megabytes
            case ProducerMistaken():  # its frame may be accepted, with an image
                self._put(replace(event, frame=replace(event.frame, image=None, statistics=None)))
            case _:
                self._put(event)

    def _step(self, progress: Callable[[], WorkerProgress]) -> None:
        now_s = self._beat_s = self._clock()
        if now_s - self._stepped_s >= _PROGRESS_S:
            self._stepped_s = now_s
            self._unread_turns += 1
            with suppress(RetryableError):  # the broker does not answer; a later step tries again
                self._put(_Progress(progress(), self.is_member(), self.partitions()))

    def _picture(self, batch: ImageBatch) -> Pixels | None:
        """Return the last image at half its width and height, at most every ten seconds for a stream; else None."""
        if not self._keeps_pictures or self._clock() - self._pictured_s.get(batch.stream_id, 0.0) < _PICTURE_S:
            return None
        if len(self._pictured_s) >= _PICTURES:
            self._pictured_s.clear()
        self._pictured_s[batch.stream_id] = self._clock()
        pixels: Pixels = batch.images[-1][:, ::2, ::2].contiguous().numpy()
        return pixels


def steady() -> Callable[[], float]:
    """Return a clock of seconds since the epoch that does not jump when the machine's clock is set."""
    offset_s = time.time() - time.monotonic()
    return lambda: offset_s + time.monotonic()
