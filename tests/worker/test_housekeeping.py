"""What a worker does beside its loop: one pass at a time, over what it has, and none after its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from adawise.errors import ChainError
from adawise.ports import Head
from adawise.records import TopicPartition
from adawise.worker.events import PartitionLost, PartitionRecovered, Stepped, Stopped, WorkerProgress
from adawise.worker.housekeeping import EVERY_S, FIRST_S, Housekeeping
from tests.deadlines import DEADLINE_S

ONE, OTHER = TopicPartition("frames", 1), TopicPartition("frames", 2)


def no_progress() -> WorkerProgress:
    raise AssertionError("it costs as much as there are partitions, and is not needed")


class House:
    """A worker's day by its clock; what passes did."""

    def __init__(self, remove: Callable[[TopicPartition, Callable[[], bool]], int]) -> None:
        self.now_s, self.keeper = 0.0, Housekeeping(remove, lambda: self.now_s)

    def step(self, now_s: float) -> None:
        self.now_s = now_s
        self.keeper.observe(Stepped(no_progress))


def test_passes_are_over_the_partitions_that_the_worker_has_once_an_hour_and_what_they_did_is_told() -> None:
    seen: list[TopicPartition] = []
    over = threading.Event()

    def remove(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        assert not ends()
        seen.append(tp)
        if tp == OTHER:
            over.set()
        return 3

    house = House(remove)
    for tp in (ONE, OTHER, TopicPartition("frames", 0)):
        house.keeper.observe(PartitionRecovered(tp, Head(0)))
    house.keeper.observe(PartitionLost(TopicPartition("frames", 0)))
    house.step(0.0)
    house.step(FIRST_S - 1)
    assert seen == []
    with capture_logs() as logs:
        house.step(FIRST_S)
        assert over.wait(DEADLINE_S)
        house.keeper._passes._pool.submit(int).result(DEADLINE_S)  # behind it: so it is over
        house.step(FIRST_S + 1)
        house.step(FIRST_S + 1 + EVERY_S / 2)
        house.keeper.observe(Stopped())
    assert seen == [ONE, OTHER]
    assert [(log["event"], log["removed"]) for log in logs] == [("files_retained", 6)]


def test_a_damaged_partition_keeps_no_other_from_its_turn() -> None:
    def remove(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        if tp == ONE:
            raise ChainError("frames/1: a claim is damaged")
        return 5

    house = House(remove)
    for tp in (ONE, OTHER):
        house.keeper.observe(PartitionRecovered(tp, Head(0)))
    with capture_logs() as logs:
        house.step(0.0)
        house.step(FIRST_S)
        house.keeper.observe(Stopped())
    received = [(log["event"], log.get("removed"), log.get("error")) for log in logs]
    assert received == [("retention_failed", None, "frames/1: a claim is damaged"), ("files_retained", 5, None)]


def test_the_end_of_the_worker_ends_the_pass_between_two_files() -> None:
    begun = threading.Event()

    def remove(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        files = 0
        while not ends():
            files += 1
            begun.set()
        return files

    house = House(remove)
    house.keeper.observe(PartitionRecovered(ONE, Head(0)))
    house.step(0.0)
    house.step(FIRST_S)
    assert begun.wait(DEADLINE_S)
    house.keeper.observe(Stopped())  # returns


def test_a_pass_that_fails_is_told_and_tried_again_an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        raise ChainError("a hole; see `adawise verify`")

    house = House(remove)
    house.keeper.observe(PartitionRecovered(ONE, Head(0)))
    with capture_logs() as logs:
        house.step(0.0)
        house.step(FIRST_S)
        house.keeper.observe(Stopped())
    [log] = logs
    assert (log["event"], log["log_level"]) == ("retention_failed", "warning")
    assert "a hole" in log["error"]
