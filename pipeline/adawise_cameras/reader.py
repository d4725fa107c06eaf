"""The reader of one camera: it turns the stream into JPEGs by FFmpeg's libraries (PyAV), in a process of its own.

No other module imports these libraries: network data is parsed and decoded here, where a crash ends one camera's
connection alone. The process has a memory limit and may write no file. JPEGs that come within the limits are passed on
without decoding them.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final, TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt
import simplejpeg
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from adawise.produce.address import Opening, is_live, opening, opening_playlist, scheme_of
from adawise_cameras.camera import CameraSpec
from adawise_cameras.clock import FrameClock, FramePace
from adawise_cameras.redirects import LedAway, Redirects
from adawise_cameras.wire import Beat, CameraFrame, ClockOff, Drop, Dropped, End, Ended, Opened, WireMessage, written

if TYPE_CHECKING:
    _Packet: TypeAlias = Packet[VideoStream]
_Plane = npt.NDArray[np.uint8]

_BEAT_S = 1.0
_MOST_DAMAGED = 250  # packets in a row: some ten seconds
_OPEN_FILES = 64
# The differences that encoders make in a repeated picture: mean levels (of 255), and the share of points that move by
# many.
_ALIKE_LEVELS, _MOVED_LEVELS, _ALIKE_SHARE = 1.0, 24, 1e-4
_REMEDY: Final = "Check whether a player such as `ffplay` opens it."
_END_OF_IMAGE = b"\xff\xd9"


class _SourceRefused(Exception):
    """Raised if the source will not work the next time either. The text ends in the remedy."""


_WHY: tuple[tuple[type[Exception], End, str], ...] = (
    (
        av.error.HTTPUnauthorizedError,
        End.REFUSED,
        "the server refuses the credentials (401). Correct username and password of the camera.",
    ),
    (av.error.HTTPForbiddenError, End.REFUSED, "the server forbids it (403). Give the user the right to view."),
    (av.error.HTTPNotFoundError, End.REFUSED, "the server has no such stream (404). Correct the path of the URL."),
    (av.error.HTTPTooManyRequestsError, End.FAILED, "the server has too many viewers or requests (429)."),
    (av.error.HTTPClientError, End.REFUSED, f"the server refuses the request. {_REMEDY}"),
    (av.error.HTTPServerError, End.FAILED, "the server failed (5xx). Look at the camera's log."),
    (av.error.FileNotFoundError, End.REFUSED, "there is no such device or file. Correct its path, or plug it in."),
    (
        av.error.PermissionError,
        End.REFUSED,
        "the process has no right to open it. Give it the right to read (devices: the group video).",
    ),
    (
        av.error.ConnectionRefusedError,
        End.FAILED,
        "the connection was refused. Check that the camera is on and the port is right.",
    ),
    (TimeoutError, End.FAILED, "it did not answer in time. Check that the camera is on and can be reached from here."),
    (
        av.error.ExitError,
        End.FAILED,
        "it did not answer in time. Check that the camera is on and can be reached from here.",
    ),
    (
        av.error.ArgumentError,
        End.REFUSED,
        "it leads to a URL that may not be opened, or its stream cannot be read (another protocol, a file, a "
        f"playlist, a size above max_pixels). {_REMEDY}",
    ),
    (av.error.InvalidDataError, End.REFUSED, f"it sends no readable video. {_REMEDY}"),
    (
        av.error.DecoderNotFoundError,
        End.REFUSED,
        "its codec is not supported. Have the camera send H.264, H.265 or MJPEG.",
    ),
    (av.error.DemuxerNotFoundError, End.REFUSED, f"its format is not supported. {_REMEDY}"),
    (av.error.ProtocolNotFoundError, End.REFUSED, "its protocol is not supported. Use rtsp://, http:// or https://."),
    (av.error.EOFError, End.FAILED, "the stream ended."),
    (av.error.MemoryError, End.REFUSED, "it takes more than `memory`. Have the camera send smaller frames."),
    (MemoryError, End.REFUSED, "it takes more than `memory`. Have the camera send smaller frames."),
    (OSError, End.FAILED, "the connection broke, or the host does not exist."),
)


def run(camera: CameraSpec, out: Connection, control: Connection) -> None:
    """Run the process: report to `out` what comes of the camera, until `control` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes `control`
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + camera.memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    threading.Thread(target=_end_with, args=(control,), daemon=True).start()
    pipe = out.fileno()

    def write(message: WireMessage) -> None:
        data = memoryview(written(message))
        while data:
            data = data[os.write(pipe, data) :]

    with suppress(BrokenPipeError):
        write(ended(camera, write))


