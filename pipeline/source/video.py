"""Frames of a video file, a camera or a network stream as shots, decoded by the system's `ffmpeg`. The producing side.

ffmpeg writes one JPEG per frame with its length before it (its `mpjpeg` format), so that nobody has to guess where a
frame ends. The pipe holds it back when frames are not taken.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from pipeline.errors import SettingsError
from pipeline.source.shot import Shot

JPEG_QUALITY = 3  # ffmpeg's -q:v, 2 (best) to 31
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".flv", ".gif")

_NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_LENGTH = re.compile(rb"content-length:\s*(\d{1,10})\s*", re.IGNORECASE)
_BY_SIGNAL = 255  # ffmpeg's exit status when it was asked to stop, by Ctrl-C for one


def is_live(source: str) -> bool:
    """Whether frames come at their own pace: a network stream or a capture device (Linux)."""
    return urlsplit(source).scheme in _NETWORK or source.startswith("/dev/video")


def is_video(source: str) -> bool:
    """Whether `source` is for `VideoShots`, by its form."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True, slots=True)
class VideoShots:
    """The frames in order; each iteration starts ffmpeg anew, and ends it when the iterator is closed.

    Args:
        source: a path, a device or a URL that ffmpeg can open.
        fps: frames a second of the video's own time to keep; all if None.
        loop: begin again at the end (files).
        ffmpeg: the program.
    """

    source: str
    fps: float | None = None
    loop: bool = False
    ffmpeg: str = "ffmpeg"

    @property
    def skipped(self) -> Mapping[str, str]:
        """As `FileShots.skipped`; a video has no files to skip."""
        return {}

    def __iter__(self) -> Iterator[Shot]:
        """Raises SettingsError if ffmpeg is not installed, or cannot read the source to its end."""
        shown = _masked(self.source)
        if shutil.which(self.ffmpeg) is None:
            msg = f"expected the program {self.ffmpeg!r} for reading {shown}, found none"
            raise SettingsError(f"{msg}. Install it (Debian: apt-get install ffmpeg), or name a folder of images.")
        name = Path(urlsplit(self.source).path).name or "frame"
        number = -1
        with tempfile.TemporaryFile() as complaints, _running(self._command(), complaints) as process:
            assert process.stdout is not None
            for number, data in enumerate(_parts(process.stdout)):
                yield Shot(data, "image/jpeg", f"{name}#{number}")
            status = process.wait()
            if status not in (0, _BY_SIGNAL) or number < 0:
                complaints.seek(0)
                said = complaints.read()[-500:].decode("utf-8", "replace").strip().replace(self.source, shown)
                msg = f"could not read {shown} beyond frame {number}: ffmpeg ended with {status}: {said}"
                raise SettingsError(f"{msg}. Check that `ffmpeg -i` can open it.")

    def _command(self) -> list[str]:
        options = ["-stream_loop", "-1"] if self.loop and not is_live(self.source) else []
        if self.source.startswith("/dev/video"):
            options += ["-f", "v4l2"]
        if urlsplit(self.source).scheme in ("rtsp", "rtsps"):
            options += ["-rtsp_transport", "tcp"]  # over UDP a full pipe loses packets, and frames come out torn
        keep = ["-vf", f"fps={self.fps}"] if self.fps is not None else ["-vsync", "passthrough"]  # never doubled
        return [
            *(self.ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", *options),
            *("-i", self.source, "-map", "0:v:0", *keep, "-pix_fmt", "yuvj420p"),
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


def _masked(source: str) -> str:
    """The source without the password in its URL: it goes into messages and logs."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]*@", r"\1:***@", source)
