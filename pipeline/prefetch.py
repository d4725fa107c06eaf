"""Decoding ahead of the model: a pool of threads, results in offset order, bytes in flight counted.

Pillow releases the interpreter lock, so threads are enough, and the forward of one round overlaps with the decode of
the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline.records import DecodedMessage, Message, TopicPartition


class Prefetch:
    """Messages under decode, per partition, in order.

    Args:
        decode: message -> frames; called from the pool's threads, must not raise.
        threads: of the pool, >= 1.
        image_bytes: of one decoded image, for the accounting.
    """

    def __init__(self, decode: Callable[[Message], DecodedMessage], *, threads: int, image_bytes: int) -> None:
        self._decode, self._image_bytes = decode, image_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._queues: dict[TopicPartition, deque[tuple[int, Future[DecodedMessage]]]] = {}
        self.bytes = 0

    def submit(self, message: Message) -> None:
        """Begin to decode a message; messages of a partition come back in the order in which they were submitted."""
        size = len(message.value or b"") + self._image_bytes
        decoded = self._pool.submit(self._decode, message) if message.missing is None else _nothing_of(message)
        self._queues.setdefault(message.topic_partition, deque()).append((size, decoded))
        self.bytes += size

    def take(self, tp: TopicPartition) -> DecodedMessage | None:
        """The next message of the partition if it is decoded, else None."""
        queue = self._queues.get(tp)
        if not queue or not queue[0][1].done():
            return None
        size, future = queue.popleft()
        self.bytes -= size
        return future.result()

    def waits(self, tp: TopicPartition) -> bool:
        """True while messages of this partition are in the queue."""
        return bool(self._queues.get(tp))

    @property
    def is_empty(self) -> bool:
        """True if nothing is under way."""
        return not any(self._queues.values())

    def wait(self, timeout_s: float) -> None:
        """Return when some partition's next message is decoded, or after `timeout_s`."""
        heads = [queue[0][1] for queue in self._queues.values() if queue]
        if heads:
            wait(heads, timeout_s, FIRST_COMPLETED)

    def drop(self, tp: TopicPartition) -> None:
        """Forget all messages of a partition that is no longer ours."""
        for size, future in self._queues.pop(tp, deque()):
            future.cancel()
            self.bytes -= size

    def close(self) -> None:
        """End the threads; what is not begun is not done."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _nothing_of(message: Message) -> Future[DecodedMessage]:
    done: Future[DecodedMessage] = Future()
    done.set_result(DecodedMessage(message, ()))
    return done
