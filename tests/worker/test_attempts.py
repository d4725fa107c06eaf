"""An outage that a worker reports ends by a success of the same thing, and by nothing else."""

from __future__ import annotations

import pytest

from adawise.errors import AdawiseError, BrokerUnavailable, LogRewritten, PermissionRefused, StoreUnavailable
from adawise.records import Frame, Message, TopicPartition
from adawise.worker.attempts import READING, RESULTS, Attempts, dead_lettering, recovering, writing
from adawise.worker.partition import PartitionWork
from adawise.worker.recovery import Recovery
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.worker.loop import TP, Bench, FakeDeadLetters, FakeResults, Journal, bad, images


def test_a_success_is_told_once_and_only_after_a_failure() -> None:
    journal = Journal()
    attempts = Attempts(journal)
    attempts.ended(READING)
    attempts.failed(READING, BrokerUnavailable("away"), 1.0)
    attempts.failed(READING, BrokerUnavailable("away"), 2.0)
    attempts.ended(RESULTS)
    assert (journal.waits_s, journal.ended) == ([1.0, 2.0], [])
    attempts.ended(READING)
    attempts.ended(READING)
    assert journal.ended == [READING]


def test_reading_fails_until_a_poll_does_not() -> None:
    source = FakeSource(images(8, "north"))
    source.fail(*(BrokerUnavailable("away") for _ in range(3)))
    bench = Bench(source)
    bench.run(lambda: bench.rows == 8)
    assert len(bench.seen.waits_s) == 3
    assert bench.seen.ended == [READING]


def test_writing_fails_until_a_segment_of_the_same_partition_is_written() -> None:
    store, source = DictStore(), FakeSource([*images(8, "north"), *images(8, "south", partition=1)], partitions=2)
    bench = Bench(store=store, source=source)
    create = store.create

    def refuse_one(key: str, data: bytes) -> None:
        if key.startswith("predictions/") and "partition-00001" in key and bench.now_s < 40.0:
            raise StoreUnavailable("that folder cannot be written")
        create(key, data)

    store.create = refuse_one  # type: ignore[method-assign]
    first = writing(TP._replace(partition=1))
    bench.run(lambda: bench.now_s > 80.0)
    assert bench.rows == 16
    assert bench.seen.ended == [first]
    assert len(bench.seen.waits_s) > 3


def test_writing_of_a_partition_that_is_lost_fails_no_longer() -> None:
    store, source = DictStore(), FakeSource(images(8, "north"))
    bench = Bench(store=store, source=source)
    bench.at = lambda point: setattr(store, "refuse", ["before"]) if point == "segment.encoded" else None

    def turn() -> bool:
        if bench.steps == 300:
            source.lose(TP)
        return bench.steps > 400

    bench.run(turn)
    assert bench.seen.waits_s
    assert bench.seen.ended == [writing(TP)]


def test_results_fail_until_all_that_wait_are_acknowledged_also_while_nothing_more_comes() -> None:
    results, source = FakeResults("committed"), FakeSource(images(8, "north"))
    bench = Bench(source, results=results)
    ended_s: list[float] = []

    def turn() -> bool:
        if bench.now_s < 60.0:
            results.errors = [PermissionRefused("no WRITE")]
        if bench.seen.ended and not ended_s:
            ended_s.append(bench.now_s)
        return bench.now_s > 120.0

    bench.run(turn)
    assert bench.seen.ended == [RESULTS]
    assert 60.0 <= ended_s[0] <= 95.0
    assert results.acknowledged == len(results.published) > 0


class Refusing(FakeDeadLetters):
    """Takes no letter at first; flushing what there is none of succeeds."""

    refuses = True

    def send(self, message: Message, frame: Frame) -> None:
        if self.refuses:
            raise PermissionRefused("no WRITE")
        super().send(message, frame)


def test_letters_fail_while_segments_of_other_partitions_are_written() -> None:
    source = FakeSource([bad(0, partition=1), *images(4, "south", first=1, partition=1)], partitions=2)
    refusing = Refusing()
    bench = Bench(source, dead_letters=refusing)
    sent = 0

    def turn() -> bool:
        nonlocal sent
        if bench.steps % 100 == 0:
            source.append(*images(4, "north", first=sent))
            sent += 4
        refusing.refuses = bench.now_s < 60.0
        return bench.now_s > 120.0

    bench.run(turn)
    assert bench.seen.ended == [dead_lettering(TP._replace(partition=1))]
    assert len(refusing.sent) == 1


def test_letters_of_a_partition_that_is_lost_fail_no_longer() -> None:
    source = FakeSource([bad(0), *images(4, "north", first=1)])
    bench = Bench(source, dead_letters=Refusing())

    def turn() -> bool:
        if bench.steps == 300:
            source.lose(TP)
        return bench.steps > 400

    bench.run(turn)
    assert bench.seen.waits_s
    assert bench.seen.ended == [dead_lettering(TP)]


def recoveries_fail(monkeypatch: pytest.MonkeyPatch, tp: TopicPartition, errors: list[AdawiseError]) -> None:
    """The next recoveries of this partition raise these errors, one each."""
    real = Recovery._recovered

    def recovered(self: Recovery, requested: TopicPartition) -> PartitionWork:
        if requested == tp and errors:
            raise errors.pop(0)
        return real(self, requested)

    monkeypatch.setattr(Recovery, "_recovered", recovered)


def test_recovering_fails_until_the_same_partition_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    second = TP._replace(partition=1)
    bench = Bench(FakeSource([*images(8, "north"), *images(8, "south", partition=1)], partitions=2))
    recoveries_fail(monkeypatch, second, [StoreUnavailable("away")] * 3)
    bench.run(lambda: bench.rows == 16)
    assert len(bench.seen.waits_s) == 3
    assert bench.seen.ended == [recovering(second)]


def test_recovering_of_a_partition_that_stands_fails_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(FakeSource(images(8, "north")))
    standing = [LogRewritten("another message is there") for _ in range(1_000)]
    recoveries_fail(monkeypatch, TP, [StoreUnavailable("away"), *standing])
    bench.run(lambda: bench.now_s > 60.0)
    assert (bench.seen.waits_s, bench.rows) == ([1.0], 0)
    assert bench.seen.ended == [recovering(TP)], "the store has answered"


def test_recovering_of_a_partition_that_is_lost_fails_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(source := FakeSource(images(8, "north")))
    recoveries_fail(monkeypatch, TP, [StoreUnavailable("away") for _ in range(10_000)])

    def turn() -> bool:
        if bench.steps == 300:
            source.lose(TP)
        return bench.steps > 400

    bench.run(turn)
    assert bench.seen.waits_s
    assert bench.seen.ended == [recovering(TP)]
