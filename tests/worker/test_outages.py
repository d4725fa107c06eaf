"""The store goes away and comes back: the real worker's loop on the real stores, with sockets and disks that fail.

It pauses, holds a bounded number of rows, and goes on by itself; nothing is lost or doubled. Time is the loop's own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import stamina

from adawise.errors import AdawiseError, SettingsError, StoreFull, StoreUnavailable
from adawise.records import Message
from adawise.sink import layout
from adawise.store.store import LocalStore, Store
from adawise.worker.backpressure import Limits
from adawise.worker.events import Event, RetryScheduled
from tests.fakes import FakeSource
from tests.process_log import mounted
from tests.sink.building import DictStore, open_chain
from tests.store.clouds import new_bucket, open_s3, s3_server
from tests.store.faults import Fault, FaultyProxy, Request
from tests.worker.loop import TP, Bench, Journal, held_bytes, images

ROWS, LIMIT, POLL, OUTAGE_S = 160, 40, 8, 40.0
LIMITS = Limits(inflight_bytes=2_000, uncommitted_rows=LIMIT, round_images=8)
CAMERAS = ("north", "south", "east")


class Keeping(Journal):
    """A journal that keeps the errors too. Before and after the outage a busy machine may have some of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.kinds: list[AdawiseError] = []

    def observe(self, event: Event) -> None:
        super().observe(event)
        if isinstance(event, RetryScheduled):
            self.errors.append(str(event.error))
            self.kinds.append(event.error)


class Outage:
    """Drives a worker through an outage that begins after the third segment and ends `OUTAGE_S` later.

    Args:
        store: where it writes.
        begin: makes the store fail.
        end: makes it work again.
    """

    def __init__(self, store: Store, *, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.messages = images(ROWS, *CAMERAS)
        self.source = Pausing(self.messages)
        self.journal = Keeping()
        self.bench = Bench(self.source, store, limits=LIMITS, observer=self.journal)
        self._begin, self._end = begin, end
        self._began_s: float | None = None
        self._before = 0
        self.is_over = False
        self.waits_s: list[float] = []  # while it lasts
        self.errors: list[str] = []
        self.held: list[int] = []  # images computed or read but not in a segment, while it lasts
        self.waiting_bytes: list[int] = []

    def run(self) -> Outage:
        """To the last row."""
        self.bench.run(self._turn)
        return self

    def _turn(self) -> bool:
        committed = sum(commit.rows for _, commit in self.journal.commits)
        if self._began_s is None and len(self.journal.commits) == 3:
            self._began_s = self.bench.now_s
            self._before = len(self.journal.errors)
            self._begin()
        if self._began_s is not None and not self.is_over:
            self.held.append(self.source.delivered - committed)
            self.waiting_bytes.append(held_bytes(self.bench._worker._prefetch))
            if self.bench.now_s > self._began_s + OUTAGE_S:
                self.is_over = True
                self.waits_s = self.journal.waits_s[self._before :]
                self.errors = self.journal.errors[self._before :]
                self._end()
        return committed == ROWS

    def check(self, calm: Store | None = None) -> None:
        """Rows, alphas and states as without an outage; few rows held; not tried more often than the waits allow.

        Args:
            calm: the same store by another way, where nothing fails.
        """
        assert self.is_over
        assert self.waits_s == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0][: len(self.waits_s)]
        assert len(self.waits_s) >= 5
        assert self.source.pauses >= 1
        assert LIMIT < max(self.held) <= LIMIT + 3 * POLL + 3 * 4  # the polls that went over it, and open batches
        assert max(self.waiting_bytes) <= LIMITS.inflight_bytes
        self.bench.store = calm or self.bench.store
        self.bench.check_against(self.messages, Bench(FakeSource(self.messages, finite=True)).run())