def _data_bytes() -> int:
    """Return the data size of this process so far: libraries, stacks, and what it shares with its fork server."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()


def _end_with(control: Connection) -> None:
    """Exit when the parent is gone: no other event would end this process while a camera is silent."""
    with suppress(OSError):
        os.read(control.fileno(), 1)
    os._exit(0)


def ended(camera: CameraSpec, write: Callable[[WireMessage], None]) -> Ended:
    """Report all that comes of the camera; return how it ended."""
    try:
        _read(camera, write)
    except (_SourceRefused, LedAway) as refused:
        return Ended(camera.address.hide(str(refused)), End.REFUSED)
    except (av.error.FFmpegError, OSError, MemoryError, ValueError) as error:
        end, why = next(((end, why) for kind, end, why in _WHY if isinstance(error, kind)), (End.FAILED, _REMEDY))
        reason = error.strerror if isinstance(error, (av.error.FFmpegError, OSError)) and error.strerror else str(error)
        return Ended(camera.address.hide(f"{why} [{reason}]"), end)
    if is_live(camera.source):
        return Ended("the stream ended.", End.FAILED)
    return Ended("", End.REACHED)


def _read(camera: CameraSpec, write: Callable[[WireMessage], None]) -> None:
    with _opened(camera) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise _SourceRefused("it has no video, only other streams. Correct the path of the URL.")
        codec = stream.codec_context
        _expect_size(camera, codec.width, codec.height)
        codec.thread_count = 1
        if not codec.is_open:
            codec.options = {"max_pixels": str(camera.max_pixels)}
        if camera.keyframes:
            codec.skip_frame = "NONKEY"
        write(Opened(f"{codec.name} {codec.width}x{codec.height}"))
        _FrameStream(camera, codec, write).take(_packets(container, camera))


def _opened(camera: CameraSpec) -> InputContainer:
    redirects = Redirects(camera.source, camera.hosts, camera.timeout_s)
    scheme = scheme_of(camera.source)
    if scheme in ("rtsp", "rtsps"):
        with redirects.watched():
            return _open(camera, opening(camera.source, camera.transport))
    if scheme not in ("http", "https"):
        return _open(camera, opening(camera.source))
    try:
        return _open_http(camera, camera.source, redirects)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    return _open_http(camera, redirects.followed(camera.source), redirects)  # the error was a redirect


def _open_http(camera: CameraSpec, url: str, redirects: Redirects) -> InputContainer:
    try:
        return _open(camera, opening(url))
    except av.error.ArgumentError:  # also raised for a playlist, which FFmpeg must not follow
        if (form := redirects.playlist(url)) is None:
            raise
    return _open(camera, opening_playlist(url, form), redirects.open)


def _open(
    camera: CameraSpec, wanted: Opening, io_open: Callable[[str, int, Mapping[str, str]], object] | None = None
) -> InputContainer:
    timeout_s, began_s = camera.timeout_s, time.monotonic()
    try:
        return av.open(
            wanted.name,
            "r",
            format=wanted.format,
            options=dict(wanted.options),
            timeout=(timeout_s, timeout_s),
            io_open=io_open,
        )
    except av.error.InvalidDataError as error:  # also raised where nothing came
        if time.monotonic() - began_s < timeout_s:
            raise
        raise TimeoutError(f"nothing in {timeout_s:g} s") from error


def _packets(container: InputContainer, camera: CameraSpec) -> Iterator[tuple[_Packet, int | None, int]]:
    """Yield (packet, its place in the stream in microseconds, its arrival); packets of a file at the video's pace."""
    live = is_live(camera.source)
    # HTTP has no times; the demuxer invents times for 25 frames a second.
    timed = container.format.name != "mpjpeg"
    begun_us, before_us = _now_us(), 0
    while True:
        first_us: int | None = None
        place_us = last_us = before_us
        any_came = False
        for packet in container.demux(video=0):
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is None or packet.time_base is None or not timed:
                yield packet, None, _now_us()
                continue
            any_came = True
            at_us = round(moment * packet.time_base * 1_000_000)
            if live:
                yield packet, at_us, _now_us()
                continue
            first_us = at_us if first_us is None else first_us
            place_us = before_us + at_us - first_us
            last_us = max(last_us, place_us + round((packet.duration or 0) * packet.time_base * 1_000_000))
            time.sleep(max(0, begun_us + place_us - _now_us()) / 1e6)
            yield packet, begun_us + place_us, begun_us + place_us
        if live or not camera.loop or not any_came:
            return
        before_us = last_us
        container.seek(0)


