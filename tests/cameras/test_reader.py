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
from adawise_cameras.child import CameraFrame, Child, ClockOff, Drop, Dropped, End, Ended, Opened, WireMessage
from adawise_cameras.clock import Clock
from adawise_cameras.reader import _FrameStream, ended
from tests.cameras.serving import Asked, http, jpeg, spec

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


class _Enough(Exception):
    """So many frames came."""


def read(source: str, *, most: int = 1_000, **other: object) -> tuple[list[WireMessage], Ended | None]:
    """All that is told of it, and how it ended; None if it gave `most` frames."""
    told: list[WireMessage] = []

    def tell(said: WireMessage) -> None:
        told.append(said)
        if sum(isinstance(each, CameraFrame) for each in told) == most:
            raise _Enough

    try:
        return told, ended(spec(source, **other), tell)
    except _Enough:
        return told, None


def frames(told: list[WireMessage]) -> list[CameraFrame]:
    return [each for each in told if isinstance(each, CameraFrame)]


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
    told, end = read(str(video))
    assert end == Ended("", End.REACHED)
    assert told[0] == Opened("mpeg4 96x64")
    times = [frame.taken_us for frame in frames(told)]
    assert [later - times[0] for later in times] == pytest.approx([n * 100_000 for n in range(10)], abs=2_000)
    assert {size(frame.data) for frame in frames(told)} == {(96, 64)}
    assert len({frame.data for frame in frames(told)}) == 10


@needs_ffmpeg
def test_a_loop_goes_on_with_its_times_and_a_rate_and_a_size_are_kept(video: Path) -> None:
    told, _ = read(str(video), most=6, loop=True, rate=5.0, longest=33)
    times = [frame.taken_us for frame in frames(told)]
    apart = [later - before for before, later in pairwise(times)]
    assert apart == pytest.approx([200_000] * 5, abs=2_000)
    assert size(frames(told)[0].data) == (33, 22)


@needs_ffmpeg
def test_keyframes_alone_are_decoded_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "street.mp4"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=20:duration=1"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-g", "5", str(path)], check=True)
    told, _ = read(str(path), keyframes=True)
    assert len(frames(told)) == 4


def moving(asked: Asked) -> None:
    asked.stream()
    for number in range(5):
        asked.part(jpeg(number))


def test_jpegs_that_come_by_http_are_passed_on_byte_by_byte() -> None:
    with http({"/video": moving}) as (url, _):
        told, end = read(f"{url}/video")
    assert told[0] == Opened("mjpeg 320x240")
    assert [frame.data for frame in frames(told)] == [jpeg(number) for number in range(5)]
    assert {frame.clock for frame in frames(told)} == {Clock.ARRIVAL}
    assert end is not None
    assert end.end == End.FAILED  # a camera's stream has no end


def test_larger_jpegs_are_made_smaller() -> None:
    with http({"/video": moving}) as (url, _):
        told, _ = read(f"{url}/video", longest=100)
    assert {size(frame.data) for frame in frames(told)} == {(100, 75)}


def test_the_same_picture_again_is_told_to_be() -> None:
    def frozen(asked: Asked) -> None:
        asked.stream()
        for number in (0, 1, 1, 1, 2):
            asked.part(jpeg(number))

    with http({"/video": frozen}) as (url, _):
        for longest in (640, 100):  # passed on, and decoded
            told, _ = read(f"{url}/video", longest=longest)
            assert [frame.is_same for frame in frames(told)] == [False, False, True, True, False]


def cut(asked: Asked) -> None:
    asked.stream()
    asked.part(jpeg(0))
    asked.part(jpeg(1)[:-500], length=len(jpeg(1)))


def garbage(asked: Asked) -> None:
    asked.stream()
    asked.part(jpeg(0))
    asked.part(b"\x00GARBAGE\xff" * 500)
    asked.part(jpeg(1)[:-300])
    asked.part(jpeg(2))


def test_what_is_cut_off_or_no_picture_is_dropped_and_the_others_come() -> None:
    with http({"/cut": cut, "/garbage": garbage}) as (url, _):
        told, _ = read(f"{url}/cut")
        assert [frame.data for frame in frames(told)] == [jpeg(0)]
        told, _ = read(f"{url}/garbage")
    assert [frame.data for frame in frames(told)] == [jpeg(0), jpeg(2)]
    assert told.count(Dropped(Drop.DAMAGED)) == 2


def promising(width: int, height: int) -> Callable[[Asked], None]:
    """A header that promises a picture of that size, with little in it."""
    data = bytearray(jpeg(0))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")

    def answer(asked: Asked) -> None:
        asked.stream()
        for _ in range(3):
            asked.part(bytes(data))

    return answer


