"""From the worker's thread to the one that shows: events are put down here, and taken up there.

The worker's thread pays for a tuple and an append. What the other thread does not take up in time is dropped and
counted: a page is no reason to fill the memory. A thread that takes up nothing for a minute has ended: from then on
fewer events wait, until something is taken up again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from typing_extensions import override

from adawise.errors import AdawiseError, RetryableError
from adawise.live.row import LiveView
from adawise.live.worker import LiveWorker
from adawise.ports import Commit, Head, ServedBy, Told
from adawise.records import BatchTrace, Frame, Gap, ImageBatch, Predictions, Switch, TopicPartition
from adawise.worker.observer import Observer, Phase, WorkerProgress

MOST = 65_536
"""Events that wait, at most."""

MOST_UNREAD = 1_024
"""Events that wait, at most, where the other thread has taken up nothing for `_UNREAD_TURNS`."""

_PROGRESS_S = 1.0
_UNREAD_TURNS = 60  # of `_PROGRESS_S` in which the worker's loop turned: a process that stood still counts none
_PICTURE_S = 10.0  # between two of a camera
_PICTURES = 100_000  # cameras whose last picture's time is known


class LiveObserver(Observer):
    """Puts down what it hears, for `catch_up`.

    Args:
        worker: told by `catch_up`, in that thread alone.
        keeps_pictures: the last image of each camera now and then, at half its width and height.
        clock: seconds since the epoch that never go back, as `steady`.
    """

    def __init__(self, worker: LiveWorker, *, keeps_pictures: bool, clock: Callable[[], float]) -> None:
        self._worker, self._keeps_pictures, self._clock = worker, keeps_pictures, clock
        self._events: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._beat_s, self._told_s = clock(), 0.0
        self._pictured_s: dict[str, float] = {}
        self._unread_turns = 0
        self.is_member: Callable[[], bool] = lambda: True
        self.partitions: Callable[[], int | None] = lambda: None
        self.dropped = 0

    def catch_up(self) -> LiveWorker:
        """Tell the worker's image all that was heard; for one thread, which is not the worker's."""
        self._unread_turns = 0
        for _ in range(len(self._events)):
            try:
                handler, arguments = self._events.popleft()
            except IndexError:  # the worker's thread dropped them meanwhile
                break
            handler(*arguments)
        self._worker.health.beat_s = self._beat_s
        self._worker.now_s = self._clock()
        return self._worker

    @property
    def waiting(self) -> int:
        """Events that were put down and not taken up yet."""
        return len(self._events)

    def view(self) -> LiveView:
        """See `Provider`."""
        return self.catch_up().view()

    def picture(self, key: str) -> bytes | None:
        """See `Provider`."""
        return self._worker.picture(key)

    def _put(self, handler: Callable[..., None], *arguments: object) -> None:
        now_s = self._beat_s = self._clock()
        is_unread = self._unread_turns >= _UNREAD_TURNS
        if is_unread and len(self._events) >= MOST_UNREAD:
            self.dropped += len(self._events)
            self._events.clear()
        if len(self._events) >= MOST:
            self.dropped += 1
        else:
            self._events.append((handler, (now_s, *arguments)))

    @override
    def phase_entered(self, phase: Phase) -> None:
        self._put(self._worker.enter, phase)

    @override
    def model_loaded(self, classes: Sequence[str], facts: Mapping[str, object]) -> None:
        self._put(self._worker.load, classes, facts)

    @override
    def stepped(self, progress: Callable[[], WorkerProgress]) -> None:
        """See `Observer`; how far it is, about once a second."""
        now_s = self._beat_s = self._clock()
        if now_s - self._told_s >= _PROGRESS_S:
            self._told_s = now_s
            self._unread_turns += 1
            with suppress(RetryableError):  # nobody answers; a later step may know
                self._put(self._worker.progressed, progress(), self.is_member(), self.partitions())

    @override
    def partition_recovered(self, tp: TopicPartition, head: Head) -> None:
        self._put(self._worker.recover, tp)

    @override
    def partition_lost(self, tp: TopicPartition) -> None:
        self._put(self._worker.part, tp)

    @override
    def gap_found(self, tp: TopicPartition, gap: Gap) -> None:
        self._put(self._worker.lose, gap)

    @override
    def frame_rejected(self, frame: Frame) -> None:
        self._put(self._worker.reject, frame)

    @override
    def frame_noted(self, frame: Frame) -> None:
        self._put(self._worker.note)

    @override
    def letter_sent(self, frame: Frame) -> None:
        self._put(self._worker.send_letter)

    @override
    def result_told(self, told: Told) -> None:
        self._put(self._worker.tell, told.rows)

    @override
    def batch_predicted(self, batch: ImageBatch, predictions: Predictions, trace: BatchTrace) -> None:
        """See `Observer`; the batch itself is not kept."""
        stamps = [frame.kafka_timestamp_ms for frame in batch.frames]
        pixels = None
        if self._keeps_pictures and self._clock() - self._pictured_s.get(batch.stream_id, 0.0) >= _PICTURE_S:
            if len(self._pictured_s) >= _PICTURES:
                self._pictured_s.clear()
            self._pictured_s[batch.stream_id] = self._clock()
            pixels = batch.images[-1][:, ::2, ::2].contiguous().numpy()
        self._put(self._worker.serve, trace, predictions, stamps, pixels)

    @override
    def segment_committed(self, tp: TopicPartition, commit: Commit, lag: int | None) -> None:
        self._put(self._worker.commit, tp, commit)

    @override
    def pair_serves(self, tp: TopicPartition, by: ServedBy, switch: Switch | None) -> None:
        """See `Observer`."""
        self._put(self._worker.served_by, tp, by, switch is not None)

    @override
    def retry_scheduled(self, error: AdawiseError, wait_s: float, what: str) -> None:
        self._put(self._worker.retry, error, what)

    @override
    def retries_ended(self, what: str) -> None:
        self._put(self._worker.retries_ended, what)


def steady() -> Callable[[], float]:
    """A clock of seconds since the epoch that goes on evenly when the machine's is set."""
    apart_s = time.time() - time.monotonic()
    return lambda: apart_s + time.monotonic()
