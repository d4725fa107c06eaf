"""The loop over fakes: order of commits, lost races, retries, gaps, rebalances, the end of a source.

Real processes on a real broker are in tests/worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from adawise.adapt.conditions import Appearance
from adawise.adapt.search import Search
from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import WarmSearch
from adawise.errors import BrokerUnavailable, FatalError, SourceError, StoreUnavailable
from adawise.output.verify.root import verify
from adawise.ports import Poll, ServedBy, TopicIdentity
from adawise.records import Gap, Message, TopicPartition
from adawise.sink.chain import SegmentChain
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.fair_queue import BOOKKEEPING_BYTES
from adawise.worker.partition import FlushPolicy
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import (
    CLASSES,
    TP,
    Bench,
    Inline,
    adaptation,
    bad,
    batch,
    decode,
    held_bytes,
    image,
    images,
    prefetch,
)

CAMERAS = ("north", "south", "east")
MIXED = [
    *images(30, *CAMERAS),
    bad(30),
    batch(31, "north", b"\x05\x00\x09"),
    *images(28, *CAMERAS, first=32),
    bad(60),
    image(61, "west"),
]


def undisturbed(messages: list[Message], **changes: Any) -> Bench:
    """The same messages in one go; by a worker with no changes, once for all tests."""
    if changes:
        return Bench(FakeSource(messages, finite=True), **changes).run()
    return _undisturbed(tuple(messages))


@cache
def _undisturbed(messages: tuple[Message, ...]) -> Bench:
    return Bench(FakeSource(messages, finite=True)).run()


def test_every_image_is_served_once_and_open_batches_are_closed_at_the_end_of_a_recording() -> None:
    bench = undisturbed(MIXED)
    bench.check_against(MIXED)
    assert {t["images"] for t in bench.traces if t["stream_id"] == "west"} == {1}
    assert [m.offset for m in bench.dead_letters.sent] == [30, 60]
    assert bench.table["reason"].to_pylist().count("undecodable_image") == 3  # two messages and one row of a batch


class FailsInTheThirdBatch(WarmSearch):
    """A search with a fault that streams meet once."""

    def search(self, state: StreamState, images: int, appearance: Appearance | None = None) -> Search:
        outcome = yield from super().search(state, images, appearance)
        return outcome if state.batches != 2 else replace(outcome, index=1 // 0)


def test_a_search_that_fails_ends_neither_the_worker_nor_its_camera() -> None:
    messages = images(60, *CAMERAS)
    bench = Bench(FakeSource(messages, finite=True), adaptation=adaptation(FailsInTheThirdBatch)).run()
    bench.check_against(messages)
    assert {type(error) for _, error in bench.seen.failed} == {ZeroDivisionError}
    assert sorted(trace.stream_id for trace, _ in bench.seen.failed) == sorted(CAMERAS)
    traces = [trace for trace in bench.traces if trace["batch_number"] in (2, 3)]
    kinds = {(t["batch_number"], t["trigger"], t["reset"], t["alpha"]) for t in traces}
    assert kinds == {(2, "failed", "failed", 0.5), (3, "start", None, 0.5)}
    assert verify(bench.store) == []


def test_the_segment_is_written_before_the_offset_is_committed() -> None:
    source = FakeSource(MIXED, finite=True)
    bench = Bench(source)
    hints: list[tuple[str, int | None]] = []
    bench.at = lambda point: hints.append((point, source.committed.get(TP)))
    bench.run()
    order = [point for point, _ in hints if point.startswith(("segment.created", "worker.segment", "worker.offset"))]
    assert order == ["segment.created", "worker.segment_committed", "worker.offset_committed"] * (len(order) // 3)
    heads = [footer for _, footer in read_segment_footers(bench.store)]
    low_waters = [min(footer.pending, default=footer.next) for footer in heads]
    assert [hint for point, hint in hints if point == "worker.segment_committed"] == [0, *low_waters[:-1]]
    assert [hint for point, hint in hints if point == "worker.offset_committed"] == low_waters


def test_dead_letters_are_flushed_before_the_segment_that_says_they_were_rejected() -> None:
    bench = Bench(FakeSource([bad(0), *images(8, "north", first=1)], finite=True))
    flushes: list[int] = []
    bench.at = lambda point: flushes.append(bench.dead_letters.flushes) if point == "segment.encoded" else None
    bench.run()
    assert flushes == [1]


@pytest.mark.parametrize("batch_images", [1, 4, 7])
@pytest.mark.parametrize("flush_rows", [1, 5, 1_000])
@pytest.mark.cases("worker", every=3)
def test_where_segments_are_cut_changes_no_result(flush_rows: int, batch_images: int) -> None:
    policy = BatchPolicy(images=batch_images, max_age_s=2.0)
    bench = Bench(
        FakeSource(MIXED, finite=True, max_poll_records=3),
        prefetch=prefetch(threads=2),
        batches=policy,
        flush=FlushPolicy(flush_rows, 5.0),
    )
    bench.run()
    bench.check_against(MIXED, undisturbed(MIXED, batches=policy))


def test_segments_are_written_in_time_while_there_is_always_more_to_do() -> None:
    messages = images(300, "north")
    bench = Bench(FakeSource(messages, finite=True, max_poll_records=8), flush=FlushPolicy(50, 1_000.0))
    bench.run()
    bench.check_against(messages)
    assert max(commit.rows for _, commit in bench.seen.commits) < 50 + 2 * 8  # the round that made it due, and one more


def test_a_worker_that_is_told_to_stop_writes_what_is_complete_and_leaves_the_rest_to_the_next() -> None:
    source = FakeSource(images(30, *CAMERAS))
    first = Bench(source, flush=FlushPolicy(1_000, 1_000.0), limits=Limits(1 << 20, 1_000, round_images=100))
    first.run(lambda: len(first.seen.served) == 6)
    assert first.rows == 24
    [(_, footer)] = read_segment_footers(first.store)
    assert footer.pending == tuple(range(24, 30))
    assert source.closed
    assert source.committed == {TP: 24}
    Bench(FakeSource(images(30, *CAMERAS), finite=True), first.store).run().check_against(
        images(30, *CAMERAS), undisturbed(images(30, *CAMERAS))
    )


def test_a_stop_while_messages_are_under_decode_cuts_no_batch_short() -> None:
    """The end of a recording closes open batches; not if a signal came before everything was gathered."""
    messages = images(40, *CAMERAS)
    source = FakeSource(messages, finite=True)
    first = Bench(source, limits=Limits(1 << 20, 1_000, round_images=1))
    first.run(lambda: source.exhausted)
    assert first.rows < 40
    Bench(FakeSource(messages, finite=True), first.store).run().check_against(messages, undisturbed(messages))


@pytest.mark.parametrize("turn", range(1, 12))
def test_a_worker_that_is_stopped_at_any_turn_is_continued_without_a_trace(turn: int) -> None:
    first = Bench(FakeSource(MIXED, finite=True, max_poll_records=7), flush=FlushPolicy(5, 5.0))
    first.run(lambda: first.steps > turn)
    Bench(FakeSource(MIXED, finite=True), first.store).run().check_against(MIXED, undisturbed(MIXED))


class Died(BaseException):
    """The process ends here: nobody catches it."""


def deaths() -> list[tuple[str, int]]:
    """Every point of an undisturbed run, and which time it is reached."""
    points = Bench(FakeSource(MIXED, finite=True), flush=FlushPolicy(16, 5.0)).run().points
    return [(point, points[: n + 1].count(point)) for n, point in enumerate(points)]


@pytest.mark.parametrize(("point", "time"), deaths())
@pytest.mark.cases("kills", every=2)
def test_a_worker_that_dies_at_any_point_is_continued_without_a_trace(point: str, time: int) -> None:
    first = Bench(FakeSource(MIXED, finite=True))

    def die(_: str) -> None:
        if first.points.count(point) == time:
            raise Died

    first.at = die
    with pytest.raises(Died):
        first.run()
    Bench(FakeSource(MIXED, finite=True), first.store).run().check_against(MIXED, undisturbed(MIXED))


def test_a_lost_race_adopts_the_winner_and_goes_on() -> None:
    slow = Bench(FakeSource(MIXED, finite=True))
    quick = Bench(FakeSource(MIXED[:40]), slow.store, flush=FlushPolicy(7, 5.0))

    def overtaken(point: str) -> None:
        if slow.points.count(point) == 1 and point == "segment.encoded":
            quick.run(lambda: quick.rows >= 24)

    slow.at = overtaken
    slow.run()
    assert not slow.seen.commits[0][1].won
    assert all(commit.won for _, commit in slow.seen.commits[1:])
    assert all(commit.won for _, commit in quick.seen.commits)
    slow.check_against(MIXED, undisturbed(MIXED))


def test_a_race_that_is_lost_at_the_end_of_a_recording_does_not_end_it() -> None:
    slow = Bench(FakeSource(MIXED, finite=True), flush=FlushPolicy(1_000, 1_000.0))

    def overtaken(point: str) -> None:
        if slow.points.count(point) == 1 and point == "segment.encoded":
            quick = Bench(FakeSource(MIXED[:40]), slow.store, flush=FlushPolicy(7, 5.0))
            quick.run(lambda: quick.rows >= 24)

    slow.at = overtaken
    slow.run()
    assert [commit.won for _, commit in slow.seen.commits] == [False, True]
    slow.check_against(MIXED, undisturbed(MIXED))


def test_a_camera_that_is_silent_for_many_segments_goes_on_from_where_it_was() -> None:
    messages = [*images(8, "south"), *images(40, "north", first=8), *images(8, "south", first=48)]
    store = DictStore()
    for upto in (8, 48):
        worker = Bench(FakeSource(messages[:upto]), store, flush=FlushPolicy(4, 5.0))
        worker.run(lambda worker=worker, upto=upto: worker.rows == upto)  # type: ignore[misc]
    Bench(FakeSource(messages, finite=True), store).run().check_against(messages, undisturbed(messages))


def test_the_winner_of_a_race_is_adopted_later_if_the_broker_does_not_answer_now() -> None:
    source = FakeSource(MIXED, finite=True)
    slow = Bench(source)

    def overtaken(point: str) -> None:
        if slow.points.count(point) == 1 and point == "segment.encoded":
            quick = Bench(FakeSource(MIXED[:40]), slow.store, flush=FlushPolicy(7, 5.0))
            quick.run(lambda: quick.rows >= 24)
            source.fail(*[BrokerUnavailable("gone")] * 3)

    slow.at = overtaken
    slow.run()
    assert slow.seen.waits_s == [1.0, 2.0, 4.0]
    slow.check_against(MIXED, undisturbed(MIXED))


@pytest.mark.parametrize("refusals", [["before"], ["after"], ["before put"], ["before", "after", "before put"]])
def test_a_store_that_does_not_answer_is_tried_again_and_nothing_is_lost_or_doubled(refusals: list[str]) -> None:
    store = DictStore()
    bench = Bench(FakeSource(MIXED, finite=True), store)

    def refuse(point: str) -> None:
        if bench.points.count(point) == 2 and point == "worker.rows_complete":
            store.refuse = list(refusals)

    bench.at = refuse
    bench.run()
    assert len(bench.seen.waits_s) == len(refusals)
    bench.check_against(MIXED, undisturbed(MIXED))


def test_waits_for_a_store_grow_and_other_work_goes_on_meanwhile() -> None:
    store = DictStore()
    messages = images(200, *CAMERAS)
    bench = Bench(FakeSource(messages, max_poll_records=4, finite=True), store)

    def refuse(point: str) -> None:
        if point == "segment.encoded" and len(bench.seen.waits_s) < 3:
            store.refuse = ["before"]

    bench.at = refuse
    bench.run()
    assert bench.seen.waits_s == [1.0, 2.0, 4.0]
    assert bench.seen.commits[0][1].rows <= 16 + 2 * 8  # what was tried first, byte for byte
    assert bench.seen.commits[1][1].rows > 16 + 2 * 8
    bench.check_against(messages, undisturbed(messages))


def test_a_store_that_is_gone_at_the_end_is_named_and_nothing_is_committed() -> None:
    store = DictStore()
    source = FakeSource(images(8, "north"), finite=True)
    bench = Bench(source, store)
    bench.at = lambda point: setattr(store, "refuse", ["before"]) if point == "segment.encoded" else None
    with pytest.raises(FatalError, match=r"8 rows could not be written in 5 tries.*Nothing is lost"):
        bench.run()
    assert bench.rows == 0
    assert source.committed == {TP: 0}
    assert source.closed


def test_polls_that_fail_are_repeated_after_growing_waits() -> None:
    source = FakeSource(MIXED, finite=True)
    source.fail(*[BrokerUnavailable("gone")] * 4)
    bench = Bench(source).run()
    assert bench.seen.waits_s == [1.0, 2.0, 4.0, 8.0]
    assert source.polls < 40  # it does not ask again and again in the meantime
    bench.check_against(MIXED)


def test_a_chain_that_cannot_be_read_now_is_recovered_later() -> None:
    class Slow(DictStore):
        answers = 3

        def list(self, prefix: str) -> list[str]:
            self.answers -= 1
            if self.answers >= 0:
                raise StoreUnavailable("not yet")
            return super().list(prefix)

    bench = Bench(FakeSource(MIXED, finite=True), Slow()).run()
    assert bench.seen.waits_s == [1.0, 2.0, 4.0]
    bench.check_against(MIXED)


def test_a_dead_letter_that_cannot_be_sent_is_sent_later_and_its_segment_waits_for_it() -> None:
    bench = Bench(FakeSource(MIXED, finite=True), flush=FlushPolicy(1, 5.0))
    bench.dead_letters.errors = [BrokerUnavailable("gone")] * 3

    def check(point: str) -> None:
        if point == "segment.created":
            rejected = {frame.row_id.offset for frame in bench.seen.rejected} & {30, 60}
            assert rejected <= {message.offset for message in bench.dead_letters.sent}

    bench.at = check
    bench.run()
    assert len(bench.seen.waits_s) == 3
    assert [m.offset for m in bench.dead_letters.sent] == [30, 60]
    bench.check_against(MIXED, undisturbed(MIXED))


def test_a_worker_ends_in_order_although_the_last_dead_letters_are_not_acknowledged() -> None:
    source = FakeSource(MIXED, finite=True)
    bench = Bench(source)
    bench.dead_letters.at_close = BrokerUnavailable("gone")
    bench.run().check_against(MIXED)
    assert source.closed


def test_what_retention_deleted_stops_the_worker_with_the_remedy() -> None:
    source = FakeSource(images(30, *CAMERAS))
    first = Bench(source).run(lambda: source.committed.get(TP, 0) > 0)
    later = FakeSource(images(40, *CAMERAS), finite=True)
    later.starts[TP] = 32
    with pytest.raises(SourceError, match=r"from \d+ to 31 .*retention.*kafka\.on_gap=skip"):
        Bench(later, first.store).run()
    assert later.closed


def test_what_retention_deleted_is_recorded_as_gaps_if_so_set() -> None:
    source = FakeSource(images(30, *CAMERAS))
    first = Bench(source).run(lambda: source.committed.get(TP, 0) > 0)
    head = [footer for _, footer in read_segment_footers(first.store)][-1]
    rows = first.rows
    later = FakeSource(images(60, *CAMERAS), finite=True)
    later.starts[TP] = 35
    second = Bench(later, first.store, skip_gaps=True).run()
    assert second.rows == rows + 25
    gaps = [gap for _, footer in read_segment_footers(first.store) for gap in footer.gaps]
    assert gaps == [*(Gap(offset, offset + 1) for offset in head.pending), Gap(head.next, 35)]
    assert verify(first.store, contiguous=True) == []


def test_hints_name_the_logs_start_after_a_gap_was_skipped_and_nothing_came_since() -> None:
    source = FakeSource(images(30, *CAMERAS))
    first = Bench(source).run(lambda: source.committed.get(TP, 0) > 0)
    silent = FakeSource()
    silent.starts[TP] = 35  # all was deleted, and no segment says so before something comes
    second = Bench(silent, first.store, skip_gaps=True)
    hints: list[int | None] = []

    def listen() -> bool:
        hints.append(silent.committed.pop(TP, None))
        return second.now_s > 100.0

    second.run(listen)
    assert [hint for hint in hints if hint is not None] == [35, 35]  # at recovery, and a minute later


def test_a_broker_that_lost_what_the_chain_has_stops_the_worker_with_the_remedy() -> None:
    first = Bench(FakeSource(images(30, *CAMERAS), finite=True)).run()
    shorter = FakeSource(images(12, *CAMERAS))
    with pytest.raises(SourceError, match=r"frames/0.*goes on at offset 30.*log ends at 12.*Restore the broker"):
        Bench(shorter, first.store).run()
    assert shorter.closed


def test_a_log_that_ends_early_only_until_its_broker_has_caught_up_stops_nobody() -> None:
    messages = images(30, *CAMERAS)
    first = Bench(FakeSource(messages, finite=True)).run()
    late = FakeSource(messages)
    bounds, arguments = late.bounds, [0]

    def lagging(tp: TopicPartition) -> tuple[int, int]:
        arguments[0] += tp == TP
        start, end = bounds(tp)
        return (start, 12) if tp == TP and arguments[0] <= 3 else (start, end)

    late.bounds = lagging  # type: ignore[method-assign]
    Bench(late, first.store).run(lambda: late.committed.get(TP) == 30)
    assert arguments[0] > 3


def served_images(*benches: Bench) -> int:
    return sum(trace.images for bench in benches for trace in bench.seen.served)


def test_what_is_complete_of_a_partition_that_goes_is_written_and_the_next_owner_computes_nothing_again() -> None:
    source = FakeSource(MIXED)
    first = Bench(source, flush=FlushPolicy(1_000, 1_000.0))

    def turn() -> bool:
        if len(first.seen.served) >= 3 and not first.seen.lost:
            assert first.rows == 0
            source.lose(TP)
        return first.steps > 200

    first.run(turn)
    assert first.seen.lost == [TP]
    assert served_images(first) >= 12
    assert first.table["status"].to_pylist().count("accepted") == served_images(first)
    second = Bench(FakeSource(MIXED, finite=True), first.store).run()
    second.check_against(MIXED, undisturbed(MIXED))
    assert served_images(first, second) == served_images(undisturbed(MIXED))


@pytest.mark.parametrize("refusal", ["before", "after"])
def test_a_partition_that_goes_while_the_store_does_not_answer_is_not_waited_for_and_comes_back_whole(
    refusal: str,
) -> None:
    source, store = FakeSource(MIXED), DictStore()
    bench = Bench(source, store, flush=FlushPolicy(1_000, 1_000.0))

    def turn() -> bool:
        if len(bench.seen.served) >= 3 and not bench.seen.lost:
            store.refuse = [refusal]
            source.lose(TP)
        elif bench.seen.lost and len(bench.seen.recovered) == 1:
            assert bench.seen.waits_s == [1.0]
            source.assign(TP)
        return len(bench.seen.recovered) == 2 and source.drained(TP) and bench._worker._prefetch.is_empty

    bench.run(turn)
    assert bench.seen.lost == [TP]
    Bench(FakeSource(MIXED, finite=True), store).run().check_against(MIXED, undisturbed(MIXED))


def test_nothing_is_held_of_the_chain_of_a_partition_that_went() -> None:
    source, store = FakeSource(MIXED), DictStore()
    chain = SegmentChain(store=store, by=ServedBy(CLASSES, "model", "config"), writer="bench")
    bench = Bench(source, store, sink=chain)

    def turn() -> bool:
        if bench.seen.commits and not bench.seen.lost:
            assert set(chain._tips) == {TP}
            source.lose(TP)
        return bool(bench.seen.lost)

    bench.run(turn)
    assert [*chain._tips, *chain._attempts, *chain._blocks] == []


def test_a_draft_whose_fate_is_unknown_and_what_was_done_since_are_both_written_before_a_partition_goes() -> None:
    source, store = FakeSource(MIXED, max_poll_records=12), DictStore()
    bench = Bench(source, store, flush=FlushPolicy(8, 1_000.0))

    def refuse(point: str) -> None:
        if point == "segment.encoded" and not bench.seen.waits_s:
            store.refuse = ["after"]

    def turn() -> bool:
        if bench.seen.waits_s and len(bench.seen.served) >= 6 and not bench.seen.lost:
            bench._worker._owned[TP].backoff.succeeded()  # the store is back just now
            source.lose(TP)
        return bool(bench.seen.lost)

    bench.at = refuse
    bench.run(turn)
    assert len(bench.seen.commits) == 2
    assert bench.table["status"].to_pylist().count("accepted") == served_images(bench)
    Bench(FakeSource(MIXED, finite=True), store).run().check_against(MIXED, undisturbed(MIXED))


def test_a_worker_that_is_expelled_after_each_round_still_comes_to_the_end() -> None:
    """A model that needs longer than the group allows; if its rows were dropped, it would do one round for ever."""
    source = FakeSource(MIXED)
    bench = Bench(source, flush=FlushPolicy(1_000, 1_000.0))

    def expel(point: str) -> None:
        if point == "worker.rows_complete":
            source.lose(TP)
            source.assign(TP)

    bench.at = expel
    bench.run(lambda: bench.rows == len(MIXED) + 2)
    assert len(bench.seen.lost) > 5
    bench.check_against(MIXED)


def test_a_partition_whose_next_segment_another_worker_wrote_is_let_go_all_the_same() -> None:
    source = FakeSource(MIXED)
    slow = Bench(source, flush=FlushPolicy(1_000, 1_000.0))

    def turn() -> bool:
        if len(slow.seen.served) >= 3 and not slow.seen.lost:
            quick = Bench(FakeSource(MIXED[:40]), slow.store, flush=FlushPolicy(7, 5.0))
            quick.run(lambda: quick.rows >= 24)
            source.lose(TP)
        return bool(slow.seen.lost)

    slow.run(turn)
    assert [commit.won for _, commit in slow.seen.commits] == [False]
    assert slow._worker._recovery.is_done
    Bench(FakeSource(MIXED, finite=True), slow.store).run().check_against(MIXED, undisturbed(MIXED))


def test_the_broker_hears_of_an_idle_partition_when_it_is_recovered_and_again_now_and_then() -> None:
    tps = [TopicPartition("frames", n) for n in range(2)]
    source = FakeSource(images(20, "north"), partitions=2)
    bench = Bench(source)

    def turn() -> bool:
        if bench.steps == 20:
            assert source.committed[tps[1]] == 0
            source.committed.clear()  # a broker that forgot
        return bench.now_s > 70.0

    bench.run(turn)
    assert source.committed == {tps[0]: 20, tps[1]: 0}


def test_rows_of_a_topic_that_was_deleted_and_created_again_are_not_written() -> None:
    source = FakeSource(MIXED)
    bench = Bench(source)

    def recreate(point: str) -> None:
        if bench.points.count(point) == 3 and point == "worker.rows_complete":
            source.known = TopicIdentity("fake-cluster", "another-id", 1)

    bench.at = recreate
    with pytest.raises(SourceError, match="deleted and created again"):
        bench.run()
    assert bench.rows == sum(commit.rows for _, commit in bench.seen.commits) < served_images(bench)
    assert verify(bench.store) == []


def test_partitions_come_and_go_one_by_one() -> None:
    tps = [TopicPartition("frames", n) for n in range(3)]
    messages = [m for tp in tps for m in images(40, f"north-{tp.partition}", "shared", partition=tp.partition)]
    source = FakeSource(messages, partitions=3, max_poll_records=9)
    bench = Bench(source)

    def turn() -> bool:
        tp = tps[bench.steps // 5 % 3]
        if bench.steps < 60 and bench.steps % 5 == 0:
            source.lose(tp)
        elif bench.steps < 60 and bench.steps % 5 == 2:
            source.assign(tp)
        return bench.rows == len(messages)

    bench.run(turn)
    assert len(bench.seen.lost) > 3
    assert served_images(bench) == len(messages)  # none twice
    bench.check_against(messages, undisturbed_of(messages, partitions=3))


def undisturbed_of(messages: list[Message], partitions: int) -> Bench:
    return Bench(FakeSource(messages, partitions=partitions, finite=True)).run()


class Silent(FakeSource):
    """Says by a script whether everything was delivered; then always yes."""

    def __init__(self, messages: list[Message], answers: list[bool]) -> None:
        super().__init__(messages)
        self.answers = answers

    def drained(self, tp: TopicPartition) -> bool:
        return super().drained(tp) and (not self.answers or self.answers.pop(0))


def test_the_open_batch_of_a_silent_stream_is_served_once_its_age_has_passed() -> None:
    bench = Bench(FakeSource(images(2, "north")))
    bench.run(lambda: bench.rows == 2)
    assert [t.images for t in bench.seen.served] == [2]
    assert bench.now_s > 2.5  # max_age_s and its grace


def test_a_poll_that_brought_nothing_closes_no_batch_until_a_second_one_says_the_same() -> None:
    source = Silent(images(2, "north"), [False] * 100 + [True, False] * 20)
    bench = Bench(source)
    bench.run(lambda: bool(bench.seen.served))
    assert source.answers == []  # old enough all along, but never drained twice in a row before


def test_a_stream_that_goes_on_in_time_is_not_cut_by_the_clock() -> None:
    source = FakeSource(images(2, "north"))
    bench = Bench(source)

    def turn() -> bool:
        if bench.steps == 40:  # 2 s
            source.append(*images(2, "north", first=2))
        return bench.rows == 4

    bench.run(turn)
    assert [t.images for t in bench.seen.served] == [4]


def test_a_replay_by_the_ends_of_batches_equals_a_run_whose_camera_set_its_clock_back() -> None:
    """The wall clock ended a batch, and then came images that by their timestamps belong to it."""
    source = FakeSource(images(2, "north"))
    late = [image(offset, "north", at_ms=0) for offset in (2, 3)]
    live = Bench(source)

    def turn() -> bool:
        if live.rows == 2 and late:
            source.append(late.pop(0), late.pop(0))
        return live.rows == 4

    live.run(turn)
    messages = [*images(2, "north"), *(image(offset, "north", at_ms=0) for offset in (2, 3))]
    assert [trace["images"] for trace in live.traces] == [2, 2]
    assert [trace["images"] for trace in undisturbed(messages).traces] == [4], "no timestamp says so"
    columns = [[trace[name] for trace in live.traces] for name in ("first_offset", "last_offset")]
    ends = {TP: {"north": (columns[0], columns[1])}}
    again = Bench(FakeSource(messages, finite=True), batches=BatchPolicy(4, 2.0, ends)).run()
    again.check_against(messages, live)


def test_a_frame_that_was_produced_too_late_begins_a_batch_of_its_own() -> None:
    messages = [image(0, "north", at_ms=0), image(1, "north", at_ms=2_000), image(2, "north", at_ms=2_001)]
    assert [t["images"] for t in undisturbed(messages).traces] == [2, 1]


def test_what_the_same_poll_brings_of_a_partition_that_it_takes_is_not_read() -> None:
    """The source promises it; here is what would come of it."""
    polls = [Poll(assigned=[TP]), Poll(messages=images(4, "north")), Poll(messages=[], lost=[TP])]

    class Scripted(FakeSource):
        def poll(self, timeout_s: float) -> Poll:
            super().poll(timeout_s)
            return polls.pop(0) if polls else Poll(messages=images(4, "north", first=4))

    bench = Bench(Scripted(images(8, "north")))
    bench.run(lambda: bench.steps > 20)
    assert bench.table["offset"].to_pylist() == [0, 1, 2, 3]


def test_reading_pauses_while_too_much_is_in_hand_and_goes_on_after() -> None:
    messages = [Message("frames", 0, n, b"north", bytes([n % 250]) + bytes(99)) for n in range(160)]
    bounds: list[int] = []

    class Watched(FakeSource):
        pauses = 0

        def pause(self, tps: Sequence[TopicPartition]) -> None:
            self.pauses += 1
            super().pause(tps)

    source = Watched(messages, finite=True, max_poll_records=10)
    bench = Bench(source, limits=Limits(inflight_bytes=480, uncommitted_rows=1_000, round_images=4))
    worker = bench._worker

    def turn() -> bool:
        bounds.append(held_bytes(worker._prefetch))
        return False

    bench.run(turn)
    assert source.pauses > 3
    assert max(bounds) <= 360 + 12 + 10 * (100 + BOOKKEEPING_BYTES)  # room for 30 images, and the poll that went over
    bench.check_against(messages, undisturbed(messages))


def test_reading_pauses_while_the_store_takes_nothing() -> None:
    messages = images(160, "north")
    store = DictStore()
    source = FakeSource(messages, max_poll_records=4)  # one batch a turn, as many as are served
    bench = Bench(source, store, limits=Limits(1 << 20, uncommitted_rows=40, round_images=8))
    bench.at = lambda point: (
        setattr(store, "refuse", ["before"]) if point == "segment.encoded" and bench.now_s < 60.0 else None
    )
    held: list[int] = []

    def turn() -> bool:
        if bench.now_s < 60.0:
            held.append(sum(t.images for t in bench.seen.served))
        return bench.rows == 160

    bench.run(turn)
    assert 40 < max(held) <= 40 + 20
    bench.check_against(messages, undisturbed(messages))


def test_many_partitions_of_a_few_rows_each_are_written_before_all_of_them_stand() -> None:
    """Each is far from a segment of its own, and the clock would not make one due for an hour."""
    parts = [images(40, f"camera-{n}", partition=n) for n in range(9)]
    messages = [message for each in zip(*parts, strict=True) for message in each]
    bench = Bench(
        FakeSource(messages, partitions=9, max_poll_records=9),
        flush=FlushPolicy(100, 3_600.0),
        limits=Limits(1 << 20, uncommitted_rows=120, round_images=8),
    )
    bench.run(lambda: sum(output.images for output in bench.seen.served) == 360)
    assert bench.now_s < 60.0
    bench.check_against(messages)
    assert max(commit.rows for _, commit in bench.seen.commits) <= 40


def test_more_cameras_than_memory_has_room_for_are_served_in_smaller_batches() -> None:
    """Without it every open batch would wait for frames that are not read any more."""
    messages = images(600, *(f"camera-{n}" for n in range(150)))
    bench = Bench(
        FakeSource(messages, max_poll_records=10),
        limits=Limits(inflight_bytes=80 * 12, uncommitted_rows=1_000, round_images=8),
    )
    bench.run(lambda: bench.rows == 600)
    bench.check_against(messages)
    assert bench.now_s < 40.0


class Stuck(Inline):
    """Decodes nothing of one partition, until it is told to."""

    stuck = True

    def _next(self, *, quick: bool = False) -> Any:
        held = self._partitions.pop(TP, None) if self.stuck else None
        job = super()._next(quick=quick)
        if held is not None:
            self._partitions[TP] = held
        return job


def test_a_partition_whose_messages_wait_to_be_decoded_is_paused_alone_and_others_have_their_room() -> None:
    tps = [TopicPartition("frames", n) for n in range(2)]
    messages = [m for tp in tps for m in images(100, f"north-{tp.partition}", partition=tp.partition)]
    source = FakeSource(messages, partitions=2, max_poll_records=16)
    source.lose(tps[1])
    decoding = Stuck(decode, lambda message: frozenset([(message.key or b"").decode()]), threads=0)
    bench = Bench(source, prefetch=decoding, limits=Limits(16 * 16 * BOOKKEEPING_BYTES, 1_000, round_images=4))

    def turn() -> bool:
        if bench.steps == 40:
            assert tps[0] in source._paused
            assert 48 <= source._positions[tps[0]] < 100
            source.assign(tps[1])
        if bench.rows == 100 and decoding.stuck:
            assert source._paused == {tps[0]}
            assert {tp for tp, _ in bench.seen.commits} == {tps[1]}
            decoding.stuck = False
        return bench.rows == 200

    bench.run(turn)
    bench.check_against(messages, undisturbed_of(messages, partitions=2))


def test_a_stream_that_cannot_be_decoded_for_a_while_holds_no_other_back_and_is_pending() -> None:
    messages = [*images(40, "slow", "north"), *images(40, "north", first=40)]

    class SlowStream(Inline):
        """What of a stream comes at first is not decoded until everything else is served."""

        stuck = True

        def _do(self, job: Any) -> None:
            if self.stuck and job.message.key == b"slow":
                self.held = [*getattr(self, "held", ()), job]
            else:
                super()._do(job)

        def free(self) -> None:
            self.stuck = False
            for job in self.held:
                self._do(job)

    decoding = SlowStream(decode, lambda message: frozenset([(message.key or b"").decode()]), threads=0)
    bench = Bench(FakeSource(messages), prefetch=decoding, flush=FlushPolicy(4, 5.0))

    def turn() -> bool:
        if bench.rows == 60 and decoding.stuck:
            footer = [footer for _, footer in read_segment_footers(bench.store)][-1]
            assert footer.pending == tuple(range(0, 40, 2))
            assert footer.next == 80
            decoding.free()
        return bench.rows == 80

    bench.run(turn)
    bench.check_against(messages, undisturbed(messages))


def test_idle_moments_are_spent_on_what_the_model_will_need_and_a_ready_batch_never_waits_for_two() -> None:
    """Nothing of it while a batch is ready; at most one piece between a batch's last image and its row."""
    pieces_after: list[int] = []  # served batches at the time of each piece
    bench: Bench

    def piece() -> bool:
        assert not bench._worker._ready
        pieces_after.append(len(bench.seen.served))
        return len(pieces_after) < 50

    messages = images(60, *CAMERAS)
    bench = Bench(FakeSource(messages, max_poll_records=2), prepare=piece)
    bench.run(lambda: len(bench.seen.served) == 15 and len(pieces_after) == 50 and bench.steps > 200)
    assert len(pieces_after) == 50  # and never again, once there was nothing left
    assert [served for served in pieces_after if served < 15]  # also between batches
    expected = undisturbed(messages, limits=Limits(1 << 20, 1_000, round_images=8))
    assert repr(bench.traces) == repr([trace for trace in expected.traces if trace["images"] == 4])


