"""Open batches are held encoded where memory is short: when something is decoded changes no batch and no alpha."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from adawise.errors import Reason
from adawise.records import DecodedMessage, Frame, Message, RowId, TopicPartition
from adawise.settings import Settings
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.decode_pool import Prefetch
from adawise.worker.fair_queue import BOOKKEEPING_BYTES, Lanes, message_bytes
from adawise.worker.partition import FlushPolicy
from adawise.worker.readiness import Readiness
from tests.fakes import FakeSource
from tests.worker.counts import check_counts
from tests.worker.loop import TP, Bench, Inline

SIDE = 48  # px
PIXELS = 3 * SIDE * SIDE  # bytes of an image: six times what its message takes
BATCH, MAX_AGE_S = 4, 2.0
BAD = 0


def picture(offset: int, stream: str, *, at_ms: int, bad: bool = False, partition: int = 0) -> Message:
    """A message of one image, which may be one that is rejected once it is decoded."""
    pixel = BAD if bad else 1 + offset % 250
    return Message(TP.topic, partition, offset, stream.encode(), b"p%c" % pixel, timestamp_ms=at_ms)


def whole(offset: int, streams: str, *, at_ms: int) -> Message:
    """A batch as it was sent, an image of each of these streams, by names in its rows; a dot is a bad row."""
    return Message(TP.topic, 0, offset, None, b"w" + streams.encode(), timestamp_ms=at_ms)


def is_picture(message: Message) -> bool:
    return (message.value or b"").startswith(b"p")


def streams(message: Message) -> frozenset[str]:
    if is_picture(message):
        return frozenset([(message.key or b"").decode()])
    return frozenset((message.value or b"")[1:].decode()) - {"."}


def decode(message: Message, side: int = SIDE) -> DecodedMessage:
    value = message.value or b""
    if is_picture(message):
        frame = _frame(message, 0, (message.key or b"").decode(), value[1] or None, side)
        return DecodedMessage(message, (frame,), dead=frame.image is None)
    rows = enumerate(value[1:].decode())
    return DecodedMessage(
        message,
        tuple(_frame(message, i, s, None if s == "." else 1 + (message.offset + i) % 250) for i, s in rows),
        True,
    )


def _frame(message: Message, index: int, stream: str, pixel: int | None, side: int = SIDE) -> Frame:
    return Frame(
        RowId(message.topic, message.partition, message.offset, index),
        message.timestamp_ms,
        stream,
        image=None if pixel is None else torch.full((3, side, side), pixel, dtype=torch.uint8),
        reason=Reason.UNDECODABLE_IMAGE if pixel is None else None,
    )


class Watched(Bench):
    """A worker that holds messages encoded; `peak` is the most that was in hand, in bytes."""

    def __init__(
        self,
        messages: Iterable[Message],
        inflight_bytes: int,
        *,
        threads: int = 0,
        side: int = SIDE,
        batch: int = BATCH,
        round_images: int = 8,
        **changes: Any,
    ) -> None:
        self.messages, self._side = list(messages), side
        self.decoded: list[int] = []
        self.peak = 0
        source = {name: changes.pop(name) for name in ("partitions", "finite", "max_poll_records") if name in changes}
        kind = Prefetch if threads else Inline
        super().__init__(
            FakeSource(self.messages, **source),
            prefetch=kind(self._decode, streams, is_single=is_picture, image_bytes=3 * side * side, threads=threads),
            batches=BatchPolicy(images=batch, max_age_s=MAX_AGE_S),
            limits=Limits(inflight_bytes, uncommitted_rows=100_000, round_images=round_images),
            **changes,
        )

    def finish(self, watch: Callable[[Watched], bool] = lambda _: False) -> Watched:
        """Run until every row is committed; `watch` is called once a step."""
        rows = sum(1 if is_picture(message) else len(decode(message).frames) for message in self.messages)
        with capture_logs() as self.log:
            self.run(lambda: self._watch() or watch(self) or self.rows == rows)
        return self

    @property
    def closed_early(self) -> int:
        return sum(line["batches"] for line in self.log if line["event"] == "batches_closed_early")

    @property
    def in_hand(self) -> int:
        """Bytes of messages and images."""
        worker = self._worker
        pool = sum(lanes.waiting_bytes + lanes.held_bytes for lanes in list(worker._prefetch._partitions.values()))
        return pool + sum(w.gathering.image_bytes + w.gathering.open.kept_bytes for w in worker._owned.values())

    def _watch(self) -> bool:
        self.peak = max(self.peak, self.in_hand)
        return False

    def check_counts(self) -> bool:
        """See that the queues' counts are those of a recount."""
        with self._worker._prefetch._changed:
            for lanes in self._worker._prefetch._partitions.values():
                check_counts(lanes)
        return False

    def _decode(self, message: Message) -> DecodedMessage:
        self.decoded.append(message.offset)
        return decode(message, self._side)

    def check(self, undisturbed: Watched) -> None:
        """The same rows, batches and alphas."""
        assert self.table.equals(undisturbed.table)
        assert repr(self.traces) == repr(undisturbed.traces)


