"""Reader of kafka-python's record batches that survives any batch: what cannot be read becomes a record that says so.

kafka-python checks, unpacks and parses a batch in the middle of a poll. An error there is raised out of the poll, and
the next poll spins for ever on what is left of the fetch (measured). Here such a batch, or the rest of it, becomes one
record whose `checksum` is an `Unread`. The checksum is None in all other records of this format, and no producer can
write an `Unread`.

In a compacted topic, offsets that are in no batch, or that are missing inside their batch, become such records too.
Aborted records and transaction markers are not missing: they have batches, which are skipped.

What a producer compressed is unpacked here, within a bound: bytes in, bytes or an error out. kafka-python unpacks a
batch whole, whatever its size: .95 MB of gzip became 3.1 GB of this process. It also needs a package of its own for
three of the four codecs. Arrow has all four, unpacks them in a stream, and is a dependency anyway. Snappy has no
stream. Each block begins with its unpacked length, which is compared with the bound before anything is allocated.
Java's client writes many small blocks one after the other (the framing of snappy-java, once called xerial).

Like `repairs`, this relies on the internals of kafka-python 3.0: review it when the pin moves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from kafka import errors
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.util import decode_varint
from typing_extensions import override

from adawise.errors import Lost

CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
"""Kafka's codecs, by their number in a batch's attributes; 0 is none."""

_STEP_BYTES = 1 << 20
_FRAMED = b"\x82SNAPPY\x00"
_FRAME_BYTES = 16  # the mark and two versions, whose byte order differs between clients: they are skipped

_HEADERS_A_RECORD = 10  # most headers per allowed record: one of 2 bytes takes about 100 in memory


class TooLong(Exception):
    """Raised when more bytes would come out than the bound allows. It never leaves the source."""


class CannotUnpack(Exception):
    """Raised when the codec is unknown or missing, or the bytes are not of that codec. It never leaves the source."""


_FAILURES = (errors.KafkaError, CannotUnpack, ValueError, IndexError, struct.error, AssertionError)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of one batch: its bytes once unpacked, and its records. Its compressed size does not matter."""

    max_bytes: int
    max_records: int


NOTHING = BatchLimits(0, 0)
"""The limits for clients that only ask for positions: no batch is unpacked."""


@dataclass(frozen=True, slots=True)
class Unread:
    """The offsets `first` to `last`, which cannot or must not be read; `detail` completes "the batch ..."."""

    first: int
    last: int
    reason: Lost
    detail: str

    @property
    def is_hostile(self) -> bool:
        """True if the reason lies in the batch alone: every worker and every replay comes to the same result."""
        return self.reason in (Lost.BATCH_TOO_LARGE, Lost.BATCH_TOO_MANY_RECORDS)


