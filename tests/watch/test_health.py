"""Probes: a broker or a store that is away takes nothing back; a loop that stands does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adawise.errors import (
    BrokerUnavailable,
    LogEndsEarly,
    PermissionRefused,
    StoreFull,
    StoreUnavailable,
    TopicUnavailable,
)
from adawise.records import TopicPartition
from adawise.watch.health import PARTIES, Health
from adawise.worker.events import PartitionProgress, Phase, WorkerProgress

TP = TopicPartition("frames", 0)


def progress(*owned: TopicPartition, recovering: Sequence[TopicPartition] = (), **fields: bool) -> WorkerProgress:
    partition = PartitionProgress(0, 0, 0, blocked=fields.get("blocked", False), paused=False, streams_evicted=0)
    return WorkerProgress(
        partitions=dict.fromkeys(owned, partition),
        recovering=recovering,
        held_bytes=0,
        limit_bytes=1,
        paused=fields.get("paused", False),
        batches_closed_early=0,
    )


def working(now_s: float = 100.0, *owned: TopicPartition, is_member: bool = True) -> Health:
    health = Health(0.0, stuck_after_s=600.0)
    health.enter(Phase.WORKING, now_s)
    health.beat_s = now_s
    health.progressed(progress(*(owned or (TP,))), is_member=is_member)
    return health


def test_before_the_first_step_it_is_alive_not_started_and_says_what_it_does() -> None:
    health = Health(0.0, stuck_after_s=600.0)
    health.enter(Phase.LOADING_MODEL, 2.0)
    assert health.alive(5_000.0).ok, "a store may be waited for without end"
    assert not health.started(44.0).ok
    assert not health.ready(44.0).ok
    assert health.started(44.0).reasons == ("it loads the two models, for 42 s",)
    assert (health.started(44.0).phase, health.started(44.0).phase_s) == (Phase.LOADING_MODEL, 42.0)


def test_a_store_that_is_waited_for_at_the_start_is_named() -> None:
    health = Health(0.0, stuck_after_s=600.0)
    health.enter(Phase.CHECKING_STORE, 2.0)
    health.failed("writing", StoreUnavailable("no route to 10.0.0.7"), 10.0)
    assert health.ready(12.0).reasons[1] == "the store has not answered for 2 s", "without the host: anybody may ask"
    assert health.amiss(12.0, in_full=True) == ["the store has not answered for 2 s: no route to 10.0.0.7"]


def test_a_store_that_is_full_is_told_from_one_that_is_silent_also_when_the_one_becomes_the_other() -> None:
    health = working()
    health.failed("writing", StoreUnavailable("silent"), 100.0)
    health.failed("writing", StoreFull("no space on /data"), 101.0)
    assert health.ready(103.0).ok, "a rollout must not wait for room on a disk"
    assert health.ready(103.0).reasons == ("the store has been full, and nothing was written, for 3 s",)
    assert health.amiss(103.0, in_full=True) == [
        "the store has been full, and nothing was written, for 3 s: no space on /data"
    ]
    health.failed("writing", StoreUnavailable("silent"), 104.0)
    assert health.ready(105.0).reasons == ("the store has not answered for 5 s",)


def test_it_is_ready_once_it_has_stepped_and_joined_also_in_reserve() -> None:
    health = Health(0.0, stuck_after_s=600.0)
    health.enter(Phase.WORKING, 1.0)
    health.progressed(progress(), is_member=False)
    assert (health.ready(2.0).ok, health.ready(2.0).status) == (False, "joining")
    health.progressed(progress(), is_member=True)
    assert health.ready(3.0).ok
    assert health.ready(3.0).reasons == ("in reserve: other workers have all partitions",)
    assert health.started(3.0).ok


def test_a_rebalance_and_outages_take_readiness_from_nobody_and_are_named() -> None:
    health = working()
    health.progressed(progress(recovering=[TP]), is_member=False)
    assert health.ready(101.0).ok
    assert health.ready(101.0).reasons == ("the worker reads the chain of frames/0",)
    health.failed("reading", BrokerUnavailable("nobody at 10.0.0.9"), 102.0)
    health.failed("reading", BrokerUnavailable("nobody at 10.0.0.9"), 110.0)
    assert (health.alive(130.0).ok, health.ready(120.0).ok) == (True, True)
    assert "the broker has not answered for 18 s" in health.ready(120.0).reasons
    health.progressed(progress(TP), is_member=True)
    assert "the broker has not answered for 98 s" in health.ready(200.0).reasons, "that nothing failed ends nothing"
    health.ended("reading")
    assert health.ready(200.0).reasons == ()


def test_an_outage_lasts_from_the_first_failure_to_a_success_however_long_a_try_takes() -> None:
    health = working()
    for now_s in (110.0, 171.0, 240.0, 331.0):  # a round of tries against a dead broker takes a minute
        health.progressed(progress(TP), is_member=True)
        health.failed("reading", BrokerUnavailable("nobody answers"), now_s)
    health.ended("writing frames/0")
    outage = health.outage("broker")
    assert outage is not None
    assert outage.since_s == 110.0
    health.ended("reading")
    assert health.outage("broker") is None


def test_outages_of_broker_topic_permission_and_store_are_apart_and_each_ends_by_itself() -> None:
    health = working()
    health.failed("reading", BrokerUnavailable("nobody"), 100.0)
    health.failed("results", PermissionRefused("no WRITE"), 110.0)
    health.failed("dead letters of frames/0", TopicUnavailable("too few replicas"), 120.0)
    health.failed("writing frames/0", StoreUnavailable("a mount is gone"), 130.0)
    assert [health.amiss(140.0)[n].rpartition(" for ")[0] for n in range(4)] == [
        "the broker has not answered",
        "a topic has accepted nothing",
        "the broker has denied permission",
        "the store has not answered",
    ]
    health.ended("reading")
    assert {party: health.outage(party) is not None for party in PARTIES} == {
        "broker": False,
        "topic": True,
        "permission": True,
        "store": True,
        "log": False,
    }
    health.failed("results", BrokerUnavailable("nobody"), 150.0)
    outage = health.outage("broker")
    assert outage is not None
    assert outage.since_s == 110.0, "since then no result was taken"


def test_a_partition_that_is_behind_is_named_with_what_waits_in_it() -> None:
    health = working()
    waits = PartitionProgress(617, 3, 8, blocked=False, paused=True, streams_evicted=0, oldest_ms=40_000)
    health.progressed(replace(progress(TP), partitions={TP: waits}), is_member=True)
    assert health.ready(99.0).reasons == (), "as long as batches and segments take"
    assert health.ready(280.0).reasons == ("617 messages wait, the oldest for 4 min: frames/0",)


def test_what_stands_and_a_store_that_is_too_slow_are_named() -> None:
    health = working()
    health.progressed(progress(TP, blocked=True, paused=True), is_member=True)
    standing, paused = health.ready(101.0).reasons
    assert standing == "blocked, see the log: frames/0"
    assert paused.startswith("reading pauses")


def test_a_log_that_ends_early_is_neither_brokers_nor_stores() -> None:
    health = working()
    health.failed("recovering", LogEndsEarly("later"), 101.0)
    assert health.ready(102.0).reasons == ("the log has not answered for 1 s",)


def test_a_loop_that_has_not_turned_for_long_is_stuck_and_one_that_computes_is_not() -> None:
    health = working(100.0)
    assert health.alive(690.0).ok
    assert not health.alive(701.0).ok
    assert health.alive(701.0).status == health.ready(701.0).status == "stuck"
    health.beat_s = 700.0
    assert health.alive(1_299.0).ok


def test_a_worker_that_stops_is_alive_and_not_ready() -> None:
    health = working()
    health.enter(Phase.STOPPING, 110.0)
    assert health.alive(111.0).ok
    assert (health.ready(111.0).ok, health.ready(111.0).status) == (False, "stopping")