def lockstep(cameras: int, rounds: int, *, every_ms: int = 10, partitions: int = 1) -> list[Message]:
    """Every camera sends one picture each round."""
    at = [0] * partitions
    messages = []
    for turn in range(rounds):
        for camera in range(cameras):
            partition = camera % partitions
            messages.append(picture(at[partition], f"camera-{camera}", at_ms=turn * every_ms, partition=partition))
            at[partition] += 1
    return messages


UNLIMITED = 1 << 30
JPEG = bytes(11_000)  # as large as one of 224 px
POLL_BYTES = 10 * (BOOKKEEPING_BYTES + 2)  # a poll may go over it


@pytest.mark.parametrize("threads", [0, 2])
def test_half_open_batches_whose_pixels_would_not_fit_are_complete_all_the_same(threads: int) -> None:
    messages = lockstep(40, 2 * BATCH)
    limit = 2 * 40 * BATCH * (BOOKKEEPING_BYTES + 2)  # half of the pixels of the open batches
    bench = Watched(messages, limit, threads=threads, max_poll_records=10).finish()
    assert bench.closed_early == 0
    assert {t["images"] for t in bench.traces} == {BATCH}
    assert bench.peak <= limit + POLL_BYTES
    assert len(bench.decoded) <= 1.1 * len(messages)
    bench.check(Watched(messages, UNLIMITED, finite=True).finish())


