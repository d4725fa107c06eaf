from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.coordinator.base import Generation
from kafka.errors import CorruptRecordError
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaTCPTransport
from kafka.producer.sender import Sender
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from adawise.kafka import repairs
from adawise.kafka.source import KafkaSource
from adawise.ports import Poll
from tests.brokers import Broker, MakeTopic, create_topic, fresh_name
from tests.kafka.sources import DEADLINE_S, BytesName, numbered, open_source, poll_until, produce, take_over

Record = tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]

TRICKY = b"\xff\xfe"
names = st.binary(max_size=20) | st.sampled_from([TRICKY, b"content-type", "höhe".encode()])
records = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=50) | st.just(TRICKY),
        st.none() | st.binary(max_size=300) | st.just(TRICKY * 3),
        st.lists(st.tuples(names, st.none() | st.binary(max_size=50) | st.just(TRICKY)), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def batch_of(content: list[Record], compression: int) -> DefaultRecordBatch:
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1 << 20)
    for offset, (key, value, headers) in enumerate(content):
        builder.append(offset, 1_700_000_000_000, key, value, [(BytesName(name), data) for name, data in headers])
    return DefaultRecordBatch(bytes(builder.build()))


def as_read(headers: list[tuple[bytes, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Names as they come out: if one of a record is not UTF-8, all of that record's are reduced to ASCII."""
    try:
        return [(name.decode(), data) for name, data in headers]
    except UnicodeDecodeError:
        return [("".join(chr(byte) if byte < 0x80 else "?" for byte in name), data) for name, data in headers]


@given(records, st.sampled_from([DefaultRecordBatch.CODEC_NONE, DefaultRecordBatch.CODEC_GZIP]))
def test_any_header_name_is_read_and_changes_nothing_else(content: list[Record], compression: int) -> None:
    repairs.install()
    found = [(record.key, record.value, record.headers) for record in batch_of(content, compression)]
    assert found == [(key, value, as_read(headers)) for key, value, headers in content]


def test_without_the_repair_one_such_name_breaks_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", repairs._read_record)
    with pytest.raises(CorruptRecordError):
        list(batch_of([(None, b"x", [(TRICKY, b"")])], DefaultRecordBatch.CODEC_NONE))


def test_the_socket_of_a_refused_connection_is_closed_at_once() -> None:
    repairs.install()

    class Refused(KafkaNetSocket):  # type: ignore[misc]
        SCHEMES = ()

        def connect_ex(self, sock: socket.socket, address: object) -> int:
            raise ConnectionRefusedError(111, "refused")

    sock = socket.socket()
    attempt = KafkaNetSocket.sock_connect(Refused(), None, sock, ("127.0.0.1", 1))
    with pytest.raises(Exception, match="111"):
        attempt.send(None)
    assert sock.fileno() == -1


def test_a_client_that_is_closed_leaves_no_socket_open(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not one that has bytes to send: of those that had just joined a group, one of twenty had."""
    name, opened, open_socket = topic(), list[socket.socket](), KafkaNetSocket.socket

    def noted(self: KafkaNetSocket, *kind: int) -> socket.socket:
        opened.append(open_socket(self, *kind))
        return opened[-1]

    monkeypatch.setattr(KafkaNetSocket, "socket", noted)
    for patience_ms in [0, 20, *[200] * 12]:  # after a fifth of a second it has just joined
        consumer = KafkaConsumer(
            name, bootstrap_servers=broker.bootstrap_servers, group_id=fresh_name("group"), enable_auto_commit=False
        )
        consumer.poll(timeout_ms=patience_ms)
        consumer.close()
    assert len(opened) >= 14
    assert [sock for sock in opened if sock.fileno() != -1] == []


def test_reading_from_a_connection_that_was_just_closed_is_its_end_and_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    repairs.install()
    transport = KafkaTCPTransport.__new__(KafkaTCPTransport)
    transport._sock = None
    data, error = transport._sock_recv()
    assert (data, str(error)) == (b"", "KafkaConnectionError: closed meanwhile")
    assert caplog.records == []


def read_to_the_end(sock: socket.socket) -> tuple[bytes, str]:
    """What a connection's protocol is given, and how the connection ends."""
    transport = KafkaTCPTransport(_Ready(), sock)
    transport._protocol = protocol = _Protocol()
    transport._read = True
    with pytest.raises(StopIteration):
        transport._read_from_sock().send(None)
    return protocol.data, str(protocol.error)


class _Ready:
    async def wait_read(self, sock: socket.socket) -> None:
        """There always is something, the end at last."""

    def unregister_event(self, sock: socket.socket, events: int) -> None:
        """It has none."""


class _Protocol:
    data, error, _sensors = b"", None, None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: object) -> None:
        self.error = error


def test_what_a_broker_says_before_it_ends_a_connection_is_read() -> None:
    repairs.install()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(b"wrong password")
        theirs.shutdown(socket.SHUT_WR)
        assert read_to_the_end(ours) == (b"wrong password", "KafkaConnectionError: socket disconnected")


def test_without_the_repair_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once this fails, kafka-python reads it by itself, and the repair can go."""
    monkeypatch.setattr(KafkaTCPTransport, "_sock_recv", repairs._receive)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(b"wrong password")
        theirs.shutdown(socket.SHUT_WR)
        assert read_to_the_end(ours) == (b"", "KafkaConnectionError: socket disconnected")


def delivered_of_a_partition_that_was_paused(broker: Broker, topic: str, patience_s: float) -> bool:
    """Whether the rest of what was fetched of it comes once it is resumed, after all of another was delivered."""
    produce(broker, [message for partition in (0, 1) for message in numbered(topic, partition, 10)])
    with closing(open_source(broker, topic, None, max_poll_records=4)) as source:
        take_over(source, poll_until(source, lambda poll: bool(poll.assigned)).assigned)
        first = poll_until(source, lambda poll: bool(poll.messages)).messages
        paused = first[0].topic_partition
        source.pause([paused])
        count = sum(message.topic_partition != paused for message in first)
        while count < 10:
            count += len(source.poll(0.1).messages)
        source.resume([paused])
        give_up, rest = time.monotonic() + patience_s, 10 - len(first)
        while rest > 0 and time.monotonic() < give_up:
            rest -= len(source.poll(0.1).messages)
        return rest == 0


def test_what_was_fetched_of_a_paused_partition_is_delivered_once_it_is_resumed(
    broker: Broker, topic: MakeTopic
) -> None:
    assert delivered_of_a_partition_that_was_paused(broker, topic(2), DEADLINE_S)


@pytest.mark.check("brokers")
def test_without_the_repair_it_never_is(broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "_fetch_records_with_an_empty_hand", repairs._fetch_records)
    assert not delivered_of_a_partition_that_was_paused(broker, topic(2), 3.0)
    monkeypatch.undo()
    repairs.install()


def answered_between_polls(broker: Broker, topic: str) -> int:
    """The group's generation when its only member has its partitions, though every answer came while nobody polled."""
    with closing(open_source(broker, topic, fresh_name("group"))) as source:
        coordinator = source._consumer._coordinator
        give_up, never = time.monotonic() + DEADLINE_S, threading.Event()
        while not source.poll(0.0).assigned:
            while (joining := coordinator._join_task) is not None and not joining.is_done:
                assert time.monotonic() < give_up
                never.wait(0.01)
            if coordinator._generation.generation_id > 1:
                break
        generation: int = coordinator._generation.generation_id
        return generation


@pytest.mark.needs("first_generation")
def test_an_answer_to_a_join_that_came_between_two_polls_is_taken(broker: Broker, topic: MakeTopic) -> None:
    assert answered_between_polls(broker, topic()) == 1


@pytest.mark.check("brokers")
@pytest.mark.needs("first_generation")
def test_without_the_repair_it_is_forgotten(broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "_join_and_sync_once", repairs._join_and_sync)
    assert answered_between_polls(broker, topic()) > 1
    monkeypatch.undo()
    repairs.install()


def assigned_of_partitions_that_were_added(broker: Broker, topic: str) -> bool:
    """Whether a leader gets the partitions that were added, though the answer to its join came while nobody polled."""
    with (
        closing(open_source(broker, topic, fresh_name("group"))) as source,
        closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin,
    ):
        poll_until(source, lambda poll: bool(poll.assigned))
        coordinator = source._consumer._coordinator
        admin.create_partitions({topic: 2})
        give_up = time.monotonic() + DEADLINE_S
        while coordinator._metadata_snapshot == coordinator._assignment_snapshot:
            source._consumer._client.cluster.request_update()
            assert time.monotonic() < give_up
        assert not coordinator.rejoin_needed
        source.poll(0.0)
        while (joining := coordinator._join_task) is not None and not joining.is_done:
            assert time.monotonic() < give_up
        assigned = [tp for _ in range(20) for tp in source.poll(0.1).assigned]
        return [tp.partition for tp in assigned] == [1]


@pytest.mark.needs("create_partitions")
def test_a_leader_takes_the_partitions_that_were_added_though_the_answer_came_between_two_polls(
    broker: Broker, topic: MakeTopic
) -> None:
    assert assigned_of_partitions_that_were_added(broker, topic(1))


@pytest.mark.check("brokers")
@pytest.mark.needs("create_partitions")
def test_without_the_repair_it_never_does(broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "_needs_to_join_until_joined", repairs._needs_to_join)
    assert not assigned_of_partitions_that_were_added(broker, topic(1))
    monkeypatch.undo()
    repairs.install()


def test_a_member_that_was_expelled_from_a_rebalance_gets_its_partition_again(broker: Broker, topic: MakeTopic) -> None:
    """Without the repair it mostly never does; now and then it does not even see that it lost it."""
    with closing(open_source(broker, topic(1), fresh_name("group"))) as source:
        poll_until(source, lambda poll: bool(poll.assigned))
        coordinator = source._consumer._coordinator
        coordinator.request_rejoin()
        known = coordinator._generation
        coordinator._generation = Generation(known.generation_id, "somebody-else", known.protocol)
        polls: list[Poll] = []
        give_up, never = time.monotonic() + DEADLINE_S, threading.Event()
        while not any(poll.assigned for poll in polls):
            polls.append(source.poll(0.0))
            while (joining := coordinator._join_task) is not None and not joining.is_done:
                assert time.monotonic() < give_up
                never.wait(0.01)
            assert time.monotonic() < give_up
        assert any(poll.lost for poll in polls)


def owned_once_a_member_was_expelled(broker: Broker, topic: str, patience_s: float) -> list[int]:
    """What is somebody's after the only member of a group was expelled, and joins again together with a second one."""
    group = fresh_name("group")
    with closing(open_source(broker, topic, group)) as first, closing(open_source(broker, topic, group)) as second:
        poll_until(first, lambda poll: bool(poll.assigned))
        coordinator = first._consumer._coordinator
        known = coordinator._generation
        coordinator._generation = Generation(known.generation_id, "somebody-else", known.protocol)
        coordinator.request_rejoin()
        owned: dict[KafkaSource, set[int]] = {first: set(range(4)), second: set()}
        give_up = time.monotonic() + DEADLINE_S
        while len(owned[first] | owned[second]) < 4 or not (owned[first] and owned[second]):
            for source, partitions in owned.items():
                poll = source.poll(0.05)
                partitions -= {tp.partition for tp in poll.lost}
                partitions |= {tp.partition for tp in poll.assigned}
                if poll.assigned:
                    give_up = time.monotonic() + patience_s
            if time.monotonic() > give_up:
                break
        return sorted([*owned[first], *owned[second]])


@pytest.mark.needs("first_generation")
def test_a_member_that_was_expelled_claims_nothing_of_what_it_had(broker: Broker, topic: MakeTopic) -> None:
    assert owned_once_a_member_was_expelled(broker, topic(4), DEADLINE_S) == [0, 1, 2, 3]


@pytest.mark.check("brokers")
@pytest.mark.needs("first_generation")
def test_without_the_repair_partitions_are_nobodys(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "_claims_of_what_is_assigned", repairs._claims)
    assert len(owned_once_a_member_was_expelled(broker, topic(4), 3.0)) < 4
    monkeypatch.undo()
    repairs.install()


def left_behind_by_one_that_was_joining(broker: Broker, topic: str) -> bool:
    """Whether a member that is closed while the group waits for another one, which does not poll, is still in it."""
    group = fresh_name("group")
    with (
        closing(open_source(broker, topic, group)) as first,
        closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))) as admin,
        closing(open_source(broker, topic, group)) as second,
    ):

        def members() -> int:
            return len(admin.describe_groups([group])[group]["members"])

        poll_until(first, lambda poll: bool(poll.assigned))
        give_up = time.monotonic() + DEADLINE_S
        while members() < 2:
            assert time.monotonic() < give_up
            second.poll(0.0)
        second.close()
        return members() == 2


