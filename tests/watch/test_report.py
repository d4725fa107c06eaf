"""What a worker says of itself in its root: nothing while it is well, else what it waits for, and since when."""

from __future__ import annotations

from adawise.errors import BrokerUnavailable, StoreFull, StoreUnavailable
from adawise.watch.health import HealthReport
from adawise.worker.events import (
    Phase,
    PhaseEntered,
    RetriesEnded,
    RetryScheduled,
    Stepped,
    WorkerProgress,
)
from tests.watch.test_health import TP, progress


def test_a_worker_that_is_well_or_starts_says_nothing() -> None:
    now_s = 0.0
    report = HealthReport(lambda: now_s, lambda: True)
    assert report.describe() == {}
    report.observe(PhaseEntered(Phase.WORKING))
    report.observe(Stepped(lambda: progress(TP)))
    now_s = 5_000.0
    assert report.describe() == {}


def test_progress_that_cannot_be_found_out_ends_nothing() -> None:
    report = HealthReport(lambda: 0.0, lambda: True)

    def broken() -> WorkerProgress:
        raise ValueError("a lag that is none")

    report.observe(Stepped(broken))
    assert report.describe() == {}


def test_a_worker_whose_store_is_full_says_so_until_it_is_not() -> None:
    now_s = 100.0
    report = HealthReport(lambda: now_s, lambda: True)
    report.observe(PhaseEntered(Phase.WORKING))
    report.observe(Stepped(lambda: progress(TP)))
    report.observe(RetryScheduled("writing", StoreFull("no space on /data"), 1.0))
    now_s = 160.0
    assert report.describe() == {
        "status": "ready",
        "reasons": ["the store has been full, and nothing was written, for 60 s: no space on /data"],
        "waits_for": {"store": {"seconds": 60.0, "full": True}},
    }
    report.observe(RetriesEnded("writing"))
    assert report.describe() == {}


def test_a_worker_that_cannot_join_says_so_after_a_minute() -> None:
    now_s = 0.0
    report = HealthReport(lambda: now_s, lambda: False)
    report.observe(PhaseEntered(Phase.WORKING))
    report.observe(Stepped(progress))
    now_s = 59.0
    assert report.describe() == {}
    now_s = 61.0
    assert report.describe() == {
        "status": "joining",
        "reasons": ["the group has not been joined yet"],
        "waits_for": {},
    }


def test_what_it_waits_for_is_said_by_party_and_so_is_a_partition_that_cannot_be_read_on() -> None:
    report = HealthReport(lambda: 10.0, lambda: True)
    report.observe(PhaseEntered(Phase.WORKING))
    report.observe(Stepped(lambda: progress(TP, blocked=True)))
    assert report.describe()["reasons"] == ["blocked, see the log: frames/0"]

    def gone() -> WorkerProgress:
        raise BrokerUnavailable("nobody answers")

    report.observe(Stepped(gone))
    report.observe(RetryScheduled("reading", BrokerUnavailable("nobody answers"), 1.0))
    report.observe(RetryScheduled("writing", StoreUnavailable("no route"), 1.0))
    assert report.describe()["waits_for"] == {
        "broker": {"seconds": 0.0, "full": False},
        "store": {"seconds": 0.0, "full": False},
    }
