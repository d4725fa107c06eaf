"""The rows of a segment as published results: what `results` makes of a batch, made of what was stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from adawise.records import RowId, RowResult

_SAME = (
    *("stream_id", "frame_id", "status", "reason", "detail", "model_fingerprint", "top_labels", "top_probabilities"),
    *("entropy", "zero_shot_label", "zero_shot_confidence", "fine_tuned_label", "fine_tuned_confidence", "alpha"),
    "batch_number",
)
_TIMES = {
    "captured_at": "captured_at_us",
    "kafka_timestamp": "kafka_timestamp_ms",
    "predicted_at": "predicted_at_us",
}


def results_of(rows: pa.Table) -> list[list[RowResult]]:
    """Return the rows of a table with the schema `schemas.PREDICTIONS`, batch by batch; each rejected row is alone."""
    batches: dict[object, list[RowResult]] = {}
    for result in _results(rows):
        key = result.row_id if result.batch_number is None else (result.stream_id, result.batch_number)
        batches.setdefault(key, []).append(result)
    return list(batches.values())


def _results(rows: pa.Table) -> Iterator[RowResult]:
    whole = {name: rows[name].to_pylist() for name in (*_SAME, "topic", "partition", "offset", "index", "meta")}
    times = {field: rows[name].cast(pa.int64()).to_pylist() for name, field in _TIMES.items()}
    for number in range(rows.num_rows):
        fields: dict[str, Any] = {name: whole[name][number] for name in _SAME}
        fields |= {name: values[number] for name, values in times.items()}
        place = (whole[name][number] for name in ("topic", "partition", "offset", "index"))
        yield RowResult(row_id=RowId(*place), meta=dict(whole["meta"][number]), **fields)
