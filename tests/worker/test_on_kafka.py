"""The loop of `test_worker` on a real broker: what a broker does to a worker, and what the worker makes of it."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, closing
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.structs import MemberState
from structlog.testing import capture_logs

from adawise.errors import ChainError, SourceError
from adawise.kafka import source as kafka_module
from adawise.kafka.source import KafkaSource
from adawise.output.verify.root import verify
from adawise.records import Gap, Message, TopicPartition
from adawise.store.store import Store
from adawise.worker import commit
from adawise.worker.batching import BatchPolicy
from adawise.worker.partition import FlushPolicy
from tests.brokers import CAPABILITIES, ApacheKafka, Broker, MakeTopic, Unavailable, create_topic, fresh_name
from tests.kafka.sources import DEADLINE_S, open_source, produce, recreate
from tests.sink.footers import read_segment_footers
from tests.worker.loop import Bench

ONE_SEGMENT = FlushPolicy(1_000, 1e9)  # that the end of the run writes
NEVER_BY_CLOCK = BatchPolicy(images=4, max_age_s=1e9)


def shots(topic: str, count: int, *streams: str, first: int = 0, partition: int = 0) -> list[Message]:
    """Images as in `loop.images`, produced now: a broker deletes what is old."""
    now_ms = int(time.time() * 1000)
    return [
        Message(topic, partition, n, streams[n % len(streams)].encode(), bytes([n % 251]), timestamp_ms=now_ms + n)
        for n in range(first, first + count)
    ]


def bench_on(source: KafkaSource, store: Store | None = None, **changes: Any) -> Bench:
    """By the wall's clock, and with batches that end by count alone."""
    return Bench(source, store, **({"batches": NEVER_BY_CLOCK, "clock": time.monotonic, "sleep": time.sleep} | changes))


def served_images(bench: Bench) -> int:
    return sum(trace.images for trace in bench.seen.served)


def committed(source: KafkaSource, tp: TopicPartition) -> int | None:
    """The group's offset, as lag tools see it."""
    offset: int | None = source._consumer.committed(KafkaPartition(*tp))
    return offset


