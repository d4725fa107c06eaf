"""Streams to JPEGs by FFmpeg's libraries, as a reader's process does it: videos, HTTP, and what is no camera at all."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from adawise_cameras.camera import CameraSpec
from adawise_cameras.child import Child
from adawise_cameras.clock import Clock
from adawise_cameras.reader import _FrameStream, ended
from adawise_cameras.wire import CameraFrame, ClockOff, Drop, Dropped, End, Ended, Opened, WireMessage
from tests.cameras.serving import HttpRequest, http, jpeg, spec

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


class _Enough(Exception):
    """So many frames came."""


def read(source: str, *, most: int = 1_000, **other: object) -> tuple[list[WireMessage], Ended | None]:
    """All that is told of it, and how it ended; None if it gave `most` frames."""
    messages: list[WireMessage] = []

    def report(message: WireMessage) -> None:
        messages.append(message)
        if sum(isinstance(each, CameraFrame) for each in messages) == most:
            raise _Enough

    try:
        return messages, ended(spec(source, **other), report)
    except _Enough:
        return messages, None


def frames(messages: list[WireMessage]) -> list[CameraFrame]:
    return [each for each in messages if isinstance(each, CameraFrame)]


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a test pattern, 10 frames, 96 x 64, of which some are coded before their turn."""
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-bf", "2", "-q:v", "2", str(path)], check=True)
    return path


@needs_ffmpeg
def test_a_video_is_read_at_its_own_pace_and_its_frames_are_as_far_apart_as_in_the_film(video: Path) -> None:
    messages, end = read(str(video))
    assert end == Ended("", End.REACHED)
    assert messages[0] == Opened("mpeg4 96x64")
    times = [frame.taken_us for frame in frames(messages)]
    assert [later - times[0] for later in times] == pytest.approx([n * 100_000 for n in range(10)], abs=2_000)
    assert {size(frame.data) for frame in frames(messages)} == {(96, 64)}
    assert len({frame.data for frame in frames(messages)}) == 10


@needs_ffmpeg
def test_a_loop_goes_on_with_its_times_and_a_rate_and_a_size_are_kept(video: Path) -> None:
    messages, _ = read(str(video), most=6, loop=True, rate=5.0, longest=33)
    times = [frame.taken_us for frame in frames(messages)]
    gaps = [later - before for before, later in pairwise(times)]
    assert gaps == pytest.approx([200_000] * 5, abs=2_000)
    assert size(frames(messages)[0].data) == (33, 22)


@needs_ffmpeg
def test_keyframes_alone_are_decoded_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "street.mp4"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=20:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-g", "5", str(path)], check=True)
    messages, _ = read(str(path), keyframes=True)
    assert len(frames(messages)) == 4


def moving(request: HttpRequest) -> None:
    request.stream()
    for number in range(5):
        request.part(jpeg(number))


def test_jpegs_that_come_by_http_are_passed_on_byte_by_byte() -> None:
    with http({"/video": moving}) as (url, _):
        messages, end = read(f"{url}/video")
    assert messages[0] == Opened("mjpeg 320x240")
    assert [frame.data for frame in frames(messages)] == [jpeg(number) for number in range(5)]
    assert {frame.clock for frame in frames(messages)} == {Clock.ARRIVAL}
    assert end is not None
    assert end.end == End.FAILED  # a camera's stream has no end


def test_larger_jpegs_are_made_smaller() -> None:
    with http({"/video": moving}) as (url, _):
        messages, _ = read(f"{url}/video", longest=100)
    assert {size(frame.data) for frame in frames(messages)} == {(100, 75)}


def test_the_same_picture_again_is_told_to_be() -> None:
    def frozen(request: HttpRequest) -> None:
        request.stream()
        for number in (0, 1, 1, 1, 2):
            request.part(jpeg(number))

    with http({"/video": frozen}) as (url, _):
        for longest in (640, 100):  # passed on, and decoded
            messages, _ = read(f"{url}/video", longest=longest)
            assert [frame.is_same for frame in frames(messages)] == [False, False, True, True, False]


