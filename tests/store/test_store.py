"""What is particular to the folder: durability, its crash points (real processes die at each), errors of the system."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from adawise.errors import ChainError, SettingsError, StoreFull, StoreUnavailable
from adawise.output.verify.root import verify
from adawise.sink import layout
from adawise.store import store
from adawise.store.answers import AlreadyExists
from adawise.store.store import FAILPOINTS, LocalStore
from tests.dying import exit_code
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain
from tests.sink.stored import read_predictions

KEY = "predictions/topic-frames/partition-00003/00000000000000000000.parquet"


def commit_and_die(root: Path, fatal: str) -> None:
    """Commit twice, and be killed at that failpoint of the second time."""
    armed = False

    def at(point: str) -> None:
        if armed and point == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    chain = open_chain(LocalStore(root, failpoint=at), "victim", at=at)
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    armed = True
    chain.commit(draft(4, 9, number=1))


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an output for each crash point, whose writer was killed there in its second commit."""
    root = tmp_path_factory.mktemp("killed")
    for point in FAILPOINTS:
        assert exit_code(commit_and_die, root / point, point) == -signal.SIGKILL, point
    return root


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_process_killed_at_a_crash_point_leaves_all_of_the_segment_or_nothing(point: str, victims: Path) -> None:
    there = FAILPOINTS.index(point) >= FAILPOINTS.index("segment.linked")
    folder = LocalStore(victims / point)
    chain = open_chain(folder)
    assert chain.recover(TP, IDENTITY, 0).next_offset == (9 if there else 4)
    if not there:
        assert chain.commit(draft(4, 9, number=1)).won
    assert verify(folder, contiguous=True) == []
    assert read_predictions(folder, ["offset"])["offset"].to_pylist() == list(range(9))


def test_every_crash_point_is_passed_once_by_a_commit_in_their_order(tmp_path: Path) -> None:
    passed: list[str] = []
    chain = open_chain(LocalStore(tmp_path, failpoint=passed.append), at=passed.append)
    chain.recover(TP, IDENTITY, 0)
    passed.clear()
    chain.commit(draft(0, 4))
    assert tuple(passed) == FAILPOINTS


