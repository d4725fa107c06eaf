"""Which way up a picture is: as Pillow says for honest files, and nothing at all for the others, at once."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from adawise.decode.pieces import MAX_ENTRIES, MAX_PIECES, UPRIGHT, count_scans, orientation_of, upright
from tests.hostile import png_chunk

CODECS = ("JPEG", "PNG", "WEBP")
TAG = 0x0112
PICTURE = Image.linear_gradient("L").resize((24, 16)).convert("RGB")


def saved(codec: str, exif: Image.Exif | bytes | None = None, picture: Image.Image = PICTURE) -> bytes:
    out = io.BytesIO()
    picture.save(out, codec, **({"lossless": True} if codec == "WEBP" else {}), **({"exif": exif} if exif else {}))
    return out.getvalue()


def directory(*entries: tuple[int, int, int, int], order: str = "<", place: int = 8, count: int | None = None) -> bytes:
    """EXIF's TIFF: (tag, type, count, value) each."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place)
    body = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    return head + struct.pack(f"{order}H", len(entries) if count is None else count) + body + bytes(4)


def in_jpeg(*blocks: bytes) -> bytes:
    bare = saved("JPEG")
    segments = (b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block for block in blocks)
    return bare[:2] + b"".join(segments) + bare[2:]


def in_png(*blocks: bytes) -> bytes:
    bare = saved("PNG")
    return bare[:33] + b"".join(png_chunk(b"eXIf", block) for block in blocks) + bare[33:]


def in_webp(*blocks: bytes) -> bytes:
    inside = b"".join(b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2) for block in blocks)
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in PICTURE.size)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + canvas + saved("WEBP")[12:] + inside
    return b"RIFF" + struct.pack("<I", len(body)) + body


PLACES = (in_jpeg, in_png, in_webp)
turned = pytest.mark.parametrize("orientation", range(1, 9))
anywhere = pytest.mark.parametrize("place", PLACES)


@turned
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_are_read_and_turned_as_pillow_does(codec: str, orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[TAG], exif[0x010F], exif[0x0132] = orientation, "a maker of cameras", "2026:11:26 00:00:00"
    data = saved(codec, exif.tobytes())
    assert orientation_of(data) == orientation
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[TAG] == orientation
        theirs = ImageOps.exif_transpose(image)
        ours = upright(image, orientation)
    assert (ours.size, ours.tobytes()) == (theirs.size, theirs.tobytes())


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA", "CMYK", "1"])
@turned
def test_every_mode_is_turned(mode: str, orientation: int) -> None:
    picture = Image.new("I;16", (5, 3), 700) if mode == "I;16" else PICTURE.convert(mode)
    picture.getexif()[TAG] = orientation
    theirs = ImageOps.exif_transpose(picture)
    ours = upright(picture, orientation)
    assert (ours.mode, ours.size, ours.tobytes()) == (theirs.mode, theirs.size, theirs.tobytes())


@pytest.mark.parametrize("codec", [*CODECS, "BMP"])
def test_a_picture_without_exif_is_upright_and_stays_itself(codec: str) -> None:
    assert orientation_of(saved(codec)) == UPRIGHT
    assert upright(PICTURE, UPRIGHT) is PICTURE


@anywhere
@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_made_by_hand_are_read_by_us_and_by_pillow(place: Callable[..., bytes], order: str) -> None:
    data = place(directory((0x010E, 2, 4, 0), (TAG, 3, 1, 6), order=order))
    assert orientation_of(data) == 6
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[TAG] == 6


@anywhere
def test_of_several_blocks_the_first_counts(place: Callable[..., bytes]) -> None:
    assert orientation_of(place(directory((TAG, 3, 1, 6)), directory((TAG, 3, 1, 3)))) == 6


@anywhere
@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"II*\0\x08\0\0",
        b"XX*\0\x08\0\0\0",
        directory(),
        directory((TAG, 3, 1, 0)),
        directory((TAG, 3, 1, 9)),
        directory((TAG, 3, 2, 6)),
        directory((TAG, 2, 1, 6)),
        directory((TAG, 3, 1, 6), place=9),
        directory((TAG, 3, 1, 6), place=2**32 - 1),
        directory((0x0100, 3, 1, 6), count=65_535),
        directory((TAG, 3, 1, 6))[:19],
        directory(*((0x0100, 3, 1, 6) for _ in range(MAX_ENTRIES)), (TAG, 3, 1, 6)),
    ],
)
def test_a_block_that_is_not_as_it_should_be_says_nothing(place: Callable[..., bytes], block: bytes) -> None:
    assert orientation_of(place(block)) == UPRIGHT


def test_a_webp_that_does_not_announce_exif_has_none() -> None:
    data = bytearray(in_webp(directory((TAG, 3, 1, 6))))
    data[20] = 0
    assert orientation_of(bytes(data)) == UPRIGHT
    with Image.open(io.BytesIO(data)) as image:
        assert TAG not in image.getexif()


def test_metadata_of_another_kind_in_the_same_segment_is_passed_over() -> None:
    data = in_jpeg(directory((TAG, 3, 1, 8)))
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b'<x tiff:Orientation="3"/>'
    assert orientation_of(data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:]) == 8


@given(
    st.sampled_from([saved(codec, directory((TAG, 3, 1, 6))) for codec in CODECS]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    st.floats(0, 1),
)
def test_whatever_the_bytes_are_it_says_one_to_eight(data: bytes, changes: list[tuple[float, int]], cut: float) -> None:
    changed = bytearray(data)
    for where, value in changes:
        changed[int(where * (len(data) - 1))] = value
    assert 1 <= orientation_of(bytes(changed[: int(cut * len(data)) + 1])) <= 8


@given(st.sampled_from(PLACES), st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
@example(in_jpeg, b"\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00", b"II*\0\x08\0\0\0")
def test_any_block_says_one_to_eight(place: Callable[..., bytes], block: bytes, head: bytes) -> None:
    assert 1 <= orientation_of(place(head + block)) <= 8


@given(
    st.binary(max_size=300), st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x08"])
)
def test_any_bytes_behind_a_magic_say_one_to_eight(rest: bytes, magic: bytes) -> None:
    assert 1 <= orientation_of(magic + rest) <= 8


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xfe\0\0" * 2_000_000,  # segments without an end
        b"\xff\xd8" + b"\xff" * 8_000_000,
        b"\xff\xd8" + b"\xff\x01" * 4_000_000,
        b"\x89PNG\r\n\x1a\n" + bytes(8_000_000),
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x08" + bytes(8_000_000),
        in_png(directory(*((0x0100, 3, 1, 6) for _ in range(60_000)))),
    ],
)
def test_eight_megabytes_of_spite_cost_no_more_than_so_many_pieces_do(data: bytes) -> None:
    """A few lines of ours for each piece, and no copy of what is behind it."""
    lines = 0

    def traced(_frame: object, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return traced

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(traced)
    try:
        assert orientation_of(data) == UPRIGHT
        _, most = tracemalloc.get_traced_memory()
    finally:
        sys.settrace(before)
        tracemalloc.stop()
    assert 0 < lines <= 20 * MAX_PIECES
    assert most < 1_000_000


@given(st.lists(st.sampled_from([b"\xff", b"\xda", b"\xff\xda", b"\0"]), min_size=1).map(b"".join))
def test_scans_are_counted_by_their_markers(data: bytes) -> None:
    assert count_scans(data) == data.count(b"\xff\xda")
