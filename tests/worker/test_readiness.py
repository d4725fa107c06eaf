from __future__ import annotations

import pytest

from adawise.records import DecodedMessage, Message
from adawise.worker.batching import BatchPolicy, OpenPart
from adawise.worker.fair_queue import BOOKKEEPING_BYTES, Job, JobStage, Lanes, message_bytes
from adawise.worker.readiness import Readiness
from tests.frames import a_frame
from tests.worker.counts import jobs_of

POLICY = BatchPolicy(images=3, max_age_s=1.0)
SIZE = BOOKKEEPING_BYTES + 1  # bytes of a message here; an image has ten times as many


class Waiting:
    """Messages that are held until they are ready; `open` are the open batches, as they are found."""

    def __init__(self, policy: BatchPolicy = POLICY) -> None:
        self.queue, self.open = Lanes(), dict[str, OpenPart]()
        self.made_ready: list[tuple[str, int]] = []
        self.readiness = Readiness(
            policy, self.queue, self._make_ready, self.open.get, image_bytes=10 * BOOKKEEPING_BYTES, ends={}
        )

    def _make_ready(self, stream: str, until: int) -> None:
        self.made_ready.append((stream, until))
        self.queue.make_ready(stream, until)

    def put(self, offset: int, stream: str = "a", *, at_ms: int = 0, now_s: float = 0.0, size: int = 1) -> None:
        message = Message("frames", 0, offset, None, bytes(size), timestamp_ms=at_ms)
        self.queue.add(message, frozenset([stream]), shares_lane=False, is_single=True, hold=True, read_s=now_s)
        self.readiness.read(stream)

    def take(self) -> int:
        """Decode the next message that is ready to be decoded, and take it; return its offset."""
        job = self.queue.begin_promised(quick=False) or self.queue.next(quick=False, eager=False, images=9, must=True)
        assert job is not None
        self.queue.end(job, DecodedMessage(job.message, (a_frame(job.message.offset),)), 0.001)
        assert self.queue.take() is job
        return job.message.offset

    def decode(self) -> list[int]:
        """Decode whatever there is, and take it; return the offsets."""
        taken = []
        while (job := self.queue.next(quick=False, eager=True, images=9, must=True)) is not None:
            self.queue.end(job, DecodedMessage(job.message, (a_frame(job.message.offset),)), 0.001)
        while (job := self.queue.take()) is not None:
            taken.append(job.message.offset)
        return taken


def test_a_stream_is_ready_with_the_image_that_completes_its_count() -> None:
    subject = Waiting()
    for offset in range(7):
        subject.put(offset, "ab"[offset % 2])
    assert subject.made_ready == [("a", 5), ("b", 6)]
    assert subject.queue.unready_bytes == SIZE


def test_a_stream_is_ready_with_an_image_that_was_produced_too_late_for_the_others() -> None:
    subject = Waiting()
    for offset, at_ms in enumerate([0, 1_000, 1_001, 2_002]):
        subject.put(offset, at_ms=at_ms)
    assert subject.made_ready == [("a", 3), ("a", 4)]


def test_an_image_that_turns_out_bad_makes_the_stream_wait_for_one_more() -> None:
    subject = Waiting()
    subject.put(0)
    subject.put(1)
    assert subject.decode() == [0, 1]
    subject.open["a"] = OpenPart(1, 0, 0.0)
    subject.readiness.count_again("a")
    subject.put(2)
    assert subject.made_ready == []
    subject.put(3)
    assert subject.made_ready == [("a", 4)]


class Counting(BatchPolicy):
    """Counts how often it is asked."""

    asked = 0

    def separates(self, first_ms: int, following_ms: int) -> bool:
        Counting.asked += 1
        return super().separates(first_ms, following_ms)


def test_each_bad_image_of_a_long_backlog_costs_the_same_however_long_it_is() -> None:
    subject, count = Waiting(Counting(images=3, max_age_s=1.0)), 500
    for offset in range(count):
        subject.put(offset)
    Counting.asked = 0
    for _ in range(count - 2):  # two wait for a third
        subject.take()
        subject.readiness.count_again("a")
    assert Counting.asked <= 2 * POLICY.images * count


