"""A disk of the broker that turns bits, as a client sees it: a broker itself takes no batch whose CRC is wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka.consumer.fetcher import Fetcher

from tests.kafka.batches import damaged


@contextmanager
def damage(partition: int, offset: int, delta: int | None = None) -> Iterator[None]:
    """Meanwhile, every fetch brings the batch with this offset damaged; it may claim to reach `delta` offsets far."""
    with pytest.MonkeyPatch.context() as patch:
        parse = Fetcher._parse_fetched_data

        def parse_damaged(self: Any, fetch: Any) -> Any:
            data = fetch.partition_data
            if fetch.topic_partition.partition == partition and data.records:
                batches = batches_of(bytes(data.records))
                data.records = b"".join(spoilt(b, delta) if holds(b, offset) else b for b in batches)
            return parse(self, fetch)

        patch.setattr(Fetcher, "_parse_fetched_data", parse_damaged)
        yield


def spoilt(batch: bytes, delta: int | None) -> bytes:
    """The batch with a wrong CRC, and another delta of the last offset."""
    return damaged(batch if delta is None else batch[:23] + struct.pack(">i", delta) + batch[27:])


def batches_of(data: bytes) -> Iterator[bytes]:
    """The batches of a fetch; the last one may be cut off."""
    while len(data) >= 12:
        end = 12 + struct.unpack_from(">i", data, 8)[0]
        yield data[:end]
        data = data[end:]


def holds(batch: bytes, offset: int) -> bool:
    """Whether the whole of a batch was fetched, and this offset is in it."""
    if len(batch) < 61 or len(batch) != 12 + struct.unpack_from(">i", batch, 8)[0]:
        return False
    base, delta = struct.unpack_from(">q", batch)[0], struct.unpack_from(">i", batch, 23)[0]
    return bool(base <= offset <= base + delta)
