"""Frames out of real videos by the real ffmpeg, and its end whatever happens."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import ClassVar, cast
from urllib.parse import unquote

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adawise.errors import SettingsError
from adawise.produce.produce import open_shots
from adawise.produce.shot import Shot
from adawise.produce.video import _NETWORK, VideoShots, _address, is_live, is_video, masked, named

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a test pattern, 10 frames a second, 96 x 64."""
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=2"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-q:v", "2", str(path)], check=True)
    return path


@contextmanager
def asked(pages: Mapping[str, bytes] | None = None) -> Iterator[tuple[int, list[str]]]:
    """A web server: its port, and the paths that were asked for."""
    requests: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            body = (pages or {}).get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            with suppress(OSError):  # ffmpeg hangs up when it has seen enough
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, requests
        finally:
            server.shutdown()
            thread.join()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@needs_ffmpeg
def test_every_frame_of_a_video_is_a_jpeg_in_order(video: Path) -> None:
    shots = list(VideoShots(str(video)))
    assert [shot.frame_id for shot in shots] == [f"street.mkv#{i}" for i in range(20)]
    assert {shot.content_type for shot in shots} == {"image/jpeg"}
    images = [Image.open(io.BytesIO(shot.data)) for shot in shots]
    assert {(image.format, image.size) for image in images} == {("JPEG", (96, 64))}
    assert len({image.tobytes() for image in images}) == 20


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames: five .1 s apart, and five .5 s and a third of a second in turn. Some are coded before their turn."""
    path = tmp_path_factory.mktemp("video") / "uneven.mkv"
    times = "if(lt(N\\,5)\\,N/10\\,0.5+(N-5)*5/12+mod(N-5\\,2)/12)"
    made = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=1000:duration=0.01", "-vf", f"setpts=({times})/TB"]
    coded = ["-vsync", "vfr", "-enc_time_base", "1:1000", "-c:v", "mpeg4", "-bf", "2"]
    tags = ["-metadata", "creation_time=2026-11-25T08:00:00.5Z"]
    subprocess.run(["ffmpeg", "-v", "error", *made, *coded, *tags, str(path)], check=True)
    return path


UNEVEN = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.333, 1.833, 2.167]


@needs_ffmpeg
def test_a_frame_has_its_own_time_whatever_the_frame_rate(video: Path, uneven: Path) -> None:
    assert [shot.at_s for shot in VideoShots(str(video))] == pytest.approx([n / 10 for n in range(20)])
    times = [shot.at_s for shot in VideoShots(str(uneven))]
    assert times == pytest.approx(UNEVEN, abs=0.002)  # the file has milliseconds
    with closing(cast("Generator[Shot]", iter(VideoShots(str(uneven), loop=True)))) as shots:
        looped = [shot.at_s or 0.0 for shot in islice(shots, 25)]
    assert looped == sorted(looped)
    assert len(set(looped)) == 25


@needs_ffmpeg
def test_a_file_says_when_it_was_recorded_and_what_it_does_not_say_is_none(
    video: Path, uneven: Path, tmp_path: Path
) -> None:
    assert VideoShots(str(uneven)).created() == datetime(2026, 11, 25, 8, 0, 0, 500_000, tzinfo=UTC)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    old = tmp_path / "old.mp4"
    tags = ["-c", "copy", "-metadata", "creation_time=1904-01-01T00:00:00Z"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, *tags, old], check=True)
    for silent in (
        VideoShots(str(video)),
        VideoShots(str(broken)),
        VideoShots(str(old)),
        VideoShots("rtsp://cam/1"),
        VideoShots(str(uneven), ffprobe="no-ffprobe"),
    ):
        assert silent.created() is None, silent


@needs_ffmpeg
def test_a_loop_goes_on_after_the_last_frame_and_closing_ends_ffmpeg(video: Path) -> None:
    before = children()
    with closing(cast("Generator[Shot]", iter(VideoShots(str(video), loop=True)))) as shots:
        assert len(list(islice(shots, 50))) == 50
        assert len(children() - before) == 1
    assert children() == before


def test_a_camera_that_falls_silent_can_be_closed(tmp_path: Path) -> None:
    silent = tmp_path / "ffmpeg"
    silent.write_text("#!/bin/sh\nprintf 'Content-length: 3\\r\\n\\r\\nabc'\nexec sleep 3600\n")
    silent.chmod(0o755)
    before = children()
    with closing(cast("Generator[Shot]", iter(VideoShots("rtsp://cam/1", ffmpeg=str(silent))))) as shots:
        shot = next(shots)
        assert (shot.data, shot.at_s) == (b"abc", None)  # it is of now
    assert children() == before


@needs_ffmpeg
def test_a_video_that_cannot_be_read_is_named_with_what_ffmpeg_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(SettingsError, match=r"broken\.mp4.*Invalid data"):
        list(VideoShots(str(broken)))
    with pytest.raises(SettingsError, match=r"absent\.mp4.*No such file"):
        list(VideoShots(str(tmp_path / "absent.mp4")))


@needs_ffmpeg
def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        list(VideoShots("rtsp://viewer:hunter2@127.0.0.1:1/street"))
    assert "hunter2" not in str(caught.value)
    assert "rtsp://viewer:***@127.0.0.1:1/street" in str(caught.value)


SECRET = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=12).map(
    "Geheim{}heimlich".format
)


@given(SECRET, st.sampled_from([*_NETWORK, "RTSP", "mms"]), st.sampled_from(["", "viewer"]))
def test_no_password_and_no_query_is_shown_whatever_signs_it_has(secret: str, scheme: str, user: str) -> None:
    for url in (
        f"{scheme}://{user}:{secret}@camera:554/live/street",
        f"{scheme}://{secret.replace(':', '')}@camera/street",  # a token in place of a name
        f"{scheme}://camera/street?token={secret}&user=me@home",
        f"{scheme}://{user}:{secret}@camera/street?token={secret}#{secret}",
    ):
        address = _address(url)
        said = f"[tcp] Failed to resolve {url.partition('://')[2].partition('/')[0]}: {url}, {unquote(url)}"
        for text in (masked(url), address.name, address.hide(said)):
            assert "Geheim" not in text
            assert "heimlich" not in text


@pytest.mark.parametrize(
    ("source", "shown", "name"),
    [
        ("rtsp://viewer:pa/ss@wo:rd@camera:554/live/street", "rtsp://viewer:***@camera:554/live/street", "street"),
        ("rtsp://t0ken@camera/street", "rtsp://***@camera/street", "street"),
        ("https://camera/street.m3u8?token=abc", "https://camera/street.m3u8?***", "street.m3u8"),
        ("rtsp://viewer:pa?ss@camera/street", "rtsp://***", ""),
        ("rtsp://camera:554", "rtsp://camera:554", ""),
        ("rtsp://[fe80::1/street", "rtsp://[fe80::1/street", "street"),
        ("videos/yard@noon#2?.mkv", "videos/yard@noon#2?.mkv", "yard@noon#2?.mkv"),
        ("/dev/video0", "/dev/video0", "video0"),
    ],
)
def test_what_is_shown_of_a_source(source: str, shown: str, name: str) -> None:
    assert (masked(source), _address(source).name) == (shown, name)


def test_what_is_no_video_and_no_file_is_named_without_its_password() -> None:
    with pytest.raises(SettingsError, match=r"there is no mms://viewer:\*\*\*@camera/street;"):
        open_shots("mms://viewer:hunter2@camera/street", max_message_bytes=10**6)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["playlist.ts", "playlist.mp4", "list.mkv", "concat.mp4"])
def test_a_file_that_names_others_is_refused_and_nothing_is_fetched(video: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(video, tmp_path / "street.mkv")
    with asked() as (port, requests):
        hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
        evil = {
            "playlist.ts": hls.format("street.mkv"),
            "playlist.mp4": hls.format(f"http://127.0.0.1:{port}/street.ts"),
            "list.mkv": "ffconcat version 1.0\nfile street.mkv\n",
            "concat.mp4": f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/street.mkv\n",
        }
        (tmp_path / name).write_text(evil[name])
        with pytest.raises(SettingsError, match=rf"{name} beyond frame -1.*not on whitelist"):
            list(VideoShots(str(tmp_path / name)))
        assert requests == []


@needs_ffmpeg
def test_a_protocol_in_a_files_name_is_part_of_the_name(video: Path, tmp_path: Path) -> None:
    name = f"concat:{video}|{video}"
    with pytest.raises(SettingsError, match="No such file"):
        list(VideoShots(name + ".mkv"))
    assert len(list(VideoShots(f"file:{video}"))) == 20


@needs_ffmpeg
def test_a_video_and_a_playlist_on_a_web_server_are_read_but_no_file_that_the_playlist_names(
    video: Path, tmp_path: Path
) -> None:
    transport = tmp_path / "street.ts"
    subprocess.run(["ffmpeg", "-v", "error", "-i", video, "-c:v", "mpeg2video", "-r", "25", transport], check=True)
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
    pages = {
        "/street.mkv": video.read_bytes(),
        "/street.ts": transport.read_bytes(),
        "/good.m3u8": hls.format("street.ts").encode(),
        "/evil.m3u8": hls.format(transport).encode().replace(b"/", b"file:/", 1),
    }
    with asked(pages) as (port, _):
        assert len(list(VideoShots(f"http://127.0.0.1:{port}/street.mkv"))) == 20
        assert len(list(VideoShots(f"http://127.0.0.1:{port}/good.m3u8"))) >= 20
        with pytest.raises(SettingsError, match=r"evil\.m3u8"):
            list(VideoShots(f"http://127.0.0.1:{port}/evil.m3u8"))


def test_without_ffmpeg_the_remedy_is_to_install_it() -> None:
    with pytest.raises(SettingsError, match=r"no-ffmpeg.*apt-get install ffmpeg"):
        list(VideoShots("street.mp4", ffmpeg="no-ffmpeg"))


@pytest.mark.parametrize(
    ("source", "live", "video"),
    [
        ("RTSP://camera/1", True, True),
        ("http://[camera/1", True, True),
        ("rtsp://camera/1", True, True),
        ("/dev/video0", True, True),
        ("https://example.org/street.m3u8", True, True),
        ("street.MP4", False, True),
        ("images", False, False),
        ("list.csv", False, False),
    ],
)
def test_the_form_says_what_a_source_is(source: str, live: bool, video: bool) -> None:
    assert (is_live(source), is_video(source)) == (live, video)


class _Camera(BaseHTTPRequestHandler):
    """A camera that shows a clip to whoever knows its password, once it was looked at with `ps`."""

    clip = b""
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        known = f"Basic {base64.b64encode(b'me:hunter2').decode()}"
        if self.headers.get("authorization") != known:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="yard"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        children = psutil.Process().children(recursive=True)
        self.seen.extend(" ".join(child.cmdline()) for child in children)
        self.send_response(200)
        self.send_header("content-type", "multipart/x-mixed-replace;boundary=b")
        self.end_headers()
        self.wfile.write(self.clip)

    def log_message(self, format: str, *args: object) -> None:
        """Not into a test's output."""


