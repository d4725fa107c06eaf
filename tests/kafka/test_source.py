"""KafkaSource on a real broker: what is special to Kafka. What any source must do is in tests/contracts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import cast

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import IllegalStateError, KafkaTimeoutError
from kafka.protocol.metadata.find_coordinator import CoordinatorType

from adawise.errors import BrokerUnavailable, Lost, SettingsError, SourceError
from adawise.kafka import source as kafka_module
from adawise.kafka.batches import Unread
from adawise.kafka.client import message_of
from adawise.kafka.embedded import EmbeddedBroker
from adawise.kafka.source import KafkaSource
from adawise.records import Message, TopicPartition
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.kafka.sources import (
    DEADLINE_S,
    BytesName,
    consume,
    consume_all,
    numbered,
    open_source,
    poll_until,
    produce,
    recreate,
    share,
    take_over,
)
from tests.processes import Started


def committed(broker: Broker, group: str, tp: TopicPartition) -> int | None:
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, group_id=group)) as consumer:
        offset: int | None = consumer.committed(KafkaPartition(*tp))
        return offset


def topics_of(broker: Broker) -> list[str]:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        names: list[str] = admin.list_topics()
        return names


def test_a_missing_topic_is_named_with_the_remedy_and_not_created(broker: Broker) -> None:
    name = fresh_name("missing")
    with pytest.raises(SourceError, match=rf"{name}.*Create the topic"):
        open_source(broker, name, fresh_name("group"))
    assert name not in topics_of(broker)


def test_a_broker_that_is_not_there_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.kafka.client.BOOTSTRAP_TIMEOUT_MS", 300)
    nowhere = Broker("127.0.0.1:1", "none", "nowhere", frozenset())
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1.*Check that the broker is running.*adawise broker"):
        open_source(nowhere, "frames", "group")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"security": {"security_protocol": "SSL", "ssl_cafile": "no-such-file.pem"}}, "kafka.security"),
        ({"security": {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "MAGIC"}}, "kafka.security"),
        ({"session_timeout_ms": 0}, "session"),
    ],
)
def test_settings_that_cannot_work_are_settings_errors(
    broker: Broker, topic: MakeTopic, changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adawise.kafka.client.BOOTSTRAP_TIMEOUT_MS", 2_000)
    name = topic()

    def join() -> None:
        with closing(open_source(broker, name, fresh_name("group"), **changes)) as source:
            poll_until(source, lambda poll: bool(poll.assigned))

    with pytest.raises(SettingsError, match=message):
        join()


def test_members_share_the_partitions_and_the_one_that_stays_gets_all_back(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(4), fresh_name("group")
    everything = {TopicPartition(name, n) for n in range(4)}
    with closing(open_source(broker, name, group)) as first:
        with closing(open_source(broker, name, group)) as second:
            shares = share([first, second], each=2)
            assert shares[0] | shares[1] == everything
            with pytest.raises(ValueError, match="cannot seek"):
                first.seek(min(shares[1]), 0)
        back = poll_until(first, lambda poll: len(poll.assigned) == 2)
        assert set(back.assigned) == shares[1]
        assert not back.lost


def test_a_partition_that_moves_is_lost_here_assigned_there_and_read_there_alone(
    broker: Broker, topic: MakeTopic
) -> None:
    name, group = topic(2), fresh_name("group")
    with ExitStack() as stack:
        first = stack.enter_context(closing(open_source(broker, name, group)))
        take_over(first, poll_until(first, lambda poll: len(poll.assigned) == 2).assigned)
        second = stack.enter_context(closing(open_source(broker, name, group)))
        moved = poll_until(first, lambda poll: bool(poll.lost), second)
        assert len(moved.lost) == 1
        assert not moved.assigned
        coordinator = first._consumer._coordinator
        assert coordinator.rejoin_needed
        assert coordinator._join_task is None  # nobody gets the partition before the next poll
        produce(broker, [m for n in range(2) for m in numbered(name, n, 5)])
        here, there = consume_all([first, second], 10)
        assert {m.topic_partition for m in there} == set(moved.lost)
        assert {m.topic_partition for m in here}.isdisjoint(moved.lost)


MEMBER = """
import sys
from adawise.kafka.source import KafkaSource
from adawise.kafka.batches import BatchLimits
source = KafkaSource(
    bootstrap_servers=sys.argv[1], topic=sys.argv[2], group=sys.argv[3], origin="earliest", client_id="member",
    static_member=None, session_timeout_ms=6000, max_poll_interval_ms=60000, max_poll_records=500,
    max_partition_fetch_bytes=1 << 20, batch_limits=BatchLimits(1 << 20, 1000), on_unreadable="stop", security={},
)
while True:
    for tp in source.poll(0.1).assigned:
        print(tp.partition, flush=True)
