"""Which way up a camera was held, by the EXIF of its picture: read from the bytes, which no codec sees with it.

A small reader of our own, for one tag of the first directory (TIFF 6.0): Pillow's follows every pointer of a stranger's
metadata, and warns where they are broken. It never raises, and looks at no more than `MAX_PIECES` pieces of a file and
`MAX_ENTRIES` entries of a directory. Anything that is not as it should be says nothing of an orientation. The first
block of EXIF counts; XMP, which a few programs write in its place, is not looked at.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from PIL import Image

from adawise.decode.pieces import PNG_MAGIC, TooManyPieces, jpeg_segments, png_chunks, webp_chunks

MAX_PIECES = 4_096  # segments of a JPEG, chunks of a PNG or WebP
MAX_ENTRIES = 256  # cameras write about a dozen, in the order of their tags

UPRIGHT = 1
ORIENTATION = "orientation"
"""In the `info` of a picture that `codec.open_image` opened: what its EXIF says."""
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
    """1 to 8 as EXIF counts them, of a JPEG, PNG or WebP; 1 (upright) where nothing is said."""
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
    """The picture as its camera saw it; untouched where it is so already. Raises what Pillow raises for broken data."""
    return image.transpose(_TURNED[orientation]) if orientation in _TURNED else image


def _in_jpeg(data: bytes) -> bytes:
    """The first APP1 that is EXIF's, before the first scan."""
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
    """By the first directory, whose place the header says."""
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
