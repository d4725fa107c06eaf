"""Grouping of the frames of one partition into batches per stream. Pure: time is an argument.

Where a batch ends must depend on the stream alone, not on which cameras share its partition, when a segment was cut
or which worker read it. Otherwise a replay would find other batches and other alphas. So a batch ends by count, or when
the next frame of the stream was produced more than `max_age_s` after its first. A silent stream would wait for ever
for that frame. Its batch is therefore closed by the clock, once the broker says that nothing is left to read and the
same age has passed here, with a grace period for frames under way. A replay finds the same end by the next timestamp.

A replay therefore finds the same batches as long as each frame reaches the broker at most the grace period later than
the frame before it did. It may find others for a camera that was cut off and sends its backlog with the old timestamps,
or whose clock steps back: the worker cuts its batches by arrival, a replay by timestamps. Batches that were closed
early because memory ran short do not follow from timestamps either. So a replay may be given the ends of the earlier
run's batches (`BatchPolicy.ends`), and then ends each batch where that run did.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from adawise.records import BatchEnds, DecodedMessage, Frame, ImageBatch, Message

_GRACE_S = 0.5  # the grace period: how much longer than the frame before it a frame may be under way


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The rule by which single images become a batch.

    Attributes:
        images: the number of images of a full batch.
        max_age_s: seconds after its first image at which a batch ends, even if it is not full.
        ends: batches of an earlier run, by their first and last image. Images within them are cut there and nowhere
            else.
    """

    images: int
    max_age_s: float
    ends: BatchEnds = field(default_factory=dict)

    def separates(self, first_ms: int, following_ms: int) -> bool:
        """Return True if an image was produced too late for the batch that began with another one.

        Both arguments are Kafka timestamps in milliseconds, -1 for none. Images with and without a timestamp never
        share a batch.
        """
        if (following_ms < 0) != (first_ms < 0):
            return True
        return following_ms - first_ms > 1000.0 * self.max_age_s

    def due(self, age_s: float) -> bool:
        """Return True if a batch that was begun `age_s` seconds ago, by the worker's clock, has waited long enough."""
        return age_s > self.max_age_s + _GRACE_S


class OpenPart(NamedTuple):
    """The size and beginning of a batch that is not complete.

    Attributes:
        images: how many it has.
        first_ms: Kafka timestamp of the first, -1 for none.
        since_s: when the first was read, by the worker's clock.
    """

    images: int
    first_ms: int
    since_s: float


NOTHING_OPEN = OpenPart(0, -1, 0.0)


@dataclass(slots=True)
class _Open:
    since_s: float
    frames: list[Frame] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)  # of the frames that can be decoded again
    image_bytes: int = 0
    kept_bytes: int = 0  # bytes of `messages`


