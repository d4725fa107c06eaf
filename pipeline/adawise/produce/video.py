"""Frames of a video file, a camera or a network stream as shots, decoded by the system's `ffmpeg`. The producing side.

ffmpeg writes one JPEG per frame with its length before it (its `mpjpeg` format), so that nobody has to guess where a
frame ends. The pipe holds it back when frames are not taken. What ffmpeg may open on its way is listed: a file that is
a playlist inside (HLS, concat) could otherwise have it read other files, or ask hosts that only we can reach.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from adawise.errors import SettingsError
from adawise.produce.shot import Shot

JPEG_QUALITY = 3  # ffmpeg's -q:v, 2 (best) to 31
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".flv", ".gif")

_RTSP = "rtsp,rtp,srtp,udp,tcp"
_HTTP = "http,https,httpproxy,tls,tcp,crypto,data"
_NETWORK = {  # scheme -> the protocols that it needs; never a file
    **{"rtsp": _RTSP, "rtsps": f"{_RTSP},tls", "rtmp": "rtmp,tcp", "http": _HTTP, "https": _HTTP},
    **{"udp": "udp", "tcp": "tcp", "srt": "srt"},
}
_CONTAINERS = (  # no playlists
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,mjpeg,mpjpeg,jpeg_pipe,flv,live_flv,gif,h264,hevc,ogg,asf,ivf"
)
_PLAYLISTS = "hls,dash,aac,ac3,mp3,webvtt"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_LENGTH = re.compile(rb"content-length:\s*(\d{1,10})\s*", re.IGNORECASE)
_COMPLAINTS_BYTES = 64 * 1024
_SECRET_LETTERS = 3  # shorter parts of a secret are in every word
_BY_SIGNAL = 255  # ffmpeg's exit status when it was asked to stop, by Ctrl-C for one


def is_live(source: str) -> bool:
    """Whether frames come at their own pace: a network stream or a capture device (Linux)."""
    return _scheme(source) in _NETWORK or source.startswith("/dev/video")


def _scheme(source: str) -> str:
    match = _URL.match(source)
    return match[1].lower() if match else ""


def is_video(source: str) -> bool:
    """Whether `source` is for `VideoShots`, by its form."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, slots=True)
class VideoShots:
    """The frames in order; each iteration starts ffmpeg anew, and ends it when the iterator is closed.

    Args:
        source: a path, a device or a URL that ffmpeg can open.
        loop: begin again at the end (files).
        ffmpeg: the program.
    """

    source: str
    loop: bool = False
    ffmpeg: str = "ffmpeg"

    @property
    def skipped(self) -> Mapping[str, str]:
        """As `FileShots.skipped`; a video has no files to skip."""
        return {}

    def __iter__(self) -> Iterator[Shot]:
        """Raises SettingsError if ffmpeg is not installed, or cannot read the source to its end."""
        address = _address(self.source)
        shown = address.shown
        if shutil.which(self.ffmpeg) is None:
            raise SettingsError(
                f"expected the program {self.ffmpeg!r} for reading {shown}, found none. "
                "Install it (Debian: apt-get install ffmpeg), or name a folder of images."
            )
        name = address.name or "frame"
        number = -1
        with tempfile.TemporaryFile() as complaints, _running(self._command(), complaints) as process:
            assert process.stdout is not None
            for number, data in enumerate(_parts(process.stdout)):
                yield Shot(data, "image/jpeg", f"{name}#{number}")
            status = process.wait()
            if status not in (0, _BY_SIGNAL) or number < 0:
                complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - _COMPLAINTS_BYTES))
                said = address.hide(complaints.read().decode("utf-8", "replace").strip())[-500:]
                raise SettingsError(
                    f"could not read {shown} beyond frame {number}: ffmpeg ended with {status}: {said}. "
                    "Check that `ffmpeg -i` can open it."
                )

    def _command(self) -> list[str]:
        scheme, source = _scheme(self.source), self.source
        options = ["-stream_loop", "-1"] if self.loop and not is_live(source) else []
        options += ["-protocol_whitelist", _NETWORK.get(scheme, "file")]
        if source.startswith("/dev/video"):
            options += ["-f", "v4l2"]
        elif scheme in ("rtsp", "rtsps"):
            options += ["-rtsp_transport", "tcp"]  # over UDP a full pipe loses packets, and frames come out torn
        else:
            options += [
                "-format_whitelist",
                f"{_CONTAINERS},{_PLAYLISTS}" if scheme in ("http", "https") else _CONTAINERS,
            ]
        if not is_live(source) and scheme != "file":
            source = f"file:{source}"  # or `concat:a|b.mp4` would be what it says
        return [
            *(self.ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", *options),
            *("-i", source, "-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt", "yuvj420p"),  # no frame doubled
            *("-c:v", "mjpeg", "-q:v", str(JPEG_QUALITY), "-f", "mpjpeg", "pipe:1"),
        ]


@contextmanager
def _running(command: Sequence[str], complaints: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The program, killed at the end whatever happened. `complaints`: a file; an unread pipe would stop it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _parts(pipe: IO[bytes]) -> Iterator[bytes]:
    """The bodies of a multipart stream; one that is cut off is dropped."""
    length = None
    while line := pipe.readline(1_024):
        if match := _LENGTH.fullmatch(line):
            length = int(match[1])
        elif not line.strip() and length is not None:
            data = pipe.read(length)
            if len(data) < length:
                return
            yield data
            length = None


def masked(source: str) -> str:
    """The source as messages and logs may show it: of a URL neither password nor query."""
    return _address(source).shown


@dataclass(frozen=True, slots=True)
class _Address:
    """A source taken apart. `shown` and `name`, of the file or the last part of the path, hold nothing secret."""

    shown: str
    name: str
    secrets: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """What another program says of the source, without the secrets and what it may have cut out of them."""
        parts = {part for secret in self.secrets for part in (secret, *re.split(r"[/?#&=:@;]", secret))}
        parts |= {unquote(part) for part in parts}
        for part in sorted((part for part in parts if len(part) >= _SECRET_LETTERS), key=len, reverse=True):
            text = text.replace(part, "***")
        return text


def _address(source: str) -> _Address:
    """By RFC 3986, but for the user's part: it ends at the last @, as people do not escape a / or @ in a password."""
    match = _URL.match(source)
    if match is None or not (match[2] or match[1].lower() in _NETWORK):
        return _Address(source, Path(source).name)
    rest = source[match.end() :]
    before = re.split(r"[?#]", rest, maxsplit=1)[0]
    mark, query = rest[len(before) :][:1], rest[len(before) + 1 :]
    if "@" in query:  # part of a password with a ? in it, or of a query
        return _Address(f"{match[0]}***", "", (before, query))
    user, at, place = before.rpartition("@")
    name, colon, password = user.partition(":")
    if not colon or not re.fullmatch(r"[\w.-]+", name):  # a token in place of a name, or what is hard to tell
        name, password = "", user
    shown = f"{match[0]}{name}{':' if name else ''}{'***@' if at else ''}{place}{mark}{'***' if mark else ''}"
    return _Address(shown, Path(place.partition("/")[2]).name, (password, query))
