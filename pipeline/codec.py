"""Image bytes from a stranger -> an opened Pillow image whose decoding is bounded. Between the wire and preprocessing.

Only JPEG, PNG, WebP and BMP. Before Pillow sees a JPEG or PNG it is rebuilt from the parts that make pixels: EXIF,
comments, colour profiles, text and animation chunks are dropped. Nothing is lost (neither open_clip nor we use them),
and with them go the decompression bombs inside metadata, the warnings that Pillow raises about them (Python's warning
filters are not thread-safe, so a pool could not silence them), and every frame but the first. The size is read from the
header, before any pixel is decoded.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator

from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pipeline.errors import InvalidMessage, Reason

# No one sends this much structure in good faith, and each piece costs Python or libjpeg a step.
MAX_SEGMENTS = 4_096  # JPEG segments before the first scan
MAX_CHUNKS = 65_536  # PNG chunks; encoders write image data in pieces of 8 KiB and more
MAX_WEBP_CHUNKS = 16  # that are looked at before the image
MAX_WEBP_SIDE = 16_383  # px; what the format allows an image; a canvas around it may claim a thousand times more
MAX_SCANS = 50  # of a progressive JPEG; each one walks over the whole image, encoders write about 10

_WEBP_BEFORE_IMAGE = (b"VP8X", b"ICCP", b"ALPH", b"EXIF", b"XMP ")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_IMAGE = (b"IDAT", b"IEND")
_JPEG_BARE = {0x01, *range(0xD0, 0xDA)}  # TEM, RST, SOI, EOI: markers without a length
_JPEG_METADATA = {0xFE, *range(0xE1, 0xEE), 0xEF}  # COM and APPn, but JFIF (APP0) and Adobe (APP14) choose the colours
# Builds of libjpeg differ in whether they read these; and a bit of arithmetic code may stand for any number of blocks.
_JPEG_UNUSUAL = {
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "lossless or hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded"),
}
_SOS = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)  # after any fill bytes; 0xFF00 is an escaped byte
_BMP_RUN_LENGTH = (1, 2)
# Pixels that a byte can stand for at most: deflate packs 1032 bytes into one, of 8 pixels each; in a JPEG each block of
# 64 has at least one bit, in a lossy WebP each of 16 x 16. So a lie about the size is known before its pixels are made.
# A lossless WebP of one colour takes 38 bytes at any size, and of an animation only the first frame is looked at.
_DENSEST = {"image/png": 8 * 1_032, "image/jpeg": 8 * 64, "image/bmp": 8}
_DENSEST_LOSSY_WEBP = 8 * 256


def sniff(data: bytes | memoryview) -> str | None:
    """The media type by the first bytes, None if it is none of the four that are read."""
    head = bytes(data[:16])
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(_PNG_MAGIC):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"BM"):
        return "image/bmp"
    return None


def open_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Read the header; the pixels are decoded when they are used, by at most `max_pixels`.

    Raises:
        InvalidMessage: unsupported_format, too_many_pixels or undecodable_image. Decoding can fail later all the same:
            see `undecodable`.
    """
    kind = sniff(data)
    if kind is None:
        raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, f"expected JPEG, PNG, WebP or BMP, got {bytes(data[:8])!r}")
    try:
        image = _open(kind, data)
    except (InvalidMessage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InvalidMessage(Reason.TOO_MANY_PIXELS, str(error)) from error
    except Exception as error:
        raise undecodable(kind, error) from error
    width, height = image.size
    if width * height > max_pixels:
        detail = f"expected at most {max_pixels} pixels (decode.max_pixels), the header says {width} x {height}"
        raise InvalidMessage(Reason.TOO_MANY_PIXELS, detail)
    if kind == "image/webp" and max(width, height) > MAX_WEBP_SIDE:  # the canvas of an animation has its own field
        detail = f"image/webp: expected sides of at most {MAX_WEBP_SIDE} pixels, the canvas is {width} x {height}"
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, detail)
    if kind == "image/bmp" and image.info.get("compression") in _BMP_RUN_LENGTH:  # decoded in Python, byte by byte
        raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, "expected an uncompressed BMP, got a run-length coded one")
    most = _DENSEST_LOSSY_WEBP if kind == "image/webp" and _is_lossy_webp(data) else _DENSEST.get(kind)
    if most is not None and width * height > most * len(data):
        detail = f"{kind}: expected data for {width} x {height} pixels, got {len(data)} bytes, which cannot hold them"
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, detail)
    return image


