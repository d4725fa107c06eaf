"""Messages as `decode` leaves them, for tests of what comes after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from adawise.adapt.search import Strategy
from adawise.adapt.state import StreamState
from adawise.errors import Lost, Reason
from adawise.ports import Classifier, ServedBy
from adawise.records import BatchTrace, DecodedMessage, Frame, ImageBatch, Message, Missing, Predictions, RowId
from adawise.worker.adaptation import Adaptation, Adapted
from adawise.worker.pairs import PairTurn, Serving

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


def turn_of(initial: Callable[[], StreamState]) -> PairTurn:
    """Return the turn of a pair without a model, which serves for ever and has no id."""
    strategy = cast(Strategy, SimpleNamespace(initial=initial))
    return PairTurn(Serving(Adaptation(strategy, cast(Classifier, None), (1.0,), 1), ServedBy((), "", "")), keeps=False)


def rows(batches: Sequence[ImageBatch]) -> list[list[tuple[int, int]]]:
    """(offset, index) of every image of every batch."""
    return [[(frame.row_id.offset, frame.row_id.index) for frame in batch.frames] for batch in batches]


def adapted(batch: ImageBatch, state: StreamState) -> Adapted:
    """Results that say nothing but whose they are."""
    n = len(batch)
    nothing = np.zeros(n, np.float32)
    predictions = Predictions(
        np.zeros((n, 1), np.int32),
        np.zeros((n, 1), np.float32),
        nothing,
        np.zeros((2, n), np.int32),
        np.zeros((2, n), np.float32),
    )
    offsets = [frame.row_id.offset for frame in batch.frames]
    trace = BatchTrace(
        topic=batch.frames[0].row_id.topic,
        partition=batch.frames[0].row_id.partition,
        first_offset=min(offsets),
        last_offset=max(offsets),
        stream_id=batch.stream_id,
        batch_number=state.batches,
        captured_at_us=None,
        kafka_timestamp_ms=0,
        images=n,
        alpha=0.5,
        previous_alpha=0.5 if state.batches else None,
        trials=(),
        objective=0.0,
        posterior_mean=0.0,
        posterior_sd=0.0,
        trigger="none",
        reset=None,
        forward_equivalents=1.0,
    )
    return Adapted(predictions, trace, dataclasses.replace(state, batches=state.batches + 1))
