"""What the queue of a partition counts, counted again from its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from adawise.worker.fair_queue import Job, JobStage, Lanes, message_bytes
from adawise.worker.readiness import Readiness


def jobs_of(lanes: Lanes) -> list[Job]:
    """Return all that are not taken, each once, in the order of the log."""
    found = {id(job): job for jobs in lanes._order.values() for job in jobs}
    return sorted(found.values(), key=lambda job: job.message.offset)


def check_counts(lanes: Lanes) -> None:
    """See that all that is counted is what a recount of the jobs gives, and that each job is where its stage says."""
    jobs = jobs_of(lanes)
    by_stage = Counter(job.stage for job in jobs)
    assert lanes.counts[: JobStage.TAKEN] == [by_stage[stage] for stage in JobStage if stage < JobStage.TAKEN]
    assert lanes.singles == sum(job.is_single for job in jobs)
    assert lanes.waiting_bytes == sum(job.size_bytes for job in jobs if job.stage < JobStage.DECODED)
    assert lanes.held_bytes == sum(job.size_bytes for job in jobs if job.stage >= JobStage.DECODED)
    for job in jobs:
        assert job.stage >= JobStage.DECODED or job.size_bytes == message_bytes(job.message)
        assert job.lane.away == sum(j.lane is job.lane and j.stage in (JobStage.HELD, JobStage.DECODING) for j in jobs)
        first = all(lanes._order[name][0] is job for name in job.streams)
        assert job.stage < JobStage.DECODED or (job.stage is JobStage.READY) == first
        if job.stage <= JobStage.DECODABLE:
            assert job in job.lane.waiting
        if job.stage is JobStage.NEXT:
            assert sum(begun.count(job) for begun in lanes._next) == 1
        assert job.is_single or job.stage not in (JobStage.WAITING, JobStage.HELD, JobStage.NEXT)
    assert all(lanes._held.values())
    held = [job for of_stream in lanes._held.values() for job in of_stream]
    assert sorted(map(id, held)) == sorted(id(job) for job in jobs if job.stage is JobStage.HELD)
    assert {id(job) for job in lanes.ready} == {id(job) for job in jobs if job.stage is JobStage.READY}
    assert len(lanes.ready) == by_stage[JobStage.READY]


def check_ready(jobs: Iterable[Job], readiness: Readiness) -> None:
    """See that what waits in the queue is ripe where the partition's work says that it is."""
    waiting = {name: stream for name, stream in readiness._streams.items() if stream.waiting}
    single: dict[str, list[Job]] = {}
    for job in jobs:
        if job.is_single:
            single.setdefault(job.stream, []).append(job)
    assert {name: [each.offset for each in stream.waiting] for name, stream in waiting.items()} == {
        name: [job.message.offset for job in of_stream] for name, of_stream in single.items()
    }
    for name, of_stream in single.items():
        for job in of_stream:
            is_ready = job.message.offset < waiting[name].ready_until
            assert job.stage >= JobStage.DECODING or is_ready == (job.stage in (JobStage.DECODABLE, JobStage.NEXT))
    unripe = [each for s in waiting.values() for each in s.waiting if each.offset >= s.ready_until]
    assert readiness.unready_bytes == sum(each.size_bytes for each in unripe)
