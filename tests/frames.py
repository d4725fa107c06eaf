"""Messages as `decode` leaves them, for tests of what comes after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.errors import Lost, Reason
from pipeline.records import DecodedMessage, Frame, ImageBatch, Message, Missing, RowId

TOPIC = "frames"
SIZE = 4  # px


def a_frame(
    offset: int,
    stream: str = "cam-0",
    *,
    index: int = 0,
    timestamp_ms: int = 0,
    rejected: bool = False,
    captured_at_us: int | None = None,
) -> Frame:
    """One frame; its pixels tell its offset and index."""
    return Frame(
        row_id=RowId(TOPIC, 0, offset, index),
        kafka_timestamp_ms=timestamp_ms,
        stream_id=stream,
        image=None if rejected else torch.full((3, SIZE, SIZE), (offset * 7 + index) % 256, dtype=torch.uint8),
        reason=Reason.UNDECODABLE_IMAGE if rejected else None,
        captured_at_us=captured_at_us,
    )


def decoded(*frames: Frame, is_batch: bool = False) -> DecodedMessage:
    """The message whose frames these are."""
    first = frames[0]
    message = Message(TOPIC, 0, first.row_id.offset, None, b"", timestamp_ms=first.kafka_timestamp_ms)
    return DecodedMessage(message, frames, is_batch=is_batch)


def lost(first: int, last: int, reason: Lost = Lost.BATCH_TOO_LARGE) -> DecodedMessage:
    """What stands for messages that nobody can read."""
    missing = Missing(first, reason, "it is large")
    return DecodedMessage(Message(TOPIC, 0, last, None, None, missing=missing), ())


def single(offset: int, stream: str = "cam-0", *, timestamp_ms: int = 0, rejected: bool = False) -> DecodedMessage:
    """A message of one image."""
    return decoded(a_frame(offset, stream, timestamp_ms=timestamp_ms, rejected=rejected))


def rows(batches: Sequence[ImageBatch]) -> list[list[tuple[int, int]]]:
    """(offset, index) of every image of every batch."""
    return [[(frame.row_id.offset, frame.row_id.index) for frame in batch.frames] for batch in batches]