class Pausing(FakeSource):
    """Counts what it is asked and what it gave."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__(messages, max_poll_records=POLL)
        self.pauses = 0

    def pause(self, tps: object) -> None:
        self.pauses += 1
        super().pause(tps)  # type: ignore[arg-type]

    @property
    def delivered(self) -> int:
        """Messages so far; of one partition, from offset 0."""
        return max(self._positions.values(), default=0)


@pytest.fixture
def no_waits() -> Iterator[None]:
    """One try of a request, then the worker's waits, in the loop's time."""
    with stamina.set_testing(True, attempts=1):
        yield


def test_a_store_that_refuses_connections_for_a_while_pauses_the_worker_and_loses_nothing(
    no_waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{new_bucket()}/output"
    with FaultyProxy(s3_server()) as proxy:
        store = open_s3(monkeypatch, proxy.address, url)
        outage = Outage(store, begin=proxy.down, end=proxy.up).run()
    outage.check(open_s3(monkeypatch, s3_server(), url))
    assert all("s3://" in error and "tries again" in error for error in outage.errors)


@pytest.mark.parametrize("fault", [Fault.FAILED_AFTER, Fault.WITHHELD])
def test_a_store_that_does_what_is_asked_and_never_says_so_loses_and_doubles_nothing(
    fault: Fault, no_waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, patience = f"s3://{new_bucket()}/output", {"AWS_TIMEOUT": "500ms"} if fault is Fault.WITHHELD else {}
    lying = False

    def script(request: Request) -> Fault:
        return fault if lying else Fault.NONE

    def turn(how: bool) -> None:
        nonlocal lying
        lying = how

    with FaultyProxy(s3_server(), script) as proxy:
        store = open_s3(monkeypatch, proxy.address, url, **patience)
        outage = Outage(store, begin=lambda: turn(True), end=lambda: turn(False)).run()
    monkeypatch.delenv("AWS_TIMEOUT", raising=False)
    outage.check(open_s3(monkeypatch, s3_server(), url))


def test_between_two_polls_a_store_that_does_not_answer_is_asked_for_one_partition_alone() -> None:
    """One that is silent costs a time-out each time, and without polls the broker would take the partitions away."""
    tps = range(4)
    messages = [m for n in tps for m in images(60, f"north-{n}", partition=n)]
    source = FakeSource(messages, partitions=len(tps), max_poll_records=32)
    requests: list[int] = []  # the number of polls before each create

    class Silent(DictStore):
        def create(self, key: str, data: bytes) -> None:
            if key.startswith(layout.PREDICTIONS) and bench.now_s < OUTAGE_S:
                requests.append(source.polls)
                raise StoreUnavailable("no answer")
            super().create(key, data)

    bench = Bench(source, Silent())
    bench.run(lambda: bench.rows == len(messages))
    assert len(requests) > 4 * len(tps)
    assert len(set(requests)) == len(requests)
    bench.check_against(messages)


def remount_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def test_a_full_disk_is_named_leaves_no_part_of_a_file_and_is_gone_on_with_once_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        ballast = disk / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass

        def make_room() -> None:
            found.extend(path for path in (disk / "output").rglob("*") if path.is_file())
            ballast.unlink()

        found: list[Path] = []
        outage = Outage(LocalStore(disk / "output"), begin=fill, end=make_room).run()
        outage.check()
        assert all("expected room for a file, but: No space left on device; free space" in e for e in outage.errors)
        assert set(map(type, outage.journal.kinds)) == {StoreFull}
        segments = [path for path in found if path.parts[-3:-1] == ("topic-frames", "partition-00000")]
        assert len(segments) == 3 * 2  # three segments with their traces, whole
        assert not [path for path in found if path.name.startswith(".tmp")]


def test_a_store_that_is_read_only_is_a_setting_to_correct(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        with pytest.raises(SettingsError, match=r"Read-only file system; set sink\.root"):
            open_chain(LocalStore(disk / "output")).check()
        assert os.listdir(disk) == []


def test_a_disk_that_becomes_read_only_stops_the_worker_with_the_remedy(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        outage = Outage(
            LocalStore(disk / "output"),
            begin=lambda: remount_read_only(disk),
            end=lambda: None,
        )
        with pytest.raises(SettingsError, match=r"Read-only file system; set sink\.root"):
            outage.run()


@pytest.mark.parametrize("left_behind", ["nothing", "an empty folder", "another output"])
def test_a_root_that_goes_away_is_not_made_anew_and_is_gone_on_with_once_it_is_back(
    left_behind: str, tmp_path: Path
) -> None:
    """As a disk that is unmounted: what is found at its place is the mount point, or another disk."""
    root, aside = tmp_path / "output", tmp_path / "aside"
    left: dict[str, bytes] = (
        {"_sink.json": b'{"layout": 1, "sink": "another"}'} if left_behind == "another output" else {}
    )

    def unmount() -> None:
        root.rename(aside)
        if left_behind != "nothing":
            root.mkdir()
        for name, data in left.items():
            (root / name).write_bytes(data)

    def mount() -> None:
        assert {path.name: path.read_bytes() for path in root.glob("*")} == left
        assert root.exists() == (left_behind != "nothing")
        for name in left:
            (root / name).unlink()
        if root.exists():
            root.rmdir()
        aside.rename(root)

    outage = Outage(LocalStore(root), begin=unmount, end=mount).run()
    outage.check()
    assert all(f"{root}: expected the _sink.json that was there before" in error for error in outage.errors)
    assert all("unmounted, moved or removed; mount or restore it" in error for error in outage.errors)


def test_a_partition_that_comes_while_the_root_is_gone_is_recovered_when_it_is_back(tmp_path: Path) -> None:
    """Without a segment to be seen, its chain would begin a second time."""
    root, aside = tmp_path / "output", tmp_path / "aside"
    messages = images(ROWS, *CAMERAS)
    source = FakeSource(messages[: ROWS // 2])
    bench = Bench(source, LocalStore(root))

    def turn() -> bool:
        match len(bench.seen.lost), len(bench.seen.waits_s):
            case 0, 0 if root.exists() and bench.rows == ROWS // 2:
                root.rename(aside)
                root.mkdir()
                source.lose(TP)
                source.assign(TP)
                source.append(*messages[ROWS // 2 :])
            case 1, 3 if aside.exists():
                root.rmdir()  # which an empty folder alone allows
                aside.rename(root)
        return not aside.exists() and bench.rows == ROWS

    bench.run(turn)
    assert len(bench.seen.recovered) == 2
    bench.check_against(messages)
