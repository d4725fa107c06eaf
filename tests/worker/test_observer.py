"""A flood of rejections is a few lines of log, and none of them goes uncounted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from adawise.adapt.state import StreamState
from adawise.errors import Lost, Reason
from adawise.ports import Commit, Head, When
from adawise.records import Frame, Gap, Message, Missing, RowId, TopicPartition
from adawise.worker.backpressure import Limits
from adawise.worker.batching import batch_of
from adawise.worker.events import (
    BatchServed,
    DeadLetterSent,
    Event,
    FrameRejected,
    GapFound,
    Observers,
    Phase,
    PhaseEntered,
    ProducerMistaken,
    ResultsPublished,
    SegmentCommitted,
    Stepped,
    Stopped,
    WorkerProgress,
)
from adawise.worker.observer import LogObserver
from tests.fakes import FakeSource
from tests.frames import a_frame, adapted
from tests.worker.loop import TP, Bench, FakeResults, Journal, bad, batch, images


class LoggingObserver:
    """A `LogObserver` at a time of ours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.observer = LogObserver(lambda: self.now)
        self.sent = 0

    def reject(self, count: int, stream: str | None = "north", reason: Reason = Reason.UNDECODABLE_IMAGE) -> None:
        for _ in range(count):
            row = RowId("frames", 0, self.sent, 0)
            self.observer.observe(FrameRejected(Frame(row, 0, stream, reason=reason, detail="expected better")))
            self.sent += 1


def counts(lines: list[Any]) -> tuple[int, int]:
    """(told in full, counted besides)."""
    return sum(line["event"] == "frame_rejected" for line in lines), sum(line.get("more", 0) for line in lines)


def test_the_first_of_a_stream_and_reason_are_told_in_full_and_the_others_once_a_minute() -> None:
    found = LoggingObserver()
    with capture_logs() as lines:
        found.reject(20_000)
        assert counts(lines) == (3, 0)
        found.reject(2, reason=Reason.TOO_LARGE)
        found.reject(1, stream="south")
        assert counts(lines) == (6, 0), "another stream or reason has lines of its own"
        found.now = 60.0
        found.reject(1)
    assert counts(lines) == (6, 19_998)
    last = lines[-1]
    assert (last["event"], last["stream_id"], last["reason"]) == ("frames_rejected", "north", "undecodable_image")
    assert (last["more"], last["offset"]) == (19_998, found.sent - 1)


def test_what_was_counted_is_told_at_a_later_segment_and_at_the_end() -> None:
    found = LoggingObserver()
    head = Head(9)
    with capture_logs() as lines:
        found.reject(5)
        found.now = 61.0
        commit = Commit(head, won=True, rows=5, size_bytes=100)
        found.observer.observe(SegmentCommitted(TopicPartition("frames", 0), commit, None))
        assert counts(lines) == (3, 2)
        found.reject(4)
        found.observer.observe(Stopped())
        found.observer.observe(Stopped())
    assert counts(lines) == (3, 6)


def test_a_flood_of_names_is_told_by_reason_and_takes_no_memory() -> None:
    found = LoggingObserver()
    with capture_logs() as lines:
        for number in range(20_000):
            found.reject(1, stream=f"name-{number}")
        found.reject(1, stream="name-0")
        found.observer.observe(Stopped())
    assert counts(lines) == (100 + 3 + 1, 20_001 - 104)
    assert lines[-1]["stream_id"] == "of more than 100 streams"
    assert len(found.observer._rejections._alike) <= 100 + len(Reason)


def test_after_an_hour_without_one_the_next_is_told_in_full_again() -> None:
    found = LoggingObserver()
    with capture_logs() as lines:
        found.reject(10)
        found.now = 61.0
        found.reject(1, stream="south")
        found.now = 3_700.0
        found.reject(1, stream="south")
        found.reject(1)
    assert counts(lines) == (3 + 2 + 1, 7)


def test_a_producer_s_mistake_is_told_once_a_stream_and_of_so_many_streams_as_are_told_apart() -> None:
    found = LoggingObserver()
    with capture_logs() as lines:
        for number in range(500):
            for stream in ("north", f"name-{number}"):
                note = "header 'stream_id': it is not read"
                found.observer.observe(ProducerMistaken(Frame(RowId("frames", 0, number, 0), 0, stream, note=note)))
    assert [line["stream_id"] for line in lines].count("north") == 1
    assert len(lines) == 100


