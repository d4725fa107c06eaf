"""What a topic does not deliver although it was written: compacted away, aborted, held back; on a real broker."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka import KafkaProducer

from adawise.errors import Lost, SettingsError
from adawise.kafka import transactions
from adawise.kafka.transactions import HELD_S, REPEAT_S, HeldBack, OpenTransaction
from adawise.records import Message, TopicPartition
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.cli.test_verify import a_topic_with_holes
from tests.deadlines import DEADLINE_S
from tests.kafka.sources import consume, numbered, open_source, poll_until, produce


@pytest.mark.needs("compaction")
def test_a_compacted_topic_is_refused_or_read_with_its_holes_as_what_is_missing(
    broker: Broker, topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    name, left = a_topic_with_holes(broker, topic)
    with pytest.raises(SettingsError, match=rf"'{name}' .*cleanup\.policy=compact.*kafka\.on_compacted=skip"):
        open_source(broker, name, None, on_compacted="fail")
    with closing(open_source(broker, name, None)) as source:
        found = consume(source, 6)
    received = [m.offset if m.missing is None else (m.missing.first, m.offset, m.missing.reason) for m in found]
    assert received == [(0, 2, Lost.COMPACTED), 3, 4, (5, 5, Lost.COMPACTED), 6, 7]
    assert left == [3, 4, 6, 7]
    assert [record.getMessage() for record in caplog.records if "compacted away" in record.getMessage()]


@pytest.mark.needs("aborted_transactions", "compaction")
def test_markers_and_what_was_aborted_are_no_holes_of_a_compacted_topic(broker: Broker, topic: MakeTopic) -> None:
    name = topic(configs={"cleanup.policy": "compact"})
    with closing(
        KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=fresh_name("tx"))
    ) as sender:
        sender.init_transactions()
        for value, end in ((b"1", sender.commit_transaction), (b"2", sender.abort_transaction)) * 2:
            sender.begin_transaction()
            sender.send(name, value, key=b"cam", partition=0).get(timeout=DEADLINE_S)
            end()
    produce(broker, [Message(name, 0, 8, b"cam", b"last")])
    with closing(open_source(broker, name, None)) as source:
        assert [(m.offset, m.missing) for m in consume(source, 3)] == [(0, None), (4, None), (8, None)]


@pytest.mark.needs("aborted_transactions")
def test_an_open_transaction_that_holds_back_messages_is_named(
    broker: Broker, topic: MakeTopic, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "HELD_S", 0.0)
    name, who = topic(2), fresh_name("tx")
    produce(broker, numbered(name, 0, 2))
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=who)) as sender:
        sender.init_transactions()
        sender.begin_transaction()
        sender.send(name, b"open", partition=0).get(timeout=DEADLINE_S)
        produce(broker, [*numbered(name, 0, 3), *numbered(name, 1, 1)])
        with closing(open_source(broker, name, None)) as source:
            assert len(consume(source, 3)) == 3
            poll_until(source, lambda _: "open transaction" in caplog.text)
            sender.commit_transaction()
            assert len(consume(source, 4)) == 4
    [line] = [record.getMessage() for record in caplog.records if "open transaction" in record.getMessage()]
    assert line.startswith(f"{name}/0: an open transaction holds back messages from offset 2 on since 20")
    assert f"of transactional.id '{who}': later messages are served only" in line
    assert f"--topic {name} --partition 0 --start-offset 2" in line


TP = TopicPartition("frames", 0)


def test_a_position_that_stands_is_looked_into_and_told_sparingly(caplog: pytest.LogCaptureFixture) -> None:
    held = HeldBack()
    found = OpenTransaction(7, -1, "producer 1")
    assert held.standing({TP: 7}, 0.0) == []
    assert held.standing({TP: 7}, HELD_S) == [TP]
    held.log_cause(TP, None, HELD_S)  # nobody answered, or nothing holds it back: it is only slow
    assert held.standing({TP: 7}, 2 * HELD_S - 1.0) == []
    assert held.standing({TP: 7}, 2 * HELD_S) == [TP]
    held.log_cause(TP, found, 2 * HELD_S)
    assert held.standing({TP: 7}, 2 * HELD_S + REPEAT_S - 1.0) == []
    assert held.standing({TP: 7}, 2 * HELD_S + REPEAT_S) == [TP]
    assert held.standing({TP: 8}, 2 * HELD_S + REPEAT_S) == []  # it moves
    assert held.standing({}, 9_999.0) == []
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("since_ms", "expected"), [(-1, ""), (9_200_000_000_000_000, ""), (0, " since 1970-01-01T00:00:00Z")]
)
def test_a_time_that_a_producer_made_up_is_left_out(since_ms: int, expected: str) -> None:
    assert str(OpenTransaction(3, since_ms)) == f"an open transaction holds back messages from offset 3 on{expected}"
