"""Events of cameras to which one known thing happens each, and of cameras to which nothing does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import duckdb
import numpy as np
import pytest

from adawise.cli import command_of
from adawise.cli.parser import parse
from adawise_drift.cameras import analyse_cameras, silences
from adawise_drift.collect import DriftPath, collect
from adawise_drift.events.find import CameraHistory, events
from adawise_drift.events.measures import NO_MIX, Binned
from adawise_drift.events.result import NO_STAYS, SEVERITIES, DriftEvent, Stays
from adawise_drift.events.severity import Surroundings, explained
from adawise_drift.events.together import numbered
from tests.drift.worlds import BEGIN_US, DAY_US, HOUR_US, KINDS, CameraWorld, Happening, as_tables, camera

SEED = 54
NEAR_US = DAY_US


@dataclass(frozen=True)
class Analysed:
    worlds: dict[str, CameraWorld]
    events: tuple[DriftEvent, ...]

    def of(self, stream_id: str) -> list[DriftEvent]:
        return [event for event in self.events if event.stream_id == stream_id]


def analysed(worlds: Sequence[CameraWorld]) -> Analysed:
    with duckdb.connect() as connection:
        found = collect(connection, is_labelled=as_tables(connection, worlds))
        _, events = analyse_cameras(found, ["runs/yard"], smallest=0.1)
    return Analysed({world.name: world for world in worlds}, events)


def is_near(event: DriftEvent, happening: Happening) -> bool:
    since_us, until_us = happening.since_us - NEAR_US, happening.until_us + NEAR_US
    return event.since_us <= until_us and max(event.since_us, event.until_us) >= since_us


def number_of(kind: str) -> int:
    """Of the camera to which it happens: one to which it happens so that it can be told from chance."""
    return 2 * list(KINDS).index(kind) + 1


@pytest.fixture(scope="module")
def eventful() -> Analysed:
    """A camera of each kind, by the order of the kinds."""
    return analysed([camera(SEED, number_of(kind), kinds=(kind,), labels=True, searched=False) for kind in KINDS])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_happening_is_told_with_its_measure_and_shape(eventful: Analysed, kind: str) -> None:
    """Of one camera that it is told of: of how many of many it is told is for `python -m tools.bench events`."""
    name = f"camera-{number_of(kind):03d}"
    (happening,) = eventful.worlds[name].happenings
    near = [event for event in eventful.of(name) if is_near(event, happening)]
    assert [e for e in near if e.measure in happening.moves and e.shape.startswith(happening.shape)]
    beside = [e for e in eventful.of(name) if e.measure not in (*happening.moves, *happening.touches)]
    assert len(beside) <= 1, beside
    assert len({event.incident for event in near}) <= 2, "one moment is one incident"


def test_cameras_to_which_nothing_happens_have_no_event() -> None:
    assert analysed([camera(SEED + 1, n, labels=n % 3 == 0, searched=False) for n in range(10)]).events == ()


def test_failing_comes_first_and_what_labels_say_is_measured(eventful: Analysed) -> None:
    worst: dict[int, int] = {}
    for event in eventful.events:
        rank = SEVERITIES.index(event.severity)
        worst[event.incident] = min(rank, worst.get(event.incident, rank))
    assert list(worst.values()) == sorted(worst.values())
    assert {0, 1, 2} == set(worst.values())
    name = f"camera-{number_of('silent_mistakes'):03d}"
    mistakes = next(e for e in eventful.of(name) if e.measure == "accuracy")
    assert mistakes.cost is not None
    assert mistakes.cost.how == "measured"
    assert mistakes.cost.low <= mistakes.size <= mistakes.cost.high
    assert mistakes.severity == "failing"
    assert mistakes.causes[-1].sentence.startswith("likely: images on which the models are confident")


def test_the_command_to_go_on_with_is_one(eventful: Analysed) -> None:
    for line in {event.next for event in eventful.events}:
        program, name, *arguments = shlex.split(line)
        if name in {"pair", "dlq"}:
            name, arguments = f"{name} {arguments[0]}", arguments[1:]
        assert program == "adawise"
        assert parse(command_of(name), arguments).mistakes == [], line


def test_many_cameras_that_fall_silent_at_once_know_of_each_other() -> None:
    worlds = [camera(SEED + 2, n, days=12, searched=False) for n in range(3)]
    received = analysed([*(until(world, BEGIN_US + 9 * DAY_US) for world in worlds[:2]), worlds[2]])
    ended = [event for event in received.events if event.shape == "ended"]
    others = {event.stream_id: event.causes[0].sentence for event in ended}
    assert others == {
        "camera-000": "1 of 2 other cameras moved the same way then: camera-001",
        "camera-001": "1 of 2 other cameras moved the same way then: camera-000",
    }
    assert {event.severity for event in ended} == {"failing"}


def until(world: CameraWorld, end_us: int) -> CameraWorld:
    n = int(np.count_nonzero(world.columns["captured_at"] < end_us))
    columns = {name: values[:n] for name, values in world.columns.items()}
    return CameraWorld(world.name, columns, world.counts[:n], world.labelled[:n], world.correct[:n], (), world.days)


def a_day(rejected: Mapping[int, int], stays: Stays = NO_STAYS, /, **changed: float) -> list[DriftEvent]:
    """Of a camera with eight images in two minutes, and none from ten to eleven.

    rejected: images by number of the batch. stays: its conditions. changed: by so much each of these is more from noon
    till three.
    """
    number = np.array([n for n in range(720) if not 300 <= n < 330])
    n, at = len(number), BEGIN_US + number * 120_000_000
    is_changed = (number >= 360) & (number < 450)
    values: dict[str, np.ndarray] = {column.name: np.zeros(n) for column in fields(Binned)}
    values |= {"time_us": at, "last_us": at, "batches": np.ones(n, np.int64), "images": np.full(n, 8)}
    values |= {"labelled": np.zeros(n, np.int64), "rejected": np.array([rejected.get(k, 0) for k in number])}
    values |= {name: size * is_changed for name, size in changed.items()}
    binned = Binned(**values)
    line = events(CameraHistory("gate", binned, 60_000_000, (), NO_MIX, (), (), None))
    return explained(numbered(line, 1), Surroundings(binned, int(at[-1]), (), stays), ["runs/yard"])


def in_conditions(*rows: tuple[float, float, int, bool]) -> Stays:
    """Of (since, until, condition, returned), by the hour."""
    since, until, condition, returned = (np.array(column) for column in zip(*rows, strict=True))
    since_us, until_us = ((BEGIN_US + each * HOUR_US).astype(np.int64) for each in (since, until))
    n, alpha, began = len(rows), np.zeros(len(rows)), np.ones(len(rows), np.bool_)
    batches = np.maximum(1, 30 * (until - since)).astype(np.int64)
    none = np.zeros(n, np.int64)
    return Stays(since_us, until_us, none, condition, batches, alpha, alpha, began, returned, none)


def test_a_step_in_the_last_point_of_counts_may_be_as_late_as_what_was_counted_last() -> None:
    """Both ends are seen in few batches: the second point begins behind the third, and goes on to the last."""
    compared, agreed = np.zeros(120, np.int64), np.zeros(120, np.int64)
    for at, both in ((2, 8), (8, 7), (20, 7), (60, 3), (62, 3), (75, 1)):
        compared[at], agreed[at] = 8, both
    at_us = BEGIN_US + np.arange(120) * 120_000_000
    values: dict[str, np.ndarray] = {column.name: np.zeros(120) for column in fields(Binned)}
    values |= {"time_us": at_us, "last_us": at_us, "batches": np.ones(120, np.int64), "images": np.full(120, 8)}
    values |= {"labelled": np.zeros(120, np.int64), "compared": compared, "agreed": agreed}
    history = CameraHistory("gate", Binned(**values), 60_000_000, (), NO_MIX, (), (), None)
    (step,) = (event for event in events(history) if event.measure == "agreement")
    assert step.earliest_us < at_us[60]
    assert step.latest_us == at_us[75]


@pytest.mark.parametrize(
    ("fourth", "expected"),
    [
        ((12, 24, 1, True), ["condition 1 returned, seen once before"]),
        ((12, 24, 2, True), ["condition 2 returned, which was known before this time"]),
        ((12, 24, 2, False), ["condition 2 began, which is new to the camera"]),
        ((18, 24, 1, True), []),
        ((11.5, 24, 0, True), []),
    ],
)
def test_the_condition_that_came_with_it_is_a_cause(
    fourth: tuple[float, float, int, bool], expected: list[str]
) -> None:
    stays = in_conditions((0, 4, 0, False), (4, 9, 1, False), (9, 9.5, 0, True), (9.5, 10, 3, False), fourth)
    values = a_day({}, stays, luminance=-1.0, confidence=-0.2)
    lit = next(event for event in values if event.measure == "brightness")
    assert [cause.sentence for cause in lit.causes if cause.kind == "condition"] == expected
    assert lit.causes[-1].sentence.startswith("likely:")


def test_a_condition_that_returns_is_no_event_by_itself() -> None:
    assert a_day({}, in_conditions((0, 4, 0, False), (4, 12, 1, False), (12, 24, 0, True))) == a_day({})


def test_images_that_are_all_broken_are_counted_with_the_next_batch_and_may_have_begun_long_before_it() -> None:
    """A point of rejects is of so many images: here of an hour and a half, in one of which all were broken."""
    (spike,) = (event for event in a_day({330: 240}) if event.measure == "rejects")
    assert spike.earliest_us <= BEGIN_US + 10 * HOUR_US <= spike.latest_us
    assert spike.latest_us <= BEGIN_US + 11.1 * HOUR_US


@pytest.mark.parametrize(
    ("changed", "likely"),
    [
        ({"gradient": 1.0, "colourfulness": 0.5}, "the sensor, its gain or its compression"),
        ({"laplacian": 0.4}, "the sensor, its gain or its compression"),
        ({"laplacian": -0.4}, "weather, dirt on the lens, or focus"),
        ({"gradient": -0.5}, "weather, dirt on the lens, or focus"),
        ({"gradient": 0.5}, "weather, dirt on the lens, or focus"),
    ],
)
def test_more_edges_and_texture_are_of_the_sensor_and_less_of_the_lens(changed: dict[str, float], likely: str) -> None:
    found = a_day({}, **changed)
    assert len(found) == len(changed)
    assert {event.causes[-1].sentence for event in found} == {f"likely: {likely}"}


def a_path(time_us: Sequence[int]) -> DriftPath:
    at = np.array(time_us, np.int64)
    return DriftPath(at, at, np.ones(len(at), np.int64), np.zeros(len(at)), np.zeros(len(at)))


def test_a_camera_that_is_dark_every_night_is_not_silent_and_one_that_stays_dark_is() -> None:
    days = [BEGIN_US + day * DAY_US + hour * HOUR_US // 4 for day in range(8) for hour in range(6 * 4, 20 * 4)]
    last = days[-1]
    assert silences(a_path(days), last + 11 * HOUR_US) == ((), None)
    assert silences(a_path(days), last + 20 * HOUR_US) == (((last, last + 20 * HOUR_US),), last)


def test_a_day_without_images_is_a_silence_also_of_a_camera_with_nights() -> None:
    days = [
        BEGIN_US + day * DAY_US + hour * HOUR_US // 4 for day in range(8) if day != 4 for hour in range(6 * 4, 20 * 4)
    ]
    (gap,), ended = silences(a_path(days), days[-1])
    assert ended is None
    assert (gap[1] - gap[0]) // HOUR_US == 34