def _now_us() -> int:
    return time.time_ns() // 1_000


class _FrameStream:
    """The conversion of packets to frames."""

    def __init__(self, camera: CameraSpec, codec: VideoCodecContext, write: Callable[[WireMessage], None]) -> None:
        self._camera, self._codec, self._write = camera, codec, write
        self._clock, self._pace = FrameClock(camera.clock), FramePace(camera.rate)
        self._same = _Sameness()
        self._is_jpeg = codec.name == "mjpeg"
        self._reported_us = 0
        self._damaged = 0
        self._is_off: bool | None = None  # whether the camera's wall clock is off; None: not reported yet

    def take(self, packets: Iterator[tuple[_Packet, int | None, int]]) -> None:
        """Process all packets."""
        base: Fraction | None = None
        shift_us = 0
        for packet, place_us, arrived_us in packets:
            wall_us = _wall_us(packet)
            self._clock.came(place_us, arrived_us, wall_us)
            if wall_us is not None and place_us is not None:
                self._report_clock(arrived_us)
            if self._is_jpeg and packet.size:
                if self._pace.due((arrived_us if place_us is None else place_us) / 1e6):
                    self._jpeg(packet, place_us, arrived_us)
            else:
                if packet.pts is not None and place_us is not None:
                    base = packet.time_base
                    shift_us = place_us - round(packet.pts * base * 1_000_000)
                for frame in self._decoded(packet):
                    at_us = place_us
                    if frame.pts is not None and base is not None:  # frames and packets differ in order
                        at_us = round(frame.pts * base * 1_000_000) + shift_us
                    if self._pace.due((arrived_us if at_us is None else at_us) / 1e6):
                        self._picture(frame, at_us, arrived_us)
            if arrived_us - self._reported_us >= _BEAT_S * 1e6:
                self._report(Beat(), arrived_us)

    def _report_clock(self, arrived_us: int) -> None:
        """Report the first wall clock of the camera, and each change of whether it is used."""
        is_off = self._clock.off_us != 0
        if is_off != self._is_off:
            self._is_off = is_off
            self._report(ClockOff(self._clock.off_us), arrived_us)

    def _decoded(self, packet: _Packet) -> list[VideoFrame]:
        try:
            frames = [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except (av.error.InvalidDataError, av.error.PatchWelcomeError) as error:
            self._damaged += 1
            if self._damaged >= _MOST_DAMAGED:
                raise _SourceRefused(
                    f"{self._damaged} packets in a row could not be decoded [{error.strerror}]."
                ) from error
            self._write(Dropped(Drop.DAMAGED))
            return []
        if frames:
            self._damaged = 0
        return frames

    def _jpeg(self, packet: _Packet, place_us: int | None, arrived_us: int) -> None:
        """Send a JPEG as it is if it is whole and within the limits, else decode it."""
        data = bytes(packet)
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            self._report(Dropped(Drop.DAMAGED), arrived_us)
            return
        _expect_size(self._camera, width, height)
        if not data.rstrip(b"\0").endswith(_END_OF_IMAGE):
            self._report(Dropped(Drop.DAMAGED), arrived_us)
            return
        longest = self._camera.longest
        if (longest is None or max(width, height) <= longest) and len(data) <= self._camera.max_frame_bytes:
            self._send(data, place_us, arrived_us, self._same.bytes(data))
            return
        for frame in self._decoded(packet):
            self._picture(frame, place_us, arrived_us)

    def _picture(self, frame: VideoFrame, at_us: int | None, arrived_us: int) -> None:
        _expect_size(self._camera, frame.width, frame.height)
        planes = _planes(frame, self._camera.longest)
        data = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=self._camera.quality)
        if len(data) > self._camera.max_frame_bytes:
            self._report(Dropped(Drop.TOO_LARGE), arrived_us)
        else:
            self._send(data, at_us, arrived_us, self._same.luma(planes[0]))

    def _send(self, data: bytes, at_us: int | None, arrived_us: int, is_same: bool) -> None:
        taken_us, clock = self._clock.time(at_us, arrived_us)
        self._report(CameraFrame(data, taken_us, clock, is_same), arrived_us)

    def _report(self, message: WireMessage, arrived_us: int) -> None:
        self._write(message)
        self._reported_us = arrived_us


