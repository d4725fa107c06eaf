"""Untrusted image bytes -> an opened Pillow image whose decoding cost is bounded. Between message and preprocessing.

Pillow opens images and refuses broken ones. For an intact baseline JPEG `rgb` calls libjpeg-turbo itself, which gives
the same bits in less time.

Only JPEG, PNG, WebP and BMP are read. Before Pillow sees a JPEG or PNG, it is rebuilt from the parts that make pixels:
EXIF, comments, colour profiles, text and animation chunks are dropped. open_clip uses none of these, and we use the
orientation alone, which a reader of our own finds. The decompression bombs inside metadata go with them, and so do
every frame but the first and the warnings that Pillow raises about metadata (Python's warning filters are not
thread-safe, so a pool could not silence them). The size is read from the header, before any pixel is decoded.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, features

from adawise.decode.pieces import (
    ORIENTATION,
    PNG_MAGIC,
    SCANS,
    TooManyPieces,
    count_scans,
    jpeg_segments,
    orientation_of,
    png_chunks,
    webp_chunks,
)
from adawise.errors import InvalidMessage, Reason

# No honest encoder writes this much structure, and each piece costs Python or libjpeg a step.
MAX_SEGMENTS = 4_096  # JPEG segments before the first scan
MAX_CHUNKS = 65_536  # PNG chunks; encoders write image data in pieces of 8 KiB and more
MAX_WEBP_CHUNKS = 16  # chunks that are read in search of the image
MAX_SIDE = 65_535  # px; the most that a JPEG can state, and no camera's picture is longer
MAX_WEBP_SIDE = 16_383  # px; the format's limit for an image; a canvas around it may claim a thousand times more
MAX_SCANS = 50  # of a progressive JPEG; each walks over the whole image, and encoders write about 10

_WEBP_BEFORE_IMAGE = (b"VP8X", b"ICCP", b"ALPH", b"EXIF", b"XMP ")
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_IMAGE = (b"IDAT", b"IEND")
# COM and APPn, but not JFIF (APP0) and Adobe (APP14), which set the colours.
_JPEG_METADATA = {0xFE, *range(0xE1, 0xEE), 0xEF}
# Builds of libjpeg differ in whether they read these. A bit of arithmetic code may also represent any number of blocks.
_JPEG_UNUSUAL = {
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "lossless or hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded"),
}
_STRIP_PIXELS = 2**17
_BMP_RUN_LENGTH = (1, 2)
# The most pixels that one byte can represent: deflate packs 1032 bytes into one, of 8 pixels each; in a JPEG each block
# of 64 has at least one bit, in a lossy WebP each of 16 x 16. So a false size is found before pixels are made. There is
# no bound for lossless WebP (one colour takes 38 bytes at any size) or for an animation, whose first frame alone is
# read.
_DENSEST = {"image/png": 8 * 1_032, "image/jpeg": 8 * 64, "image/bmp": 8}
_DENSEST_LOSSY_WEBP = 8 * 256
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"jp2 ": "JPEG 2000"}
_TGA_DEPTHS = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8,), 10: (15, 16, 24, 32), 11: (8, 16)}  # bits, by kind


def sniff(data: bytes | memoryview) -> str | None:
    """Return the media type by the first bytes, None if it is none of the four that are read."""
    head = bytes(data[:16])
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(PNG_MAGIC):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"BM"):
        return "image/bmp"
    return None


def foreign(data: bytes) -> str | None:
    """Return the format of an image that we do not read, None if it is unknown.

    These formats may begin with a zero byte, as values from a schema registry's serializer do.
    """
    if data[4:8] == b"ftyp":  # ISO base media
        return _BRANDS.get(data[8:12], "a video or another file of ISO boxes")
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if _is_icon(data):
        return "ICO"
    return "TGA" if _is_tga(data) else None


def open_image(data: bytes, *, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header and return the image; it is decoded on first use, at most `max_pixels` pixels.

    Raises:
        InvalidMessage: unsupported_format, too_many_pixels or undecodable_image. Decoding can still fail later: see
            `undecodable`.
    """
    kind = sniff(data)
    if kind is None:
        got = foreign(data) or repr(bytes(data[:8]))
        raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, f"expected JPEG, PNG, WebP or BMP, got {got}")
    try:
        image = _open(kind, data)
    except InvalidMessage:
        raise
    except Image.DecompressionBombError as error:
        raise InvalidMessage(Reason.TOO_MANY_PIXELS, str(error)) from error
    except Exception as error:
        raise undecodable(kind, error) from error
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidMessage(
            Reason.TOO_MANY_PIXELS,
            f"expected at most {max_pixels} pixels (decode.max_pixels), the header says {width} x {height}",
        )
    if kind == "image/webp" and max(width, height) > MAX_WEBP_SIDE:  # the canvas of an animation has a field of its own
        raise InvalidMessage(
            Reason.UNDECODABLE_IMAGE,
            f"image/webp: expected sides of at most {MAX_WEBP_SIDE} pixels, the canvas is {width} x {height}",
        )
    if max(width, height) > MAX_SIDE:
        raise InvalidMessage(
            Reason.TOO_MANY_PIXELS, f"expected sides of at most {MAX_SIDE} pixels, the header says {width} x {height}"
        )
    if kind == "image/bmp" and image.info.get("compression") in _BMP_RUN_LENGTH:  # decoded in Python, byte by byte
        raise InvalidMessage(Reason.UNSUPPORTED_FORMAT, "expected an uncompressed BMP, got a run-length coded one")
    most = _DENSEST_LOSSY_WEBP if kind == "image/webp" and _is_lossy_webp(data) else _DENSEST.get(kind)
    if most is not None and width * height > most * len(data):
        raise InvalidMessage(
            Reason.UNDECODABLE_IMAGE,
            f"{kind}: expected data for {width} x {height} pixels, got {len(data)} bytes, which cannot hold them",
        )
    image.info[ORIENTATION] = orientation_of(data)
    return image


def rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of an RGB or grey image: uint8 `[H, W, 3]`, contiguous, not shared; reduced after `draft`.

    Raises:
        Exception: whatever Pillow raises when the image's data turns out to be broken.
    """
    # A progressive JPEG may be expensive, and what simplejpeg refuses is decoded twice. Without tiles it is decoded
    # already.
    if isinstance(image, _Jpeg) and image.tile and not image.info.get("progressive"):
        with suppress(Exception):  # Pillow decides about what it refuses or only warns of
            read: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
                image.data, min_height=image.height, min_width=image.width, strict=True
            )
            if read.shape == (image.height, image.width, 3):
                return read
    image.load()
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)  # Pillow makes three copies, which fit the cache for a strip
    for y in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, y, width, min(height, y + rows)))
        pixels[y : y + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def build() -> str:
    """Return the versions of all libraries that decode pixels: others may give other pixels for the same bytes."""
    libraries = ("libjpeg_turbo", "jpg", "zlib", "zlib_ng", "webp")
    found = [f"{name} {features.version(name)}" for name in libraries]
    return ", ".join([f"simplejpeg {simplejpeg.__version__}", f"pillow {PIL.__version__}", *found])


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG that keeps its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(io.BytesIO(data))


def undecodable(what: str, error: Exception) -> InvalidMessage:
    """Return what a codec raised about hostile bytes, as a reason.

    Pillow promises no closed set of exceptions for broken data, so callers catch `Exception` around it: the bytes are
    the only input there, hence the cause. This includes MemoryError: Pillow raises it where sizes overflow. Where
    memory is truly short, a worker that ended would only read the same image again.
    """
    if isinstance(error, MemoryError):
        error = MemoryError("out of memory: give the process more, or lower decode.max_pixels or decode.threads")
    return InvalidMessage(Reason.UNDECODABLE_IMAGE, f"{what}: {str(error) or type(error).__name__}")


def _is_icon(data: bytes) -> bool:
    """Return True if the first entry of an icon's directory points behind the directory, into the data."""
    if len(data) < 22 or not data.startswith(b"\0\0\1\0"):
        return False
    count, reserved, size, start = struct.unpack_from("<H3xB4xII", data, 4)
    return bool(count > 0 and reserved == 0 and start >= 6 + 16 * count and start + size <= len(data))


