"""Messages become frames or reasons: each kind of harm, good rows beside bad ones, any bytes, from many threads."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from adawise.decode.arrow_batch import ARROW_STREAM, encode_batch
from adawise.decode.headers import MAX_META
from adawise.decode.message import MAX_DETAIL, PIXEL_ALLOWANCE, Decoder
from adawise.decode.preprocess import Preprocess, ResizeMode
from adawise.decode.statistics import statistics
from adawise.errors import Lost, Reason
from adawise.records import DecodedMessage, Message, RowId
from tests.hostile import KINDS, Headers, Limits, arrow, hostile, picture
from tools.fuzz.extremes import FAMILIES, png

LIMITS = Limits()
DECODE = Decoder(Preprocess(32), LIMITS.max_message_bytes, LIMITS.max_rows, LIMITS.max_pixels)
FITS: tuple[ResizeMode, ...] = ("shortest", "squash", "longest")
RNG = random.Random(0)
JPEG = picture(RNG)


def message(value: bytes | None, key: bytes | None = b"cam-1", headers: Headers = (), offset: int = 5) -> Message:
    return Message("frames", 2, offset, key, value, headers, 1_700_000_000_123)


def decode(value: bytes | None, key: bytes | None = b"cam-1", headers: Headers = ()) -> DecodedMessage:
    return DECODE(message(value, key, headers))


def reasons(decoded: DecodedMessage) -> list[Reason | Lost | None]:
    return [frame.reason for frame in decoded.frames]


def check_contract(decoded: DecodedMessage) -> None:
    """What `DecodedMessage` and `Frame` promise, whatever the message was."""
    sent = decoded.message
    assert {frame.stream_id for frame in decoded.frames if frame.image is not None} <= DECODE.streams(sent)
    assert [frame.row_id.index for frame in decoded.frames] == list(range(len(decoded.frames)))
    assert decoded.frames
    for frame in decoded.frames:
        assert (frame.image is None) != (frame.reason is None)
        assert (frame.detail is None) == (frame.reason is None)
        assert (frame.statistics is None) == (frame.image is None)
        assert frame.row_id == RowId(sent.topic, sent.partition, sent.offset, frame.row_id.index)
        if frame.image is not None:
            assert (frame.image.shape, frame.image.dtype) == ((3, 32, 32), torch.uint8)
            assert frame.stream_id is not None
            assert frame.statistics is not None
            assert frame.statistics.tobytes() == statistics(frame.image.numpy()).tobytes()
        if frame.detail is not None:
            assert frame.detail.isprintable()
            assert 0 < len(frame.detail) <= MAX_DETAIL
    if decoded.dead:
        assert len(decoded.frames) == 1


def test_one_image_becomes_one_frame_with_all_that_its_headers_say() -> None:
    headers: Headers = (
        ("content-type", b"image/jpeg"),
        ("captured-at", b"1970-01-01T00:00:01Z"),
        ("frame-id", b"f-9"),
        ("label", b"car"),
        ("meta-gain", b"2"),
    )
    decoded = decode(JPEG, headers=headers)
    check_contract(decoded)
    (frame,) = decoded.frames
    assert (frame.row_id, frame.kafka_timestamp_ms) == (RowId("frames", 2, 5, 0), 1_700_000_000_123)
    assert (frame.stream_id, frame.frame_id, frame.captured_at_us) == ("cam-1", "f-9", 1_000_000)
    assert (frame.true_label, dict(frame.meta)) == ("car", {"gain": "2"})
    assert (decoded.is_batch, decoded.dead) == (False, False)


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("declared", [None, b"image/jpeg", b"image/png; q=1", b"application/octet-stream"])
def test_the_bytes_say_which_image_format_it_is(codec: str, declared: bytes | None) -> None:
    decoded = decode(picture(RNG, codec), headers=(("content-type", declared),))
    assert reasons(decoded) == [None]


def test_a_batch_becomes_one_frame_per_row() -> None:
    value = encode_batch(
        [JPEG, picture(RNG, "PNG")],
        stream_id="cam-1",
        frame_ids=["a", "b"],
        captured_at_us=[1, 2],
        labels=["car", None],
        meta={"gain": ["1", "2"]},
    )
    for headers in ((), (("content-type", ARROW_STREAM.encode()),)):
        decoded = decode(value, headers=headers)
        check_contract(decoded)
        assert (decoded.is_batch, decoded.dead, reasons(decoded)) == (True, False, [None, None])
        assert [(f.frame_id, f.captured_at_us, f.true_label) for f in decoded.frames] == [
            ("a", 1, "car"),
            ("b", 2, None),
        ]
        assert [dict(f.meta) for f in decoded.frames] == [{"gain": "1"}, {"gain": "2"}]


def test_each_bad_row_is_rejected_alone_with_what_is_known_of_it() -> None:
    good, broken = JPEG, JPEG[:200]
    streams = ["cam-1", "cam-1", "cam-2", None, "cam-1", "cam-1", "cam\n"]
    value = arrow(
        {
            "image": pa.array([good, broken, good, None, good, b"", good], pa.binary()),
            "stream_id": pa.array(streams),
            "captured_at": pa.array([1, 2, 3, 4, -1, 6, 7], pa.timestamp("us", "UTC")),
            "frame_id": pa.array(range(7)),
        }
    )
    decoded = decode(value)
    check_contract(decoded)
    assert reasons(decoded) == [
        None,
        Reason.UNDECODABLE_IMAGE,
        Reason.STREAM_ID_MISMATCH,
        Reason.UNDECODABLE_IMAGE,
        None,
        Reason.EMPTY,
        Reason.BAD_STREAM_ID,
    ]
    assert not decoded.dead
    assert [frame.frame_id for frame in decoded.frames] == [str(i) for i in range(7)]
    assert {frame.stream_id for frame in decoded.frames} == {"cam-1"}, "the key's stream, also of rows that deny it"
    assert decoded.frames[4].captured_at_us is None
    assert "expected a time from 1970 to 2199, got -1 us" in str(decoded.frames[4].note)


def test_a_batch_without_a_key_may_hold_several_streams() -> None:
    value = arrow({"image": pa.array([JPEG] * 3, pa.binary()), "stream_id": pa.array(["a", "b", None])})
    decoded = decode(value, key=None, headers=(("ce_source", b"/site/c"),))
    assert [frame.stream_id for frame in decoded.frames] == ["a", "b", "c"]
    assert reasons(decode(value, key=None)) == [None, None, Reason.MISSING_STREAM_ID]


def test_whose_images_a_message_may_have_is_told_without_decoding_any() -> None:
    named = arrow({"image": [b"no image"] * 3, "stream_id": pa.array(["yard", "gate", None])})
    by_event: Headers = (("ce_source", b"plant/3/roof"),)
    fields = {
        "keyed": DECODE.streams(message(b"no image", b"yard")),
        "by event": DECODE.streams(message(JPEG, None, by_event)),
        "keyed batch": DECODE.streams(message(named, b"hall")),
        "rows": DECODE.streams(message(named, None)),
        "rows and event": DECODE.streams(message(named, None, by_event)),
        "nobody's": DECODE.streams(message(b"no image", None)),
        "bad key": DECODE.streams(message(JPEG, b"\xff")),
        "no Arrow": DECODE.streams(message(named[:100], None)),
        "tombstone": DECODE.streams(message(None, b"yard")),
    }
    assert {what: sorted(streams) for what, streams in fields.items()} == {
        "keyed": ["yard"],
        "by event": ["roof"],
        "keyed batch": ["hall"],
        "rows": ["gate", "yard"],
        "rows and event": ["gate", "roof", "yard"],
        "nobody's": [],
        "bad key": [],
        "no Arrow": [],
        "tombstone": ["yard"],
    }


def test_rows_without_a_time_have_the_headers() -> None:
    times = pa.array([7, None], pa.timestamp("us", "UTC"))
    value = arrow({"image": pa.array([JPEG] * 2, pa.binary()), "captured_at": times})
    good = decode(value, headers=(("captured-at", b"1970-01-01T00:00:01Z"),))
    assert [frame.captured_at_us for frame in good.frames] == [7, 1_000_000]
    bad = decode(value, headers=(("captured-at", b"noon"),))
    assert reasons(bad) == [None, None]
    assert [frame.captured_at_us for frame in bad.frames] == [7, None]


@pytest.mark.parametrize("name", ["captured-at", "ce_time"])
@pytest.mark.parametrize("text", [b"yesterday", b"2026-13-01T00:00:00Z", b"1969-12-31T23:59:59Z", b"\xff\n", b"0"])
def test_a_time_that_is_none_costs_the_time_and_not_the_picture(name: str, text: bytes) -> None:
    decoded = decode(JPEG, headers=((name, text),))
    check_contract(decoded)
    (frame,) = decoded.frames
    assert (frame.reason, frame.captured_at_us) == (None, None)
    assert str(frame.note).startswith("captured-at: it is taken for not stated: ")
    assert str(frame.note).isprintable()


def test_label_and_meta_headers_are_for_rows_without_their_own() -> None:
    columns = {"image": pa.array([JPEG] * 3, pa.binary()), "label": pa.array(["car", None, "bus"])}
    columns["meta_site"] = pa.array(["north", None, "south"])
    headers = (("label", b"lorry"), ("meta-site", b"gate"), ("meta-lane", b"2"), ("frame-id", b"f-1"))
    frames = decode(arrow(columns), headers=headers).frames
    assert [frame.true_label for frame in frames] == ["car", "lorry", "bus"]
    assert [dict(frame.meta) for frame in frames] == [
        {"site": site, "lane": "2"} for site in ("north", "gate", "south")
    ]
    assert {frame.frame_id for frame in frames} == {None}, "one id is not of three images"
    many = {"image": pa.array([JPEG], pa.binary())} | {f"meta_{n}": pa.array([n]) for n in range(MAX_META - 1)}
    (frame,) = decode(arrow(many), headers=headers).frames
    assert len(frame.meta) == MAX_META


def test_a_header_with_an_underscore_is_told_whatever_becomes_of_the_message() -> None:
    for header, meant in (("stream_id", "stream-id"), ("Captured_At", "captured-at"), ("meta_site", "meta-site")):
        (frame,) = decode(JPEG, headers=((header, b"x"),)).frames
        assert (frame.reason, frame.note) == (None, f"header {header.lower()!r}: it is not read, call it {meant!r}")
    (frame,) = decode(JPEG, key=None, headers=(("stream_id", b"cam-1"),)).frames
    assert (frame.reason, str(frame.note)[:18]) == (Reason.MISSING_STREAM_ID, "header 'stream_id'")
    assert decode(JPEG, headers=(("ce_time", b"1970-01-01T00:00:01Z"), ("ce_id", b"7"))).frames[0].note is None


@pytest.mark.parametrize("value", [JPEG, b"nothing", arrow({"image": pa.array([JPEG], pa.binary())}), b""])
def test_a_rejected_row_keeps_the_stream_of_its_key_and_what_else_is_known(value: bytes) -> None:
    headers = (("stream-id", b"cam-2"), ("frame-id", b"f-1"), ("label", b"car"))
    (frame,) = decode(value, headers=headers).frames
    assert frame.reason is not None
    assert (frame.stream_id, frame.frame_id, frame.true_label) == ("cam-1", "f-1", "car")
    (frame,) = decode(value, key=b"\xff", headers=(("ce_subject", b"cam-3"),)).frames
    assert frame.stream_id == "cam-3"


def test_a_tombstone_is_one_rejected_frame_of_its_stream_and_not_dead() -> None:
    decoded = decode(None)
    check_contract(decoded)
    assert (reasons(decoded), decoded.dead, decoded.frames[0].stream_id) == ([Reason.TOMBSTONE], False, "cam-1")
    assert decode(None, key=b"\xff").frames[0].stream_id is None
    assert decode(None, headers=(("frame-id", b"f-9"),)).frames[0].frame_id == "f-9"


@pytest.mark.parametrize("codec", ["ICO", "TGA", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("declared", [None, b"image/jpeg", b"application/octet-stream"])
def test_a_format_that_is_not_read_is_named_and_not_taken_for_a_serializers_frame(
    codec: str, declared: bytes | None
) -> None:
    (frame,) = decode(picture(RNG, codec), headers=(("content-type", declared),)).frames
    assert frame.reason == Reason.UNSUPPORTED_FORMAT
    assert f"got {codec.replace('JPEG2000', 'JPEG 2000')}" in str(frame.detail)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: str(make(random.Random(1), LIMITS).kind))
def test_each_kind_of_harm_has_its_reason(make: Callable[[random.Random, Limits], Any]) -> None:
    for seed in range(5):
        harm = make(random.Random(seed), LIMITS)
        decoded = decode(harm.value, harm.key, harm.headers)
        check_contract(decoded)
        assert (reasons(decoded), decoded.dead) == ([harm.reason], harm.dead), decoded.frames[0].detail


def test_the_generator_of_harm_knows_every_reason() -> None:
    counted = Counter(harm.reason for harm in hostile(0, len(KINDS), LIMITS))
    never = {Reason.KILLS_DECODER, Reason.BAD_TIMESTAMP}  # a bad time costs a label, and an image its time alone
    assert set(counted) == set(Reason) - never, "a reason needs a kind of harm in tests/hostile.py"
    assert [h.value for h in hostile(7, 60)] == [h.value for h in hostile(7, 60)]


def test_messages_of_exactly_the_limits_are_read() -> None:
    rows = encode_batch([JPEG] * LIMITS.max_rows)
    exactly = Decoder(Preprocess(32), len(rows), LIMITS.max_rows, 40 * 30)
    assert set(reasons(exactly(message(rows)))) == {None}
    assert reasons(exactly(message(rows + b"\0"))) == [Reason.TOO_LARGE]


def test_the_pixels_of_all_images_of_a_message_are_capped_together() -> None:
    decoder = Decoder(Preprocess(32), 10**6, PIXEL_ALLOWANCE + 2, 40 * 30)
    decoded = decoder(message(encode_batch([JPEG] * (PIXEL_ALLOWANCE + 2))))
    assert reasons(decoded) == [None] * PIXEL_ALLOWANCE + [Reason.TOO_MANY_PIXELS] * 2


def test_what_a_stranger_wrote_is_escaped_in_the_detail() -> None:
    decoded = decode(JPEG, headers=(("content-type", b"image/\x1b[31m\nforged log line" + b"x" * 900),))
    check_contract(decoded)
    assert "\\x1b" in str(decoded.frames[0].detail)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), struct.error("x"), OverflowError(), RecursionError(), zlib.error(), EOFError(), SyntaxError("x")],
    ids=repr,
)
def test_whatever_is_raised_while_pixels_are_made_rejects_that_row_alone(error: Exception) -> None:
    fails = iter([False, True, False])

    def preprocess(image: Image.Image) -> torch.Tensor:
        if next(fails):
            raise error
        return Preprocess(32)(image)

    decoded = Decoder(preprocess, 10**6, 8, 10**6)(message(encode_batch([JPEG] * 3)))
    check_contract(decoded)
    assert reasons(decoded) == [None, Reason.UNDECODABLE_IMAGE, None]
    if isinstance(error, MemoryError):
        assert "lower decode.max_pixels" in str(decoded.frames[1].detail)


def test_who_asks_for_no_pixels_is_told_no_statistics() -> None:
    (frame,) = Decoder(lambda _: torch.empty(0, dtype=torch.uint8), 10**6, 8, 10**6)(message(JPEG)).frames
    assert (frame.reason, frame.statistics) == (None, None)


def test_an_interrupt_while_pixels_are_made_passes() -> None:
    def interrupted(image: Image.Image) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Decoder(interrupted, 10**6, 8, 10**6)(message(JPEG))


def test_a_png_that_made_pillow_run_out_of_memory_is_rejected() -> None:
    """33,600,000 x 1 pixels of 16 bits and four bands: the bits of a row overflow 32."""
    value = png(33_600_000, 1, depth=16, colours=6, data=bytes(5_000))
    for fit in FITS:
        (frame,) = Decoder(Preprocess(32, fit), 10**6, 8, 34_000_000)(message(value)).frames
        assert frame.reason == Reason.TOO_MANY_PIXELS


def test_images_that_turn_out_to_be_broken_are_paid_for() -> None:
    """Or a batch of them would be decoded without end."""
    decoded_pixels = 0

    def broken(image: Image.Image) -> torch.Tensor:
        nonlocal decoded_pixels
        decoded_pixels += image.width * image.height
        raise OSError("image file is truncated")

    rows = PIXEL_ALLOWANCE + 2
    decoded = Decoder(broken, 10**6, rows, 40 * 30)(message(encode_batch([JPEG] * rows)))
    assert reasons(decoded) == [Reason.UNDECODABLE_IMAGE] * PIXEL_ALLOWANCE + [Reason.TOO_MANY_PIXELS] * 2
    assert decoded_pixels == PIXEL_ALLOWANCE * 40 * 30


def test_a_message_may_ask_for_what_its_bytes_allow_and_the_rows_beyond_are_rejected() -> None:
    """Lossless WebP of one colour: 34 bytes each, whatever the size."""
    flat = FAMILIES["WebP lossless"](640, 480)
    decoder = Decoder(Preprocess(32), 10**6, 64, 34_000_000)
    decoded = decoder(message(encode_batch([flat] * 40)))
    check_contract(decoded)
    accepted = [row for row, reason in enumerate(reasons(decoded)) if reason is None]
    assert accepted == list(range(len(accepted)))
    assert 5 < len(accepted) < 20
    assert set(reasons(decoded)) == {None, Reason.TOO_FEW_BYTES}
    assert "send smaller pictures" in str(decoded.frames[-1].detail)
    assert reasons(decoder(message(FAMILIES["WebP lossless"](5_800, 5_800)))) == [Reason.TOO_FEW_BYTES]
    assert reasons(decoder(message(FAMILIES["WebP lossless"](1_920, 1_080)))) == [None]


@example(b"\xff\xd8\xff", None, [("content-type", ARROW_STREAM.encode())])
@example(b"\x89PNG\r\n\x1a\n", b"\xff", [("content-type", b"\xff"), ("stream-id", b"\xff"), ("captured-at", b"\xff")])
@example(b"BM", b"", [("content-type", b"image/jpeg"), ("label", None), ("meta-x", b"\x00"), ("", b"")])
@example(b"", None, [("content-type", None), ("ce_time", b"9" * 30), ("captured-at", b"-9" * 15)])
@given(
    st.binary(max_size=200) | st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"\xff" * 4]),
    st.none() | st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(["content-type", "stream-id", "captured-at", "ce_time", "label", "meta-x"]) | st.text(),
            st.none() | st.binary(max_size=30) | st.sampled_from([b"image/jpeg", ARROW_STREAM.encode()]),
        ),
        max_size=5,
    ),
)
def test_any_message_at_all_gives_frames(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    check_contract(decode(value, key, tuple(headers)))


def test_threads_share_a_decoder() -> None:
    sent = [message(h.value, h.key, h.headers, offset) for offset, h in enumerate(hostile(3, 3 * len(KINDS)))]
    sent += [message(picture(random.Random(i)), offset=len(sent) + i) for i in range(100)]
    one_by_one = [DECODE(each) for each in sent]
    with ThreadPoolExecutor(4) as pool:
        for alone, shared in zip(one_by_one, pool.map(DECODE, sent), strict=True):
            assert reasons(alone) == reasons(shared)
            for a, b in zip(alone.frames, shared.frames, strict=True):
                assert (a.image is None and b.image is None) or torch.equal(a.image, b.image)  # type: ignore[arg-type]


def test_what_is_accepted_or_refused_and_why_is_as_by_pillow_alone() -> None:
    """Whatever torch and libjpeg-turbo might take."""

    def by_pillow(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(Preprocess(32)._by_pillow(image)).permute(2, 0, 1)

    alone = replace(DECODE, preprocess=by_pillow)
    sent = [message(h.value, h.key, h.headers) for h in hostile(11, 4 * len(KINDS))]
    rng = random.Random(11)
    good = [
        picture(rng, "JPEG", mode, size) for mode in ("RGB", "L", "CMYK") for size in ((40, 30), (90, 20), (1, 200))
    ]
    sent += [message(data[: len(data) - cut], b"cam") for data in good for cut in (0, 1, 2, 9)]
    for each in sent:
        ours, theirs = DECODE(each), alone(each)
        assert [(f.reason, f.detail) for f in ours.frames] == [(f.reason, f.detail) for f in theirs.frames]
        assert (ours.dead, ours.is_batch) == (theirs.dead, theirs.is_batch)
