"""Frames out of real videos by the real ffmpeg, and its end whatever happens."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import cast

import psutil
import pytest
from PIL import Image

from adawise.errors import SettingsError
from adawise.produce.files import Shot
from adawise.produce.produce import open_shots
from adawise.produce.video import VideoShots
from tests.loopback import Answering, Server, serving

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed here")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a test pattern, 10 frames a second, 96 x 64."""
    path = tmp_path_factory.mktemp("video") / "street.mkv"
    pattern = ["-f", "lavfi", "-i", "testsrc=size=96x64:rate=10:duration=2"]
    subprocess.run(["ffmpeg", "-v", "error", *pattern, "-c:v", "mpeg4", "-q:v", "2", str(path)], check=True)
    return path


@contextmanager
def recorded() -> Iterator[tuple[int, list[str]]]:
    """A web server: its port, and the paths that were asked for."""
    requests: list[str] = []

    class NotFound(Answering):
        def get(self) -> None:
            requests.append(self.path)
            self.answer(404)

    with serving(Server(NotFound)) as server:
        yield server.server_port, requests


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


def test_a_program_that_falls_silent_can_be_closed(tmp_path: Path) -> None:
    silent = tmp_path / "ffmpeg"
    time = "for all; do :; done; to=${all#*pipe:}; printf '#tb 0: 1/2\\n0, 0, 7, 1\\n' > /proc/self/fd/${to%%|*}"
    silent.write_text(f"#!/bin/sh\n{time}\nprintf 'Content-length: 3\\r\\n\\r\\nabc'\nexec sleep 3600\n")
    silent.chmod(0o755)
    before = children()
    with closing(cast("Generator[Shot]", iter(VideoShots("street.mp4", ffmpeg=str(silent))))) as shots:
        shot = next(shots)
        assert (shot.data, shot.at_s) == (b"abc", 3.5)
    assert children() == before


@needs_ffmpeg
def test_a_video_that_cannot_be_read_is_named_with_what_ffmpeg_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(SettingsError, match=r"broken\.mp4.*Invalid data"):
        list(VideoShots(str(broken)))
    with pytest.raises(SettingsError, match=r"absent\.mp4.*No such file"):
        list(VideoShots(str(tmp_path / "absent.mp4")))


def test_what_is_no_video_and_no_file_is_named_without_its_password() -> None:
    with pytest.raises(SettingsError, match=r"there is no mms://viewer:\*\*\*@camera/street;"):
        open_shots("mms://viewer:hunter2@camera/street", max_message_bytes=10**6)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["playlist.ts", "playlist.mp4", "list.mkv", "concat.mp4"])
def test_a_file_that_names_others_is_refused_and_nothing_is_fetched(video: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(video, tmp_path / "street.mkv")
    with recorded() as (port, requests):
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


def test_without_ffmpeg_the_remedy_is_to_install_it() -> None:
    with pytest.raises(SettingsError, match=r"no-ffmpeg.*apt-get install ffmpeg"):
        list(VideoShots("street.mp4", ffmpeg="no-ffmpeg"))
