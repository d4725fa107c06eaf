"""The Arrow side of the wire format: a batch of encoded images in one message. Used by producers and by `decode`.

Contract: an Arrow IPC stream with a column `image` (binary) and, each optional, `stream_id` (utf8), `frame_id` (utf8 or
integer), `captured_at` (timestamp, UTC; one without a zone counts as UTC), `label` (utf8) and `meta_*` (utf8, numbers
or booleans). Other columns are ignored. Bodies are not compressed: images are already, and a compressed body states its
unpacked size itself, which is a decompression bomb that nothing between us and Arrow would stop.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.arrow_metadata import check_metadata
from pipeline.errors import InvalidMessage, Reason

ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
ARROW_FILE_MAGIC = b"ARROW1"

MAX_STREAM_ID_BYTES = 249  # what Kafka allows a topic to be called
MAX_TEXT_BYTES = 1_024  # frame ids, labels, meta values; longer ones are dropped, the image is still good
MAX_META = 32  # entries per image
MAX_META_NAME = 64
MAX_COLUMNS = 256
MAX_IPC_MESSAGES = 1_024  # schema, dictionaries and record batches of one stream
MAX_VALIDATION_BYTES = 64 * 2**20  # and 16 times the message: what Arrow's checks may look at, a fifth of a second

_PER_MICROSECOND = {"ns": (1, 1_000), "us": (1, 1), "ms": (1_000, 1), "s": (1_000_000, 1)}  # multiply, then divide
_META = "meta_"


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of a batch as it was sent: nothing in it is checked but its types and lengths.

    `stream_id` are raw bytes, at most MAX_STREAM_ID_BYTES + 1 of them, so that too long stays too long.
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
    """A message value of N encoded images; every sequence has N entries, times are microseconds since the epoch."""
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
    """The rows of a batch message, in order.

    Raises:
        InvalidMessage: bad_arrow, or too_many_rows.
    """
    try:
        _refuse_costly_metadata(value)
        names = _useful_columns(pa.ipc.open_stream(value).schema)
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=sorted(names))
        rows: list[ImageRow] = []
        allowance = MAX_VALIDATION_BYTES + 16 * len(value)
        with pa.ipc.open_stream(value, options=options) as reader:
            for batch in reader:
                if len(rows) + batch.num_rows > max_rows:
                    detail = f"expected at most {max_rows} rows (decode.max_rows), got {len(rows) + batch.num_rows}"
                    raise InvalidMessage(Reason.TOO_MANY_ROWS, f"{detail} or more: send smaller batches")
                batch.validate()
                allowance -= _validation_bytes(batch)
                if allowance < 0:
                    raise _bad(f"expected columns within the {len(value)} bytes of the message, got shared ones")
                batch.validate(full=True)
                if _image_bytes(batch) > len(value):  # views may all show the same bytes
                    raise _bad(f"expected images within the {len(value)} bytes of the message, got shared ones")
                rows.extend(_rows(batch))
        return rows
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as error:
        raise _bad(f"expected an Arrow IPC stream, got {len(value)} bytes that are not: {error}") from error


def _bad(detail: str) -> InvalidMessage:
    return InvalidMessage(Reason.BAD_ARROW, detail)


def _refuse_costly_metadata(value: bytes) -> None:
    """Look into each IPC message's metadata, before Arrow unfolds or unpacks anything."""
    source = pa.BufferReader(value)
    messages = pa.ipc.MessageReader.open_stream(source)
    for _ in range(MAX_IPC_MESSAGES):
        check_metadata(value, source.tell())
        try:
            messages.read_next_message()
        except StopIteration:
            return
    raise _bad(f"expected at most {MAX_IPC_MESSAGES} record batches and dictionaries, got more")


def _validation_bytes(batch: pa.RecordBatch) -> int:
    """How many bytes a full validation looks at, less what does not matter; asked when nothing is validated yet.

    More than the message has, as each batch looks at the dictionaries again, columns may share a buffer, and every view
    may show the same megabytes.
    """
    total = 0
    for column in batch.columns:
        total += column.get_total_buffer_size()
        if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
            present = column.is_valid().to_pylist()
            views = memoryview(column.buffers()[1])[: 16 * len(column)]  # what a message says to follow has any length
            lengths = views.cast("I")[::4].tolist()
            total += sum(length for length, there in zip(lengths, present, strict=True) if there)
    return total


