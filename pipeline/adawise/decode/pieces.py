"""The pieces that an image file is made of: (start, kind, end) of each, by its format. Nothing is copied or checked.

The walks are bounded: a file with more than `most` pieces raises TooManyPieces, so that no file costs a step per byte.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SOS = 0xDA
_JPEG_BARE = {0x01, *range(0xD0, SOS)}  # TEM, RST, SOI, EOI: markers without a length
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)  # after any fill bytes; 0xFF00 is an escaped byte


class TooManyPieces(Exception):
    """Raised when a file has more pieces than the caller allows."""


def jpeg_segments(data: bytes, *, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield the segments by their markers; the last is the first scan with all after it. Other bytes are skipped."""
    position = 2
    for _ in range(most):
        found = _MARKER.search(data, position)
        if found is None:
            return
        position = found.start()
        marker = data[position + 1]
        if marker == SOS:
            yield position, marker, len(data)
            return
        if marker in _JPEG_BARE:
            position += 2
            continue
        if position + 4 > len(data):
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield position, marker, end
        position = end
    raise TooManyPieces


def png_chunks(data: bytes, *, most: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the chunks up to the end of the image.

    `end` is after the checksum, and beyond the data where the last chunk is truncated.
    """
    position = len(PNG_MAGIC)
    for _ in range(most):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield position, kind, end
        if kind == b"IEND":
            return
        position = end
    raise TooManyPieces


def webp_chunks(data: bytes, *, most: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the chunks of a RIFF file; `end` excludes the padding byte of a chunk of odd length."""
    position = 12
    for _ in range(most):
        if position + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        yield position, kind, position + 8 + length
        position += 8 + length + length % 2
    raise TooManyPieces