@pytest.mark.needs("first_generation")
def test_a_member_that_is_joining_leaves_without_waiting_for_the_others(broker: Broker, topic: MakeTopic) -> None:
    assert not left_behind_by_one_that_was_joining(broker, topic(2))


@pytest.mark.check("brokers")
@pytest.mark.needs("first_generation")
def test_without_the_repair_it_is_left_behind(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "_leave_past_a_join", repairs._leave)
    assert left_behind_by_one_that_was_joining(broker, topic(2))
    monkeypatch.undo()
    repairs.install()


def turns_between_answers(broker: Broker, name: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return how often a producer's thread turns between two answers about metadata, once the topic is deleted."""
    create_topic(broker, name)
    counts: Counter[str] = Counter()
    began = threading.Event()
    enough = threading.Event()
    run_once, update = Sender.run_once, ClusterMetadata.update_metadata

    def turn(self: Sender) -> None:
        counts["turns"] += began.is_set()
        run_once(self)

    def answer(self: ClusterMetadata, metadata: object) -> None:
        update(self, metadata)
        if self is producer._metadata and self.leader_for_partition(TopicPartition(name, 0)) is None:
            began.set()
            counts["answers"] += 1
            if counts["answers"] == 5:
                enough.set()

    monkeypatch.setattr(Sender, "run_once", turn)
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers, metadata_max_age_ms=100)) as producer:
        producer.send(name, b"before").get(DEADLINE_S)
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
            admin.delete_topics([name])
        monkeypatch.setattr(ClusterMetadata, "update_metadata", answer)
        assert enough.wait(DEADLINE_S)
    return counts["turns"] / counts["answers"]


def test_a_producer_does_not_spin_while_a_topic_is_missing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    repairs.install()
    assert turns_between_answers(broker, fresh_name("gone"), monkeypatch) < 20


@pytest.mark.check("brokers")
def test_without_the_repair_it_spins(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once this fails, kafka-python waits for an answer by itself, and the repair can go."""
    monkeypatch.setattr(ClusterMetadata, "request_update", repairs._request_update)
    assert turns_between_answers(broker, fresh_name("gone"), monkeypatch) > 100
