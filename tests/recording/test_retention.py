"""Old files go, images go before them; whatever dies half-way, readers and recorders find one contiguous recording."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from adawise.__main__ import main
from adawise.errors import Lost, SourceError
from adawise.ports import TopicIdentity
from adawise.recording import format as layout
from adawise.recording.buffer import Buffer, Draft
from adawise.recording.files import listing_of, partitions_of
from adawise.recording.format import Retention
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.retention import EVERY_S, RecordingRetention, Tidied, tidying
from adawise.recording.source import RecordingSource
from adawise.records import Message, Missing, TopicPartition
from adawise.store.store import LocalStore
from tests.worker.recordings import AtOnce, recorded

TP = TopicPartition("frames", 0)
IDENTITY = TopicIdentity("cluster", "topic-id", 1)
FOUR = FilePolicy(max_messages=4, max_bytes=1 << 40, max_age_s=1e9)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 100 * DAY_MS


class Died(Exception):
    """The process was killed here."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder's clock: the day on which everything is recorded."""
    monkeypatch.setattr("time.time_ns", lambda: NOW_MS * 1_000_000)


def hourly(count: int, first: int = 0) -> list[Message]:
    """One message an hour; the last of 24 came an hour before `NOW_MS`."""
    return [
        Message("frames", 0, n, b"camera", b"image %d" % n, (("label", b"cat"),), NOW_MS - DAY_MS + n * HOUR_MS)
        for n in range(first, first + count)
    ]


def write(root: Path, messages: Sequence[Message], **options: Any) -> Recorder:
    recorder = Recorder(
        str(root), topic="frames", identity=IDENTITY, policy=FOUR, max_buffered_bytes=1 << 40, **options
    )
    recorder.begin(TP, recorder.folder.begin(TP, messages[0].offset))
    recorder.append(messages, 0.0)
    recorder.flush()
    return recorder


def tidy(root: Path, now_ms: int = NOW_MS, *, at: Any = lambda _: None, **retention: Any) -> Tidied:
    store = LocalStore(root)
    keeper = RecordingRetention(str(root), store, Retention(**retention), failpoint=at, now_ms=lambda: now_ms)
    return keeper.tidy(partitions_of(store))


def names(root: Path) -> list[str]:
    return sorted(path.name.lstrip("0") for path in (root / layout.folder(TP)).iterdir() if path.suffix != "")


def test_files_of_which_every_message_is_too_old_are_removed_and_the_recording_begins_later(tmp_path: Path) -> None:
    write(tmp_path, hourly(24))
    done = tidy(tmp_path, keep_s=12 * 3600.0)
    assert (done.removed, done.forgotten, done.errors) == (3, 0, ())
    assert recorded(tmp_path) == hourly(12, first=12)
    assert names(tmp_path) == ["12.parquet", "12.start", "16.parquet", "20.parquet"]
    assert tidy(tmp_path, keep_s=12 * 3600.0).removed == 0


def test_a_file_with_one_message_that_is_young_enough_stays_and_keeps_what_comes_after_it(tmp_path: Path) -> None:
    messages = hourly(24)
    young = Message("frames", 0, 2, None, b"late", (), NOW_MS - HOUR_MS)
    write(tmp_path, [*messages[:2], young, *messages[3:]])
    assert tidy(tmp_path, keep_s=12 * 3600.0).removed == 0


def test_a_time_that_has_not_come_keeps_nothing_for_ever(tmp_path: Path) -> None:
    write(tmp_path, [Message("frames", 0, n, None, b"x", (), NOW_MS + 1000 * DAY_MS) for n in range(8)])
    assert tidy(tmp_path, NOW_MS + DAY_MS, keep_s=3600.0).removed == 2


def test_a_recording_of_which_everything_was_removed_goes_on_where_it_ended(tmp_path: Path) -> None:
    recorder = write(tmp_path, hourly(10))
    assert tidy(tmp_path, NOW_MS + DAY_MS, keep_s=3600.0).removed == 3
    assert recorded(tmp_path) == []
    assert recorder.next_offset(TP) == 10
    write(tmp_path, hourly(6, first=10))
    assert recorded(tmp_path) == hourly(6, first=10)
    source = RecordingSource(str(tmp_path), order="timestamp", seed=0, max_poll_records=9)
    with closing(source):
        assert source.log.bounds(TP) == (10, 16)