def _is_tga(data: bytes) -> bool:
    """Return True for the footer of the format's version 2, or a header that makes sense, as there is no magic."""
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return True
    if len(data) < 18 or data[0] != 0:  # the length of a name, which no encoder writes
        return False
    has_palette, kind, first, colours, colour_bits, width, height, bits = struct.unpack_from("<BBHHB4xHHB", data, 1)
    depths = colour_bits in (15, 16, 24, 32) and colours <= 256 if has_palette else colours == colour_bits == 0
    makes_sense = has_palette == (kind in (1, 9)) and first == 0 and depths and min(width, height) > 0
    return bool(makes_sense and bits in _TGA_DEPTHS.get(kind, ()))


def _open(kind: str, data: bytes) -> ImageFile.ImageFile:
    """Open an image by its plug-in's class: Image.open warns of large images, and follows MPO into other frames."""
    if kind == "image/jpeg":
        marked = count_scans(data)
        jpeg = _Jpeg(_jpeg_pixels(data, marked))
        jpeg.info[SCANS] = marked
        return jpeg
    if kind == "image/png":
        return PngImagePlugin.PngImageFile(io.BytesIO(_png_pixels(data)))
    if kind == "image/webp":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    return BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def _jpeg_pixels(data: bytes, marked: int) -> bytes:
    """Return the JPEG without metadata; bytes between segments are dropped too.

    Args:
        data: the JPEG.
        marked: its markers of a scan, those in metadata included.
    """
    parts = [b"\xff\xd8"]
    try:
        for start, marker, end in jpeg_segments(data, most=MAX_SEGMENTS):
            if unusual := _JPEG_UNUSUAL.get(marker):
                raise InvalidMessage(
                    Reason.UNSUPPORTED_FORMAT,
                    f"expected a baseline or progressive JPEG, got one that is {unusual}: re-encode it",
                )
            if marker not in _JPEG_METADATA:
                parts.append(data[start:end])
    except TooManyPieces:
        raise InvalidMessage(
            Reason.UNDECODABLE_IMAGE, f"expected an image within {MAX_SEGMENTS} JPEG segments, got more"
        ) from None
    scans = count_scans(parts[-1]) if marked > MAX_SCANS and len(parts) > 1 else 0
    if scans > MAX_SCANS:
        raise InvalidMessage(
            Reason.UNDECODABLE_IMAGE, f"expected at most {MAX_SCANS} scans, got {scans}: re-encode the JPEG as baseline"
        )
    return b"".join(parts)


def _is_lossy_webp(data: bytes) -> bool:
    """Return True if it is one lossy image: not an animation, and not lossless."""
    with suppress(TooManyPieces):
        for _, kind, _ in webp_chunks(data, most=MAX_WEBP_CHUNKS):
            if kind not in _WEBP_BEFORE_IMAGE:
                return kind == b"VP8 "
    return False


def _png_pixels(data: bytes) -> bytes:
    """Return the PNG's critical chunks and its transparency; a truncated last chunk stays, for the codec to refuse.

    After the first image data only more image data is kept: Pillow would read a new header or palette there, after it
    has checked the first one.
    """
    parts, packed_bytes = [PNG_MAGIC], 0
    try:
        for start, kind, end in png_chunks(data, most=MAX_CHUNKS):
            if kind in (_PNG_IMAGE if packed_bytes else _PNG_PIXELS):
                parts.append(data[start:end])
            if kind == b"IDAT":
                packed_bytes += min(end, len(data)) - start
    except TooManyPieces:
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, f"expected at most {MAX_CHUNKS} PNG chunks, got more") from None
    if not packed_bytes:  # Pillow would take it for a black image
        raise InvalidMessage(Reason.UNDECODABLE_IMAGE, "image/png: expected image data (IDAT), got none")
    return b"".join(parts)