@needs_ffmpeg
def test_a_password_in_a_url_reaches_ffmpeg_and_no_command_line(tmp_path: Path) -> None:
    made = "ffmpeg -v error -f lavfi -i testsrc=size=64x48:rate=10 -t 0.5 -f mpjpeg -boundary_tag b pipe:1"
    _Camera.clip = subprocess.run(made.split(), capture_output=True, check=True).stdout
    _Camera.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        (tmp_path / "yard.url").write_text(f"http://me:hunter2@127.0.0.1:{server.server_address[1]}/live.mjpeg\n")
        shots = list(VideoShots(named(str(tmp_path / "yard.url"))))
        server.shutdown()
        thread.join()
    assert len(shots) == 5
    assert [line for line in _Camera.seen if "ffmpeg" in line]
    assert not [line for line in _Camera.seen if "hunter2" in line]


def test_a_list_of_files_is_no_url(tmp_path: Path) -> None:
    for text in ("one.jpg\n", "rtsp://a/\nrtsp://b/\n", "", "x" * 10_000):
        (tmp_path / "list.txt").write_text(text)
        assert named(str(tmp_path / "list.txt")) == str(tmp_path / "list.txt")
    assert named("rtsp://camera/") == "rtsp://camera/"
    assert named(str(tmp_path)) == str(tmp_path)
