"""What a producer compressed, unpacked in a stream and no further than a bound: bytes in, bytes or an error out.

kafka-python unpacks a batch whole, whatever becomes of it: .95 MB of gzip became 3.1 GB of this process. And for three
of the four codecs it asks for packages of their own. Arrow has all four, reads them in a stream, and is here anyway.

Snappy has no stream. Its blocks say in front how long they will be, which is compared with the bound before anything is
allocated; Java's client puts many small blocks behind each other (the framing of snappy-java, once called xerial).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

NAMES = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Kafka's codecs by the number that a batch has in its attributes; 0 is none."""

_STEP_BYTES = 1 << 20
_FRAMED = b"\x82SNAPPY\x00"
_FRAME_BYTES = 16  # that and two versions, of which clients differ in the byte order: they say nothing


class TooLong(Exception):
    """More bytes would come out than the bound allows. It never leaves the source."""


class CannotUnpack(Exception):
    """The codec is not known or not here, or these bytes are not its. It never leaves the source."""


def missing_codecs() -> list[str]:
    """The names of Kafka's codecs that this build of Arrow lacks; [] with that of PyPI."""
    return [name for name in NAMES.values() if not pa.Codec.is_available(name)]


def unpacked(codec: int, data: bytes | memoryview, max_bytes: int) -> bytearray:
    """The bytes that were compressed, at most `max_bytes` of them. Takes so much memory, and a few MiB more.

    Args:
        codec: Kafka's number of it, one of `NAMES`.
        data: what the producer's codec made, in its framing.
        max_bytes: of what comes out.

    Raises:
        TooLong: more would come out.
        CannotUnpack: these are not whole streams of that codec, one or more.
    """
    name = NAMES.get(codec)
    if name is None:
        raise CannotUnpack(f"codec number {codec}, which is none of {', '.join(NAMES.values())}")
    if not pa.Codec.is_available(name):
        raise CannotUnpack(f"codec {name}, which this build of pyarrow lacks; install that of PyPI")
    out = bytearray()
    try:
        for piece in _blocks(memoryview(data), max_bytes) if name == "snappy" else _steps(name, data, max_bytes):
            out += piece
            if len(out) > max_bytes:
                raise TooLong
    except MemoryError:  # of Arrow too, which calls it one of its own
        raise
    except (pa.ArrowException, OSError) as error:
        raise CannotUnpack(f"bytes that are no {name}: {error}") from error
    return out


def _steps(name: str, data: bytes | memoryview, max_bytes: int) -> Iterator[bytes]:
    step_bytes = min(_STEP_BYTES, max_bytes + 1)
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), name) as stream:
        while piece := stream.read(step_bytes):
            yield piece


def _blocks(data: memoryview, max_bytes: int) -> Iterator[pa.Buffer]:
    if data[: len(_FRAMED)] != _FRAMED:
        yield _block(data, max_bytes)
        return
    left, position = max_bytes, 0
    while position < len(data):
        if data[position : position + len(_FRAMED)] == _FRAMED:  # streams may follow each other
            position += _FRAME_BYTES
            continue
        end = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            raise CannotUnpack(f"bytes that are no snappy: a block up to {end} in {len(data)} bytes")
        block = _block(data[position + 4 : end], left)
        left, position = left - len(block), end
        yield block


def _block(data: memoryview, max_bytes: int) -> pa.Buffer:
    length = 0
    for index, byte in enumerate(data[:5]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    if length > max_bytes:
        raise TooLong
    return pa.decompress(pa.py_buffer(data), decompressed_size=length, codec="snappy")
