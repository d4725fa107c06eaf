"""Formats taken apart and put together again, so that damage can go deeper than the first check of a frame.

A part is (name, payload): a JPEG segment, a PNG or RIFF chunk, a header and its pixels, an Arrow message's metadata or
body. `join` frames the payloads anew, with lengths and check sums that are right; a `Lie` makes one length wrong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Part = tuple[bytes, bytes]


@dataclass(frozen=True)
class Lie:
    """The declared length of part number `at` is `length`."""

    at: int
    length: int


@dataclass(frozen=True)
class Format:
    """How bytes of one format come apart, and together."""

    split: Callable[[bytes], list[Part]]
    join: Callable[[Sequence[Part], Lie | None], bytes]


def _length(number: int, payload: bytes, lie: Lie | None, more: int = 0) -> int:
    return lie.length if lie is not None and lie.at == number else len(payload) + more


def _split_jpeg(data: bytes) -> list[Part]:
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append((data[at : at + 2], data[at + 4 : end]))
        at = end
    return [*parts, (b"\xff\xda", data[at + 2 :])]


def _join_jpeg(parts: Sequence[Part], lie: Lie | None) -> bytes:
    out = [b"\xff\xd8"]
    for number, (name, payload) in enumerate(parts):
        if name == b"\xff\xda":
            out += [name, payload]
        else:
            out += [name, (_length(number, payload, lie, 2) & 0xFFFF).to_bytes(2, "big"), payload]
    return b"".join(out)


def _split_png(data: bytes) -> list[Part]:
    parts, at = [], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        parts.append((data[at + 4 : at + 8], data[at + 8 : end]))
        at = end + 4
    return parts


def _join_png(parts: Sequence[Part], lie: Lie | None) -> bytes:
    out = [b"\x89PNG\r\n\x1a\n"]
    for number, (name, payload) in enumerate(parts):
        length = _length(number, payload, lie) & 0xFFFF_FFFF
        out += [length.to_bytes(4, "big"), name, payload, zlib.crc32(name + payload).to_bytes(4, "big")]
    return b"".join(out)


def _split_webp(data: bytes) -> list[Part]:
    parts, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _join_webp(parts: Sequence[Part], lie: Lie | None) -> bytes:
    out = []
    for number, (name, payload) in enumerate(parts):
        length = _length(number, payload, lie) & 0xFFFF_FFFF
        out += [name, length.to_bytes(4, "little"), payload, bytes(len(payload) % 2)]
    body = b"".join(out)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _split_bmp(data: bytes) -> list[Part]:
    pixels = int.from_bytes(data[10:14], "little")
    return [(b"", data[14:54]), (b"", data[54:pixels]), (b"", data[pixels:])]


def _join_bmp(parts: Sequence[Part], lie: Lie | None) -> bytes:
    payloads = [payload for _, payload in parts]
    size = 14 + sum(map(len, payloads))
    pixels = lie.length if lie is not None else size - len(payloads[-1]) if payloads else 0
    return struct.pack("<2sIII", b"BM", size, 0, pixels & 0xFFFF_FFFF) + b"".join(payloads)


def _split_arrow(data: bytes) -> list[Part]:
    """Metadata and body of each message in turn; where a body ends is found by where the next message begins."""
    parts, at = [], 0
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        following = data.find(b"\xff\xff\xff\xff", end)
        while following != -1 and following % 8:
            following = data.find(b"\xff\xff\xff\xff", following + 1)
        following = len(data) if following == -1 else following
        parts += [(b"metadata", data[at + 8 : end]), (b"body", data[end:following])]
        at = following
    return parts


def _join_arrow(parts: Sequence[Part], lie: Lie | None) -> bytes:
    out = []
    for number, (name, payload) in enumerate(parts):
        if name == b"metadata":
            out += [b"\xff\xff\xff\xff", (_length(number, payload, lie) & 0xFFFF_FFFF).to_bytes(4, "little")]
        out.append(payload)
    return b"".join(out)


JPEG = Format(_split_jpeg, _join_jpeg)
PNG = Format(_split_png, _join_png)
WEBP = Format(_split_webp, _join_webp)
BMP = Format(_split_bmp, _join_bmp)
ARROW = Format(_split_arrow, _join_arrow)
