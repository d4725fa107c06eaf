"""Results of a batch, row by row, from what the worker holds; `sink.columns` reads equal ones from a segment. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adawise.ports import Served
from adawise.records import Frame, RowResult, status_of


def results_of_batch(served: Served, classes: Sequence[str], model_fingerprint: str) -> list[RowResult]:
    """Return one result for each image of a batch, in its order."""
    batch, predictions, trace = served
    best, probabilities = predictions.top_index.tolist(), predictions.top_probability.tolist()
    entropies = predictions.entropy.tolist()
    ends, confidences = predictions.endpoint_index.tolist(), predictions.endpoint_confidence.tolist()
    found = []
    for i, frame in enumerate(batch.frames):
        (zero, fine), (zero_confidence, fine_confidence) = (
            (classes[end[i]] if end[i] >= 0 else None for end in ends),
            (_number(end[i]) for end in confidences),
        )
        found.append(
            RowResult(
                row_id=frame.row_id,
                stream_id=frame.stream_id,
                frame_id=frame.frame_id,
                captured_at_us=frame.captured_at_us,
                kafka_timestamp_ms=_stated(frame),
                status="accepted",
                reason=None,
                detail=None,
                meta=frame.meta,
                model_fingerprint=model_fingerprint,
                top_labels=[classes[index] for index in best[i]],
                top_probabilities=probabilities[i],
                entropy=entropies[i],
                zero_shot_label=zero,
                zero_shot_confidence=zero_confidence,
                fine_tuned_label=fine,
                fine_tuned_confidence=fine_confidence,
                alpha=trace.alpha,
                batch_number=trace.batch_number,
                predicted_at_us=trace.predicted_at_us,
            )
        )
    return found


def result_of_frame(frame: Frame, model_fingerprint: str) -> RowResult:
    """Return the result of an image that was not accepted."""
    return RowResult(
        row_id=frame.row_id,
        stream_id=frame.stream_id,
        frame_id=frame.frame_id,
        captured_at_us=frame.captured_at_us,
        kafka_timestamp_ms=_stated(frame),
        status=status_of(frame),
        reason=None if frame.reason is None else str(frame.reason),
        detail=frame.detail,
        meta=frame.meta,
        model_fingerprint=model_fingerprint,
    )


def _stated(frame: Frame) -> int | None:
    return None if frame.kafka_timestamp_ms < 0 else frame.kafka_timestamp_ms


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
