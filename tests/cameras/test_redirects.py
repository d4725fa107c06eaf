"""A camera's server leads its reader to its own host, and to no other that is not listed."""

from __future__ import annotations

import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from adawise.produce.address import may_lead, parts_of
from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.wire import CameraFrame, End, Ended, WireMessage
from tests.cameras.serving import HttpRequest, http, jpeg, spec
from tests.deadlines import DEADLINE_S

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


@pytest.mark.parametrize(
    ("source", "target", "hosts", "may"),
    [
        ("rtsp://viewer:a@camera/1", "rtsp://camera:8554/2", (), True),
        ("rtsp://viewer:a@camera/1", "rtsp://Camera/2", (), True),
        ("rtsp://viewer:a@camera/1", "rtsp://other/2", (), False),
        ("rtsp://viewer:a@camera/1", "rtsp://camera@other/2", (), False),
        ("rtsp://viewer:a@camera/1", "rtsp://other/@camera/2", (), False),
        ("rtsp://viewer:a@camera/1", "rtsp://other?@camera/2", (), False),
        ("rtsp://viewer:a@camera/1", "rtsp://other", ("other",), True),
        ("rtsp://viewer:a@camera/1", "http://camera/2", (), False),
        ("rtsps://camera/1", "rtsp://camera/1", (), False),
        ("http://camera/1", "https://camera/1", (), True),
        ("https://camera/1", "http://camera/1", (), False),
        ("http://camera/1", "http://169.254.169.254/latest/meta-data", (), False),
        ("http://camera/1", "file:///etc/passwd", (), False),
        ("http://camera/1", "http:/camera/1", (), False),
        ("http://[fe80::1]:80/1", "http://[FE80::1]/2", (), True),
        ("http://[fe80::1]/1", "http://[fe80::2]/1", (), False),
    ],
)
def test_a_server_may_lead_to_its_own_host_and_to_those_that_are_listed(
    source: str, target: str, hosts: Sequence[str], may: bool
) -> None:
    assert may_lead(source, target, hosts) == may


def test_a_url_is_taken_apart_as_ffmpeg_does_it() -> None:
    parts = parts_of("RTSP://viewer:p@ss@Camera:554/live?a=b@c")
    assert (parts.scheme, parts.user, parts.host) == ("rtsp", "viewer:p@ss", "camera")
    assert parts.clean == "rtsp://Camera:554/live?a=b@c"
    assert parts.with_user("me") == "rtsp://me@Camera:554/live?a=b@c"


def read(camera: CameraSpec, most: int = 3) -> list[WireMessage]:
    """What a reader's process tells until its end or so many frames."""
    child, messages = Child(camera), list[WireMessage]()
    try:
        while sum(isinstance(each, CameraFrame) for each in messages) < most:
            messages.append(child.next(DEADLINE_S))
            if isinstance(messages[-1], Ended):
                break
    finally:
        child.close()
    return messages


def frames(messages: list[WireMessage]) -> int:
    return sum(isinstance(each, CameraFrame) for each in messages)


def refused(messages: list[WireMessage]) -> str:
    """Why it was refused."""
    assert isinstance(messages[-1], Ended)
    assert messages[-1].end == End.REFUSED, messages[-1]
    assert frames(messages) == 0
    return messages[-1].why


def to(url: str, status: int = 302) -> Callable[[HttpRequest], None]:
    return lambda request: request.head(status, location=url)


def video(request: HttpRequest) -> None:
    request.stream()
    for number in range(5):
        request.part(jpeg(number))


def elsewhere(url: str) -> str:
    """The same server by another name, which makes it another host."""
    return url.replace("127.0.0.1", "localhost")


def test_a_redirect_of_http_is_followed_to_its_own_host_alone() -> None:
    answers: dict[str, Callable[[HttpRequest], None]] = {"/video": video}
    with http(answers) as (other, requested_there), http(answers) as (url, _):
        answers |= {"/own": to("/next"), "/next": to(f"{url}/video", 307), "/away": to(f"{elsewhere(other)}/video")}
        answers["/file"] = to("file:///etc/passwd")
        answers["/around"] = to("/around")
        assert frames(read(spec(f"{url}/own"))) == 3
        assert "it redirects to another host" in refused(read(spec(f"{url}/away")))
        assert "it leads to a URL that may not be opened" in refused(read(spec(f"{url}/file")))
        assert "it redirected more than 8 times" in refused(read(spec(f"{url}/around")))
        assert requested_there == []
        assert frames(read(spec(f"{url}/away", hosts=("localhost",)))) == 3
        assert requested_there == ["/video"] * len(requested_there) != []


