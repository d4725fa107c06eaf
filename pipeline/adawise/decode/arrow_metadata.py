"""Checks of Arrow IPC metadata before Arrow reads it: what it would cost, and whether bodies are compressed.

The metadata of a message is a flatbuffer. Arrow verifies that it is well formed, but not that it is cheap: tables of a
flatbuffer may be shared, so that a schema of 1 MB unfolds into two million fields and a gigabyte (measured). Here the
fields are counted as they would unfold, before that happens. Malformed metadata cannot do harm: Python checks all
bounds, and every loop ends at a limit.
"""

from __future__ import annotations

import struct

from adawise.errors import InvalidMessage, Reason

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
