"""The gathering of one partition's messages into batches that are ready to be served. Pure: time is an argument.

Decoded images are in open batches (`batching`), messages that are not decoded wait (`readiness`). Both have to be asked
before a batch is closed for another reason than its count, because the waiting messages belong to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from adawise.records import DecodedMessage, Frame, ImageBatch, Message, TopicPartition
from adawise.worker.batching import BatchPolicy, Gatherer
from adawise.worker.fair_queue import Lanes, message_bytes
from adawise.worker.offsets import OffsetLedger
from adawise.worker.pairs import Turns
from adawise.worker.readiness import Readiness


class PartitionGathering:
    """The images of one partition that have no row yet, and the messages that are not decoded.

    Args:
        tp: the partition.
        policy: when a batch is complete.
        offsets: the ledger of offsets that are read and decoded.
        turns: says which batches are to be served by the next pair.
        queue: the messages that are read and not taken from the decode pool.
        make_ready: called with a stream, and the offset below which its messages may be decoded.
        image_bytes: bytes of one decoded image.

    Attributes:
        open: the batches that are not complete.
        readiness: when the messages of single images that wait are decoded.
        ready: the batches to be served by the pair whose turn it is.
        image_bytes: bytes of all images.
    """

    def __init__(
        self,
        tp: TopicPartition,
        policy: BatchPolicy,
        offsets: OffsetLedger,
        turns: Turns,
        queue: Lanes,
        make_ready: Callable[[str, int], None],
        *,
        image_bytes: int,
    ) -> None:
        self._offsets, self._turns = offsets, turns
        self.ready: deque[ImageBatch] = deque()
        self.image_bytes = 0
        ends = policy.ends.get(tp, {})
        self.open = Gatherer(policy, ends)
        self.readiness = Readiness(policy, queue, make_ready, self.open.part, image_bytes=image_bytes, ends=ends)
        # Streams whose batch is complete once the messages below an offset are decoded.
        self._cut: dict[str, int] = {}

    @property
    def unserved(self) -> Iterator[Frame]:
        """The images that are decoded and have no row yet."""
        yield from self.open.frames
        yield from self._turns.frames

    @property
    def streams(self) -> set[str]:
        """The streams of which images were read and are not served; valid while no batch is ready."""
        return {*self.open.streams, *self._offsets.undecoded, *(batch.stream_id for batch in self._turns.batches)}

    @property
    def pending(self) -> int:
        """The number of messages that were read and whose batch is not complete."""
        return self._offsets.under_decode + self.open.images

    # -- input

    def add(self, decoded: DecodedMessage, streams: frozenset[str], now_s: float, read_s: float | None) -> None:
        """Take a decoded message that may have images of these streams; see `PartitionWork.add`."""
        sizes = [frame.image.nbytes for frame in decoded.frames if frame.image is not None]
        self.image_bytes += sum(sizes)
        kept_bytes = message_bytes(decoded.message)
        # A message is kept, to be decoded again, only where it takes less room than its image.
        if read_s is None or decoded.is_batch or kept_bytes >= sum(sizes):
            kept_bytes = 0
        self.complete(self.open.add(decoded, now_s if read_s is None else read_s, kept_bytes=kept_bytes))
        for stream in streams:
            if len(sizes) < len(decoded.frames) or decoded.is_batch:
                self.readiness.count_again(stream)
            else:
                self.readiness.taken(stream)
            self._close_if_cut(stream)

    def complete(self, batches: Sequence[ImageBatch]) -> None:
        """Make batches ready, unless they are for the next pair."""
        for batch in batches:
            is_later = self._turns.is_later(batch.frames[0].row_id.offset)
            (self._turns.batches if is_later else self.ready).append(batch)

    def served(self, batch: ImageBatch) -> None:
        """Note that a batch which was ready is in rows."""
        self.image_bytes -= batch.images.nbytes

    # -- closed for another reason than their count

    def is_due(self, now_s: float) -> bool:
        """Return True if a batch has waited long enough to be closed by the clock.

        Messages of its stream that are read and not decoded keep it open; those of other streams do not.
        """
        return self.open.is_due(now_s, self._offsets.undecoded) or any(True for _ in self.readiness.due(now_s))

    def close_due(self, now_s: float) -> None:
        """Close the batches that have waited long enough, and let the messages that have be decoded."""
        for stream in list(self.readiness.due(now_s)):
            self.readiness.make_ready(stream, self._offsets.next_offset)
        self._close(self.open.close_due(now_s, self._offsets.undecoded))

    def close_all(self) -> None:
        """Close all open batches."""
        self.complete(self.open.close_all())

    def end_streams(self) -> None:
        """Let all waiting messages be decoded and their batches be closed, because no other message will come."""
        for stream, _, _ in list(self.readiness.waiting):
            self._cut_here(stream)

    def close_oldest(self, nbytes: int) -> int:
        """Close the oldest batches, `nbytes` of them together or all, each once its messages are decoded.

        Returns:
            The number of batches, one for each of their streams.
        """
        sizes: dict[str, tuple[float, int]] = {}
        for stream, since_s, size in (*self.open.sizes(), *self.readiness.waiting):
            before_s, before = sizes.get(stream, (since_s, 0))
            sizes[stream] = min(before_s, since_s), before + size
        count = 0
        for stream, (_, size) in sorted(sizes.items(), key=lambda item: item[1][0]):
            if nbytes <= 0:
                break
            nbytes -= size
            count += 1
            if self.readiness.first(stream) is None:
                self._close(self.open.close(stream))
            else:
                self._cut_here(stream)
        return count

    def close_before_next_pair(self) -> bool:
        """Close the batches that are to be served before the next pair's turn; return True if all of them are served.

        To be called while no batch is ready.
        """
        if not all(map(self._turns.is_later, self._offsets.awaited)):
            self.readiness.make_all_ready(self._offsets.next_offset)
            return False
        before = [f.stream_id for f in self.open.frames if not self._turns.is_later(f.row_id.offset)]
        for stream_id in dict.fromkeys(before):
            assert stream_id is not None  # frames are gathered by it
            self._close(self.open.close(stream_id))
        return not self.ready

    def _close(self, batches: Sequence[ImageBatch]) -> None:
        self.complete(batches)
        for batch in batches:
            self.readiness.count_again(batch.stream_id)

    def _cut_here(self, stream: str) -> None:
        self._cut[stream] = self._offsets.next_offset
        self.readiness.make_ready(stream, self._offsets.next_offset)

    def _close_if_cut(self, stream: str) -> None:
        until = self._cut.get(stream)
        if until is not None and ((first := self.readiness.first(stream)) is None or first >= until):
            del self._cut[stream]
            self.complete(self.open.close(stream))
            self.readiness.count_again(stream)

    # -- where memory is short

    def put_back(self, nbytes: int, give: Callable[[str, float, Sequence[Message]], bool]) -> int:
        """Turn open batches, the newest first, back into waiting messages, until `nbytes` of images are freed.

        Args:
            nbytes: bytes to free.
            give: hands the messages of a stream, and when the first was read, to the decode pool; returns False if
                the pool cannot take them.

        Returns:
            The bytes of images that were freed.
        """
        freed = 0
        for stream, since_s, messages in list(self.open.returnable()):
            if freed >= nbytes:
                break
            if stream in self._cut or not give(stream, since_s, messages):
                continue
            freed += self.open.reopen(stream)
            for message in messages:
                self._offsets.put_back(message.offset, stream)
            self.readiness.count_again(stream)
        self.image_bytes -= freed
        return freed