def test_a_bad_image_does_not_walk_the_decoded_messages_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, count, asked = Waiting(), 300, 0
    for offset in range(count):
        subject.put(offset)
    jobs = [*iter(lambda: subject.queue.next(quick=False, eager=True, images=9, must=True), None)]
    for job in reversed(jobs):  # the first took longest, and all others wait for it
        assert job is not None
        subject.queue.end(job, DecodedMessage(job.message, ()), 0.001)
    is_unready: property = vars(Job)["is_unready"]

    def counted(job: Job) -> bool:
        nonlocal asked
        asked += 1
        return bool(is_unready.__get__(job))

    monkeypatch.setattr(Job, "is_unready", property(counted))
    for _ in jobs:
        subject.queue.take()
        subject.readiness.count_again("a")
    assert asked <= 3 * POLICY.images * count


def test_what_was_predicted_before_a_bad_image_of_a_long_backlog_is_put_right_once_the_backlog_is_short() -> None:
    subject = Waiting()
    for offset in range(20):  # the last two are predicted to be the first of a batch
        subject.put(offset)
    assert subject.take() == 0  # a bad one
    subject.readiness.count_again("a")
    for offset in range(1, 18):
        assert subject.take() == offset
        subject.open["a"] = OpenPart(offset % 3, 0, 0.0)
        if not offset % 3:
            del subject.open["a"]
        subject.readiness.taken("a")
    assert subject.made_ready[-1] == ("a", 19), "it completes the batch of 16 and 17"
    subject.put(20)
    assert subject.made_ready[-1] == ("a", 19)
    subject.put(21)
    assert subject.made_ready[-1] == ("a", 22)


def test_what_is_open_counts_and_what_was_put_back_waits_again_with_its_age() -> None:
    subject = Waiting()
    subject.open["a"] = OpenPart(2, 0, 5.0)
    subject.put(2, "b", now_s=9.0)
    again = [(Message("frames", 0, offset, None, b"x", timestamp_ms=0), False) for offset in range(2)]
    assert subject.queue.put_back(again, "a", shares_lane=False, read_s=5.0)
    del subject.open["a"]
    subject.readiness.count_again("a")
    assert (subject.made_ready, subject.readiness.first("a"), subject.queue.unready_bytes) == ([], 0, 3 * SIZE)
    assert list(subject.readiness.due(6.5)) == []
    assert list(subject.readiness.due(6.6)) == ["a"]
    assert list(subject.readiness.waiting) == [("b", 9.0, SIZE), ("a", 5.0, 2 * SIZE)]
    subject.put(3, now_s=6.0)
    assert subject.made_ready == [("a", 4)]
    assert list(subject.readiness.due(99.0)) == ["b"]


def test_what_is_ready_or_decoded_is_not_put_back_behind_what_came_after_it() -> None:
    subject = Waiting()
    subject.put(1)
    subject.readiness.make_ready("a", 2)
    assert not subject.queue.put_back([(Message("frames", 0, 0, None, b"x"), False)], "a", shares_lane=False)
    assert [job.message.offset for job in jobs_of(subject.queue)] == [1]


def test_what_takes_less_room_decoded_and_what_a_whole_batch_waits_for_is_ready_at_once() -> None:
    subject = Waiting()
    subject.put(0, size=10 * BOOKKEEPING_BYTES)
    subject.put(1, "b")
    whole = Message("frames", 0, 2, None, b"whole")
    subject.queue.add(whole, frozenset("bc"), shares_lane=True)
    assert subject.made_ready == [("a", 1)]
    assert [job.stage for job in jobs_of(subject.queue)] == 3 * [JobStage.DECODABLE]
    assert subject.queue.unready_bytes == 0
    assert subject.queue.waiting_bytes == sum(message_bytes(job.message) for job in jobs_of(subject.queue))


def test_what_is_read_again_below_what_is_ready_waits_no_longer_than_the_rest_of_its_stream() -> None:
    """A recovery reads what is pending while later offsets are known; its stream may be ready up to these by then."""
    subject = Waiting()
    subject.put(0, now_s=1.0)
    subject.readiness.make_ready("a", 9)
    subject.put(1, now_s=5.0)
    assert subject.queue.unready_bytes == SIZE
    assert list(subject.readiness.due(2.6)) == ["a"]
    subject.readiness.make_ready("a", 9)
    assert subject.queue.unready_bytes == 0
