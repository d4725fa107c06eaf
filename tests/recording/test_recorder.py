from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from adawise.errors import BrokerUnavailable, Lost, SourceError
from adawise.ports import TopicIdentity
from adawise.recording import format as layout
from adawise.recording.buffer import Buffer, merged
from adawise.recording.format import MANIFEST
from adawise.recording.recorder import FilePolicy, Recorder, RecordingProgress, Runs
from adawise.recording.run import Bounds, record
from adawise.recording.source import RecordingSource
from adawise.records import Gap, Message, Missing, TopicPartition
from tests.brokers import Broker, MakeTopic
from tests.fakes import FakeSource
from tests.kafka.sources import numbered, open_source, produce
from tests.worker.recordings import read_all

TP = TopicPartition("frames", 0)
NEVER = FilePolicy(max_messages=1 << 60, max_bytes=1 << 60, max_age_s=1e9)


def recorder_in(
    root: Path,
    *,
    policy: FilePolicy = NEVER,
    identity: TopicIdentity | None = None,
    topic: str = "frames",
    max_buffered_bytes: int = 1 << 60,
    **options: Any,
) -> Recorder:
    known = identity or TopicIdentity("fake-cluster", "fake-topic", 1)
    return Recorder(
        str(root), topic=topic, identity=known, policy=policy, max_buffered_bytes=max_buffered_bytes, **options
    )


def messages(first: int, count: int, partition: int = 0, size: int = 10) -> list[Message]:
    return [Message("frames", partition, n, None, bytes(size), timestamp_ms=n) for n in range(first, first + count)]


def files(root: Path, partition: int = 0) -> list[int]:
    """The first offsets of a partition's files."""
    folder = root / layout.folder(TopicPartition("frames", partition))
    return sorted(int(path.stem) for path in folder.glob("*.parquet"))


def replayed(root: Path, topic: str = "frames") -> list[Message]:
    source = RecordingSource(str(root), order="timestamp", seed=0, max_poll_records=1000)
    assert source.log.identity(topic).partitions
    return read_all(source)


