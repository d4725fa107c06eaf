"""Alerts in the worker's loop, over fakes: the state is part of the chain, and what is told follows the results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from typing_extensions import override

from adawise.adapt.state import StreamState
from adawise.adapt.strategies.warm import WarmSearch
from adawise.output.verify.root import verify
from adawise.ports import When
from adawise.publish.alerts import LabelRule, SilenceRule
from adawise.records import Alert, ImageBatch, Message
from adawise.worker.adaptation import Adaptation, Adapted
from adawise.worker.partition import FlushPolicy
from tests.fakes import FakeSource
from tests.sink.building import DictStore
from tests.sink.footers import read_segment_footers
from tests.worker.loop import CLASSES, TP, Bench, FakeResults, adaptation, image, images

BUS = LabelRule("bus", frozenset({"bus"}), 0.3, frames=2, of=3, clear_frames=2)
SILENT = SilenceRule("silent", 30.0)
CAMERAS = ("north", "south", "east")
# each camera sees the same for a while, so that buses come and go
MESSAGES = [image(n, CAMERAS[n % 3], (7 * (n // 24 + n % 3)) % 251, at_ms=10 * n) for n in range(144)]
EITHER = pytest.mark.parametrize("when", ["early", "committed"])


def bench(messages: list[Message], results: FakeResults, store: DictStore | None = None, **changes: object) -> Bench:
    arguments: dict[str, object] = {"rules": (BUS,), "classes": CLASSES, "results": results}
    return Bench(FakeSource(messages, finite=True), store, **(arguments | changes))


def published(results: FakeResults) -> list[Alert]:
    return [each.what for each in results.published if isinstance(each.what, Alert)]


def in_chain(store: object) -> list[list[Any]]:
    return [
        event
        for _, footer in read_segment_footers(store)  # type: ignore[arg-type]
        for event in json.loads(footer.alerts or b'{"events":[]}')["events"]
    ]


def identities(alerts: list[Alert]) -> set[tuple[str, str, tuple[int, int, int], bool]]:
    """Rule, camera, image and state of each, as the chain has them."""
    return {(a.rule, a.stream_id, (a.row_id.partition, a.row_id.offset, a.row_id.index), a.raised) for a in alerts}


def of_camera(alerts: list[Alert], stream: str) -> list[tuple[bool, int]]:
    return [(alert.raised, alert.row_id.offset) for alert in alerts if alert.stream_id == stream]


@cache
def published_in_peace(when: When) -> list[Alert]:
    """By a worker that nothing happens to."""
    results = FakeResults(when)
    bench(MESSAGES, results).run()
    return published(results)


@EITHER
def test_alerts_are_told_of_each_camera_in_turn_raised_and_cleared(when: When) -> None:
    results = FakeResults(when)
    whole = bench(MESSAGES, results).run()
    alerts = published(results)
    assert len(alerts) >= 6
    for camera in CAMERAS:
        states = [raised for raised, _ in of_camera(alerts, camera)]
        assert states == [n % 2 == 0 for n in range(len(states))]
    assert len(in_chain(whole.store)) == len(alerts)
    assert verify(whole.store) == []


@pytest.mark.parametrize("flush_rows", [1, 5, 1_000])
@EITHER
@pytest.mark.cases("worker", every=3)
def test_where_segments_are_cut_changes_no_alert(when: When, flush_rows: int) -> None:
    results = FakeResults(when)
    bench(MESSAGES, results, flush=FlushPolicy(flush_rows, 5.0)).run()
    for camera in CAMERAS:
        assert of_camera(published_in_peace(when), camera) == of_camera(published(results), camera)


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("time", [1, 2, 3])
@pytest.mark.parametrize(
    "point", ["worker.rows_complete", "worker.results_told", "segment.created", "worker.segment_committed"]
)
@EITHER
@pytest.mark.cases("kills", every=5)
def test_who_goes_on_after_a_death_raises_nothing_that_was_raised_and_forgets_no_clear(
    when: When, point: str, time: int
) -> None:
    first, reached = FakeResults(when), Counter[str]()
    dying = bench(MESSAGES, first)

    def die(at: str) -> None:
        reached[at] += 1
        if (at, reached[at]) == (point, time):
            raise Died

    dying.at = die
    with pytest.raises(Died):
        dying.run()
    later = FakeResults(when)
    assert isinstance(dying.store, DictStore)
    bench(MESSAGES, later, dying.store).run()
    first.published = first.published[: first.acknowledged]
    unique = dict.fromkeys((a.rule, a.stream_id, a.row_id, a.raised) for a in (*published(first), *published(later)))
    assert set(unique) == {(a.rule, a.stream_id, a.row_id, a.raised) for a in published_in_peace(when)}
    durable = [(event[0], event[3], tuple(event[4]), event[2]) for event in in_chain(dying.store)]
    assert len(durable) == len(set(durable)) == len(unique), "in the chain, each change is there once"


def test_a_silent_camera_is_told_once_by_a_segment_without_rows_and_clears_when_it_sends() -> None:
    results = FakeResults("committed")
    source = FakeSource(images(12, *CAMERAS))
    worker = Bench(source, results=results, rules=(SILENT,), classes=CLASSES, epoch_s=0.0)
    sent = 12

    def turn() -> bool:
        nonlocal sent
        if worker.steps % 20 == 0 and worker.now_s < 100.0:  # south and east go on
            source.append(image(sent, "south", at_ms=10 * sent), image(sent + 1, "east", at_ms=10 * sent + 5))
            sent += 2
        if worker.now_s > 100.0 and source.bounds(TP)[1] == sent:
            source.append(*images(4, "north", first=sent))
        return worker.now_s > 110.0

    worker.run(turn)
    alerts = published(results)
    assert [(a.stream_id, a.raised, a.cause) for a in alerts] == [("north", True, "silent"), ("north", False, "heard")]
    assert alerts[0].row_id == alerts[1].row_id
    assert alerts[0].row_id.offset == 9
    assert alerts[0].at_us is not None
    assert 30e6 <= alerts[0].at_us <= 35e6
    assert verify(worker.store) == []


def test_a_partition_in_which_all_cameras_fall_silent_has_a_segment_without_rows_that_says_so() -> None:
    results = FakeResults("early")
    source, store = FakeSource(images(12, *CAMERAS)), DictStore()
    worker = Bench(source, store, results=results, rules=(SILENT,), classes=CLASSES, epoch_s=0.0)
    worker.run(lambda: worker.now_s > 60.0)
    assert sorted(a.stream_id for a in published(results)) == sorted(CAMERAS)
    assert worker.seen.commits[-1][1].rows == 0
    assert verify(store) == []
    later = FakeResults("early")
    again = Bench(
        FakeSource(images(12, *CAMERAS)), store, results=later, rules=(SILENT,), classes=CLASSES, epoch_s=60.0
    )
    again.run(lambda: again.now_s > 60.0)
    assert identities(published(later)) == identities(published(results)), "what was raised is not raised again"


@EITHER
def test_an_alert_is_told_only_once_the_segment_that_has_it_is_there(when: When) -> None:
    results = FakeResults(when)
    worker, probes = bench(MESSAGES, results), 0

    def check(_: str) -> None:
        nonlocal probes
        durable = {(event[0], event[3], tuple(event[4]), event[2]) for event in in_chain(worker.store)}
        assert identities(published(results)) <= durable
        probes += len(durable) > 0

    worker.at = check
    worker.run()
    assert probes > 10
    assert len(published(results)) >= 6


@EITHER
def test_a_camera_that_sends_again_after_a_death_leaves_no_alert_raised_for_ever(when: When) -> None:
    """The worker dies once it has noticed the silence, before the segment that says so."""
    first, later, store, messages = FakeResults(when), FakeResults(when), DictStore(), images(12, *CAMERAS)
    dying = Bench(FakeSource(messages), store, results=first, rules=(SILENT,), classes=CLASSES, epoch_s=1_000.0)

    def die(point: str) -> None:
        if dying.now_s > SILENT.silent_s and point == "segment.encoded":
            raise Died

    dying.at = die
    with pytest.raises(Died):
        dying.run(lambda: dying.now_s > 100.0)
    assert in_chain(store) == []
    epoch_s = 1_000.0 + dying.now_s
    again = [image(n, CAMERAS[n % len(CAMERAS)], at_ms=round(1_000.0 * epoch_s) + 10 * n) for n in range(12, 24)]
    source = FakeSource([*messages, *again])
    second = Bench(source, store, results=later, rules=(SILENT,), classes=CLASSES, epoch_s=epoch_s)
    second.run(lambda: second.now_s > 10.0)
    found = identities([*published(first)[: first.acknowledged], *published(later)])
    assert {alert[:3] for alert in found if alert[3]} <= {alert[:3] for alert in found if not alert[3]}


@EITHER
@pytest.mark.parametrize("off", [False, True])
def test_a_rule_that_is_removed_is_cleared_though_no_camera_sends_and_results_were_off_meanwhile(
    when: When, *, off: bool
) -> None:
    first, later, store, messages = FakeResults(when), FakeResults(when), DictStore(), images(12, *CAMERAS)
    before = Bench(FakeSource(messages), store, results=first, rules=(SILENT,), classes=CLASSES, epoch_s=0.0)
    before.run(lambda: before.now_s > 60.0)
    if off:
        messages += images(12, *CAMERAS, first=12)
        Bench(FakeSource(messages, finite=True), store, epoch_s=60.0).run()
    after = Bench(FakeSource(messages), store, results=later, epoch_s=90.0)
    after.run(lambda: after.now_s > 10.0)
    assert sorted(a.stream_id for a in published(later) if a.cause == "rule_changed") == sorted(CAMERAS)
    found = identities([*published(first), *published(later)])
    assert {alert[:3] for alert in found if alert[3]} == {alert[:3] for alert in found if not alert[3]}
    assert verify(store) == []


def test_a_camera_whose_messages_wait_unread_is_not_silent() -> None:
    results = FakeResults("early")
    source = FakeSource(images(200, "north"), max_poll_records=4)
    worker = Bench(source, results=results, rules=(SilenceRule("silent", 1.0),), classes=CLASSES, epoch_s=0.0)
    drained: list[float] = []

    def turn() -> bool:
        if source.drained(TP) and not drained:
            drained.append(worker.now_s)
        return bool(drained) and worker.now_s > drained[0] + 0.3

    worker.run(turn)
    assert drained[0] > 2.0
    assert published(results) == []


def test_the_alerts_of_the_winner_of_a_race_are_gone_on_from() -> None:
    store, winner_results, results = DictStore(), FakeResults("committed"), FakeResults("committed")
    winner, loser = bench(MESSAGES, winner_results, store), bench(MESSAGES, results, store)

    def race(point: str) -> None:
        if point == "segment.encoded" and not winner.seen.commits:
            winner.run()

    loser.at = race
    loser.run()
    identities = {(a.rule, a.stream_id, a.row_id, a.raised) for a in published(winner_results)}
    assert {(a.rule, a.stream_id, a.row_id, a.raised) for a in published(results)} <= identities


def test_streams_without_end_leave_no_alerts_behind() -> None:
    many = [image(n, f"stranger-{n}", at_ms=10 * n) for n in range(300)]
    results = FakeResults("early")
    worker = bench(many, results, rules=(SILENT, BUS), max_streams=8, epoch_s=0.0).run()
    newest = [footer for _, footer in read_segment_footers(worker.store)][-1]
    assert len(json.loads(newest.alerts)["state"]["silent"]["watched"]) <= 8


def test_a_camera_that_fell_silent_before_a_worker_died_is_told_in_time_whoever_goes_on() -> None:
    """Its last message was read by three workers, of which two died before a segment had it."""
    store, sent = DictStore(), images(24, *CAMERAS)  # the last of them at .23 s
    first = Bench(FakeSource(sent[:12]), store, rules=(SILENT,), classes=CLASSES, epoch_s=0.0)
    first.run(lambda: first.rows == 12)
    for epoch_s in (10.0, 20.0):
        dying = Bench(FakeSource(sent), store, rules=(SILENT,), classes=CLASSES, epoch_s=epoch_s)
        dying.at = lambda point: _die() if point == "segment.encoded" else None
        with pytest.raises(Died):
            dying.run()
    results = FakeResults("early")
    last = Bench(FakeSource(sent), store, results=results, rules=(SILENT,), classes=CLASSES, epoch_s=40.0)
    last.run(lambda: last.now_s > 2.0)
    assert sorted(alert.stream_id for alert in published(results)) == sorted(CAMERAS)


def test_a_rule_that_comes_with_another_worker_covers_a_camera_that_never_sends_again() -> None:
    store, sent = DictStore(), images(24, *CAMERAS)
    Bench(FakeSource(sent, finite=True), store).run()
    results = FakeResults("early")
    later = Bench(FakeSource(sent), store, results=results, rules=(SILENT,), classes=CLASSES, epoch_s=20.0)
    later.run(lambda: later.now_s > 20.0)
    assert sorted(alert.stream_id for alert in published(results)) == sorted(CAMERAS)
    assert all(alert.row_id.offset >= 20 for alert in published(results)), "the last message of each"
    replayed = FakeResults("early")
    again = Bench(FakeSource(sent), DictStore(), results=replayed, rules=(SILENT,), classes=CLASSES)
    again.run(lambda: again.now_s > 60.0)
    assert published(replayed) == [], "no camera is silent by the clock there"


def test_messages_that_come_late_to_a_worker_make_no_camera_silent_that_sends() -> None:
    """A producer's clock is an hour behind, and another worker takes over: silence counts from what it knew."""
    store = DictStore()
    sent = [image(n, "north", at_ms=0) for n in range(16)]
    first = Bench(FakeSource(sent[:8]), store, rules=(SILENT,), classes=CLASSES, epoch_s=3_600.0)
    first.run(lambda: first.rows == 8)
    results = FakeResults("early")
    again = Bench(FakeSource(sent), store, results=results, rules=(SILENT,), classes=CLASSES, epoch_s=3_610.0)
    again.run(lambda: again.now_s > 5.0)
    assert published(results) == []


