"""The decode pool: threads that decode messages ahead of the model.

A thread takes its next message from the partition that has used the least decode time, and within it from the lane
whose turn it is (`fair_queue`). Pillow releases the interpreter lock, so threads are enough, and the forward of one
round overlaps with the decode of the next.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Container, Sequence

from adawise.records import DecodedMessage, Message, TopicPartition
from adawise.worker.fair_queue import Job, Lanes

_MOST_S = 10.0  # most that is charged for one message: a decoder process that stalls that long is not busy


class Prefetch:
    """The messages under decode, and the threads that decode them.

    Args:
        decode: message -> frames; called from the threads, must not raise.
        streams: returns the streams of which a message may have images, without decoding it.
        isolated: as `decode`, in an isolated process, for messages that may kill the process that decodes them.
        isolated_streams: as `streams`, for these messages.
        end_isolated: ends the isolated decodes under way.
        is_single: returns whether a message is one image, by its first bytes. Such a message may wait until its batch
            is ready to be decoded, if memory is short. All others are decoded in their turn.
        image_bytes: bytes of the image of such a message, once it is decoded.
        threads: how many threads, >= 1. One more takes only quick messages, which then need not wait for a slow one.
        clock: CPU seconds of the calling thread.
    """

    def __init__(
        self,
        decode: Callable[[Message], DecodedMessage],
        streams: Callable[[Message], frozenset[str]],
        *,
        is_single: Callable[[Message], bool] = lambda _: False,
        image_bytes: int = 0,
        threads: int,
        isolated: Callable[[Message], DecodedMessage] | None = None,
        isolated_streams: Callable[[Message], frozenset[str]] | None = None,
        end_isolated: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._decode, self._isolated, self._end_isolated = decode, isolated or decode, end_isolated
        self._streams, self._isolated_streams = streams, isolated_streams or streams
        self._is_single, self._clock = is_single, clock
        self._room_bytes = self._eager_bytes = sys.maxsize
        self.image_bytes = image_bytes
        self._partitions: dict[TopicPartition, Lanes] = {}
        lock = threading.RLock()
        # Threads wait for a job on the first, and `wait` on the second, so that not every decode wakes the taker.
        self._changed, self._takable = threading.Condition(lock), threading.Condition(lock)
        self._awaited = 1  # messages that `wait` waits for
        self._running, self._now_s, self._closed = 0, 0.0, False
        self._fault: BaseException | None = None  # what ended a thread
        self._threads = [
            threading.Thread(target=self._work, args=(n == threads,), name=f"decode_{n}", daemon=True)
            for n in range(threads + 1 if threads else 0)
        ]

    def queue(self, tp: TopicPartition) -> Lanes:
        """Return the messages of a partition that are not taken."""
        with self._changed:
            lanes = self._partitions.get(tp)
            if lanes is None:
                lanes = self._partitions[tp] = Lanes()
            return lanes

    def streams_of(self, message: Message, *, isolated: bool = False) -> frozenset[str]:
        """Return the streams of which a message may have images; an isolated process finds them if so requested."""
        return (self._isolated_streams if isolated else self._streams)(message)

    def submit(
        self,
        message: Message,
        known: Container[str],
        *,
        isolated: bool = False,
        now_s: float = 0.0,
        streams: frozenset[str] | None = None,
    ) -> tuple[frozenset[str], bool]:
        """Queue a message to be decoded, behind the messages of the same streams that came before it.

        Args:
            message: the message.
            known: the streams of its partition that have a lane of their own.
            isolated: decode it in an isolated process.
            now_s: when it was read.
            streams: the streams whose images are taken from it; None for all.

        Returns:
            These streams, and whether it is a single image, which may wait until its batch is
            ready to be decoded.
        """
        streams = self.streams_of(message, isolated=isolated) if streams is None else streams
        with self._changed:
            partition = self.queue(message.topic_partition)
            if not partition.waiting:
                partition.used_s = max(partition.used_s, self._now_s)
            is_single = len(streams) == 1 and self._is_single(message)
            partition.add(
                message,
                streams,
                shares_lane=not all(name in known for name in streams),
                isolated=isolated,
                is_single=is_single,
                hold=is_single and not self._is_eager(),
                read_s=now_s,
            )
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return streams, is_single

    def make_ready(self, tp: TopicPartition, stream: str, until: int) -> None:
        """Let a stream's messages below an offset be decoded as soon as there is room, since they complete a batch."""
        with self._changed:
            if tp in self._partitions:
                self._partitions[tp].make_ready(stream, until)
                self._changed.notify_all()

    def put_back(
        self,
        tp: TopicPartition,
        stream: str,
        messages: Sequence[tuple[Message, bool]],
        known: Container[str],
        read_s: float = 0.0,
    ) -> bool:
        """Queue messages that were taken once more, as if they had never been decoded.

        Args:
            tp: their partition.
            stream: their stream.
            messages: each message, and whether it is decoded in an isolated process.
            known: the streams of the partition that have a lane of their own.
            read_s: when the first of them was read.

        Returns:
            False if that is impossible, because a later message of the stream is under way.
        """
        with self._changed:
            return self.queue(tp).put_back(messages, stream, shares_lane=stream not in known, read_s=read_s)

    def take(self, tp: TopicPartition) -> tuple[DecodedMessage, float | None] | None:
        """Return a decoded message of the partition and, for a single image, when it was read; None if there is none.

        The messages of a stream are returned in the order of the log.

        Raises:
            BaseException: whatever `decode` raised, or ended a thread: a fault of the program.
        """
        with self._changed:
            if self._fault is not None:
                raise self._fault
            partition = self._partitions.get(tp)
            job = partition.take() if partition is not None else None
            if job is None:
                return None
            self._changed.notify_all()
        decoded, job.decoded = job.decoded, None  # free the pixels: a lane may refer to the job for a while
        if isinstance(decoded, BaseException):
            raise decoded
        assert decoded is not None  # a message that can be taken is decoded
        return decoded, job.read_s if job.is_single else None

    @property
    def is_empty(self) -> bool:
        """True if nothing is under way."""
        with self._changed:
            return not any(partition.jobs for partition in self._partitions.values())

    @property
    def is_idle(self) -> bool:
        """True if nothing is under way, except messages that wait for the rest of their batch."""
        with self._changed:
            return self._is_idle()

    def is_stuck(self, tp: TopicPartition) -> bool:
        """Return True if all messages of the partition, at least one, wait for the rest of their batch."""
        with self._changed:
            partition = self._partitions.get(tp)
            return partition is not None and 0 < partition.jobs == partition.held

    @property
    def is_completing(self) -> bool:
        """True if single images are under way that may complete a batch, for which room is reserved already."""
        with self._changed:
            return any(partition.singles > partition.held for partition in self._partitions.values())

    def waiting_bytes(self, tp: TopicPartition) -> tuple[int, int]:
        """Return the bytes of the partition's messages that are not decoded, and of those that wait for their batch."""
        with self._changed:
            partition = self._partitions.get(tp)
            return (partition.waiting_bytes, partition.unready_bytes) if partition is not None else (0, 0)

    def make_room(self, size_bytes: int, eager_bytes: int = sys.maxsize) -> None:
        """Set how many bytes the images that wait to be taken may have; above that, nothing more is decoded.

        Above `eager_bytes`, single images are decoded only once their batch is ready to be decoded.
        """
        with self._changed:
            grew = size_bytes > self._room_bytes or eager_bytes > self._eager_bytes
            self._room_bytes, self._eager_bytes = size_bytes, eager_bytes
            if grew:
                self._changed.notify_all()

    def wait(self, timeout_s: float, messages: int = 1) -> None:
        """Wait until `take` has something and that many messages are decoded, at most `timeout_s`.

        Return at once if the pool is idle (`is_idle`), or `take` has something and nothing is being decoded.
        """
        with self._changed:
            self._awaited = messages
            self._takable.wait_for(lambda: self._has_awaited() or (not self._running and self._is_takable()), timeout_s)

    def _has_awaited(self) -> bool:
        decoded = sum(partition.decoded for partition in self._partitions.values())
        return (decoded >= self._awaited and self._is_takable()) or self._fault is not None or self._is_idle()

    def _is_takable(self) -> bool:
        return any(partition.ready for partition in self._partitions.values())

    def drop(self, tp: TopicPartition) -> None:
        """Forget all messages of a partition that this worker no longer owns."""
        with self._changed:
            self._partitions.pop(tp, None)

    def close(self) -> None:
        """End the threads; messages that are not begun are not decoded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._end_isolated()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, quick: bool) -> None:
        try:
            while (job := self._await_next(quick=quick)) is not None:
                self._do(job)
        except BaseException as error:  # noqa: BLE001 -- else messages would wait for ever for a thread that is no more
            with self._changed:
                self._fault = error
                self._takable.notify()
                self._changed.notify_all()

    def _await_next(self, *, quick: bool) -> Job | None:
        """Begin and return the next job as soon as one may be begun; None once the pool is closed."""
        with self._changed:
            while (job := self._next(quick=quick)) is None and not self._closed:
                if not self._running:
                    self._takable.notify()
                self._changed.wait()
        return job

    def _next(self, *, quick: bool = False) -> Job | None:
        """Begin and return the next job, if one may be begun; to be called with the lock held.

        Where there is no room, the messages are begun that decoded ones wait for, one at a time: they alone let the
        decoded ones be taken, which makes room.
        """
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
                # Else small batches of other partitions would take the room that becomes free.
                if partition.lacks_room and not is_eager:
                    break
        if found is None and not self._running and not any(p.ready for p in partitions):
            for partition in partitions:
                found = found or (partition.begin_awaited() if partition.held_bytes else None)
        # A change of what is held can make the pool idle, for which `wait` may be waiting.
        if held != sum(p.held for p in partitions):
            with self._changed:  # its lock is reentrant
                self._takable.notify()
                self._changed.notify_all()
        return found and self._begun(found)

    def _begun(self, job: Job) -> Job:
        self._now_s = max(self._now_s, job.partition.used_s - job.charged_s)
        self._running += 1
        return job

    def _is_eager(self) -> bool:
        return self._promised_bytes() + self.image_bytes <= self._eager_bytes

    def _promised_bytes(self) -> int:
        """Return the bytes of images that wait to be taken, and of those for which room is reserved."""
        partitions = self._partitions.values()
        return sum(p.held_bytes + p.promised * self.image_bytes for p in partitions)

    def _is_idle(self) -> bool:
        return all(partition.jobs == partition.held for partition in self._partitions.values())

    def _do(self, job: Job) -> None:
        clock = time.monotonic if job.isolated else self._clock  # this thread uses no CPU while another process decodes
        began_s = clock()
        decoded: DecodedMessage | BaseException
        try:
            decoded = (self._isolated if job.isolated else self._decode)(job.message)
        except BaseException as error:  # noqa: BLE001 -- a fault of the program: `take` raises it
            decoded = error
        took_s = min(clock() - began_s, _MOST_S)
        with self._changed:
            self._running -= 1
            job.partition.end(job, decoded, took_s)
            if self._has_awaited():
                self._takable.notify()
            self._changed.notify_all()
