"""Readers of untrusted Arrow IPC streams: the cost of reading is bounded before it is spent.

The metadata of a message is a flatbuffer. Arrow verifies that it is well formed, but not that it is cheap: tables of a
flatbuffer may be shared, so that a schema of 1 MB unfolds into two million fields and a gigabyte (measured). Here the
fields are counted as they would unfold, before that happens. Malformed metadata cannot do harm: Python checks all
bounds, and every loop ends at a limit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

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


MAX_METADATA_BYTES = 256 * 1024  # of one IPC message; 256 columns with a description for pandas take 80 KB
MAX_FIELDS = 512  # of a schema, nested ones included
MAX_TEXT_BYTES = 4 * MAX_METADATA_BYTES  # of names, keys and values, counted as they unfold

_CONTINUATION = 0xFFFF_FFFF


def check_metadata(value: bytes, position: int) -> None:
    """Check the metadata of the IPC message that begins at `position`; the end of the stream has none.

    Raises:
        InvalidMessage: bad_arrow.
        struct.error, IndexError: it is not a flatbuffer of Arrow's.
    """
    if position + 4 > len(value):
        return
    length, begin = struct.unpack_from("<I", value, position)[0], position + 4
    if length == _CONTINUATION:  # a writer older than Arrow 0.15 leaves it out
        length, begin = struct.unpack_from("<I", value, begin)[0], begin + 4
    if length > MAX_METADATA_BYTES:
        raise bad_arrow(f"expected at most {MAX_METADATA_BYTES} bytes of metadata in an IPC message, got {length}")
    if length:
        _Metadata(value[begin : begin + length]).check()


def bad_arrow(detail: str) -> InvalidMessage:
    """Return the refusal of a message in Arrow's format, with what was expected and what came."""
    return InvalidMessage(Reason.BAD_ARROW, detail)


class _Metadata:
    """A flatbuffer `Message`, walked with counters."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._fields = self._text_bytes = 0

    def check(self) -> None:
        message = self._follow(0)
        self._count_pairs(self._member(message, 4))
        kind, header = self._member(message, 1), self._member(message, 2)
        if not kind or not header:
            return
        table = self._follow(header)
        match self._buffer[kind]:  # union MessageHeader of Arrow's Message.fbs
            case 1:  # schema
                self._check_schema(table)
            case 2:  # dictionary batch
                self._check_batch(self._follow(self._member(table, 1)))
            case 3:  # record batch
                self._check_batch(table)

    def _check_schema(self, schema: int) -> None:
        self._count_pairs(self._member(schema, 2))
        waiting = [self._member(schema, 1)]
        while waiting:
            for entry in self._entries(waiting.pop(), MAX_FIELDS):
                field = self._follow(entry)
                self._fields += 1
                if self._fields > MAX_FIELDS:
                    raise bad_arrow(f"expected at most {MAX_FIELDS} columns, nested ones included, got more")
                self._count_text(self._member(field, 0))
                self._count_pairs(self._member(field, 6))
                waiting.append(self._member(field, 5))

    def _check_batch(self, batch: int) -> None:
        if self._member(batch, 3):
            raise bad_arrow("expected uncompressed bodies, got a compressed one: write with compression=None")

    def _count_pairs(self, vector: int) -> None:
        for entry in self._entries(vector, MAX_METADATA_BYTES):
            pair = self._follow(entry)
            self._count_text(self._member(pair, 0))
            self._count_text(self._member(pair, 1))

    def _count_text(self, place: int) -> None:
        self._text_bytes += 1 + (self._unsigned("I", self._follow(place)) if place else 0)
        if self._text_bytes > MAX_TEXT_BYTES:
            raise bad_arrow(f"expected at most {MAX_TEXT_BYTES} bytes of names and descriptions, got more")

    def _entries(self, vector: int, most: int) -> range:
        """Return the positions of the offsets in a vector of tables; an empty range for an absent one."""
        if not vector:
            return range(0)
        start = self._follow(vector)
        count = self._unsigned("I", start)
        if count > most:
            raise bad_arrow(f"expected at most {most} entries in a list of the metadata, got {count}")
        return range(start + 4, start + 4 + 4 * count, 4)

    def _unsigned(self, kind: str, position: int) -> int:
        number: int = struct.unpack_from(f"<{kind}", self._buffer, position)[0]
        return number

    def _member(self, table: int, index: int) -> int:
        """Return the position of a table's member, 0 if it is absent."""
        offsets = table - struct.unpack_from("<i", self._buffer, table)[0]
        if 4 + 2 * index >= self._unsigned("H", offsets):
            return 0
        offset = self._unsigned("H", offsets + 4 + 2 * index)
        return table + offset if offset else 0

    def _follow(self, position: int) -> int:
        return position + self._unsigned("I", position)
