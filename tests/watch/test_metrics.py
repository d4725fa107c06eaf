"""Every metric moves in a run of the worker, means what its name says, and is gone with what it is about."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from adawise.errors import BrokerUnavailable, Lost, StoreFull
from adawise.records import DecodedMessage, Message, Missing, Predictions, TopicPartition
from adawise.watch import observer
from adawise.watch.counts import Distribution
from adawise.watch.metrics import METRICS, Scrape, worker_counters
from adawise.watch.worker import LiveWorker
from adawise.worker.backpressure import Limits
from adawise.worker.batching import BatchPolicy
from adawise.worker.events import BatchServed
from adawise.worker.fair_queue import BOOKKEEPING_BYTES
from adawise.worker.partition import FlushPolicy
from tests.fakes import FakeSource
from tests.pairs.test_shadow import SAME, Shadowed
from tests.pairs.test_switching import MESSAGES, NEW
from tests.sink.building import DictStore
from tests.sink.stored import read_predictions
from tests.watch.watched import BOUNDS, T, Watched, loaded
from tests.worker.loop import TP, Bench, FakeResults, Inline, bad, decode, images

ELSEWHERE = {
    "adawise_build_info": "always the same",
    "adawise_page_viewers": "tests/watch/web/test_feed.py",
}
Values = dict[str, dict[tuple[str, ...], float]]


def values(scrape: Scrape) -> Values:
    """Each metric's samples; of a distribution, how many values it has."""
    return {
        spec.name: {
            labels: value.count if isinstance(value, Distribution) else value
            for labels, value in spec.series.samples(scrape)
        }
        for spec in METRICS
    }


def everyday() -> tuple[Watched, Iterable[Values]]:
    """Images, one that is bad, one with a mistake, a gap, a rebalance, a silent camera."""

    def with_mistake(message: Message) -> DecodedMessage:
        decoded = decode(message)
        if message.offset != 3:
            return decoded
        return replace(decoded, frames=tuple(replace(frame, note="time: none") for frame in decoded.frames))

    lost = Message(TP.topic, 0, 41, None, None, missing=Missing(41, Lost.BATCH_DAMAGED))
    other = TopicPartition(TP.topic, 1)
    source = FakeSource([*images(40, "north", "south"), bad(40), lost, *images(6, "north", first=42)], partitions=2)
    pool = Inline(with_mistake, lambda message: frozenset([(message.key or b"").decode()]), threads=0)
    watched = Watched(source, prefetch=pool, limits=Limits(1 << 20, 1_000, round_images=4))
    source.fail(BrokerUnavailable("away"))
    seen = [values(watched.scrape(1))]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        if watched.bench.steps == 100:
            source.standing.add(TP)
        if watched.bench.steps == 140:
            source.lose(other)
            watched.extra_s = 200.0
        return watched.bench.steps > 180

    return watched.run(turn), seen


def race() -> tuple[Watched, Iterable[Values]]:
    """Another worker writes the segment first."""
    store = DictStore()
    watched = Watched(FakeSource(images(60, "north"), finite=True), store)
    quick = Bench(FakeSource(images(40, "north")), store, flush=FlushPolicy(7, 5.0))
    points = watched.bench.points

    def overtaken(point: str) -> None:
        if point == "segment.encoded" and points.count(point) == 1:
            quick.run(lambda: quick.rows >= 24)

    watched.bench.at = overtaken
    before = values(watched.scrape(1))
    return watched.run(), [before]


def results() -> tuple[Watched, Iterable[Values]]:
    """What becomes of images is told beside the chain, once there is room."""
    found = FakeResults("early")
    found.room, found.answers = 0, False
    watched = Watched(FakeSource(images(40, "north"), finite=True), results=found)
    seen = [values(watched.scrape(1))]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        found.room, found.answers = (1_000, watched.bench.steps > 30) if watched.bench.steps > 20 else (0, False)
        return False

    return watched.run(turn), seen


def full_store() -> tuple[Watched, Iterable[Values]]:
    """The output has no room at first."""
    store = DictStore()
    watched = Watched(FakeSource(images(40, "north")), store)
    seen = [values(watched.scrape(1))]
    original = store.create

    def create(key: str, data: bytes) -> None:
        if watched.bench.now_s < 10.0:
            raise StoreFull("no space left")
        original(key, data)

    store.create = create  # type: ignore[method-assign]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        return watched.bench.now_s > 20.0

    return watched.run(turn), seen


