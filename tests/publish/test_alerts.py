from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.ports import Served
from adawise.publish.alerts import LabelRule, PartitionAlerts, Rule, SilenceRule, digest, without_news
from adawise.records import Alert, Predictions
from tests.sink.building import CLASSES, TP, frame, served

CAR = LabelRule("car", frozenset({"car"}), 0.7, frames=2, of=3, clear_frames=2)
SILENT = SilenceRule("silent", 60.0)
ANY = lambda _: True  # noqa: E731


def seen(first: int, labels: str, stream: str = "north", confidence: float = 0.75) -> Served:
    """A batch of a camera: an image for each letter, c for a car, b for a bus."""
    frames = [frame(first + n, stream=stream) for n in range(len(labels))]
    images, predictions, trace = served(frames)
    index = np.array([[["c", "b"].index(label), 2] for label in labels], np.int32)
    probability = np.full((len(labels), 2), confidence, np.float32)
    return images, replace(predictions, top_index=index, top_probability=probability), trace


def alerts(*rules: Rule, stored: bytes = b"") -> PartitionAlerts:
    return PartitionAlerts(TP, rules, CLASSES, stored)


def described(changes: list[Alert]) -> list[tuple[str, bool, int, str]]:
    return [(change.rule, change.raised, change.row_id.offset, change.cause) for change in changes]


def test_a_label_is_told_once_it_is_seen_often_enough_and_once_it_is_not_any_more() -> None:
    machine = alerts(CAR)
    assert described(machine.served(seen(0, "bcb"), anew=False)) == []
    assert described(machine.served(seen(3, "cccc"), anew=False)) == [("car", True, 3, "seen")]
    # of the last three, two are cars until the second bus; from then on it has not held
    assert described(machine.served(seen(7, "bbb"), anew=False)) == [("car", False, 3, "gone")]
    assert described(machine.served(seen(10, "cc"), anew=False)) == [("car", True, 11, "seen")]


def test_what_flickers_is_told_once() -> None:
    machine = alerts(CAR)
    changes = [change for n in range(40) for change in machine.served(seen(3 * n, "ccb"), anew=False)]
    assert described(changes) == [("car", True, 1, "seen")]


def test_an_alert_says_which_image_with_which_label_raised_it_and_which_cleared_it() -> None:
    machine = alerts(CAR)
    (raised,) = machine.served(seen(0, "cc"), anew=False)
    assert (raised.label, raised.confidence, raised.at) == ("car", 0.75, raised.row_id)
    (cleared,) = machine.served(seen(2, "bbbb"), anew=False)
    assert (cleared.label, cleared.row_id, cleared.at and cleared.at.offset) == ("car", raised.row_id, 4)


def test_a_label_that_is_not_sure_enough_and_a_camera_that_is_not_meant_raise_nothing() -> None:
    machine = alerts(CAR, replace(CAR, name="yard", streams="yard-*"))
    assert machine.served(seen(0, "cccc", confidence=0.69), anew=False) == []
    assert described(machine.served(seen(4, "cc", "yard-1"), anew=False)) == [
        ("car", True, 5, "seen"),
        ("yard", True, 5, "seen"),
    ]


@pytest.mark.parametrize(("by_scene", "raised"), [(False, []), (True, [("car", True, 2, "seen")])])
def test_a_rule_by_scene_goes_by_the_corrected_label_and_its_probability(
    by_scene: bool, raised: list[tuple[str, bool, int, str]]
) -> None:
    machine = alerts(replace(CAR, by_scene=by_scene))
    batch, predictions, trace = seen(0, "bbb")
    corrected = np.array([CLASSES.index("car")] * 3), np.array([0.9, 0.6, 0.8], np.float32)
    changed = replace(predictions, scene_index=corrected[0], scene_confidence=corrected[1])
    changes = machine.served((batch, changed, trace), anew=False)
    assert described(changes) == raised
    assert [change.label for change in changes] == ["car"] * len(raised)
    assert [change.confidence for change in changes] == pytest.approx([0.8] * len(raised))


def test_a_rule_by_scene_goes_by_the_served_label_where_there_is_no_other() -> None:
    machine = alerts(replace(CAR, by_scene=True))
    assert described(machine.served(seen(0, "cc"), anew=False)) == [("car", True, 1, "seen")]


def test_a_rule_that_goes_by_another_label_begins_anew_and_one_from_before_goes_on() -> None:
    assert digest(CAR) == "01338fe49a251dd1"
    before = alerts(CAR)
    before.served(seen(0, "cc"), anew=False)
    after = alerts(replace(CAR, by_scene=True), stored=before.stored("a"))
    assert described(after.news) == [("car", False, 1, "rule_changed")]


