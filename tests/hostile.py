"""Hostile messages of every reason, by seed: what a topic may hold besides images. Each gives exactly one rejected row.

`hostile(seed, count, limits)` for the worker test; `tools/fuzz` damages good messages without knowing what comes of it.
"""

from __future__ import annotations

import io
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.errors import Reason

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Limits:
    """The decoder's limits that the messages must break; small ones, so that 10,000 messages stay cheap to send."""

    max_message_bytes: int = 100_000
    max_rows: int = 8
    max_pixels: int = 500_000


@dataclass(frozen=True)
class Hostile:
    """A message that must be rejected for `reason`. `dead`: as a whole, so that it belongs in the dead letters."""

    kind: str
    reason: Reason
    value: bytes | None
    key: bytes | None = b"cam-hostile"
    headers: Headers = ()
    dead: bool = True


def picture(rng: random.Random, codec: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> bytes:
    """A good image: noise enlarged, so that it compresses like a photograph."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    small = Image.frombytes(mode, (8, 6), rng.randbytes(48 * bands))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BILINEAR).save(out, codec)
    return out.getvalue()


def hostile(seed: int, count: int, limits: Limits | None = None) -> Iterator[Hostile]:
    """`count` messages: every kind in turn, with different bytes each time."""
    rng = random.Random(seed)
    for number in range(count):
        yield KINDS[number % len(KINDS)](rng, limits or Limits())


def png_chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    """One PNG chunk, with a length that may lie."""
    size = struct.pack(">I", len(data) if length is None else length)
    return size + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def arrow(columns: dict[str, pa.Array], compression: str | None = None, codec: str = "stream") -> bytes:
    """An Arrow stream (or file) of any columns."""
    batch = pa.record_batch(columns)
    out = io.BytesIO()
    new = pa.ipc.new_stream if codec == "stream" else pa.ipc.new_file
    with new(out, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    return out.getvalue()


def unfolding_schema(depth: int, *, padding: int = 0) -> bytes:
    """An Arrow stream of one struct column whose every level holds the next one twice, by two references to one table.

    Written by hand after the flatbuffers format: a table begins with the distance to its layout (a vtable), a reference
    is the distance to what it means.
    """
    buffer = bytearray(4)

    def place(data: bytes, align: int = 4) -> int:
        buffer.extend(bytes(-len(buffer) % align))
        buffer.extend(data)
        return len(buffer) - len(data)

    def table(layout: int, size: int) -> int:
        at = place(bytes(size), 8)
        struct.pack_into("<i", buffer, at, at - layout)
        return at

    def refer(place: int, to: int) -> None:
        struct.pack_into("<I", buffer, place, to - place)

    def layout(*slots: int, size: int) -> int:
        return place(struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), size, *slots))

    a_message, a_schema = layout(12, 14, 4, 16, size=24), layout(0, 4, size=8)
    a_field, a_struct = layout(4, 20, 21, 8, 0, 12, size=24), layout(size=4)
    message = table(a_message, 24)
    struct.pack_into("<hB", buffer, message + 12, 4, 1)  # metadata V5, a schema
    refer(0, message)
    schema = table(a_schema, 8)
    refer(message + 4, schema)
    holder, count, fields = schema + 4, 1, []
    for _ in range(depth):
        vector = place(struct.pack("<I", count) + bytes(4 * count))
        refer(holder, vector)
        field = table(a_field, 24)
        struct.pack_into("<BB", buffer, field + 20, 1, 13)  # nullable, a struct
        for reference in range(vector + 4, vector + 4 + 4 * count, 4):
            refer(reference, field)
        fields.append(field)
        holder, count = field + 12, 2
    leaf = place(struct.pack("<I", 0))
    refer(holder, leaf)
    name, kind = place(struct.pack("<I4s", 1, b"a")), table(a_struct, 4)
    for field in fields:
        refer(field + 4, name)
        refer(field + 8, kind)
    buffer.extend(bytes(padding))
    buffer.extend(bytes(-len(buffer) % 8))
    return b"\xff\xff\xff\xff" + struct.pack("<I", len(buffer)) + bytes(buffer) + b"\xff\xff\xff\xff\0\0\0\0"


def _tombstone(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("tombstone", Reason.TOMBSTONE, None, key=b"cam-%d" % rng.randrange(9), dead=False)


def _no_bytes(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("no bytes", Reason.EMPTY, b"", headers=(("content-type", b"image/jpeg"),))


def _no_rows(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("no rows", Reason.EMPTY, encode_batch([]), dead=False)


def _empty_row(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("empty row", Reason.EMPTY, encode_batch([b""]), dead=False)


def _too_large(rng: random.Random, limits: Limits) -> Hostile:
    value = picture(rng) + bytes(limits.max_message_bytes)
    return Hostile("too large", Reason.TOO_LARGE, value)


def _png_bomb(rng: random.Random, limits: Limits) -> Hostile:
    side = int(limits.max_pixels**0.5) + rng.randint(1, 50)
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "PNG")
    return Hostile("PNG bomb", Reason.TOO_MANY_PIXELS, out.getvalue())


def _lying_header(kind: str, size: tuple[int, int]) -> Callable[[random.Random, Limits], Hostile]:
    def make(rng: random.Random, limits: Limits) -> Hostile:
        value = bytearray(picture(rng, kind))
        match kind:
            case "PNG":
                header = struct.pack(">II", *size) + value[24:29]
                value[8:33] = png_chunk(b"IHDR", bytes(header))
            case "BMP":
                value[18:26] = struct.pack("<II", *size)
            case "JPEG":
                at = value.index(b"\xff\xc0") + 5
                value[at : at + 4] = struct.pack(">HH", *size)
            case "WEBP":
                value[26:30] = struct.pack("<HH", 16_383, 16_383)
        return Hostile(f"{kind} that claims {size}", Reason.TOO_MANY_PIXELS, bytes(value))

    return make


def _side_beyond_the_cap(rng: random.Random, limits: Limits) -> Hostile:
    sides = rng.sample((65_536 + rng.randrange(999), 1), 2)
    header = struct.pack(">IIBBBBB", *sides, 16, 6, 0, 0, 0)
    value = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", bytes(9_000))
    return Hostile("PNG with a side beyond the cap", Reason.TOO_MANY_PIXELS, value + png_chunk(b"IEND", b""))


def _line(rng: random.Random, limits: Limits) -> Hostile:
    """Few pixels, which the resize would make many."""
    out = io.BytesIO()
    Image.new("L", rng.sample((60_000 + rng.randrange(5_000), 1), 2)).save(out, "PNG")
    return Hostile("line of a few hundred bytes", Reason.TOO_FEW_BYTES, out.getvalue())


def _lying_within_the_limit(kind: str) -> Callable[[random.Random, Limits], Hostile]:
    """A header that claims a size that would be allowed, and is far more than the data holds."""
    harm = _lying_header(kind, (600, 600))

    def make(rng: random.Random, limits: Limits) -> Hostile:
        value = harm(rng, limits).value
        return Hostile(f"{kind} that claims what it does not hold", Reason.UNDECODABLE_IMAGE, value)

    return make


def _png_without_pixels(rng: random.Random, limits: Limits) -> Hostile:
    value = picture(rng, "PNG")
    return Hostile("PNG without pixels", Reason.UNDECODABLE_IMAGE, value[:33] + png_chunk(b"IEND", b""))


def _bomb_in_a_batch(rng: random.Random, limits: Limits) -> Hostile:
    value = _png_bomb(rng, limits).value
    assert value is not None
    return Hostile("bomb in a batch", Reason.TOO_MANY_PIXELS, encode_batch([value]), dead=False)


def _too_many_rows(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("too many rows", Reason.TOO_MANY_ROWS, encode_batch([b"x"] * (limits.max_rows + rng.randint(1, 9))))


def _gif(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("GIF", Reason.UNSUPPORTED_FORMAT, picture(rng, "GIF", "L"))


def _tiff(rng: random.Random, limits: Limits) -> Hostile:
    headers = (("content-type", b"image/tiff"),)
    return Hostile("TIFF, declared", Reason.UNSUPPORTED_FORMAT, picture(rng, "TIFF"), headers=headers)


def _json(rng: random.Random, limits: Limits) -> Hostile:
    headers = (("content-type", b"application/json; charset=utf-8"),)
    return Hostile("JSON, declared", Reason.UNSUPPORTED_FORMAT, b'{"frame": %d}' % rng.randrange(99), headers=headers)


def _text(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("text", Reason.UNSUPPORTED_FORMAT, b"hello %d" % rng.randrange(99))


def _gif_in_a_batch(rng: random.Random, limits: Limits) -> Hostile:
    value = encode_batch([picture(rng, "GIF", "L")])
    return Hostile("GIF in a batch", Reason.UNSUPPORTED_FORMAT, value, dead=False)


def _foreign(name: str, codec: str) -> Callable[[random.Random, Limits], Hostile]:
    """A format that begins with a zero byte, as what a schema registry's serializer writes."""

    def make(rng: random.Random, limits: Limits) -> Hostile:
        headers = rng.choice(((), (("content-type", b"image/jpeg"),)))
        return Hostile(name, Reason.UNSUPPORTED_FORMAT, picture(rng, codec), headers=headers)

    return make


def _run_length_bmp(rng: random.Random, limits: Limits) -> Hostile:
    value = bytearray(picture(rng, "BMP", "P"))
    value[30:34] = struct.pack("<I", 1)
    return Hostile("run-length BMP", Reason.UNSUPPORTED_FORMAT, bytes(value))


def _truncated(kind: str) -> Callable[[random.Random, Limits], Hostile]:
    def make(rng: random.Random, limits: Limits) -> Hostile:
        value = picture(rng, kind, size=(200, 150))
        return Hostile(f"truncated {kind}", Reason.UNDECODABLE_IMAGE, value[: int(len(value) * rng.uniform(0.1, 0.8))])

    return make


def _only_magic(magic: bytes) -> Callable[[random.Random, Limits], Hostile]:
    def make(rng: random.Random, limits: Limits) -> Hostile:
        garbage = bytearray(rng.randbytes(rng.randrange(60)))
        garbage[:1] = bytes(byte % 0xC0 for byte in garbage[:1])  # beyond, it may begin a kind of JPEG that is refused
        value = magic + bytes(garbage)
        return Hostile(f"{magic[:4]!r} and garbage", Reason.UNDECODABLE_IMAGE, value)

    return make


def _declared(rng: random.Random, limits: Limits) -> Hostile:
    value = b"\x01" + rng.randbytes(100)
    return Hostile("garbage, declared", Reason.UNDECODABLE_IMAGE, value, headers=(("Content-Type", b"image/jpeg"),))


def _null_row(rng: random.Random, limits: Limits) -> Hostile:
    value = arrow({"image": pa.array([None], pa.binary())})
    return Hostile("null row", Reason.UNDECODABLE_IMAGE, value, dead=False)


def _many_scans(rng: random.Random, limits: Limits) -> Hostile:
    value = picture(rng)
    at = value.index(b"\xff\xda")
    scan = value[at:-2]
    return Hostile("JPEG of too many scans", Reason.UNDECODABLE_IMAGE, value[:at] + scan * 60 + b"\xff\xd9")


def _garbage_arrow(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("garbage Arrow", Reason.BAD_ARROW, b"\xff\xff\xff\xff" + rng.randbytes(200))


def _truncated_arrow(rng: random.Random, limits: Limits) -> Hostile:
    value = encode_batch([picture(rng)] * 3, stream_id="cam-hostile")
    return Hostile("truncated Arrow", Reason.BAD_ARROW, value[: int(len(value) * rng.uniform(0.1, 0.8))])


def _declared_arrow(rng: random.Random, limits: Limits) -> Hostile:
    headers = (("content-type", ARROW_STREAM.encode()),)
    return Hostile("JPEG declared as Arrow", Reason.BAD_ARROW, picture(rng), headers=headers)


def _compressed_arrow(rng: random.Random, limits: Limits) -> Hostile:
    compression = rng.choice(("zstd", "lz4"))
    value = arrow({"image": pa.array([bytes(rng.randrange(1_000, 1_000_000))], pa.binary())}, compression)
    return Hostile("compressed Arrow", Reason.BAD_ARROW, value)


def _lying_arrow(rng: random.Random, limits: Limits) -> Hostile:
    """Offsets of the image column that point behind the data."""
    length = rng.randint(1_000, 30_000)
    value = encode_batch([bytes(length)])
    lying = value.replace(struct.pack("<ii", 0, length), struct.pack("<ii", 0, 2**30))
    return Hostile("Arrow with lying offsets", Reason.BAD_ARROW, lying)


def _no_image_column(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("no image column", Reason.BAD_ARROW, arrow({"picture": pa.array([picture(rng)], pa.binary())}))


def _image_as_text(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("image as text", Reason.BAD_ARROW, arrow({"image": pa.array(["/9j/4AAQSkZJRg"])}))


def _arrow_file(rng: random.Random, limits: Limits) -> Hostile:
    value = arrow({"image": pa.array([picture(rng)], pa.binary())}, codec="file")
    return Hostile("Arrow file", Reason.BAD_ARROW, value)


def _deep_arrow(rng: random.Random, limits: Limits) -> Hostile:
    """Lists of lists of lists: a schema is enough."""
    deep = pa.int8()
    for _ in range(rng.choice((600, 1_000))):
        deep = pa.list_(deep)
    value = pa.schema([("image", pa.binary()), ("meta_deep", deep)]).serialize().to_pybytes()
    return Hostile("deeply nested Arrow", Reason.BAD_ARROW, value)


def _unfolding_arrow(rng: random.Random, limits: Limits) -> Hostile:
    """A schema of a few hundred bytes that unfolds into a million fields, as each of its tables is used twice."""
    return Hostile("Arrow schema that unfolds", Reason.BAD_ARROW, unfolding_schema(20, padding=rng.randint(0, 9_999)))


def _nan_pixels(rng: random.Random, limits: Limits) -> Hostile:
    """Pixels as numbers, where encoded images are expected: there is no way in for a nan."""
    value = arrow({"image": pa.array([[math.nan] * rng.randint(1, 99)], pa.list_(pa.float32()))})
    return Hostile("nan pixels in a batch", Reason.BAD_ARROW, value)


def _nan_tiff(rng: random.Random, limits: Limits) -> Hostile:
    out = io.BytesIO()
    Image.new("F", (rng.randint(1, 40), 30), math.nan).save(out, "TIFF")
    return Hostile("TIFF of nan pixels", Reason.UNSUPPORTED_FORMAT, out.getvalue())


def _schema_framed(rng: random.Random, limits: Limits) -> Hostile:
    value = b"\0" + struct.pack(">I", rng.randrange(1, 1_000)) + picture(rng)
    return Hostile("schema registry", Reason.SCHEMA_FRAMED, value, headers=(("content-type", b"image/jpeg"),))


def _no_stream(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("no stream", Reason.MISSING_STREAM_ID, picture(rng), key=rng.choice((None, b"")))


def _no_stream_in_a_batch(rng: random.Random, limits: Limits) -> Hostile:
    value = encode_batch([picture(rng)])
    return Hostile("no stream in a batch", Reason.MISSING_STREAM_ID, value, key=None, dead=False)


def _other_header(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile(
        "other stream in the header", Reason.STREAM_ID_MISMATCH, picture(rng), headers=(("stream-id", b"x"),)
    )


def _other_column(rng: random.Random, limits: Limits) -> Hostile:
    value = encode_batch([picture(rng)], stream_id="cam-else")
    return Hostile("other stream in the column", Reason.STREAM_ID_MISMATCH, value, dead=False)


def _bad_key(rng: random.Random, limits: Limits) -> Hostile:
    key = rng.choice((b"\xff\xfe" + rng.randbytes(4), b"cam\n1", b" cam", b"c" * 250, "c\u202eam".encode()))
    return Hostile("bad key", Reason.BAD_STREAM_ID, picture(rng), key=key)


def _bad_key_of_a_batch(rng: random.Random, limits: Limits) -> Hostile:
    return Hostile("bad key of a batch", Reason.BAD_STREAM_ID, encode_batch([picture(rng)]), key=b"\x00\x01\x02")


def _bad_column(rng: random.Random, limits: Limits) -> Hostile:
    value = encode_batch([picture(rng)], stream_id=rng.choice(("", "c" * 250, "c" * 3_000)))
    return Hostile("bad stream in the column", Reason.BAD_STREAM_ID, value, key=None, dead=False)


def _header_beyond_utf8(rng: random.Random, limits: Limits) -> Hostile:
    headers = (("stream-id", b"cam-\xff" + rng.randbytes(2)), ("label", b"\xc3\x28"))
    return Hostile("stream header beyond UTF-8", Reason.BAD_STREAM_ID, picture(rng), key=None, headers=headers)


def _type_beyond_utf8(rng: random.Random, limits: Limits) -> Hostile:
    headers = (("content-type", b"image/\xff" + rng.randbytes(2)),)
    return Hostile("content type beyond UTF-8", Reason.UNSUPPORTED_FORMAT, b"\x01\x02\x03", headers=headers)


KINDS: tuple[Callable[[random.Random, Limits], Hostile], ...] = (
    _tombstone,
    _no_bytes,
    _no_rows,
    _empty_row,
    _too_large,
    _png_bomb,
    _lying_header("PNG", (2**31 - 1, 2**31 - 1)),
    _lying_header("BMP", (2**30, 2**30)),
    _lying_header("JPEG", (65_500, 65_500)),
    _lying_header("WEBP", (16_383, 16_383)),
    _lying_within_the_limit("PNG"),
    _lying_within_the_limit("BMP"),
    _side_beyond_the_cap,
    _line,
    _png_without_pixels,
    _bomb_in_a_batch,
    _too_many_rows,
    _gif,
    _tiff,
    _foreign("ICO", "ICO"),
    _foreign("TGA", "TGA"),
    _foreign("AVIF", "AVIF"),
    _foreign("JPEG 2000", "JPEG2000"),
    _json,
    _text,
    _gif_in_a_batch,
    _run_length_bmp,
    _truncated("JPEG"),
    _truncated("PNG"),
    _truncated("WEBP"),
    _truncated("BMP"),
    _only_magic(b"\xff\xd8\xff"),
    _only_magic(b"\x89PNG\r\n\x1a\n"),
    _only_magic(b"RIFF\x20\0\0\0WEBP"),
    _only_magic(b"BM"),
    _declared,
    _null_row,
    _many_scans,
    _garbage_arrow,
    _truncated_arrow,
    _declared_arrow,
    _compressed_arrow,
    _lying_arrow,
    _no_image_column,
    _image_as_text,
    _arrow_file,
    _deep_arrow,
    _unfolding_arrow,
    _nan_pixels,
    _nan_tiff,
    _schema_framed,
    _no_stream,
    _no_stream_in_a_batch,
    _other_header,
    _other_column,
    _bad_key,
    _bad_key_of_a_batch,
    _bad_column,
    _header_beyond_utf8,
    _type_beyond_utf8,
)
