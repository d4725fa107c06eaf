"""What one fetch of a partition brings, damaged at every depth: records, what packs them, what says how it is packed.

Read as the source reads it, with bounds below the defaults: each message that comes out is one for the decoder.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

from adawise.kafka.batches import BatchLimits, Unread
from adawise.kafka.client import message_of
from adawise.records import Message, Missing
from tests.hostile import Headers
from tests.kafka.batches import CODECS, bomb, compressed, empty_records, read, record, sealed
from tools.fuzz.damage import damaged, edge

LIMITS = BatchLimits(max_bytes=65_536, max_records=40)
_GAP = 3  # offsets between two batches, at most: what compaction took

Part = Callable[[random.Random], tuple[bytes | None, bytes | None, Headers]]  # key, value and headers of a record


def fetched(rng: random.Random, base: int, part: Part) -> bytes:
    """One to three batches from offset `base` on; what is damaged keeps its CRC, or is found out by it."""
    data = b""
    for _ in range(rng.choice((1, 1, 2, 3))):
        base += rng.randint(0, _GAP)
        made, records = _batch(rng, part)
        data += struct.pack(">q", base) + made[8:]
        base += records
    return damaged(data, rng) if rng.random() < 0.25 else data


def messages(data: bytes, base: int) -> Iterator[Message]:
    """The messages of a fetch from `base` on; raises AssertionError if it does not end or goes backwards."""
    last = base - 1
    records, following = read(data, base, LIMITS)
    for found in records:
        unread = found.checksum if isinstance(found.checksum, Unread) else None
        first = found.offset if unread is None else unread.first
        assert last < first <= found.offset, f"offsets {first} to {found.offset} come after {last}"
        last = found.offset
        yield message_of(found, None if unread is None else Missing(unread.first, unread.reason, unread.detail))
    assert not records or last < following, f"{following} is fetched after {last}"


def _batch(rng: random.Random, part: Part) -> tuple[bytes, int]:
    """A batch from offset 0 on, and how many offsets it says that it has."""
    codec = rng.choice([*CODECS])
    kind = rng.random()
    if kind < 0.1:
        size_bytes = rng.choice((LIMITS.max_bytes - 99, LIMITS.max_bytes, 9 * LIMITS.max_bytes))
        return bomb(rng.choice([*CODECS][1:]), size_bytes), 1
    if kind < 0.2:
        count = LIMITS.max_records + rng.choice((0, 1, 500))
        return empty_records(codec, count), count
    count = rng.randint(1, 6)
    payload = b"".join(_record(rng, offset, part) for offset in range(count))
    if rng.random() < 0.3:
        payload = damaged(payload, rng)
    packed = compressed(codec, payload)
    if rng.random() < 0.3:
        packed = damaged(packed, rng)
    found = count if rng.random() < 0.9 else edge(rng, 31)
    attributes = CODECS[codec] if rng.random() < 0.9 else edge(rng, 15)
    return sealed(packed, found, attributes, at_ms=_when(rng)), count


def _record(rng: random.Random, offset: int, part: Part) -> bytes:
    key, value, headers = part(rng)
    later_ms = edge(rng, 40) if rng.random() < 0.2 else offset
    return record(offset if rng.random() < 0.98 else edge(rng, 31), key, value, headers, later_ms)


def _when(rng: random.Random) -> int:
    return edge(rng, 63) * rng.choice((1, -1)) if rng.random() < 0.5 else 1_700_000_000_000