"""


@contextmanager
def member(broker: Broker, topic: str, group: str) -> Iterator[subprocess.Popen[str]]:
    """Another worker's process in the group; it prints the number of each partition that it gets."""
    command = [sys.executable, "-c", MEMBER, broker.bootstrap_servers, topic, group]
    with Started(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_partitions_of_a_killed_process_come_to_the_survivor(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(2), fresh_name("group")
    with member(broker, name, group) as process:
        assert process.stdout is not None
        assert {process.stdout.readline().strip() for _ in range(2)} == {"0", "1"}
        with closing(open_source(broker, name, group)) as survivor:
            process.kill()
            poll_until(survivor, lambda poll: {tp.partition for tp in poll.assigned} == {0, 1})


def test_a_process_that_stood_still_past_its_session_is_replaced_and_hears_of_its_loss(
    broker: Broker, topic: MakeTopic
) -> None:
    name, group = topic(1), fresh_name("group")
    with member(broker, name, group) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "0"
        os.kill(process.pid, signal.SIGSTOP)
        with closing(open_source(broker, name, group)) as heir:
            poll_until(heir, lambda poll: bool(poll.assigned))
        os.kill(process.pid, signal.SIGCONT)
        # The heir has left: the old member can only print the partition again if it noticed that it had lost it.
        assert process.stdout.readline().strip() == "0"


@pytest.mark.needs("poll_interval_eviction")
def test_a_member_that_did_not_poll_in_time_reports_its_partitions_lost(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(1), fresh_name("group")
    tp = TopicPartition(name, 0)
    with closing(open_source(broker, name, group, max_poll_interval_ms=6_000)) as slow:
        take_over(slow, poll_until(slow, lambda poll: bool(poll.assigned)).assigned)
        with closing(open_source(broker, name, group)) as heir:
            poll_until(heir, lambda poll: bool(poll.assigned))  # while `slow` does not poll
            produce(broker, numbered(name, 0, 3))
            first = slow.poll(0.05)
            assert list(first.lost) == [tp]
            assert not first.messages
            slow.commit({tp: 3})  # nobody's to commit any more, and not worth an exception
            assert slow.lag(tp) is None


def test_offsets_are_committed_for_the_lag_tools_even_by_the_last_act(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(2), fresh_name("group")
    tp, other = TopicPartition(name, 0), TopicPartition(name, 1)
    produce(broker, numbered(name, 0, 3))
    with closing(open_source(broker, name, group)) as source:
        consume(source, 3)
        source.commit({tp: 3, TopicPartition(name, 7): 5, TopicPartition("another", 0): 5})
    assert committed(broker, group, tp) == 3
    assert committed(broker, group, other) is None


def test_the_groups_offsets_are_found_although_another_broker_coordinates_it_by_now(
    broker: Broker, topic: MakeTopic
) -> None:
    name, group = topic(1), fresh_name("group")
    tp = TopicPartition(name, 0)
    produce(broker, numbered(name, 0, 3))
    with closing(open_source(broker, name, group)) as source:
        consume(source, 3)
        source.commit({tp: 3})
    with closing(open_source(broker, name, group)) as source:
        source._topics._admin._manager.cluster._coordinators[CoordinatorType.GROUP, group] = 77
        assert source.committed()[tp][0] == 3


def test_committed_offsets_do_not_decide_where_reading_begins(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(), fresh_name("group")
    tp = TopicPartition(name, 0)
    produce(broker, numbered(name, 0, 5))
    for _ in range(2):
        with closing(open_source(broker, name, group)) as source:
            assert [m.offset for m in consume(source, 5)] == [0, 1, 2, 3, 4]
            source.commit({tp: 5})


def test_header_names_of_any_bytes_are_delivered_and_hold_nothing_up(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    tricky = b"\xff\xfe"
    sent = [
        Message(name, 0, 0, b"cam", b"good"),
        Message(name, 0, 1, b"cam", b"v" + tricky, ((BytesName(tricky), tricky), ("content-type", b"image/jpeg"))),
        Message(name, 0, 2, b"cam", None, ((BytesName(b"caf\xe9-\xc3\xa9"), b""), (BytesName(b""), b"empty"))),
        Message(name, 0, 3, b"cam", b"good too", (("stream-id", "höhe".encode()),)),
    ]
    produce(broker, sent)
    with closing(open_source(broker, name, None)) as source:
        found = consume(source, 4)
    assert [m.offset for m in found] == [0, 1, 2, 3]
    assert [m.value for m in found] == [b"good", b"v" + tricky, None, b"good too"]
    assert found[1].headers == (("??", tricky), ("content-type", b"image/jpeg"))
    assert found[2].headers == (("caf?-??", b""), ("", b"empty"))
    assert found[3].headers == (("stream-id", "höhe".encode()),)


def test_the_log_end_is_true_although_the_partition_was_never_read(broker: Broker, topic: MakeTopic) -> None:
    name = topic(2)
    produce(broker, numbered(name, 0, 10))
    with closing(open_source(broker, name, None)) as source:
        assert source.log.bounds(TopicPartition(name, 0)) == (0, 10)
        assert source.log.bounds(TopicPartition(name, 0)) == (0, 10)
        assert source.log.bounds(TopicPartition(name, 1)) == (0, 0)
        produce(broker, numbered(name, 0, 7))
        assert source.log.bounds(TopicPartition(name, 0)) == (0, 17)


def test_a_partition_that_the_topic_does_not_have_is_a_source_error(broker: Broker, topic: MakeTopic) -> None:
    name = topic(2)
    with closing(open_source(broker, name, None)) as source, pytest.raises(SourceError, match=r"has 2 partitions.*/2"):
        source.log.bounds(TopicPartition(name, 2))


def test_latest_begins_at_the_log_end(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    produce(broker, numbered(name, 0, 4))
    with closing(open_source(broker, name, None, origin="latest")) as source:
        assert source.log.origin(TopicPartition(name, 0)) == 4


@pytest.mark.needs("times")
def test_a_time_begins_at_the_first_message_that_is_not_older(broker: Broker, topic: MakeTopic) -> None:
    name = topic(configs={"retention.ms": "-1"})  # the messages are dated years ago
    tp = TopicPartition(name, 0)
    produce(broker, [Message(name, 0, n, None, b"x", timestamp_ms=1_700_000_000_000 + n * 1000) for n in range(5)])
    for origin, expected in ((1_700_000_002_500, 3), (1_700_000_002_000, 2), (0, 0), (1_800_000_000_000, 5)):
        with closing(open_source(broker, name, None, origin=origin)) as source:
            assert source.log.origin(tp) == expected


def test_the_identity_of_a_topic_that_was_created_again_is_another(broker: Broker, topic: MakeTopic) -> None:
    name, other = topic(3), topic(1)
    with closing(open_source(broker, name, None)) as source:
        identity = source.log.identity(name)
        assert identity.partitions == 3
        assert identity.cluster_id
        assert identity.topic_id
        assert source.log.identity(other).topic_id != identity.topic_id
        assert source.log.identity(other).cluster_id == identity.cluster_id


def test_a_topic_that_is_deleted_while_it_is_read_is_noticed(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "_CHECK_S", 0.2)
    name = topic()
    with closing(open_source(broker, name, None)) as source:
        take_over(source, poll_until(source, lambda poll: bool(poll.assigned)).assigned)
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            admin.delete_topics([name])
        with pytest.raises(SourceError, match=name):
            poll_until(source, lambda _: False)


def test_a_topic_that_is_deleted_and_created_again_while_it_is_read_is_noticed(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    with closing(open_source(broker, name, None)) as source:
        take_over(source, poll_until(source, lambda poll: bool(poll.assigned)).assigned)
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            first = source.log.identity(name).topic_id
            admin.delete_topics([name])
            recreate(admin, source, name, first)
        monkeypatch.setattr(kafka_module, "_CHECK_S", 0.0)
        with pytest.raises(SourceError, match="deleted and created again"):
            poll_until(source, lambda _: False)


@pytest.mark.needs("delete_records")
def test_a_position_that_retention_overtook_is_handed_out_again_for_recovery(broker: Broker, topic: MakeTopic) -> None:
    name = topic(2)
    tp, other = TopicPartition(name, 0), TopicPartition(name, 1)
    produce(broker, [*numbered(name, 0, 10), *numbered(name, 1, 3)])
    with closing(open_source(broker, name, None)) as source:
        poll_until(source, lambda poll: len(poll.assigned) == 2)
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            admin.delete_records({KafkaPartition(*tp): 6})
        take_over(source, [other])
        source.seek(tp, 2)
        source.resume([tp])
        event = poll_until(source, lambda poll: bool(poll.lost))
        assert list(event.lost) == list(event.assigned) == [tp]
        assert source.log.bounds(tp) == (6, 10)
        source.seek(tp, 6)
        source.resume([tp])
        rest = poll_until(source, lambda poll: len(event.messages) + len(poll.messages) >= 7)
        assert [m.offset for m in rest.messages if m.topic_partition == tp] == [6, 7, 8, 9]


@pytest.mark.needs("aborted_transactions")
def test_messages_of_an_aborted_transaction_are_not_delivered(broker: Broker, topic: MakeTopic) -> None:
    from kafka import KafkaProducer

    name = topic()
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=fresh_name("producer"))
    with closing(producer):
        producer.init_transactions()
        for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
            producer.begin_transaction()
            producer.send(name, value, partition=0).get(timeout=DEADLINE_S)
            end()
    with closing(open_source(broker, name, None)) as source:
        assert [m.value for m in consume(source, 1)] == [b"committed"]
        # The markers of the transactions take offsets too, and must not look like a lag for ever.
        poll_until(source, lambda _: source.drained(TopicPartition(name, 0)))


def test_drained_is_what_the_broker_says_now_and_not_what_the_last_fetch_knew(broker: Broker, topic: MakeTopic) -> None:
    name = topic()
    tp = TopicPartition(name, 0)
    produce(broker, numbered(*tp, 2))
    with closing(open_source(broker, name, None)) as source:
        consume(source, 2)
        poll_until(source, lambda _: source.drained(tp))
        produce(broker, numbered(*tp, 2), batched=False)
        assert not source.drained(tp)  # nobody has polled since
        consume(source, 2)
        poll_until(source, lambda _: source.drained(tp))


def stop_whole(pid: int) -> None:
    """SIGSTOP, and wait until each of its threads has stopped: until then one of them may still answer."""
    os.kill(pid, signal.SIGSTOP)
    give_up = time.monotonic() + DEADLINE_S
    while any(
        stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    ):
        assert time.monotonic() < give_up, f"process {pid} did not stop"


def test_nothing_is_drained_while_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.kafka.topic._QUICK_MS", 300)
    with EmbeddedBroker() as embedded:
        broker = Broker(embedded.bootstrap_servers, "Tansu", "embedded", frozenset())
        tp = TopicPartition("frames", 0)
        create_topic(broker, tp.topic)
        produce(broker, numbered(*tp, 2))
        with closing(open_source(broker, tp.topic, None)) as source:
            consume(source, 2)
            poll_until(source, lambda _: source.drained(tp))
            assert embedded.pid is not None
            stop_whole(embedded.pid)
            try:
                assert not source.drained(tp)
            finally:
                os.kill(embedded.pid, signal.SIGCONT)


def test_a_broker_that_goes_away_is_an_error_that_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "_CHECK_S", 0.2)
    with EmbeddedBroker() as embedded:
        broker = Broker(embedded.bootstrap_servers, "Tansu", "embedded", frozenset())
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            admin.create_topics({"frames": {"num_partitions": 1, "replication_factor": 1}})
        source = open_source(broker, "frames", None)
    with closing(source), pytest.raises(BrokerUnavailable, match=broker.bootstrap_servers):
        poll_until(source, lambda _: False)


def test_an_error_in_the_rebalance_listener_reaches_the_caller(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adawise.errors import FatalError
    from adawise.kafka.ownership import Ownership

    def broken(self: Ownership, tps: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(Ownership, "note_assigned", broken)
    with closing(open_source(broker, topic(), fresh_name("group"))) as source:
        with pytest.raises(FatalError, match="could not be handled") as caught:
            poll_until(source, lambda _: False)
        chain = caught.value.__cause__
        assert chain is not None
        assert isinstance(chain.__cause__, ZeroDivisionError)


@pytest.mark.needs("static_membership")
def test_a_static_member_finds_its_partitions_waiting_when_it_comes_back(broker: Broker, topic: MakeTopic) -> None:
    name, group = topic(2), fresh_name("group")
    with closing(open_source(broker, name, group, static_member="other", session_timeout_ms=30_000)) as other:
        first = open_source(broker, name, group, static_member="restarted", session_timeout_ms=30_000)
        with closing(first):
            _, mine = share([other, first], each=1)
        with closing(open_source(broker, name, group, static_member="restarted", session_timeout_ms=30_000)) as again:
            assert set(poll_until(again, lambda poll: bool(poll.assigned)).assigned) == mine
            assert not other.poll(0.05).lost


def test_the_embedded_broker_is_asked_nothing_that_it_hangs_up_on(
    embedded_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh_name("embedded")
    create_topic(embedded_broker, name)
    produce(embedded_broker, numbered(name, 0, 1))
    with caplog.at_level("WARNING"), closing(open_source(embedded_broker, name, None, on_compacted="fail")) as source:
        assert len(consume(source, 1)) == 1
    assert [record.getMessage() for record in caplog.records if "disconnected" in record.getMessage()] == []


def failing_once(error: Exception, real: Callable[..., object]) -> Callable[..., object]:
    """A function that raises at its first call."""
    calls: list[None] = []

    def fails(*arguments: object) -> object:
        calls.append(None)
        if len(calls) == 1:
            raise error
        return real(*arguments)

    return fails


def test_an_event_that_settles_in_a_poll_whose_check_fails_is_returned(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(2)
    with closing(open_source(broker, name, fresh_name("group"))) as source:
        away = BrokerUnavailable("the admin's connection is down")
        deadline = time.monotonic() + DEADLINE_S
        assigned: list[TopicPartition] = []
        monkeypatch.setattr(kafka_module, "_CHECK_S", 0.0)  # each poll checks, as one at night does
        monkeypatch.setattr(source.log, "check", failing(away))
        raised = 0
        while raised < 2 and time.monotonic() < deadline:
            try:
                assigned += source.poll(0.1).assigned
            except BrokerUnavailable:
                raised += bool(assigned)
        assert sorted(assigned) == [TopicPartition(name, 0), TopicPartition(name, 1)]
        for tp in assigned:
            source.seek(tp, 0)
        source.resume(assigned)
        source._listener.on_partitions_lost([KafkaPartition(*assigned[0])])  # an expulsion, by kafka-python's IO thread
        lost: list[TopicPartition] = []
        while not lost and time.monotonic() < deadline:
            with suppress(BrokerUnavailable):
                lost += source.poll(0.1).lost
        assert assigned[0] in lost


def failing(error: Exception) -> Callable[..., object]:
    def fails(*_: object, **__: object) -> object:
        raise error

    return fails


def test_messages_that_were_taken_before_a_check_fails_are_returned(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(1)
    tp = TopicPartition(name, 0)
    produce(broker, numbered(name, 0, 40))
    with closing(open_source(broker, name, None, max_poll_records=10)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        real, offsets, failures = source.lag, list[int](), 0
        deadline = time.monotonic() + DEADLINE_S
        while len(offsets) < 40 and time.monotonic() < deadline:
            source._examined_at = 0.0  # once a second in life
            monkeypatch.setattr(source, "lag", failing_once(BrokerUnavailable("a rebalance took it"), real))
            try:
                offsets += [message.offset for message in source.poll(0.1).messages]
            except BrokerUnavailable:
                failures += 1
        assert offsets == list(range(40))
        assert failures > 2


def test_messages_that_cannot_be_made_of_records_are_read_again(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(2)
    tps = [TopicPartition(name, number) for number in range(2)]
    for tp in tps:
        produce(broker, numbered(name, tp.partition, 20))
    with closing(open_source(broker, name, None, max_poll_records=40)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        for tp in tps:
            source.seek(tp, 0)
        source.resume(tps)
        found = set[tuple[int, int]]()
        fails = failing_once(BrokerUnavailable("not now"), message_of)
        monkeypatch.setattr("adawise.kafka.source.message_of", fails)
        deadline, failures, count = time.monotonic() + DEADLINE_S, 0, 0
        while count < 40 and time.monotonic() < deadline:
            try:
                messages = source.poll(0.1).messages
            except BrokerUnavailable:
                failures += 1
                continue
            count += len(messages)
            found |= {(message.partition, message.offset) for message in messages}
        assert (failures, count, len(found)) == (1, 40, 40)


def test_a_lag_that_nobody_can_say_is_not_known_and_no_error(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    tp = TopicPartition(topic(1), 0)
    with closing(open_source(broker, tp.topic, None)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        for error in (KafkaTimeoutError("the coordinator is away"), IllegalStateError("it was taken by a rebalance")):
            monkeypatch.setattr(source._consumer, "position", failing(error))
            assert source.lag(tp) is None


def test_a_fault_of_the_client_in_a_query_that_only_informs_is_logged_once_and_ends_nothing(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a group, whose offset hints ask for the position too."""
    tp, fault = TopicPartition(topic(1), 0), failing(RuntimeError("a bug"))
    with closing(open_source(broker, tp.topic, fresh_name("group"))) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        for method in ("position", "highwater"):
            with monkeypatch.context() as patch:
                patch.setattr(source._consumer, method, fault)
                assert [source.lag(tp), source.lag(tp)] == [None, None]
                source.commit({tp: 0})
                with pytest.raises(RuntimeError, match="a bug"):  # else its open batches would wait for ever
                    source.drained(tp)
        with monkeypatch.context() as patch:
            patch.setattr(source._consumer, "commit_async", fault)
            source.commit({tp: 0})
        with monkeypatch.context() as patch:
            patch.setattr(source._topics, "ends", fault)
            source.pause([tp])
            source._ends_due = 0.0
            source.poll(0.05)
        assert source._ends_due > 0.0  # it was asked
        source._ends_due = 0.0
        source.poll(0.05)
        assert source.lag(tp) == 0
    said = [record.getMessage() for record in caplog.records if "a bug" in record.getMessage()]
    assert "failed (the lag)," in said[0]
    assert "offset hint" in said[1]
    assert "failed (the ends of logs)," in said[2]
    assert len(said) == 3, "a fault of each query once, until it has an answer"


def test_a_lasting_fault_of_one_partition_is_logged_once_until_that_partition_has_an_answer(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic(2)
    sound, failed = TopicPartition(name, 0), TopicPartition(name, 1)

    with closing(open_source(broker, name, None)) as source:
        position = source._consumer.position

        def fails(partition: KafkaPartition, timeout_ms: int | None = None) -> int | None:
            if partition.partition == failed.partition:
                raise RuntimeError("a bug")
            return cast("int | None", position(partition, timeout_ms=timeout_ms))

        def ask() -> list[int | None]:
            source._examined_at = 0.0  # looks for transactions once a second in life
            source._log_transactions()
            assert source.lag(TopicPartition(name, 7)) is None  # not held: neither a failure nor an answer
            return [source.lag(sound), source.lag(failed)]

        def logged() -> int:
            return sum("a bug" in record.getMessage() for record in caplog.records)

        poll_until(source, lambda so_far: len(so_far.assigned) == 2)
        for tp in (sound, failed):
            source.seek(tp, 0)
        source.resume([sound, failed])
        deadline = time.monotonic() + DEADLINE_S
        while ask() != [0, 0] and time.monotonic() < deadline:
            source.poll(0.05)
        for faults in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(source._consumer, "position", fails)
                assert [ask() for _ in range(3)] == [[0, None]] * 3
                patch.setattr(source._consumer, "position", failing(KafkaTimeoutError("no answer")))
                assert source.lag(failed) is None
                patch.setattr(source._consumer, "position", fails)
                assert ask() == [0, None]
                assert logged() == faults
            assert ask() == [0, 0]
        monkeypatch.setattr(source._consumer, "position", fails)
        ask()
        source._owned.note_lost([failed])
        source.poll(0.05)
        assert not any(source._uninformed.values())  # a partition that left has no more answers


def revoking(patch: pytest.MonkeyPatch, source: KafkaSource, answers: int) -> Callable[..., int]:
    """A query of the client that answers so often, and then finds its partition revoked."""
    calls = count()

    def revoked(partition: KafkaPartition, timeout_ms: int | None = None) -> int:
        if next(calls) < answers:
            return 0
        patch.setattr(source._consumer, "assignment", set)
        raise KeyError(partition)

    return revoked


@pytest.mark.parametrize(("method", "answers"), [("position", 0), ("highwater", 0), ("highwater", 1)])
def test_a_partition_that_is_revoked_while_its_position_is_asked_for_is_not_drained_and_no_error(
    method: str,
    answers: int,
    broker: Broker,
    topic: MakeTopic,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tp = TopicPartition(topic(1), 0)
    with closing(open_source(broker, tp.topic, None)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        deadline = time.monotonic() + DEADLINE_S
        while not source.drained(tp) and time.monotonic() < deadline:
            source.poll(0.05)
        for query, before, calm, revoked in ((source.drained, answers, True, False), (source.lag, 0, 0, None)):
            assert query(tp) == calm
            with monkeypatch.context() as patch:
                patch.setattr(source._consumer, method, revoking(patch, source, before))
                assert query(tp) is revoked
                assert tp.partition not in {each.partition for each in source._consumer.assignment()}
    assert not [record for record in caplog.records if "a query about" in record.getMessage()]


def test_the_guessed_end_of_a_damaged_batch_is_not_used_once_its_partition_is_revoked(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    tp = TopicPartition(topic(1), 0)
    produce(broker, numbered(tp.topic, 0, 5))
    with closing(open_source(broker, tp.topic, None, on_unreadable="skip")) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        deadline = time.monotonic() + DEADLINE_S
        while not source._records and time.monotonic() < deadline:
            source._poll_once(100)
        record = source._records[0][1][0]
        damaged = [record._replace(checksum=Unread(0, 100_000, Lost.BATCH_DAMAGED, "its checksum is wrong"))]
        assert [*source._messages(tp, damaged)] == [], "it is read a second time"
        (missing,) = source._messages(tp, damaged)
        assert missing.offset == 4, "the end of the log bounds the guess"
        assert [*source._messages(tp, damaged)] == []

        def revoked(partition: KafkaPartition) -> int:
            monkeypatch.setattr(source._consumer, "assignment", set)
            raise IllegalStateError("Partition is not assigned")

        monkeypatch.setattr(source._consumer, "highwater", revoked)
        assert [*source._messages(tp, damaged)] == []


def test_records_beyond_a_batch_that_is_left_out_are_read_anew_and_not_twice(broker: Broker, topic: MakeTopic) -> None:
    tp = TopicPartition(topic(1), 0)
    produce(broker, numbered(tp.topic, 0, 20))
    with closing(open_source(broker, tp.topic, None, max_poll_records=10)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        deadline = time.monotonic() + DEADLINE_S
        while len(source._records) < 2 and time.monotonic() < deadline:  # as after a poll that raised
            source._poll_once(100)
        (_, first), _ = source._records
        left_out = Unread(5, 14, Lost.BATCH_TOO_LARGE, "unpacks to more than is allowed")
        first[5:] = [first[5]._replace(checksum=left_out)]
        offsets = list[int]()
        while offsets[-1:] != [19] and time.monotonic() < deadline:
            offsets += [message.offset for message in source.poll(0.1).messages]
        assert offsets == [0, 1, 2, 3, 4, 14, 15, 16, 17, 18, 19]


def test_a_partition_that_kafka_pythons_thread_gives_up_during_a_seek_is_no_error(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    tp = TopicPartition(topic(1), 0)
    with closing(open_source(broker, tp.topic, None)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        monkeypatch.setattr(source._consumer, "seek", failing(ValueError("Offset must be int >= 0")))
        with pytest.raises(ValueError, match="must be int"):
            source.seek(tp, -1)

        def given_up(*_: object) -> None:
            source._consumer.unsubscribe()
            raise ValueError("Unassigned partition")

        monkeypatch.setattr(source._consumer, "seek", given_up)
        source.seek(tp, 0)


def test_the_lag_of_a_paused_partition_is_that_of_the_log_s_end(broker: Broker, topic: MakeTopic) -> None:
    """Nothing is fetched of it, so that only a question tells what comes meanwhile."""
    name = topic(1)
    tp = TopicPartition(name, 0)
    produce(broker, numbered(name, 0, 10))
    with closing(open_source(broker, name, None)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        poll_until(source, lambda so_far: len(so_far.messages) == 10)
        source.pause([tp])
        produce(broker, numbered(name, 0, 30))
        deadline = time.monotonic() + DEADLINE_S
        while source.lag(tp) != 30 and time.monotonic() < deadline:
            assert not source.poll(0.1).messages
        assert (source.lag(tp), source.lag(tp, 25)) == (30, 15)
        assert not source.drained(tp)


def test_after_a_failure_nothing_is_returned_until_the_broker_answers(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched before would look like an answer, and end an outage that lasts."""
    name = topic(1)
    tp = TopicPartition(name, 0)
    produce(broker, numbered(name, 0, 40))
    with closing(open_source(broker, name, None, max_poll_records=10)) as source:
        poll_until(source, lambda so_far: bool(so_far.assigned))
        source.seek(tp, 0)
        source.resume([tp])
        offsets = [m.offset for m in poll_until(source, lambda so_far: len(so_far.messages) >= 10).messages]
        monkeypatch.setattr(source.log, "check", failing(BrokerUnavailable("nobody answers")))
        monkeypatch.setattr(source, "_polled", failing_once(BrokerUnavailable("nobody answers"), source._polled))
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                source.poll(0.1)
        monkeypatch.undo()
        deadline = time.monotonic() + DEADLINE_S
        while len(offsets) < 40 and time.monotonic() < deadline:
            offsets += [message.offset for message in source.poll(0.1).messages]
        assert offsets == list(range(40))