class _Beyond(Exception):
    """Raised inside this module alone: the batch exceeds the limits."""

    def __init__(self, reason: Lost, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def bound_batches(consumer: Any, limits: BatchLimits, *, reports_holes: bool = False) -> None:
    """Make this KafkaConsumer read batches within limits; the checksum of its records may then be an `Unread`.

    Args:
        consumer: the KafkaConsumer, which is changed in place.
        limits: the limits of each batch.
        reports_holes: also yield a record for offsets that compaction has removed. Set it for compacted topics only.
    """
    consumer._fetcher.PartitionRecords = partial(_PartitionRecords, limits=limits, reports_holes=reports_holes)


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition from one fetch."""

    def __init__(
        self,
        fetch_offset: int,
        tp: Any,
        records: MemoryRecords,
        *,
        limits: BatchLimits,
        reports_holes: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(fetch_offset, tp, _Records(records, fetch_offset, limits, reports_holes=reports_holes), **more)

    def _unpack_records(self, tp: Any, *arguments: Any) -> Iterator[Any]:
        try:
            yield from super()._unpack_records(tp, *arguments)
        except _FAILURES as error:  # damage outside the batches, where no offset is known
            at = int(self.next_fetch_offset)
            unread = Unread(at, at, Lost.BATCH_UNREADABLE, f"is none: {error}")
            self.next_fetch_offset: int = at + 1
            yield ConsumerRecord(*tp, -1, at, -1, 0, None, None, [], unread, -1, -1, -1)
            self.drain()


class _Records(MemoryRecords):  # type: ignore[misc]
    """The batches of a fetch: each begins where the one before it ended, or later."""

    __slots__ = ("_due", "_limits", "_reports_holes")

    def __init__(self, records: MemoryRecords, fetch_offset: int, limits: BatchLimits, *, reports_holes: bool) -> None:
        super().__init__(records._buffer)
        self._due, self._limits, self._reports_holes = fetch_offset, limits, reports_holes

    def next_batch(self) -> Any:
        data = self._next_slice
        if data is None:
            return None
        # The bytes ahead are the next batch: what lies between it and the offset that is due was removed by compaction.
        if self._reports_holes and data[self.MAGIC_OFFSET] >= 2 and (at := _offset_of(data)) > self._due:
            hole = _Hole(data, self._due, at, self._limits)
            self._due = at
            return hole
        self._cache_next()
        kind = _LegacyBatch if data[self.MAGIC_OFFSET] < 2 else _Batch
        following = self._due if self._next_slice is None else _offset_of(self._next_slice)
        batch = kind(data, self._due, following, self._limits)
        batch.reports_holes = self._reports_holes
        self._due = batch.until
        return batch


class _Placeholder(DefaultRecord):  # type: ignore[misc]
    """A record without content that represents the offsets of an `Unread`."""

    __slots__ = ("_unread",)

    def __init__(self, unread: Unread) -> None:
        super().__init__(0, unread.last, -1, 0, None, None, [])
        self._unread = unread

    @property
    def checksum(self) -> Unread:
        return self._unread


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of the current format (magic 2). If its CRC is wrong, no field that the CRC covers is trusted."""

    reports_holes = False

    def __init__(self, data: memoryview, due: int, following: int, limits: BatchLimits) -> None:
        super().__init__(data)
        self._due, self._limits = due, limits
        self._is_damaged = not super().validate_crc()
        self._last = _end_of(due, following, int(super().last_offset), self._is_damaged, limits)

    @property
    def until(self) -> int:
        """The first offset at which the next batch may begin."""
        return self._last + 1

    def validate_crc(self) -> bool:
        return True  # the fetcher would raise an error if this were False

    def has_producer_id(self) -> bool:
        return not self._is_damaged and bool(super().has_producer_id())

    @property
    def is_control_batch(self) -> bool:
        return not self._is_damaged and bool(super().is_control_batch)

    @property
    def last_offset(self) -> int:
        return self._last

    def __iter__(self) -> Iterator[Any]:
        return _guarded(self._records(), self._due, self._last, self._is_damaged, reports_holes=self.reports_holes)

    def _records(self) -> Iterator[Any]:
        """Yield the records of the batch; raise _Beyond or one of _FAILURES at what cannot be read."""
        if not self.records_count:
            return  # compaction keeps the header of an emptied batch
        _expect_few(self.records_count, self._limits)
        if self.compression_type:
            packed = memoryview(self._buffer)[self._pos :]
            self._buffer: bytearray = _unpacked(self.compression_type, packed, self._limits)
            self._pos: int = 0
        self._decompressed: bool = True
        headers = 0
        while True:
            self._expect_few_headers(headers + self._headers_ahead())
            try:
                record = super().__next__()
            except StopIteration:
                return
            headers += len(record.headers)
            self._expect_few_headers(headers)
            yield record

    def _headers_ahead(self) -> int:
        """Return how many headers the next record declares if it is long enough to hold too many, else 0."""
        if self._next_record_index >= self._num_records:
            return 0
        # Any smaller record is too short to hold too many headers, at two bytes each.
        length, position = decode_varint(self._buffer, self._pos)
        if length < 2 * self._limits.max_records:
            return 0
        for _ in range(3):  # attributes, timestamp, offset
            _, position = decode_varint(self._buffer, position)
        for _ in range(2):  # key, value
            length, position = decode_varint(self._buffer, position)
            position += max(length, 0)
        return int(decode_varint(self._buffer, position)[0])

    def _expect_few_headers(self, count: int) -> None:
        most = _HEADERS_A_RECORD * self._limits.max_records
        if count > most:
            raise _Beyond(
                Lost.BATCH_TOO_MANY_RECORDS,
                f"has more than {most} headers, {_HEADERS_A_RECORD} for each of kafka.max_batch_records",
            )


class _Hole(_Batch):
    """The offsets that are missing before the batch of `data`, as a batch that holds only their placeholder."""

    def __init__(self, data: memoryview, due: int, following: int, limits: BatchLimits) -> None:
        super().__init__(data, due, following, limits)
        self._last = following - 1

    @override
    def has_producer_id(self) -> bool:
        return False

    @property
    @override
    def is_control_batch(self) -> bool:
        return False

    @override
    def __iter__(self) -> Iterator[Any]:
        yield _removed(self._due, self._last)


class _LegacyBatch(LegacyRecordBatch):  # type: ignore[misc]
    """A message of the formats before Kafka 0.11, or several messages that are compressed into one."""

    reports_holes = False

    def __init__(self, data: memoryview, due: int, following: int, limits: BatchLimits) -> None:
        super().__init__(data, data[MemoryRecords.MAGIC_OFFSET])
        self._due, self._limits = due, limits
        self._is_damaged = not super().validate_crc()
        # The base offset of a compressed set is that of its last message.
        self._last = _end_of(due, following, int(self.base_offset), self._is_damaged, limits)

    @property
    def until(self) -> int:
        """The first offset at which the next batch may begin."""
        return self._last + 1

    def validate_crc(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return _guarded(super().__iter__(), self._due, self._last, self._is_damaged)

    def _decompress(self, key_offset: int) -> bytearray:
        """Return the messages of a compressed set, unpacked; raise _Beyond or one of _FAILURES."""
        _, position = self._sized(key_offset)
        packed, _ = self._sized(position)
        return _unpacked(self.compression_type, packed, self._limits)

    def _sized(self, position: int) -> tuple[memoryview, int]:
        (length,) = struct.unpack_from(">i", self._buffer, position)
        end = position + 4 + max(length, 0)
        return self._buffer[position + 4 : end], end

    def _read_all_headers(self) -> list[tuple[tuple[Any, ...], int]]:
        found, position = [], 0
        while position < len(self._buffer):
            header = self._read_header(position)
            found.append((header, position))
            _expect_few(len(found), self._limits)
            if header[1] < 0:
                raise ValueError(f"a message of {header[1]} bytes")
            position += self.LOG_OVERHEAD + header[1]
        return found


def _guarded(
    records: Iterator[Any], due: int, last: int, is_damaged: bool, *, reports_holes: bool = False
) -> Iterator[Any]:
    """Yield the records from `due` on as far as they can be read, then a placeholder for the rest up to `last`."""
    before, expected = -1, due
    try:
        if is_damaged:
            raise ValueError("its CRC does not agree with its bytes")
        for record in records:
            if not before < record.offset <= last:
                raise ValueError(f"offset {record.offset} after {before}, {last} is the last")
            before = record.offset
            if record.offset >= due:
                if reports_holes and record.offset > expected:
                    yield _removed(expected, record.offset - 1)
                expected = record.offset + 1
                yield record
        if reports_holes and expected <= last:
            yield _removed(expected, last)
    except _Beyond as beyond:
        reason, detail = beyond.reason, str(beyond)
    except _FAILURES as error:
        reason = Lost.BATCH_DAMAGED if is_damaged else Lost.BATCH_UNREADABLE
        detail = f"cannot be read: {error}"
    else:
        return
    if (first := max(before + 1, due)) <= last:
        yield _Placeholder(Unread(first, last, reason, detail))


def _removed(first: int, last: int) -> _Placeholder:
    return _Placeholder(Unread(first, last, Lost.COMPACTED, "was compacted"))


def _end_of(due: int, following: int, given: int, is_damaged: bool, limits: BatchLimits) -> int:
    """Return the last offset of a batch.

    It is the one in the header (`given`). The header of a damaged batch is not trusted: its end is taken to be the
    offset before the next batch, else `given`, whichever lies within `limits.max_records` of `due`, and otherwise `due`
    itself.
    """
    if not is_damaged:
        return max(given, due - 1)
    return next((last for last in (following - 1, given) if due <= last <= due + limits.max_records), due)


def _unpacked(codec: int, packed: memoryview, limits: BatchLimits) -> bytearray:
    try:
        return unpacked(codec, packed, limits.max_bytes)
    except TooLong:
        raise _Beyond(
            Lost.BATCH_TOO_LARGE,
            f"unpacks from {len(packed)} bytes of {CODECS[codec]} to more than the {limits.max_bytes} that "
            "kafka.max_batch_bytes allows",
        ) from None


def _expect_few(count: int, limits: BatchLimits) -> None:
    if count > limits.max_records:
        raise _Beyond(
            Lost.BATCH_TOO_MANY_RECORDS,
            f"has {count} records or more, kafka.max_batch_records allows {limits.max_records}",
        )


def _offset_of(data: memoryview) -> int:
    return int.from_bytes(data[:8], "big", signed=True)


def missing_codecs() -> list[str]:
    """Return the names of Kafka's codecs that this build of Arrow lacks; [] for the build on PyPI."""
    return [name for name in CODECS.values() if not pa.Codec.is_available(name)]


def unpacked(codec: int, data: bytes | memoryview, max_bytes: int) -> bytearray:
    """Return the unpacked bytes, at most `max_bytes` of them; this takes as much memory, and a few MiB more.

    Args:
        codec: Kafka's number of the codec, one of `CODECS`.
        data: the output of the producer's codec, in its framing.
        max_bytes: the most bytes that may come out.

    Raises:
        TooLong: more would come out.
        CannotUnpack: the bytes are not one or more whole streams of that codec.
    """
    name = CODECS.get(codec)
    if name is None:
        raise CannotUnpack(f"codec number {codec}, which is not one of {', '.join(CODECS.values())}")
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
