"""Frames of a video file, a camera or a network stream as shots, decoded by the system's `ffmpeg`. The producing side.

ffmpeg writes one JPEG per frame with its length before it (its `mpjpeg` format), so that nobody has to guess where a
frame ends. The pipe holds it back when frames are not taken. The time of each frame of a file comes by a second pipe, a
line each (`framecrc`), so that frame rates need not be constant. A live source is of now. What ffmpeg may open on its
way is listed: a file that is a playlist inside (HLS, concat) could otherwise have it read other files, or ask hosts
that only we can reach.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
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
_BY_TCP = frozenset({"rtsp", "rtsps"})
_CONTAINERS = (  # no playlists
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,mjpeg,mpjpeg,jpeg_pipe,flv,live_flv,gif,h264,hevc,ogg,asf,ivf"
)
_PLAYLISTS = "hls,dash,aac,ac3,mp3,webvtt"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
_LENGTH = re.compile(rb"content-length:\s*(\d{1,10})\s*", re.IGNORECASE)
_COMPLAINTS_BYTES = 64 * 1024
_SECRET_LETTERS = 3  # shorter parts of a secret are in every word
_PROBE_S = 20.0
_MOST_URL_BYTES = 8_192
_FIRST_VIDEO = datetime(1990, 1, 1, tzinfo=UTC)  # what is older was never set
_BY_SIGNAL = 255  # ffmpeg's exit status when it was asked to stop, by Ctrl-C for one


def is_live(source: str) -> bool:
    """Whether frames come at their own pace: a network stream or a capture device (Linux)."""
    return _scheme(source) in _NETWORK or source.startswith("/dev/video")


def _scheme(source: str) -> str:
    match = _URL.match(source)
    return match[1].lower() if match else ""


def named(source: str) -> str:
    """The source, or the URL that a text file has alone: what stands on a command line, every user can read (`ps`)."""
    path = Path(source)
    if is_video(source) or not path.is_file() or path.stat().st_size > _MOST_URL_BYTES:
        return source
    with suppress(OSError, UnicodeDecodeError):
        url = path.read_text(encoding="utf-8").strip()
        if "\n" not in url and is_live(url):
            return url
    return source


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
        ffprobe: the one that comes with it.
    """

    source: str
    loop: bool = False
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"

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
        with tempfile.TemporaryFile() as complaints:
            hidden = self._hidden if address.is_secret and _scheme(self.source) in _NETWORK else None
            with _running(self._command, complaints, is_timed=not is_live(self.source), hidden=hidden) as (
                process,
                times,
            ):
                assert process.stdout is not None
                for number, data in enumerate(_parts(process.stdout)):
                    yield Shot(data, "image/jpeg", f"{name}#{number}", at_s=next(times, None))
                status = process.wait()
            if status not in (0, _BY_SIGNAL) or number < 0:
                complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - _COMPLAINTS_BYTES))
                said = address.hide(complaints.read().decode("utf-8", "replace").strip())[-500:]
                raise SettingsError(
                    f"could not read {shown} beyond frame {number}: ffmpeg ended with {status}: {said}. "
                    "Check that `ffmpeg -i` can open it."
                )

    def created(self) -> datetime | None:
        """When a file says that it was recorded; None if it does not, or is none. Never raises."""
        if is_live(self.source) or shutil.which(self.ffprobe) is None:
            return None
        entries = "format_tags=creation_time:stream_tags=creation_time"
        command = [self.ffprobe, "-v", "error", *self._guarded(), "-show_entries", entries, "-of", "json"]
        try:
            done = subprocess.run(
                [*command, self._opened()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_S,
                check=False,  # it then says nothing
            )
            told = json.loads(done.stdout or b"{}")
            tagged = [told.get("format", {}), *told.get("streams", [])]
            times = [each.get("tags", {}).get("creation_time") for each in tagged]
            found = [datetime.fromisoformat(time) for time in times if time]
            return next((time for time in found if time.tzinfo and time > _FIRST_VIDEO), None)
        except (OSError, ValueError, AttributeError, TypeError, subprocess.TimeoutExpired):
            return None

    @property
    def _hidden(self) -> str:
        """The source as a list that ffmpeg reads by a pipe: on its command line every user would see it."""
        quoted = self.source.replace("'", r"'\''")
        options = "option rtsp_transport tcp\n" if _scheme(self.source) in _BY_TCP else ""
        return f"ffconcat version 1.0\nfile '{quoted}'\n{options}"

    def _command(self, times_to: int | None, source_from: int | None) -> list[str]:
        """What runs ffmpeg. `times_to`: the end of a pipe for the times. `source_from`: of one with the source."""
        loop = ["-stream_loop", "-1"] if self.loop and not is_live(self.source) else []
        written = ["-f", "mpjpeg", "pipe:1"]
        if times_to is not None:  # a frame's line goes first, so that whoever has a frame need not wait for its time
            written = ["-enc_time_base", "1:1000000", "-f", "tee"]
            written += [f"[f=framecrc:flush_packets=1]pipe:{times_to}|[f=mpjpeg:flush_packets=1]pipe:1"]
        return [
            *(self.ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", *loop),
            *(self._guarded() if source_from is None else self._guarded_list()),
            *("-i", self._opened() if source_from is None else f"pipe:{source_from}", "-map", "0:v:0"),
            *("-vsync", "passthrough", "-pix_fmt", "yuvj420p"),  # none doubled
            *("-c:v", "mjpeg", "-q:v", str(JPEG_QUALITY), *written),
        ]

    def _guarded(self) -> list[str]:
        """Options of the input: what may be opened on its way."""
        scheme = _scheme(self.source)
        options = ["-protocol_whitelist", _NETWORK.get(scheme, "file")]
        if self.source.startswith("/dev/video"):
            return [*options, "-f", "v4l2"]
        if scheme in _BY_TCP:  # over UDP a full pipe loses packets, and frames come out torn
            return [*options, "-rtsp_transport", "tcp"]
        allowed = f"{_CONTAINERS},{_PLAYLISTS}" if scheme in ("http", "https") else _CONTAINERS
        return [*options, "-format_whitelist", allowed]

    def _guarded_list(self) -> list[str]:
        """The same for a source that ffmpeg reads from a list."""
        scheme = _scheme(self.source)
        options = ["-f", "concat", "-safe", "0", "-protocol_whitelist", f"pipe,{_NETWORK[scheme]}"]
        http = ["-format_whitelist", f"concat,{_CONTAINERS},{_PLAYLISTS}"] if scheme in ("http", "https") else []
        return options + http

    def _opened(self) -> str:
        """The source as ffmpeg is told; `concat:a|b.mp4` would be what it says."""
        return self.source if is_live(self.source) or _scheme(self.source) == "file" else f"file:{self.source}"


@contextmanager
def _running(
    command: Callable[[int | None, int | None], list[str]], complaints: IO[bytes], *, is_timed: bool, hidden: str | None
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[float]]]:
    """The program and the times of its frames, killed at the end whatever happened.

    Args:
        command: given the end of a pipe for the times, or None if there are none, and that of one for what is hidden.
        complaints: a file; an unread pipe would stop it.
        is_timed: whether there are times.
        hidden: what the program is told by a pipe.
    """
    reading, writing = os.pipe() if is_timed else (None, None)
    told = None if hidden is None else _pipe_with(hidden.encode())
    try:
        process = subprocess.Popen(
            command(writing, told),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=tuple(end for end in (writing, told) if end is not None),
        )
    except BaseException:
        if reading is not None:
            os.close(reading)
        raise
    finally:
        for end in (writing, told):
            if end is not None:
                os.close(end)
    with open(os.devnull if reading is None else reading, "rb") as pipe, process:
        try:
            yield process, _seconds(pipe)
        finally:
            process.kill()


def _pipe_with(data: bytes) -> int:
    """The reading end of a pipe that holds the data, of a few KiB, and nothing more."""
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        pipe.write(data)
    return reading


def _seconds(pipe: IO[bytes]) -> Iterator[float]:
    """The times that ffmpeg writes, in seconds from the begin of the file."""
    unit = Fraction(1)
    for line in pipe:
        if line.startswith(b"#tb 0:"):
            unit = Fraction(line.partition(b":")[2].decode().strip())
        elif not line.startswith(b"#"):
            yield float(int(line.split(b",")[2]) * unit)


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

    @property
    def is_secret(self) -> bool:
        """Whether the source is not to be seen."""
        return any(self.secrets)

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
