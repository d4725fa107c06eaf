"""Images to be sent, from folders and lists of files. For producers; `video` is its sibling.

A file is skipped if its first bytes are not JPEG, PNG, WebP or BMP, if it is larger than a message may be, or if it
cannot be read. Its name is kept with the reason: one broken file does not end a run.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adawise.decode.codec import sniff
from adawise.errors import SettingsError
from adawise.store.files import read_bytes

_LIST_BYTES = 2**30  # some ten million paths
_BETWEEN_ROUNDS_S = 1.0  # by the source's own pace


@dataclass(frozen=True, slots=True)
class Shot:
    """One encoded image and what its producer knows of it.

    Attributes:
        data: the encoded image.
        content_type: its media type.
        frame_id: its frame id in the output.
        label: its true label, if known.
        stream_id: its stream; None if it is assigned to the streams in turn.
        at_s: seconds from the begin of a source that has a pace of its own to this image; None: it has none.
        captured_at_us: when it was taken, in microseconds since the epoch; None: `at_s` after the begin, or else now.
    """

    data: bytes
    content_type: str
    frame_id: str
    label: str | None = None
    stream_id: str | None = None
    at_s: float | None = None
    captured_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that should be an image. `name` becomes the frame id in the output, `captured_at_us` is as of a `Shot`."""

    path: Path
    name: str
    label: str | None = None
    stream_id: str | None = None
    captured_at_us: int | None = None


@dataclass(slots=True)
class FileShots:
    """The files as shots, read when their turn comes. After the iteration, `skipped` says what was left out, and why.

    Args:
        files: in the order of sending. Each round iterates over them anew.
        max_bytes: the most bytes of one image.
        loop: begin again at the end, for ever. Every round has the same times of capture.
        skipped: the reason for each file that was left out, by its name.
        within: a folder, in which a file has to be wherever links lead; None: files may be anywhere.
        remedy: what to do if no file is an image.
    """

    files: Iterable[ImageFile]
    max_bytes: int
    loop: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
    within: Path | None = None
    remedy: str = "Name a folder or a list with JPEG, PNG, WebP or BMP files."

    def __iter__(self) -> Iterator[Shot]:
        """Yield the files that are images; raise SettingsError if none is."""
        root = None if self.within is None else os.path.realpath(self.within)
        paced_s = 0.0
        while True:
            tried, any_sent, first_us, begun_s = 0, False, None, paced_s
            for file in self.files:
                tried += 1
                shot = self._read(file, root)
                if shot is None:
                    continue
                any_sent = True
                if shot.captured_at_us is not None:
                    first_us = shot.captured_at_us if first_us is None else first_us
                    paced_s = begun_s + (shot.captured_at_us - first_us) / 1_000_000
                    shot = replace(shot, at_s=paced_s)
                yield shot
            if not any_sent:
                reasons = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:3])
                raise SettingsError(
                    f"expected images, got {tried} files, none of which can be sent "
                    f"({reasons or 'no file'}). {self.remedy}"
                )
            if not self.loop:
                return
            paced_s += _BETWEEN_ROUNDS_S

    def _read(self, file: ImageFile, root: str | None) -> Shot | None:
        try:
            if root is not None and os.path.commonpath([root, os.path.realpath(file.path)]) != root:
                self.skipped[file.name] = "a link in its path leads out of the folder"
                return None
            size = file.path.stat().st_size
            if size > self.max_bytes:
                self.skipped[file.name] = f"{size} bytes, more than the {self.max_bytes} of a message"
                return None
            data = read_bytes(file.path, self.max_bytes)
        except OSError as error:
            self.skipped[file.name] = error.strerror or str(error)
            return None
        content_type = sniff(data)
        if content_type is None:
            self.skipped[file.name] = "not JPEG, PNG, WebP or BMP"
            return None
        return Shot(data, content_type, file.name, file.label, file.stream_id, captured_at_us=file.captured_at_us)


LOST_AND_FOUND = "lost+found"
"""The folder at the top of a file system that only root may list."""


def list_folder(root: Path, *, linked: bool = False) -> list[ImageFile]:
    """Return every file below `root`, sorted by path; the label of a file in a subfolder is the first subfolder's name.

    Hidden files and folders are left out. Links to folders are not followed, except links in `root` itself if `linked`.

    Raises:
        SettingsError: `root` cannot be listed.
    """

    def unreadable(error: OSError) -> None:
        if isinstance(error, PermissionError) and error.filename == os.path.join(root, LOST_AND_FOUND):
            return
        raise SettingsError(f"could not list {error.filename}: {error.strerror}. Name a folder that can be read.")

    files = []
    for folder, subfolders, names in os.walk(root, onerror=unreadable, followlinks=True):
        follows = linked and Path(folder) == root
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and (follows or not Path(folder, name).is_symlink())
        ]
        for name in names:
            path = Path(folder, name)
            inside = [_readable(part) for part in path.relative_to(root).parts]
            if not name.startswith(".") and path.is_file():
                files.append(ImageFile(path, "/".join(inside), inside[0] if len(inside) > 1 else None))
    return sorted(files, key=lambda file: file.name)


def _readable(name: str) -> str:
    """Return a file's name as text that can be sent: names need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def list_file(path: Path) -> list[ImageFile]:
    """Return the files of a list, in its order: a path on each line, or CSV with the columns path, label, stream_id.

    It is CSV if its first line names a column `path`; `label` and `stream_id` may be missing or empty. Relative paths
    start at the list's folder.

    Raises:
        SettingsError: the list cannot be read.
    """
    try:
        lines = read_bytes(path, _LIST_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"could not read the list {path}: {error}. Expected UTF-8 text with one path a line, or CSV"
            " with the columns path, label, stream_id."
        ) from error
    header = [name.strip() for name in next(iter(lines), "").split(",")]
    if "path" not in header:
        return [ImageFile(path.parent / line, line) for line in map(str.strip, lines) if line]
    rows = [row for row in csv.DictReader(lines, skipinitialspace=True) if row.get("path")]
    return [
        ImageFile(path.parent / row["path"], row["path"], row.get("label") or None, row.get("stream_id") or None)
        for row in rows
    ]


def shuffled(files: Sequence[ImageFile], seed: int) -> list[ImageFile]:
    """Return the same files in an order that depends on the seed alone."""
    mixed = list(files)
    random.Random(seed).shuffle(mixed)
    return mixed