def test_bytes_and_names_are_synced_before_create_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalStore(tmp_path).create(KEY, b"segment")
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append("folder" if path.is_dir() else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    LocalStore(tmp_path).create(KEY.replace("0.p", "1.p"), b"segment")
    assert synced == ["file", "folder"]
    with pytest.raises(AlreadyExists):
        LocalStore(tmp_path).create(KEY, b"late")
    assert synced == ["file", "folder", "file", "folder"]  # what exists may be built on: it is durable too


def test_no_temporary_file_stays_behind_whatever_happens(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    folder.create(KEY, b"segment")
    with pytest.raises(AlreadyExists):
        folder.create(KEY, b"segment")
    folder.put(KEY, b"segment")
    assert [path.name for path in (tmp_path / KEY).parent.iterdir()] == [(tmp_path / KEY).name]


def test_temporary_files_are_no_keys_and_stale_ones_are_swept(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    folder.create(KEY, b"segment")
    fresh, stale = (tmp_path / KEY).with_name(".tmp-fresh"), (tmp_path / KEY).with_name(".tmp-stale")
    for path in (fresh, stale):
        path.write_bytes(b"half")
    long_ago = time.time() - store.STALE_S - 60
    os.utime(stale, (long_ago, long_ago))
    assert folder.list("") == [KEY]
    folder.sweep(layout.folder(layout.PREDICTIONS, TP))
    assert fresh.exists()
    assert not stale.exists()


def test_a_file_that_is_open_has_its_path_as_its_name(tmp_path: Path) -> None:
    """A recording is mapped into memory by it."""
    folder = LocalStore(tmp_path)
    folder.create(KEY, b"segment")
    opened = folder.open(KEY)
    assert opened is not None
    with opened:
        assert opened.name == str(tmp_path / KEY)
        assert opened.read() == b"segment"


def test_what_a_file_system_keeps_at_its_top_is_not_looked_into(tmp_path: Path) -> None:
    """Nobody but root may, and a recording or a root may well be a disk of its own."""
    folder = LocalStore(tmp_path)
    for key in (KEY, "lost+found/#12", "labels/lost+found"):
        folder.put(key, b"")
    assert folder.list("") == ["labels/lost+found", KEY]


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd"])
def test_a_key_cannot_leave_the_root(key: str, tmp_path: Path) -> None:
    for use in (LocalStore(tmp_path).get, LocalStore(tmp_path).list, lambda k: LocalStore(tmp_path).put(k, b"")):
        with pytest.raises(ValueError, match="stays below the root"):
            use(key)


def test_a_root_that_is_a_file_is_a_setting_to_correct(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"file.*set sink\.root"):
        open_chain(LocalStore(tmp_path / "file" / "output")).check()


def test_a_file_in_the_place_of_a_folder_is_a_setting_to_correct(tmp_path: Path) -> None:
    (tmp_path / "predictions").write_bytes(b"")
    for use in (LocalStore(tmp_path).create, LocalStore(tmp_path).put):
        with pytest.raises(SettingsError, match=r"predictions.*set sink\.root"):
            use(KEY, b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_setting_to_correct(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match=r"Permission denied.*sink\.root"):
        open_chain(LocalStore(tmp_path / "output")).check()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EPERM, SettingsError),
        (errno.EACCES, SettingsError),
        (errno.ENOTSUP, SettingsError),
        (errno.EROFS, SettingsError),
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
    ],
)
def test_errors_of_the_system_are_retried_unless_waiting_cannot_help(
    code: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(error, match=os.strerror(code)):
        LocalStore(tmp_path).create(KEY, b"segment")
    assert LocalStore(tmp_path).list("") == []


def test_a_root_that_is_gone_is_no_empty_store_for_whoever_has_seen_it(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path / "output")
    open_chain(folder).check()
    folder.create(KEY, b"segment")
    (tmp_path / "output").rename(tmp_path / "aside")
    for use in (
        folder.get,
        folder.list,
        folder.delete,
        lambda key: folder.put(key, b""),
        lambda k: folder.create(k, b""),
    ):
        with pytest.raises(StoreUnavailable, match=r"output: expected the _sink\.json .* it is gone: .* unmounted"):
            use(KEY)
    assert os.listdir(tmp_path) == ["aside"]
    assert LocalStore(tmp_path / "output").list("") == []  # who has not seen it cannot know
    (tmp_path / "aside").rename(tmp_path / "output")
    assert folder.get(KEY) == b"segment"


@pytest.mark.parametrize("point", ["segment.temp_written", "segment.linked"])
def test_a_root_that_goes_away_in_the_middle_of_a_create_does_not_say_that_it_was_created(
    point: str, tmp_path: Path
) -> None:
    """The name may have been linked below the mount point, on another disk."""

    def at(reached: str) -> None:
        if reached == point:
            (tmp_path / "output" / layout.SINK).rename(tmp_path / "aside")

    folder = LocalStore(tmp_path / "output", failpoint=at)
    open_chain(folder).check()
    with pytest.raises(StoreUnavailable, match="it is gone"):
        folder.create(KEY, b"segment")


def test_a_partition_behind_a_link_is_listed_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk" / "partition-00001"
    for folder in (root / "predictions/topic-frames/partition-00000", disk):
        folder.mkdir(parents=True)
        (folder / "a.parquet").write_bytes(b"a")
    topic = root / "predictions/topic-frames"
    (topic / "partition-00001").symlink_to(disk)
    expected = [f"predictions/topic-frames/partition-0000{number}/a.parquet" for number in (0, 1)]
    assert LocalStore(root).list("predictions") == expected
    for number in range(8):  # to each other, to the root, to what may not end
        (topic / f"partition-1000{number}").symlink_to(topic)
        (disk / f"topic-{number}").symlink_to(root)
        (root / f"topic-{number}").symlink_to(disk.parent)
    (topic / "other").symlink_to("/proc")
    (root / "strange").symlink_to(tmp_path)
    found = LocalStore(root).list("")
    assert {*expected} <= {*found}
    assert len(found) < 200
    assert not any(name.startswith(("strange", "predictions/topic-frames/other")) for name in found)


@pytest.mark.parametrize(
    ("link", "key"),
    [
        ("", "predictions/topic-frames/partition-00000/a.parquet"),
        ("predictions", "predictions/topic-frames/partition-00000/a.parquet"),
        ("_origin", "_origin/topic-frames/partition-00000.json"),
        ("predictions/topic-frames", "predictions/topic-frames/partition-00000/a.parquet"),
        ("predictions/topic-frames/partition-00000", "predictions/topic-frames/partition-00000/a.parquet"),
        ("compacted/traces/topic-frames", "compacted/traces/topic-frames/partition-00000/a.parquet"),
        ("topic-frames", "topic-frames/partition-00000/0.parquet"),  # of a recording
        ("topic-frames/partition-00000", "topic-frames/partition-00000/0.parquet"),
    ],
)
def test_what_is_written_through_a_link_to_another_disk_is_listed(tmp_path: Path, link: str, key: str) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    disk.mkdir()
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(disk)
    written = LocalStore(root)
    written.create(key, b"1")
    written.put(key, b"2")
    assert written.list(link or key.partition("/")[0]) == [key]
    assert len([path for path in disk.rglob("*") if path.is_file()]) == 1
    written.delete(key)
    assert written.list("") == []


@pytest.mark.parametrize("link", ["compacted/traces", "predictions/topic-frames/partition-00000/deeper"])
def test_nothing_is_written_through_a_link_that_no_listing_follows(tmp_path: Path, link: str) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    disk.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(disk)
    with pytest.raises(ChainError, match="a link that no listing follows"):
        LocalStore(root).create(f"{link}/topic-frames/partition-00000/a.parquet", b"")
    assert [*disk.iterdir()] == []


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ETIMEDOUT])
@pytest.mark.parametrize("call", ["create", "put", "delete"])
def test_a_disk_that_does_not_say_whether_a_folder_is_a_link_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    def fail(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    method, data = getattr(LocalStore(tmp_path), call), () if call == "delete" else (b"",)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail)
        patch.setattr(os, "stat", fail)
        with pytest.raises(StoreUnavailable):
            method(KEY, *data)


def test_what_a_file_system_still_takes_is_known_of_a_folder_and_is_nothing_where_it_takes_no_more_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SimpleNamespace(f_bavail=3, f_frsize=4_096, f_files=100, f_favail=7)
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    assert store.free_bytes(LocalStore(tmp_path)) == 12_288
    space.f_favail = 0
    assert store.free_bytes(LocalStore(tmp_path)) == 0
    space.f_files = 0  # btrfs and others count none
    assert store.free_bytes(LocalStore(tmp_path)) == 12_288
    assert store.free_bytes(DictStore()) is None

    def gone(_: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "statvfs", gone)
    assert store.free_bytes(LocalStore(tmp_path)) is None
