"""Batches on a real broker: every codec of every client is read; bombs and damage cost nobody else a message."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from kafka import KafkaProducer

from adawise.errors import Lost, SourceError
from adawise.kafka import unreadable
from adawise.kafka.batches import BatchLimits
from adawise.kafka.log import KafkaLog, read_whole
from adawise.kafka.source import KafkaSource
from adawise.ports import Poll
from adawise.recording.recorder import FilePolicy, Recorder
from adawise.recording.run import Bounds, record
from adawise.recording.source import RecordingSource
from adawise.records import Gap, Message, Missing, TopicPartition
from tests.brokers import KAFKA, Broker, MakeTopic
from tests.kafka.batches import batch, bomb, empty_records, send
from tests.kafka.damage import damage
from tests.kafka.sources import consume, numbered, open_source, poll_until, produce, take_over

CODECS = ["gzip", "snappy", "lz4", "zstd"]
COUNT = 300
LIMITS = BatchLimits(1 << 20, 1_000)
FILES = FilePolicy(max_messages=1_000, max_bytes=1 << 20, max_age_s=60.0)

real = pytest.mark.needs("end_offsets", "message_limits")  # a broker that keeps batches as they were sent


def values(messages: list[Message]) -> list[bytes | None]:
    return [message.value for message in messages]


@pytest.mark.parametrize("codec", CODECS)
def test_what_kafka_pythons_producer_compresses_is_read(broker: Broker, topic: MakeTopic, codec: str) -> None:
    name = topic()
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","), compression_type=codec, linger_ms=500
    )
    with closing(producer):
        for message in numbered(name, 0, COUNT):
            producer.send(name, message.value, partition=0)
    with closing(open_source(broker, name, None)) as source:
        assert values(consume(source, COUNT)) == values(numbered(name, 0, COUNT))


@real
@pytest.mark.check("brokers")
@pytest.mark.parametrize("codec", CODECS)
def test_what_javas_producer_compresses_is_read(broker: Broker, topic: MakeTopic, codec: str) -> None:
    libs = KAFKA.parent / "libs"
    if not libs.is_dir():
        pytest.skip("Java's client is not here: deploy/kafka/kafka fetch")
    name = topic()
    java = ["java", "-cp", f"{libs}/*", str(Path(__file__).parents[1] / "kafka" / "Produce.java")]
    subprocess.run([*java, broker.bootstrap_servers, name, "0", codec, str(COUNT)], check=True, capture_output=True)
    with closing(open_source(broker, name, None)) as source:
        assert values(consume(source, COUNT)) == values(numbered(name, 0, COUNT))


def with_bombs(broker: Broker, name: str) -> list[Message]:
    """A topic of good messages and two bombs, and what must come of it."""
    good = batch([(b"cam", b"0:0"), (b"cam", b"0:1")])
    assert send(broker, name, 0, good, bomb("zstd", 2 << 20), good, empty_records("gzip", 5_000), good) == [
        *(0, 2, 3, 5, 5_005)
    ]
    return [
        *numbered(name, 0, 2),
        Message(name, 0, 2, None, None, missing=Missing(2, Lost.BATCH_TOO_LARGE)),
        *numbered(name, 0, 2),
        Message(name, 0, 5_004, None, None, missing=Missing(5, Lost.BATCH_TOO_MANY_RECORDS)),
        *numbered(name, 0, 2),
    ]


def place(message: Message) -> tuple[Any, ...]:
    """What a message says, of one that is missing which offsets and why."""
    missing = message.missing
    return (message.value,) if missing is None else (missing.first, message.offset, missing.reason)


@real
def test_bombs_are_delivered_as_what_is_missing_in_their_place(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    expected = with_bombs(broker, name)
    with closing(open_source(broker, name, None, batch_limits=LIMITS)) as source:
        found = consume(source, len(expected))
        assert [place(message) for message in found] == [place(message) for message in expected]
        poll_until(source, lambda _: source.drained(TopicPartition(name, 0)))
        assert "unpacks from" in (found[2].missing or Missing(0, Lost.DELETED)).detail
    assert [message.value for message in whole(broker, name)] == values(numbered(name, 0, 2)) * 3


def whole(broker: Broker, name: str) -> list[Message]:
    """By what dead letters and other look-ups read."""
    with closing(open_source(broker, name, None, batch_limits=LIMITS)) as source:
        return list(read_whole(source))


@real
def test_a_recording_has_what_is_missing_with_its_reason_and_a_replay_sees_the_same(
    broker: Broker, topic: MakeTopic, tmp_path: Path
) -> None:
    name = topic()
    expected = with_bombs(broker, name)
    with closing(open_source(broker, name, None, batch_limits=LIMITS)) as source:
        done = record(source, recorder_of(source, tmp_path, name), Bounds(until_drained=True))
    assert (done.messages, done.missing) == (6, 5_001)
    replayed = RecordingSource(str(tmp_path), order="offset", seed=0, max_poll_records=100)
    with closing(replayed):
        take_over_all(replayed)
        assert [place(m) for m in replayed.poll(0.0).messages] == [place(m) for m in expected]
        assert replayed.exhausted


def take_over_all(source: RecordingSource) -> None:
    tps = source.poll(0.0).assigned
    for tp in tps:
        source.seek(tp, source.log.origin(tp))
    source.resume(tps)


def recorder_of(source: KafkaSource, root: Path, name: str) -> Recorder:
    return Recorder(str(root), topic=name, identity=source.log.identity(name), policy=FILES, max_buffered_bytes=1 << 20)


@real
def test_what_is_asked_for_a_chain_beside_its_topic_leaves_bombs_out(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    with_bombs(broker, name)
    log = KafkaLog(
        bootstrap_servers=broker.bootstrap_servers,
        client_id="test",
        max_partition_fetch_bytes=1 << 20,
        batch_limits=LIMITS,
        security={},
    )
    with closing(log):
        tp = TopicPartition(name, 0)
        assert log.messages(tp, 0, log.bounds(tp)[1])[0].tolist() == [0, 1, 3, 4, 5_005, 5_006]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands is tried again at once."""
    monkeypatch.setattr(unreadable, "AGAIN_S", 0.2)
    monkeypatch.setattr(unreadable, "SURE_S", 0.2)


