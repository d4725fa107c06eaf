"""Batches of a fetch as they come out of kafka-python: whole ones as ever, others as one record that says why not."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatchBuilder

from adawise.errors import Lost
from adawise.kafka.batches import NOTHING, BatchLimits, Unread, bound_batches
from tests.kafka import batches
from tests.kafka.batches import CODECS, TP, Record, batch, bomb, damaged, empty_records, record, sealed

LIMITS = BatchLimits(max_bytes=100_000, max_records=50)
GOOD: list[Record] = [(b"cam", b"one"), (None, b"two"), (b"cam", None)]

every_codec = pytest.mark.parametrize("codec", [name for name in CODECS if name != "none"])


def read(data: bytes, offset: int = 0, limits: BatchLimits = LIMITS, at_once: int = 1_000) -> list[Any]:
    """What a fetch from `offset` on brings; what follows it is fetched next."""
    found, following = batches.read(data, offset, limits, at_once)
    assert not found or following == max(found[-1].offset + 1, offset)
    return found


def delivered(records: list[Any]) -> list[Any]:
    """(offset, key, value) of a message, and what stands for others."""
    return [r.checksum if isinstance(r.checksum, Unread) else (r.offset, r.key, r.value) for r in records]


def messages(content: list[Record], base: int) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(base + number, key, value) for number, (key, value) in enumerate(content)]


def unread(first: int, last: int, reason: Lost, records: list[Any]) -> None:
    """These offsets, for this reason, and nothing else."""
    assert [(u.first, u.last, u.reason) for u in delivered(records) if isinstance(u, Unread)] == [(first, last, reason)]


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=99)), min_size=1, max_size=9),
    st.sampled_from([*CODECS]),
    st.integers(0, 12),
    st.integers(1, 5),
)
def test_whole_batches_come_out_as_kafka_python_reads_them(
    content: list[Record], codec: str, offset: int, at_once: int
) -> None:
    data = batch(content, codec) + batch([(b"k", b"v")], base=len(content))
    expected = [m for m in [*messages(content, 0), (len(content), b"k", b"v")] if m[0] >= offset]
    assert delivered(read(data, offset, at_once=at_once)) == expected


@every_codec
def test_a_bomb_between_good_batches_is_one_record_that_names_the_setting(codec: str) -> None:
    data = batch(GOOD, codec) + rebased(bomb(codec, 200_000), 3) + batch(GOOD, codec, base=4)
    found = read(data)
    assert [*delivered(found)[:3], *delivered(found)[4:]] == [*messages(GOOD, 0), *messages(GOOD, 4)]
    unread(3, 3, Lost.BATCH_TOO_LARGE, found)
    assert f"of {codec} to more than the 100000 that kafka.max_batch_bytes allows" in found[3].checksum.detail
    assert found[3].checksum.is_hostile


@pytest.mark.parametrize("codec", CODECS)
def test_too_many_records_are_one_record_whatever_they_weigh(codec: str) -> None:
    found = read(batch(GOOD) + rebased(empty_records(codec, 51), 3) + batch(GOOD, base=54))
    assert len(found) == 7
    unread(3, 53, Lost.BATCH_TOO_MANY_RECORDS, found)
    assert "51 records or more, kafka.max_batch_records allows 50" in found[3].checksum.detail
    assert len(read(empty_records(codec, 50))) == 50


def test_of_a_batch_that_is_asked_for_from_its_middle_on_only_the_rest_is_told() -> None:
    unread(20, 50, Lost.BATCH_TOO_MANY_RECORDS, read(empty_records("gzip", 51), offset=20))
    assert delivered(read(batch(GOOD, "gzip"), offset=2)) == messages(GOOD, 0)[2:]


def headers_of(each: int, records: int) -> bytes:
    """A batch whose records have so many empty headers each."""
    body = b"\0\0\0" + batches._varint(-1) + batches._varint(0) + batches._varint(each) + b"\0\0" * each
    return sealed(b"".join(_with_offset(body, number) for number in range(records)), records, 0)


def test_a_record_with_headers_without_end_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", None)
    found = read(headers_of(600, 1))
    unread(0, 0, Lost.BATCH_TOO_MANY_RECORDS, found)
    assert "has more than 500 headers, 10 for each of kafka.max_batch_records" in found[0].checksum.detail


def test_records_whose_headers_have_no_end_together_are_read_up_to_the_bound() -> None:
    found = read(headers_of(40, 20))
    assert len(found) == 13
    unread(12, 19, Lost.BATCH_TOO_MANY_RECORDS, found)


def _with_offset(body: bytes, offset: int) -> bytes:
    body = body[:2] + batches._varint(offset) + body[3:]
    return batches._varint(len(body)) + body


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_whose_crc_is_wrong_is_one_record_up_to_where_the_next_begins(codec: str) -> None:
    found = read(batch(GOOD) + damaged(batch(GOOD, codec, base=3)) + batch(GOOD, base=9))
    assert [*delivered(found)[:3], *delivered(found)[4:]] == [*messages(GOOD, 0), *messages(GOOD, 9)]
    unread(3, 8, Lost.BATCH_DAMAGED, found)
    assert not found[3].checksum.is_hostile


def test_of_a_damaged_header_nothing_is_believed_but_progress_is_made() -> None:
    data = bytearray(batch(GOOD, base=3))
    data[21:27] = b"\xff\xff\x7f\xff\xff\xff"  # a control batch of a transaction, of two milliards of offsets
    unread(3, 3, Lost.BATCH_DAMAGED, read(bytes(data), offset=3))
    unread(5, 5, Lost.BATCH_DAMAGED, read(bytes(data), offset=5))


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_codec_of_tomorrow_is_one_record_that_names_it(number: int) -> None:
    found = read(batch(GOOD, attributes=number) + batch(GOOD, base=3))
    assert len(found) == 4
    unread(0, 2, Lost.BATCH_UNREADABLE, found)
    assert f"codec number {number}" in found[0].checksum.detail


@every_codec
def test_bytes_that_are_not_the_codecs_are_one_record(codec: str) -> None:
    found = read(sealed(b"\x05no such thing", 3, CODECS[codec]) + batch(GOOD, base=3))
    assert len(found) == 4
    unread(0, 2, Lost.BATCH_UNREADABLE, found)


@pytest.mark.parametrize(
    "payload",
    [
        record(0, b"k", b"v") + b"\x7f",
        record(0, b"k", b"v") + record(1, None, b"long")[:-3],
        record(0, b"k", b"v") + record(0, b"k", b"again"),
        record(0, b"k", b"v") + record(9, b"k", b"far"),
        record(0, b"k", b"v") + b"\xff" * 40,
    ],
    ids=["too short", "cut", "an offset again", "an offset beyond", "no number"],
)
@pytest.mark.parametrize("codec", CODECS)
def test_what_can_be_read_of_a_batch_is_and_the_rest_is_one_record(payload: bytes, codec: str) -> None:
    found = read(sealed(batches.compressed(codec, payload), 3, CODECS[codec]) + batch(GOOD, base=3))
    assert delivered(found)[0] == (0, b"k", b"v")
    unread(1, 2, Lost.BATCH_UNREADABLE, found)
    assert delivered(found)[2:] == messages(GOOD, 3)


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_compaction_has_emptied_is_nothing(codec: str) -> None:
    assert read(sealed(b"", 0, CODECS[codec])) == []


def test_a_client_that_asks_for_positions_unpacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.kafka.batches.unpacked", None)
    assert len(read(batch(GOOD, "gzip"), limits=NOTHING)) == 1


@given(st.binary(max_size=200), st.integers(8, 150))
def test_any_damage_comes_to_an_end_and_goes_forward(junk: bytes, at: int) -> None:
    data = batch(GOOD, "gzip")
    data = data[:at] + junk[: len(data) - at] + data[at + len(junk) :]
    offsets = [record.offset for record in read(data + batch(GOOD, base=3))]
    assert offsets == sorted(set(offsets))


def test_without_the_bound_kafka_python_raises_and_never_gets_past_the_batch() -> None:
    part = Fetcher.PartitionRecords(0, TP, MemoryRecords(damaged(batch(GOOD))))
    with pytest.raises(CorruptRecordError):
        part.take(10)
    assert part.take(10) == []
    assert part, "it would be asked for ever"


# -- the formats before Kafka .11, which old logs still hold


def legacy(magic: int, codec: int, content: list[bytes], *, base: int = 0) -> bytes:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 30)
    for number, value in enumerate(content):
        builder.append(base + number if magic == 0 else number, 1_700_000_000_000, None, value)
    data = bytes(builder.build())
    return data if not codec else struct.pack(">q", base + len(content) - 1) + data[8:]


def rebased(data: bytes, base: int) -> bytes:
    """The same batch at another offset, which no CRC covers."""
    return struct.pack(">q", base) + data[8:]


CONTENT = [b"x" * 200, b"y" * 200, b"z" * 200]


@pytest.mark.parametrize("codec", [0, 1, 2, 3])
@pytest.mark.parametrize("magic", [0, 1])
def test_old_messages_are_read_whatever_packed_them(magic: int, codec: int) -> None:
    if (magic, codec) == (0, 3):
        pytest.skip("lz4 of Kafka .8 had a header of its own")
    found = delivered(read(legacy(magic, codec, CONTENT) + batch(GOOD, base=3)))
    assert found == [*((n, None, value) for n, value in enumerate(CONTENT)), *messages(GOOD, 3)]


@pytest.mark.parametrize("magic", [0, 1])
def test_a_set_of_old_messages_that_is_a_bomb_is_one_record(magic: int) -> None:
    unread(0, 0, Lost.BATCH_TOO_LARGE, read(legacy(magic, 1, [bytes(200_000)])))
    unread(7, 59, Lost.BATCH_TOO_MANY_RECORDS, read(legacy(magic, 1, [b""] * 60), offset=7)[-1:])


def test_a_damaged_old_message_is_one_record() -> None:
    unread(2, 2, Lost.BATCH_DAMAGED, read(damaged(legacy(1, 1, CONTENT)), offset=2))
    assert len(read(damaged(legacy(1, 1, CONTENT)) + batch(GOOD, base=3))) == 4


def test_a_set_of_old_messages_that_never_ends_does() -> None:
    inner = struct.pack(">qi", 0, -12) + bytes(20)
    packed = batches.compressed("gzip", inner)
    wrapper = legacy(1, 0, [packed])
    body = bytearray(wrapper)
    body[17] = 1  # the attributes: gzip
    body[12:16] = struct.pack(">I", zlib.crc32(body[16:]))
    unread(0, 0, Lost.BATCH_UNREADABLE, read(bytes(body)))


def holes(data: bytes, offset: int = 0) -> list[Any]:
    """What a fetch of a compacted topic brings: offsets, and (first, last) of what is missing."""
    consumer = SimpleNamespace(_fetcher=SimpleNamespace())
    bound_batches(consumer, LIMITS, reports_holes=True)
    part = consumer._fetcher.PartitionRecords(offset, TP, MemoryRecords(data))
    found = [(r.checksum, r.offset) for r in part.take(1_000)]
    assert all(unread is None or unread.reason == Lost.COMPACTED for unread, _ in found)
    return [at if unread is None else (unread.first, unread.last) for unread, at in found]


def test_what_compaction_removed_between_batches_and_in_them_is_told() -> None:
    three, five = batch(GOOD), batch(GOOD, base=5)
    assert holes(three + five) == [0, 1, 2, (3, 4), 5, 6, 7]
    assert holes(three + five, offset=4) == [(4, 4), 5, 6, 7]
    assert holes(five) == [(0, 4), 5, 6, 7]
    emptied = sealed(b"", 0, 0, base=3, covers=4)
    assert holes(three + emptied + batch(GOOD, base=7)) == [0, 1, 2, (3, 6), 7, 8, 9]


def test_of_a_batch_that_lost_some_of_its_records_these_are_told() -> None:
    left = record(1, b"cam", b"one") + record(3, b"cam", b"two")
    assert holes(sealed(left, 2, 0, base=10, covers=6), offset=10) == [(10, 10), 11, (12, 12), 13, (14, 15)]


def test_markers_of_transactions_are_missing_nowhere_but_what_was_removed_before_them_is() -> None:

    def marker(base: int) -> bytes:
        return batch([(b"\0\0\0\1", b"\0\0\0\0\0\0")], attributes=0x30, base=base)

    assert holes(batch(GOOD) + marker(3) + batch(GOOD, base=4)) == [0, 1, 2, 4, 5, 6]
    assert holes(batch(GOOD) + marker(6) + batch(GOOD, base=7)) == [0, 1, 2, (3, 5), 7, 8, 9]