def _useful_columns(schema: pa.Schema) -> dict[int, str]:
    """index -> name of the columns that are read; the rest is not even loaded."""
    if len(schema) > MAX_COLUMNS:
        raise _bad(f"expected at most {MAX_COLUMNS} columns, got {len(schema)}")
    for name, (fits, expected) in _CONTRACT.items():
        for index in schema.get_all_field_indices(name):
            if not fits(schema.types[index]):
                raise _bad(f"column {name}: expected {expected}, got {schema.types[index]}")
    if len(schema.get_all_field_indices("image")) != 1:
        raise _bad(f"expected one column 'image' (binary), got the columns {', '.join(schema.names)[:200] or 'none'}")
    useful = {i: name for i, name in enumerate(schema.names) if name in _CONTRACT or name.startswith(_META)}
    if len(set(useful.values())) < len(useful):
        raise _bad("expected each column once, got one twice")
    meta = [i for i, name in useful.items() if name.startswith(_META)]
    unusable = {i for number, i in enumerate(meta) if number >= MAX_META or not _is_plain(schema.types[i])}
    unusable |= {i for i in meta if len(useful[i]) > MAX_META_NAME}
    return {i: name for i, name in useful.items() if i not in unusable}


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # not of views: a small dictionary could show a large text any number of times
        return bool(pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


_CONTRACT = {
    "image": (_is_binary, "binary"),
    "stream_id": (_is_text, "utf8"),
    "frame_id": (lambda kind: _is_text(kind) or bool(pa.types.is_integer(kind)), "utf8 or an integer"),
    "captured_at": (lambda kind: bool(pa.types.is_timestamp(kind)), "timestamp[us, UTC]"),
    "label": (_is_text, "utf8"),
}


def _image_bytes(batch: pa.RecordBatch) -> int:
    buffers = (image.as_buffer() for image in batch.column("image"))
    return sum(buffer.size for buffer in buffers if buffer is not None)


def _rows(batch: pa.RecordBatch) -> list[ImageRow]:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    times: list[int | None] = [None] * batch.num_rows
    if "captured_at" in columns:
        multiply, divide = _PER_MICROSECOND[columns["captured_at"].type.unit]
        ticks = columns["captured_at"].cast(pa.int64()).to_pylist()
        times = [None if tick is None else tick * multiply // divide for tick in ticks]
    meta = {name.removeprefix(_META): column for name, column in columns.items() if name.startswith(_META)}

    def cell(name: str, row: int) -> Any:
        return columns[name][row] if name in columns else None

    rows = []
    for i in range(batch.num_rows):
        image = columns["image"][i].as_buffer()
        entries = {name: _text(column[i]) for name, column in meta.items()}
        rows.append(
            ImageRow(
                image=None if image is None else image.to_pybytes(),
                stream_id=_bytes(cell("stream_id", i), MAX_STREAM_ID_BYTES + 1),
                frame_id=_text(cell("frame_id", i)),
                captured_at_us=times[i],
                label=_text(cell("label", i)),
                meta={name: text for name, text in entries.items() if text is not None},
            )
        )
    return rows


def _bytes(scalar: Any, most: int) -> bytes | None:
    """The first `most` bytes of a text; never all of it first: 256 rows may share one text of megabytes."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    buffer = None if scalar is None or not scalar.is_valid else scalar.as_buffer()
    return None if buffer is None else buffer.slice(0, min(most, buffer.size)).to_pybytes()


def _text(scalar: Any) -> str | None:
    if scalar is None or not scalar.is_valid:
        return None
    if not _is_text(scalar.type):
        return str(scalar.as_py())
    raw = _bytes(scalar, MAX_TEXT_BYTES + 1)
    return None if raw is None or len(raw) > MAX_TEXT_BYTES else raw.decode()
