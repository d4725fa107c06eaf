"""Image bytes from a stranger -> an opened Pillow image whose decoding is bounded. Between message and preprocessing.

Pillow opens and refuses; `rgb` reads a baseline JPEG without a fault by libjpeg-turbo itself, with the same bits in
less time.

Only JPEG, PNG, WebP and BMP. Before Pillow sees a JPEG or PNG it is rebuilt from the parts that make pixels: EXIF,
comments, colour profiles, text and animation chunks are dropped. Of all these open_clip uses nothing, and we the
orientation alone, which a reader of our own finds; and with them go the decompression bombs inside metadata, the
warnings that Pillow raises about them (Python's warning filters are not thread-safe, so a pool could not silence them),
and every frame but the first. The size is read from the header, before any pixel is decoded.
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

from adawise.decode.orientation import ORIENTATION, orientation_of
from adawise.decode.pieces import PNG_MAGIC, TooManyPieces, jpeg_segments, png_chunks, webp_chunks
from adawise.errors import InvalidMessage, Reason

# No one sends this much structure in good faith, and each piece costs Python or libjpeg a step.
MAX_SEGMENTS = 4_096  # JPEG segments before the first scan
MAX_CHUNKS = 65_536  # PNG chunks; encoders write image data in pieces of 8 KiB and more
MAX_WEBP_CHUNKS = 16  # that are looked at before the image
MAX_SIDE = 65_535  # px; what a JPEG can say, and no camera's picture is longer
MAX_WEBP_SIDE = 16_383  # px; what the format allows an image; a canvas around it may claim a thousand times more
MAX_SCANS = 50  # of a progressive JPEG; each one walks over the whole image, encoders write about 10

_WEBP_BEFORE_IMAGE = (b"VP8X", b"ICCP", b"ALPH", b"EXIF", b"XMP ")
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_IMAGE = (b"IDAT", b"IEND")
_JPEG_METADATA = {0xFE, *range(0xE1, 0xEE), 0xEF}  # COM and APPn, but JFIF (APP0) and Adobe (APP14) choose the colours
# Builds of libjpeg differ in whether they read these; and a bit of arithmetic code may stand for any number of blocks.
_JPEG_UNUSUAL = {
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "lossless or hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic-coded"),
}
_STRIP_ROWS = 64
_BMP_RUN_LENGTH = (1, 2)
# Pixels that a byte can stand for at most: deflate packs 1032 bytes into one, of 8 pixels each; in a JPEG each block of
# 64 has at least one bit, in a lossy WebP each of 16 x 16. So a lie about the size is known before its pixels are made.
# A lossless WebP of one colour takes 38 bytes at any size, and of an animation only the first frame is looked at.
_DENSEST = {"image/png": 8 * 1_032, "image/jpeg": 8 * 64, "image/bmp": 8}
_DENSEST_LOSSY_WEBP = 8 * 256
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"jp2 ": "JPEG 2000"}
_TGA_DEPTHS = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8,), 10: (15, 16, 24, 32), 11: (8, 16)}  # bits, by kind


def sniff(data: bytes | memoryview) -> str | None:
    """The media type by the first bytes, None if it is none of the four that are read."""
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
    """What else an image is that begins as other things do; None if it is none of these.

    All of them may begin with a zero byte, as what a schema registry's serializer wrote does.
    """
    if data[4:8] == b"ftyp":  # ISO base media
        return _BRANDS.get(data[8:12], "a video or another file of ISO boxes")
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if _is_icon(data):
        return "ICO"
    return "TGA" if _is_tga(data) else None


def open_image(data: bytes, *, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header; the pixels are decoded when they are used, by at most `max_pixels`.

    Raises:
        InvalidMessage: unsupported_format, too_many_pixels or undecodable_image. Decoding can fail later all the same:
            see `undecodable`.
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
    if kind == "image/webp" and max(width, height) > MAX_WEBP_SIDE:  # the canvas of an animation has its own field
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
    """The pixels of an RGB or grey image, uint8 `[H, W, 3]`, contiguous and its caller's own; after `draft`, fewer.

    Raises whatever Pillow raises when the image's data turns out to be broken.
    """
    # A progressive one may be dear, and what is refused here is decoded twice. Without tiles it is decoded already.
    if isinstance(image, _Jpeg) and image.tile and not image.info.get("progressive"):
        with suppress(Exception):  # what it refuses or only warns of, Pillow decides
            read: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
                image.data, min_height=image.height, min_width=image.width, strict=True
            )
            if read.shape == (image.height, image.width, 3):
                return read
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, _STRIP_ROWS):  # Pillow copies three times on the way, which a cache holds of a strip
        strip = image.crop((0, y, width, min(height, y + _STRIP_ROWS)))
        pixels[y : y + _STRIP_ROWS] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def build() -> str:
    """Versions of all that makes pixels of bytes: others may make others of the same."""
    libraries = ("libjpeg_turbo", "jpg", "zlib", "zlib_ng", "webp")
    found = [f"{name} {features.version(name)}" for name in libraries]
    return ", ".join([f"simplejpeg {simplejpeg.__version__}", f"pillow {PIL.__version__}", *found])


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """With its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(io.BytesIO(data))