def cut(request: HttpRequest) -> None:
    request.stream()
    request.part(jpeg(0))
    request.part(jpeg(1)[:-500], length=len(jpeg(1)))


def garbage(request: HttpRequest) -> None:
    request.stream()
    request.part(jpeg(0))
    request.part(b"\x00GARBAGE\xff" * 500)
    request.part(jpeg(1)[:-300])
    request.part(jpeg(2))


def test_what_is_cut_off_or_no_picture_is_dropped_and_the_others_come() -> None:
    with http({"/cut": cut, "/garbage": garbage}) as (url, _):
        messages, _ = read(f"{url}/cut")
        assert [frame.data for frame in frames(messages)] == [jpeg(0)]
        messages, _ = read(f"{url}/garbage")
    assert [frame.data for frame in frames(messages)] == [jpeg(0), jpeg(2)]
    assert messages.count(Dropped(Drop.DAMAGED)) == 2


def promising(width: int, height: int) -> Callable[[HttpRequest], None]:
    """A header that promises a picture of that size, with little in it."""
    data = bytearray(jpeg(0))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")

    def answer(request: HttpRequest) -> None:
        request.stream()
        for _ in range(3):
            request.part(bytes(data))

    return answer


def endless(request: HttpRequest) -> None:
    """A part that never ends."""
    request.stream()
    request.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")
    request.until_hung_up(b"\xff\xd8" + b"x" * 100_000)


def page(request: HttpRequest) -> None:
    request.head(content_type="text/html")
    request.wfile.write(b"<p>hello</p>" * 99)


def one(request: HttpRequest) -> None:
    """A picture, and then nothing."""
    request.stream()
    request.part(jpeg(0))
    request.until_hung_up()


REFUSED: Mapping[str, tuple[Callable[[HttpRequest], None], str]] = {
    "credentials": (
        lambda request: request.head(401, www_authenticate='Basic realm="camera"'),
        "the credentials (401)",
    ),
    "forbidden": (lambda request: request.head(403), "forbids it (403)"),
    "no such stream": (lambda request: request.head(404), "no such stream (404)"),
    "a page": (page, ""),
    "a file": (
        lambda request: request.head(302, location="file:///etc/passwd"),
        "it leads to a URL that may not be opened",
    ),
    "a huge picture": (promising(60_000, 60_000), "60000x60000 pixels, and max_pixels allows 10000000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_camera_or_not_ours_to_see_is_refused_with_its_remedy(case: str) -> None:
    answer, why = REFUSED[case]
    with http({"/video": answer}) as (url, _):
        messages, end = read(f"{url}/video")
    assert not frames(messages)
    assert end is not None
    assert end.end == (End.FAILED if case == "a page" else End.REFUSED)
    assert why in end.why


def test_a_server_that_fails_or_is_not_there_may_be_well_the_next_time() -> None:
    with http({"/video": lambda request: request.head(503)}) as (url, _):
        _, failed = read(f"{url}/video")
    _, absent = read(f"{url}/video")
    assert failed is not None
    assert absent is not None
    assert (failed.end, absent.end) == (End.FAILED, End.FAILED)
    assert "the connection was refused" in absent.why


@needs_ffmpeg
def test_a_playlist_on_a_web_server_is_read_but_no_file_that_it_names(video: Path, tmp_path: Path) -> None:
    transport = tmp_path / "street.ts"
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, "-c:v", "mpeg2video", "-r", "25", transport], check=True)
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"

    def give(body: bytes) -> Callable[[HttpRequest], None]:
        def answer(request: HttpRequest) -> None:
            request.head(content_length=str(len(body)))
            request.wfile.write(body)

        return answer

    pages = {
        "/street.ts": give(transport.read_bytes()),
        "/good.m3u8": give(hls.format("street.ts").encode()),
        "/evil.m3u8": give(hls.format(f"file:{transport}").encode()),
    }
    with http(pages) as (url, _):
        assert len(frames(read(f"{url}/good.m3u8")[0])) >= 10
        messages, end = read(f"{url}/evil.m3u8")
    assert not frames(messages)
    assert end is not None


