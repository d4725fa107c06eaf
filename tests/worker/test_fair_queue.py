from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from adawise.adapt.state import StreamState
from adawise.errors import Reason
from adawise.ports import Head
from adawise.records import DecodedMessage, Frame, Message, RowId, TopicPartition
from adawise.worker.batching import BatchPolicy
from adawise.worker.decode_pool import Prefetch
from adawise.worker.fair_queue import Job, JobStage, Lane, Lanes, message_bytes
from adawise.worker.partition import PartitionPolicy, PartitionWork
from adawise.worker.readiness import Readiness
from tests.frames import a_frame, turn_of
from tests.worker.counts import check_counts, jobs_of

SIDE = 32  # px: an image takes three times what its message does
IMAGE_BYTES = 3 * SIDE * SIDE
BATCH = 3
TPS = [TopicPartition("frames", n) for n in range(2)]
GOOD, BAD, FAULT, KILLS, WHOLE = b"g", b"b", b"f", b"k", b"w"

partitions = st.sampled_from(TPS)


def streams(message: Message) -> frozenset[str]:
    """By the key."""
    return frozenset((message.key or b"").decode())


def frame(message: Message, index: int, stream: str | None, reason: Reason | None) -> Frame:
    image = torch.zeros((3, SIDE, SIDE), dtype=torch.uint8) if reason is None else None
    row_id = RowId(*message.topic_partition, message.offset, index)
    return Frame(row_id, message.timestamp_ms, stream, image=image, reason=reason)


def decode(message: Message) -> DecodedMessage:
    kind, names = (message.value or b"")[:1], (message.key or b"").decode()
    if kind == FAULT:
        raise ZeroDivisionError
    if kind == KILLS:
        return DecodedMessage(message, (frame(message, 0, None, Reason.KILLS_DECODER),), dead=True)
    reason = Reason.UNDECODABLE_IMAGE if kind == BAD else None
    frames = tuple(frame(message, index, name, reason) for index, name in enumerate(names))
    return DecodedMessage(message, frames, is_batch=kind == WHOLE)


class Partition:
    """A partition as it is owned now, and what a simple model knows of it: offsets and their bytes."""

    def __init__(self, pool: Prefetch, tp: TopicPartition, head: Head) -> None:
        self.queue = pool.queue(tp)
        policy = PartitionPolicy(BatchPolicy(BATCH, max_age_s=1.0), forget_after_s=1e9, max_streams=99)
        self.work = PartitionWork(
            tp,
            head,
            policy,
            turn_of(lambda: StreamState("", 0)),
            queue=self.queue,
            make_ready=lambda stream, until: pool.make_ready(tp, stream, until),
            image_bytes=IMAGE_BYTES,
        )
        self.messages: dict[int, Message] = {}  # all that came
        self.undecoded: dict[int, int] = {}
        self.decoded: dict[int, int] = {}
        self.known: set[str] = set()  # a stream with a message in hand is never forgotten


