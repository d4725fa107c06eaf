"""The pieces that an image file is made of: (start, kind, end) of each, by its format. Nothing is copied or checked.

The walks are bounded: a file with more than `most` pieces raises TooManyPieces, so that no file costs a step per byte.

The orientation of a picture is read from its EXIF here, so that no codec gets to see the metadata. It is a small reader
for one tag of the first directory (TIFF 6.0): Pillow's follows every pointer of untrusted metadata, and
warns where they are broken. This one never raises, and reads at most `MAX_PIECES` pieces of a file and `MAX_ENTRIES`
entries of a directory. Malformed metadata counts as no orientation. The first block of EXIF counts; XMP, which a few
programs write in its place, is not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image

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


def count_scans(data: bytes) -> int:
    """Return how often the marker of a scan is in these bytes of a JPEG; image data escapes 0xFF."""
    # bytes.count takes longer than the rest of opening a picture: it compares byte by byte.
    found = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero((found[:-1] == 0xFF) & (found[1:] == SOS)))


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


MAX_PIECES = 4_096  # segments of a JPEG, chunks of a PNG or WebP
MAX_ENTRIES = 256  # cameras write about a dozen, in the order of their tags

UPRIGHT = 1
SCANS = "scans"
"""The key of the number of scan markers, those in metadata included, in the `info` of a JPEG that `codec.open_image`
opened."""
ORIENTATION = "orientation"
"""The key of the EXIF orientation in the `info` of a picture that `codec.open_image` opened."""
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TAG, _SHORT = 0x0112, 3
_MARK = b"Exif\0\0"
_APP1 = 0xE1
_WEBP_HAS_EXIF = 0x08


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, PNG or WebP, 1 to 8; 1 (upright) where none is given."""
    block = b""
    with suppress(TooManyPieces):
        if data.startswith(b"\xff\xd8"):
            block = _in_jpeg(data)
        elif data.startswith(PNG_MAGIC):
            block = _in_png(data)
        elif data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and data[20:21] and data[20] & _WEBP_HAS_EXIF:
            block = _in_webp(data)
    return _by_tiff(block.removeprefix(_MARK))


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture upright, unchanged if it is so already; raise what Pillow raises for broken data."""
    return image.transpose(_TURNED[orientation]) if orientation in _TURNED else image


def _in_jpeg(data: bytes) -> bytes:
    """Return the first APP1 segment that is EXIF's, before the first scan."""
    return next(
        (
            data[start + 4 : end]
            for start, marker, end in jpeg_segments(data, most=MAX_PIECES)
            if marker == _APP1 and data.startswith(_MARK, start + 4)
        ),
        b"",
    )


def _in_png(data: bytes) -> bytes:
    return next((data[at + 8 : end - 4] for at, kind, end in png_chunks(data, most=MAX_PIECES) if kind == b"eXIf"), b"")


def _in_webp(data: bytes) -> bytes:
    return next((data[at + 8 : end] for at, kind, end in webp_chunks(data, most=MAX_PIECES) if kind == b"EXIF"), b"")


def _by_tiff(block: bytes) -> int:
    """Return the orientation in the first directory, whose position is in the header."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return UPRIGHT
    (place,) = struct.unpack_from(f"{order}I", block, 4)
    if place + 2 > len(block):
        return UPRIGHT
    (entries,) = struct.unpack_from(f"{order}H", block, place)
    for at in range(place + 2, place + 2 + 12 * min(entries, MAX_ENTRIES), 12):
        if at + 12 > len(block):
            break
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", block, at)
        if tag == _TAG:
            return value if (kind, count) == (_SHORT, 1) and value in _TURNED else UPRIGHT
    return UPRIGHT
