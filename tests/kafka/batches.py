"""Record batches (message format 2) as any producer may send them: each codec, bombs, damage; and how they are sent."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from kafka import KafkaAdminClient, errors
from kafka.codec import lz4_encode, snappy_encode
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecords
from kafka.record.util import calc_crc32c, encode_varint
from kafka.structs import TopicPartition

from adawise.kafka.batches import BatchLimits, bound_batches
from tests.brokers import Broker

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
TP = TopicPartition("frames", 0)
Headers = tuple[tuple[str, bytes | None], ...]
Record = tuple[bytes | None, bytes | None]  # key, value
AT_MS = 1_700_000_000_000


def read(data: bytes, offset: int, limits: BatchLimits, at_once: int = 1_000) -> tuple[list[Any], int]:
    """What a fetch from `offset` on brings, as our source has kafka-python read it to its end; and the offset after."""
    consumer = SimpleNamespace(_fetcher=SimpleNamespace())
    bound_batches(consumer, limits)
    part = consumer._fetcher.PartitionRecords(offset, TP, MemoryRecords(data))
    found: list[Any] = []
    while part:
        records = part.take(at_once)
        found += records
        assert records or not part, "it would be asked for ever"
    assert all(record.offset >= offset for record in found)
    return found, part.next_fetch_offset


def record(offset: int, key: bytes | None, value: bytes | None, headers: Headers = (), later_ms: int = 0) -> bytes:
    """One record, `later_ms` after its batch."""
    named = b"".join(_bytes(name.encode()) + _bytes(content) for name, content in headers)
    body = b"\0" + _varint(later_ms) + _varint(offset) + _bytes(key) + _bytes(value) + _varint(len(headers)) + named
    return _varint(len(body)) + body


def compressed(codec: str, data: bytes) -> bytes:
    """As a client without framing of its own does it."""
    return data if codec == "none" else bytes(pa.compress(data, codec=codec, asbytes=True))


def batch(
    content: Iterable[Record],
    codec: str = "none",
    *,
    base: int = 0,
    compress: Callable[[str, bytes], bytes] = compressed,
    attributes: int | None = None,
    at_ms: int = AT_MS,
) -> bytes:
    """A batch with a right CRC; `attributes` in place of the codec's."""
    records = [record(offset, key, value) for offset, (key, value) in enumerate(content)]
    return sealed(
        compress(codec, b"".join(records)),
        len(records),
        CODECS[codec] if attributes is None else attributes,
        base=base,
        at_ms=at_ms,
    )


def sealed(
    payload: bytes, count: int, attributes: int, *, base: int = 0, at_ms: int = AT_MS, covers: int | None = None
) -> bytes:
    """Header and payload of a batch of `count` records, that had `covers` before it was compacted."""
    last = max((count if covers is None else covers) - 1, 0)
    checked = struct.pack(">hiqqqhii", attributes, last, at_ms, at_ms, -1, -1, -1, count) + payload
    head = struct.pack(">iBI", 0, 2, calc_crc32c(checked))
    return struct.pack(">qi", base, len(head) + len(checked)) + head + checked


def bomb(codec: str, size_bytes: int) -> bytes:
    """A batch of one message, which is `size_bytes` zeros; made in little memory by gzip and zstd."""
    before = b"\0\0\0" + _bytes(b"camera-0") + _varint(size_bytes)
    head = _varint(len(before) + size_bytes + 1) + before
    if codec == "snappy":  # in blocks, or the broker unpacks all of it at once and runs out of memory
        return sealed(snappy_encode(head + bytes(size_bytes + 1), xerial_blocksize=1 << 20), 1, CODECS[codec])
    if codec == "lz4":  # in blocks of which none depends on another, or the broker refuses it
        return sealed(lz4_encode(head + bytes(size_bytes + 1)), 1, CODECS[codec])
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, codec) as stream:
        stream.write(head)
        for done in range(0, size_bytes, 1 << 20):
            stream.write(bytes(min(1 << 20, size_bytes - done)))
        stream.write(b"\0")
    return sealed(out.getvalue().to_pybytes(), 1, CODECS[codec])


def empty_records(codec: str, count: int) -> bytes:
    """A batch of so many messages with neither key nor value."""
    return batch([(None, None)] * count, codec)


def damaged(data: bytes) -> bytes:
    """The same batch with a bit of its last byte turned: its CRC tells."""
    return data[:-1] + bytes([data[-1] ^ 1])


def send(broker: Broker, topic: str, partition: int, *batches: bytes) -> list[int]:
    """The offset that each batch got, whose bytes are sent as they are."""
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin:
        return [_send(admin, topic, partition, data) for data in batches]


def _send(admin: Any, topic: str, partition: int, data: bytes) -> int:
    kind = ProduceRequest.TopicProduceData
    request = ProduceRequest(
        transactional_id=None,
        acks=-1,
        timeout_ms=30_000,
        topic_data=[kind(name=topic, partition_data=[kind.PartitionProduceData(index=partition, records=data)])],
        min_version=3,
        max_version=9,
    )

    async def order() -> Any:
        return await admin._manager.send(request)

    answer = admin._manager.run(order).responses[0].partition_responses[0]
    if answer.error_code:
        raise errors.for_code(answer.error_code)(f"{answer.error_message}")
    return int(answer.base_offset)


def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def _bytes(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data