def _die() -> None:
    raise Died


class NextClass(Adaptation):
    """The scene makes each label the class after it."""

    @override
    def run(self, batches: Sequence[ImageBatch], states: Sequence[StreamState]) -> list[Adapted]:
        found = super().run(batches, states)
        corrected = [
            replace(
                each.predictions,
                scene_index=(each.predictions.top_index[:, 0] + 1) % len(CLASSES),
                scene_confidence=each.predictions.top_probability[:, 0].copy(),
            )
            for each in found
        ]
        return [replace(each, predictions=predictions) for each, predictions in zip(found, corrected, strict=True)]


@EITHER
def test_a_rule_by_scene_label_is_raised_by_the_corrected_labels(when: When) -> None:
    before = CLASSES[CLASSES.index("bus") - 1]
    by_label, by_scene = FakeResults(when), FakeResults(when)
    bench(MESSAGES, by_label, rules=(replace(BUS, labels=frozenset({before})),)).run()
    plain = adaptation(WarmSearch)
    method = NextClass(plain.strategy, plain.classifier, plain.temperatures, plain.top_k)
    whole = bench(MESSAGES, by_scene, rules=(replace(BUS, by_scene=True),), adaptation=method).run()
    assert published(by_scene)
    for camera in CAMERAS:
        assert of_camera(published(by_scene), camera) == of_camera(published(by_label), camera)
    assert {alert.label for alert in published(by_scene)} == {"bus"}
    assert verify(whole.store) == []
