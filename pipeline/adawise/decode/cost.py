"""The CPU time that an image will take, by its header alone, and what a message may take: pixels against bytes.

A single colour compresses without limit: 34 bytes of lossless WebP hold 33 million pixels and take half a second, so a
few hundred of them would starve a camera. A message may therefore take `FREE_NS`, and `BYTE_NS` more for each byte.

Why these numbers: `FREE_NS` covers the emptiest Full HD picture that an encoder makes, a lossless WebP of one colour.
Among pictures whose bytes grow with their size, a flat PNG takes the most time a byte, and `BYTE_NS` covers one of 8K.
So black, grey, flat and dark pictures of every encoder are read. Refused are a flat lossless WebP beyond Full HD, a
long line, and many of these in one message. `tests/decode/test_cost.py` has the pictures, `python -m tools.fuzz
--costs` what they cost.

No clock is read: the same message costs the same on every machine, or a replay would reject what a worker accepted. For
the same reason the table stays even where the code it was measured on has changed: RGB and grey take 1.5 and 2 ns a
pixel to be resized now that `Preprocess` does it in integers (with AVX2; without, 7), and are counted as before.
"""

from __future__ import annotations

import re

from PIL import ImageFile

from adawise.decode.pieces import SCANS

FREE_NS = 25_000_000.0
BYTE_NS = 6_000.0

MIN_SIDE = 256  # px; a shorter side counts as this long: the resize makes it about as long, and no image is free

# Nanoseconds of one pixel in a picture of 2 million, on one core of an AMD EPYC (Zen 4). Elsewhere the ratios hold.
# `_FIT_NS` is the cost of `preprocess`, by mode, where Pillow resizes. It still does so for most modes, and for long or
# tall pictures.
_FIT_NS = {"1": 0.2, "P": 0.2, "L": 3.0, "I;16": 4.5, "RGB": 7.0, "LA": 7.5, "CMYK": 9.0}
_FIT_ANY_NS = 13.5  # RGBA
_WEBP_NS, _BMP_NS = 5.0, 1.0
_PNG_BYTE_NS, _PNG_LEAST_NS, _PNG_INTERLACED_NS = 2.2, 0.6, 4.0
_JPEG_SAMPLE_NS, _JPEG_SCAN_NS = 2.2, 0.6
_JPEG_SCANS = 10  # as encoders make; even an empty scan walks over the image

_DEPTH = re.compile(r";(\d+)")


def allowed_ns(message_bytes: int) -> float:
    """Return the nanoseconds that all images of a message of this size may take together."""
    return FREE_NS + BYTE_NS * message_bytes


def estimated_ns(image: ImageFile.ImageFile) -> float:
    """Return the nanoseconds to decode and resize an image that `codec.open_image` opened; no pixel is decoded."""
    pixels = max(image.width, MIN_SIDE) * max(image.height, MIN_SIDE)
    return pixels * (_decode_ns(image) + _FIT_NS.get(image.mode, _FIT_ANY_NS))


def _decode_ns(image: ImageFile.ImageFile) -> float:
    match image.format:
        case "PNG":
            raw_mode = str(image.tile[0].args)  # as the file has it: "RGB;16B"; without a number it is 8 bits
            depth = 1 if raw_mode == "1" else int(found[1]) if (found := _DEPTH.search(raw_mode)) else 8
            bits = len(raw_mode.partition(";")[0]) * depth
            interlaced_ns = _PNG_INTERLACED_NS if image.info.get("interlace") else 0.0
            return max(_PNG_LEAST_NS, _PNG_BYTE_NS * bits / 8) + interlaced_ns
        case "JPEG":
            layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])  # id, two sampling factors, table
            most = max((h for _, h, _, _ in layers), default=1) * max((v for _, _, v, _ in layers), default=1)
            samples = sum(h * v for _, h, v, _ in layers) / max(1, most)
            marked: int = image.info[SCANS]
            dear_scans = max(0, marked - _JPEG_SCANS)
            return samples * (_JPEG_SAMPLE_NS + _JPEG_SCAN_NS * dear_scans)
        case "BMP":
            return _BMP_NS
        case _:
            return _WEBP_NS
