"""Unpacking within a bound: every codec in every client's framing, damage, and bombs in a child of bounded memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import struct
from types import SimpleNamespace

import kafka.codec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.kafka.batches import CODECS, CannotUnpack, TooLong, missing_codecs, unpacked

DATA = bytes(range(256)) * 400
NUMBERS = {name: number for number, name in CODECS.items()}
every_codec = pytest.mark.parametrize("name", NUMBERS)


def packed(name: str, data: bytes) -> bytes:
    return bytes(pa.compress(data, codec=name, asbytes=True))


def xerial(*blocks: bytes) -> bytes:
    """As snappy-java frames them."""
    framed = b"".join(struct.pack(">i", len(block)) + block for block in map(snappy, blocks))
    return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + framed


def snappy(data: bytes) -> bytes:
    return packed("snappy", data)


def test_this_build_of_arrow_has_all_codecs() -> None:
    assert missing_codecs() == []


@every_codec
def test_what_was_packed_comes_out_up_to_the_bound_and_no_further(name: str) -> None:
    assert unpacked(NUMBERS[name], packed(name, DATA), len(DATA)) == DATA
    with pytest.raises(TooLong):
        unpacked(NUMBERS[name], packed(name, DATA), len(DATA) - 1)


@every_codec
def test_nothing_comes_out_of_nothing(name: str) -> None:
    assert unpacked(NUMBERS[name], packed(name, b""), 0) == b""


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd"])
def test_streams_that_follow_each_other_are_one(name: str) -> None:
    data = packed(name, DATA) + packed(name, b"") + packed(name, b"more")
    assert unpacked(NUMBERS[name], data, 1 << 20) == DATA + b"more"


@pytest.mark.parametrize("name", NUMBERS)
@given(st.binary(max_size=3_000))
def test_what_kafka_pythons_producer_packs_is_read(name: str, data: bytes) -> None:
    encode = {"gzip": kafka.codec.gzip_encode, "snappy": kafka.codec.snappy_encode}
    encode |= {"lz4": kafka.codec.lz4_encode, "zstd": kafka.codec.zstd_encode}
    assert unpacked(NUMBERS[name], encode[name](data), 1 << 20) == data


def test_the_blocks_of_xerials_framing_are_one_and_so_are_two_framings() -> None:
    assert unpacked(2, xerial(DATA, b"", b"more"), len(DATA) + 4) == DATA + b"more"
    assert unpacked(2, xerial(DATA) + xerial(b"more"), 1 << 20) == DATA + b"more"
    assert unpacked(2, xerial(), 0) == b""


def test_the_bound_is_over_all_blocks_of_xerials_framing() -> None:
    with pytest.raises(TooLong):
        unpacked(2, xerial(DATA, DATA), 2 * len(DATA) - 1)
    liar = struct.pack(">i", 3) + b"\x14no"  # of 20 bytes, it says
    with pytest.raises(TooLong):
        unpacked(2, xerial(DATA) + liar, len(DATA) + 19)
    with pytest.raises(CannotUnpack):
        unpacked(2, xerial(DATA) + liar, len(DATA) + 20)


@every_codec
def test_a_truncated_stream_is_named_whatever_is_missing(name: str) -> None:
    data = packed(name, DATA)
    for length in {*range(1, 20), len(data) // 2, *range(len(data) - 9, len(data))}:
        with pytest.raises((CannotUnpack, TooLong), match=f"^(bytes that are not {name}: .*|)$"):
            unpacked(NUMBERS[name], data[:length], len(DATA))


@pytest.mark.parametrize("cut", [1, 3, 17, 19, 23])
def test_a_truncated_framing_of_xerial_is_named(cut: int) -> None:
    with pytest.raises(CannotUnpack, match="bytes that are not snappy"):
        unpacked(2, xerial(DATA, b"more")[:-cut], 1 << 20)


@every_codec
def test_what_follows_a_stream_and_is_none_is_named(name: str) -> None:
    with pytest.raises(CannotUnpack, match=f"bytes that are not {name}"):
        unpacked(NUMBERS[name], packed(name, DATA) + b"junk that is no stream", 1 << 20)


@every_codec
@given(st.binary(max_size=200))
def test_any_bytes_come_out_or_are_an_error(name: str, data: bytes) -> None:
    with contextlib.suppress(CannotUnpack, TooLong):
        assert len(unpacked(NUMBERS[name], data, 10_000)) <= 10_000


@pytest.mark.parametrize("number", [5, 6, 7])
def test_a_codec_of_tomorrow_is_named_by_its_number(number: int) -> None:
    with pytest.raises(CannotUnpack, match=f"codec number {number}, which is not one of gzip, snappy, lz4, zstd"):
        unpacked(number, b"", 1)


def test_a_codec_that_arrow_was_built_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = SimpleNamespace(is_available=lambda name: name != "lz4")
    monkeypatch.setattr("adawise.kafka.batches.pa", SimpleNamespace(Codec=codec))
    assert missing_codecs() == ["lz4"]
    with pytest.raises(CannotUnpack, match="codec lz4, which this build of pyarrow lacks"):
        unpacked(3, b"", 1 << 20)


def test_too_little_memory_here_is_no_fault_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc failed")

    data = snappy(DATA)
    monkeypatch.setattr(pa, "decompress", refuse)
    with pytest.raises(MemoryError):
        unpacked(2, data, 1 << 20)


def peak_of(name: str, data: bytes, max_bytes: int) -> int:
    """In a process of its own with little room: how many bytes it took at most to find that it is too long."""
    room = 1 << 30
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (4 * room, 4 * room))
    with pytest.raises(TooLong):
        unpacked(NUMBERS[name], data, max_bytes)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def bomb(name: str) -> bytes:
    """512 MiB of zeros, or for the codec that has no stream a block that says 2 GiB."""
    if name == "snappy":
        return b"\xff\xff\xff\xff\x07" + bytes(100)
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, name) as stream:
        for _ in range(512):
            stream.write(bytes(1 << 20))
    return bytes(out.getvalue().to_pybytes())


@every_codec
@pytest.mark.cases("damage", every=4)
def test_a_bomb_takes_no_more_memory_than_the_bound_allows(name: str) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_of, (name, bomb(name), 8 << 20))
    assert peak < 40 << 20, f"{peak} bytes"
