"""Bounded decompression of what a producer compressed: bytes in, bytes or an error out.

kafka-python unpacks a batch whole, whatever its size: .95 MB of gzip became 3.1 GB of this process. It also needs a
package of its own for three of the four codecs. Arrow has all four, unpacks them in a stream, and is a dependency
anyway.

Snappy has no stream. Each block begins with its unpacked length, which is compared with the bound before anything is
allocated. Java's client writes many small blocks one after the other (the framing of snappy-java, once called xerial).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

NAMES = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Kafka's codecs, by their number in a batch's attributes; 0 is none."""

_STEP_BYTES = 1 << 20
_FRAMED = b"\x82SNAPPY\x00"
_FRAME_BYTES = 16  # the mark and two versions, whose byte order differs between clients: they are skipped


class TooLong(Exception):
    """Raised when more bytes would come out than the bound allows. It never leaves the source."""


class CannotUnpack(Exception):
    """Raised when the codec is unknown or missing, or the bytes are not of that codec. It never leaves the source."""


def missing_codecs() -> list[str]:
    """Return the names of Kafka's codecs that this build of Arrow lacks; [] for the build on PyPI."""
    return [name for name in NAMES.values() if not pa.Codec.is_available(name)]


def unpacked(codec: int, data: bytes | memoryview, max_bytes: int) -> bytearray:
    """Return the unpacked bytes, at most `max_bytes` of them; this takes as much memory, and a few MiB more.

    Args:
        codec: Kafka's number of the codec, one of `NAMES`.
        data: the output of the producer's codec, in its framing.
        max_bytes: the most bytes that may come out.

    Raises:
        TooLong: more would come out.
        CannotUnpack: the bytes are not one or more whole streams of that codec.
    """
    name = NAMES.get(codec)
    if name is None:
        raise CannotUnpack(f"codec number {codec}, which is not one of {', '.join(NAMES.values())}")
    if not pa.Codec.is_available(name):
        raise CannotUnpack(f"codec {name}, which this build of pyarrow lacks; install the one from PyPI")
    out = bytearray()
    try:
        for piece in _blocks(memoryview(data), max_bytes) if name == "snappy" else _steps(name, data, max_bytes):
            out += piece
            if len(out) > max_bytes:
                raise TooLong
    except MemoryError:  # Arrow's too, which is also an ArrowException
        raise
    except (pa.ArrowException, OSError) as error:
        raise CannotUnpack(f"bytes that are not {name}: {error}") from error
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
            raise CannotUnpack(f"bytes that are not snappy: a block up to {end} in {len(data)} bytes")
        block = _block(data[position + 4 : end], left)
        left, position = left - len(block), end
        yield block


def _block(data: memoryview, max_bytes: int) -> pa.Buffer:
    # The block begins with its unpacked length as a varint.
    length = 0
    for index, byte in enumerate(data[:5]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    if length > max_bytes:
        raise TooLong
    return pa.decompress(pa.py_buffer(data), decompressed_size=length, codec="snappy")