class Clock:
    """Each look at it takes `step_s`."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize(
    ("messages", "size_bytes", "age_s", "due"),
    [(3, 0, 0.0, True), (0, 100, 0.0, True), (0, 0, 5.0, True), (2, 99, 4.9, False)],
)
def test_a_file_is_complete_by_count_or_bytes_or_age(messages: int, size_bytes: int, age_s: float, due: bool) -> None:
    policy = FilePolicy(max_messages=3, max_bytes=100, max_age_s=5.0)
    assert policy.due(messages, size_bytes, age_s) is due


def test_what_is_recorded_comes_back_unchanged(tmp_path: Path) -> None:
    sent = messages(0, 25)
    recorder = recorder_in(tmp_path, policy=FilePolicy(10, 1 << 30, 1e9))
    done = record(FakeSource(sent), recorder, Bounds(until_drained=True))
    assert (done.messages, done.size_bytes, done.files) == (25, 250, 3)
    assert files(tmp_path) == [0, 10, 20]
    assert replayed(tmp_path) == sent


def test_files_are_cut_by_bytes_and_by_age(tmp_path: Path) -> None:
    by_bytes = recorder_in(tmp_path / "bytes", policy=FilePolicy(1 << 30, 40, 1e9))
    record(FakeSource(messages(0, 10)), by_bytes, Bounds(until_drained=True))
    assert files(tmp_path / "bytes") == [0, 4, 8]
    by_age = recorder_in(tmp_path / "age", policy=FilePolicy(1 << 30, 1 << 30, 5.0))
    by_age.begin(TP, 0)
    by_age.append(messages(0, 2), now_s=100.0)
    by_age.flush_due(now_s=104.9)
    assert files(tmp_path / "age") == []
    by_age.flush_due(now_s=105.0)
    assert files(tmp_path / "age") == [0]


def test_the_largest_file_is_cut_early_when_all_partitions_together_hold_too_much(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, max_buffered_bytes=100)
    for partition in (0, 1):
        recorder.begin(TopicPartition("frames", partition), 0)
    recorder.append([*messages(0, 7, partition=0), *messages(0, 4, partition=1)], 0.0)
    assert files(tmp_path, 0) == [0]
    assert files(tmp_path, 1) == []


def test_a_later_run_goes_on_after_the_newest_file(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 10))
    record(source, recorder_in(tmp_path), Bounds(max_messages=4))
    assert files(tmp_path) == [0]
    done = record(FakeSource(messages(0, 10)), recorder_in(tmp_path), Bounds(until_drained=True))
    assert done.messages == 6
    assert files(tmp_path) == [0, 4]
    assert replayed(tmp_path) == messages(0, 10)


def test_the_group_hears_of_what_is_durable_and_of_nothing_else(tmp_path: Path) -> None:
    source, received = FakeSource(messages(0, 30), max_poll_records=4, finite=True), list[tuple[int, int]]()

    def report(recorded: RecordingProgress) -> None:
        durable = sum(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet"))
        received.append((source.committed.get(TP, 0), durable))

    record(source, recorder_in(tmp_path, policy=replace(NEVER, max_messages=10)), on_progress=report)
    assert all(committed <= durable for committed, durable in received)
    assert {committed for committed, _ in received} >= {0, 10, 20}
    assert source.committed == {TP: 30}


def test_of_runs_of_which_one_was_cut_off_messages_are_counted_once_they_are_stored(tmp_path: Path) -> None:
    source, runs = FakeSource(messages(0, 30), finite=True), Runs()
    with runs.of(recorder_in(tmp_path, policy=replace(NEVER, max_messages=10)), source) as cut:
        cut.begin(TP, 0)
        cut.append(messages(0, 15), 0.0)
        assert (runs.recorded.messages, runs.taken) == (10, 15)
    with runs.of(recorder_in(tmp_path), source) as rest:
        record(source, rest)
    assert (cut.recorded.messages, rest.recorded.messages) == (15, 20)
    whole = runs.recorded
    assert (whole.messages, whole.stored, whole.files) == (30, 30, 2)


def test_the_summary_of_a_run_says_what_was_left_out_and_why() -> None:
    added = RecordingProgress(messages=3, size_bytes=2048, files=2)
    text = "3 messages (2 KiB) of topic frames added to recordings/yard, in 2 files"
    assert added.summary("frames", "recordings/yard") == text
    assert replace(added, left_out=2, nameless=1, missing=4).summary("frames", "recordings/yard") == (
        f"{text}; 2 messages of other streams were left out, 1 of them name no stream in key or headers; 4 offsets "
        "could not be read, which the recording notes (the log has the reasons)"
    )


def test_a_run_without_anything_new_writes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        record(FakeSource(messages(0, 3)), recorder_in(tmp_path), Bounds(until_drained=True))
    assert files(tmp_path) == [0]


def test_recording_stops_at_each_limit(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 100), max_poll_records=7)
    assert record(source, recorder_in(tmp_path / "messages"), Bounds(max_messages=10)).messages == 10
    source = FakeSource(messages(0, 100), max_poll_records=7)
    assert record(source, recorder_in(tmp_path / "bytes"), Bounds(max_bytes=95)).messages == 10
    source = FakeSource(max_poll_records=7)
    assert record(source, recorder_in(tmp_path / "time"), Bounds(max_seconds=5.0), clock=Clock(1.0)).messages == 0
    assert record(source, recorder_in(tmp_path / "never"), stop=lambda: True).messages == 0
    assert [len(replayed(tmp_path / name)) for name in ("messages", "bytes", "time")] == [10, 10, 0]


def test_progress_is_told_after_each_poll(tmp_path: Path) -> None:
    seen: list[RecordingProgress] = []
    source = FakeSource(messages(0, 9), max_poll_records=4)
    record(source, recorder_in(tmp_path), Bounds(until_drained=True), on_progress=seen.append)
    assert [each.messages for each in seen] == [0, 4, 8, 9]


def test_what_was_read_is_written_when_the_broker_goes_away(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 5))

    def fail_at_the_end(done: RecordingProgress) -> None:
        if done.messages == 5:
            source.fail(BrokerUnavailable("gone"))

    with pytest.raises(BrokerUnavailable):
        record(source, recorder_in(tmp_path), on_progress=fail_at_the_end)
    assert replayed(tmp_path) == messages(0, 5)


def test_a_lost_partition_is_dropped_and_read_again_when_it_comes_back(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 6), max_poll_records=2)

    def rebalance(done: RecordingProgress) -> None:
        if source.polls == 3:
            source.lose(TP)
            source.assign(TP)

    done = record(source, recorder_in(tmp_path), Bounds(until_drained=True), on_progress=rebalance)
    assert done.messages == 4 + 6
    assert files(tmp_path) == [0]
    assert replayed(tmp_path) == messages(0, 6)


def test_a_recording_of_another_topic_or_of_its_successor_is_not_continued(tmp_path: Path) -> None:
    recorder_in(tmp_path)
    recorder_in(tmp_path)
    for changes in (
        {"topic": "other"},
        {"identity": TopicIdentity("fake-cluster", "created-again", 1)},
        {"streams": "camera-*"},
    ):
        with pytest.raises(SourceError, match="Record into a new folder"):
            recorder_in(tmp_path, **changes)


@pytest.mark.parametrize(("start", "kept"), [(7, range(7, 12)), (0, range(2))])
def test_a_gap_or_a_lost_log_ends_the_recording_with_the_bounds_named(
    tmp_path: Path, start: int, kept: Sequence[int]
) -> None:
    record(FakeSource(messages(0, 5)), recorder_in(tmp_path), Bounds(until_drained=True))
    later = FakeSource([m for n in kept for m in messages(n, 1)])
    later.starts[TP] = start
    with pytest.raises(SourceError, match=rf"goes on at offset 5, but the topic holds \[{start}, {kept[-1] + 1}\)"):
        record(later, recorder_in(tmp_path), Bounds(until_drained=True))


def test_two_recorders_of_the_same_partition_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first, second = recorder_in(tmp_path), recorder_in(tmp_path)
    for recorder in (first, second):
        recorder.begin(TP, 0)
    first.append(messages(0, 3), 0.0)
    second.append(messages(0, 5), 0.0)
    first.flush()
    with pytest.raises(SourceError, match="another recorder"):
        second.flush()
    assert replayed(tmp_path) == messages(0, 3)


def test_a_damaged_newest_file_is_named_and_not_written_over(tmp_path: Path) -> None:
    record(FakeSource(messages(0, 5)), recorder_in(tmp_path), Bounds(until_drained=True))
    path = tmp_path / layout.key_of(TP, 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"0{20}\.parquet"):
        record(FakeSource(messages(0, 9)), recorder_in(tmp_path), Bounds(until_drained=True))


@pytest.mark.parametrize("polls", [1, 3])
def test_a_topic_that_is_replaced_under_a_recorder_gets_into_no_file(tmp_path: Path, polls: int) -> None:
    source = FakeSource(messages(0, 40), max_poll_records=5)

    def replace(done: RecordingProgress) -> None:
        if source.polls == polls:
            source.known = TopicIdentity("fake-cluster", "created-again", 1)

    recorder = recorder_in(tmp_path, policy=FilePolicy(4, 1 << 30, 1e9), check=source.log.check)
    with pytest.raises(SourceError, match="deleted and created again"):
        record(source, recorder, Bounds(until_drained=True), on_progress=replace)
    assert replayed(tmp_path) == messages(0, 5 * (polls - 1) // 4 * 4)


def test_a_broker_that_cannot_say_what_topic_it_is_has_what_was_read_read_again(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 10), max_poll_records=5)

    def silent() -> None:
        raise BrokerUnavailable("silent")

    with pytest.raises(BrokerUnavailable):
        record(source, recorder_in(tmp_path, policy=FilePolicy(4, 1 << 30, 1e9), check=silent))
    assert files(tmp_path) == []
    record(FakeSource(messages(0, 10)), recorder_in(tmp_path), Bounds(until_drained=True))
    assert replayed(tmp_path) == messages(0, 10)


def test_each_partition_ends_before_its_first_message_from_then_on(tmp_path: Path) -> None:
    sent = [*messages(0, 20, partition=0), *messages(0, 8, partition=1)]
    known = TopicIdentity("fake-cluster", "fake-topic", 2)
    source = FakeSource(sent, partitions=2, max_poll_records=6, identity=known)
    record(source, recorder_in(tmp_path, identity=known), Bounds(until_ms=11))
    assert files(tmp_path, 0) == files(tmp_path, 1) == [0]
    found = replayed(tmp_path)
    assert [m.offset for m in found if m.partition == 0] == list(range(11))
    assert [m.offset for m in found if m.partition == 1] == list(range(8))
    source = FakeSource(sent, partitions=2, identity=known)
    record(source, recorder_in(tmp_path, identity=known), Bounds(until_drained=True))
    assert len(replayed(tmp_path)) == 28


def test_streams_that_are_not_asked_for_leave_holes_that_are_no_damage(tmp_path: Path) -> None:
    keys = [b"gate-1", b"yard", None, b"gate-2", b"\xff"]
    sent = [Message("frames", 0, n, keys[n % 5], b"x", timestamp_ms=n) for n in range(60)]
    sent.append(Message("frames", 0, 60, None, b"x", (("stream-id", b"gate-9"),), 60))
    sent += [Message("frames", 0, n, b"yard", b"x", timestamp_ms=n) for n in range(61, 90)]
    options: dict[str, Any] = {"policy": FilePolicy(10, 1 << 30, 1e9), "streams": "gate-*"}
    for until in (37, 90):
        done = record(FakeSource(sent[:until]), recorder_in(tmp_path, **options), Bounds(until_drained=True))
    wanted = [m for m in sent if (m.key or b"").startswith(b"gate") or m.headers]
    assert replayed(tmp_path) == wanted
    assert files(tmp_path)[:5] == [0, 10, 20, 30, 37]
    assert (done.messages, done.left_out, done.nameless) == (10, 43, 10)
    assert recorder_in(tmp_path, **options).next_offset(TP) == 90  # what was left out need not be read again
    assert json.loads((tmp_path / MANIFEST).read_text())["streams"] == "gate-*"


def test_two_recorders_that_begin_at_different_offsets_agree_on_one(tmp_path: Path) -> None:
    first, second = recorder_in(tmp_path), recorder_in(tmp_path)
    assert first.folder.begin(TP, 7) == 7
    assert second.folder.begin(TP, 9) == 7


@pytest.mark.needs("times")
def test_a_recording_of_a_kafka_topic_begins_and_ends_at_a_time(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name = topic(1, configs={"retention.ms": "-1"})
    sent = [replace(m, timestamp_ms=1_700_000_000_000 + 1000 * m.offset) for m in numbered(name, 0, 30)]
    produce(broker, sent)
    with closing(open_source(broker, name, None, origin=1_700_000_010_000)) as source:
        recorder = recorder_in(tmp_path, topic=name, identity=source.log.identity(name), check=source.log.check)
        record(source, recorder, Bounds(until_ms=1_700_000_020_000, max_seconds=60.0))
    assert [m.offset for m in replayed(tmp_path, name)] == list(range(10, 20))


def test_a_topic_is_recorded_without_a_group_and_replayed_equal(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name = topic(2)
    sent = [m for n in range(2) for m in numbered(name, n, 40)]
    produce(broker, sent[:20])
    for _ in range(2):  # the second run goes on where the first ended
        with closing(open_source(broker, name, None)) as source:
            recorder = recorder_in(tmp_path, topic=name, identity=source.log.identity(name))
            record(source, recorder, Bounds(until_drained=True, max_seconds=60.0))
        if len(replayed(tmp_path, name)) == 20:
            produce(broker, sent[20:])
    found = replayed(tmp_path, name)
    for partition in range(2):
        here = [m for m in found if m.partition == partition]
        assert [m.value for m in here] == [m.value for m in sent if m.partition == partition]
        assert [m.offset for m in here] == list(range(40))
        assert all(m.timestamp_ms > 0 for m in here)


def missing(first: int, last: int) -> Message:
    return Message("frames", 0, last, None, None, missing=Missing(first, Lost.BATCH_DAMAGED))


def test_what_nobody_can_read_is_a_gap_with_its_reason_and_no_message_of_any_stream(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, streams="yard-*")
    recorder.begin(TP, 3)
    recorder.append([missing(2, 9), missing(12, 14)], 0.0)
    recorder.append([missing(1, 14)], 0.0)
    recorder.flush()
    assert recorder.recorded == RecordingProgress(0, 0, 1, recorder.recorded.stored_bytes, missing=10)
    footer = pq.read_metadata(tmp_path / layout.key_of(TP, 3)).metadata[b"adawise.recording"]
    assert json.loads(footer)["gaps"] == [[3, 10, "batch_damaged"], [12, 15, "batch_damaged"]]
    assert replayed(tmp_path) == [missing(3, 9), missing(12, 14)]


def test_a_file_that_has_only_what_nobody_can_read_is_written_in_time(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path, policy=replace(NEVER, max_age_s=60.0))
    recorder.begin(TP, 0)
    recorder.append([missing(0, 5)], 10.0)
    recorder.flush_due(69.0)
    assert files(tmp_path) == []
    recorder.flush_due(70.0)
    assert files(tmp_path) == [0]


def test_of_what_another_recorder_wrote_the_rest_of_a_gap_is_kept() -> None:
    first, second = Buffer(0, 0), Buffer(10, 10)
    first.add(missing(2, 9), wanted=False, now_s=0.0)
    second.add(missing(10, 12), wanted=False, now_s=5.0)
    kept = merged(first, second, 7)
    assert kept.gaps == (Gap(7, 10, Lost.BATCH_DAMAGED), Gap(10, 13, Lost.BATCH_DAMAGED))
    assert (kept.first, kept.next, kept.began_s) == (7, 13, 0.0)
    assert merged(first, second, 13).gaps == ()


def test_a_replay_that_begins_in_a_gap_is_told_the_rest_of_it(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    recorder.begin(TP, 0)
    recorder.append([missing(0, 9), *messages(10, 2)], 0.0)
    recorder.flush()
    with closing(RecordingSource(str(tmp_path), order="offset", seed=0, max_poll_records=9)) as source:
        (tp,) = source.poll(0.0).assigned
        source.seek(tp, 4)
        source.resume([tp])
        assert source.poll(0.0).messages == [missing(4, 9), *messages(10, 2)]
        assert source.drained(tp)


def test_a_recording_ends_where_a_partition_stands_with_all_else_and_an_error(tmp_path: Path) -> None:
    source = FakeSource(messages(0, 5), partitions=2)
    source.append(*messages(0, 3, partition=1))
    source.standing = {TopicPartition("frames", 1)}
    recorder = recorder_in(tmp_path, identity=source.known)
    with pytest.raises(SourceError, match=r"frames/1 cannot be read to the end.*kafka.on_unreadable=skip"):
        record(source, recorder, Bounds(until_drained=True))
    assert files(tmp_path) == [0]
    source = FakeSource(messages(0, 5), partitions=2)
    source.standing = {TopicPartition("frames", 1)}
    assert record(source, recorder_in(tmp_path / "few", identity=source.known), Bounds(max_messages=2)).messages == 2
