"""Files that a user names: a pipe is not waited for, and no file is read without a bound."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from adawise.app.prompts import read_lines
from adawise.card.card import read_card
from adawise.clip.preprocessing import read_config
from adawise.errors import AdawiseError, SettingsError
from adawise.kafka.tls import authorities
from adawise.labels.folders.read import table_samples
from adawise.produce.files import FileShots, ImageFile, list_file
from adawise.settings.cameras import read_cameras
from adawise.settings.reading import read
from adawise.store.files import TEXT_BYTES, NotRegular, open_regular, read_bytes
from adawise_drift.baseline import read_baseline
from adawise_drift.events.known import read_known
from adawise_lab.evaluate.tables import read_table

READERS: dict[str, Callable[[Path], object]] = {
    "settings": lambda path: read([], environ={}, folder=path.parent, config=str(path)).checked(),
    "cameras": lambda path: read_cameras(path, str(path), {}),
    "class names": lambda path: read_lines(path, "model.classes", "class name"),
    "card": read_card,
    "config of a checkpoint": read_config,
    "known events": read_known,
    "baseline": read_baseline,
    "list": list_file,
    "certificates": lambda path: authorities(path, "kafka.security.ssl_ca"),
    "labelled table": lambda path: table_samples(path, "--labelled", None),
    "table of logits": read_table,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(reader: str, tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe")
    with pytest.raises(AdawiseError, match="it is not a regular file"):
        READERS[reader](path)


def test_a_socket_or_a_link_to_itself_is_no_regular_file_and_no_outage(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(tmp_path):
        made.bind("socket")
    (tmp_path / "link").symlink_to("link")
    for name in ("socket", "link"):
        with pytest.raises(NotRegular):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"baseline", "labelled table", "list", "table of logits"}))
def test_a_file_without_an_end_is_refused_before_it_fills_the_memory(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(TEXT_BYTES + 1)
    with pytest.raises(AdawiseError, match=r"it has more than [0-9,]+ bytes"):
        READERS[reader](path)


def test_a_list_is_read_up_to_a_bound_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.produce.files._LIST_BYTES", 10)
    path = tmp_path / "list.txt"
    path.write_text("a" * 11)
    with pytest.raises(SettingsError, match="it has more than 10 bytes"):
        READERS["list"](path)


def test_a_list_may_name_a_pipe_which_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "pipe")
    shots = FileShots([ImageFile(path, "pipe")], max_bytes=10)
    with pytest.raises(AdawiseError, match="pipe: it is not a regular file"):
        list(shots)


def test_no_file_may_be_named_as_the_null_device() -> None:
    assert read_bytes(Path(os.devnull)) == b""


def test_what_the_shell_hands_over_is_read_up_to_the_bound() -> None:
    for content, most in ((b"[kafka]\n", 8), (b"[kafka]\n", 7)):
        reading, writing = os.pipe()
        try:
            os.write(writing, content)
            os.close(writing)
            path = Path(f"/dev/fd/{reading}")
            if most == len(content):
                assert read_bytes(path, most) == content
            else:
                with pytest.raises(OSError, match="it has more than 7 bytes"):
                    read_bytes(path, most)
        finally:
            os.close(reading)


@pytest.mark.parametrize("read", [read_bytes, open_regular])
def test_a_device_or_a_folder_is_no_file(read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is not a regular file"):
        read(Path("/dev/zero"))
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