def endless(asked: Asked) -> None:
    """A part that never ends."""
    asked.stream()
    asked.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")
    asked.until_hung_up(b"\xff\xd8" + b"x" * 100_000)


def page(asked: Asked) -> None:
    asked.head(content_type="text/html")
    asked.wfile.write(b"<p>hello</p>" * 99)


def one(asked: Asked) -> None:
    """A picture, and then nothing."""
    asked.stream()
    asked.part(jpeg(0))
    asked.until_hung_up()


REFUSED: Mapping[str, tuple[Callable[[Asked], None], str]] = {
    "credentials": (lambda asked: asked.head(401, www_authenticate='Basic realm="camera"'), "the credentials (401)"),
    "forbidden": (lambda asked: asked.head(403), "forbids it (403)"),
    "no such stream": (lambda asked: asked.head(404), "no such stream (404)"),
    "a page": (page, ""),
    "a file": (
        lambda asked: asked.head(302, location="file:///etc/passwd"),
        "it leads to a URL that may not be opened",
    ),
    "a huge picture": (promising(60_000, 60_000), "60000x60000 pixels, and max_pixels allows 10000000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_camera_or_not_ours_to_see_is_refused_with_its_remedy(case: str) -> None:
    answer, why = REFUSED[case]
    with http({"/video": answer}) as (url, _):
        told, end = read(f"{url}/video")
    assert not frames(told)
    assert end is not None
    assert end.end == (End.FAILED if case == "a page" else End.REFUSED)
    assert why in end.why


def test_a_server_that_fails_or_is_not_there_may_be_well_the_next_time() -> None:
    with http({"/video": lambda asked: asked.head(503)}) as (url, _):
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

    def give(body: bytes) -> Callable[[Asked], None]:
        def answer(asked: Asked) -> None:
            asked.head(content_length=str(len(body)))
            asked.wfile.write(body)

        return answer

    pages = {
        "/street.ts": give(transport.read_bytes()),
        "/good.m3u8": give(hls.format("street.ts").encode()),
        "/evil.m3u8": give(hls.format(f"file:{transport}").encode()),
    }
    with http(pages) as (url, _):
        assert len(frames(read(f"{url}/good.m3u8")[0])) >= 10
        told, end = read(f"{url}/evil.m3u8")
    assert not frames(told)
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
        told, end = read(str(tmp_path / name))
        assert not frames(told)
        assert end is not None
        assert end.end == End.REFUSED
        assert seen == []


def test_a_password_is_in_no_word_about_a_camera() -> None:
    camera = spec("rtsp://viewer:hunter2-secret@127.0.0.1:1/street")
    end = ended(camera, lambda _: None)
    assert "hunter2" not in f"{end}{camera}"


# -- in a process of its own


def told_by(child: Child, most: int = 50) -> list[WireMessage]:
    told = []
    for _ in range(most):
        told.append(child.next(20.0))
        if isinstance(told[-1], Ended):
            break
    return told


def ended_apart(camera: CameraSpec) -> Ended:
    child = Child(camera)
    try:
        end = told_by(child)[-1]
    finally:
        child.close()
    assert isinstance(end, Ended)
    return end


def test_a_part_without_an_end_is_waited_for_no_longer_than_for_a_frame() -> None:
    with http({"/video": endless}) as (url, _):
        assert ended_apart(spec(f"{url}/video", timeout_s=2.0)).end == End.FAILED


def test_a_camera_has_no_more_memory_than_it_may_have() -> None:
    picture = jpeg(size=(8_000, 8_000))

    def large(asked: Asked) -> None:
        asked.stream()
        for _ in range(20):
            asked.part(picture)

    with http({"/video": large}) as (url, _):
        end = ended_apart(spec(f"{url}/video", memory_bytes=64 * 2**20, max_pixels=10**9))
    assert "more than `memory`" in end.why


def test_a_process_that_is_killed_is_an_end_with_its_signal_and_one_that_is_closed_is_gone() -> None:
    with http({"/video": one}) as (url, _):
        child = Child(spec(f"{url}/video"))
        child.kill()
        end = told_by(child)[-1]
        assert isinstance(end, Ended)
        assert "was killed by SIGKILL" in end.why
        child.close()


def test_a_wall_clock_that_is_not_believed_is_told_when_it_is_reported_first_and_when_that_changes() -> None:
    told: list[WireMessage] = []
    codec: Any = SimpleNamespace(name="h264")
    stream = _FrameStream(spec("rtsp://camera/1"), codec, told.append)
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
    assert [each for each in told if isinstance(each, ClockOff)] == [
        ClockOff(0),
        ClockOff(3_600_000_000),
        ClockOff(0),
        ClockOff(-7_200_000_000),
    ]
