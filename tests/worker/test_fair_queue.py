from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.records import DecodedMessage, Message
from adawise.worker.fair_queue import Job, JobStage, Lanes
from tests.frames import a_frame
from tests.worker.counts import check_counts, jobs_of

STREAMS = "abcd"


class Queue:
    """The lanes of one partition, driven by hand; `known` streams have a lane of their own, and keep it."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.offset = 0
        self.decoding: list[Job] = []
        self.taken: list[Job] = []
        self.ready: set[int] = set()  # offsets
        self.known: set[str] = set()

    def add(self, streams: str, *, single: bool, hold: bool) -> None:
        message = Message("frames", 0, self.offset, None, b"x" * (1 + self.offset % 7))
        self.offset += 1
        is_single = single and len(streams) == 1
        self.lanes.add(
            message, frozenset(streams), shares_lane=streams not in self.known, is_single=is_single, hold=hold
        )

    def make_ready(self, stream: str, until: int) -> None:
        self.lanes.make_ready(stream, until)
        of_stream = [job.message.offset for job in jobs_of(self.lanes) if stream in job.streams]
        self.ready.update(offset for offset in of_stream if offset < until)

    def begin(self, job: Job | None) -> None:
        if job is not None:
            self.decoding.append(job)

    def end(self, number: int, took_s: float, *, fails: bool) -> None:
        job = self.decoding.pop(number % len(self.decoding))
        done = DecodedMessage(job.message, (a_frame(job.message.offset),))
        self.lanes.end(job, RuntimeError() if fails else done, took_s)

    def take(self) -> None:
        job = self.lanes.take()
        if job is not None:
            self.taken.append(job)

    def put_back(self, stream: str, count: int) -> None:
        """Put back what was taken last of a stream, if these were single images."""
        of_stream = [job for job in self.taken if stream in job.streams][-count:]
        if not of_stream or not all(job.is_single for job in of_stream):
            return
        known = [(job.message, job.isolated) for job in of_stream]
        if self.lanes.put_back(known, stream, shares_lane=stream not in self.known):
            self.taken = [job for job in self.taken if job not in of_stream]
            self.ready -= {job.message.offset for job in jobs_of(self.lanes) if stream in job.streams}

    def check(self) -> None:
        check_counts(self.lanes)
        for job in jobs_of(self.lanes):
            is_ready = not job.is_single or job.message.offset in self.ready
            assert job.stage >= JobStage.DECODING or is_ready == (job.stage in (JobStage.DECODABLE, JobStage.NEXT))


@pytest.mark.slow
@given(st.data())
def test_all_counts_are_those_of_a_recount_after_any_sequence_of_calls(data: st.DataObject) -> None:
    queue = Queue()
    calls = [
        "add",
        "add",
        "add",
        "ripen",
        "next",
        "next",
        "next",
        "end",
        "end",
        "take",
        "take",
        "put back",
        "awaited",
        "known",
    ]
    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(calls)):
            case "add":
                streams = data.draw(st.sampled_from([*STREAMS * 3, "ab", "bcd"]))
                single, hold = data.draw(st.tuples(st.booleans(), st.booleans()))
                queue.add(streams, single=single, hold=hold)
            case "known":
                queue.known.add(data.draw(st.sampled_from(STREAMS)))
            case "ripen":
                until = queue.offset - data.draw(st.integers(0, 3))
                queue.make_ready(data.draw(st.sampled_from(STREAMS)), until)
            case "next":
                quick, eager, must = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
                job = queue.lanes.begin_promised(quick=quick)
                images = data.draw(st.sampled_from([0.0, 1.0, 9.0]))
                queue.begin(job or queue.lanes.next(quick=quick, eager=eager, images=images, must=must))
            case "end":
                if queue.decoding:
                    number, took_s = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([0.001, 1.0]))
                    queue.end(number, took_s, fails=data.draw(st.sampled_from([False, False, False, True])))
            case "take":
                queue.take()
            case "put back":
                queue.put_back(data.draw(st.sampled_from(STREAMS)), data.draw(st.integers(1, 3)))
            case "awaited":
                queue.begin(queue.lanes.begin_awaited())
        queue.check()
    while queue.lanes.jobs:  # and then everything comes back
        queue.begin(queue.lanes.begin_promised(quick=False))
        queue.begin(queue.lanes.next(quick=False, eager=True, images=9.0, must=True))
        while queue.decoding:
            queue.end(0, 0.001, fails=False)
        while queue.lanes.ready:
            queue.take()
        queue.check()
    assert sorted(job.message.offset for job in queue.taken) == list(range(queue.offset))


def test_a_job_that_skips_a_stage_is_a_fault_of_ours() -> None:
    queue = Queue()
    queue.add("a", single=True, hold=False)
    (job,) = jobs_of(queue.lanes)
    with pytest.raises(KeyError):
        queue.lanes._move(job, JobStage.READY)
