"""The file of cameras: every mistake is told with its line, its camera and its remedy, and no secret is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adawise.errors import SettingsError
from adawise.settings import Settings
from adawise.settings.cameras import CameraTable, NamedCamera, read_cameras
from adawise_cameras.app import spec_of

SECRET = "hunter2-secret"


def read(folder: Path, text: str, **environ: str) -> list[NamedCamera]:
    path = folder / "cameras.toml"
    path.write_text(text, encoding="utf-8")
    return read_cameras(path, "cameras.toml", environ)


def test_a_camera_has_what_it_says_and_else_what_all_have(tmp_path: Path) -> None:
    (tmp_path / "gate.password").write_text(f"{SECRET}\n")
    (tmp_path / "day.mp4").write_bytes(b"film")
    found = read(
        tmp_path,
        """
        [defaults]
        rate = 2
        longest = 480
        held = "1MiB"
        hosts = "CDN.example.org, fe80::2"
        [camera."north gate"]
        url = "rtsp://10.0.0.5:554/live"
        username = "viewer"
        password_file = "gate.password"
        rate = 0.5
        [camera.yard]
        url_env = "YARD"
        [camera.usb]
        device = "/dev/video0"
        [camera.film]
        file = "day.mp4"
        loop = true
        """,
        YARD=f"https://camera/mjpeg?key={SECRET}",
    )
    assert [(each.name, each.table.rate, each.table.longest) for each in found] == [
        ("north gate", 0.5, 480),
        ("yard", 2.0, 480),
        ("usb", 2.0, 480),
        ("film", 2.0, 480),
    ]
    cameras = [spec_of(each, int(Settings().decode.max_message_bytes)) for each in found]
    assert {camera.hosts for camera in cameras} == {("cdn.example.org", "fe80::2")}
    assert [camera.source for camera in cameras] == [
        f"rtsp://viewer:{SECRET}@10.0.0.5:554/live",
        f"https://camera/mjpeg?key={SECRET}",
        "/dev/video0",
        str(tmp_path / "day.mp4"),
    ]
    assert cameras[0].held_bytes == 2**20
    assert SECRET not in "".join(f"{camera} {camera.address.shown}" for camera in cameras)


WRONG = {  # what stands in the file: what is said of it
    "[camera.a]\nrate = 2": ["camera.a.url  (cameras.toml line 1)", "the source is missing; set one of url, url_env"],
    '[camera.a]\nurl = "rtsp://x/1"\ndevice = "/dev/video0"': ["camera.a.device", "url names the stream too"],
    f'[camera.a]\nurl = "rtsp://u:{SECRET}@x/1"': ["camera.a.url  (cameras.toml line 2)", "may not hold a password"],
    f'[camera.a]\nurl = "gopher://u:{SECRET}@x/1"': ["expected a URL that begins with rtsp://"],
    '[camera.a]\nurl = "rtsp://:99999/1"': ["camera.a.url"],
    '[camera.a]\nurl = "rtsp://x/a b"': ["spaces or control characters"],
    '[camera.a]\nurl = "rtsp://x/1"\nrate = 0': [
        "camera.a.rate = 0  (cameras.toml line 3)",
        "a number above 0 up to 60",
    ],
    '[camera.a]\nurl = "rtsp://x/1"\ntransport = "tpc"': ["camera.a.transport = 'tpc'", "tcp or udp"],
    '[camera.a]\nurl = "rtsp://x/1"\ntimout_s = 3': ["there is no such key; did you mean timeout_s?"],
    '[camera.a]\nurl = "rtsp://x/1"\nusername = "u"': ["password_env", "it is missing beside username"],
    '[camera.a]\nurl = "rtsp://x/1"\npassword_env = "P"': ["username", "it is missing beside the password"],
    '[camera.a]\nurl = "rtsp://x/1"\nusername = "u"\npassword_env = "P"': [
        "the environment variable P is missing or empty"
    ],
    '[camera.a]\nurl = "rtsp://x/1"\nusername = "u"\npassword_file = "p"': ["p cannot be read: No such file"],
    '[camera.a]\nurl_env = "BAD"': ["camera.a.url_env", "not hold a URL that begins with"],
    '[camera.a]\ndevice = "/dev/sda"': ["expected a capture device such as /dev/video0"],
    '[camera.a]\nfile = "none.mp4"': ["there is no such file"],
    '[camera.a]\nurl = "rtsp://x/1"\nloop = true': ["it needs a video file"],
    '[camera."a\\u001b[2J"]\nurl = "rtsp://x/1"': ["camera.a?[2J", "printable text"],
    f'[camera."{"x" * 250}"]\nurl = "rtsp://x/1"': ["1 to 249 bytes"],
    '[defaults]\nrate = "fast"\n[camera.a]\nurl = "rtsp://x/1"': ["defaults.rate = 'fast'  (cameras.toml line 2)"],
    '[default]\nrate = 1\n[camera.a]\nurl = "rtsp://x/1"': ["did you mean [defaults]?"],
    "camera = 3": ["expected tables"],
    "[camera]\na = 3": ["expected a table for each camera"],
    "": ["there is no camera; add a table [camera.NAME]"],
    "[camera.a": ["it is not TOML"],
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_told_with_its_place_and_its_remedy_and_without_a_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, BAD=SECRET)
    output = str(caught.value)
    for part in WRONG[text]:
        assert part in output
    assert SECRET not in output
    assert "\x1b" not in output


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="3 things to correct"):
        read(tmp_path, '[camera.a]\nrate = 0\nquality = 101\n[camera.b]\ndevice = "x"\n')


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cameras\.toml.*\n.*No such file or directory; name a TOML file"):
        read_cameras(tmp_path / "none.toml", "cameras.toml", {})


@pytest.mark.parametrize(
    ("file", "problem"), [("/dev/zero", "it is not a regular file"), ("large", "it has more than 65,536 bytes")]
)
def test_a_secret_or_a_file_of_cameras_that_has_no_end_is_told(file: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 65_537)
    camera = f'[camera.yard]\nurl = "rtsp://camera/1"\nusername = "viewer"\npassword_file = "{file}"\n'
    with pytest.raises(SettingsError, match=f"{file} cannot be read: {problem}; correct its path"):
        read(tmp_path, camera)
    with pytest.raises(SettingsError, match="it cannot be read: it is not a regular file; name a TOML file"):
        read_cameras(Path("/dev/zero"), "/dev/zero", {})


def test_every_key_says_what_it_is() -> None:
    assert all(field.description for field in CameraTable.model_fields.values())


def test_the_file_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "cameras.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    (tmp_path / "dock").write_text("rtsps://camera/stream\n")
    (tmp_path / "day.mp4").write_bytes(b"film")
    found = read(tmp_path, text.replace("/run/secrets/dock_url", "dock"), YARD_PASSWORD=SECRET)
    assert [each.name for each in found] == ["yard", "north gate", "dock", "bench", "rehearsal"]