@needs_ffmpeg
@pytest.mark.parametrize("name", ["playlist.ts", "list.mkv", "concat.mp4"])
def test_a_file_that_names_others_is_refused_and_nothing_is_fetched(video: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(video, tmp_path / "street.mkv")
    with http({}) as (url, seen):
        evil = {
            "playlist.ts": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}/street.ts\n#EXT-X-ENDLIST\n",
            "list.mkv": "ffconcat version 1.0\nfile street.mkv\n",
            "concat.mp4": f"ffconcat version 1.0\nfile {url}/street.mkv\n",
        }
        (tmp_path / name).write_text(evil[name])
        messages, end = read(str(tmp_path / name))
        assert not frames(messages)
        assert end is not None
        assert end.end == End.REFUSED
        assert seen == []


def test_a_password_is_in_no_word_about_a_camera() -> None:
    camera = spec("rtsp://viewer:hunter2-secret@127.0.0.1:1/street")
    end = ended(camera, lambda _: None)
    assert "hunter2" not in f"{end}{camera}"


# -- in a process of its own


def messages_of(child: Child, most: int = 50) -> list[WireMessage]:
    messages = []
    for _ in range(most):
        messages.append(child.next(20.0))
        if isinstance(messages[-1], Ended):
            break
    return messages


def ended_separately(camera: CameraSpec) -> Ended:
    child = Child(camera)
    try:
        end = messages_of(child)[-1]
    finally:
        child.close()
    assert isinstance(end, Ended)
    return end


def test_a_part_without_an_end_is_waited_for_no_longer_than_for_a_frame() -> None:
    with http({"/video": endless}) as (url, _):
        assert ended_separately(spec(f"{url}/video", timeout_s=2.0)).end == End.FAILED


def test_a_camera_has_no_more_memory_than_it_may_have() -> None:
    picture = jpeg(size=(8_000, 8_000))

    def large(request: HttpRequest) -> None:
        request.stream()
        for _ in range(20):
            request.part(picture)

    with http({"/video": large}) as (url, _):
        end = ended_separately(spec(f"{url}/video", memory_bytes=64 * 2**20, max_pixels=10**9))
    assert "more than `memory`" in end.why


def test_a_process_that_is_killed_is_an_end_with_its_signal_and_one_that_is_closed_is_gone() -> None:
    with http({"/video": one}) as (url, _):
        child = Child(spec(f"{url}/video"))
        child.kill()
        end = messages_of(child)[-1]
        assert isinstance(end, Ended)
        assert "was killed by SIGKILL" in end.why
        child.close()


def test_a_wall_clock_that_is_not_believed_is_told_when_it_is_reported_first_and_when_that_changes() -> None:
    messages: list[WireMessage] = []
    codec: Any = SimpleNamespace(name="h264")
    stream = _FrameStream(spec("rtsp://camera/1"), codec, messages.append)
    now_us = 1_800_000_000_000_000

    def report(second: int, off_s: float) -> Any:
        """A packet with the camera's wall clock, without a frame."""
        wall = struct.pack("q", now_us + second * 1_000_000 + round(off_s * 1e6))
        return SimpleNamespace(
            pts=None, size=0, decode=list, has_sidedata=lambda kind: kind == "prft", get_sidedata=lambda _: wall
        )

    off = [0.0, 2.0, 3_600.0, 3_599.0, 1.0, -7_200.0]
    times = [second * 1_000_000 for second in range(len(off))]
    stream.take(iter([(report(at // 1_000_000, off_s), at, now_us + at) for at, off_s in zip(times, off, strict=True)]))
    assert [each for each in messages if isinstance(each, ClockOff)] == [
        ClockOff(0),
        ClockOff(3_600_000_000),
        ClockOff(0),
        ClockOff(-7_200_000_000),
    ]