class Decoding(RuleBasedStateMachine):
    """Two partitions on a decode pool whose threads are moved by hand, as the worker's loop would use it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.cpu_s = 0.0, 0.0
        single = GOOD + BAD + FAULT
        self.pool = Prefetch(
            decode,
            streams,
            isolated=decode,
            is_single=lambda message: (message.value or b"")[:1] in single,
            image_bytes=IMAGE_BYTES,
            threads=0,
            clock=lambda: self.cpu_s,
        )
        self.end_of_log = dict.fromkeys(TPS, 0)
        self.again: dict[TopicPartition, deque[Message]] = {tp: deque() for tp in TPS}
        self.owned = {tp: Partition(self.pool, tp, Head(0)) for tp in TPS}
        self.decoding: list[Job] = []

    @rule(
        tp=partitions,
        kind=st.sampled_from([*[GOOD] * 12, *[BAD] * 3, FAULT, KILLS, WHOLE]),
        names=st.sampled_from(["a", "a", "b", "c", "ab", "bc"]),
        size=st.sampled_from([1, 1, 1, 9, 2 * IMAGE_BYTES]),
        late=st.sampled_from([0, 0, 0, 700]),
        known=st.sets(st.sampled_from("abc")),
    )
    def read(self, tp: TopicPartition, kind: bytes, names: str, size: int, late: int, known: set[str]) -> None:
        owned = self.owned[tp]
        if self.again[tp]:  # what was pending is read first
            message = self.again[tp].popleft()
        else:
            offset, self.end_of_log[tp] = self.end_of_log[tp], self.end_of_log[tp] + 1
            key = names if kind == WHOLE else names[0]
            message = Message(*tp, offset, key.encode(), kind * size, timestamp_ms=100 * offset + late)
        isolated = (message.value or b"").startswith(KILLS)
        owned.messages[message.offset] = message
        owned.undecoded[message.offset] = message_bytes(message)
        owned.known |= known
        named, is_single = self.pool.submit(message, owned.known, isolated=isolated, now_s=self.now_s)
        owned.work.read(message, named, self.now_s, is_single=is_single)

    @rule(room=st.sampled_from([0, 2, 6, 99]), eager=st.sampled_from([0, 2, 99]))
    def memory(self, room: int, eager: int) -> None:
        self.pool.make_room(room * IMAGE_BYTES, eager * IMAGE_BYTES)

    @rule(quick=st.booleans())
    def begin(self, quick: bool) -> None:
        job = self.pool._next(quick=quick)
        if job is not None:
            self.decoding.append(job)

    @precondition(lambda self: self.decoding)
    @rule(number=st.integers(0, 9), took_s=st.sampled_from([0.001, 1.0]))
    def end(self, number: int, took_s: float) -> None:
        job = self.decoding.pop(number % len(self.decoding))
        owned, offset = self.owned[job.message.topic_partition], job.message.offset
        self.cpu_s += took_s
        self.pool._do(job)
        if job.partition is owned.queue:  # else the partition was lost meanwhile
            del owned.undecoded[offset]
            owned.decoded[offset] = 0
            if isinstance(job.decoded, DecodedMessage):
                accepted = sum(frame.image is not None for frame in job.decoded.frames)
                owned.decoded[offset] = len(job.message.value or b"") + accepted * IMAGE_BYTES

    @rule(tp=partitions)
    def take(self, tp: TopicPartition) -> None:
        owned = self.owned[tp]
        try:
            taken = self.pool.take(tp)
        except ZeroDivisionError:  # it ends a worker: the next one begins at the chain
            self.lose(tp)
            return
        if taken is not None:
            decoded, read_s = taken
            offset = decoded.message.offset
            del owned.decoded[offset]
            before = [other for other in (*owned.undecoded, *owned.decoded) if other < offset]
            assert not any(streams(owned.messages[o]) & streams(decoded.message) for o in before)
            owned.work.add(decoded, self.now_s, read_s)

    @rule(tp=partitions)
    def decode_some(self, tp: TopicPartition) -> None:
        """What a quick thread would do meanwhile; without it few batches are open and can be put back."""
        for _ in range(4):
            self.begin(quick=False)
            while self.decoding:
                self.end(0, 0.001)
            self.take(tp)

    @rule(tp=partitions)
    def serve(self, tp: TopicPartition) -> None:
        work = self.owned[tp].work
        while work.ready:
            work.gathering.served(work.ready.popleft())

    @rule(tp=partitions, images=st.integers(1, 4))
    def put_back(self, tp: TopicPartition, images: int) -> None:
        owned = self.owned[tp]

        def give(stream: str, read_s: float, messages: Sequence[Message]) -> bool:
            again = [(message, False) for message in messages]
            if not self.pool.put_back(tp, stream, again, owned.known, read_s):
                return False
            owned.undecoded.update((message.offset, message_bytes(message)) for message in messages)
            return True

        owned.work.gathering.put_back(images * IMAGE_BYTES, give)

    @rule(tp=partitions, seconds=st.sampled_from([0.5, 2.0]))
    def wait(self, tp: TopicPartition, seconds: float) -> None:
        self.now_s += seconds
        self.owned[tp].work.gathering.close_due(self.now_s)

    @rule(tp=partitions, images=st.integers(1, 4))
    def close_oldest(self, tp: TopicPartition, images: int) -> None:
        self.owned[tp].work.gathering.close_oldest(images * IMAGE_BYTES)

    @rule(tp=partitions)
    def lose(self, tp: TopicPartition) -> None:
        """A rebalance: the partition comes back, and what was pending is read again, except what cannot be decoded."""
        owned = self.owned[tp]
        self.serve(tp)
        unserved = {frame.row_id.offset for frame in owned.work.gathering.unserved}
        pending = sorted(unserved | owned.undecoded.keys() | owned.decoded.keys() | {m.offset for m in self.again[tp]})
        again = {**owned.messages, **{message.offset: message for message in self.again[tp]}}
        self.again[tp] = deque(again[o] for o in pending if not (again[o].value or b"").startswith(FAULT))
        self.pool.drop(tp)
        self.owned[tp] = Partition(self.pool, tp, Head(self.end_of_log[tp], tuple(m.offset for m in self.again[tp])))

    @invariant()
    def counts_are_those_of_the_jobs_and_of_the_model(self) -> None:
        for tp, owned in self.owned.items():
            work, queue = owned.work, owned.queue
            assert self.pool.queue(tp) is queue
            check_counts(queue)
            assert [job.message.offset for job in jobs_of(queue)] == sorted([*owned.undecoded, *owned.decoded])
            assert queue.jobs == len(owned.undecoded) + len(owned.decoded) == work.offsets.under_decode
            assert self.pool.waiting_bytes(tp) == (sum(owned.undecoded.values()), queue.unready_bytes)
            assert queue.held_bytes == sum(owned.decoded.values())
            images = [*work.gathering.open.frames, *(frame for batch in work.ready for frame in batch.frames)]
            assert work.gathering.image_bytes == IMAGE_BYTES * len(images)
            assert all(len(list(queue.unready(stream))) < BATCH for stream in queue.order)

    def teardown(self) -> None:
        """Everything comes back in the end."""
        self.pool.make_room(sys.maxsize)
        for tp in TPS:
            while self.again[tp]:
                self.read(tp, GOOD, "a", 1, 0, set())
        for _ in range(10_000):
            if self.pool.is_empty:
                break
            self.begin(quick=False)
            while self.decoding:
                self.end(0, 0.001)
            for tp in TPS:
                self.owned[tp].work.gathering.end_streams()
                self.take(tp)
                while self.again[tp]:
                    self.read(tp, GOOD, "a", 1, 0, set())
            self.counts_are_those_of_the_jobs_and_of_the_model()
        assert self.pool.is_empty


@pytest.mark.slow
@pytest.mark.examples
def test_counts_are_those_of_the_jobs_whatever_is_read_decoded_put_back_or_lost() -> None:
    chosen = settings(derandomize=True, database=None, stateful_step_count=100, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Decoding, settings=chosen)


def queue_of(*offsets: int, stream: str = "a") -> Lanes:
    lanes = Lanes()
    for offset in offsets:
        message = Message("frames", 0, offset, None, b"x")
        lanes.add(message, frozenset(stream), shares_lane=False, is_single=True, hold=True)
    return lanes


def test_a_job_that_skips_a_stage_is_a_fault_of_ours() -> None:
    lanes = queue_of(0)
    (job,) = jobs_of(lanes)
    with pytest.raises(AssertionError, match=r"0: from .*HELD.* to .*READY"):
        lanes._move(job, JobStage.READY)


def test_a_lane_is_kept_while_messages_of_a_batch_that_was_begun_are_not_decoded() -> None:
    """Its last message took long, so that its place among the quick lanes is out of date when the batch is begun."""
    lanes = queue_of(0, 1)
    begun = jobs_of(lanes)
    lanes.make_ready("a", 2)
    lanes.add(Message("frames", 0, 2, None, b"x"), frozenset("b"), shares_lane=False)
    lanes._lanes["a"].guess_s = 1.0
    lanes._promise(begun)
    assert lanes.first(quick=True) is lanes._lanes["b"]
    for job in begun:
        assert lanes.begin_promised(quick=False) is job
        lanes.end(job, DecodedMessage(job.message, (a_frame(job.message.offset),)), 1.0)
    assert lanes.first(quick=False) is lanes._lanes["b"]
    check_counts(lanes)


def test_held_messages_of_a_stream_that_lost_its_own_lane_meanwhile_are_all_decoded() -> None:
    """A segment without the stream's state may become durable late, after a first message came that was known."""
    lanes = Lanes()
    for offset, shares_lane in enumerate([False, True, True]):
        message = Message("frames", 0, offset, None, b"x")
        lanes.add(message, frozenset("a"), shares_lane=shares_lane, is_single=True, hold=True)
    lanes.release("a")
    check_counts(lanes)
    begun = [lanes.next(quick=False, eager=True, images=9, must=False) for _ in range(3)]
    assert [job.message.offset for job in begun if job is not None] == [0, 1, 2]


