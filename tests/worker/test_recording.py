"""The worker records what it reads: the loop over fakes. Real processes are in test_recording_kills.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adawise.errors import Lost, SourceError, StoreUnavailable
from adawise.ports import TopicIdentity
from adawise.recording.buffer import FilePolicy
from adawise.recording.files import listing_of
from adawise.recording.folder import RecordingFolder
from adawise.recording.format import Retention
from adawise.recording.recorder import Recorder
from adawise.recording.source import RecordingSource
from adawise.recording.write_ahead import WorkerRecorder
from adawise.records import Gap, Message, Missing, TopicPartition
from adawise.store.store import LocalStore
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import TP, Bench, bad, images
from tests.worker.recordings import AtOnce, recorded

IDENTITY = TopicIdentity("fake-cluster", "fake-topic", 1)
CAMERAS = ("north", "south", "east")
MESSAGES = [*images(60, *CAMERAS), bad(60), *images(40, *CAMERAS, first=61)]
SMALL = FilePolicy(max_messages=7, max_bytes=1 << 20, max_age_s=60.0)
BY_SEGMENTS = FilePolicy(max_messages=10_000, max_bytes=1 << 20, max_age_s=60.0)


class Died(Exception):
    """The process was killed here."""


def recorder(root: Path, source: FakeSource, *, policy: FilePolicy = BY_SEGMENTS, **changes: Any) -> WorkerRecorder:
    """A recording of what is read from `source`."""
    arguments: dict[str, Any] = {"max_buffered_bytes": 1 << 20, "pool": AtOnce()}
    options = {name: changes.pop(name) for name in ("store", "failpoint", "retention") if name in changes}
    streams = changes.get("streams")
    folder = RecordingFolder(str(root), topic="frames", identity=source.known, streams=streams, **options)
    return WorkerRecorder(folder, check=source.log.check, policy=policy, **(arguments | changes))


def firsts(root: Path) -> list[int]:
    return [file.first for file in listing_of(str(root), LocalStore(root), TP).files]


@pytest.mark.parametrize("policy", [SMALL, BY_SEGMENTS])
def test_every_message_is_in_the_recording_before_its_rows_are_in_a_segment(tmp_path: Path, policy: FilePolicy) -> None:
    source = FakeSource(MESSAGES, finite=True, max_poll_records=5)
    bench = Bench(source, recorder=recorder(tmp_path, source, policy=policy))
    ends: list[int] = []
    bench.at = lambda point: ends.append(len(recorded(tmp_path))) if point == "segment.encoded" else None
    bench.run().check_against(MESSAGES)
    assert recorded(tmp_path) == MESSAGES
    nexts = [footer.next for _, footer in read_segment_footers(bench.store)]
    assert len(nexts) > 3
    assert all(end >= following for end, following in zip(ends, nexts, strict=True))


def test_a_replay_of_the_worker_s_own_recording_gives_its_output_bit_by_bit(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES, finite=True, max_poll_records=5)
    live = Bench(source, recorder=recorder(tmp_path, source)).run()
    again = Bench(RecordingSource(str(tmp_path), order="timestamp", seed=0, max_poll_records=9)).run()
    again.check_against(MESSAGES, live)


@pytest.mark.parametrize("time", [1, 4])
@pytest.mark.parametrize(
    "point",
    [
        "recording.encoded",
        "recording.temp_written",
        "recording.linked",
        "recording.folder_synced",
        "recording.created",
        "worker.recorded",
        "segment.created",
    ],
)
@pytest.mark.cases("kills", every=3)
def test_a_worker_that_dies_anywhere_is_continued_without_a_message_lost_or_doubled(
    tmp_path: Path, point: str, time: int
) -> None:
    reached = 0

    def die(here: str) -> None:
        nonlocal reached
        reached += here == point
        if here == point and reached == time:
            raise Died

    source, store = FakeSource(MESSAGES, finite=True, max_poll_records=5), DictStore()

    def run() -> None:
        bench = Bench(source, store, recorder=recorder(tmp_path, source, policy=SMALL, failpoint=die))
        bench.at = die
        bench.run()

    with pytest.raises(Died):
        run()
    source = FakeSource(MESSAGES, finite=True, max_poll_records=5)
    Bench(source, store, recorder=recorder(tmp_path, source, policy=SMALL)).run().check_against(MESSAGES)
    assert recorded(tmp_path) == MESSAGES


def test_a_partition_that_comes_back_is_recorded_on_from_where_its_recording_ended(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES, max_poll_records=5)
    bench = Bench(source, recorder=recorder(tmp_path, source, policy=SMALL))

    def rebalance() -> bool:
        if source.polls in (6, 14):
            source.lose(TP)
            source.assign(TP)
        return bench.rows == len(MESSAGES)

    bench.run(rebalance).check_against(MESSAGES)
    assert len(bench.seen.lost) == 2
    assert recorded(tmp_path) == MESSAGES


@pytest.mark.parametrize("ahead", [13, 60, 99])
def test_a_race_for_a_file_that_is_lost_is_no_loss(tmp_path: Path, ahead: int) -> None:
    source = FakeSource(MESSAGES, finite=True, max_poll_records=5)
    mine = recorder(tmp_path, source, policy=SMALL)
    bench = Bench(source, recorder=mine)

    def other(point: str) -> None:
        if point == "worker.recorded" and bench.points.count(point) == 1:
            rival = Recorder(str(tmp_path), topic="frames", identity=IDENTITY, policy=SMALL, max_buffered_bytes=1 << 20)
            begin = rival.next_offset(TP) or 0
            rival.begin(TP, begin)
            rival.append(MESSAGES[begin : begin + ahead], 0.0)
            rival.flush()

    bench.at = other
    bench.run().check_against(MESSAGES)
    assert mine.races_lost >= 1
    assert recorded(tmp_path) == MESSAGES


class Flaky(LocalStore):
    """Fails while `silent`, before or after it has done what it was asked to."""

    silent = False
    after = False
    tries = 0

    def create(self, key: str, data: bytes) -> None:
        if self.silent:
            self.tries += 1
            if self.after:
                super().create(key, data)
            raise StoreUnavailable("silent")
        super().create(key, data)


@pytest.mark.parametrize("after", [False, True])
def test_a_recording_whose_store_is_away_pauses_the_worker_and_loses_nothing(tmp_path: Path, after: bool) -> None:
    store = Flaky(tmp_path)
    store.after = after
    source = FakeSource(MESSAGES, max_poll_records=5)
    recording = recorder(tmp_path, source, store=store)
    bench = Bench(source, recorder=recording)
    began: list[float] = []
    rows: list[int] = []

    def turn() -> bool:
        if not began and len(bench.seen.commits) == 2:
            began.append(bench.now_s)
            store.silent = True
        if began and bench.now_s < began[0] + 40.0:
            rows.append(bench.rows)
        else:
            store.silent = False
        return bench.rows == len(MESSAGES)

    bench.run(turn).check_against(MESSAGES)
    if not after:  # what was done and not said is found by the second try
        assert len(set(rows)) == 1  # no segment without its recording
        assert bench.seen.waits_s[:3] == [1.0, 2.0, 4.0]
    assert (1 if after else 3) <= store.tries < 20
    assert recording.races_lost == 0  # what it wrote itself is its own
    assert recorded(tmp_path) == MESSAGES


def test_what_waits_to_be_recorded_is_bounded(tmp_path: Path) -> None:
    store = Flaky(tmp_path)
    long = images(240, *CAMERAS)
    source = FakeSource(long, max_poll_records=5)
    bound = 50  # one byte an image
    recording = recorder(tmp_path, source, store=store, max_buffered_bytes=bound)
    bench = Bench(source, recorder=recording)
    shares: list[float] = []

    def turn() -> bool:
        store.silent = 0.5 < bench.now_s < 30.0
        shares.append(recording.share)
        return bench.rows == len(long)

    bench.run(turn).check_against(long)
    assert 1.0 < max(shares) <= 1.0 + 10 / bound
    assert recorded(tmp_path) == long


def test_a_recording_that_is_switched_on_later_begins_where_the_chain_goes_on(tmp_path: Path) -> None:
    store = DictStore()
    Bench(FakeSource(MESSAGES[:50], finite=True), store).run()
    source = FakeSource(MESSAGES, finite=True)
    Bench(source, store, recorder=recorder(tmp_path, source)).run().check_against(MESSAGES)
    assert recorded(tmp_path) == MESSAGES[50:]


def test_a_recording_that_was_switched_off_for_a_while_reads_again_what_it_lacks(tmp_path: Path) -> None:
    store = DictStore()
    for until, on in ((40, True), (70, False), (len(MESSAGES), True)):
        source = FakeSource(MESSAGES[:until], finite=True)
        bench = Bench(source, store, recorder=recorder(tmp_path, source) if on else None).run()
    bench.check_against(MESSAGES)
    assert recorded(tmp_path) == MESSAGES


def test_what_the_broker_no_longer_has_is_an_error_or_a_gap_in_the_recording(tmp_path: Path) -> None:
    store = DictStore()
    for until, on in ((40, True), (70, False)):
        source = FakeSource(MESSAGES[:until], finite=True)
        Bench(source, store, recorder=recorder(tmp_path, source) if on else None).run()
    source = FakeSource(MESSAGES, finite=True)
    source.starts[TP] = 65
    with pytest.raises(SourceError, match=r"goes on at offset 40.*before 65.*kafka.on_gap=skip.*record.root"):
        Bench(source, store, recorder=recorder(tmp_path, source)).run()
    source = FakeSource(MESSAGES, finite=True)
    source.starts[TP] = 65
    Bench(source, store, recorder=recorder(tmp_path, source, skip_gaps=True)).run().check_against(MESSAGES)
    assert recorded(tmp_path) == [*MESSAGES[:40], *MESSAGES[65:]]
    gaps = [file.footer().gaps for file in listing_of(str(tmp_path), LocalStore(tmp_path), TP).files]
    assert [gap for each in gaps for gap in each] == [Gap(40, 65)]


def test_a_log_that_ends_before_the_recording_does_stops_the_worker(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES[:40], finite=True)
    Bench(source, recorder=recorder(tmp_path, source)).run()
    source = FakeSource(MESSAGES[:30], finite=True)
    with pytest.raises(SourceError, match=r"goes on at offset 40, but the broker's log ends at 30"):
        Bench(source, recorder=recorder(tmp_path, source)).run()


def test_a_topic_that_was_replaced_gets_into_no_file_of_the_old_one_s_recording(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES, max_poll_records=5)
    bench = Bench(source, recorder=recorder(tmp_path, source))

    def replace() -> bool:
        if len(bench.seen.commits) == 2:
            source.known = TopicIdentity("fake-cluster", "another", 1)
        return False

    with pytest.raises(SourceError, match="created again"):
        bench.run(replace)
    found = recorded(tmp_path)
    assert 0 < len(found) < len(MESSAGES)
    assert found == MESSAGES[: len(found)]


def test_streams_that_are_not_asked_for_are_served_and_not_recorded(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES, finite=True, max_poll_records=5)
    recording = recorder(tmp_path, source, streams="north,e*")
    Bench(source, recorder=recording).run().check_against(MESSAGES)
    assert recorded(tmp_path) == [message for message in MESSAGES if message.key in (b"north", b"east")]


def test_images_that_may_never_be_stored_are_not(tmp_path: Path) -> None:
    secret = [Message("frames", 0, n, b"north", bytes([200 + n])) for n in range(16)]
    source = FakeSource(secret, finite=True)
    Bench(source, recorder=recorder(tmp_path, source, retention=Retention(forget_images_after_s=0.0))).run()
    assert recorded(tmp_path, forgotten="skip") == []
    with pytest.raises(SourceError, match=r"from offset 0 to 15 were removed.*--skip-forgotten"):
        recorded(tmp_path)
    assert firsts(tmp_path)[0] == 0


def test_messages_of_partitions_that_are_not_recorded_are_ignored(tmp_path: Path) -> None:
    source = FakeSource(MESSAGES)
    recording = recorder(tmp_path, source)
    recording.take(Message("frames", 3, 0, None, b"x"))
    recording.forget([TopicPartition("frames", 3)])
    assert recording.share == 0.0


def test_what_nobody_can_read_is_a_gap_of_chain_and_recording_and_of_the_replays_chain(tmp_path: Path) -> None:
    lost = Message("frames", 0, 60, None, None, missing=Missing(45, Lost.BATCH_TOO_LARGE))
    frames = [*MESSAGES[:45], *MESSAGES[61:]]
    source = FakeSource([*MESSAGES[:45], lost, *MESSAGES[61:]], finite=True)
    first = Bench(source, recorder=recorder(tmp_path, source)).run()
    first.check_against(frames)
    assert [message for message in first.dead_letters.sent if message.missing] == [lost]
    assert recorded(tmp_path) == [*MESSAGES[:45], lost, *MESSAGES[61:]]
    again = Bench(RecordingSource(str(tmp_path), order="offset", seed=0, max_poll_records=9)).run()
    again.check_against(frames)
    for bench in (first, again):
        gaps = [gap for _, footer in read_segment_footers(bench.store) for gap in footer.gaps]
        assert gaps == [Gap(45, 61, Lost.BATCH_TOO_LARGE)]
