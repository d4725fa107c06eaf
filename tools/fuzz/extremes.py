"""Sound images at the edges of what a header can say: as many pixels as possible in as few bytes as possible.

Families by format, depth, colours, layers, scans and frames; each makes an image of any size. `tools/fuzz/costliest`
measures them, `tools/fuzz/messages` damages them.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from tests.hostile import png_chunk

Make = Callable[[int, int], bytes]

_BLOCK_BYTES = 2**20
_BITS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # bands of a PNG, by colour type
# Of an interlaced PNG: x, y, dx, dy.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@functools.cache
def _packed_block() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(_BLOCK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)


def packed_zeros(count: int) -> bytes:
    """A zlib stream of so many zero bytes, at once: blocks that were packed before, one after the other."""
    packer = zlib.compressobj(9, wbits=-15)
    rest = packer.compress(bytes(count % _BLOCK_BYTES)) + packer.flush()
    check = (count % 65_521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + _packed_block() * (count // _BLOCK_BYTES) + rest + struct.pack(">I", check)


def png(width: int, height: int, *, depth: int, colours: int, interlaced: bool = False, data: bytes = b"") -> bytes:
    """All pixels zero; `data` instead of what would be packed."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    unpacked = sum(
        ((across * _BITS[colours] * depth + 7) // 8 + 1) * down for across, down in sizes if across > 0 and down > 0
    )
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", bytes(3)) if colours == 3 else b""
    pixels = png_chunk(b"IDAT", data or packed_zeros(unpacked))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + palette + pixels + png_chunk(b"IEND", b"")


def _paeth_png(width: int, height: int) -> bytes:
    """The filter that takes longest, in every row."""
    return png(width, height, depth=8, colours=2, data=zlib.compress((b"\x04" + bytes(3 * width)) * height, 9))