def backlogs(counts: dict[str, int]) -> Lanes:
    """Streams with a lane of their own and so many messages, which make batches of two."""
    lanes = Lanes()
    rule = Readiness(BatchPolicy(2, 1.0), lanes, lanes.make_ready, lambda _: None, image_bytes=IMAGE_BYTES, ends={})
    for stream, count in counts.items():
        for _ in range(count):
            message = Message("frames", 0, len(jobs_of(lanes)), None, b"x")
            lanes.add(message, frozenset(stream), shares_lane=False, is_single=True, hold=True)
            rule.read(stream)
    return lanes


def test_a_backlog_of_one_stream_is_begun_batch_by_batch_as_far_as_there_is_room() -> None:
    lanes = backlogs({"a": 9})
    assert lanes.next(quick=False, eager=False, images=1, must=False) is None
    assert lanes.next(quick=False, eager=False, images=1, must=True) is not None
    assert lanes.promised == 2  # a whole batch, whatever room there is
    assert lanes.next(quick=False, eager=False, images=2, must=False) is not None
    assert lanes.promised == 4
    check_counts(lanes)


def test_batches_of_other_streams_are_begun_between_those_of_a_backlog_however_much_room_there_is() -> None:
    """How long the messages of a backlog take is only known by decoding the first, and they may be costly ones."""
    lanes, begun = backlogs({"a": 8, "b": 4}), []
    for _ in range(12):
        job = lanes.begin_promised(quick=False) or lanes.next(quick=False, eager=False, images=99, must=False)
        assert job is not None
        begun.append(job.stream)
        lanes.end(job, DecodedMessage(job.message, (a_frame(job.message.offset),)), 1.0)
    assert "".join(begun) == "aabbaabbaaaa"