class Facts:
    """Keeps what `Journal` does not."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.progress: list[WorkerProgress] = []
        self.gaps: list[Gap] = []
        self.dead_letters: list[Frame] = []
        self.served: list[BatchServed] = []
        self.seconds: list[float] = []
        self.published = 0
        self.ends = 0

    def observe(self, event: Event) -> None:
        match event:
            case PhaseEntered():
                self.phases.append(event.phase)
            case Stepped():
                self.progress.append(event.progress())
            case GapFound():
                self.gaps.append(event.gap)
            case DeadLetterSent():
                self.dead_letters.append(event.frame)
            case ResultsPublished():
                self.published += event.rows
            case BatchServed():
                self.served.append(event)
            case SegmentCommitted():
                self.seconds.append(event.commit.seconds)
            case Stopped():
                self.ends += 1
            case _:
                pass


def test_several_observers_hear_all_of_a_run_and_the_numbers_agree() -> None:
    facts, journal = Facts(), Journal()
    lost = Message(TP.topic, 0, 42, None, None, missing=Missing(41, Lost.BATCH_DAMAGED))
    source = FakeSource([*images(40, "north", "south"), bad(40), lost, *images(5, "north", first=43)])
    bench = Bench(source, observer=Observers(facts, journal))
    bench.run(lambda: bench.rows >= 41)
    assert facts.phases == [Phase.WORKING, Phase.STOPPING]
    assert facts.gaps == [Gap(41, 43, Lost.BATCH_DAMAGED)]
    assert {frame.reason for frame in facts.dead_letters} == {Reason.UNDECODABLE_IMAGE, Lost.BATCH_DAMAGED}
    assert len(facts.dead_letters) == len(bench.dead_letters.sent)
    assert [event.trace for event in facts.served] == journal.served
    for event in facts.served:
        batch = event.batch
        assert batch is not None
        assert len(batch) == len(event.predictions.top_index) == event.trace.images == len(event.timestamps_ms)
        assert torch.equal(batch.frames[0].image, batch.images[0])  # type: ignore[arg-type]
    assert len(facts.seconds) == len(journal.commits)
    assert all(seconds >= 0.0 for seconds in facts.seconds)
    assert (facts.ends, journal.ends) == (1, 1)


def test_progress_says_what_is_pending_what_is_done_and_what_waits_to_be_read() -> None:
    facts = Facts()
    source = FakeSource(images(10, "north", "south"), partitions=2, max_poll_records=4)
    bench = Bench(source, observer=facts, limits=Limits(1 << 20, 1_000, 8))
    bench.run(lambda: bool(facts.progress) and facts.progress[-1].partitions[TP].pending == 2)
    first, last = facts.progress[0], facts.progress[-1]
    assert set(first.partitions) == {TP, TopicPartition(TP.topic, 1)}
    assert first.partitions[TP].lag == 10
    assert (last.partitions[TP].lag, last.partitions[TP].rows) == (10, 8), "no row is durable; two images wait"
    assert (last.partitions[TP].oldest_ms, last.partitions[TP].durable) == (0, 0)
    assert last.held_bytes == 2 * 12
    assert last.limit_bytes == 1 << 20
    assert (last.paused, last.recovering) == (False, ())
    assert (last.partitions[TP].blocked, last.partitions[TP].paused) == (False, False)


@pytest.mark.parametrize("when", ["early", "committed"])
def test_of_results_it_is_told_how_many_rows_they_are_about(when: When) -> None:
    facts = Facts()
    source = FakeSource([*images(16, "north"), bad(16), batch(17, "north", b"\x05\x00\x09")], finite=True)
    bench = Bench(source, observer=facts, results=FakeResults(when)).run()
    assert facts.published == bench.rows == 20


def test_a_search_that_fails_is_reported_once_a_stream_with_the_line_that_raised() -> None:
    batch = batch_of([a_frame(0)])
    result = adapted(batch, StreamState("k", 0))
    observer, served = LogObserver(), BatchServed(result.trace, result.predictions, [], batch)
    try:
        raise ZeroDivisionError("no rows")  # so that it has a line
    except ZeroDivisionError as raised:
        error = raised
    with capture_logs() as lines:
        for stream in ("north", "north", "south"):
            observer.observe(replace(served, trace=replace(served.trace, stream_id=stream), error=error))
    lines = [line for line in lines if line["event"] == "search_failed"]
    assert [line["stream_id"] for line in lines] == ["north", "south"]
    assert lines[0]["error"] == "ZeroDivisionError: no rows"
    assert lines[0]["where"].startswith("test_observer.py:")
    assert lines[0]["log_level"] == "error"


class Broken:
    """What watches the work, and fails at each call."""

    def observe(self, event: Event) -> None:
        if isinstance(event, BatchServed):
            raise KeyError("north")
        if isinstance(event, Stopped):
            raise RuntimeError("the exporter is closed")


def test_a_log_that_raises_as_well_ends_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise OSError("the disk of the log is full")

    monkeypatch.setattr("adawise.worker.events.structlog.get_logger", closed)
    messages = images(12, "north", "south")
    after = Journal()
    Bench(FakeSource(messages, finite=True), observer=Observers(Broken(), after)).run().check_against(messages)
    assert (len(after.served), after.ends) == (4, 1)


def test_an_observer_that_raises_ends_neither_the_work_nor_the_others() -> None:
    after = Journal()
    messages = images(12, "north", "south")
    with capture_logs() as lines:
        bench = Bench(FakeSource(messages, finite=True), observer=Observers(Broken(), after)).run()
    bench.check_against(messages)
    assert (len(after.served), after.ends) == (4, 1)
    received = [(line["method"], line["error"]) for line in lines if line["event"] == "observer_failed"]
    assert received == [("BatchServed", "KeyError: 'north'"), ("Stopped", "RuntimeError: the exporter is closed")]
