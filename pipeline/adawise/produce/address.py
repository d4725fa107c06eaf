"""The address of a camera's stream: what of it may be shown, and what FFmpeg may open on its way. Pure.

What may be opened is listed. Otherwise a stream that contains a playlist (HLS, concat), or a server that redirects,
could make FFmpeg read files, or send requests to hosts that only we can reach.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

Transport = Literal["tcp", "udp"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".flv", ".gif")

_RTSP = "rtsp,rtp,srtp,udp,tcp"
_HTTP = "http,https,httpproxy,tls,tcp,crypto,data"
NETWORK: Mapping[str, str] = {  # scheme -> the protocols that it needs; never a file
    **{"rtsp": _RTSP, "rtsps": f"{_RTSP},tls", "rtmp": "rtmp,tcp", "http": _HTTP, "https": _HTTP},
    **{"udp": "udp", "tcp": "tcp", "srt": "srt"},
}
_CONTAINERS = (  # no playlists
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,mjpeg,mpjpeg,jpeg_pipe,flv,live_flv,gif,h264,hevc,ogg,asf,ivf"
)
_PLAYLISTS = "hls,aac,ac3,mp3,webvtt"
_DEVICE = "/dev/video"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_SECRET_CHARACTERS = 3  # shorter parts of a secret occur in every text


@dataclass(frozen=True, slots=True)
class Opening:
    """The arguments for FFmpeg: the name to open, the format unless it is to be detected, and options."""

    name: str
    format: str | None
    options: Mapping[str, str]


def opening(source: str, transport: Transport = "tcp") -> Opening:
    """Return how to open a path, a device or a URL."""
    scheme = scheme_of(source)
    allowed = {"protocol_whitelist": NETWORK.get(scheme, "file")}
    if is_live(source):  # otherwise a second of frames first arrives in a burst, to measure the rate
        allowed["fpsprobesize"] = "0"
    if source.startswith(_DEVICE):
        return Opening(source, "video4linux2", allowed)
    if scheme in ("rtsp", "rtsps"):  # over UDP a full network loses packets, and frames come out torn
        return Opening(source, None, {**allowed, "rtsp_transport": transport})
    if scheme in ("http", "https"):  # `redirects` follows them instead
        allowed["max_redirects"] = "0"
    # A name like `concat:a|b.mp4` would be taken for a protocol.
    name = source if scheme in NETWORK or scheme == "file" else f"file:{source}"
    return Opening(name, None, {**allowed, "format_whitelist": _CONTAINERS})


def opening_playlist(url: str, form: str) -> Opening:
    """Return how to open a playlist of an HTTP server: all that it names is fetched through `redirects`."""
    options = {"protocol_whitelist": NETWORK["https"], "format_whitelist": f"{_CONTAINERS},{_PLAYLISTS}"}
    return Opening(url, form, {**options, "fpsprobesize": "0", "http_persistent": "0", "http_multiple": "0"})


def scheme_of(source: str) -> str:
    """Return the scheme in lower case; "" for a path."""
    match = _URL.match(source)
    return match[1].lower() if match else ""


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A URL as FFmpeg splits it.

    Attributes:
        scheme: in lower case.
        user: the user with its password, or "".
        host: in lower case.
        place: the rest, beginning with the host and its port.
    """

    scheme: str
    user: str
    host: str
    place: str

    @property
    def clean(self) -> str:
        """The URL without its user."""
        return f"{self.scheme}://{self.place}"

    def with_user(self, user: str) -> str:
        """Return the URL with this user in place of its own."""
        return f"{self.scheme}://{user}{'@' if user else ''}{self.place}"


def parts_of(url: str) -> UrlParts:
    """Split by the rules of FFmpeg, which connects: the user ends at the last @ before the first /, ? or #."""
    match = _URL.match(url)
    rest = url[match.end() :] if match and match[2] else ""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, place = authority.rpartition("@")
    host = place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
    return UrlParts(scheme_of(url), user, host.lower(), f"{place}{rest[len(authority) :]}")


_ENCRYPTED = ("rtsps", "https")


def may_lead(source: str, target: str, hosts: Collection[str]) -> bool:
    """Return True if a camera may redirect there: to its own host or one of `hosts`, and not out of encryption."""
    here, there = parts_of(source), parts_of(target)
    is_kind = there.scheme.removesuffix("s") == here.scheme.removesuffix("s")
    is_encrypted = here.scheme not in _ENCRYPTED or there.scheme in _ENCRYPTED
    return is_kind and is_encrypted and (there.host in hosts or (there.host == here.host != ""))


def is_live(source: str) -> bool:
    """Return True if frames come at their own pace: a network stream or a capture device (Linux)."""
    return scheme_of(source) in NETWORK or source.startswith(_DEVICE)


def is_video(source: str) -> bool:
    """Return True if it is a video or a stream, by its form."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def with_credentials(url: str, username: str, password: str) -> str:
    """Return the URL with a user's name and password in it, whatever characters they have."""
    match = _URL.match(url)
    assert match is not None, url
    return f"{match[0]}{quote(username, safe='')}:{quote(password, safe='')}@{url[match.end() :]}"


def masked(source: str) -> str:
    """Return the source as messages and logs may show it: a URL without its password and query."""
    return address_of(source).shown


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a source. `shown` and `name`, of the file or the path's last part, hold nothing secret."""

    shown: str
    name: str
    secrets: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """Return another program's text about the source, without the secrets and any parts of them."""
        for secret in filter(None, self.secrets):  # a short one as well, where it can be nothing else
            text = text.replace(f"{secret}@", "***@")
        parts = {part for secret in self.secrets for part in (secret, *re.split(r"[/?#&=:@;]", secret))}
        parts |= {unquote(part) for part in parts}
        for part in sorted((part for part in parts if len(part) >= _SECRET_CHARACTERS), key=len, reverse=True):
            text = text.replace(part, "***")
        return text


def address_of(source: str) -> Address:
    """Split by RFC 3986, except that the user ends at the last @, as people do not escape / or @ in a password."""
    match = _URL.match(source)
    if match is None or not (match[2] or match[1].lower() in NETWORK):
        return Address(source, Path(source).name)
    rest = source[match.end() :]
    before = re.split(r"[?#]", rest, maxsplit=1)[0]
    mark, query = rest[len(before) :][:1], rest[len(before) + 1 :]
    if "@" in query:  # part of a password with a ? in it, or of a query
        return Address(f"{match[0]}***", "", (before, query))
    user, at, place = before.rpartition("@")
    name, colon, password = user.partition(":")
    if not colon or not re.fullmatch(r"[\w.-]+", name):  # a token in place of a name, or a form that is ambiguous
        name, password = "", user
    shown = f"{match[0]}{name}{':' if name else ''}{'***@' if at else ''}{place}{mark}{'***' if mark else ''}"
    return Address(shown, Path(place.partition("/")[2]).name, (password, query))
