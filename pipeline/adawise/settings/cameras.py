"""The file of `adawise cameras`: the cameras, and which part of each one's stream is sent.

It has a table `[camera.NAME]` for each camera, and `[defaults]` for their common options. Neither contains a password:
a camera names the environment variable or the file that holds its password, or its whole URL.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ByteSize, Field, ValidationError
from typing_extensions import override

from adawise.settings.describe import expected
from adawise.settings.group import INCONSISTENT, FilePath, Group, Text
from adawise.settings.http import host_names
from adawise.settings.mistakes import Mistake, error_of, nearest
from adawise.settings.reading import as_given, reason_of
from adawise.settings.sources import lines_of
from adawise.store.files import SECRET_BYTES, read_bytes

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "srt", "udp", "tcp")
_WHERE = ("url", "url_env", "url_file", "device", "file")


class CameraDefaults(Group):
    """The options in `[defaults]`; each camera may override them."""

    rate: float = Field(default=1.0, gt=0, le=60, description="most frames sent a second")
    longest: int = Field(
        default=640,
        ge=16,
        le=16_384,
        description="most pixels of the longer side; larger frames are scaled down. The model sees 224",
    )
    quality: int = Field(
        default=85,
        ge=1,
        le=100,
        description="JPEG quality of encoded frames; a camera's JPEGs within `longest` are sent unchanged",
    )
    keyframes: bool = Field(
        default=False,
        description="decode keyframes only, which takes a third (640x480) to two thirds (1920x1080) less processor "
        "time; the rate is then at most that of keyframes, usually one every second or two",
    )
    transport: Literal["tcp", "udp"] = Field(
        default="tcp", description="transport of RTSP; udp loses frames on a busy network"
    )
    hosts: Annotated[str, AfterValidator(host_names)] | None = Field(
        default=None,
        description="other hosts to which a camera's server may redirect, also by a playlist",
        json_schema_extra={"expected": "host names separated by commas"},
    )
    timeout_s: float = Field(
        default=10.0, ge=1, le=600, description="seconds without a frame after which the connection is opened again"
    )
    frozen_after_s: float = Field(
        default=60.0, ge=1, le=86_400, description="seconds of the same picture after which the camera counts as frozen"
    )
    clock: Literal["stream", "arrival"] = Field(
        default="stream",
        description="a frame's time: by the stream (the camera's clock if RTSP sends it and it is less than a "
        "minute off, else the frame's position in the stream), or by its arrival",
    )
    when_behind: Literal["drop", "wait"] = Field(
        default="drop",
        description="if the broker is too slow: drop the camera's oldest frames, or pause reading it",
    )
    held: ByteSize = Field(
        default=ByteSize(4 * 2**20),
        ge=2**16,
        le=2**30,
        description="most bytes of one camera's frames that wait for the broker",
    )
    max_pixels: int = Field(
        default=36_000_000,
        ge=4_096,
        le=400_000_000,
        description="most pixels of an incoming frame; larger streams are refused",
    )
    memory: ByteSize = Field(
        default=ByteSize(512 * 2**20), ge=128 * 2**20, le=2**36, description="memory limit of one camera's process"
    )


class CameraTable(CameraDefaults):
    """The table `[camera.NAME]` of one camera."""

    url: Text | None = Field(default=None, description="URL of the stream: rtsp://, rtsps://, http://, https://")
    url_env: Text | None = Field(
        default=None, description="the environment variable that holds the URL, if the URL is secret"
    )
    url_file: FilePath | None = Field(default=None, description="the file that holds the URL, if the URL is secret")
    device: Text | None = Field(default=None, description="a capture device in place of a URL, such as /dev/video0")
    file: FilePath | None = Field(default=None, description="a video in place of a URL, sent at its own speed")
    loop: bool = Field(default=False, description="play the video again at its end")
    username: Text | None = Field(default=None, description="name of the camera's account, for RTSP and HTTP")
    password_env: Text | None = Field(default=None, description="the environment variable that holds the password")
    password_file: FilePath | None = Field(default=None, description="the file that holds the password")

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes between fields. See `Group`.

        These are no or two sources of the stream, credentials that are readable or incomplete, and options without
        effect.
        """
        given = [name for name in _WHERE if getattr(self, name) is not None]
        if not given:
            yield "url", f"the source is missing; set one of {', '.join(_WHERE)}"
        for name in given[1:]:
            yield name, f"{given[0]} names the stream too; leave one of them out"
        if self.url is not None:
            for problem in url_problems(self.url):
                yield "url", problem
        if self.device is not None and not self.device.startswith("/dev/video"):
            yield "device", "expected a capture device such as /dev/video0"
        if self.loop and self.file is None:
            yield "loop", "it needs a video file; leave it out"
        has_password = self.password_env is not None or self.password_file is not None
        if self.password_env is not None and self.password_file is not None:
            yield "password_file", "password_env sets it too; leave one of them out"
        if has_password and self.username is None:
            yield "username", "it is missing beside the password; set it"
        if self.username is not None and not has_password:
            yield "password_env", "it is missing beside username; set it or password_file"
        if self.username is not None and self.url is None:
            yield (
                "username",
                "it needs url; leave it out, or put it into the URL of url_env or url_file",
            )


