"""Decoding ahead of the model, by threads: first the partition that has used the least, in it a lane (`fair_queue`).

Pillow releases the interpreter lock, so threads are enough, and the forward of one round overlaps with the decode of
the next.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Container, Sequence

from adawise.records import DecodedMessage, Message, TopicPartition
from adawise.worker.fair_queue import Job, Lanes

_MOST_S = 10.0  # that is charged for one message; what stood still was not busy


class Prefetch:
    """Messages under decode.

    Args:
        decode: message -> frames; called from the threads, must not raise.
        streams: of which streams a message may have images, told without decoding it.
        apart, apart_streams: the same, for messages that may end the process; `end_apart` ends those under way.
        is_single: whether a message is one image, by its first bytes: it may wait until its batch is ripe, if memory is
            short. All others are decoded at once.
        image_bytes: of the image of such a message, once it is decoded.
        threads: >= 1; and one more for those that are quick, which need not wait for the end of one that is not.
        clock: seconds of this thread.
    """

    def __init__(
        self,
        decode: Callable[[Message], DecodedMessage],
        streams: Callable[[Message], frozenset[str]],
        *,
        is_single: Callable[[Message], bool] = lambda _: False,
        image_bytes: int = 0,
        threads: int,
        apart: Callable[[Message], DecodedMessage] | None = None,
        apart_streams: Callable[[Message], frozenset[str]] | None = None,
        end_apart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._decode, self._apart, self._end_apart = decode, apart or decode, end_apart
        self._streams, self._apart_streams = streams, apart_streams or streams
        self._is_single, self._clock = is_single, clock
        self._room_bytes = self._eager_bytes = sys.maxsize
        self.image_bytes = image_bytes
        self._partitions: dict[TopicPartition, Lanes] = {}
        self._changed = threading.Condition()
        self._running, self._now_s, self._closed = 0, 0.0, False
        self._threads = [
            threading.Thread(target=self._work, args=(n == threads,), name=f"decode_{n}", daemon=True)
            for n in range(threads + 1 if threads else 0)
        ]

    def submit(self, message: Message, known: Container[str], *, apart: bool = False) -> tuple[frozenset[str], bool]:
        """Begin to decode a message, after those that came before it of the same streams.

        Return these, and whether it is a single image, which may wait until its batch is ripe. `known`: streams of its
        partition that have a lane of their own. `apart`: in a process of its own.
        """
        streams = (self._apart_streams if apart else self._streams)(message)
        with self._changed:
            partition = self._partitions.setdefault(message.topic_partition, Lanes())
            if not partition.waiting:
                partition.used_s = max(partition.used_s, self._now_s)
            shares_lane = not all(name in known for name in streams)
            is_single = len(streams) == 1 and self._is_single(message)
            hold = is_single and not self._is_eager()
            partition.add(message, streams, shares_lane=shares_lane, apart=apart, is_single=is_single, hold=hold)
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return streams, is_single

    def ripen(self, tp: TopicPartition, stream: str, until: int) -> None:
        """Messages of a stream below an offset complete a batch: they wait no longer than for room."""
        with self._changed:
            if tp in self._partitions:
                self._partitions[tp].ripen(stream, until)
                self._changed.notify_all()

    def put_back(
        self, tp: TopicPartition, stream: str, messages: Sequence[tuple[Message, bool]], known: Container[str]
    ) -> bool:
        """Messages (and whether apart) that were taken wait again, as if they had never been decoded.

        False if that cannot be, since one that comes after them is under way.
        """
        with self._changed:
            partition = self._partitions.setdefault(tp, Lanes())
            return partition.put_back(messages, stream, shares_lane=stream not in known)

    def take(self, tp: TopicPartition) -> DecodedMessage | None:
        """A message of the partition that is decoded, as those before it of its streams were taken; None if none is."""
        with self._changed:
            partition = self._partitions.get(tp)
            job = partition.take() if partition is not None else None
            self._changed.notify_all()
        if job is None:
            return None
        decoded, job.decoded = job.decoded, None  # a lane may know the job for a while
        if isinstance(decoded, BaseException):
            raise decoded
        return decoded

    @property
    def is_empty(self) -> bool:
        """True if nothing is under way."""
        with self._changed:
            return not any(partition.jobs for partition in self._partitions.values())

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way but what waits to be ripe."""
        with self._changed:
            return self._is_idle()

    def is_stuck(self, tp: TopicPartition) -> bool:
        """True if of the partition nothing is under way, and something waits to be ripe."""
        with self._changed:
            partition = self._partitions.get(tp)
            return partition is not None and 0 < partition.jobs == partition.held

    @property
    def is_completing(self) -> bool:
        """True if images are under way that may complete a batch, and take no more room than they have."""
        with self._changed:
            return any(partition.singles > partition.held for partition in self._partitions.values())

    def waiting_bytes(self, tp: TopicPartition) -> int:
        """Of the partition's messages that are not decoded."""
        with self._changed:
            return self._partitions[tp].waiting_bytes if tp in self._partitions else 0

    def make_room(self, size_bytes: int, eager_bytes: int = sys.maxsize) -> None:
        """Let the images that wait to be taken have so many bytes; above, nothing more is decoded.

        Above `eager_bytes`, only what is ripe is.
        """
        with self._changed:
            grew = size_bytes > self._room_bytes or eager_bytes > self._eager_bytes
            self._room_bytes, self._eager_bytes = size_bytes, eager_bytes
            if grew:
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Return when a message can be taken, or after `timeout_s`; at once if none is under way but to be ripe."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(p.ready for p in self._partitions.values()) or self._is_idle(), timeout_s
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
        self._end_apart()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, quick: bool) -> None:
        while True:
            with self._changed:
                while (job := self._next(quick=quick)) is None and not self._closed:
                    self._changed.wait()
            if job is None:
                return
            self._do(job)

    def _next(self, *, quick: bool = False) -> Job | None:
        """Begin one, if there is room; or, one at a time, what those that are held wait for. With the lock."""
        if self._closed:
            return None
        partitions = sorted(self._partitions.values(), key=lambda partition: partition.used_s)
        for partition in partitions:
            if (job := partition.begin_promised(quick=quick)) is not None:
                return self._begun(job)
        is_full = sum(partition.held_bytes for partition in partitions) >= self._room_bytes
        if is_full and (self._running or any(p.ready for p in partitions)):
            return None
        is_eager, promised = self._is_eager(), self._promised_bytes()
        images = (self._room_bytes - promised) / max(1, self.image_bytes)
        held = sum(p.held for p in partitions)
        found = None
        for partition in partitions:
            if found is None and partition.waiting and not (is_full and promised):
                found = partition.next(quick=quick, eager=is_eager, images=images, must=not promised)
        if found is None and not self._running and not any(p.ready for p in partitions):
            for partition in partitions:
                found = found or (partition.begin_awaited() if partition.held_bytes else None)
        if held != sum(p.held for p in partitions):  # whoever waits for what is under way may wait no more
            with self._changed:
                self._changed.notify_all()
        return found and self._begun(found)

    def _begun(self, job: Job) -> Job:
        self._now_s = max(self._now_s, job.partition.used_s - job.charged_s)
        self._running += 1
        return job

    def _is_eager(self) -> bool:
        return self._promised_bytes() + self.image_bytes <= self._eager_bytes

    def _promised_bytes(self) -> int:
        """Of images that wait to be taken, and of those that will."""
        partitions = self._partitions.values()
        return sum(p.held_bytes + p.promised * self.image_bytes for p in partitions)

    def _is_idle(self) -> bool:
        return all(partition.jobs == partition.held for partition in self._partitions.values())

    def _do(self, job: Job) -> None:
        clock = time.monotonic if job.apart else self._clock  # another process does it
        began_s = clock()
        decoded: DecodedMessage | BaseException
        try:
            decoded = (self._apart if job.apart else self._decode)(job.message)
        except BaseException as error:  # noqa: BLE001 -- a fault of ours: `take` raises it
            decoded = error
        took_s = min(clock() - began_s, _MOST_S)
        with self._changed:
            self._running -= 1
            job.partition.end(job, decoded, took_s)
            self._changed.notify_all()
