"""Readers of untrusted Arrow IPC streams: the cost of reading is bounded before it is spent."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from adawise.decode.arrow_metadata import bad_arrow, check_metadata
from adawise.errors import InvalidMessage, Reason

MAX_IPC_MESSAGES = 1_024  # schema, dictionaries and record batches of one stream
MAX_VALIDATION_BYTES = 64 * 2**20  # and 16 times the message: what Arrow's checks may read, a fifth of a second

ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, IndexError, struct.error)
"""The exceptions that bytes which are not Arrow's cause."""

_PER_MICROSECOND = {"ns": (1, 1_000), "us": (1, 1), "ms": (1_000, 1), "s": (1_000_000, 1)}  # multiply, then divide


def checked_schema(value: bytes) -> pa.Schema:
    """Return a stream's schema, once its metadata is known to be cheap; raise InvalidMessage or ARROW_ERRORS."""
    _refuse_costly_metadata(value)
    return pa.ipc.open_stream(value).schema


def checked_batches(value: bytes, columns: Sequence[int], *, max_rows: int, limit: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream whose schema was checked, each validated, with the given columns alone.

    Args:
        value: the stream.
        columns: the indices of the columns to read.
        max_rows: the most rows of all batches together.
        limit: the setting that sets `max_rows`, for the message.

    Raises:
        InvalidMessage: too_many_rows, or bad_arrow.
        Exception: one of ARROW_ERRORS.
    """
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=list(columns))
    allowance, rows = MAX_VALIDATION_BYTES + 16 * len(value), 0
    with pa.ipc.open_stream(value, options=options) as reader:
        for batch in reader:
            rows += batch.num_rows
            if rows > max_rows:
                raise InvalidMessage(
                    Reason.TOO_MANY_ROWS,
                    f"expected at most {max_rows} rows ({limit}), got {rows} or more: send smaller batches",
                )
            batch.validate()
            allowance -= _validation_bytes(batch)
            if allowance < 0:
                raise bad_arrow(f"expected columns within the {len(value)} bytes of the message, got shared ones")
            batch.validate(full=True)
            yield batch


def is_text(kind: pa.DataType) -> bool:
    """Return True if a column of this type holds texts."""
    if pa.types.is_dictionary(kind):  # not of views: a small dictionary could show a large text any number of times
        return bool(pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def first_bytes(scalar: Any, most: int) -> bytes | None:
    """Return the first `most` bytes of a text; the rest is never copied: 256 rows may share a text of megabytes."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    buffer = None if scalar is None or not scalar.is_valid else scalar.as_buffer()
    return None if buffer is None else buffer.slice(0, min(most, buffer.size)).to_pybytes()


def text_of(scalar: Any, most: int) -> str | None:
    """Return a text, or a number as text; None if it is null, or a text longer than `most` bytes."""
    if scalar is None or not scalar.is_valid:
        return None
    if not is_text(scalar.type):
        return str(scalar.as_py())
    raw = first_bytes(scalar, most + 1)
    return None if raw is None or len(raw) > most else raw.decode()


def microseconds(column: pa.Array) -> list[int | None]:
    """Return timestamps of any unit as microseconds since the epoch, truncated; one without a zone counts as UTC."""
    multiply, divide = _PER_MICROSECOND[column.type.unit]
    return [None if tick is None else tick * multiply // divide for tick in column.cast(pa.int64()).to_pylist()]


def _refuse_costly_metadata(value: bytes) -> None:
    """Check the metadata of each IPC message, before Arrow unfolds or unpacks anything."""
    source = pa.BufferReader(value)
    messages = pa.ipc.MessageReader.open_stream(source)
    for _ in range(MAX_IPC_MESSAGES):
        check_metadata(value, source.tell())
        try:
            messages.read_next_message()
        except StopIteration:
            return
    raise bad_arrow(f"expected at most {MAX_IPC_MESSAGES} record batches and dictionaries, got more")


def _validation_bytes(batch: pa.RecordBatch) -> int:
    """Return how many bytes a full validation reads, less what is negligible; called before anything is validated.

    That can be more than the message has: each batch reads the dictionaries again, columns may share a buffer, and
    every view may show the same megabytes.
    """
    total = 0
    for column in batch.columns:
        total += column.get_total_buffer_size()
        if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
            present = column.is_valid().to_pylist()
            # The buffer may be of any length that the message claims.
            views = memoryview(column.buffers()[1])[: 16 * len(column)]
            lengths = views.cast("I")[::4].tolist()
            total += sum(length for length, there in zip(lengths, present, strict=True) if there)
    return total