def test_a_batch_that_lacked_room_gets_it_while_all_threads_that_may_decode_it_are_busy() -> None:
    """The thread for quick messages goes on beside it: a slow message may take for ever."""
    lanes = backlogs({"a": 2, "b": 2})
    lanes._lanes["a"].guess_s = 1.0
    lanes._lanes["b"].used_s = 0.5
    assert lanes.next(quick=False, eager=False, images=1, must=False) is None
    assert lanes.next(quick=True, eager=False, images=1, must=False) is None, "the room is kept for the first"
    begun = lanes.next(quick=True, eager=False, images=4, must=False), lanes.begin_promised(quick=False)
    assert [job.stream for job in begun if job is not None] == ["b", "b"]
    slow = lanes.begin_promised(quick=False)
    assert slow is not None
    assert slow.stream == "a"
    check_counts(lanes)


@pytest.mark.parametrize("slow", [(0, 1), (1,)], ids=["both are slow", "the small ones are quick"])
def test_small_batches_do_not_take_the_room_that_a_large_batch_of_another_partition_waits_for(
    slow: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions = {TPS[number].partition for number in slow}
    is_slow = property(lambda lane: bool(lane.waiting) and lane.waiting[0].message.partition in partitions)
    monkeypatch.setattr(Lane, "is_slow", is_slow)
    clock = itertools.count()
    pool = Prefetch(
        decode, streams, is_single=lambda _: True, image_bytes=IMAGE_BYTES, threads=0, clock=lambda: float(next(clock))
    )
    pool.make_room(6 * IMAGE_BYTES + 99, 0)
    rules = [
        Readiness(
            BatchPolicy(images, max_age_s=1.0),
            pool.queue(tp),
            partial(pool.make_ready, tp),
            lambda _: None,
            image_bytes=IMAGE_BYTES,
            ends={},
        )
        for tp, images in zip(TPS, (1, 4), strict=True)
    ]

    def put(partition: int, count: int) -> None:
        for offset in range(count):
            pool.submit(Message(*TPS[partition], offset, b"a", GOOD), "a")
            rules[partition].read("a")

    def decode_what_there_is_room_for() -> None:
        while (job := pool._next() or pool._next(quick=True)) is not None:
            pool._do(job)

    put(0, 40)
    decode_what_there_is_room_for()
    put(1, 4)
    for _ in range(4):
        for _ in range(2):  # the model serves less in a round than the large batch needs
            pool.take(TPS[0])
        decode_what_there_is_room_for()
    assert len([*iter(lambda: pool.take(TPS[1]), None)]) == 4
    assert pool.queue(TPS[0]).waiting, "there was a small batch to begin at any time"
