"""Prediction, without decoding, of the waiting messages that would complete a batch. Pure: time is an argument.

The pixels of an open batch take about ten times the memory of its messages. So where memory is short, messages wait as
they came until those of a stream are *ready*: together with the open batch they reach the count, or
one of them was produced too late for the others, or the oldest has waited as long as a silent stream's may. A message
that takes less room decoded is ready at once.

This only decides when a message is decoded, never where a batch ends. It assumes that every image is good, and counts
again where that was wrong. Messages that became ready too early stay in the open batch a while longer. Messages that
should have been ready earlier (the first image of a batch was bad, and the clock then ran backwards) become ready by
the count or by the time.
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
    """The waiting messages of a stream, and the batch that would be open if all of them were decoded and accepted."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    waiting_bytes: int = 0
    open: OpenPart = _NOTHING
    ready_until: int = 0  # messages below this offset may be decoded

    @property
    def has_unready(self) -> bool:
        """True if a message may not be decoded yet."""
        return bool(self.waiting) and self.waiting[-1].offset >= self.ready_until


class Readiness:
    """The messages of single images of one partition that were read and are not decoded.

    Args:
        policy: when a batch is complete.
        make_ready: called with a stream, and the offset below which its messages may be decoded.
        image_bytes: bytes of one decoded image.
        ends: the ends of an earlier run's batches (`BatchPolicy.ends`) in this partition.

    Attributes:
        unready_bytes: bytes of the messages that may not be decoded yet.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        make_ready: Callable[[str, int], None],
        *,
        image_bytes: int,
        ends: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
    ) -> None:
        self._policy, self._on_ready, self._image_bytes, self._ends = policy, make_ready, image_bytes, ends or {}
        self._streams: dict[str, _Stream] = {}
        self.unready_bytes = 0

    def read(self, stream_id: str, offset: int, timestamp_ms: int, size_bytes: int, now_s: float) -> None:
        """Take a message of one image that was read, in the order of its stream's offsets."""
        stream = self._streams.setdefault(stream_id, _Stream())
        waiting = _Waiting(offset, timestamp_ms, now_s, size_bytes)
        stream.waiting.append(waiting)
        stream.waiting_bytes += size_bytes
        is_complete = self._step(stream_id, stream, waiting)
        # Recovery reads pending messages again, after later ones may have made the stream ready.
        if offset < stream.ready_until:
            self._on_ready(stream_id, stream.ready_until)
            return
        self.unready_bytes += size_bytes
        if is_complete or stream.waiting_bytes >= len(stream.waiting) * self._image_bytes:
            self._make_ready(stream_id, offset + 1)

    def make_ready(self, stream_id: str, until: int) -> None:
        """Let a stream's waiting messages below an offset be decoded."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.has_unready and stream.waiting[0].offset < until:
            self._make_ready(stream_id, until)

    def decoded(self, stream_id: str, offset: int) -> float | None:
        """Note that a message is decoded, and return when it was read; None if it did not wait here."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.waiting or stream.waiting[0].offset != offset:
            return None
        first = stream.waiting.popleft()
        stream.waiting_bytes -= first.size_bytes
        if offset >= stream.ready_until:
            self.unready_bytes -= first.size_bytes
        return first.read_s

    def count_again(self, stream_id: str, opened: OpenPart | None) -> None:
        """Count the stream's waiting messages again from `opened`, its open batch, if it has one.

        To be called when the open batch is not what was predicted.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        stream.open = opened or _NOTHING
        until = max((each.offset + 1 for each in stream.waiting if self._step(stream_id, stream, each)), default=0)
        if until > stream.ready_until:
            self._make_ready(stream_id, until)

    def put_back(self, stream_id: str, messages: Iterable[tuple[int, int, int]], read_s: float) -> None:
        """Let messages wait again that were decoded; then no message of the stream is ready.

        Args:
            stream_id: the stream.
            messages: (offset, timestamp in milliseconds, bytes) of each.
            read_s: when they were read.
        """
        stream = self._streams.setdefault(stream_id, _Stream())
        for offset, timestamp_ms, size_bytes in reversed(list(messages)):
            stream.waiting.appendleft(_Waiting(offset, timestamp_ms, read_s, size_bytes))
            stream.waiting_bytes += size_bytes
            self.unready_bytes += size_bytes
        stream.ready_until = 0
        self.count_again(stream_id, None)

    def closed(self, stream_id: str) -> None:
        """Note that the stream's batch was closed for a reason that is not known here."""
        self.count_again(stream_id, None)
        self.forget(stream_id)

    def forget(self, stream_id: str) -> None:
        """Forget a stream that has no open batch, if none of its messages waits."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.waiting:
            del self._streams[stream_id]

    def is_ready(self, stream_id: str) -> bool:
        """Return True if a message of the stream may be decoded, and is not decoded yet."""
        first = self.first(stream_id)
        return first is not None and first < self._streams[stream_id].ready_until

    def first(self, stream_id: str) -> int | None:
        """Return the offset of the stream's oldest waiting message; None if none waits."""
        stream = self._streams.get(stream_id)
        return stream.waiting[0].offset if stream is not None and stream.waiting else None

    @property
    def waiting(self) -> Iterator[tuple[str, float, int]]:
        """Each stream with waiting messages: (stream, when its oldest was read, their bytes)."""
        return (
            (name, stream.waiting[0].read_s, stream.waiting_bytes)
            for name, stream in self._streams.items()
            if stream.waiting
        )

    def due(self, now_s: float) -> Iterator[str]:
        """Yield the streams with messages that have waited as long as those of a silent stream may."""
        return (
            name
            for name, stream in self._streams.items()
            if stream.has_unready and self._policy.due(now_s - stream.open.since_s)
        )

    def _step(self, stream_id: str, stream: _Stream, following: _Waiting) -> bool:
        """Add a message to the batch that would be open; return True if that completes a batch."""
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

    def _make_ready(self, stream_id: str, until: int) -> None:
        stream = self._streams[stream_id]
        for each in reversed(stream.waiting):
            if each.offset < stream.ready_until:
                break
            if each.offset < until:
                self.unready_bytes -= each.size_bytes
        stream.ready_until = max(stream.ready_until, until)
        self._on_ready(stream_id, until)
