"""What every source must do, by every implementation: Kafka with a group and without, a recording, the fake."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adawise.errors import Lost, SourceError
from adawise.ports import Source, TopicIdentity
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.source import RecordingSource
from adawise.records import Message, Missing, TopicPartition
from adawise.replay.bounded import BoundedSource
from adawise.replay.paced import PacedSource
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.fakes import FakeSource
from tests.kafka.sources import DEADLINE_S, open_source, produce

PARTITIONS = 3


@dataclass(frozen=True)
class Kind:
    """An implementation: how to open one on a topic of three partitions that holds these messages."""

    name: str
    topic: str
    finite: bool
    open: Callable[[Sequence[Message]], Source]


@pytest.fixture(
    params=[
        *(pytest.param(name, marks=pytest.mark.broker) for name in ("kafka-group", "kafka-all")),
        *("recording-timestamp", "recording-offset", "recording-shuffled", "fake"),
        *("part-whole", "part-paced"),
    ]
)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    name: str = request.param
    implementation, _, variant = name.partition("-")
    with ExitStack() as stack:
        if implementation == "kafka":
            broker: Broker = request.getfixturevalue("broker")
            make: MakeTopic = request.getfixturevalue("topic")
            topic = make(PARTITIONS, configs={"retention.ms": "-1"})  # the messages are dated years ago

            def open_kafka(messages: Sequence[Message]) -> Source:
                produce(broker, messages)
                group = fresh_name("group") if variant == "group" else None
                return stack.enter_context(closing(open_source(broker, topic, group)))

            yield Kind(name, topic, False, open_kafka)
        elif implementation == "recording":

            def open_recording(messages: Sequence[Message]) -> Source:
                write_recording(tmp_path, messages)
                source = RecordingSource(str(tmp_path), order=variant, seed=1, max_poll_records=4)  # type: ignore[arg-type]
                return stack.enter_context(closing(source))

            yield Kind(name, "frames", True, open_recording)
        elif implementation == "part":

            def open_part(messages: Sequence[Message]) -> Source:
                """A topic up to what it has now, as fast as can be or at a pace."""
                whole = FakeSource(messages, partitions=PARTITIONS, max_poll_records=4)
                tps = [TopicPartition("frames", number) for number in range(PARTITIONS)]
                part = BoundedSource(whole, {tp: whole.bounds(tp) for tp in tps})
                return stack.enter_context(closing(PacedSource(part, speed=1e3) if variant == "paced" else part))

            yield Kind(name, "frames", True, open_part)
        else:
            yield Kind(name, "frames", False, lambda m: FakeSource(m, partitions=PARTITIONS, max_poll_records=4))


def write_recording(root: Path, messages: Sequence[Message]) -> None:
    """Files of at most two messages, so that every reader crosses from one to the next."""
    identity = TopicIdentity("cluster", "topic-id", PARTITIONS)
    policy = FilePolicy(max_messages=2, max_bytes=1 << 30, max_age_s=1e9)
    recorder = Recorder(str(root), topic="frames", identity=identity, policy=policy, max_buffered_bytes=1 << 30)
    for partition in range(PARTITIONS):
        recorder.begin(TopicPartition("frames", partition), 0)
    recorder.append(messages, 0.0)
    recorder.flush()


def some_messages(topic: str) -> list[Message]:
    """Seven in partition 0, five in partition 1, none in partition 2; all that a message can be."""
    first = Message(
        topic, 0, 0, b"cam-0", b"\xff\xd8\xff", (("content-type", b"image/jpeg"), ("x", b"")), 1_700_000_000_000
    )
    unusual = [
        replace(first, offset=1, key=None, value=b"", headers=(), timestamp_ms=1_699_999_999_000),
        replace(first, offset=2, value=None),
        replace(first, offset=3, value=bytes(range(256)) * 300, headers=(("double", b"1"), ("double", b"2"))),
    ]
    usual = [replace(first, offset=n, value=b"%d" % n, timestamp_ms=1_700_000_000_000 + n) for n in range(4, 7)]
    other = [replace(m, partition=1, key=b"cam-1") for m in (first, *unusual, usual[0])]
    return [first, *unusual, *usual, *other]


def started(source: Source) -> list[TopicPartition]:
    """Poll until all partitions are assigned; nothing may be delivered meanwhile."""
    assigned: list[TopicPartition] = []
    give_up = time.monotonic() + DEADLINE_S
    while len(assigned) < PARTITIONS:
        assert time.monotonic() < give_up, f"only {assigned} were assigned"
        poll = source.poll(0.1)
        assert not poll.messages
        assert not poll.lost
        assigned += poll.assigned
    return assigned


def begin(source: Source) -> list[TopicPartition]:
    """Own everything and deliver it from its start."""
    tps = started(source)
    for tp in tps:
        source.seek(tp, source.log.origin(tp))
    source.resume(tps)
    return tps


def collect(source: Source, count: int) -> list[Message]:
    """Poll until `count` messages came."""
    found: list[Message] = []
    give_up = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < give_up, f"only {len(found)} of {count} messages came"
        found += source.poll(0.1).messages
    return found


def test_what_nobody_can_read_is_one_message_in_its_place(kind: Kind) -> None:
    if kind.name.startswith("kafka"):
        pytest.skip("what a broker takes can be read: tests/kafka/test_codecs.py")
    before, *_, after = of(some_messages(kind.topic), 0)
    lost = Message(kind.topic, 0, 5, None, None, missing=Missing(1, Lost.BATCH_TOO_LARGE))
    source = kind.open([before, lost, after])
    begin(source)
    assert collect(source, 3) == [before, lost, after]


def of(messages: Sequence[Message], partition: int) -> list[Message]:
    return [m for m in messages if m.partition == partition]


def test_every_partition_is_assigned_and_nothing_is_delivered_before_it_is_sought_and_resumed(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    assert sorted(started(source)) == [TopicPartition(kind.topic, n) for n in range(PARTITIONS)]
    assert not source.poll(0.2).messages
    source.seek(TopicPartition(kind.topic, 0), 0)
    assert not source.poll(0.2).messages


def test_messages_are_delivered_once_unchanged_and_in_offset_order_within_a_partition(kind: Kind) -> None:
    messages = some_messages(kind.topic)
    source = kind.open(messages)
    begin(source)
    found = collect(source, len(messages))
    assert not source.poll(0.2).messages
    for partition in range(PARTITIONS):
        assert of(found, partition) == of(messages, partition)


def test_seek_delivers_from_there_whatever_was_delivered_before(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    begin(source)
    collect(source, 12)
    for offset in (4, 0, 6):
        source.seek(TopicPartition(kind.topic, 0), offset)
        assert [m.offset for m in collect(source, 7 - offset)] == list(range(offset, 7))


def test_a_paused_partition_holds_back_and_goes_on_where_it_stopped(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    tps = started(source)
    tp = TopicPartition(kind.topic, 0)
    for each in tps:
        source.seek(each, 3 if each == tp else 0)
    source.resume(tps)
    source.pause([tp])
    assert {m.partition for m in collect(source, 5)} == {1}
    assert not source.poll(0.2).messages
    source.resume([tp])
    assert [m.offset for m in collect(source, 4)] == [3, 4, 5, 6]


def test_pause_and_seek_together_deliver_nothing_until_resume(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    begin(source)
    collect(source, 12)
    tp = TopicPartition(kind.topic, 1)
    source.pause([tp])
    source.seek(tp, 2)
    assert not source.poll(0.2).messages
    source.resume([tp])
    assert [m.offset for m in collect(source, 3)] == [2, 3, 4]


def test_bounds_and_origin_are_those_of_the_log(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    started(source)
    for partition, end in ((0, 7), (1, 5), (2, 0)):
        tp = TopicPartition(kind.topic, partition)
        assert source.log.bounds(tp) == (0, end)
        assert source.log.origin(tp) == 0


def test_an_offset_is_found_by_its_time_as_the_broker_does(kind: Kind) -> None:
    messages = some_messages(kind.topic)
    source = kind.open(messages)
    tp = TopicPartition(kind.topic, 0)
    for moment in (0, 1_699_999_999_500, 1_700_000_000_005, 1_700_000_000_007):
        expected = next((m.offset for m in of(messages, 0) if m.timestamp_ms >= moment), None)
        assert source.log.offset_at(tp, moment) == expected, moment


def test_timestamps_are_those_of_the_messages_of_a_range_whatever_is_delivered_meanwhile(kind: Kind) -> None:
    messages = some_messages(kind.topic)
    source = kind.open(messages)
    begin(source)
    tp = TopicPartition(kind.topic, 0)
    expected = {} if kind.name.startswith("recording") else {m.offset: m.timestamp_ms for m in of(messages, 0)}
    assert source.log.timestamps(tp, 0, 7) == expected
    assert len(collect(source, 12)) == 12
    for first, until in ((2, 3), (5, 7), (1, 4)):
        found = {offset: at for offset, at in expected.items() if first <= offset < until}
        assert source.log.timestamps(tp, first, until) == found
    assert not source.poll(0.2).messages


def test_identity_counts_the_partitions_and_knows_no_other_topic(kind: Kind) -> None:
    source = kind.open([])
    identity = source.log.identity(kind.topic)
    assert identity.partitions == PARTITIONS
    assert identity.cluster_id
    assert source.log.identity(kind.topic) == identity
    with pytest.raises(SourceError, match="another-topic"):
        source.log.identity("another-topic")


def test_lag_is_unknown_until_sought_and_reaches_zero_when_drained(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    tps = started(source)
    tp = TopicPartition(kind.topic, 0)
    assert source.lag(tp) is None
    assert not source.drained(tp)
    for each in tps:
        source.seek(each, 0)
    source.resume(tps)
    left = 12
    give_up = time.monotonic() + DEADLINE_S
    while left or not all(source.drained(each) for each in tps):
        assert time.monotonic() < give_up
        left -= len(source.poll(0.1).messages)
        lags = [source.lag(each) for each in tps]
        if None not in lags:
            assert sum(filter(None, lags)) == left
    assert [source.lag(each) for each in tps] == [0, 0, 0]
    source.seek(tp, 5)
    assert source.lag(tp) == 2
    assert [source.lag(tp, since) for since in (0, 5, 6, 7, 8)] == [2, 2, 1, 0, 0]
    assert not source.drained(tp)


def test_resuming_before_seeking_and_seeking_what_is_not_owned_are_errors_of_the_caller(kind: Kind) -> None:
    source = kind.open([])
    tps = started(source)
    with pytest.raises(ValueError, match="no offset was sought"):
        source.resume(tps)
    with pytest.raises(ValueError, match="cannot seek"):
        source.seek(TopicPartition(kind.topic, PARTITIONS), 0)


def test_pausing_and_resuming_what_is_not_owned_is_none_of_its_business(kind: Kind) -> None:
    source = kind.open([])
    begin(source)
    stranger = TopicPartition(kind.topic, PARTITIONS)
    source.pause([stranger])
    source.resume([stranger])
    source.poll(0.0)


def test_commit_never_raises(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    begin(source)
    collect(source, 12)
    source.commit({TopicPartition(kind.topic, 0): 7, TopicPartition(kind.topic, PARTITIONS): 1})
    source.commit({})
    source.poll(0.0)


def test_only_what_is_finite_is_ever_exhausted(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    began = source.exhausted
    begin(source)
    collect(source, 12)
    source.poll(0.0)
    ended = source.exhausted
    source.seek(TopicPartition(kind.topic, 0), 0)
    assert (began, ended, source.exhausted) == (False, kind.finite, False)


def test_closing_twice_is_closing_once(kind: Kind) -> None:
    source = kind.open(some_messages(kind.topic))
    begin(source)
    source.close()
    source.close()
