"""Where reading begins, and which partitions do not begin at all: over fakes, by the worker's loop."""

from __future__ import annotations

import re
from dataclasses import replace

from structlog.testing import capture_logs

from adawise.ports import Head
from adawise.records import Message, TopicPartition
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.worker.loop import TP, Bench, images

CAMERAS = ("north", "south", "east")
OTHER = TopicPartition("frames", 1)


def rewritten(messages: list[Message], since: int) -> list[Message]:
    """What a new leader has that lacked the messages from `since` on."""
    return [replace(m, timestamp_ms=m.timestamp_ms + 7) if m.offset >= since else m for m in messages]


def served() -> tuple[DictStore, int]:
    """A chain of 30 messages of one partition, and where it ends."""
    source = FakeSource(images(30, *CAMERAS), partitions=2, finite=True)
    store = DictStore()
    Bench(source, store).run()
    return store, 30


def test_a_partition_whose_log_was_rewritten_stands_until_it_is_restored_and_the_others_go_on() -> None:
    store, until = served()
    log, others = images(60, *CAMERAS), images(20, *CAMERAS, partition=1)
    source = FakeSource([*rewritten(log, 10), *others], partitions=2)
    bench, before = Bench(source, store), Bench(source, store).rows
    with capture_logs() as lines:
        bench.run(lambda: source.committed.get(OTHER, 0) > 0 and bench.now_s > 130.0)
    stood = [line for line in lines if line["event"] == "partition_blocked"]
    assert len(stood) == 3  # at first, and a minute later, and again
    assert (stood[0]["log_level"], stood[0]["partition"]) == ("error", 0)
    assert re.search(
        r"of \d+ that were compared the broker has \d+ others: at offset \d+ one of 1970-01-01T00:00:00\.\d\d7",
        stood[0]["error"],
    )
    assert f"rows up to offset {until - 1} may be of messages that are gone" in stood[0]["error"]
    assert TP not in source.committed
    assert bench.rows == before + 20

    restored = FakeSource([*log, *others], partitions=2)
    bench = Bench(restored, store)
    with capture_logs() as lines:
        bench.run(lambda: bench.rows >= 76)
    assert not [line for line in lines if line["event"] == "partition_blocked"]


def test_a_log_that_is_restored_while_its_partition_stands_is_read_on() -> None:
    store, _ = served()
    log = images(60, *CAMERAS)
    source = FakeSource(rewritten(log, 10), partitions=2)
    bench = Bench(source, store)

    def restore_and_wait() -> bool:
        if bench.now_s > 20.0:
            source._logs[TP] = log
        return bench.rows >= 56

    with capture_logs() as lines:
        bench.run(restore_and_wait)
    assert len([line for line in lines if line["event"] == "partition_blocked"]) == 1
    assert bench.now_s > 60.0


def test_messages_without_a_timestamp_and_those_that_a_compacted_topic_lacks_prove_nothing() -> None:
    source = FakeSource([replace(m, timestamp_ms=-1) for m in images(30, *CAMERAS)], finite=True)
    store = DictStore()
    Bench(source, store).run()
    later = FakeSource(images(60, *CAMERAS), finite=True)
    bench = Bench(later, store).run()
    assert bench.rows == 60
    thinned = FakeSource([m for m in images(90, *CAMERAS) if m.offset % 3 or m.offset >= 60], finite=True)
    assert Bench(thinned, store).run().rows == 90


def test_a_head_that_was_recovered_is_the_one_that_was_committed() -> None:
    assert Head(3, newest={2: 5}) == Head(3)
