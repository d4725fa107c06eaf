"""What is known of a worker is what it did, by its own journal; it is bounded, and a lost partition leaves nothing."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adawise.adapt.conditions import Appearance, LearnedAppearance, Memory
from adawise.adapt.last_seen import LastSeen
from adawise.adapt.state import StreamState
from adawise.errors import BrokerUnavailable, Reason, StoreUnavailable
from adawise.ports import Head, ServedBy
from adawise.records import Frame, Message, RowId, Switch, TopicPartition
from adawise.watch import observer as observing
from adawise.watch.details import HintPlaces
from adawise.watch.row import CameraState, CameraView, ConditionRow
from adawise.watch.worker import LiveBounds, LiveWorker
from adawise.worker.backpressure import Limits
from adawise.worker.events import (
    BatchServed,
    FrameRejected,
    PairServes,
    PartitionProgress,
    PartitionRecovered,
    Phase,
    PhaseEntered,
    ProducerMistaken,
    RetriesEnded,
    RetryScheduled,
    Stepped,
    WorkerProgress,
)
from adawise.worker.fair_queue import BOOKKEEPING_BYTES
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.watch.watched import BOUNDS, T, Watched
from tests.worker.loop import CLASSES, TP, bad, batch, image, images

MIXED = [*images(30, "north", "south"), bad(30), batch(31, "north", b"\x05\x00\x09"), *images(28, "north", first=32)]


def test_counts_and_cameras_agree_with_what_the_worker_told_everybody() -> None:
    watched = Watched(FakeSource(MIXED, finite=True)).run()
    journal, count = watched.journal, watched.count
    assert count("images") == sum(trace.images for trace in journal.served) == 60
    assert count("forwards") == pytest.approx(sum(t.forward_equivalents * t.images for t in journal.served))
    assert count("batches") == len(journal.served)
    assert watched.counters.of("adawise_rejected_total")[("undecodable_image",)] == count("rejected") == 2
    assert count("dead_letters") == 1
    assert count("segments") == len(journal.commits)
    assert count("rows") == watched.bench.rows == 62
    assert watched.values("prediction_latency_seconds") == 58, "a batch without a timestamp has no latency"
    assert watched.values("batch_seconds") == len(journal.served)
    rows = watched.rows
    assert (rows["north"].images, rows["south"].images) == (45, 15)
    assert (rows["north"].rejected, rows["south"].rejected) == (1, 1)
    assert rows["north"].alpha == [t.alpha for t in journal.served if t.stream_id == "north"][-1]
    assert {name for row in rows.values() for name, _ in row.classes} <= set(CLASSES)


def test_the_page_names_the_worker_its_numbers_and_its_model() -> None:
    view = Watched(FakeSource(images(32, "north"), finite=True)).run().observer.view()
    assert view.title == "frames by test"
    facts = dict(view.facts)
    assert facts["model (fingerprint)"] == "f00d"
    assert "card" not in facts, "there is none"
    assert float(facts["forwards per image (FE)"]) >= 1.0
    assert facts["partitions"] == "1"


def test_the_page_goes_over_to_the_pair_that_was_switched_to() -> None:
    watched = Watched(FakeSource(images(32, "north"), finite=True)).run()
    by = ServedBy(CLASSES, "beef", "c", "2", {"model.card": "abc"}, method="a fixed alpha of 0.45, as the card advises")
    watched.observer.observe(PairServes(TP, by, Switch(0, (), "2")))
    facts = dict(watched.observer.view().facts)
    assert (facts["model (fingerprint)"], facts["card"], facts["method"]) == ("beef", "abc", by.method)
    assert "shared layers" not in facts, "it was not recorded"
    assert "label of results" not in facts, "there is no choice"
    watched.observer.observe(PairServes(TP, replace(by, settings={**by.settings, "scene.prior": "served"}), None))
    assert dict(watched.observer.view().facts)["label of results"] == "scene_label"
    for share, text in ((1.0, "nothing is shared"), (0.25, "an image at a second alpha costs 0.25 of a forward")):
        watched.observer.observe(PairServes(TP, replace(by, tail_share=share), None))
        assert dict(watched.observer.view().facts)["shared layers"].endswith(text)
    view = watched.observer.camera("frames/0/north")
    assert view is not None
    assert facts_of(view)["shared layers"] == f"equal first layers: {text}"


def test_cameras_of_a_lost_partition_are_gone_and_come_back_with_it() -> None:
    other = TopicPartition(TP.topic, 1)
    source = FakeSource([*images(32, "north"), *images(32, "south", partition=1)], partitions=2)
    watched = Watched(source)
    seen: list[set[str]] = []

    def turn() -> bool:
        seen.append(set(watched.rows))
        if watched.bench.steps == 20:
            source.lose(other)
        if watched.bench.steps == 40:
            source.append(*images(8, "south", first=32, partition=1))
            source.assign(other)
        return watched.bench.steps > 200 and watched.count("images") == 72

    watched.run(turn)
    assert seen[19] == {"north", "south"}
    assert seen[30] == {"north"}
    assert seen[-1] == {"north", "south"}
    assert watched.rows["south"].images == 8, "since it is ours again"


def test_a_row_that_nothing_happened_to_is_the_same_object() -> None:
    watched = Watched(FakeSource(images(32, "north"), finite=True)).run()
    assert watched.rows["north"] is watched.rows["north"]
    watched.extra_s = 400.0
    assert watched.rows["north"].state == CameraState.SILENT


def test_more_cameras_than_there_is_room_for_push_out_those_that_were_heard_longest_ago() -> None:
    names = [f"camera-{n}" for n in range(30)]
    bounds = LiveBounds(max_cameras=10, silent_after_s=60.0, write_within_s=60.0, stuck_after_s=600.0)
    watched = Watched(FakeSource(images(120, *names), finite=True), bounds=bounds).run()
    assert len(watched.rows) == 10
    assert watched.count("images") == 120
    assert any("20 cameras were removed" in notice for notice in watched.observer.view().notices)


def test_a_flood_of_events_that_nobody_takes_up_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "MOST", 10)
    watched = Watched(FakeSource([], finite=True))
    for _ in range(25):
        watched.observer.observe(PhaseEntered(Phase.WORKING))
    assert watched.observer.dropped == 16, "one of ten is the model"
    watched.observer.catch_up()
    watched.observer.observe(PhaseEntered(Phase.STOPPING))
    assert watched.worker.health.phase == Phase.STOPPING


def test_rows_that_cannot_be_written_for_long_are_what_fails_their_cameras() -> None:
    store = DictStore()
    watched = Watched(FakeSource(images(64, "north")), store)
    watched.bench.at = lambda point: setattr(store, "refuse", ["before"]) if point == "segment.encoded" else None
    states: dict[float, str] = {}

    def turn() -> bool:
        if row := watched.rows.get("north"):
            states[watched.bench.now_s] = row.state
        if watched.bench.now_s > 100.0:
            watched.bench.at = lambda _: None
        return watched.bench.rows == 64

    watched.run(turn)
    assert {state for at, state in states.items() if at < 50.0} == {CameraState.OK}
    assert CameraState.FAILING in {state for at, state in states.items() if at > 80.0}
    assert watched.rows["north"].state != CameraState.FAILING, "they were written in the end"


def test_messages_that_name_no_camera_and_outages_are_notices() -> None:
    source = FakeSource(images(8, "north"))
    watched = Watched(source)
    source.fail(BrokerUnavailable("nobody at broker:9092"))
    watched.run(lambda: watched.count("retries") == 1)
    (notice, *_) = [received for received in watched.observer.view().notices if "broker" in received]
    assert notice.startswith("the broker has not answered for")
    assert "nobody at broker:9092" in notice


def test_the_last_picture_is_kept_where_it_is_asked_for_and_nowhere_else() -> None:
    plain = Watched(FakeSource(images(8, "north"), finite=True)).run()
    assert plain.rows["north"].picture == 0
    assert plain.observer.picture("frames/0/north") is None
    watched = Watched(FakeSource([*images(7, "a/b"), image(7, "a/b", 200)], finite=True), keeps_pictures=True).run()
    assert watched.rows["a/b"].picture == 1, "one in ten seconds"
    jpeg = watched.observer.picture("frames/0/a/b")
    assert jpeg is not None
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.size == (1, 1)
    assert watched.observer.picture("frames/x/north") is None
    assert watched.observer.picture("") is None


def test_outages_end_each_by_itself_also_where_the_event_of_an_end_was_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(observing, "MOST", 4)
    watched = Watched(FakeSource([], finite=True))
    watched.observer.catch_up()
    watched.observer.observe(RetryScheduled("reading", BrokerUnavailable("nobody answers"), 1.0))
    watched.observer.observe(RetryScheduled("writing frames/0", StoreUnavailable("a mount is gone"), 1.0))
    watched.observer.observe(RetryScheduled("writing frames/1", StoreUnavailable("a mount is gone"), 1.0))

    def failing() -> dict[str, float]:
        return {what: outage.since_s for what, outage in watched.worker.health.outages.items()}

    since = watched.now_s()
    assert failing() == {"reading": since, "writing frames/0": since, "writing frames/1": since}
    watched.extra_s += 1.0
    watched.observer.observe(RetriesEnded("writing frames/1"))
    assert failing() == {"reading": since, "writing frames/0": since}
    for _ in range(8):
        watched.observer.observe(PhaseEntered(Phase.WORKING))
    watched.observer.observe(RetriesEnded("reading"))
    assert watched.observer.dropped > 0
    assert failing() == {"writing frames/0": since}
    watched.observer.observe(RetriesEnded("writing frames/0"))
    watched.observer.observe(RetryScheduled("writing frames/0", StoreUnavailable("a mount is gone"), 1.0))
    assert failing() == {"writing frames/0": since + 1.0}, "it is another outage"


def facts_of(view: CameraView) -> dict[str, str]:
    return {name: value for _, facts in view.facts for name, value in facts}


def test_a_cameras_own_page_says_what_was_served_rejected_and_sent_as_dead_letters() -> None:
    places = HintPlaces("runs/yard", "frames")
    watched = Watched(FakeSource(MIXED, finite=True), places=places).run()
    view = watched.observer.camera("frames/0/north")
    assert view is not None
    assert (view.title, view.row) == ("frames by test", watched.rows["north"])
    facts = facts_of(view)
    assert facts["served"] == "45"
    assert facts["rejected"] == "1: undecodable_image 1"
    assert facts["dead letters"] == "0", "one bad image of a batch is a row alone"
    assert facts["lag"].isdecimal()
    assert facts["model (fingerprint)"] == "f00d"
    assert float(facts["entropy"].removesuffix(" nats")) > 0.0
    assert facts["last batch"].endswith(" ago")
    assert [heading for heading, _ in view.facts] == [
        "Last minutes",
        "Images, by this worker",
        "Partition frames/0",
        "Model",
    ]
    assert [hint.heading for hint in view.hints] == ["Frames", "Accuracy", "Rejected messages"]
    south = watched.observer.camera("frames/0/south")
    assert south is not None
    assert facts_of(south)["rejected"] == "1: undecodable_image 1"
    assert facts_of(south)["dead letters"] == "1"
    assert watched.observer.camera("frames/0/nobody") is None
    assert watched.observer.camera("frames/1/north") is None


def test_a_cameras_own_page_names_the_pair_that_serves_its_partition() -> None:
    watched = Watched(FakeSource(images(32, "north"), finite=True)).run()
    by = ServedBy(CLASSES, "beef", "c", "2", {"model.card": "abc"}, method="a fixed alpha of 0.45, as the card advises")
    watched.observer.observe(PairServes(TopicPartition(TP.topic, 1), by, None))
    view = watched.observer.camera("frames/0/north")
    assert view is not None
    assert facts_of(view)["model (fingerprint)"] == "f00d", "the other pair serves another partition"
    watched.observer.observe(PairServes(TP, by, None))
    view = watched.observer.camera("frames/0/north")
    assert view is not None
    assert (facts_of(view)["model (fingerprint)"], facts_of(view)["card"]) == ("beef", "abc")
    assert view.hints == (), "no places are known here"


def test_a_camera_whose_state_is_damaged_is_on_the_page_once_it_sends() -> None:
    worker = LiveWorker("frames by test", T, BOUNDS)
    good = StreamState("k", 7, last_seen=LastSeen(*[round(1e3 * T)] * 3)).to_bytes()
    head = Head(0, states={"north": good, "south": b"{half"})
    worker.observe(T, PartitionRecovered(TP, head))
    assert [row.stream_id for row in worker.view().rows] == ["north"]


def test_conditions_are_listed_by_the_worker_that_takes_over_and_begin_anew_with_the_state() -> None:
    worker = LiveWorker("frames by test", T, BOUNDS)
    learned = LearnedAppearance.of_first(Appearance(np.zeros(5), np.ones(5), 8))
    last_seen = LastSeen(*[round(1e3 * T)] * 3)
    state = StreamState("k", 7, last_seen=last_seen, looks=learned, memory=Memory(3, 2, 5))
    worker.observe(T, PartitionRecovered(TP, Head(0, states={"north": state.to_bytes()})))
    view = worker.camera("frames/0/north")
    assert view is not None
    assert view.conditions == [ConditionRow(3, 0.35, None, returns=1, is_current=True)]
    assert view.conditions_seen == 5
    watched = Watched(FakeSource(images(8, "north"), finite=True))
    watched.bench.run()
    served, *_ = [event for _, event, _ in watched.observer._events if isinstance(event, BatchServed)]
    later = replace(served.trace, batch_number=9, condition=4, returned=False)
    worker.observe(T + 1.0, replace(served, trace=later))
    assert worker.conditions == {"new": 1}
    worker.observe(T + 2.0, replace(served, trace=replace(later, batch_number=0, condition=0)))
    view = worker.camera("frames/0/north")
    assert view is not None
    assert [each.number for each in view.conditions] == [0]
    assert worker.conditions == {"new": 1}


@pytest.mark.parametrize("number", ["9" * 5_000, "99999999999", "-1", ""])
def test_a_picture_of_a_partition_that_cannot_be_is_none(number: str) -> None:
    observer = Watched(FakeSource([], finite=True), keeps_pictures=True).observer
    assert observer.picture(f"frames/{number}/north") is None
    assert observer.camera(f"frames/{number}/north") is None


def test_few_events_wait_for_a_thread_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "MOST_UNREAD", 5)
    watched = Watched(FakeSource([], finite=True))

    def work(seconds: int) -> None:
        for _ in range(seconds):
            watched.extra_s += 1.0
            watched.observer.observe(
                Stepped(lambda: WorkerProgress({}, (), 0, 1, paused=False, batches_closed_early=0))
            )

    work(50)
    assert (watched.observer.waiting, watched.observer.dropped) == (51, 0), "it may still be busy"
    work(20)
    assert watched.observer.waiting <= 5
    assert watched.observer.waiting + watched.observer.dropped == 71
    watched.observer.catch_up()
    work(50)
    assert watched.observer.waiting == 50, "it takes up again"


def test_what_is_put_down_for_the_other_thread_holds_no_images() -> None:
    watched = Watched(FakeSource([*images(8, "north"), bad(8)], finite=True))
    watched.bench.run()
    events = [event for _, event, _ in watched.observer._events]
    assert {event.batch for event in events if isinstance(event, BatchServed)} == {None}
    assert [event.frame.image for event in events if isinstance(event, FrameRejected)] == [None]


def test_a_producer_that_is_mistaken_at_every_image_keeps_no_image_in_memory() -> None:
    watched = Watched(FakeSource([], finite=True))
    frame = Frame(RowId("frames", 0, 0, 0), 0, "north", image=torch.zeros(3, 4, 4), note="header 'x': it is not read")
    watched.observer.observe(ProducerMistaken(frame))
    assert [event.frame.image for _, event, _ in watched.observer._events if isinstance(event, ProducerMistaken)] == [
        None
    ]


def test_cameras_that_fail_for_a_day_stay_on_the_page() -> None:
    store = DictStore()
    watched = Watched(FakeSource(images(64, "north")), store)
    watched.bench.at = lambda point: setattr(store, "refuse", ["before"]) if point == "segment.encoded" else None
    states: list[int] = []

    def turn() -> bool:
        if watched.bench.now_s > 100.0 and not watched.extra_s:
            watched.extra_s = 90_000.0
        if watched.bench.now_s > 110.0:
            states.append(watched.worker.states()[CameraState.FAILING])
            watched.bench.at = lambda _: None
        return watched.bench.rows == 64

    watched.run(turn)
    assert states[0] == 1


def progress_of(worker: LiveWorker, now_s: float, **known: Any) -> None:
    partition = PartitionProgress(5, 5, rows=0, blocked=False, paused=False, streams_evicted=0, **known)
    worker.now_s = now_s
    worker.progressed(now_s, WorkerProgress({TP: partition}, (), 0, 1, paused=False, batches_closed_early=0), True)


@pytest.mark.parametrize(("unread", "states"), [(0, {"dead": "silent"}), (3, {"dead": "ok"})])
def test_a_producer_whose_clock_is_behind_hides_no_silence_once_all_read(unread: int, states: dict[str, str]) -> None:
    worker = LiveWorker("frames by test", T, BOUNDS)
    worker.observe(T, FrameRejected(Frame(RowId("frames", 0, 0, 0), 0, "dead", reason=Reason.EMPTY)))
    progress_of(worker, T + 7_000.0, unread=unread, oldest_ms=round(1e3 * T))
    assert {row.stream_id: str(row.state) for row in worker.view().rows} == states


def test_cameras_are_not_forgotten_for_a_day_without_the_broker_nor_right_after_it() -> None:
    worker = LiveWorker("frames by test", T, BOUNDS)
    worker.observe(T, FrameRejected(Frame(RowId("frames", 0, 0, 0), 0, "north", reason=Reason.EMPTY)))
    worker.observe(T, RetryScheduled("reading", BrokerUnavailable("away"), 1.0))
    progress_of(worker, T + 90_000.0)
    worker.observe(T + 90_001.0, RetriesEnded("reading"))
    progress_of(worker, T + 90_002.0)
    assert len(worker.cameras) == 1
    progress_of(worker, T + 180_000.0)
    assert worker.cameras == {}, "a day after it"


def stamped(count: int, stream: str, last_s: float, first: int = 0) -> list[Message]:
    """Messages of a camera a second apart, the last of them at `last_s` of the bench's time."""
    return [image(first + n, stream, at_ms=round(1e3 * (T + last_s - (count - 1 - n)))) for n in range(count)]