def jpeg_of_scans(width: int, height: int, *, layers: int, scans: int, sampling: int = 0x11) -> bytes:
    """A progressive JPEG of one bit a block, and `scans` that refine nothing, in as few bytes as possible.

    Args:
        width, height: px.
        layers: 1 (grey), 3 or 4.
        scans: beside the first.
        sampling: of the first layer, two factors of four bits.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    def scan(head: bytes, bits: int) -> bytes:
        return segment(0xDA, head) + bytes(-(-bits // 8))

    across, down = sampling >> 4, sampling & 15
    blocks = -(-width // (8 * across)) * -(-height // (8 * down))
    layer = [bytes([1, sampling if layers > 1 else 0x11, 0]), *(bytes([n, 0x11, 0]) for n in range(2, layers + 1))]
    first = bytes([layers]) + b"".join(bytes([n, 0]) for n in range(1, layers + 1)) + bytes(3)
    tables = b"".join(
        segment(0xC4, bytes([kind, 1, *bytes(15), symbol])) for kind, symbol in ((0, 0), (0x10, 0xE0))
    )  # one code each, a zero bit: no difference to the block before; and 16,384 blocks without coefficients
    many = -(-width // 8) * -(-height // 8) if layers == 1 or across == 1 else 4 * blocks
    refinements = b"".join(
        scan(bytes([1, 1 + n % layers, 0, 1, 63, 0x10 if n >= layers else 0]), 15 * -(-many // 16_384))
        for n in range(scans)
    )
    return (
        b"\xff\xd8"
        + segment(0xDB, bytes([0]) + b"\1" * 64)
        + segment(0xC2, struct.pack(">BHHB", 8, height, width, layers) + b"".join(layer))
        + tables
        + scan(first, blocks * (across * down + layers - 1) if layers > 1 else blocks)
        + refinements
        + b"\xff\xd9"
    )


def _saved(mode: str, codec: str, colour: int | tuple[int, ...], width: int, height: int, **options: object) -> bytes:
    image, out = Image.new(mode, (width, height), colour), io.BytesIO()
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [Image.new(mode, (width, height), 9)]}
    image.save(out, codec, **options)
    return out.getvalue()


def _saved_as(codec: str, mode: str = "RGB", colour: int | tuple[int, ...] = 0, **options: object) -> Make:
    return lambda width, height: _saved(mode, codec, colour, width, height, **options)


def _gradient_webp(width: int, height: int) -> bytes:
    """Predicted from its neighbours, pixel by pixel, where one colour would be copied."""
    x, y = np.arange(width, dtype=np.uint8), np.arange(height, dtype=np.uint8)[:, None]
    out = io.BytesIO()
    Image.fromarray(np.stack(np.broadcast_arrays(x + y, 2 * x + y, x + 3 * y), axis=-1)).save(
        out, "WEBP", lossless=True, quality=0, method=4
    )
    return out.getvalue()


_SEE_THROUGH = (9, 99, 200, 77)
FAMILIES: dict[str, Make] = {
    "PNG 1 bit": partial(png, depth=1, colours=0),
    "PNG 1 bit interlaced": partial(png, depth=1, colours=0, interlaced=True),
    "PNG grey": partial(png, depth=8, colours=0),
    "PNG grey 16": partial(png, depth=16, colours=0),
    "PNG palette": partial(png, depth=8, colours=3),
    "PNG palette 1 bit": partial(png, depth=1, colours=3),
    "PNG colour": partial(png, depth=8, colours=2),
    "PNG colour interlaced": partial(png, depth=8, colours=2, interlaced=True),
    "PNG colour Paeth": _paeth_png,
    "PNG colour 16": partial(png, depth=16, colours=2),
    "PNG grey alpha": partial(png, depth=8, colours=4),
    "PNG grey alpha 16": partial(png, depth=16, colours=4),
    "PNG alpha": partial(png, depth=8, colours=6),
    "PNG alpha 16": partial(png, depth=16, colours=6),
    "PNG alpha 16 interlaced": partial(png, depth=16, colours=6, interlaced=True),
    "WebP lossless": _saved_as("WEBP", lossless=True, quality=0, method=0),
    "WebP lossless gradient": _gradient_webp,
    "WebP lossless alpha": _saved_as("WEBP", "RGBA", _SEE_THROUGH, lossless=True, quality=0, method=0),
    "WebP lossless animated": _saved_as("WEBP", lossless=True, quality=0, method=0, animated=True),
    "WebP lossy": _saved_as("WEBP", quality=0, method=0),
    "WebP lossy alpha": _saved_as("WEBP", "RGBA", _SEE_THROUGH, quality=0, method=0),
    "JPEG grey": _saved_as("JPEG", "L", optimize=True),
    "JPEG colour": _saved_as("JPEG", optimize=True),
    "JPEG grey, 1 scan": partial(jpeg_of_scans, layers=1, scans=0),
    "JPEG grey, 10 scans": partial(jpeg_of_scans, layers=1, scans=9),
    "JPEG grey, 50 scans": partial(jpeg_of_scans, layers=1, scans=49),
    "JPEG colour, 10 scans": partial(jpeg_of_scans, layers=3, scans=9, sampling=0x22),
    "JPEG colour 4:4:4, 10 scans": partial(jpeg_of_scans, layers=3, scans=9),
    "JPEG colour 4:4:4, 50 scans": partial(jpeg_of_scans, layers=3, scans=49),
    "JPEG four colours, 10 scans": partial(jpeg_of_scans, layers=4, scans=9),
    "JPEG four colours, 50 scans": partial(jpeg_of_scans, layers=4, scans=49),
    "BMP 1 bit": _saved_as("BMP", "1"),
    "BMP colour": _saved_as("BMP"),
}
_SIDES = (1, 2, 63, 255, 256, 257, 4_096, 16_383, 65_500)
_BEYOND = (65_535, 65_536, 10_000_000, 33_600_000, 2**31 - 1)


@functools.lru_cache(64)
def _made(family: str, width: int, height: int) -> bytes:
    return FAMILIES[family](width, height)


def extreme(rng: random.Random) -> bytes:
    """One of a family, of odd sides; of a PNG at times with sides that nothing can be made of."""
    family = rng.choice(tuple(FAMILIES))
    width, height = rng.choice(_SIDES), rng.choice(_SIDES)
    if width * height > 2_000_000 or ("WebP" in family and max(width, height) > 16_383):
        width, height = min(width, 1_500), min(height, 1_300)
    if rng.random() < 0.2:
        sides = rng.sample((rng.choice(_BEYOND), rng.choice((1, 2, 3, 300))), 2)
        depth, colours = rng.choice(((1, 0), (8, 0), (16, 0), (8, 2), (8, 3), (16, 4), (8, 6), (16, 6)))
        return png(*sides, depth=depth, colours=colours, data=bytes(rng.randrange(6_000)))
    return _made(family, width, height)
