"""A flood of rejections is a few lines of log, and none of them goes uncounted."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from adawise.errors import Reason
from adawise.ports import Commit, Head
from adawise.records import Frame, RowId, TopicPartition
from adawise.worker.observer import LogObserver


class Told:
    """A `LogObserver` at a time of ours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.observer = LogObserver(lambda: self.now)
        self.sent = 0

    def reject(self, count: int, stream: str | None = "north", reason: Reason = Reason.UNDECODABLE_IMAGE) -> None:
        for _ in range(count):
            row = RowId("frames", 0, self.sent, 0)
            self.observer.frame_rejected(Frame(row, 0, stream, reason=reason, detail="expected better"))
            self.sent += 1


def counts(lines: list[Any]) -> tuple[int, int]:
    """(told in full, counted besides)."""
    return sum(line["event"] == "frame_rejected" for line in lines), sum(line.get("more", 0) for line in lines)


def test_the_first_of_a_stream_and_reason_are_told_in_full_and_the_others_once_a_minute() -> None:
    told = Told()
    with capture_logs() as lines:
        told.reject(20_000)
        assert counts(lines) == (3, 0)
        told.reject(2, reason=Reason.TOO_LARGE)
        told.reject(1, stream="south")
        assert counts(lines) == (6, 0), "another stream or reason has lines of its own"
        told.now = 60.0
        told.reject(1)
    assert counts(lines) == (6, 19_998)
    last = lines[-1]
    assert (last["event"], last["stream_id"], last["reason"]) == ("frames_rejected", "north", "undecodable_image")
    assert (last["more"], last["offset"]) == (19_998, told.sent - 1)


def test_what_was_counted_is_told_at_a_later_segment_and_at_the_end() -> None:
    told = Told()
    head = Head(9)
    with capture_logs() as lines:
        told.reject(5)
        told.now = 61.0
        told.observer.segment_committed(
            TopicPartition("frames", 0), Commit(head, won=True, rows=5, size_bytes=100), None
        )
        assert counts(lines) == (3, 2)
        told.reject(4)
        told.observer.stopped()
        told.observer.stopped()
    assert counts(lines) == (3, 6)


def test_a_flood_of_names_is_told_by_reason_and_takes_no_memory() -> None:
    told = Told()
    with capture_logs() as lines:
        for number in range(20_000):
            told.reject(1, stream=f"name-{number}")
        told.reject(1, stream="name-0")
        told.observer.stopped()
    assert counts(lines) == (100 + 3 + 1, 20_001 - 104)
    assert lines[-1]["stream_id"] == "of more than 100 streams"
    assert len(told.observer._rejections._alike) <= 100 + len(Reason)


def test_after_an_hour_without_one_the_next_is_told_in_full_again() -> None:
    told = Told()
    with capture_logs() as lines:
        told.reject(10)
        told.now = 61.0
        told.reject(1, stream="south")
        told.now = 3_700.0
        told.reject(1, stream="south")
        told.reject(1)
    assert counts(lines) == (3 + 2 + 1, 7)


def test_a_producer_s_mistake_is_told_once_a_stream_and_of_so_many_streams_as_are_told_apart() -> None:
    told = Told()
    with capture_logs() as lines:
        for number in range(500):
            for stream in ("north", f"name-{number}"):
                note = "header 'stream_id': it is not read"
                told.observer.frame_noted(Frame(RowId("frames", 0, number, 0), 0, stream, note=note))
    assert [line["stream_id"] for line in lines].count("north") == 1
    assert len(lines) == 100