def slow_store() -> tuple[Watched, Iterable[Values]]:
    """Reading pauses, and a partition that is ours waits to be recovered."""
    store = DictStore()
    source = FakeSource(images(400, "north"), max_poll_records=4)
    watched = Watched(source, store, limits=Limits(1 << 20, uncommitted_rows=40, round_images=8))
    watched.bench.at = lambda point: (
        setattr(store, "refuse", ["before"]) if point == "segment.encoded" and watched.bench.now_s < 25.0 else None
    )
    seen = [values(watched.scrape(1))]
    original = store.list

    def refuse_once(prefix: str) -> list[str]:
        if watched.bench.now_s < 3.0:
            raise BrokerUnavailable("stands for a store that lists nothing")
        return original(prefix)

    store.list = refuse_once  # type: ignore[method-assign]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        return watched.bench.now_s > 30.0

    return watched.run(turn), seen


def another_pair() -> tuple[Watched, Iterable[Values]]:
    """A staged pair shadows the one that serves, and a third one comes to serve."""
    pairs = Shadowed(SAME)
    source = FakeSource(MESSAGES, finite=True, max_poll_records=3)
    watched = Watched(source, pairs=pairs, flush=FlushPolicy(16, 1_000.0))
    seen = [values(watched.scrape(1))]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        if len(watched.journal.served) >= 15:
            pairs.target = NEW
        return False

    return watched.run(turn), seen


def crowd() -> tuple[Watched, Iterable[Values]]:
    """More cameras than places, and open batches that do not fit."""
    names = [f"camera-{n}" for n in range(150)]
    source = FakeSource(images(600, *names), max_poll_records=10)
    watched = Watched(
        source,
        limits=Limits(inflight_bytes=80 * 12, uncommitted_rows=1_000, round_images=8),
        max_streams=8,
    )
    seen = [values(watched.scrape(1))]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        return watched.bench.rows == 600

    return watched.run(turn), seen


def backlog() -> tuple[Watched, Iterable[Values]]:
    """A partition is paused for its own messages."""
    messages = [Message("frames", 0, n, b"north", bytes([n % 250]) + bytes(99)) for n in range(400)]
    source = FakeSource(messages, finite=True, max_poll_records=10)
    watched = Watched(
        source,
        limits=Limits(inflight_bytes=2 * BOOKKEEPING_BYTES, uncommitted_rows=1_000, round_images=4),
        batches=BatchPolicy(images=4, max_age_s=2.0),
    )
    seen = [values(watched.scrape(1))]

    def turn() -> bool:
        seen.append(values(watched.scrape(1)))
        return False

    return watched.run(turn), seen


def flood() -> tuple[Watched, Iterable[Values]]:
    """What nobody takes up in time is dropped."""
    watched = Watched(FakeSource([bad(n) for n in range(40)], finite=True))
    before = values(watched.scrape(1))
    watched.bench.run()
    return watched, [before]


