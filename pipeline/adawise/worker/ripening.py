"""Which messages that wait to be decoded would complete a batch, told without decoding any. Pure: time is an argument.

Pixels of a half-open batch take ten times what its messages take. So where memory is short, messages wait as they came,
until those of a stream are *ripe*: with what is open they reach the count, or one of them was produced too late for the
others, or the oldest has waited as long as a silent stream's may. What takes less room decoded is ripe at once.

This decides when something is decoded, and nothing else: it takes every image for a good one, and where that was wrong
it counts again. What became ripe too early is open a while longer. What is ripe too late (the image that a batch began
with was bad, and the clock then ran backwards) is so by the count or by the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from adawise.worker.batching import BatchPolicy, OpenPart, end_of

_NOTHING = OpenPart(0, -1, 0.0)


class _Waiting(NamedTuple):
    offset: int
    timestamp_ms: int
    read_s: float
    size_bytes: int


@dataclass(slots=True)
class _Stream:
    """What waits of a stream, and the batch that would be open if all of it were decoded and accepted."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    waiting_bytes: int = 0
    open: OpenPart = _NOTHING
    ripe_until: int = 0  # messages below this offset may be decoded

    @property
    def has_unripe(self) -> bool:
        """True if something has to wait on."""
        return bool(self.waiting) and self.waiting[-1].offset >= self.ripe_until


class Ripening:
    """The messages of single images of one partition that were read and are not decoded.

    Args:
        policy: when a batch is complete.
        ripen: called with a stream, and the offset below which its messages may be decoded.
        image_bytes: of a decoded image.
        ends: of batches of an earlier run (`BatchPolicy.ends`) in this partition.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        ripen: Callable[[str, int], None],
        *,
        image_bytes: int,
        ends: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
    ) -> None:
        self._policy, self._tell, self._image_bytes, self._ends = policy, ripen, image_bytes, ends or {}
        self._streams: dict[str, _Stream] = {}
        self.unripe_bytes = 0

    def read(self, stream_id: str, offset: int, timestamp_ms: int, size_bytes: int, now_s: float) -> None:
        """A message of one image was read, after those before it of its stream."""
        stream = self._streams.setdefault(stream_id, _Stream())
        waiting = _Waiting(offset, timestamp_ms, now_s, size_bytes)
        stream.waiting.append(waiting)
        stream.waiting_bytes += size_bytes
        is_complete = self._step(stream_id, stream, waiting)
        if offset < stream.ripe_until:  # read again, after what comes later was taken for the last: recovery does that
            self._tell(stream_id, stream.ripe_until)
            return
        self.unripe_bytes += size_bytes
        if is_complete or stream.waiting_bytes >= len(stream.waiting) * self._image_bytes:
            self._ripen(stream_id, offset + 1)

    def ripen(self, stream_id: str, until: int) -> None:
        """What waits of a stream may be decoded, up to an offset."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.has_unripe and stream.waiting[0].offset < until:
            self._ripen(stream_id, until)

    def decoded(self, stream_id: str, offset: int) -> float | None:
        """It does not wait any more: when it was read; None if it was no single image."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.waiting or stream.waiting[0].offset != offset:
            return None
        first = stream.waiting.popleft()
        stream.waiting_bytes -= first.size_bytes
        if offset >= stream.ripe_until:
            self.unripe_bytes -= first.size_bytes
        return first.read_s

    def count_again(self, stream_id: str, opened: OpenPart | None) -> None:
        """The stream's batch is not what it was taken for: `opened` is what is open now, if anything."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.open = opened or _NOTHING
        until = max((each.offset + 1 for each in stream.waiting if self._step(stream_id, stream, each)), default=0)
        if until > stream.ripe_until:
            self._ripen(stream_id, until)

    def put_back(self, stream_id: str, messages: Iterable[tuple[int, int, int]], read_s: float) -> None:
        """(offset, timestamp, bytes) of messages that are not decoded any more; nothing of the stream is ripe."""
        stream = self._streams.setdefault(stream_id, _Stream())
        for offset, timestamp_ms, size_bytes in reversed(list(messages)):
            stream.waiting.appendleft(_Waiting(offset, timestamp_ms, read_s, size_bytes))
            stream.waiting_bytes += size_bytes
            self.unripe_bytes += size_bytes
        stream.ripe_until = 0
        self.count_again(stream_id, None)

    def closed(self, stream_id: str) -> None:
        """The stream's batch was closed for another reason than those that are known here."""
        self.count_again(stream_id, None)
        self.forget(stream_id)

    def forget(self, stream_id: str) -> None:
        """Nothing of a stream is open; its entry goes if nothing waits."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.waiting:
            del self._streams[stream_id]

    def is_ripe(self, stream_id: str) -> bool:
        """Return True if something of the stream may be decoded, and is not."""
        first = self.first(stream_id)
        return first is not None and first < self._streams[stream_id].ripe_until

    def first(self, stream_id: str) -> int | None:
        """Return the offset of the oldest that waits; None if nothing does."""
        stream = self._streams.get(stream_id)
        return stream.waiting[0].offset if stream is not None and stream.waiting else None

    @property
    def waiting(self) -> Iterator[tuple[str, float, int]]:
        """(stream, when its oldest was read, bytes) of all of which something waits."""
        return (
            (name, stream.waiting[0].read_s, stream.waiting_bytes)
            for name, stream in self._streams.items()
            if stream.waiting
        )

    def due(self, now_s: float) -> Iterator[str]:
        """Streams of which something has waited as long as a silent stream's may."""
        return (
            name
            for name, stream in self._streams.items()
            if stream.has_unripe and self._policy.due(now_s - stream.open.since_s)
        )

    def _step(self, stream_id: str, stream: _Stream, following: _Waiting) -> bool:
        """Add one to the batch that would be open; True if that completes one."""
        if end_of(self._ends, stream_id, following.offset) == following.offset:
            stream.open = _NOTHING
            return True
        images, first_ms, since_s = stream.open
        is_complete = images > 0 and self._policy.separates(first_ms, following.timestamp_ms)
        if is_complete or not images:
            images, first_ms, since_s = 0, following.timestamp_ms, following.read_s
        stream.open = OpenPart(images + 1, first_ms, since_s)
        if stream.open.images >= self._policy.images:
            stream.open = _NOTHING
            return True
        return is_complete

    def _ripen(self, stream_id: str, until: int) -> None:
        stream = self._streams[stream_id]
        for each in reversed(stream.waiting):
            if each.offset < stream.ripe_until:
                break
            if each.offset < until:
                self.unripe_bytes -= each.size_bytes
        stream.ripe_until = max(stream.ripe_until, until)
        self._tell(stream_id, until)
