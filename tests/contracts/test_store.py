"""What every store must do, on each of them: a folder, memory, and object stores by servers on this machine."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import stamina

from adawise.output.compaction.delete import now_of
from adawise.output.verify.root import verify
from adawise.store import object_store
from adawise.store.answers import AlreadyExists
from adawise.store.object_store import ATTEMPTS
from adawise.store.store import LocalStore, Store, open_store
from tests.sink.building import IDENTITY, TP, DictStore, OverwritingStore, draft, open_chain
from tests.store import buckets
from tests.store.clouds import MOTO_PAGE, azurite, new_bucket, new_container, open_cloud, open_s3, s3_server, seaweedfs
from tests.store.faults import EveryFirstTry, Fault, FaultyProxy

FOLDER = "predictions/topic-frames/partition-00003/"
KEY = f"{FOLDER}00000000000000000000.parquet"

# Beside a folder: memory, S3 (alone, and behind a proxy at which every request fails once), Google's and Azure's wire.
STORES = (
    *("folder", "memory", "fake", "s3", "s3 that fails", "gs", "az"),
    pytest.param("azurite", marks=pytest.mark.soak),
    pytest.param("seaweedfs", marks=pytest.mark.soak),
)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with ExitStack() as stack:
        stack.enter_context(stamina.set_testing(True, attempts=ATTEMPTS))  # tries, but no waits between them
        match request.param:
            case "folder":
                yield open_store(str(tmp_path / "not" / "there" / "yet"))
            case "memory":
                yield open_store("memory://")
            case "fake":
                yield DictStore()
            case "s3":
                yield open_s3(monkeypatch, s3_server(), f"s3://{new_bucket()}/some/prefix")
            case "s3 that fails":
                proxy = stack.enter_context(FaultyProxy(s3_server(), EveryFirstTry()))
                yield open_s3(monkeypatch, proxy.address, f"s3://{new_bucket()}/some/prefix")
                assert Fault.NONE not in {fault for request, fault in proxy.seen[:100] if not request.again % 2}
            case "seaweedfs":
                yield open_s3(monkeypatch, seaweedfs().address, f"s3://{seaweedfs().new_bucket()}/some/prefix")
            case "azurite":
                yield open_cloud(monkeypatch, azurite(), f"az://{new_container()}/some/prefix")
            case provider:
                server = stack.enter_context(buckets.buckets(refuses_with=412 if provider == "gs" else 409))
                yield open_cloud(monkeypatch, server.address, f"{provider}://bucket/some/prefix")


def test_what_was_created_can_be_read_back(store: Store) -> None:
    store.create(KEY, b"\x00segment")
    assert store.get(KEY) == b"\x00segment"


def test_the_store_says_by_its_own_clock_when_a_key_was_written(store: Store) -> None:
    assert store.modified(KEY) is None
    store.create(KEY, b"segment")
    written = store.modified(KEY)
    assert written is not None
    assert timedelta(0) <= now_of(store) - written < timedelta(minutes=5)
    assert store.list("") == [KEY]


def test_an_object_is_read_in_parts_from_wherever_it_is_asked_for(store: Store) -> None:
    data = random.Random(1).randbytes(700_000)
    store.create(KEY, data)
    opened = store.open(KEY)
    assert opened is not None
    with opened:
        assert opened.seek(0, os.SEEK_END) == len(data)
        for first, length in ((699_992, 8), (0, 10), (200_000, 400_000), (5, 1), (600_000, 200_000)):
            opened.seek(first)
            assert opened.read(length) == data[first : first + length]
    assert store.open(f"{KEY}.absent") is None


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
    store.create("a/d", b"four")
    assert store.sizes("a") == {"a/b/1": 0, "a/b/2": 0, "a/c": 0, "a/d": 4}


@pytest.fixture
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """More names than one answer holds: of a server that people use a thousand, of ours a hundred."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # so many would only wait for the disk
    if request.node.callspec.params["store"] in {"azurite", "seaweedfs"}:
        return 1_100
    monkeypatch.setattr(object_store, "_PAGE", MOTO_PAGE)
    monkeypatch.setattr(buckets, "_PAGE", 40)
    return MOTO_PAGE + 10


def test_list_sorts_more_names_than_one_answer_holds(store: Store, many: int) -> None:
    keys = [f"{FOLDER}{offset:020d}.parquet" for offset in range(many)]
    for key in reversed(keys):
        store.put(key, b"")
    assert store.list(FOLDER) == keys


def test_pages_of_a_folder_follow_each_other_until_one_says_that_it_is_the_last(store: Store, many: int) -> None:
    names = [f"{offset:020d}.parquet" for offset in range(many)]
    for name in names:
        store.put(f"{FOLDER}{name}", b"")
    found: list[str] = []
    is_last, after = False, ""
    while not is_last:
        keys, is_last = store.page(FOLDER, after)
        assert keys
        found, after = [*found, *keys], keys[-1].rpartition("/")[2]
    assert found == [f"{FOLDER}{name}" for name in names]
    assert store.page(FOLDER, names[-3]) == ([f"{FOLDER}{name}" for name in names[-2:]], True)
    assert store.page(FOLDER, names[-1]) == ([], True)
    assert store.page("no/such/folder") == ([], True)


def test_what_was_deleted_is_absent_and_deleting_it_again_is_no_error(store: Store) -> None:
    store.create(KEY, b"segment")
    store.delete(KEY)
    store.delete(KEY)
    assert (store.get(KEY), store.list(FOLDER)) == (None, [])


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


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/output")
    store.create(KEY, b"segment")
    assert isinstance(store, LocalStore)
    assert (tmp_path / "output" / KEY).read_bytes() == b"segment"
