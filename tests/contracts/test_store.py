"""What every store must do, on each of them: a folder, memory, and S3 by a server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stamina

from pipeline.errors import SettingsError, StoreUnavailable
from pipeline.sink.store import AlreadyExists, LocalStore, Store, open_store
from pipeline.sink.verify import verify
from tests.brokers import free_ports
from tests.sink.building import IDENTITY, TP, DictStore, OverwritingStore, draft, open_chain

FOLDER = "predictions/topic-frames/partition-00003/"
KEY = f"{FOLDER}00000000000000000000.parquet"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in a process of its own."""
    pytest.importorskip("moto.server", reason="needs moto[server] (extra: test)")
    address = f"127.0.0.1:{free_ports(1)}"
    host, _, port = address.partition(":")
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", host, "-p", port]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if "Running on" in line:
                    break
            else:
                pytest.fail("the S3 server ended before it was ready")
            # Its log goes on; unread, it would fill the pipe and stop the server.
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield f"http://{address}"
        finally:
            server.terminate()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    """Opens the URL of a bucket on the server, with a configuration from the environment as a user has it."""
    for name, value in {
        "AWS_ENDPOINT": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return open_store


@pytest.fixture(params=["folder", "memory", "s3", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "not" / "there" / "yet"))
    if request.param == "memory":
        return open_store("memory://")
    if request.param == "fake":
        return DictStore()
    server = request.getfixturevalue("s3_server")
    bucket = f"bucket-{os.urandom(4).hex()}"
    make_bucket(server, bucket)
    opened: Store = request.getfixturevalue("s3")(f"s3://{bucket}/some/prefix")
    return opened


def make_bucket(server: str, name: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT")):
        pass


def test_what_was_created_can_be_read_back(store: Store) -> None:
    store.create(KEY, b"\x00segment")
    assert store.get(KEY) == b"\x00segment"


def test_the_second_create_is_refused_and_changes_nothing(store: Store) -> None:
    store.create(KEY, b"first")
    with pytest.raises(AlreadyExists):
        store.create(KEY, b"second, and longer")
    assert store.get(KEY) == b"first"


def test_of_many_that_create_the_same_key_at_once_one_succeeds(store: Store) -> None:
    def create(writer: int) -> bool:
        try:
            store.create(KEY, b"%d" % writer * 50_000)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert store.get(KEY) == b"%d" % won.index(True) * 50_000


def test_an_absent_key_is_none_and_an_absent_folder_is_empty(store: Store) -> None:
    assert store.get(KEY) is None
    assert store.list(FOLDER) == []


def test_put_replaces(store: Store) -> None:
    store.put(KEY, b"first, and longer")
    store.put(KEY, b"second")
    assert store.get(KEY) == b"second"


def test_list_names_what_is_in_a_folder_at_any_depth_and_nothing_beside_it(store: Store) -> None:
    keys = ["a/b/2", "a/b/1", "a/c", "ab/1", "d"]
    for key in keys:
        store.create(key, b"")
    assert store.list("a/") == ["a/b/1", "a/b/2", "a/c"]
    assert store.list("a") == ["a/b/1", "a/b/2", "a/c"]
    assert store.list("") == sorted(keys)


def test_list_sorts_more_names_than_one_answer_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a thousand would only wait for the disk
    keys = [f"{FOLDER}{offset:020d}.parquet" for offset in range(0, 1100)]
    for key in reversed(keys):
        store.put(key, b"")
    assert store.list(FOLDER) == keys


def test_sweeping_keeps_every_key(store: Store) -> None:
    store.create(KEY, b"segment")
    store.sweep(FOLDER)
    store.sweep("no/such/folder")
    assert store.list("") == [KEY]


def test_two_workers_that_own_the_same_partition_make_one_chain(store: Store) -> None:
    owner, zombie = open_chain(store, "owner"), open_chain(store, "zombie")
    for worker in (owner, zombie):
        worker.check()
        worker.recover(TP, IDENTITY, 0)
    assert owner.commit(draft(0, 4)).won
    lost = zombie.commit(draft(0, 6))
    assert (lost.won, lost.head.next_offset) == (False, 4)
    assert zombie.commit(draft(4, 6, number=1)).won
    assert verify(store, contiguous=True) == []


def test_a_store_that_overwrites_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_the_second_create_is_refused_and_changes_nothing(OverwritingStore())


def test_a_missing_bucket_is_a_setting_to_correct(s3: Callable[[str], Store]) -> None:
    with pytest.raises(SettingsError, match=r"s3://no-such-bucket/.*sink\.root"):
        s3("s3://no-such-bucket/prefix").create(KEY, b"")


def test_a_server_that_is_down_is_retryable_after_bounded_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{free_ports(1)}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with stamina.set_testing(True, attempts=2), pytest.raises(StoreUnavailable, match="s3://bucket"):
        open_store("s3://bucket/prefix").create(KEY, b"")


@pytest.mark.parametrize("url", ["nonsense://bucket", "s3://", "ftp://host/path"])
def test_a_url_that_names_no_store_says_which_do(url: str) -> None:
    with pytest.raises(SettingsError, match=r"s3://bucket/prefix"):
        open_store(url)


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/output")
    store.create(KEY, b"segment")
    assert isinstance(store, LocalStore)
    assert (tmp_path / "output" / KEY).read_bytes() == b"segment"
