"""Frames of a video file as shots, decoded by the system's `ffmpeg`. For producers; live streams are read by `cameras`.

ffmpeg writes one JPEG per frame with its length before it (its `mpjpeg` format), so that the end of a frame need not be
guessed. The pipe stops it while frames are not taken. The time of each frame comes through a second pipe, one line each
(`framecrc`), so that frame rates need not be constant. `produce.address` lists what ffmpeg may open on its way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import IO

from adawise.errors import SettingsError
from adawise.produce.address import masked, opening
from adawise.produce.files import Shot

JPEG_QUALITY = 3  # ffmpeg's -q:v, 2 (best) to 31

_LENGTH = re.compile(rb"content-length:\s*(\d{1,10})\s*", re.IGNORECASE)
_COMPLAINTS_BYTES = 64 * 1024
_PROBE_S = 20.0
_FIRST_VIDEO = datetime(1990, 1, 1, tzinfo=UTC)  # an earlier time was never set
_BY_SIGNAL = 255  # ffmpeg's exit status when it was asked to stop, as by Ctrl-C


@dataclass(frozen=True, slots=True)
class VideoShots:
    """The frames in order; each iteration starts ffmpeg anew, and ends it when the iterator is closed.

    Args:
        source: the path of a file that ffmpeg can open.
        loop: begin again at the end.
        ffmpeg: the program.
        ffprobe: the program that comes with it.
    """

    source: str
    loop: bool = False
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"

    @property
    def skipped(self) -> Mapping[str, str]:
        """The counterpart of `FileShots.skipped`; a video has no files to skip."""
        return {}

    def __iter__(self) -> Iterator[Shot]:
        """Yield the frames; raise SettingsError if ffmpeg is not installed, or cannot read the source to its end."""
        shown = masked(self.source)
        if shutil.which(self.ffmpeg) is None:
            raise SettingsError(
                f"expected the program {self.ffmpeg!r} for reading {shown}, but it is not installed. Install it "
                "(Debian: apt-get install ffmpeg), or name a folder of images."
            )
        name = Path(self.source).name
        number = -1
        with tempfile.TemporaryFile() as complaints:
            with _running(self._command, complaints) as (process, times):
                assert process.stdout is not None
                for number, data in enumerate(_parts(process.stdout)):
                    yield Shot(data, "image/jpeg", f"{name}#{number}", at_s=next(times, None))
                status = process.wait()
            if status not in (0, _BY_SIGNAL) or number < 0:
                complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - _COMPLAINTS_BYTES))
                complaint = complaints.read().decode("utf-8", "replace").strip()[-500:]
                raise SettingsError(
                    f"could not read {shown} beyond frame {number}: ffmpeg ended with {status}: {complaint}. "
                    "Check that `ffmpeg -i` can open it."
                )

    def created(self) -> datetime | None:
        """Return the recording time in the file's metadata, None if there is none or it is implausible. Never raise."""
        if shutil.which(self.ffprobe) is None:
            return None
        entries = "format_tags=creation_time:stream_tags=creation_time"
        command = [self.ffprobe, "-v", "error", *self._guarded(), "-show_entries", entries, "-of", "json"]
        try:
            done = subprocess.run(
                [*command, opening(self.source).name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_S,
                check=False,  # it prints nothing then
            )
            parsed = json.loads(done.stdout or b"{}")
            tagged = [parsed.get("format", {}), *parsed.get("streams", [])]
            times = [each.get("tags", {}).get("creation_time") for each in tagged]
            found = [datetime.fromisoformat(time) for time in times if time]
            return next((time for time in found if time.tzinfo and time > _FIRST_VIDEO), None)
        except (OSError, ValueError, AttributeError, TypeError, subprocess.TimeoutExpired):
            return None

    def _command(self, times_to: int) -> list[str]:
        """Return ffmpeg's command line; `times_to` is the file descriptor of the pipe for the times."""
        loop = ["-stream_loop", "-1"] if self.loop else []
        # A frame's line goes first: a reader that has the frame need not wait for its time.
        written = f"[f=framecrc:flush_packets=1]pipe:{times_to}|[f=mpjpeg:flush_packets=1]pipe:1"
        return [
            *(self.ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "error", *loop, *self._guarded()),
            *("-i", opening(self.source).name, "-map", "0:v:0", "-vsync", "passthrough"),  # no frame is doubled
            *("-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-q:v", str(JPEG_QUALITY)),
            *("-enc_time_base", "1:1000000", "-f", "tee", written),
        ]

    def _guarded(self) -> list[str]:
        """Return the options of the input that limit what may be opened on its way."""
        return [word for name, value in opening(self.source).options.items() for word in (f"-{name}", value)]


@contextmanager
def _running(
    command: Callable[[int], list[str]], complaints: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[float]]]:
    """Yield the process and the times of its frames; kill the process at the end in any case.

    Args:
        command: called with the file descriptor of a pipe for the times.
        complaints: a file for ffmpeg's messages; an unread pipe would stop it.
    """
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            command(writing),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=(writing,),
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe, process:
        try:
            yield process, _seconds(pipe)
        finally:
            process.kill()


def _seconds(pipe: IO[bytes]) -> Iterator[float]:
    """Yield the times that ffmpeg writes, in seconds from the begin of the file."""
    unit = Fraction(1)
    for line in pipe:
        if line.startswith(b"#tb 0:"):
            unit = Fraction(line.partition(b":")[2].decode().strip())
        elif not line.startswith(b"#"):
            yield float(int(line.split(b",")[2]) * unit)


def _parts(pipe: IO[bytes]) -> Iterator[bytes]:
    """Yield the bodies of a multipart stream; a truncated last one is dropped."""
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
