"""Folders and lists as shots: labels, order, and what is skipped by name."""

from __future__ import annotations

import errno
import os
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import SettingsError
from adawise.produce.files import FileShots, list_file, list_folder, shuffled
from tests.hostile import picture

RNG = random.Random(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, an image at the top, one in a sub-subfolder, hidden things, and files that are no images."""
    root = tmp_path / "images"
    for name in ("car/1.jpg", "car/2.png", "van/deep/3.webp", "top.bmp", ".hidden.jpg", ".git/4.jpg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}[path.suffix]
        path.write_bytes(picture(RNG, codec))
    (root / "car" / "notes.txt").write_text("not an image")
    (root / "van" / "empty.jpg").write_bytes(b"")
    (root / "van" / "large.jpg").write_bytes(picture(RNG) + bytes(20_000))
    return root


def test_a_folder_is_sorted_and_its_subfolders_are_labels(folder: Path) -> None:
    shots = FileShots(list_folder(folder), max_bytes=10_000)
    assert [(shot.frame_id, shot.label, shot.content_type) for shot in shots] == [
        ("car/1.jpg", "car", "image/jpeg"),
        ("car/2.png", "car", "image/png"),
        ("top.bmp", None, "image/bmp"),
        ("van/deep/3.webp", "van", "image/webp"),
    ]
    assert next(iter(shots)).data == (folder / "car/1.jpg").read_bytes()


def test_what_cannot_be_sent_is_skipped_by_name(folder: Path) -> None:
    files = list_folder(folder)
    (folder / "top.bmp").unlink()  # gone between listing and sending
    shots = FileShots(files, max_bytes=10_000)
    assert len(list(shots)) == 3
    assert set(shots.skipped) == {"car/notes.txt", "van/empty.jpg", "van/large.jpg", "top.bmp"}
    assert "not JPEG" in shots.skipped["car/notes.txt"]
    assert "more than the 10000" in shots.skipped["van/large.jpg"]
    assert "No such file" in shots.skipped["top.bmp"]


def test_only_the_folder_that_a_file_system_keeps_for_root_may_be_unreadable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, scandir = folder / "lost+found", os.scandir

    def refused(path: str) -> Any:
        if path == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    closed.mkdir()
    before = [file.name for file in list_folder(folder)]
    monkeypatch.setattr(os, "scandir", refused)
    assert [file.name for file in list_folder(folder)] == before
    closed = folder / "car"
    with pytest.raises(SettingsError, match=r"could not list .*car: Permission denied"):
        list_folder(folder)


def test_a_loop_begins_again_in_the_same_order(folder: Path) -> None:
    shots = FileShots(list_folder(folder), max_bytes=10_000, loop=True)
    names = [shot.frame_id for shot in islice(shots, 10)]
    assert names[:4] == names[4:8]
    assert names[8:] == names[:2]


def test_a_loop_over_no_image_at_all_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(SettingsError, match=r"1 files, none of which.*a\.txt: not JPEG"):
        list(FileShots(list_folder(tmp_path), max_bytes=10_000, loop=True))


def test_the_order_of_a_shuffle_depends_on_the_seed_alone(folder: Path) -> None:
    files = list_folder(folder)
    assert shuffled(files, 3) == shuffled(files, 3)
    assert sorted(file.name for file in shuffled(files, 3)) == [file.name for file in files]
    assert len({tuple(file.name for file in shuffled(files, seed)) for seed in range(10)}) > 1


def test_a_name_that_is_not_utf_8_can_be_sent(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    with open(path, "wb") as file:
        file.write(picture(RNG))
    (shot,) = FileShots(list_folder(tmp_path), max_bytes=10_000)
    assert shot.frame_id == "caf\ufffd.jpg"
    assert shot.frame_id.encode()


def test_a_list_of_paths_starts_at_its_folder(folder: Path) -> None:
    listing = folder.parent / "list.txt"
    listing.write_text(f"images/van/deep/3.webp\n\n  {folder / 'car/1.jpg'}  \n")
    shots = list(FileShots(list_file(listing), max_bytes=10_000))
    assert [shot.frame_id for shot in shots] == ["images/van/deep/3.webp", str(folder / "car/1.jpg")]
    assert {shot.label for shot in shots} == {None}


def test_a_csv_gives_labels_and_streams(folder: Path) -> None:
    listing = folder.parent / "list.csv"
    listing.write_text('\ufeffstream_id, path, label\ncam-1, images/car/1.jpg, "car, red"\n, images/top.bmp,\n,,\n')
    shots = list(FileShots(list_file(listing), max_bytes=10_000))
    assert [(shot.frame_id, shot.label, shot.stream_id) for shot in shots] == [
        ("images/car/1.jpg", "car, red", "cam-1"),
        ("images/top.bmp", None, None),
    ]


def test_a_list_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"list\.csv.*one path a line"):
        list_file(tmp_path / "list.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SettingsError, match=r"binary.*UTF-8"):
        list_file(tmp_path / "binary")
    with pytest.raises(SettingsError, match=r"absent.*No such file"):
        list_folder(tmp_path / "absent")