def url_problems(url: str) -> Iterator[str]:
    """Yield what is wrong with a URL in the file, without showing the URL."""
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in SCHEMES:
        yield f"expected a URL that begins with {', '.join(f'{name}://' for name in SCHEMES[:4])}"
        return
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            yield "the host is missing"
        _ = parts.port
    except ValueError:
        yield "it is not a URL: host or port cannot be read"
        return
    if "@" in parts.netloc:
        yield "this file may not hold a password: set username and password_env or password_file, or url_env"
    if any(not character.isprintable() or character.isspace() for character in url):
        yield "it contains spaces or control characters; write them as %20 and so on"


@dataclass(frozen=True, slots=True)
class NamedCamera:
    """A camera of the file, with the secrets that were read for it.

    `source` is its URL, its device or the path of a video. It is secret like `password`: a URL may contain credentials.
    """

    name: str
    table: CameraTable
    source: str
    password: str | None


def read_cameras(path: Path, shown_as: str, environ: Mapping[str, str]) -> list[NamedCamera]:
    """Read the cameras of a file, in its order; paths in it are relative to its folder.

    Args:
        path: path of the file.
        shown_as: name of the file in messages.
        environ: the environment, which may hold passwords and URLs.

    Raises:
        SettingsError: with all mistakes, each with its line, its camera and its remedy.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
        tree = tomllib.loads(text)
    except OSError as error:
        raise error_of(
            [Mistake("cameras", shown_as, f"it cannot be read: {error.strerror}; name a TOML file")]
        ) from error
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8; save the file as UTF-8"
        raise error_of([Mistake("cameras", shown_as, problem)]) from error
    except (ValueError, RecursionError) as error:
        raise error_of([Mistake("cameras", shown_as, f"it is not TOML: {error}; correct that line")]) from error
    reader = _CameraFile(path.parent, shown_as, lines_of(text), environ)
    cameras = list(reader.cameras(tree))
    if reader.mistakes:
        raise error_of(reader.mistakes)
    return cameras


class _CameraFile:
    """A parsed file, from which cameras are read while mistakes are collected."""

    def __init__(self, folder: Path, shown_as: str, lines: Mapping[str, int], environ: Mapping[str, str]) -> None:
        self._folder, self._shown_as, self._lines, self._environ = folder, shown_as, lines, environ
        self.mistakes: list[Mistake] = []

    def cameras(self, tree: Mapping[str, Any]) -> Iterator[NamedCamera]:
        """Yield the cameras without mistakes in their table."""
        for name in tree.keys() - {"defaults", "camera"}:
            hint = nearest(name, ("defaults", "camera"), cutoff=0.6)
            known = f"did you mean [{hint}]?" if hint else "there are [defaults] and [camera.NAME]"
            self._wrong(name, f"there is no such table; {known}")
        defaults = tree.get("defaults", {})
        tables = tree.get("camera", {})
        if not isinstance(defaults, dict) or not isinstance(tables, dict):
            self._wrong("defaults", "expected tables, [defaults] and [camera.NAME]")
            return
        if not tables:
            self._wrong("camera", "there is no camera; add a table [camera.NAME] with url, device or file")
        if self._checked(CameraDefaults, "defaults", defaults) is None:
            return
        for name, table in tables.items():
            place = f"camera.{name}"
            if not isinstance(table, dict):
                self._wrong(place, "expected a table for each camera, as [camera.NAME] with url, device or file")
                continue
            if not name.isprintable() or name != name.strip() or not 1 <= len(name.encode("utf-8", "replace")) <= 249:
                self._wrong(
                    place,
                    "expected a name of 1 to 249 bytes of printable text, since it is the key of the camera's messages",
                )
                continue
            camera = self._checked(CameraTable, place, table, {**defaults, **table})
            if camera is not None and (source := self._source(place, camera)) is not None:
                yield NamedCamera(name, camera, source, self._password(place, camera))

    def _checked(
        self, model: type[Any], place: str, table: Mapping[str, Any], values: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return model.model_validate(dict(table if values is None else values))
        except ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                if item["type"] == INCONSISTENT:
                    for name, problem in item["ctx"]["problems"]:
                        self._wrong(f"{place}.{name}", problem)
                    continue
                self._wrong_value(model, place, str(item["loc"][0]), item, table)
        return None

    def _wrong_value(
        self, model: type[Any], place: str, name: str, item: Mapping[str, Any], table: Mapping[str, Any]
    ) -> None:
        field = model.model_fields.get(name)
        if field is None:
            hint = nearest(name, model.model_fields)
            self._wrong(f"{place}.{name}", "there is no such key" + (f"; did you mean {hint}?" if hint else ""))
            return
        reason = reason_of(item)
        # The value of a URL is not shown: it may contain a password, which is the mistake.
        given = None if name in _WHERE or name not in table else as_given(field, table[name])
        self._wrong(f"{place}.{name}", f"expected {expected(field)}" + (f": {reason}" if reason else ""), given)

    def _source(self, place: str, camera: CameraTable) -> str | None:
        if camera.device is not None:
            return camera.device
        if camera.file is not None:
            file = self._folder / camera.file
            if not file.is_file():
                self._wrong(f"{place}.file", "there is no such file; correct the path, relative to this file's folder")
                return None
            return str(file)
        if camera.url is not None:
            return camera.url
        name = "url_env" if camera.url_env is not None else "url_file"
        url = self._secret(place, name, camera.url_env, camera.url_file)
        if url is None:
            return None
        if url.partition("://")[0].lower() not in SCHEMES:
            self._wrong(f"{place}.{name}", f"it does not hold a URL that begins with {', '.join(SCHEMES[:4])}")
            return None
        return url

    def _password(self, place: str, camera: CameraTable) -> str | None:
        if camera.username is None:
            return None
        name = "password_env" if camera.password_env is not None else "password_file"
        return self._secret(place, name, camera.password_env, camera.password_file)

    def _secret(self, place: str, name: str, variable: str | None, file: Path | None) -> str | None:
        """Return the content of a variable or a file, without its line end; None if it cannot be read or is invalid."""
        if variable is not None:
            if value := self._environ.get(variable):
                return value
            self._wrong(f"{place}.{name}", f"the environment variable {variable} is missing or empty; set it")
            return None
        assert file is not None
        try:
            value = read_bytes(self._folder / file, SECRET_BYTES).decode("utf-8").rstrip("\r\n")
        except OSError as error:
            self._wrong(f"{place}.{name}", f"{file} cannot be read: {error.strerror}; correct its path or its rights")
            return None
        except UnicodeDecodeError:
            value = ""
        if not value or not value.isprintable():
            self._wrong(f"{place}.{name}", f"expected one line of UTF-8 text in {file}; write it again")
            return None
        return value

    def _wrong(self, name: str, problem: str, given: str | None = None) -> None:
        prefixes = [name, name.rpartition(".")[0]]
        line = next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), None)
        place = f"{self._shown_as} line {line}" if line else self._shown_as
        printable = "".join(character if character.isprintable() else "?" for character in name)
        self.mistakes.append(Mistake(printable, place, problem, given))
