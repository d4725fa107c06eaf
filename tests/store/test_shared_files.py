"""Files of an object store that threads share: each thread reads where it is, whatever the others do."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from obstore.store import MemoryStore

from adawise.errors import ChainError
from adawise.store import shared_files
from adawise.store.object_store import file_system
from adawise.store.shared_files import SharedFile
from tests.store.clouds import new_bucket, open_s3, s3_server

DATA = bytes(range(256)) * 8_192


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    """An object of 2 MiB."""
    bucket = f"s3://{new_bucket()}"
    open_s3(monkeypatch, s3_server(), bucket).put("object", DATA)
    return f"{bucket}/object"


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """One thread beside this one."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def test_a_thread_that_moves_a_file_moves_it_for_itself(url: str, other: ThreadPoolExecutor) -> None:
    with file_system(url).open(url) as file:
        assert file.seek(1_000) == 1_000
        assert other.submit(file.tell).result() == 0
        assert other.submit(file.seek, -10, os.SEEK_END).result() == len(DATA) - 10
        assert file.read(100) == DATA[1_000:1_100]
        assert other.submit(file.read).result() == DATA[-10:]
        assert (file.tell(), other.submit(file.tell).result()) == (1_100, len(DATA))


def test_it_is_a_file_as_any_other(url: str) -> None:
    files = file_system(url)
    with files.open(url) as file, io.BufferedReader(file) as buffered:
        assert buffered.read(3) == DATA[:3]
        assert buffered.seek(5, os.SEEK_CUR) == 8
        assert buffered.read() == DATA[8:]
        assert (file.read(1), file.seek(2 * len(DATA)), file.read(1)) == (b"", 2 * len(DATA), b"")
        assert files.size(url) == files.size(url) == len(DATA)
        assert files.modified(url) == files.modified(url) == files.info(url)["last_modified"]
    assert file.closed
    with pytest.raises(io.UnsupportedOperation, match="opened as wb"):
        files.open(url, "wb")
    with pytest.raises(FileNotFoundError):
        files.open(f"{url}s")


def test_the_size_and_the_time_of_a_file_are_those_of_when_it_was_opened_last(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, store = file_system(url), open_s3(monkeypatch, s3_server(), url.removesuffix("/object"))
    for data in (DATA, b"another"):
        store.put("object", data)
        with files.open(url):
            store.put("object", b"unseen")
            assert files.size(url) == len(data)
            assert files.modified(url) <= files.info(url)["last_modified"]
    monkeypatch.setattr(shared_files, "_REMEMBERED", 1)
    store.put("other", DATA)
    with files.open(f"{url.removesuffix('object')}other"):
        assert files.size(url) == len(b"unseen")


def test_a_thread_that_did_not_seek_gets_an_error_and_not_the_beginning(other: ThreadPoolExecutor) -> None:
    """As threads of a library do that lose what Python keeps for them between two calls."""
    store = MemoryStore()
    store.put("key", bytes(range(100)))
    file = SharedFile(store, "key")
    assert file.read(2) == b"\0\1"
    for call in (partial(file.read, 4), partial(file.seek, 4, os.SEEK_CUR)):
        with pytest.raises(RuntimeError, match="did not seek"):
            other.submit(call).result()
    assert other.submit(file.seek, -1, os.SEEK_END).result() == 99
    assert other.submit(file.read).result() == b"c"


@pytest.mark.parametrize(("offset", "whence"), [(-1, os.SEEK_SET), (-3, os.SEEK_CUR), (-101, os.SEEK_END), (0, 3)])
def test_a_place_that_no_file_has_is_refused(offset: int, whence: int) -> None:
    store = MemoryStore()
    store.put("key", bytes(100))
    file = SharedFile(store, "key")
    file.seek(2)
    with pytest.raises(ValueError, match="expected to seek"):
        file.seek(offset, whence)
    assert file.tell() == 2


def test_an_object_that_has_shrunk_since_it_was_opened_is_no_short_read() -> None:
    store = MemoryStore()
    store.put("key", bytes(100))
    file = SharedFile(store, "key")
    store.put("key", bytes(50))
    file.seek(20)
    with pytest.raises(ChainError, match=r"expected 60 bytes from 20 on, got 30: it has changed .*; read again"):
        file.read(60)
    file.seek(60)
    with pytest.raises(ChainError, match=r"expected 20 bytes from 60 on, got 0: it has changed"):
        file.read(20)


def test_an_object_that_is_gone_since_it_was_opened_has_not_changed() -> None:
    store = MemoryStore()
    store.put("key", bytes(100))
    file = SharedFile(store, "key")
    store.delete("key")
    with pytest.raises(FileNotFoundError):
        file.read(20)
