"""What the worker tells beside the chain, and in which order with its segments, over fakes.

Real processes on a real broker are in `test_results_kills.py`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from adawise.errors import BrokerUnavailable, FatalError
from adawise.ports import Publication, When
from adawise.records import Frame, Message
from adawise.sink import segment
from adawise.sink.files import read_bytes
from adawise.worker.backpressure import Limits
from adawise.worker.partition import FlushPolicy
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import TP, Bench, FakeResults, bad, batch, images, rows_of

MIXED = [*images(30, "north", "south"), bad(30), batch(31, "north", b"\x05\x00\x09"), *images(16, "south", first=32)]
EITHER = pytest.mark.parametrize("when", ["early", "committed"])


def by_segment(bench: Bench) -> dict[str, str]:
    """Of each row, the attempt of the segment that has it, read from the files."""
    return {
        row_id: footer.attempt
        for key, footer in read_segment_footers(bench.store)
        for row_id in segment.read_rows(read_bytes(bench.store, key), key, ["row_id"])["row_id"].to_pylist()
    }


def rows(expected: list[Publication]) -> list[tuple[str, str]]:
    """(row id, attempt) of all that was told."""
    return [(str(row.row_id), each.attempt) for each in expected for row in rows_of(each)]


@EITHER
def test_every_row_is_told_once_by_the_attempt_that_its_segment_names(when: When) -> None:
    results = FakeResults(when)
    bench = Bench(FakeSource(MIXED, finite=True), results=results).run()
    assert sorted(rows(results.published)) == sorted(by_segment(bench).items())
    assert results.acknowledged == len(results.published)
    assert results.closed == 1
    reasons = [received.what.reason for received in results.published if isinstance(received.what, Frame)]
    assert Counter(map(str, reasons)) == {"undecodable_image": 2}


def test_early_results_are_told_after_each_round_and_acknowledged_before_their_segment_is_created() -> None:
    results, early = FakeResults("early"), 0
    bench = Bench(FakeSource(MIXED, finite=True), results=results)

    def at(point: str) -> None:
        nonlocal early
        if point == "worker.rows_complete":
            early = len(results.published)
        if point == "segment.encoded":
            draft = bench._worker._owned[TP].draft()
            attempted = [
                received for received in results.published[: results.acknowledged] if received.attempt == draft.attempt
            ]
            rows_due = sum(len(batch) for batch, _, _ in draft.accepted) + len(draft.rejected)
            assert len(rows(attempted)) == rows_due

    bench.at = at
    bench.run()
    assert early > 0, "the first batches were told before the last were served"


def test_committed_results_are_told_once_their_segment_is_there_and_acknowledged_before_the_next() -> None:
    results = FakeResults("committed")
    bench = Bench(FakeSource(MIXED, finite=True), results=results)

    def at(point: str) -> None:
        if point == "segment.encoded":
            durable = by_segment(bench) if bench.rows else {}
            assert dict(rows(results.published[: results.acknowledged])) == durable

    bench.at = at
    bench.run()
    assert dict(rows(results.published)) == by_segment(bench)


@EITHER
def test_no_segment_is_created_while_results_are_not_acknowledged_and_more_is_served_meanwhile(when: When) -> None:
    results = FakeResults(when)
    bench = Bench(FakeSource(MIXED), results=results, flush=FlushPolicy(4, 1.0))
    results.answers = False
    before: list[tuple[int, int]] = []

    def turn() -> bool:
        if bench.steps == 100:
            before.append((len(bench.seen.commits), len(bench.seen.served)))
            results.answers = True
        return bench.steps > 200

    bench.run(turn)
    assert before[0][0] == {"early": 0, "committed": 1}[when], "the first is told of once it is there"
    assert before[0][1] > 3
    assert len(bench.seen.commits) > before[0][0]


@EITHER
def test_where_there_is_no_room_results_wait_and_none_is_lost(when: When) -> None:
    results = FakeResults(when)
    results.room = 1
    bench = Bench(FakeSource(MIXED, finite=True), results=results).run()
    assert sorted(rows(results.published)) == sorted(by_segment(bench).items())


@EITHER
def test_a_broker_that_takes_no_results_for_a_while_is_tried_again_after_growing_waits(when: When) -> None:
    results = FakeResults(when)
    results.errors = [BrokerUnavailable("no answer") for _ in range(3)]
    bench = Bench(FakeSource(MIXED), results=results)
    bench.run(lambda: bench.rows >= 48 and bench.steps > 400)
    assert set(by_segment(bench).items()) <= set(rows(results.published))
    assert bench.seen.waits_s[:2] == [1.0, 2.0]


def test_rows_whose_results_nobody_takes_pause_the_source_before_memory_is_full() -> None:
    results = FakeResults("early")
    results.answers, results.room = False, 2
    source = FakeSource(images(400, "north"), max_poll_records=8)
    limits = Limits(inflight_bytes=1 << 20, uncommitted_rows=40, round_images=8)
    bench = Bench(source, results=results, limits=limits)

    def turn() -> bool:
        results.answers = results.answers or bench.steps > 300
        return bench.rows >= 400

    bench.run(turn)
    assert max(trace.last_offset for trace in bench.seen.served[:14]) < 100
    assert sorted(rows(results.published)) == sorted(by_segment(bench).items())


def test_a_worker_that_is_told_to_stop_while_nobody_takes_results_leaves_their_rows_to_the_next_run() -> None:
    results = FakeResults("early")
    bench = Bench(FakeSource(MIXED), results=results, flush=FlushPolicy(1_000, 1_000.0))
    began_s: list[float] = []

    def stop() -> bool:
        if len(bench.seen.served) < 6:
            return False
        results.errors = [BrokerUnavailable("no answer")] * 100
        began_s.append(bench.now_s)
        return True

    found = (
        r"rows could not be written in \d tries since the broker accepted .* Nothing is lost: .* the broker's answer"
    )
    with pytest.raises(FatalError, match=found):
        bench.run(stop)
    assert bench.now_s - began_s[-1] <= 10.0
    assert results.hurries_s == [10.0]
    assert bench.rows == 0
    Bench(FakeSource(MIXED, finite=True), bench.store, results=FakeResults("early")).run().check_against(MIXED)


def test_committed_results_that_nobody_takes_at_the_end_are_told_by_whoever_goes_on() -> None:
    results = FakeResults("committed")
    bench = Bench(FakeSource(MIXED), results=results, flush=FlushPolicy(1_000, 1_000.0))

    def stop() -> bool:
        if len(bench.seen.served) < 6:
            return False
        results.errors = [BrokerUnavailable("no answer")] * 2 if not bench.rows else []
        return True

    at = bench.at

    def fail(point: str) -> None:
        at(point)
        if point == "worker.offset_committed":
            results.errors = [BrokerUnavailable("no answer")] * 100

    bench.at = fail
    bench.run(stop)
    assert bench.rows > 0
    assert results.published == []
    later = FakeResults("committed")
    Bench(FakeSource(MIXED, finite=True), bench.store, results=later).run()
    assert set(by_segment(bench).items()) <= set(rows(later.published))


class Died(BaseException):
    """The process ends here."""


def points(when: When) -> list[tuple[str, int]]:
    bench = Bench(FakeSource(MIXED, finite=True), results=FakeResults(when)).run()
    counts: Counter[str] = Counter()
    found = []
    for point in bench.points:
        counts[point] += 1
        found.append((point, counts[point]))
    return found


WHEN: tuple[When, ...] = ("early", "committed")


@cache
def died(when: When, point: str, time: int) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """What a worker that died there had stored, and the rows that it had told."""
    results, reached, store = FakeResults(when), Counter[str](), DictStore()
    first = Bench(FakeSource(MIXED, finite=True), store, results=results)

    def die(at: str) -> None:
        reached[at] += 1
        if (at, reached[at]) == (point, time):
            raise Died

    first.at = die
    with pytest.raises(Died):
        first.run()
    return store.objects, rows(results.published[: results.acknowledged])


@pytest.mark.parametrize("then", WHEN)
@pytest.mark.parametrize(("when", "point", "time"), [(when, *point) for when in WHEN for point in points(when)])
@pytest.mark.cases("kills", every=3)
def test_a_worker_that_dies_at_any_point_has_told_or_its_successor_tells_every_row(
    when: When, point: str, time: int, then: When
) -> None:
    left, acknowledged = died(when, point, time)
    store, later = DictStore(), FakeResults(then)
    store.objects.update(left)
    second = Bench(FakeSource(MIXED, finite=True), store, results=later).run()
    found = set(acknowledged) | set(rows(later.published))
    assert set(by_segment(second).items()) <= found, "each row, by the attempt that is the truth"
    if when == then == "committed":
        assert found == set(by_segment(second).items()), "and nothing that is not"


@pytest.mark.parametrize("when", ["early", "committed"])
def test_after_a_lost_race_the_winners_rows_are_told_by_its_attempt(when: When) -> None:
    store, messages = DictStore(), images(24, "north")
    winner_results, results = FakeResults(when), FakeResults(when)
    winner = Bench(FakeSource(messages, finite=True), store, results=winner_results)
    bench = Bench(FakeSource(messages, finite=True), store, results=results)

    def race(point: str) -> None:
        if point == "segment.encoded" and not winner.seen.commits:
            winner.run()

    bench.at = race
    bench.run()
    assert not bench.seen.commits[0][1].won
    truth = set(by_segment(bench).items())
    assert truth <= set(rows(winner_results.published))
    if when == "early":
        lost = set(rows(results.published)) - truth
        assert lost
        assert {row for row, _ in lost} <= {row for row, _ in truth}, "the same rows, by an attempt that lost"
    else:
        assert set(rows(results.published)) <= truth


def test_a_partition_that_is_recovered_tells_its_newest_segment_again_if_results_are_committed() -> None:
    messages: list[Message] = images(24, "north")
    first = Bench(FakeSource(messages, finite=True)).run()
    newest = [footer for _, footer in read_segment_footers(first.store)][-1]
    fields = {when: FakeResults(when) for when in WHEN}
    for results in fields.values():
        Bench(FakeSource(messages, finite=True), first.store, results=results).run()
    assert fields["early"].published == []
    assert {each.attempt for each in fields["committed"].published} == {newest.attempt}
    assert {row for row, _ in rows(fields["committed"].published)} == {
        row for row, attempt in by_segment(first).items() if attempt == newest.attempt
    }


def test_a_partition_that_goes_tells_what_was_written_of_it() -> None:
    source, results = FakeSource(images(24, "north")), FakeResults("committed")
    bench = Bench(source, results=results, flush=FlushPolicy(1_000, 1_000.0))

    def turn() -> bool:
        if len(bench.seen.served) >= 3 and not bench.seen.lost:
            source.lose(TP)
        return bool(bench.seen.lost)

    bench.run(turn)
    assert sorted(rows(results.published)) == sorted(by_segment(bench).items())