def test_a_worker_without_work_for_idle_moments_asks_once() -> None:
    requests: list[int] = []

    def nothing() -> bool:
        requests.append(1)
        return False

    bench = Bench(FakeSource(images(8, *CAMERAS)), prepare=nothing)
    bench.run(lambda: bench.steps > 20)
    assert requests == [1]


def test_at_the_end_a_silent_store_is_asked_for_one_partition_alone_and_no_longer_than_the_time_for_it() -> None:
    """Each answer that does not come takes half a minute, and whoever has told the worker to stop waits."""
    tps = [TopicPartition(TP.topic, number) for number in range(6)]
    messages = [image(n, "north", partition=tp.partition) for tp in tps for n in range(8)]
    bench: Bench

    class Silent(DictStore):
        def create(self, key: str, data: bytes) -> None:
            if key.startswith("predictions"):
                bench.now_s += 30.0
                raise StoreUnavailable("no answer")
            super().create(key, data)

    bench = Bench(FakeSource(messages, partitions=len(tps)), Silent(), flush=FlushPolicy(1_000, 1_000.0))
    stopped_s: list[float] = []

    def stop() -> bool:
        if sum(trace.images for trace in bench.seen.served) == len(messages):
            stopped_s.append(bench.now_s)
        return bool(stopped_s)

    with pytest.raises(FatalError, match=r"48 rows could not be written in 1 tries.*Nothing is lost"):
        bench.run(stop)
    assert bench.now_s - stopped_s[0] < 35.0