def _wall_us(packet: _Packet) -> int | None:
    """Return the camera's wall clock at this packet, if a sender report gave it: `AVProducerReferenceTime`."""
    if not packet.has_sidedata("prft"):
        return None
    (wall_us,) = struct.unpack_from("q", bytes(packet.get_sidedata("prft")))
    return int(wall_us)


def _expect_size(camera: CameraSpec, width: int, height: int) -> None:
    if width * height > camera.max_pixels:
        raise _SourceRefused(
            f"its frames have {width}x{height} pixels, and max_pixels allows {camera.max_pixels}. Have the camera send "
            "smaller frames, or raise max_pixels."
        )


def _planes(frame: VideoFrame, longest: int | None) -> tuple[_Plane, _Plane, _Plane]:
    """Return luma `[H, W]` and chroma, twice `[H/2, W/2]`, as a JPEG has them: full range, BT.601."""
    scale = 1.0 if longest is None else min(1.0, longest / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    jpeg = frame.reformat(width, height, "yuvj420p", dst_colorspace="ITU601", dst_color_range="JPEG")
    y, u, v = (
        np.ascontiguousarray(
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        )
        for plane in jpeg.planes
    )
    return y, u, v


class _Sameness:
    """A test of whether a picture repeats the one before. The noise of a working sensor makes pictures differ."""

    def __init__(self) -> None:
        self._bytes: bytes | None = None
        self._luma: npt.NDArray[np.int16] | None = None

    def bytes(self, data: bytes) -> bool:
        """Compare JPEGs as they came."""
        is_same, self._bytes = data == self._bytes, data
        return is_same

    def luma(self, luma: _Plane) -> bool:
        """Compare luma `[H, W]`; encoders change a repeated picture a little, a small object changes a few points."""
        points, before = luma.astype(np.int16), self._luma
        if before is not None and before.shape == points.shape:
            difference = np.abs(points - before)
            if difference.mean() <= _ALIKE_LEVELS and (difference > _MOVED_LEVELS).mean() <= _ALIKE_SHARE:
                return True
        self._luma = points  # kept while pictures are alike, so that a slow change is noticed
        return False
