"""A draft's images and traces as Arrow tables, built column by column, without Python per cell where arrays exist.

The rows of a segment are sorted by (offset, index), whatever order their batches were served in.

The values of the traces file are all in the segment's footer. It is written after the segment, by the worker that
committed or adopted it and before any worker extends the chain from there. So only the newest segment's file can be
missing, and writing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adawise.ports import SegmentDraft, Served
from adawise.records import Frame, LabelColumn, Predictions, RowId, RowResult, status_of
from adawise.sink import layout, schemas, segment
from adawise.sink.segment import SegmentFooter
from adawise.store.store import Store


def prediction_table(draft: SegmentDraft, *, classes: Sequence[str], model_fingerprint: str) -> pa.Table:
    """Return one row per image of the draft, accepted or not, in the order of (offset, index).

    Raises:
        ValueError: a row is of another partition than the draft.
    """
    frames = [frame for batch, _, _ in draft.accepted for frame in batch.frames]
    served = len(frames)
    frames.extend(draft.rejected)
    ids = [f.row_id for f in frames]
    if set(map(attrgetter("topic", "partition"), ids)) - {draft.tp}:
        astray = next(row_id for row_id in ids if (row_id.topic, row_id.partition) != draft.tp)
        raise ValueError(f"every row of a segment of {draft.tp} must lie in that partition, but {astray} does not")
    offset = np.fromiter(map(attrgetter("offset"), ids), np.int64, len(ids))
    index = np.fromiter(map(attrgetter("index"), ids), np.int32, len(ids))
    columns = {
        **_identity(draft, frames, offset, index),
        **_served(draft.accepted, pa.array(classes, pa.string()), len(frames)),
        "status": pa.concat_arrays([pa.repeat("accepted", served), _texts([status_of(f) for f in draft.rejected])]),
        "reason": pa.concat_arrays([pa.nulls(served, pa.string()), _texts([f.reason for f in draft.rejected])]),
        "detail": pa.concat_arrays([pa.nulls(served, pa.string()), _texts([f.detail for f in draft.rejected])]),
        "model_fingerprint": pa.repeat(model_fingerprint, len(frames)),
        schemas.PREDICTED_AT: _predicted_at(draft.accepted, len(frames)),
    }
    table = pa.Table.from_arrays([columns[name] for name in schemas.PREDICTIONS.names], schema=schemas.PREDICTIONS)
    steps = np.diff(offset)
    in_order = bool(np.all((steps > 0) | ((steps == 0) & (index[1:] >= index[:-1]))))
    return table if in_order else table.take(np.lexsort((index, offset)))


def _identity(
    draft: SegmentDraft, frames: Sequence[Frame], offset: npt.NDArray[np.int64], index: npt.NDArray[np.int32]
) -> dict[str, pa.Array]:
    offsets, indices = pa.array(offset), pa.array(index)
    where = f"{draft.tp.topic}/{draft.tp.partition}"
    timestamps = np.fromiter(map(attrgetter("kafka_timestamp_ms"), frames), np.int64, len(frames))
    return {
        "row_id": pc.binary_join_element_wise(where, offsets.cast(pa.string()), indices.cast(pa.string()), "/"),
        "topic": pa.repeat(draft.tp.topic, len(frames)),
        "partition": pa.repeat(pa.scalar(draft.tp.partition, pa.int32()), len(frames)),
        "offset": offsets,
        "index": indices,
        "stream_id": _texts(list(map(attrgetter("stream_id"), frames))),
        "frame_id": _texts(list(map(attrgetter("frame_id"), frames))),
        "captured_at": pa.array(list(map(attrgetter("captured_at_us"), frames)), _type("captured_at")),
        "kafka_timestamp": pa.array(timestamps, mask=timestamps < 0).cast(_type("kafka_timestamp")),
        "true_label": _texts(list(map(attrgetter("true_label"), frames))),
        "meta": _maps([f.meta for f in frames], _type("meta")),
    }


def _served(accepted: Sequence[Served], classes: pa.StringArray, rows: int) -> dict[str, pa.Array]:
    """Return the columns of predictions, null for the rows after the accepted ones, which come first, up to `rows`."""
    sizes = [len(batch) for batch, _, _ in accepted]
    predictions = [p for _, p, _ in accepted]
    widths = np.repeat([p.top_index.shape[1] for p in predictions], sizes).astype(np.int32)
    # Where the lists of rows end; unserved rows repeat the last end, and are null by `mask`.
    ends = np.pad(np.concatenate([[0], np.cumsum(widths)]), (0, rows - len(widths)), mode="edge").astype(np.int32)
    top_index = _joined([p.top_index.ravel() for p in predictions], np.int32)
    top_probability = _joined([p.top_probability.ravel() for p in predictions], np.float32)
    unserved = pa.array(np.arange(rows) >= len(widths))
    endpoint_index = _joined([p.endpoint_index for p in predictions], np.int32, (2, 0))
    endpoint_confidence = _joined([p.endpoint_confidence for p in predictions], np.float32, (2, 0))
    columns: dict[str, pa.Array] = {
        "label": classes.take(pa.array(top_index[ends[: len(widths)]])),
        "confidence": pa.array(top_probability[ends[: len(widths)]]),
        "entropy": pa.array(_joined([p.entropy for p in predictions], np.float32)),
        "alpha": pa.array(np.repeat([trace.alpha for _, _, trace in accepted], sizes).astype(np.float64)),
        "batch_number": pa.array(np.repeat([trace.batch_number for _, _, trace in accepted], sizes).astype(np.int64)),
    }
    for endpoint, name in enumerate(("zero_shot", "fine_tuned")):
        absent = endpoint_index[endpoint] < 0
        columns[f"{name}_label"] = classes.take(pa.array(endpoint_index[endpoint], mask=absent))
        columns[f"{name}_confidence"] = pa.array(endpoint_confidence[endpoint], mask=absent)
    columns |= _scene(predictions, sizes, classes)
    if rows > len(widths):
        for name, column in columns.items():
            columns[name] = pa.concat_arrays([column, pa.nulls(rows - len(column), column.type)])
    for name, values in (("top_labels", classes.take(pa.array(top_index))), ("top_probabilities", top_probability)):
        columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(values), _type(name), mask=unserved)
    return columns


def _scene(predictions: Sequence[Predictions], sizes: Sequence[int], classes: pa.StringArray) -> dict[str, pa.Array]:
    """Return the columns that class priors corrected, null for the batches without one."""
    indices, confidences = [], []
    for p, size in zip(predictions, sizes, strict=True):
        indices.append(np.full(size, -1) if p.scene_index is None else p.scene_index)
        confidences.append(np.zeros(size) if p.scene_confidence is None else p.scene_confidence)
    index, confidence = _joined(indices, np.int32), _joined(confidences, np.float32)
    absent = index < 0
    return {
        "scene_label": classes.take(pa.array(index, pa.int32(), mask=absent)),
        "scene_confidence": pa.array(confidence, pa.float32(), mask=absent | np.isnan(confidence)),
    }


def _predicted_at(accepted: Sequence[Served], rows: int) -> pa.Array:
    known = [trace.predicted_at_us for batch, _, trace in accepted for _ in batch.frames]
    return pa.array(known + [None] * (rows - len(known)), _type(schemas.PREDICTED_AT))


def _joined(arrays: Sequence[npt.NDArray[np.generic]], kind: type, empty: tuple[int, ...] = (0,)) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(empty, kind), *arrays], axis=-1)


def _type(name: str) -> pa.DataType:
    return schemas.PREDICTIONS.field(name).type


def _texts(values: Sequence[str | None]) -> pa.StringArray:
    """Return a string column; text that UTF-8 cannot hold (a lone surrogate, from hostile input) is replaced by "?"."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([v if v is None else v.encode("utf-8", "replace").decode() for v in values], pa.string())