def two_partitions(broker: Broker, topic: MakeTopic) -> str:
    """Each with batches of offsets 0 to 4, 5 to 9 and 10 to 14."""
    name = topic(2)
    for first in (0, 5, 10):
        produce(broker, [m for n in range(2) for m in numbered(name, n, 5, first)])
    return name


def came(source: KafkaSource, done: Callable[[Poll], bool]) -> list[list[bytes | None]]:
    take_over(source, poll_until(source, lambda poll: len(poll.assigned) == 2).assigned)
    messages = poll_until(source, done).messages
    return [[m.value for m in messages if m.partition == n] for n in range(2)]


@real
@pytest.mark.usefixtures("quick")
def test_a_damaged_batch_stops_its_partition_alone_until_it_can_be_read(broker: Broker, topic: MakeTopic) -> None:
    name = two_partitions(broker, topic)
    tp, other = TopicPartition(name, 0), TopicPartition(name, 1)
    with closing(open_source(broker, name, None)) as source:
        with damage(0, 7):
            found = came(source, lambda poll: len(poll.messages) == 20)
            assert found == [values(numbered(name, 0, 5)), values(numbered(name, 1, 15))]
            assert not poll_until(source, lambda _: source.drained(other)).messages
            source.pause([tp])
            source.resume([tp])
            assert (source.blocked(tp), source.drained(tp), source.lag(tp)) == (True, False, 10)
            source.seek(tp, 0)
            assert not source.blocked(tp), "it is read from elsewhere"
            again = poll_until(source, lambda poll: len(poll.messages) == 5).messages
            assert values(list(again)) == values(numbered(name, 0, 5))
            poll_until(source, lambda _: source.blocked(tp))
            produce(broker, numbered(name, 1, 5, 15))
            assert len(poll_until(source, lambda poll: len(poll.messages) == 5).messages) == 5
        assert values(list(poll_until(source, lambda poll: len(poll.messages) == 10).messages)) == values(
            numbered(name, 0, 10, 5)
        )
        assert not source.blocked(tp)


@real
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("offset", [7, 12], ids=["in the middle", "at the end"])
def test_if_so_set_a_damaged_batch_is_left_out(broker: Broker, topic: MakeTopic, offset: int) -> None:
    name = two_partitions(broker, topic)
    with closing(open_source(broker, name, None, on_unreadable="skip")) as source, damage(0, offset):
        take_over(source, poll_until(source, lambda poll: len(poll.assigned) == 2).assigned)
        messages = poll_until(source, lambda poll: len(poll.messages) == 26).messages
        poll_until(source, lambda _: source.drained(TopicPartition(name, 0)))
    first = offset // 5 * 5
    (missing,) = [m for m in messages if m.missing is not None]
    assert place(missing) == (first, first + 4, Lost.BATCH_DAMAGED)
    read = [m.offset for m in messages if m.partition == 0 and m.missing is None]
    assert read == [n for n in range(15) if not first <= n < first + 5]


@real
@pytest.mark.usefixtures("quick")
def test_damage_that_claims_to_reach_beyond_the_log_costs_nothing_that_comes_later(
    broker: Broker, topic: MakeTopic
) -> None:
    name = two_partitions(broker, topic)
    with closing(open_source(broker, name, None, on_unreadable="skip")) as source, damage(0, 12, delta=40):
        take_over(source, poll_until(source, lambda poll: len(poll.assigned) == 2).assigned)
        poll_until(source, lambda poll: len(poll.messages) == 26)
        produce(broker, numbered(name, 0, 5, 15))
        assert values(list(poll_until(source, lambda poll: len(poll.messages) == 5).messages)) == values(
            numbered(name, 0, 5, 15)
        )


@real
@pytest.mark.usefixtures("quick")
def test_a_recording_of_what_stands_has_all_else_and_says_so(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    name = two_partitions(broker, topic)
    with closing(open_source(broker, name, None)) as source, damage(0, 7):
        recorder = recorder_of(source, tmp_path, name)
        with pytest.raises(SourceError, match=f"{name}/0 cannot be read to the end.*kafka.on_unreadable=skip"):
            record(source, recorder, Bounds(until_drained=True))
        assert recorder.recorded.messages == 20
        assert len(whole(broker, name)) == 20
    with closing(open_source(broker, name, None)) as source:
        assert record(source, recorder_of(source, tmp_path, name), Bounds(until_drained=True)).messages == 10


@real
@pytest.mark.usefixtures("quick")
def test_a_recording_that_goes_past_damage_has_the_gap(broker: Broker, topic: MakeTopic, tmp_path: Path) -> None:
    name = two_partitions(broker, topic)
    with closing(open_source(broker, name, None, on_unreadable="skip")) as source, damage(0, 7):
        done = record(source, recorder_of(source, tmp_path, name), Bounds(until_drained=True))
        assert (done.messages, done.missing) == (25, 5)
    files = sorted(tmp_path.glob("topic-*/partition-00000/*.parquet"))
    (footer,) = [json.loads(pq.read_metadata(file).metadata[b"adawise.recording"]) for file in files]
    assert [Gap.of(gap) for gap in footer["gaps"]] == [Gap(5, 10, Lost.BATCH_DAMAGED)]
