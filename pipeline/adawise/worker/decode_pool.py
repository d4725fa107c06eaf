"""Decoding ahead of the model, by threads: first the partition that has used the least, in it a lane (`fair_queue`).

Pillow releases the interpreter lock, so threads are enough, and the forward of one round overlaps with the decode of
the next.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Container

from adawise.records import DecodedMessage, Message, TopicPartition
from adawise.worker.fair_queue import Job, Lanes

_MOST_S = 10.0  # that is charged for one message; what stood still was not busy


class Prefetch:
    """Messages under decode.

    Args:
        decode: message -> frames; called from the threads, must not raise.
        streams: of which streams a message may have images, told without decoding it.
        apart, apart_streams: the same, for messages that may end the process; `end_apart` ends those under way.
        threads: >= 1; and one more for those that are quick, which need not wait for the end of one that is not.
        clock: seconds of this thread.
    """

    def __init__(
        self,
        decode: Callable[[Message], DecodedMessage],
        streams: Callable[[Message], frozenset[str]],
        *,
        threads: int,
        apart: Callable[[Message], DecodedMessage] | None = None,
        apart_streams: Callable[[Message], frozenset[str]] | None = None,
        end_apart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._decode, self._apart, self._end_apart = decode, apart or decode, end_apart
        self._streams, self._apart_streams = streams, apart_streams or streams
        self._clock, self._room_bytes = clock, sys.maxsize
        self._partitions: dict[TopicPartition, Lanes] = {}
        self._changed = threading.Condition()
        self._running, self._now_s, self._closed = 0, 0.0, False
        self._threads = [
            threading.Thread(target=self._work, args=(n == threads,), name=f"decode_{n}", daemon=True)
            for n in range(threads + 1 if threads else 0)
        ]

    def submit(self, message: Message, known: Container[str], *, apart: bool = False) -> frozenset[str]:
        """Begin to decode a message, after those that came before it of the same streams, which are returned.

        `known`: streams of its partition that have a lane of their own. `apart`: in a process of its own.
        """
        streams = (self._apart_streams if apart else self._streams)(message)
        with self._changed:
            partition = self._partitions.setdefault(message.topic_partition, Lanes())
            if not partition.waiting:
                partition.used_s = max(partition.used_s, self._now_s)
            partition.add(message, streams, shares_lane=not all(name in known for name in streams), apart=apart)
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

    def waiting_bytes(self, tp: TopicPartition) -> int:
        """Of the partition's messages that are not decoded."""
        with self._changed:
            return self._partitions[tp].waiting_bytes if tp in self._partitions else 0

    def make_room(self, size_bytes: int) -> None:
        """Let the images that wait to be taken have so many bytes; above, nothing more is decoded."""
        with self._changed:
            grew, self._room_bytes = size_bytes > self._room_bytes, size_bytes
            if grew:
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
        partitions = self._partitions.values()
        is_full = sum(partition.held_bytes for partition in partitions) >= self._room_bytes
        if self._closed or (is_full and (self._running or any(p.ready for p in partitions))):
            return None
        for partition in sorted(partitions, key=lambda partition: partition.used_s):
            if is_full and any(p.held_bytes for p in partitions):
                if partition.held_bytes and (job := partition.begin_awaited()) is not None:
                    self._running += 1
                    return job
                continue
            if partition.waiting and (lane := partition.first(quick=quick)) is not None:
                self._now_s = max(self._now_s, partition.used_s)
                self._running += 1
                return partition.begin(lane)
        return None

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
