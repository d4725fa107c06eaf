"""Servers for cameras' tests: a real RTSP server that may be killed, and HTTP servers that misbehave."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from adawise_cameras.camera import CameraSpec
from tests.deadlines import DEADLINE_S

SYSTEM_PYTHON = "/usr/bin/python3"
_SERVER = Path(__file__).with_name("rtsp_server.py")
_NEEDED = "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
_NEEDED += "from gi.repository import Gst, GstRtspServer; "
_NEEDED += "Gst.init(None); assert all(Gst.ElementFactory.find(n) for n in ('x264enc', 'rtph264pay', 'jpegenc'))"


def h264(pattern: str = "ball", *, width: int = 640, height: int = 480, rate: int = 25, gop: int = 25) -> str:
    """A pipeline of GStreamer's: `ball` moves, `smpte` stands still."""
    size = f"video/x-raw,format=I420,width={width},height={height},framerate={rate}/1"
    return (
        f"( videotestsrc is-live=true pattern={pattern} ! {size} ! "
        f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} ! rtph264pay name=pay0 pt=96 )"
    )


def mjpeg(pattern: str = "ball", *, width: int = 640, height: int = 480, rate: int = 10) -> str:
    size = f"video/x-raw,format=I420,width={width},height={height},framerate={rate}/1"
    return f"( videotestsrc is-live=true pattern={pattern} ! {size} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"


@cache
def missing() -> str:
    """Why there can be no RTSP server here; empty if there can."""
    try:
        arguments = subprocess.run([SYSTEM_PYTHON, "-c", _NEEDED], capture_output=True, text=True, timeout=DEADLINE_S)
    except OSError as error:
        return str(error)
    return arguments.stderr.strip().rpartition("\n")[2] if arguments.returncode else ""


class RtspServer:
    """It may be killed, and started again on its port.

    Args:
        streams: launch lines by path; a pair has the seconds by which the stream begins late.
        credentials: user and password, if it wants some.
    """

    def __init__(
        self, streams: Mapping[str, str | tuple[str, float]], credentials: tuple[str, str] | None = None
    ) -> None:
        self._streams = {
            path: {"launch": expected} if isinstance(expected, str) else {"launch": expected[0], "slow_s": expected[1]}
            for path, expected in streams.items()
        }
        self._credentials = credentials
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        requested: dict[str, Any] = {"port": self.port, "streams": self._streams}
        if self._credentials:
            requested["user"], requested["password"] = self._credentials
        command = [SYSTEM_PYTHON, str(_SERVER), json.dumps(requested)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip(), "the RTSP server did not start"
        self.port = int(line)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def pause(self) -> None:
        """It says nothing more, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def url(self, path: str, credentials: str = "") -> str:
        return f"rtsp://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}{path}"


@contextmanager
def rtsp(
    streams: Mapping[str, str | tuple[str, float]], credentials: tuple[str, str] | None = None
) -> Iterator[RtspServer]:
    """A running one. Skips the test where there can be none."""
    if why := missing():
        pytest.skip(f"GStreamer's RTSP server cannot be had (Debian: gir1.2-gst-rtsp-server-1.0 and more): {why}")
    server = RtspServer(streams, credentials)
    server.start()
    try:
        yield server
    finally:
        server.kill()


Answer = Callable[["HttpRequest"], None]


class HttpRequest(BaseHTTPRequestHandler):
    """One request to a server of `http`; what is written goes out at once."""

    protocol_version = "HTTP/1.0"
    answers: ClassVar[Mapping[str, Answer]] = {}
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        answer = self.answers.get(self.path)
        with suppress(OSError):  # who reads hangs up when it has seen enough
            if answer is None:
                self.send_error(404)
            else:
                answer(self)

    def head(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def stream(self) -> None:
        self.head(content_type="multipart/x-mixed-replace; boundary=frame")

    def part(self, data: bytes, *, length: int | None = None) -> None:
        size = len(data) if length is None else length
        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (size, data))

    def until_hung_up(self, data: bytes = b"") -> None:
        """Write this again and again, or only wait."""
        self.connection.settimeout(30.0)
        while data:
            self.wfile.write(data)
        self.connection.recv(1)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http(answers: Mapping[str, Answer]) -> Iterator[tuple[str, list[str]]]:
    """A server: its URL without a path, and the paths that were asked for."""
    seen: list[str] = []
    kind = type("Bound", (HttpRequest,), {"answers": answers, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def jpeg(number: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
    """A picture with something in it that moves."""
    image = Image.new("RGB", size, (60, 90, 60))
    image.paste((250, 200, 40), (number * 7 % size[0], 10, number * 7 % size[0] + 30, 60))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def spec(source: str, **other: Any) -> CameraSpec:
    """A camera of that source, with what else is said of it."""
    usual: dict[str, Any] = {
        "stream_id": "yard",
        "loop": False,
        "rate": None,
        "longest": 640,
        "quality": 85,
        "keyframes": False,
        "transport": "tcp",
        "hosts": (),
        "timeout_s": 10.0,
        "frozen_after_s": 60.0,
        "clock": "stream",
        "when_behind": "drop",
        "held_bytes": 4 * 2**20,
        "max_pixels": 10_000_000,
        "max_frame_bytes": 2**20,
        "memory_bytes": 512 * 2**20,
    }
    return CameraSpec(source=source, **{**usual, **other})