def test_a_camera_that_fell_silent_before_its_partition_moved_is_on_the_page_and_in_the_metric_of_the_new_worker() -> (
    None
):
    store, sent = DictStore(), [*stamped(8, "gone", -200_000.0), *stamped(8, "dead", -300.0, 8)]
    Watched(FakeSource([*sent, *stamped(8, "north", -1.0, 16)], finite=True), store).run()
    source = FakeSource([*sent, *stamped(16, "north", 7.0, 16)])
    watched = Watched(source, store)
    watched.run(lambda: watched.count("images") == 8)
    rows = watched.rows
    assert set(rows) == {"dead", "north"}, "one that is gone for a day is not missed"
    assert rows["dead"].state == CameraState.SILENT
    assert rows["dead"].last_seen_s == pytest.approx(T - 300.0)
    assert rows["dead"].images == 0
    assert watched.worker.states()[CameraState.SILENT] == 1
    watched.extra_s = 86_400.0
    watched.run(lambda: not watched.worker.cameras)
    assert watched.rows == {}, "they are gone for a day, and forgotten"


def test_no_more_cameras_of_the_chain_are_shown_than_there_is_room_for_those_seen_last_first() -> None:
    store = DictStore()
    sent = [message for n in range(12) for message in stamped(1, f"camera-{n}", -100.0 - n, n)]
    Watched(FakeSource(sent, finite=True), store).run()
    bounds = LiveBounds(max_cameras=5, silent_after_s=60.0, write_within_s=60.0, stuck_after_s=600.0)
    watched = Watched(
        FakeSource([*sent, image(12, "new", at_ms=round(1e3 * T))], finite=True), store, bounds=bounds
    ).run()
    assert set(watched.rows) == {"new", *(f"camera-{n}" for n in range(4))}


def test_a_camera_whose_images_wait_at_the_broker_is_not_silent() -> None:
    """Two cameras wait in one log, the second behind ten minutes of the first."""
    sent = [*stamped(8, "south", -600.0), *stamped(600, "north", -1.0, 8), *stamped(8, "south", -0.5, 608)]
    watched = Watched(FakeSource(sent, max_poll_records=4), limits=Limits(64 * BOOKKEEPING_BYTES, 200, round_images=4))
    states = set[str]()

    def turn() -> bool:
        watched.extra_s += 1.0  # the model takes its time
        states.update(row.state for row in watched.rows.values())
        progress = watched.worker.health.progress
        return progress is not None and progress.partitions[TP].durable == len(sent)

    watched.run(turn)
    assert CameraState.SILENT not in states
    watched.extra_s += 700.0
    assert watched.rows["south"].state == CameraState.SILENT, "all that came is served by now"