def undecodable(what: str, error: Exception) -> InvalidMessage:
    """What a codec raised about hostile bytes, as a reason.

    Pillow promises no closed set of exceptions for broken data, so callers catch `Exception` around it: the bytes are
    the only input there, hence the cause. MemoryError is theirs to re-raise: with the pixels bounded it is the
    machine's trouble, not the message's, and the message must not be rejected for it.
    """
    return InvalidMessage(Reason.UNDECODABLE_IMAGE, f"{what}: {error or type(error).__name__}")


def _open(kind: str, data: bytes) -> ImageFile.ImageFile:
    """The plug-ins' classes, not Image.open: that warns about large images and follows MPO into other frames."""
    if kind == "image/jpeg":
        return JpegImagePlugin.JpegImageFile(io.BytesIO(_jpeg_pixels(data)))
    if kind == "image/png":
        return PngImagePlugin.PngImageFile(io.BytesIO(_png_pixels(data)))
    if kind == "image/webp":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    return BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def _jpeg_pixels(data: bytes) -> bytes:
    """The JPEG without metadata; what lies between segments, and is no segment, is dropped too."""
    parts = [b"\xff\xd8"]
    for start, marker, end in _jpeg_segments(data):
        if unusual := _JPEG_UNUSUAL.get(marker):
            detail = f"expected a baseline or progressive JPEG, got one that is {unusual}: re-encode it"
            raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, detail)
        if marker not in _JPEG_METADATA:
            parts.append(data[start:end])
    scans = parts[-1].count(b"\xff\xda") if len(parts) > 1 else 0  # image data escapes 0xFF, so these are markers
    if scans > MAX_SCANS:
        detail = f"expected at most {MAX_SCANS} scans, got {scans}: re-encode the JPEG as baseline"
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, detail)
    return b"".join(parts)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, marker, end) of each segment; the last one is the first scan with all that follows it."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            return
        position = found.start()
        marker = data[position + 1]
        if marker == _SOS:
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
    raise InvalidMessage(Reason.UNDECODABLE_IMAGE, f"expected an image within {MAX_SEGMENTS} JPEG segments, got more")


def _is_lossy_webp(data: bytes) -> bool:
    """True if it is one lossy image: not an animation, and not lossless."""
    position = 12
    for _ in range(MAX_WEBP_CHUNKS):
        kind = data[position : position + 4]
        if kind not in _WEBP_BEFORE_IMAGE or position + 8 > len(data):
            return kind == b"VP8 "
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    return False


def _png_pixels(data: bytes) -> bytes:
    """The PNG's critical chunks and its transparency; a cut-off last chunk stays as it is, for the codec to refuse.

    Behind the first image data nothing but more of it is kept: Pillow would read a new header or palette there, after
    it has looked at the first one.
    """
    parts = [_PNG_MAGIC]
    position, packed_bytes = len(_PNG_MAGIC), 0
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in (_PNG_IMAGE if packed_bytes else _PNG_PIXELS):
            parts.append(data[position:end])
        if kind == b"IDAT":
            packed_bytes += min(end, len(data)) - position
        if kind == b"IEND":
            break
        position = end
    else:
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, f"expected at most {MAX_CHUNKS} PNG chunks, got more")
    if not packed_bytes:  # Pillow would take it for a black image
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, "image/png: expected image data (IDAT), got none")
    return b"".join(parts)
