from __future__ import annotations

import pytest

from adawise.decode.headers import continued, is_traceparent, read_headers

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("text", "names_one"),
    [
        (HEADER, True),
        (f"cc-{TRACE}-{PARENT}-01-what-a-later-version-says", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (HEADER.upper(), False),
        (f"00-{TRACE}-{PARENT}", False),
        ("", False),
    ],
)
def test_what_is_malformed_counts_as_absent(text: str, names_one: bool) -> None:
    assert is_traceparent(text) is names_one


def test_a_trace_is_gone_on_with_by_a_span_that_follows_from_its_name() -> None:
    version, trace, parent, flags = continued(HEADER, "frames/0/1/0@a").split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert parent != PARENT
    assert continued(HEADER, "frames/0/1/0@a") == continued(HEADER, "frames/0/1/0@a")
    assert continued(HEADER, "frames/0/1/0@a") != continued(HEADER, "frames/0/1/0@b")
    assert is_traceparent(continued(HEADER, "frames/0/1/0@a"))


def test_a_header_of_a_later_version_is_continued_in_the_one_that_is_known_and_with_the_flag_that_is() -> None:
    assert continued(f"cc-{TRACE}-{PARENT}-ff-more", "x").endswith("-01")
    assert continued(f"00-{TRACE}-{PARENT}-fe", "x").endswith("-00")


def test_headers_keep_the_trace_apart_from_what_the_producer_says_in_meta() -> None:
    headers = read_headers(
        b"north", [("Traceparent", HEADER.encode()), ("tracestate", b"vendor=1"), ("meta-traceparent", b"mine")]
    )
    assert headers.trace == {"traceparent": HEADER, "tracestate": "vendor=1"}
    assert headers.meta == {"traceparent": "mine"}


@pytest.mark.parametrize("sent", [b"nonsense", b"\xff", b"x" * 2_000, b""])
def test_a_state_without_a_trace_is_dropped(sent: bytes) -> None:
    assert read_headers(b"north", [("traceparent", sent), ("tracestate", b"vendor=1")]).trace == {}
