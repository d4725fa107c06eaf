"""Damage, by a seeded `rng`: to bytes of any kind, and to the parts of a format while its frame stays right."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

from tools.fuzz.parts import Format, Lie, Part

_EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 24, 31, 32, 63, 64, 100, 127, 128, 254, 255)
_WIDTHS = (1, 1, 2, 2, 4, 4, 4, 8)
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP", b"BM", b"\xff\xff\xff\xff", b"ARROW1", b"\0")
_HEAD = 64  # bytes of a payload in which its fields lie


def edge(rng: random.Random, bits: int) -> int:
    """A number that code has trouble with: small, at a power of two, or at an end of the range of `bits` bits."""
    match rng.randrange(4):
        case 0:
            return rng.choice(_EDGES) & ((1 << bits) - 1)
        case 1:
            return ((1 << rng.randrange(bits + 1)) + rng.randint(-2, 1)) & ((1 << bits) - 1)
        case 2:
            return ((1 << bits) - 1) - rng.choice(_EDGES[:8])
        case _:
            return rng.getrandbits(bits)


def overwrite(data: bytes, rng: random.Random, within: int) -> bytes:
    """One aligned field among the first `within` bytes is another number."""
    width = rng.choice(_WIDTHS)
    places = min(within, len(data)) // width
    if not places:
        return data
    at = width * rng.randrange(places)
    value = edge(rng, 8 * width).to_bytes(width, rng.choice(("little", "big")))
    return data[:at] + value + data[at + width :]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four wounds, wherever they hit."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = _wounded(data, rng)
    return data


def _wounded(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(32))
    at = rng.randrange(len(data))
    until = min(len(data), at + rng.randint(1, 64))
    match rng.randrange(9):
        case 0 | 1:
            return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[until:]
        case 4:
            return data[:at] + data[max(0, at - rng.randint(1, 200)) : at] + data[at:]
        case 5:
            return data[:at] + rng.randbytes(until - at) + data[until:]
        case 6:
            return data[:at] + rng.choice(_MAGICS) + data[at:]
        case 7:
            return overwrite(data, rng, len(data))
        case _:
            return overwrite(data, rng, _HEAD)


def spliced(first: bytes, second: bytes, rng: random.Random) -> bytes:
    """The beginning of one and the end of another."""
    return first[: rng.randint(1, len(first))] + second[rng.randrange(len(second)) :]


def restructured(form: Format, data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One or two parts of the format dropped, doubled, moved, exchanged or changed within; at times a length that lies.

    Args:
        form: of `data` and of `others`.
        data: whole.
        others: whole, too; parts are borrowed from them.
        rng: decides.
    """
    parts = form.split(data)
    for _ in range(rng.choice((1, 1, 2))):
        parts = _changed(form, parts, others, rng)
    lie = None
    if parts and rng.random() < 0.15:
        at = rng.randrange(len(parts))
        near = len(parts[at][1]) + rng.randint(-9, 9)
        lie = Lie(at, near if rng.random() < 0.5 else edge(rng, 32))
    return form.join(parts, lie)


def _changed(form: Format, parts: list[Part], others: Sequence[bytes], rng: random.Random) -> list[Part]:
    if not parts:
        return parts
    at, to = rng.randrange(len(parts)), rng.randrange(len(parts) + 1)
    name, payload = parts[at]
    rest = parts[:at] + parts[at + 1 :]
    match rng.randrange(10):
        case 0:
            return rest
        case 1:
            return [*parts[:to], parts[at], *parts[to:]]
        case 2:
            return [*rest[:to], parts[at], *rest[to:]]
        case 3:
            return [*parts[:to], rng.choice(form.split(rng.choice(others))), *parts[to:]]
        case 4:
            changed = rng.choice(parts)[0], payload
        case 5:
            changed = name, damaged(payload, rng)
        case 6 if name == b"IDAT":
            changed = name, _repacked(payload, rng)
        case 6 | 7:
            changed = name, overwrite(payload, rng, len(payload))
        case _:
            changed = name, overwrite(payload, rng, _HEAD)
    return [*parts[:at], changed, *parts[at + 1 :]]


def _repacked(payload: bytes, rng: random.Random) -> bytes:
    """Pixels of a PNG that are damaged before they are packed."""
    try:
        return zlib.compress(damaged(zlib.decompress(payload), rng), 1)
    except zlib.error:  # damaged before
        return payload
