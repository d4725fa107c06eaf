"""Prediction, without decoding, of the waiting messages that would complete a batch. Pure.

The pixels of an open batch take about ten times the memory of its messages. So where memory is short, messages wait as
they came until those of a stream are *ready*: together with the open batch they reach the count, or
one of them was produced too late for the others, or the oldest has waited as long as a silent stream's may. A message
that takes less room than its image is ready at once.

This only decides when a message is decoded, never where a batch ends. It assumes that every image is good, and counts
again where that was wrong. Messages that became ready too early stay in the open batch a while longer. Messages that
should have been ready earlier (the first image of a batch was bad, and the clock then ran backwards) become ready by
the count or by the time.

Whether a message is ready is the stage of its job (`fair_queue.JobStage`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from adawise.worker.batching import NOTHING_OPEN, BatchPolicy, OpenPart, end_of
from adawise.worker.fair_queue import DECODED, Job, Lanes


class Readiness:
    """The rule by which messages of single images of one partition become ready to be decoded.

    Args:
        policy: when a batch is complete.
        queue: the messages that were read and are not taken.
        make_ready: called with a stream, and the offset below which its messages may be decoded.
        opened: returns a stream's open batch, if it has one.
        image_bytes: bytes of one decoded image.
        ends: the ends of an earlier run's batches (`BatchPolicy.ends`) in this partition.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        queue: Lanes,
        make_ready: Callable[[str, int], None],
        opened: Callable[[str], OpenPart | None],
        *,
        image_bytes: int,
        ends: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    ) -> None:
        self._policy, self._queue, self._on_ready, self._opened = policy, queue, make_ready, opened
        self._image_bytes, self._ends = image_bytes, ends
        self._most = 2 * policy.images  # messages that are counted again at once, beside those that are not ready
        self._uncounted = set[str]()  # streams whose later messages are still to be counted again

    def read(self, stream: str) -> None:
        """Count the message of one image that was added to the queue last, in the order of its stream's offsets."""
        newest = (job for job in reversed(self._queue.order[stream]) if job.is_single)
        job, before = next(newest), next(newest, None)
        opened = self._opened(stream) or NOTHING_OPEN if before is None else before.part
        if self._completes(stream, job, opened) or job.size_bytes >= self._image_bytes:
            self._on_ready(stream, job.message.offset + 1)

    def make_ready(self, stream: str, until: int) -> None:
        """Let a stream's waiting messages below an offset be decoded."""
        if any(job.message.offset < until for job in self._queue.unready(stream)):
            self._on_ready(stream, until)

    def count_again(self, stream: str) -> None:
        """Count the stream's waiting messages again from its open batch, which is not what was predicted.

        Of a long backlog only the beginning is counted now. The rest is ready anyway, up to the newest messages, and
        `taken` counts those once the backlog is short. If each bad image counted a whole backlog, a camera that sends
        many would keep the worker from everything else.
        """
        self._uncounted.discard(stream)
        part, until, waits = self._opened(stream) or NOTHING_OPEN, 0, False
        for number, job in enumerate(self._queue.order.get(stream, ())):
            is_unready = job.is_unready
            if number >= self._most and not is_unready:
                self._uncounted.add(stream)
                break
            waits = waits or is_unready
            if job.is_single:
                if self._completes(stream, job, part):
                    until = job.message.offset + 1
                part = job.part
        if until and waits:  # looking for what waits would walk the whole backlog where all of it is decoded
            self.make_ready(stream, until)

    def taken(self, stream: str) -> None:
        """Note that a message of the stream was taken: count the rest again if that was left for later."""
        if stream in self._uncounted and len(self._queue.order.get(stream, ())) <= self._most:
            self.count_again(stream)

    def first(self, stream: str) -> int | None:
        """Return the offset of the stream's oldest waiting message; None if none waits."""
        return next((job.message.offset for job in self._singles(stream)), None)

    @property
    def waiting(self) -> Iterator[tuple[str, float, int]]:
        """Each stream with waiting messages: (stream, when its oldest was read, their bytes)."""
        for stream in self._queue.order:
            if jobs := list(self._singles(stream)):
                yield stream, jobs[0].read_s, sum(job.size_bytes for job in jobs if job.stage < DECODED)

    def due(self, now_s: float) -> Iterator[str]:
        """Yield the streams with messages that have waited as long as those of a silent stream may."""
        return (stream for stream, newest in self._unready() if self._policy.due(now_s - newest.part.since_s))

    def make_all_ready(self, until: int) -> None:
        """Let the waiting messages of all streams below an offset be decoded."""
        for stream, _ in list(self._unready()):
            self.make_ready(stream, until)

    def _unready(self) -> Iterator[tuple[str, Job]]:
        """Yield the streams with messages that wait for the rest of their batch, and the newest of these."""
        for stream, jobs in self._queue.order.items() if self._queue.unready_bytes else ():
            newest = jobs[-1] if jobs[-1].is_unready else next(self._queue.unready(stream), None)
            if newest is not None:
                yield stream, newest

    def _singles(self, stream: str) -> Iterator[Job]:
        return (job for job in self._queue.order.get(stream, ()) if job.is_single)

    def _completes(self, stream: str, job: Job, opened: OpenPart) -> bool:
        """Add a message to the batch that would be open; return True if that completes a batch."""
        message = job.message
        images, first_ms, since_s = opened
        is_complete = images > 0 and self._policy.separates(first_ms, message.timestamp_ms)
        if is_complete or not images:
            images, first_ms, since_s = 0, message.timestamp_ms, job.read_s
        job.part = OpenPart(images + 1, first_ms, since_s)
        if end_of(self._ends, stream, message.offset) == message.offset or images + 1 >= self._policy.images:
            job.part = NOTHING_OPEN
            return True
        return is_complete