def _maps(values: Sequence[Mapping[str, Any] | None], kind: pa.MapType) -> pa.MapArray:
    """Return a map column, built from flat lists; None is null.

    With a list of pairs for each row, the garbage collector would walk millions of objects.
    """
    maps = [value or {} for value in values]
    ends = np.cumsum(np.fromiter(map(len, maps), np.int64, len(maps)))
    keys = _texts([key for value in maps for key in value])
    flat = [item for value in maps for item in value.values()]
    items = _texts(flat) if pa.types.is_string(kind.item_type) else pa.array(flat, kind.item_type)
    mask = pa.array([value is None for value in values]) if None in values else None
    return pa.MapArray.from_arrays(pa.array(np.append(0, ends), pa.int32()), keys, items, kind, mask=mask)


def trace_table(accepted: Sequence[Served], *, classes: Sequence[str]) -> pa.Table:
    """Return one row per batch, in the order given, with the columns of `schemas.BATCH_TRACE`."""
    rows = [trace for _, _, trace in accepted]
    trials = [trial for trace in rows for trial in trace.trials]
    counts = np.fromiter((len(t.trials) for t in rows), np.int64, len(rows))
    ends = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    parts = [pa.array(list(map(attrgetter(part.name), trials)), part.type) for part in schemas.TRIAL]
    structs = pa.StructArray.from_arrays(parts, fields=list(schemas.TRIAL))
    kafka_ms = np.fromiter(map(attrgetter("kafka_timestamp_ms"), rows), np.int64, len(rows))
    derived: dict[str, pa.Array] = {
        "captured_at": pa.array(list(map(attrgetter("captured_at_us"), rows)), _trace_type("captured_at")),
        "kafka_timestamp": pa.array(kafka_ms, mask=kafka_ms < 0).cast(_trace_type("kafka_timestamp")),
        "trials": pa.ListArray.from_arrays(ends, structs, _trace_type("trials")),
        "milliseconds": _maps([t.milliseconds for t in rows], _trace_type("milliseconds")),
        **{
            column.name: pa.array([t.statistics.get(column.name) for t in rows], column.type)
            for column in schemas.PIXELS
        },
        **{
            column.name: pa.array(
                [t.shadow and getattr(t.shadow, column.name.removeprefix("shadow_")) for t in rows], column.type
            )
            for column in schemas.SHADOW
        },
        **_outcome(accepted, pa.array(classes, pa.string())),
        "off_list": _maps(
            [
                None if t.off_list is None else {classes[index]: images for index, images in t.off_list.items()}
                for t in rows
            ],
            _trace_type("off_list"),
        ),
    }
    columns = [
        derived[field.name] if field.name in derived else pa.array(list(map(attrgetter(field.name), rows)), field.type)
        for field in schemas.BATCH_TRACE
    ]
    return pa.Table.from_arrays(columns, schema=schemas.BATCH_TRACE)


