"""What is shown of an address, and what FFmpeg may open on its way."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.produce.address import NETWORK, address_of, is_live, is_video, masked, opening, with_credentials

SECRET = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=12).map(
    "Geheim{}heimlich".format
)


@given(SECRET, st.sampled_from([*NETWORK, "RTSP", "mms"]), st.sampled_from(["", "viewer"]))
def test_no_password_and_no_query_is_shown_whatever_signs_it_has(secret: str, scheme: str, user: str) -> None:
    for url in (
        f"{scheme}://{user}:{secret}@camera:554/live/street",
        f"{scheme}://{secret.replace(':', '')}@camera/street",  # a token in place of a name
        f"{scheme}://camera/street?token={secret}&user=me@home",
        f"{scheme}://{user}:{secret}@camera/street?token={secret}#{secret}",
    ):
        address = address_of(url)
        fields = f"[tcp] Failed to resolve {url.partition('://')[2].partition('/')[0]}: {url}, {unquote(url)}"
        for text in (masked(url), address.name, address.hide(fields)):
            assert "Geheim" not in text
            assert "heimlich" not in text


@pytest.mark.parametrize(
    ("source", "shown", "name"),
    [
        ("rtsp://viewer:pa/ss@wo:rd@camera:554/live/street", "rtsp://viewer:***@camera:554/live/street", "street"),
        ("rtsp://t0ken@camera/street", "rtsp://***@camera/street", "street"),
        ("https://camera/street.m3u8?token=abc", "https://camera/street.m3u8?***", "street.m3u8"),
        ("rtsp://viewer:pa?ss@camera/street", "rtsp://***", ""),
        ("rtsp://camera:554", "rtsp://camera:554", ""),
        ("rtsp://[fe80::1/street", "rtsp://[fe80::1/street", "street"),
        ("videos/yard@noon#2?.mkv", "videos/yard@noon#2?.mkv", "yard@noon#2?.mkv"),
        ("/dev/video0", "/dev/video0", "video0"),
    ],
)
def test_what_is_shown_of_a_source(source: str, shown: str, name: str) -> None:
    assert (masked(source), address_of(source).name) == (shown, name)


@pytest.mark.parametrize(
    ("source", "live", "video"),
    [
        ("RTSP://camera/1", True, True),
        ("http://[camera/1", True, True),
        ("rtsp://camera/1", True, True),
        ("/dev/video0", True, True),
        ("https://example.org/street.m3u8", True, True),
        ("street.MP4", False, True),
        ("images", False, False),
        ("list.csv", False, False),
    ],
)
def test_the_form_says_what_a_source_is(source: str, live: bool, video: bool) -> None:
    assert (is_live(source), is_video(source)) == (live, video)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_credentials_of_whatever_letters_are_in_the_url_and_are_not_shown(user: str, password: str) -> None:
    url = with_credentials("rtsp://camera:554/live", user, password)
    named, _, host = url.removeprefix("rtsp://").partition("@")
    assert host == "camera:554/live"
    assert [unquote(part) for part in named.split(":")] == [user, password]
    assert f":{password}@" not in masked(url)


@pytest.mark.parametrize(
    ("source", "name", "form", "protocols"),
    [
        ("street.mp4", "file:street.mp4", None, "file"),
        ("concat:a|b.mp4", "file:concat:a|b.mp4", None, "file"),
        ("/dev/video0", "/dev/video0", "video4linux2", "file"),
        ("rtsp://camera/1", "rtsp://camera/1", None, "rtsp,rtp,srtp,udp,tcp"),
        ("https://camera/1", "https://camera/1", None, "http,https,httpproxy,tls,tcp,crypto,data"),
    ],
)
def test_what_may_be_opened_on_the_way_is_listed(source: str, name: str, form: str | None, protocols: str) -> None:
    found = opening(source, "udp")
    assert (found.name, found.format, found.options["protocol_whitelist"]) == (name, form, protocols)
    if source.startswith("rtsp"):
        assert found.options["rtsp_transport"] == "udp"


def test_a_short_password_is_hidden_before_its_host() -> None:
    assert (
        address_of("http://u:p1@h:1/x").hide("no answer from http://u:p1@h:1/x") == "no answer from http://u:***@h:1/x"
    )