@pytest.mark.needs("poll_interval_eviction")
@pytest.mark.check("brokers")
def test_a_worker_that_is_slower_than_its_group_allows_says_so_comes_back_and_computes_nothing_twice(
    broker: Broker, topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic()
    messages = shots(name, 24, "north", "south")
    produce(broker, messages)
    source = open_source(broker, name, fresh_name("slow"), max_poll_interval_ms=1_500)
    bench = bench_on(source, flush=ONE_SEGMENT)

    def take_too_long(point: str) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while point == "worker.rows_complete" and len(bench.seen.lost) < 2:
            if source._consumer.group_metadata().state == MemberState.UNJOINED:
                break
            assert time.monotonic() < give_up

    bench.at = take_too_long
    with caplog.at_level(logging.WARNING, "pipeline"):
        bench.run(lambda: len(bench.seen.recovered) == 3 and served_images(bench) == 24)
    received = [record.getMessage() for record in caplog.records if record.name == "adawise.kafka.source"]
    assert len(received) == len(bench.seen.lost) == 2
    assert all("kafka.max_poll_interval_ms allows 1.5 s: raise it, or shorten a round" in line for line in received)
    assert served_images(bench) == 24
    bench.check_against(messages)


@pytest.mark.needs("aborted_transactions")
def test_lag_tools_see_no_lag_where_nothing_is_left_to_do(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an empty partition, and of one that ends in an aborted transaction and the mark of it."""
    monkeypatch.setattr(commit, "_HINT_EVERY_S", 0.2)
    name, group = topic(3), fresh_name("idle")
    tps = [TopicPartition(name, n) for n in range(3)]
    produce(broker, [m for n in (0, 1) for m in shots(name, 4, "north", partition=n)])
    with closing(
        KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=fresh_name("tx"))
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(name, b"\x01", key=b"north", partition=1).get(timeout=DEADLINE_S)
        producer.abort_transaction()
    source = open_source(broker, name, group)
    bench = bench_on(source)
    bench.run(lambda: bench.rows == 8 and [committed(source, tp) for tp in tps] == [4, 6, 0])


@pytest.mark.needs("create_partitions")
def test_partitions_that_are_added_are_read_from_their_start_and_the_chains_go_on(
    broker: Broker, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "_METADATA_MS", 500)
    name, group = topic(1), fresh_name("grown")
    produce(broker, shots(name, 4, "ignored"))
    messages = shots(name, 8, "north", first=4)
    source = open_source(broker, name, group, origin="latest")
    bench = bench_on(source)
    grown: list[Message] = []

    def turn() -> bool:
        if bench.seen.recovered and not grown:
            with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
                admin.create_partitions({name: 2})
            grown.extend(shots(name, 8, "south", partition=1))
            produce(broker, [*messages, *grown])
        return bench.rows == 16

    with capture_logs() as logs:
        bench.run(turn)
    bench.check_against([*messages, *grown])
    [warning] = [entry for entry in logs if entry["event"] == "partition_added"]
    assert (warning["partition"], warning["had"]) == (1, 1)
    restarted = bench_on(open_source(broker, name, group, origin="latest"), store=bench.store)
    restarted.run(lambda: len(restarted.seen.recovered) == 2)
    assert [head.next_offset for _, head in sorted(restarted.seen.recovered)] == [12, 8]


def test_a_topic_that_is_replaced_by_a_longer_one_while_the_model_runs_stops_the_worker(
    broker: Broker, topic: MakeTopic
) -> None:
    """A fetch goes by the topic's name and an offset: it would go on in the middle of the new one."""
    name = topic()
    produce(broker, shots(name, 16, "north"))
    source = open_source(broker, name, None)
    bench = bench_on(source, flush=FlushPolicy(8, 1e9))

    def replace(point: str) -> None:
        if point == "worker.rows_complete" and bench.rows == 8:
            with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
                first = source.log.identity(name).topic_id
                admin.delete_topics([name])
                recreate(admin, source, name, first)
            produce(broker, shots(name, 64, "south"))

    bench.at = replace
    with pytest.raises((SourceError, ChainError), match="deleted and created again"):
        bench.run()
    assert "south" not in bench.table["stream_id"].to_pylist()
    assert verify(bench.store) == []


@pytest.mark.needs("delete_records")
@pytest.mark.parametrize("skip_gaps", [False, True])
def test_what_retention_took_while_nobody_worked_stops_the_worker_or_is_recorded(
    broker: Broker, topic: MakeTopic, skip_gaps: bool
) -> None:
    name = topic()
    tp = TopicPartition(name, 0)
    produce(broker, shots(name, 10, "north", "south"))  # 8 and 9 begin batches
    first = bench_on(open_source(broker, name, None))
    first.run(lambda: served_images(first) == 8 and first._worker._owned[tp].offsets.next_offset == 10)
    [(_, footer)] = read_segment_footers(first.store)
    assert (footer.pending, footer.next) == ((8, 9), 10)
    produce(broker, shots(name, 20, "north", "south", first=10))
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers) as admin:
        admin.delete_records({KafkaPartition(*tp): 14})
    second = bench_on(open_source(broker, name, None), first.store, skip_gaps=skip_gaps)
    if not skip_gaps:
        with pytest.raises(SourceError, match=r"offsets from 8 to 13 .*retention.*kafka\.on_gap=skip"):
            second.run()
        return
    second.run(lambda: served_images(second) == 16)
    gaps = [gap for _, footer in read_segment_footers(first.store) for gap in footer.gaps]
    assert gaps == [Gap(8, 9), Gap(9, 10), Gap(10, 14)]
    assert sorted(second.table["offset"].to_pylist()) == [*range(8), *range(14, 30)]
    assert verify(first.store) == []


def test_a_broker_that_is_killed_and_comes_back_costs_no_image() -> None:
    with ExitStack() as stack:
        try:
            kafka = stack.enter_context(ApacheKafka())
        except Unavailable as reason:
            pytest.skip(f"Apache Kafka by Maven cannot be had: {reason}")
        broker = Broker(kafka.bootstrap_servers, "Apache Kafka", "by Maven", CAPABILITIES)
        create_topic(broker, "frames")
        messages = shots("frames", 32, "north", "south")
        produce(broker, messages[:16])
        bench = bench_on(open_source(broker, "frames", "survivor"), flush=FlushPolicy(8, 1e9))

        again: list[bool] = []

        def kill(point: str) -> None:
            if point == "worker.rows_complete" and bench.points.count(point) == 1:
                kafka.kill(1)  # returns when it is gone

        def turn() -> bool:
            if bench.seen.waits_s and not again:
                assert bench.rows == 0
                kafka.start()
                produce(broker, messages[16:])
                again.append(True)
            return bench.rows == 32

        bench.at = kill
        bench.run(turn)
        bench.check_against(messages)