def test_a_camera_without_a_match_leaves_nothing_behind() -> None:
    machine = alerts(CAR)
    for number in range(100):
        machine.served(seen(0, "cbbbb", f"camera-{number}"), anew=False)
    assert json.loads(machine.stored("a"))["state"]["car"]["seen"] == {}


def test_a_camera_that_begins_anew_is_cleared_and_counts_from_there() -> None:
    machine = alerts(CAR)
    machine.served(seen(0, "cc"), anew=False)
    assert described(machine.served(seen(2, "cb"), anew=True)) == [("car", False, 1, "forgotten")]
    assert described(machine.served(seen(4, "c"), anew=False)) == [("car", True, 4, "seen")]


@given(st.lists(st.sampled_from(["cc", "b", "cbc", "bbbb", "c"]), max_size=20), st.data())
def test_whoever_goes_on_from_a_segment_says_what_one_worker_would_have_said(
    batches: list[str], data: st.DataObject
) -> None:
    whole, parts, offset = alerts(CAR), alerts(CAR), 0
    one: list[Alert] = []
    other: list[Alert] = []
    for labels in batches:
        batch = seen(offset, labels)
        offset += len(labels)
        one += whole.served(batch, anew=False)
        other += parts.served(batch, anew=False)
        if data.draw(st.booleans()):
            parts = alerts(CAR, stored=parts.stored("a"))
    assert one == other


def test_the_news_of_a_segment_are_in_it_once_and_can_be_told_again() -> None:
    machine = alerts(CAR)
    changes = machine.served(seen(0, "ccbbbb"), anew=False)
    stored = machine.stored("attempt-1")
    again = alerts(CAR, stored=stored)
    assert (again.written, again.written_by) == (changes, "attempt-1")
    assert alerts(CAR, stored=machine.stored("attempt-2")).written == []
    assert alerts(CAR, stored=without_news(stored)).written == []


def test_a_rule_that_is_gone_or_says_something_else_is_cleared_and_begins_anew() -> None:
    machine = alerts(CAR)
    machine.served(seen(0, "cc"), anew=False)
    stored = machine.stored("a")
    for rules in ((), (replace(CAR, confidence=0.6),), (replace(CAR, name="other"),)):
        later = alerts(*rules, stored=stored)
        assert described(later.news) == [("car", False, 1, "rule_changed")]
        assert described(alerts(*rules, stored=later.stored("b")).written) == [("car", False, 1, "rule_changed")]
    assert alerts(CAR, stored=stored).news == []
    assert alerts(stored=alerts(stored=stored).stored("b")).stored("c") == b""


@pytest.mark.parametrize(
    "other",
    [
        *(replace(CAR, confidence=0.1), replace(CAR, frames=3), replace(CAR, of=9), replace(CAR, clear_frames=9)),
        *(replace(CAR, labels=frozenset({"bus"})), replace(CAR, streams="x")),
    ],
)
def test_whatever_a_rule_says_is_in_its_digest(other: LabelRule) -> None:
    assert digest(CAR) != digest(other)


def test_the_digest_does_not_depend_on_the_order_of_labels() -> None:
    one = replace(CAR, labels=frozenset(["car", "bus", "empty street"]))
    assert digest(one) == digest(replace(one, labels=frozenset(["empty street", "bus", "car"])))


def test_a_camera_is_silent_once_and_clears_when_it_speaks() -> None:
    machine = alerts(SILENT)
    machine.received("north", 7, 1_000)
    machine.received("south", 8, 30_000)
    assert not machine.is_due(60_999)
    assert machine.is_due(61_000)
    assert described(machine.silent(61_000, has_place=ANY)) == [("silent", True, 7, "silent")]
    assert machine.silent(62_000, has_place=ANY) == []
    assert described(machine.received("north", 20, 70_000)) == [("silent", False, 7, "heard")]
    assert described(machine.silent(89_999, has_place=ANY)) == []
    assert described(machine.silent(200_000, has_place=ANY)) == [
        ("silent", True, 8, "silent"),
        ("silent", True, 20, "silent"),
    ]


def test_silence_goes_on_over_a_restart_and_is_not_told_again() -> None:
    machine = alerts(SILENT)
    machine.received("north", 7, 1_000)
    machine.received("south", 8, 50_000)
    machine.silent(61_000, has_place=ANY)
    later = alerts(SILENT, stored=machine.stored("a"))
    assert later.news == []
    assert described(later.silent(110_000, has_place=ANY)) == [("silent", True, 8, "silent")]
    assert described(later.received("north", 9, 120_000)) == [("silent", False, 7, "heard")]