@pytest.mark.parametrize("cameras", [50, pytest.param(1_000, marks=pytest.mark.check("replay"))])
def test_a_thousand_cameras_at_224_px_are_held_by_the_default_limit_and_a_replay_finds_the_same_batches(
    cameras: int,
) -> None:
    """A thousand half-open batches of 16, by a JPEG's bytes; then dealt to other partitions, in another order.

    Fewer cameras have their share of the limit.
    """
    chosen = Settings()
    limit, batch = (chosen.limits.inflight_mib << 20) * cameras // 1_000, chosen.batch.images
    assert cameras * (batch - 1) * 3 * 224**2 > 4 * limit
    found = []
    for partitions, seed in ((4, 0), (3, 1)):
        rng, at, messages = random.Random(seed), [0] * partitions, list[Message]()
        for turn in range(batch + 1):
            for camera in rng.sample(range(cameras), cameras):
                n, value = camera % partitions, b"p%c" % (1 + (7 * camera + 31 * turn) % 250) + JPEG
                key, at_ms = b"camera-%d" % camera, 100 * turn
                messages.append(Message(TP.topic, n, at[n], key, value, timestamp_ms=at_ms))
                at[n] += 1
        large: dict[str, Any] = {
            "round_images": max(8, 256 * cameras // 1_000),
            "flush": FlushPolicy(4_096 * cameras // 1_000, 5.0),
            "max_poll_records": 2_048 * cameras // 1_000,
            "max_streams": cameras,
        }
        bench = Watched(messages, limit, side=224, batch=batch, partitions=partitions, finite=True, **large).finish()
        assert bench.closed_early == 0
        assert len(bench.decoded) <= 1.05 * len(messages)
        assert bench.peak <= limit
        found.append({(t["stream_id"], t["batch_number"]): (t["images"], t["alpha"]) for t in bench.traces})
        assert sorted(images for images, _ in found[-1].values()) == [1] * cameras + [batch] * cameras
    assert found[0] == found[1]


def test_a_lane_forgets_the_batch_that_was_begun_and_whoever_took_an_image_has_it_alone() -> None:
    """Else images outlive their batch until their lane is first again, which may be long (3.3 GB of 1,000 cameras)."""
    lanes = Lanes()
    policy = BatchPolicy(BATCH, MAX_AGE_S)
    rule = Readiness(policy, lanes, lanes.make_ready, lambda _: None, image_bytes=PIXELS, ends={})
    for message in lockstep(1, BATCH):
        lanes.add(message, streams(message), shares_lane=False, is_single=True, hold=True)
        rule.read("camera-0")
    assert lanes.next(quick=False, eager=False, images=BATCH, must=False) is not None
    assert not lanes._lanes["camera-0"].waiting
    pool = Inline(decode, streams, is_single=is_picture, image_bytes=PIXELS, threads=0)
    (message,) = lockstep(1, 1)
    pool.submit(message, known=())
    (job,) = pool.queue(TP).order["camera-0"]
    assert pool.take(TP) is not None
    assert job.decoded is None


def test_batches_that_end_by_time_leave_no_pixels_of_the_image_that_ended_them() -> None:
    messages = lockstep(40, 6, every_ms=1_100)  # the third image of a batch is too late for it
    limit = 40 * 2 * (BOOKKEEPING_BYTES + 2) * 2
    assert limit < 40 * PIXELS
    bench = Watched(messages, limit, max_poll_records=10).finish()
    assert bench.closed_early == 0
    assert {t["images"] for t in bench.traces} == {2}
    assert bench.peak <= limit + POLL_BYTES
    bench.check(Watched(messages, UNLIMITED, finite=True).finish())


def test_a_camera_whose_every_batch_has_a_bad_image_fills_no_room_for_ever() -> None:
    at, messages = 0, []
    for turn in range(3 * BATCH):
        for camera in range(30):
            messages.append(picture(at, f"camera-{camera}", at_ms=10 * turn, bad=turn % BATCH == BATCH - 1))
            at += 1
    limit = 2 * 30 * (BATCH + 1) * (BOOKKEEPING_BYTES + 2)
    bench = Watched(messages, limit, max_poll_records=10).finish()
    assert bench.closed_early == 0
    assert bench.peak <= limit + POLL_BYTES
    bench.check(Watched(messages, UNLIMITED, finite=True).finish())


@pytest.mark.parametrize("threads", [0, 2])
def test_the_backlog_of_one_camera_is_decoded_no_further_than_there_is_room(threads: int) -> None:
    quiet = [picture(n, f"camera-{n}", at_ms=n) for n in range(20)]
    messages = [*quiet, *(picture(n, "busy", at_ms=n) for n in range(20, 320))]
    limit = 30 * PIXELS
    bench = Watched(messages, limit, threads=threads, finite=True, max_poll_records=50).finish()
    assert bench.closed_early == 0
    assert bench.peak <= limit + 5 * POLL_BYTES
    bench.check(Watched(messages, UNLIMITED, finite=True).finish())


def test_silent_cameras_are_served_by_the_clock_although_their_messages_are_not_decoded() -> None:
    messages = lockstep(100, 2)
    bench = Watched(messages, 2 * 100 * 2 * (BOOKKEEPING_BYTES + 2), max_poll_records=10).finish()
    assert {t["images"] for t in bench.traces} == {2}
    assert MAX_AGE_S < bench.now_s < MAX_AGE_S + 10.0  # and the flush
    assert bench.closed_early == 0


def test_what_takes_less_room_decoded_is_decoded_at_once() -> None:
    large = bytes(2 * PIXELS)
    messages = [
        Message(TP.topic, 0, n, b"camera-%d" % (n % 40), b"p%c" % (1 + n) + large, timestamp_ms=n) for n in range(80)
    ]
    limit = 2 * 80 * PIXELS
    bench = Watched(messages, limit, max_poll_records=2).finish()
    assert bench.closed_early == 0
    assert sorted(bench.decoded) == list(range(80))
    assert bench.peak <= limit + POLL_BYTES


def test_where_not_even_messages_fit_the_oldest_batches_are_closed_early_and_nothing_stands_still() -> None:
    messages = lockstep(60, 2 * BATCH)
    bench = Watched(messages, 60 * (BOOKKEEPING_BYTES + 2), max_poll_records=10).finish()
    assert bench.closed_early > 0
    assert {line["log_level"] for line in bench.log if line["event"] == "batches_closed_early"} == {"warning"}
    assert bench.now_s < 30.0


def test_a_partition_that_is_full_of_half_open_batches_leaves_others_their_room() -> None:
    """One has many cameras that never complete a batch, the other one that does all the time."""
    crowd = lockstep(300, 2)
    busy = [picture(n, "busy", at_ms=n, partition=1) for n in range(200)]
    limit = 300 * (BOOKKEEPING_BYTES + 2)
    bench = Watched([*crowd, *busy], limit, partitions=2, max_poll_records=20)
    served: list[int] = []

    def turn() -> bool:
        served.append(sum(t.images for t in bench.seen.served if t.stream_id == "busy"))
        return served[-1] == 200

    bench.run(turn)
    assert bench.now_s < 10.0


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """Pictures and batches of a few streams, some bad, some late, some without a time."""
    messages, at_ms = [], 0
    for offset in range(draw(st.integers(0, 60))):
        at_ms += draw(st.sampled_from([0, 5, 400, 2_500]))
        stated = draw(st.sampled_from([at_ms, at_ms, at_ms, at_ms, -1]))
        if draw(st.sampled_from([*[False] * 12, True])):
            rows = "".join(draw(st.lists(st.sampled_from("abcd."), min_size=1, max_size=5)))
            messages.append(whole(offset, rows if rows.strip(".") else rows + "a", at_ms=stated))
        else:
            bad = draw(st.sampled_from([*[False] * 5, True]))
            messages.append(picture(offset, draw(st.sampled_from("abcdef")), at_ms=stated, bad=bad))
    return messages


@pytest.mark.slow
@given(logs(), st.integers(1, 12), st.integers(0, 4 * PIXELS), st.booleans(), st.integers(0, 3))
def test_any_limits_that_the_messages_fit_in_give_the_batches_and_alphas_of_a_worker_without_any(
    messages: list[Message], poll: int, more: int, finite: bool, threads: int
) -> None:
    limit = 4 * (sum(map(message_bytes, messages)) // 3 + 1) + 8 * PIXELS + more
    bench = Watched(messages, limit, finite=finite, max_poll_records=poll, threads=threads // 3 * 2)
    bench.finish(Watched.check_counts)
    assert bench.closed_early == 0
    bench.check(Watched(messages, UNLIMITED, finite=True).finish())


@pytest.mark.slow
@given(logs(), st.integers(1, 12), st.integers(1, 100_000), st.booleans())
def test_no_limit_is_so_low_that_the_worker_stands_still_or_loses_an_image(
    messages: list[Message], poll: int, limit: int, finite: bool
) -> None:
    bench = Watched(messages, limit, finite=finite, max_poll_records=poll).finish(Watched.check_counts)
    ids = [str(frame.row_id) for message in messages for frame in decode(message).frames]
    assert bench.table["row_id"].to_pylist() == ids


def test_a_worker_that_ends_leaves_what_it_held_pending_and_the_next_one_goes_on_without_a_trace() -> None:
    messages = lockstep(30, 2 * BATCH - 1)
    limit = 2 * 30 * BATCH * (BOOKKEEPING_BYTES + 2)
    first = Watched(messages, limit, max_poll_records=10)
    first.run(lambda: len(first.seen.served) == 30 and first._worker._source.drained(TopicPartition(*TP)))
    second = Watched(messages, limit, finite=True, store=first.store).finish()
    second.check(Watched(messages, UNLIMITED, finite=True).finish())
