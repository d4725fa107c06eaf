"""Frames out of real videos by the real ffmpeg, and its end whatever happens."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import cast

import psutil
import pytest
from PIL import Image

from pipeline.errors import SettingsError
from pipeline.source.shot import Shot
from pipeline.source.video import VideoShots, is_live, is_video

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a test pattern, 10 frames a second, 96 x 64."""
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=2"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-q:v", "2", str(path)], check=True)
    return path


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


@needs_ffmpeg
def test_frames_are_thinned_by_the_videos_own_time(video: Path) -> None:
    assert len(list(VideoShots(str(video), fps=2))) == 4


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
        assert next(shots).data == b"abc"
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


def test_without_ffmpeg_the_remedy_is_to_install_it() -> None:
    with pytest.raises(SettingsError, match=r"no-ffmpeg.*apt-get install ffmpeg"):
        list(VideoShots("street.mp4", ffmpeg="no-ffmpeg"))


@pytest.mark.parametrize(
    ("source", "live", "video"),
    [
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