def test_a_clock_that_ran_ahead_hides_no_silence_of_whoever_goes_on_by_a_right_one() -> None:
    """The state is of a worker a year ahead, and the camera that it heard last never speaks again."""
    year_ms = 365 * 86_400_000
    machine = alerts(SILENT)
    machine.received("gone", 7, year_ms)
    later = alerts(SILENT, stored=machine.stored("a"))
    later.received("north", 8, 1_000)
    assert not later.is_due(60_999)
    assert described(later.silent(61_000, has_place=ANY)) == [
        ("silent", True, 7, "silent"),
        ("silent", True, 8, "silent"),
    ]


def test_a_camera_that_has_left_its_place_is_not_missed_and_what_was_raised_of_it_is_cleared() -> None:
    machine = alerts(SILENT, CAR)
    for number, stream in enumerate(["a", "b", "c"]):
        machine.received(stream, number, 1_000 * number)
    machine.served(seen(9, "cc", "c"), anew=False)
    machine.silent(61_500, has_place=lambda stream: stream != "a")
    assert described(machine.forget(lambda stream: stream == "d")) == [
        ("silent", False, 1, "forgotten"),
        ("car", False, 10, "forgotten"),
    ]
    state = json.loads(machine.stored("x"))["state"]
    assert (state["silent"]["watched"], state["silent"]["raised"], state["car"]["seen"]) == ({}, {}, {})


def test_without_rules_nothing_is_kept() -> None:
    machine = alerts()
    assert machine.received("north", 0, 0) == []
    assert machine.served(seen(0, "cc"), anew=False) == []
    assert not machine.is_due(10**15)
    assert machine.stored("a") == b""


def test_while_nothing_is_published_what_is_raised_stays_raised_and_is_cleared_once_something_is() -> None:
    machine = alerts(SILENT, CAR)
    machine.received("south", 0, 1_000)
    machine.silent(61_000, has_place=ANY)
    machine.received("north", 1, 61_000)
    machine.served(seen(1, "cc"), anew=False)
    stored = machine.stored("a")
    for attempt in "bc":
        silenced = PartitionAlerts(TP, (), CLASSES, stored, published=False)
        assert silenced.news == []
        stored = silenced.stored(attempt)
    for rules in ((), (SILENT, CAR)):
        again = alerts(*rules, stored=stored)
        assert described(again.written) == [("silent", True, 0, "silent"), ("car", True, 2, "seen")]
        assert described(again.news) == [("car", False, 2, "rule_changed"), ("silent", False, 0, "rule_changed")]
        assert not again.is_due(10**15), "a camera was heard meanwhile, or was not: nobody looked"


def test_a_worker_that_publishes_nothing_keeps_nothing_of_what_is_not_raised() -> None:
    machine = alerts(SILENT, CAR)
    machine.received("south", 0, 1_000)
    machine.served(seen(1, "c"), anew=False)
    silenced = PartitionAlerts(TP, (), CLASSES, machine.stored("a"), published=False)
    assert silenced.stored("b") == b""


def test_a_probability_that_is_none_matches_nothing() -> None:
    images, predictions, trace = seen(0, "cc")
    nothing: Predictions = replace(predictions, top_probability=np.full((2, 2), np.nan, np.float32))
    assert alerts(CAR).served((images, nothing, trace), anew=False) == []


def test_a_rule_that_is_new_watches_the_cameras_of_the_chain_that_were_seen_within_a_day_of_the_newest() -> None:
    day_ms, now_ms = 86_400_000, 90_000_000
    known = {"north": (now_ms - 1_000, 9), "dead": (now_ms - 600_000, 7), "old": (now_ms - 1_000 - day_ms, 3)}
    machine = PartitionAlerts(TP, (SILENT,), CLASSES, b"", known=known)
    assert described(machine.silent(now_ms, has_place=ANY)) == [("silent", True, 7, "silent")]
    assert described(machine.received("dead", 12, now_ms + 1)) == [("silent", False, 7, "heard")]
    others = {"dead": (now_ms - 600_000, 7), "lost": (now_ms - 600_000, 8)}
    assert PartitionAlerts(TP, (SILENT,), CLASSES, machine.stored("a"), known=others).is_due(now_ms) is False
    elsewhere = PartitionAlerts(TP, (replace(SILENT, streams="south*"),), CLASSES, b"", known=known)
    assert not elsewhere.is_due(10**15)
