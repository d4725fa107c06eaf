"""Key and headers: which stream, when, what type; and what happens when they cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.decode.headers import (
    Headers,
    NamedStream,
    check_stream_id,
    check_timestamp,
    parse_timestamp,
    read_headers,
    read_stream,
)
from adawise.errors import InvalidMessage, Reason
from adawise.records import stated_ms

DAY_US = 86_400_000_000


def headers_of(key: bytes | None = None, **headers: bytes | None) -> Headers:
    return read_headers(key, [(name.replace("_", "-"), value) for name, value in headers.items()])


def cloud_event(**attributes: bytes) -> Headers:
    return read_headers(None, [(f"ce_{name}", value) for name, value in attributes.items()])


def reason_of(call: object, *arguments: object) -> Reason:
    assert callable(call)
    with pytest.raises(InvalidMessage) as caught:
        call(*arguments)
    return caught.value.reason


def test_the_key_is_the_stream_and_the_header_stands_in_for_it() -> None:
    assert headers_of(b"cam-7").stream == NamedStream(b"cam-7", "cam-7")
    assert headers_of(None, stream_id=b"cam-8").stream == NamedStream(b"cam-8", "cam-8")
    assert headers_of(b"", stream_id=b"cam-8").stream == NamedStream(b"cam-8", "cam-8")
    assert headers_of(b"cam-7", stream_id=b"cam-7").stream.refused is None
    assert headers_of().stream == NamedStream()
    assert headers_of("Einfahrt Süd, Tor 3".encode()).stream.stream_id == "Einfahrt Süd, Tor 3"


def test_key_and_header_have_to_agree_and_the_key_is_told_all_the_same() -> None:
    for header in (b"cam-8", b"\xff"):
        stream = headers_of(b"cam-7", stream_id=header).stream
        assert reason_of(stream.check) == Reason.STREAM_ID_MISMATCH
        assert stream.stream_id == "cam-7"


def test_an_empty_header_is_none() -> None:
    headers = read_headers(None, [("stream-id", b"cam-8"), ("Stream-Id", b""), ("label", None)])
    assert (headers.stream, headers.label) == (NamedStream(b"cam-8", "cam-8"), None)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xfe", b"\xc3", b"cam\n7", b"cam\x00", b" cam", b"cam ", b"\xe2\x80\xaecam", b"c" * 250],
)
def test_a_stream_id_that_outputs_cannot_hold_is_bad(raw: bytes) -> None:
    assert reason_of(check_stream_id, raw) == Reason.BAD_STREAM_ID


def test_the_longest_stream_id_is_249_bytes() -> None:
    assert check_stream_id(b"c" * 249) == "c" * 249
    assert check_stream_id("ü".encode() * 124) == "ü" * 124
    assert reason_of(check_stream_id, "ü".encode() * 125) == Reason.BAD_STREAM_ID


def test_cloud_events_name_the_stream_by_subject_or_the_end_of_the_source() -> None:
    assert cloud_event(subject=b"cam-1", source=b"/site/cam-2").stream == NamedStream(None, "cam-1")
    assert cloud_event(source=b"/site/a/cam-2/").stream == NamedStream(None, "cam-2")
    assert cloud_event(source=b"urn:camera:3").stream == NamedStream(None, "urn:camera:3")
    assert cloud_event(source=b"//") == Headers()
    assert reason_of(cloud_event(subject=b"\xff").stream.check) == Reason.BAD_STREAM_ID


def test_a_bad_key_is_refused_and_the_attributes_tell_whose_it_may_be() -> None:
    stream = read_stream(b"\xff", [("ce_subject", b"cam-3")])
    assert (stream.stated, stream.stream_id) == (b"\xff", "cam-3")
    assert reason_of(stream.check) == Reason.BAD_STREAM_ID


def test_cloud_events_give_time_id_and_type_where_no_header_does() -> None:
    event = cloud_event(time=b"1970-01-02T00:00:00Z", id=b"f-1", datacontenttype=b"image/png")
    assert (event.captured_at_us, event.frame_id, event.content_type) == (DAY_US, "f-1", "image/png")
    headers = [("ce_id", b"f-1"), ("frame-id", b"f-2"), ("ce_time", b"1970-01-02T00:00:00Z")]
    both = read_headers(None, [*headers, ("captured-at", b"1970-01-03T00:00:00Z")])
    assert (both.captured_at_us, both.frame_id) == (2 * DAY_US, "f-2")


def test_the_content_type_is_read_as_media_types_are() -> None:
    def read(*values: bytes) -> str | None:
        return read_headers(None, [("Content-Type", value) for value in values]).content_type

    assert read(b"Image/JPEG; q=1") == "image/jpeg"
    assert read(b"application/octet-stream") is None
    assert read(b"\xff") is None
    assert read(b"") is None
    assert read(b"a/b", b"image/png") == "image/png"


def test_headers_that_cannot_be_read_are_as_if_absent() -> None:
    broken = headers_of(label=b"\xff", frame_id=b"x" * 2_000, meta_a=b"\xff", meta_b=b"1", meta_c=None)
    assert broken == Headers(meta={"b": "1"})


def test_meta_is_capped_in_number_and_length() -> None:
    many = read_headers(None, [(f"meta-{i}", b"v") for i in range(100)] + [("meta-" + "n" * 100, b"v")])
    assert len(many.meta) == 32
    assert not read_headers(None, [("meta-" + "n" * 100, b"v")]).meta


def test_a_time_that_is_none_and_a_misspelt_name_are_noted() -> None:
    assert str(headers_of(captured_at=b"noon").note).startswith(
        "captured-at: it is taken for not stated: expected RFC 3339"
    )
    both = read_headers(None, [("captured-at", b"noon"), ("Frame_Id", b"1")])
    assert both.note == "header 'frame_id': it is not read, call it 'frame-id'"


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-02t00:00:00.000001z", DAY_US + 1),
        ("1970-01-02 01:00:00+01:00", DAY_US),
        ("1969-12-31T23:00:00-01:30", 1_800_000_000),
        ("1970-01-01T00:00:00.1234567890Z", 123_456),
        ("1972-06-30T23:59:60Z", 78_796_800_000_000),
        ("2199-12-31T23:59:59.999999Z", 7_258_118_399_999_999),
    ],
)
def test_rfc_3339_becomes_microseconds(text: str, microseconds: int) -> None:
    assert parse_timestamp(text.encode()) == microseconds


@pytest.mark.parametrize(
    ("found", "believed"),
    [(None, -1), (-1, -1), (-(2**63), -1), (2**63 - 1, -1), (7_258_118_400_000, -1)]
    + [(at, at) for at in (0, 1_700_000_000_000, 7_258_118_399_999)],
)
def test_a_broker_s_timestamp_is_believed_from_1970_to_2199(found: int | None, believed: int) -> None:
    assert stated_ms(found) == believed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1700000000",
        "2026-05-01",
        "2026-05-01T12:00:00",
        "2026-05-01T12:00Z",
        "2026-02-30T00:00:00Z",
        "2026-05-01T24:00:00Z",
        "2026-05-01T12:00:61Z",
        "2026-W18-5T12:00:00Z",
        "2026-05-01T12:00:00+25:00",
        "٢٠٢٦-05-01T12:00:00Z",
        "1969-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60-23:59",
        "2026-05-01T12:00:00Z" + "0" * 100,
    ],
)
def test_other_texts_are_no_time(text: str) -> None:
    assert reason_of(parse_timestamp, text.encode()) == Reason.BAD_TIMESTAMP


@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=st.timezones()))
def test_what_python_writes_is_read_back(moment: datetime) -> None:
    if moment.utcoffset() is None or moment.utcoffset() % timedelta(minutes=1):  # type: ignore[operator]
        return  # RFC 3339 has no seconds in offsets
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_timestamp(moment.isoformat().encode()) == expected


@given(st.binary(max_size=80))
def test_any_bytes_are_a_time_or_a_reason(raw: bytes) -> None:
    try:
        assert check_timestamp(parse_timestamp(raw)) >= 0
    except InvalidMessage as invalid:
        assert (invalid.reason, invalid.detail.isascii()) == (Reason.BAD_TIMESTAMP, True)  # noqa: PT017 (either is right)