def _outcome(accepted: Sequence[Served], classes: pa.StringArray) -> dict[str, pa.Array]:
    """Return the summary columns of what was served for each batch.

    The sums are exact in float64 (up to 4,096 images of 10,000 classes), so the order of the images does not matter.
    """
    predictions = [p for _, p, _ in accepted]
    sizes = np.fromiter((len(p.entropy) for p in predictions), np.int64, len(predictions))
    of_batch = np.repeat(np.arange(len(sizes)), sizes)
    top = _joined([p.top_index[:, 0] for p in predictions], np.int64)
    confidence = _joined([p.top_probability[:, 0] for p in predictions], np.float32)
    endpoints = _joined([p.endpoint_index for p in predictions], np.int32, (2, 0))
    compared = (endpoints >= 0).all(axis=0)
    agreed = compared & (endpoints[0] == endpoints[1])
    # One key for each batch and class, so that one sort counts the classes of all batches.
    found, counts = np.unique(of_batch * len(classes) + top, return_counts=True)
    ends = np.searchsorted(found, np.arange(len(sizes) + 1) * len(classes))
    served = classes.take(pa.array(found % max(1, len(classes))))
    columns = {
        "mean_confidence": pa.array(np.bincount(of_batch, confidence, len(sizes)) / sizes),
        "compared": pa.array(np.bincount(of_batch[compared], minlength=len(sizes))),
        "agreed": pa.array(np.bincount(of_batch[agreed], minlength=len(sizes))),
        "class_counts": pa.MapArray.from_arrays(pa.array(ends, pa.int32()), served, pa.array(counts, pa.int32())),
    }
    return {name: column.cast(_trace_type(name)) for name, column in columns.items()}


def _trace_type(name: str) -> pa.DataType:
    return schemas.BATCH_TRACE.field(name).type


def traces_of(footer: SegmentFooter, key: str) -> pa.Table:
    """Return the traces, with the columns of `schemas.TRACES`, of the segment that was found at `key`."""
    rows = footer.trace.num_rows
    constants = {"model_fingerprint": pa.repeat(footer.model_fingerprint, rows), "segment": pa.repeat(key, rows)}
    trace = schemas.regret_or_null(footer.trace)
    columns = constants | {name: trace[name].combine_chunks() for name in trace.column_names}
    return pa.Table.from_arrays([columns[name] for name in schemas.TRACES.names], schema=schemas.TRACES)


def write_traces(store: Store, footer: SegmentFooter, key: str) -> None:
    """Write the traces of the segment at `key` under the same name in the traces dataset."""
    facts = {b"adawise.segment": key.encode(), b"adawise.attempt": footer.attempt.encode()}
    data = segment.parquet(traces_of(footer, key), schemas.TRACES_DICTIONARY, facts)
    store.put(layout.traces_key(key), data)


_SAME = (
    *("stream_id", "frame_id", "status", "reason", "detail", "model_fingerprint", "top_labels", "top_probabilities"),
    *("entropy", "zero_shot_label", "zero_shot_confidence", "fine_tuned_label", "fine_tuned_confidence", "alpha"),
    *("batch_number", "scene_label", "scene_confidence"),
)
_TIMES = {
    "captured_at": "captured_at_us",
    "kafka_timestamp": "kafka_timestamp_ms",
    "predicted_at": "predicted_at_us",
}


def results_of(rows: pa.Table, column: LabelColumn | None = None) -> list[list[RowResult]]:
    """Return the rows of a table with the schema `schemas.PREDICTIONS`, batch by batch; each rejected row is alone.

    `column` is that of their label (`records.label_column`).
    """
    batches: dict[object, list[RowResult]] = {}
    for result in _results(rows, column or "label"):
        key = result.row_id if result.batch_number is None else (result.stream_id, result.batch_number)
        batches.setdefault(key, []).append(result)
    return list(batches.values())


def _results(rows: pa.Table, column: LabelColumn) -> Iterator[RowResult]:
    whole = {name: rows[name].to_pylist() for name in (*_SAME, "topic", "partition", "offset", "index", "meta")}
    times = {field: rows[name].cast(pa.int64()).to_pylist() for name, field in _TIMES.items()}
    for number in range(rows.num_rows):
        fields: dict[str, Any] = {name: whole[name][number] for name in _SAME}
        fields |= {name: values[number] for name, values in times.items()}
        place = (whole[name][number] for name in ("topic", "partition", "offset", "index"))
        if fields["scene_label"] is not None:
            fields["label_column"] = column
        yield RowResult(row_id=RowId(*place), meta=dict(whole["meta"][number]), **fields)
