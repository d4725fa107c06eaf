"""Arrow batches: several encoded images in one message. Used by producers and by `decode`.

Contract: an Arrow IPC stream with a column `image` (binary) and, each optional, `stream_id` (utf8), `frame_id` (utf8 or
integer), `captured_at` (timestamp, UTC; one without a zone counts as UTC), `label` (utf8) and `meta_*` (utf8, numbers
or booleans). Other columns are ignored. Bodies are not compressed: images already are. A compressed body also states
its own unpacked size, which makes it a decompression bomb that nothing between us and Arrow would stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from adawise.decode.arrow_stream import (
    ARROW_ERRORS,
    bad_arrow,
    checked_batches,
    checked_schema,
    first_bytes,
    is_text,
    microseconds,
    text_of,
)
from adawise.decode.headers import MAX_META, MAX_META_NAME, MAX_STREAM_ID_BYTES, MAX_TEXT_BYTES

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
ARROW_FILE_MAGIC = b"ARROW1"

MAX_COLUMNS = 256

_META = "meta_"


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of a batch as it was sent: nothing in it is checked but its types and lengths.

    `stream_id` is raw bytes, at most MAX_STREAM_ID_BYTES + 1 of them, so that an id that is too long still looks so.
    """

    image: bytes | None
    stream_id: bytes | None = None
    frame_id: str | None = None
    captured_at_us: int | None = None
    label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)


def encode_batch(
    images: Sequence[bytes],
    *,
    stream_id: str | None = None,
    frame_ids: Sequence[str | None] | None = None,
    captured_at_us: Sequence[int | None] | None = None,
    labels: Sequence[str | None] | None = None,
    meta: Mapping[str, Sequence[str | None]] | None = None,
) -> bytes:
    """Return a message value of N encoded images.

    Args:
        images: the N encoded images.
        stream_id: the stream of all of them; None if the key or a header names it.
        frame_ids: one for each image.
        captured_at_us: one time for each image, in microseconds since the epoch.
        labels: one for each image.
        meta: by name (without prefix), one value for each image.
    """
    columns: dict[str, pa.Array] = {"image": pa.array(images, pa.binary())}
    if stream_id is not None:
        columns["stream_id"] = pa.array([stream_id] * len(images), pa.string())
    if frame_ids is not None:
        columns["frame_id"] = pa.array(frame_ids, pa.string())
    if captured_at_us is not None:
        columns["captured_at"] = pa.array(captured_at_us, pa.timestamp("us", "UTC"))
    if labels is not None:
        columns["label"] = pa.array(labels, pa.string())
    for name, values in (meta or {}).items():
        columns[_META + name] = pa.array(values, pa.string())
    batch = pa.record_batch(columns, metadata={"schema": "image-batch/1"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def read_batch(value: bytes, *, max_rows: int) -> list[ImageRow]:
    """Return the rows of a batch message, in order.

    Raises:
        InvalidMessage: bad_arrow, or too_many_rows.
    """
    try:
        names = _useful_columns(checked_schema(value))
        rows: list[ImageRow] = []
        for batch in checked_batches(value, sorted(names), max_rows=max_rows, limit="decode.max_rows"):
            if _image_bytes(batch) > len(value):  # several views may show the same bytes
                raise bad_arrow(f"expected images within the {len(value)} bytes of the message, got shared ones")
            rows.extend(_rows(batch))
        return rows
    except ARROW_ERRORS as error:
        raise bad_arrow(f"expected an Arrow IPC stream, got {len(value)} bytes that are not: {error}") from error


def stream_ids(value: bytes, *, max_rows: int) -> set[bytes | None]:
    """Return the streams that the rows of a batch message name, as in `ImageRow`; no image is read.

    Raises:
        InvalidMessage: bad_arrow, or too_many_rows; then `read_batch` raises it, too.
    """
    try:
        column = checked_schema(value).get_field_index("stream_id")
        if column < 0:
            return {None}
        batches = checked_batches(value, [column], max_rows=max_rows, limit="decode.max_rows")
        return {first_bytes(cell, MAX_STREAM_ID_BYTES + 1) for batch in batches for cell in batch.column(0)}
    except ARROW_ERRORS as error:
        raise bad_arrow(f"expected an Arrow IPC stream, got {len(value)} bytes that are not: {error}") from error


def _useful_columns(schema: pa.Schema) -> dict[int, str]:
    """Return index -> name of the columns that are read; the others are not even loaded."""
    if len(schema) > MAX_COLUMNS:
        raise bad_arrow(f"expected at most {MAX_COLUMNS} columns, got {len(schema)}")
    for name, (fits, expected) in _CONTRACT.items():
        for index in schema.get_all_field_indices(name):
            if not fits(schema.types[index]):
                raise bad_arrow(f"column {name}: expected {expected}, got {schema.types[index]}")
    if len(schema.get_all_field_indices("image")) != 1:
        raise bad_arrow(
            f"expected one column 'image' (binary), got the columns {', '.join(schema.names)[:200] or 'none'}"
        )
    useful = {i: name for i, name in enumerate(schema.names) if name in _CONTRACT or name.startswith(_META)}
    if len(set(useful.values())) < len(useful):
        raise bad_arrow("expected each column once, got one twice")
    meta = [i for i, name in useful.items() if name.startswith(_META)]
    unusable = {i for number, i in enumerate(meta) if number >= MAX_META or not _is_plain(schema.types[i])}
    unusable |= {i for i in meta if len(useful[i]) > MAX_META_NAME}
    return {i: name for i, name in useful.items() if i not in unusable}


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


_CONTRACT = {
    "image": (_is_binary, "binary"),
    "stream_id": (is_text, "utf8"),
    "frame_id": (lambda kind: is_text(kind) or bool(pa.types.is_integer(kind)), "utf8 or an integer"),
    "captured_at": (lambda kind: bool(pa.types.is_timestamp(kind)), "timestamp[us, UTC]"),
    "label": (is_text, "utf8"),
}


def _image_bytes(batch: pa.RecordBatch) -> int:
    buffers = (image.as_buffer() for image in batch.column("image"))
    return sum(buffer.size for buffer in buffers if buffer is not None)


def _rows(batch: pa.RecordBatch) -> list[ImageRow]:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    times: list[int | None] = [None] * batch.num_rows
    if "captured_at" in columns:
        times = microseconds(columns["captured_at"])
    meta = {name.removeprefix(_META): column for name, column in columns.items() if name.startswith(_META)}

    def cell(name: str, row: int) -> Any:
        return columns[name][row] if name in columns else None

    rows = []
    for i in range(batch.num_rows):
        image = columns["image"][i].as_buffer()
        entries = {name: text_of(column[i], MAX_TEXT_BYTES) for name, column in meta.items()}
        rows.append(
            ImageRow(
                image=None if image is None else image.to_pybytes(),
                stream_id=first_bytes(cell("stream_id", i), MAX_STREAM_ID_BYTES + 1),
                frame_id=text_of(cell("frame_id", i), MAX_TEXT_BYTES),
                captured_at_us=times[i],
                label=text_of(cell("label", i), MAX_TEXT_BYTES),
                meta={name: text for name, text in entries.items() if text is not None},
            )
        )
    return rows