def undecodable(what: str, error: Exception) -> InvalidMessage:
    """What a codec raised about hostile bytes, as a reason.

    Pillow promises no closed set of exceptions for broken data, so callers catch `Exception` around it: the bytes are
    the only input there, hence the cause. MemoryError as well: Pillow raises it where sizes overflow, and where memory
    is truly short, a worker that ended would read the same image again.
    """
    if isinstance(error, MemoryError):
        error = MemoryError("out of memory: give the process more, or lower decode.max_pixels or decode.threads")
    return InvalidMessage(Reason.UNDECODABLE_IMAGE, f"{what}: {str(error) or type(error).__name__}")


def _is_icon(data: bytes) -> bool:
    """Whether the first entry of an icon's directory points behind it, into the data."""
    if len(data) < 22 or not data.startswith(b"\0\0\1\0"):
        return False
    count, reserved, size, start = struct.unpack_from("<H3xB4xII", data, 4)
    return bool(count > 0 and reserved == 0 and start >= 6 + 16 * count and start + size <= len(data))


def _is_tga(data: bytes) -> bool:
    """By the footer of the format's second version, or by a header that makes sense: there is no magic."""
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return True
    if len(data) < 18 or data[0] != 0:  # the length of a name, which nobody writes
        return False
    has_palette, kind, first, colours, colour_bits, width, height, bits = struct.unpack_from("<BBHHB4xHHB", data, 1)
    depths = colour_bits in (15, 16, 24, 32) and colours <= 256 if has_palette else colours == colour_bits == 0
    makes_sense = has_palette == (kind in (1, 9)) and first == 0 and depths and min(width, height) > 0
    return bool(makes_sense and bits in _TGA_DEPTHS.get(kind, ()))


def _open(kind: str, data: bytes) -> ImageFile.ImageFile:
    """The plug-ins' classes, not Image.open: that warns about large images and follows MPO into other frames."""
    if kind == "image/jpeg":
        return _Jpeg(_jpeg_pixels(data))
    if kind == "image/png":
        return PngImagePlugin.PngImageFile(io.BytesIO(_png_pixels(data)))
    if kind == "image/webp":
        return WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    return BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def _jpeg_pixels(data: bytes) -> bytes:
    """The JPEG without metadata; what lies between segments, and is no segment, is dropped too."""
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
    scans = parts[-1].count(b"\xff\xda") if len(parts) > 1 else 0  # image data escapes 0xFF, so these are markers
    if scans > MAX_SCANS:
        raise InvalidMessage(
            Reason.UNDECODABLE_IMAGE, f"expected at most {MAX_SCANS} scans, got {scans}: re-encode the JPEG as baseline"
        )
    return b"".join(parts)


def _is_lossy_webp(data: bytes) -> bool:
    """True if it is one lossy image: not an animation, and not lossless."""
    with suppress(TooManyPieces):
        for _, kind, _ in webp_chunks(data, most=MAX_WEBP_CHUNKS):
            if kind not in _WEBP_BEFORE_IMAGE:
                return kind == b"VP8 "
    return False


def _png_pixels(data: bytes) -> bytes:
    """The PNG's critical chunks and its transparency; a cut-off last chunk stays as it is, for the codec to refuse.

    Behind the first image data nothing but more of it is kept: Pillow would read a new header or palette there, after
    it has looked at the first one.
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