@dataclass(slots=True)
class Gatherer:
    """The open batch of every stream of one partition.

    Attributes:
        policy: when a batch is complete.
        ends: the partition's part of `BatchPolicy.ends`.
        image_bytes: bytes of the images of all open batches.
        kept_bytes: bytes of the messages that are kept with them.
        images: the number of images of all open batches.
    """

    policy: BatchPolicy
    ends: Mapping[str, tuple[Sequence[int], Sequence[int]]] = field(default_factory=dict)
    image_bytes: int = 0
    kept_bytes: int = 0
    images: int = 0
    _open: dict[str, _Open] = field(default_factory=dict)

    @property
    def frames(self) -> Iterable[Frame]:
        """The frames whose batch is not complete."""
        return (frame for batch in self._open.values() for frame in batch.frames)

    def add(self, decoded: DecodedMessage, now_s: float, *, kept_bytes: int = 0) -> list[ImageBatch]:
        """Take the accepted frames of a message, and return the batches that they completed, in order.

        Args:
            decoded: the message.
            now_s: when it was read.
            kept_bytes: bytes of the message if it is one image and is kept so that it can be decoded again, else 0.
        """
        frames = [frame for frame in decoded.frames if frame.image is not None]
        if decoded.is_batch:
            return self._take_whole(frames)
        complete = []
        for frame in frames:
            stream = _stream(frame)
            batch = self._open.get(stream)
            if batch is not None and self._separates(batch.frames[0], frame):
                complete.append(self._close(stream))
                batch = None
            if batch is None:
                batch = self._open[stream] = _Open(now_s)
            batch.frames.append(frame)
            self.images += 1
            self._count(batch, _nbytes(frame), kept_bytes)
            if kept_bytes:
                batch.messages.append(decoded.message)
            end = self._end(frame)
            if len(batch.frames) >= self.policy.images if end is None else frame.row_id.offset == end:
                complete.append(self._close(stream))
        return complete

    def _end(self, frame: Frame) -> int | None:
        """Return the offset at which this image's batch ended in the earlier run; None if that is not given."""
        return end_of(self.ends, _stream(frame), frame.row_id.offset) if self.ends else None

    def _separates(self, first: Frame, following: Frame) -> bool:
        end, next_end = self._end(first), self._end(following)
        if end is None and next_end is None:
            return self.policy.separates(first.kafka_timestamp_ms, following.kafka_timestamp_ms)
        return end != next_end

    @property
    def streams(self) -> Iterable[str]:
        """The streams that have an open batch."""
        return self._open

    def part(self, stream: str) -> OpenPart | None:
        """Return the size and beginning of a stream's open batch; None if it has none."""
        batch = self._open.get(stream)
        return OpenPart(len(batch.frames), batch.frames[0].kafka_timestamp_ms, batch.since_s) if batch else None

    def sizes(self) -> Iterator[tuple[str, float, int]]:
        """Yield (stream, when it was begun, bytes) of each open batch."""
        return ((name, batch.since_s, batch.image_bytes + batch.kept_bytes) for name, batch in self._open.items())

    def returnable(self) -> Iterator[tuple[str, float, list[Message]]]:
        """Yield (stream, when it was begun, messages) of each open batch whose messages were all kept, newest first."""
        for stream in reversed(self._open):
            batch = self._open[stream]
            if len(batch.messages) == len(batch.frames):
                yield stream, batch.since_s, batch.messages

    def reopen(self, stream: str) -> int:
        """Forget the images of a stream's open batch, whose messages are to be decoded again; return their bytes."""
        image_bytes = self._open[stream].image_bytes
        self._pop(stream)
        return image_bytes

    def is_due(self, now_s: float, awaited: Container[str] = ()) -> bool:
        """Return True if `close_due` would close a batch."""
        return any(True for _ in self._due(now_s, awaited))

    def close_due(self, now_s: float, awaited: Container[str] = ()) -> list[ImageBatch]:
        """Close the batches that waited long enough; to be called when there is nothing left to read.

        Batches of `awaited` streams stay open: messages of these streams were read and are not decoded yet.
        """
        return [self._close(stream) for stream in list(self._due(now_s, awaited))]

    def _due(self, now_s: float, awaited: Container[str]) -> Iterator[str]:
        for stream, batch in self._open.items():
            if stream not in awaited and self.policy.due(now_s - batch.since_s) and self._end(batch.frames[0]) is None:
                yield stream

    def close_all(self) -> list[ImageBatch]:
        """Close every batch, because no message will come again."""
        return [self._close(stream) for stream in list(self._open)]

    def close(self, stream: str) -> list[ImageBatch]:
        """Close the batch of a stream, if it has one."""
        return [self._close(stream)] if stream in self._open else []

    def _take_whole(self, frames: list[Frame]) -> list[ImageBatch]:
        """Return a batch of each stream in a message that is a batch, as the producer sent it.

        The open batches of these streams are closed, and come before.
        """
        streams: dict[str, list[Frame]] = {}
        for frame in frames:
            streams.setdefault(_stream(frame), []).append(frame)
        complete = []
        for stream, members in streams.items():
            if stream in self._open:
                complete.append(self._close(stream))
            complete.append(batch_of(members))
        return complete

    def _close(self, stream: str) -> ImageBatch:
        return batch_of(self._pop(stream).frames)

    def _pop(self, stream: str) -> _Open:
        batch = self._open.pop(stream)
        self.images -= len(batch.frames)
        self._count(batch, -batch.image_bytes, -batch.kept_bytes)
        return batch

    def _count(self, batch: _Open, image_bytes: int, kept_bytes: int) -> None:
        batch.image_bytes, batch.kept_bytes = batch.image_bytes + image_bytes, batch.kept_bytes + kept_bytes
        self.image_bytes, self.kept_bytes = self.image_bytes + image_bytes, self.kept_bytes + kept_bytes


def end_of(ends: Mapping[str, tuple[Sequence[int], Sequence[int]]], stream: str, offset: int) -> int | None:
    """Return the last offset of the batch (of `BatchEnds`) that holds an offset of a stream; None if none holds it."""
    firsts, lasts = ends.get(stream, ((), ()))
    place = bisect_left(lasts, offset)
    return lasts[place] if place < len(lasts) and firsts[place] <= offset else None


def batch_of(frames: list[Frame]) -> ImageBatch:
    """Return accepted frames of one stream, at least one, as a batch."""
    return ImageBatch(_stream(frames[0]), tuple(frames), torch.stack([f.image for f in frames if f.image is not None]))


def without_pixels(batch: ImageBatch) -> ImageBatch:
    """Return the batch without its pixels: its rows wait for their segment, and need no images."""
    nothing = torch.empty(0, dtype=torch.uint8)
    return ImageBatch(batch.stream_id, tuple(replace(frame, image=nothing) for frame in batch.frames), nothing)


def _nbytes(frame: Frame) -> int:
    assert frame.image is not None  # only accepted frames are gathered
    return frame.image.nbytes


def _stream(frame: Frame) -> str:
    assert frame.stream_id is not None  # an accepted frame has one
    return frame.stream_id
