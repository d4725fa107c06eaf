"""What the queue of a partition counts, counted again from its jobs."""

from __future__ import annotations

from adawise.worker.fair_queue import Job, JobStage, Lanes, message_bytes


def jobs_of(lanes: Lanes) -> list[Job]:
    """Return all that are not taken, each once, in the order of the log."""
    found = {id(job): job for jobs in lanes.order.values() for job in jobs}
    return sorted(found.values(), key=lambda job: job.message.offset)


def check_counts(lanes: Lanes) -> None:
    """See that all that is counted is what a recount of the jobs gives, and that each job is where its stage says."""
    jobs = jobs_of(lanes)
    for stage in JobStage:
        of_stage = [job for job in jobs if job.stage is stage]
        if stage is not JobStage.TAKEN:
            assert (lanes.counts[stage], lanes.sizes[stage]) == (len(of_stage), sum(job.size_bytes for job in of_stage))
        if stage in (JobStage.WAITING, JobStage.HELD, JobStage.NEXT):
            assert all(job.is_single for job in of_stage)
    assert lanes.singles == sum(job.is_single for job in jobs)
    for job in jobs:
        assert job.stage is not JobStage.TAKEN
        assert job.stage >= JobStage.DECODED or job.size_bytes == message_bytes(job.message)
        assert job.lane.undecoded == sum(each.lane is job.lane and each.stage < JobStage.DECODED for each in jobs)
        assert all(of_stream.count(job) == (name in job.streams) for name, of_stream in lanes.order.items())
        first = all(lanes.order[name][0] is job for name in job.streams)
        assert job.stage < JobStage.DECODED or (job.stage is JobStage.READY) == first
        if job.stage <= JobStage.DECODABLE:
            assert job in job.lane.waiting
        if job.stage is JobStage.NEXT:
            assert sum(begun.count(job) for begun in lanes._next) == 1
    for stream, of_stream in lanes.order.items():
        unready = [job for job in of_stream if job.is_unready]
        assert list(lanes.unready(stream)) == unready[::-1]
        assert (stream in lanes._held) == any(job.stage is JobStage.HELD for job in unready)
    assert lanes._held.keys() <= lanes.order.keys()
    assert list(map(id, lanes.ready)) == list(dict.fromkeys(map(id, lanes.ready)))
    assert {id(job) for job in lanes.ready} == {id(job) for job in jobs if job.stage is JobStage.READY}