def test_a_password_of_http_goes_with_a_redirect_to_its_own_host_and_to_no_other() -> None:
    seen: list[tuple[str, str | None]] = []

    def locked(answer: Callable[[HttpRequest], None]) -> Callable[[HttpRequest], None]:
        def answering(request: HttpRequest) -> None:
            seen.append((request.headers["Host"].partition(":")[0], request.headers["Authorization"]))
            if request.headers["Authorization"] is None and request.path != "/open":
                request.head(401, www_authenticate='Basic realm="camera"')
            else:
                answer(request)

        return answering

    answers: dict[str, Callable[[HttpRequest], None]] = {"/video": locked(video), "/open": locked(video)}
    with http(answers) as (url, _):
        answers |= {"/own": locked(to("/video")), "/away": locked(to(f"{elsewhere(url)}/open"))}
        named = url.replace("://", "://viewer:s3cret%21@")
        assert frames(read(spec(f"{named}/own"))) == 3
        assert frames(read(spec(f"{named}/away", hosts=("localhost",)))) == 3
    assert {fields for host, fields in seen if host == "localhost"} == {None}


@needs_ffmpeg
def test_a_playlist_may_name_its_own_host_alone_and_so_may_redirects_of_its_segments(tmp_path: Path) -> None:
    transport = tmp_path / "street.ts"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=25:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg2video", transport], check=True)

    def give(body: bytes) -> Callable[[HttpRequest], None]:
        def answer(request: HttpRequest) -> None:
            request.head(content_length=str(len(body)))
            request.wfile.write(body)

        return answer

    def naming(segment: str) -> Callable[[HttpRequest], None]:
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n"
        return give(hls.encode())

    answers: dict[str, Callable[[HttpRequest], None]] = {"/street.ts": give(transport.read_bytes())}
    with http(answers) as (other, requested_there), http(answers) as (url, _):
        there = f"{elsewhere(other)}/street.ts"
        answers |= {
            "/own.m3u8": naming("street.ts"),
            "/away.m3u8": naming(there),
            "/led.m3u8": naming("led.ts"),
            "/led.ts": to(there),
            "/moved": to("/own.m3u8"),
            "/moved.m3u8": to("/own.m3u8"),
        }
        for path in ("/own.m3u8", "/moved.m3u8", "/moved"):
            assert frames(read(spec(f"{url}{path}"))) == 3, path
        for path in ("/away.m3u8", "/led.m3u8"):
            messages = read(spec(f"{url}{path}"))
            assert isinstance(messages[-1], Ended)
            assert frames(messages) == 0
            assert requested_there == [], path
            assert frames(read(spec(f"{url}{path}", hosts=("localhost",)))) == 3
            requested_there.clear()


class _Rtsp(socketserver.StreamRequestHandler):
    """Answers each request by its server's `location`; keeps all that was asked."""

    server: RtspLeading

    def handle(self) -> None:
        lines: list[str] = []
        for raw in self.rfile:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                lines.append(line)
                continue
            self.server.requests += lines
            number = next(line for line in lines if line.startswith("CSeq"))
            is_options, has_user = lines[0].startswith("OPTIONS"), any("Authorization" in line for line in lines)
            lines = []
            if is_options:
                self._answer(200, number, "Public: DESCRIBE, SETUP, PLAY")
            elif not has_user:
                self._answer(401, number, 'WWW-Authenticate: Basic realm="camera"')
            elif self.server.location:
                self._answer(302, number, f"Location: {self.server.location}")
            else:
                self._answer(404, number, "Content-Length: 0")

    def _answer(self, status: int, *headers: str) -> None:
        self.wfile.write("\r\n".join((f"RTSP/1.0 {status} Said", *headers, "", "")).encode())


class RtspLeading(socketserver.ThreadingTCPServer):
    """An RTSP server that sends whoever knows the password elsewhere."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Rtsp)
        self.location = ""
        self.requests: list[str] = []

    def url(self, host: str | None = None) -> str:
        own, port = self.server_address[:2]
        return f"rtsp://{host or own!s}:{port}/street"


@contextmanager
def leading(host: str = "127.0.0.1") -> Iterator[RtspLeading]:
    with RtspLeading(host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_redirect_of_rtsp_takes_the_password_to_no_other_host() -> None:
    with leading() as camera, leading("127.0.0.2") as other, leading() as moved:
        named = camera.url().replace("://", "://viewer:s3cret@")
        camera.location = other.url()
        assert "it redirects to another host" in refused(read(spec(named)))
        camera.location = moved.url("localhost")
        assert "it redirects to another host" in refused(read(spec(named)))
        assert [*other.requests, *moved.requests] == []
        assert "(404)" in refused(read(spec(named, hosts=("localhost",))))
        assert any("Authorization" in line for line in moved.requests)
        moved.requests.clear()
        camera.location = moved.url()
        assert "(404)" in refused(read(spec(named)))
        assert moved.requests != []