def test_images_go_when_they_were_stored_long_enough_and_all_else_stays(tmp_path: Path) -> None:
    write(tmp_path, [*hourly(3), Message("frames", 0, 3, b"camera", None, (), NOW_MS)])
    assert tidy(tmp_path, NOW_MS + HOUR_MS - 1, forget_images_after_s=3600.0).forgotten == 0
    assert tidy(tmp_path, NOW_MS + HOUR_MS, forget_images_after_s=3600.0).forgotten == 1
    assert names(tmp_path) == [".redacted.parquet"]
    assert not any(b"image 0" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    rows = pq.read_table(tmp_path / layout.key_of(TP, 0, "redacted")).to_pylist()
    assert [row["offset"] for row in rows] == [0, 1, 2, 3]
    assert rows[0] == {
        "topic": "frames",
        "partition": 0,
        "offset": 0,
        "key": b"camera",
        "headers": [{"key": "label", "value": b"cat"}],
        "timestamp_ms": NOW_MS - DAY_MS,
        "value_bytes": 7,
        "value_sha256": hashlib.sha256(b"image 0").digest(),
    }
    assert (rows[3]["value_bytes"], rows[3]["value_sha256"]) == (None, None)  # a tombstone remains one


def test_a_replay_says_which_range_has_no_images_or_goes_on_without_it(tmp_path: Path) -> None:
    recorder = write(tmp_path, hourly(8))
    tidy(tmp_path, NOW_MS + DAY_MS, forget_images_after_s=3600.0)
    write(tmp_path, hourly(4, first=8))
    with pytest.raises(SourceError, match=r"frames/0 from offset 0 to 3 were removed.*Begin after them.*--skip"):
        recorded(tmp_path)
    assert recorded(tmp_path, forgotten="skip") == hourly(4, first=8)
    assert recorder.next_offset(TP) == 12
    with closing(RecordingSource(str(tmp_path), order="timestamp", seed=0, max_poll_records=9)) as source:
        tps = source.poll(0.0).assigned
        source.seek(TP, 8)
        source.resume(tps)
        assert source.poll(0.0).messages == hourly(4, first=8)
        assert source.log.offset_at(TP, NOW_MS - DAY_MS + 5 * HOUR_MS) == 5


def test_images_that_are_never_to_be_stored_are_in_no_file_at_any_time(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def check(_: str) -> None:
        seen.extend(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    write(tmp_path, hourly(9), retention=Retention(forget_images_after_s=0.0), failpoint=check)
    assert seen
    assert not any(b"image %d" % n in data for data in seen for n in range(9))
    assert recorded(tmp_path, forgotten="skip") == []


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize(
    "point", ["recording.started", "recording.removed", "recording.redacted", "recording.forgotten"]
)
def test_a_pass_that_dies_half_way_leaves_a_whole_recording_and_the_next_one_finishes(
    tmp_path: Path, point: str, time: int
) -> None:
    write(tmp_path, hourly(24))
    reached = 0

    def die(here: str) -> None:
        nonlocal reached
        reached += here == point
        if here == point and reached == time:
            raise Died

    promise: dict[str, Any] = {"keep_s": 12 * 3600.0, "forget_images_after_s": 0.0}
    if (point, time) == ("recording.started", 2):
        return  # it is reached once a pass
    with pytest.raises(Died):
        tidy(tmp_path, at=die, **promise)
    whole = recorded(tmp_path, forgotten="skip")
    assert whole == hourly(len(whole), first=24 - len(whole))
    assert tidy(tmp_path, **promise).errors == ()
    assert names(tmp_path) == ["12.redacted.parquet", "12.start", "16.redacted.parquet", "20.redacted.parquet"]


@pytest.mark.parametrize("promise", [{"keep_s": 3600.0}, {"forget_images_after_s": 60.0}])
def test_a_recorder_that_slept_cannot_bring_back_what_was_removed(tmp_path: Path, promise: dict[str, Any]) -> None:
    sleeper = write(tmp_path, hourly(4))
    asleep = Buffer(4, 4)
    for message in hourly(6, first=4):
        asleep.add(message, wanted=True, now_s=0.0)
    write(tmp_path, hourly(9, first=4))
    tidy(tmp_path, NOW_MS + DAY_MS, **promise)
    created = sleeper.folder.create(Draft(TP, asleep))
    assert (created.won, created.next) == (False, 13)
    write(tmp_path, hourly(4, first=13))
    assert recorded(tmp_path, forgotten="skip") == hourly(4, first=13)
    assert tidy(tmp_path, NOW_MS + DAY_MS, **promise).leftovers == 0


def test_what_an_earlier_pass_left_behind_is_no_part_of_the_recording_and_is_removed(tmp_path: Path) -> None:
    write(tmp_path, hourly(8))
    kept = (tmp_path / layout.key_of(TP, 0)).read_bytes()
    tidy(tmp_path, keep_s=20 * 3600.0)
    (tmp_path / layout.key_of(TP, 0)).write_bytes(kept)
    assert recorded(tmp_path) == hourly(4, first=4)
    assert list(listing_of(str(tmp_path), LocalStore(tmp_path), TP).voids) == [layout.key_of(TP, 0)]
    assert tidy(tmp_path, keep_s=20 * 3600.0).leftovers == 1


def test_a_damaged_file_is_told_of_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path, hourly(8))
    path = tmp_path / layout.key_of(TP, 0)
    path.write_bytes(path.read_bytes()[:-9])
    done = tidy(tmp_path, NOW_MS + DAY_MS, keep_s=3600.0)
    assert path.exists()
    assert "0.parquet" in done.errors[0]


def test_a_promise_may_be_kept_better_but_not_worse(tmp_path: Path) -> None:
    write(tmp_path, hourly(4), retention=Retention(keep_s=7200.0, forget_images_after_s=3600.0))
    again = write(tmp_path, hourly(4, first=4))
    assert again.folder.retention == Retention(keep_s=7200.0, forget_images_after_s=3600.0)
    shorter = write(tmp_path, hourly(4, first=8), retention=Retention(keep_s=60.0))
    assert shorter.folder.retention == Retention(keep_s=60.0, forget_images_after_s=3600.0)
    with pytest.raises(SourceError, match="promises --forget-images-after 3600s, but 7200s was given"):
        write(tmp_path, hourly(4, first=12), retention=Retention(forget_images_after_s=7200.0))


def test_a_folder_that_nobody_records_into_is_pruned_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, hourly(8), retention=Retention(keep_s=20 * 3600.0))  # now is the fixture's day
    assert main(["record", "-o", str(tmp_path), "--prune-only"]) == 0
    assert "1 files removed, 0 without images now" in capsys.readouterr().out
    assert main(["record", "-o", str(tmp_path), "--prune-only", "--forget-images-after", "0s"]) == 0
    assert "0 files removed, 1 without images now" in capsys.readouterr().out
    assert main(["record", "-o", str(tmp_path / "no"), "--prune-only"]) == 1
    assert "holds no _recording.json" in capsys.readouterr().err


def test_passes_are_made_in_the_background_one_a_minute_and_told(tmp_path: Path) -> None:
    write(tmp_path, hourly(8))
    store = LocalStore(tmp_path)
    now_ms = NOW_MS
    keeper = RecordingRetention(str(tmp_path), store, Retention(keep_s=7 * 86_400.0), now_ms=lambda: now_ms)
    received: list[Tidied] = []
    passes = tidying(keeper, finished=received.append, failed=lambda _: None, pool=AtOnce())
    for now_s in (0.0, 1.0):
        passes.turn([TP], now_s)
    assert received == []
    now_ms += 30 * DAY_MS
    for now_s in (EVERY_S, 1.0 + EVERY_S, 2.0 + EVERY_S):
        passes.turn([TP], now_s)
    passes.close()
    assert [done.removed for done in received] == [2]


def test_files_with_images_and_without_are_one_table_in_other_tools(tmp_path: Path) -> None:
    write(tmp_path, hourly(8))
    tidy(tmp_path, NOW_MS + DAY_MS, forget_images_after_s=3600.0)
    write(tmp_path, hourly(4, first=8))
    query = f"""select count(*), count(value), count(value_sha256), sum(coalesce(value_bytes, octet_length(value)))
        from read_parquet('{tmp_path}/topic-*/*/*.parquet', union_by_name = true)"""
    with closing(duckdb.connect()) as connection:
        assert connection.sql(query).fetchall() == [(12, 4, 8, 7 * 10 + 8 * 2)]


def test_what_nobody_could_read_stays_a_gap_with_its_reason_when_the_images_go(tmp_path: Path) -> None:
    lost = Message("frames", 0, 5, None, None, missing=Missing(2, Lost.BATCH_TOO_LARGE))
    write(tmp_path, [*hourly(2), lost, *hourly(2, first=6)])
    assert recorded(tmp_path) == [*hourly(2), lost, *hourly(2, first=6)]
    assert tidy(tmp_path, NOW_MS + DAY_MS, forget_images_after_s=3600.0).forgotten > 0
    assert recorded(tmp_path, forgotten="skip") == [lost]
    kept = [pq.read_table(path)["offset"].to_pylist() for path in tmp_path.rglob("*.redacted.parquet")]
    assert sorted(offset for offsets in kept for offset in offsets) == [0, 1, 6, 7]