def nights() -> tuple[Watched, Iterable[Values]]:
    """A camera in daylight and at night, each for twenty batches of four images, three times."""
    rng = np.random.default_rng(0)

    def with_appearance(message: Message) -> DecodedMessage:
        decoded = decode(message)
        light = (-0.8, -1.5, -0.8, 0.1, -1.9) if message.offset // 80 % 2 == 0 else (-2.3, -2.7, -0.7, 0.25, -2.8)
        appearance = (np.array(light) + rng.normal(0.0, 0.3, 5)).astype(np.float32)
        return replace(decoded, frames=tuple(replace(frame, statistics=appearance) for frame in decoded.frames))

    pool = Inline(with_appearance, lambda message: frozenset([(message.key or b"").decode()]), threads=0)
    pixels = [bytes([(10, 120)[n // 80 % 2] + n % 8]) for n in range(480)]
    messages = [replace(message, value=pixel) for message, pixel in zip(images(480, "north"), pixels, strict=True)]
    watched = Watched(FakeSource(messages, finite=True), prefetch=pool, batches=BatchPolicy(images=4, max_age_s=2.0))
    return watched.run(), []


def test_conditions_are_counted_as_a_camera_comes_into_them() -> None:
    watched, _ = nights()
    came = [now for before, now in pairwise(watched.journal.served) if before.condition != now.condition]
    assert [trace.first_offset for trace in came] == [80, 160, 240, 320, 400]
    assert [(trace.condition, trace.returned) for trace in came] == [(1, False), *[(0, True), (1, True)] * 2]
    assert values(watched.scrape())["adawise_conditions_total"] == {("new",): 1, ("returned",): 4}
    row = watched.rows["north"]
    assert (row.condition, row.returns) == (1, 2)


def deceived() -> tuple[Watched, Iterable[Values]]:
    """A batch in which alpha is kept from where the objective would have it, and whose shortlist lacks classes."""
    watched, _ = nights()
    trace = replace(watched.journal.served[-1], alarm=True, off_list={0: 2, 5: 1})
    n = trace.images
    one, two = np.zeros((n, 1), np.int32), np.zeros((2, n), np.int32)
    nothing = Predictions(one, one.astype("f4"), np.zeros(n, np.float32), two, two.astype("f4"))
    watched.observer.observe(BatchServed(trace, nothing, [], None))
    return watched, []


def test_an_alarm_is_counted() -> None:
    watched, _ = nights()
    assert values(watched.scrape())["adawise_alarm_batches_total"] == {(): 0}
    assert values(deceived()[0].scrape())["adawise_alarm_batches_total"] == {(): 1}


def test_images_off_the_shortlist_are_counted() -> None:
    watched, _ = nights()
    assert values(watched.scrape())["adawise_stream_off_list_total"] == {("north", "0"): 0}
    assert values(deceived()[0].scrape())["adawise_stream_off_list_total"] == {("north", "0"): 3}


def test_every_metric_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = LiveWorker("untouched", T, BOUNDS)
    first = values(Scrape(untouched, worker_counters(), "1.2.3", max_streams=1, viewers=0, dropped=0, clock_s=T))
    moved: set[str] = set()
    for scenario in (everyday, race, results, slow_store, full_store, another_pair, crowd, backlog, deceived, flood):
        if scenario is flood:
            monkeypatch.setattr(observer, "MOST", 8)
        watched, seen = scenario()
        for now in (*seen, values(watched.scrape(1))):
            moved |= {name for name in now if now[name] != first[name]}
    assert {spec.name for spec in METRICS} - moved == set(ELSEWHERE)


def test_an_outage_ends_with_a_success() -> None:
    _, seen = full_store()
    outages = [now["adawise_outage_seconds"][("store",)] for now in seen]
    assert max(outages) > 5.0
    assert outages[-1] == 0.0
    assert [now["adawise_store_full"][()] for now in seen][-1] == 0.0
    assert {now["adawise_outage_seconds"][("broker",)] for now in seen} == {0.0}


def test_what_is_read_and_not_durable_counts_as_lag_by_its_oldest_message() -> None:
    """The store takes nothing for a while: all is read, and nothing has a row."""
    store = DictStore()
    watched = Watched(FakeSource(images(40, "north")), store, flush=FlushPolicy(8, 5.0))
    watched.bench.at = lambda point: (
        setattr(store, "refuse", ["before"]) if point == "segment.encoded" and watched.bench.now_s < 10.0 else None
    )
    seen: list[tuple[float, float, float, Values]] = []

    def turn() -> bool:
        now, durable = values(watched.scrape()), len(read_predictions(store))
        if now["adawise_lag_messages"]:
            lag, age_s = now["adawise_lag_messages"][("0",)], now["adawise_lag_seconds"].get(("0",), -1.0)
            seen.append((durable, lag, age_s, now))
        return watched.bench.now_s > 30.0

    watched.run(turn)
    lags = {lag for durable, lag, _, _ in seen if durable == 0}
    assert lags == {40}, "whatever was read of them"
    assert {lag for durable, lag, _, _ in seen if durable == 40} >= {0}
    waiting_s = [age_s for durable, lag, age_s, _ in seen if durable == 0 and age_s >= 0.0]
    assert 10.0 <= waiting_s[-1] - T <= 20.0, "the first image is of the time 0"
    assert seen[-1][2] == 0.0


def test_a_partition_that_comes_twice_as_fast_as_it_is_served_says_so_everywhere() -> None:
    watched = loaded(400.0, arriving_per_s=8.0, served_per_s=4.0)
    now = values(watched.scrape())
    (lag,), (age_s,) = now["adawise_lag_messages"].values(), now["adawise_lag_seconds"].values()
    (arriving,) = now["adawise_arriving_messages_per_second"].values()
    (served,) = now["adawise_served_messages_per_second"].values()
    assert lag == pytest.approx(8.0 * 400.0 - watched.bench.rows, abs=64.0)
    assert age_s == pytest.approx(200.0, abs=20.0)
    assert arriving == pytest.approx(8.0, rel=0.1)
    assert served == pytest.approx(4.0, rel=0.1)
    assert [*now["adawise_catch_up_seconds"].values()] == [math.inf]
    facts = dict(watched.observer.view().facts)
    assert (facts["lag"], facts["caught up in"]) == (str(lag), "never")
    assert any("messages wait, the oldest for" in what for what in watched.worker.health.amiss(watched.now_s()))
    logged = watched.journal.lags[-1]
    assert logged is not None
    assert logged == pytest.approx(lag, abs=64.0)


@pytest.mark.check("worker")
def test_a_partition_that_is_served_as_fast_as_it_comes_is_not_behind() -> None:
    now = values(loaded(400.0, arriving_per_s=3.0, served_per_s=4.0).scrape())
    assert max(now["adawise_lag_seconds"].values()) < 30.0
    assert [*now["adawise_catch_up_seconds"].values()] == [0.0]


def test_samples_have_a_value_for_each_label_and_counters_only_grow() -> None:
    _, seen = everyday()
    last: Values = {}
    for now in seen:
        for spec in METRICS:
            for labels, value in now[spec.name].items():
                assert len(labels) == len(spec.series.labels), spec.name
                if spec.kind == "counter" and "stream" not in spec.series.labels:
                    assert value >= last.get(spec.name, {}).get(labels, 0.0), spec.name
        last = now


def test_names_follow_prometheus_and_each_says_what_to_do() -> None:
    names = [spec.name for spec in METRICS]
    assert len(set(names)) == len(names)
    for spec in METRICS:
        assert re.fullmatch(r"adawise_[a-z_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.kind != "histogram" or spec.name.endswith("_seconds"), spec.name
        assert spec.meaning.endswith("."), spec.name
        assert spec.remedy.endswith("."), spec.name


def test_the_labels_of_a_lost_partition_are_gone_and_its_counts_are_not() -> None:
    other = TopicPartition(TP.topic, 1)
    source = FakeSource([*images(32, "north"), *images(32, "south", partition=1)], partitions=2)
    watched = Watched(source)

    def turn() -> bool:
        if watched.bench.steps == 60:
            assert ("1",) in values(watched.scrape())["adawise_lag_messages"]
            assert ("south", "1") in values(watched.scrape())["adawise_stream_alpha"]
            source.lose(other)
        return watched.bench.steps > 100

    watched.run(turn)
    after = values(watched.scrape())
    labelled = {labels for spec in METRICS if "partition" in spec.series.labels for labels in after[spec.name]}
    assert {labels[-1] for labels in labelled} == {"0"}
    assert after["adawise_images_total"][()] == 64
    assert after["adawise_partitions"][()] == 1


def test_streams_with_series_are_bounded_and_are_those_with_most_images() -> None:
    messages = images(90, "north", "south", "north", *(f"camera-{n}" for n in range(27)))
    watched = Watched(FakeSource(messages, finite=True)).run()
    found = values(watched.scrape(max_streams=2))
    for spec in METRICS:
        assert "stream" not in spec.series.labels or len(found[spec.name]) == 2, spec.name
    assert ("north", "0") in found["adawise_stream_images_total"]
    assert found["adawise_streams_without_series"][()] == 27
    assert values(watched.scrape(max_streams=0))["adawise_stream_images_total"] == {}


def test_a_distribution_counts_from_below_and_knows_no_nan() -> None:
    subject = Distribution((0.1, 1.0))
    for value in (0.1, 0.5, 7.0, float("nan")):
        subject.add(value)
    assert [*subject.cumulative()] == [("0.1", 1), ("1.0", 2), ("+Inf", 3)]
    assert subject.count == 3
    assert subject.total == pytest.approx(7.6)
