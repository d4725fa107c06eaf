"""Groups of cameras against fleets whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adawise_drift.events.together import fleet_incidents, groups, numbered
from tests.drift.fleets import NEAR_US, SPAN_US, independent, sharing
from tests.drift.page.building import BEGIN_US, HOUR_US, an_event


def test_cameras_that_have_their_moves_at_times_of_their_own_are_no_group() -> None:
    rng = np.random.default_rng(11)
    fleets = [independent(rng, 12, 3.0) for _ in range(40)]
    assert sum(bool(groups(fleet, SPAN_US, NEAR_US)) for fleet in fleets) <= 3


@pytest.mark.parametrize(("cameras", "members", "times"), [(40, 10, 1), (12, 5, 2)])
def test_cameras_that_share_their_moves_are_one(cameras: int, members: int, times: int) -> None:
    rng = np.random.default_rng(12)
    found = 0
    for _ in range(8):
        fleet, names = sharing(rng, cameras, 2.0, members, times)
        for group in groups(fleet, SPAN_US, NEAR_US):
            alike = len(names & {*group.stream_ids}) / len(names | {*group.stream_ids})
            if alike >= 0.7:
                found += 1
                assert group.chance <= 0.05
                assert group.moves >= 1
                break
    assert found >= 7


def test_moves_of_opposite_ways_join_nobody() -> None:
    rng = np.random.default_rng(13)
    fleet, names = sharing(rng, 12, 0.0, 6, 1)
    turned = sorted(names)[:3]
    for name in turned:
        (change,) = fleet[name]
        fleet[name] = (replace(change, before=change.after, after=change.before),)
    for group in groups(fleet, SPAN_US, NEAR_US):
        assert not {*group.stream_ids} & {*turned} or {*group.stream_ids} <= {*turned}


def test_one_camera_and_none_are_no_group() -> None:
    fleet = independent(np.random.default_rng(14), 1, 4.0)
    assert groups(fleet, SPAN_US, NEAR_US) == groups({}, SPAN_US, NEAR_US) == ()


def test_what_lasts_for_mostly_the_same_time_is_one_incident_and_an_hour_within_it_another() -> None:
    """Hours: a day that is brighter, and alpha with it; fog in its afternoon."""
    light = an_event("gate", "brightness", "spike", 5, 21)
    followed = an_event("gate", "alpha", "spike", 9, 20)
    fog = an_event("gate", "contrast", "spike", 15, 16)
    fields = {event.measure: event.incident for event in numbered([fog, followed, light], 1)}
    assert fields == {"brightness": 1, "alpha": 1, "contrast": 2}


def test_what_began_at_one_moment_is_one_incident_however_long_it_lasts() -> None:
    short, long = an_event("gate", "contrast", "spike", 10, 11), an_event("gate", "rate", "ramp", 12, 60)
    assert [event.incident for event in numbered([short, long], 4)] == [4, 4]


def test_events_whose_intervals_have_no_moment_in_common_are_no_incident_of_the_fleet() -> None:
    apart = [an_event(f"cam-{n}", "contrast", "step", 100 + 2.5 * n, incident=n + 1) for n in range(6)]
    span_us = (BEGIN_US, BEGIN_US + 240 * HOUR_US)
    assert fleet_incidents(apart, 20, span_us) == ()
    common = BEGIN_US + 100 * HOUR_US, BEGIN_US + 101 * HOUR_US
    once = [replace(event, earliest_us=common[0], latest_us=common[1] + n * HOUR_US) for n, event in enumerate(apart)]
    (found,) = fleet_incidents(once, 20, span_us)
    assert (found.since_us, found.until_us) == common
    assert [event.stream_id for event in found.leads] == [f"cam-{n}" for n in range(6)]
    assert fleet_incidents(once, 100, span_us) == ()  # fewer than a tenth
    assert fleet_incidents([replace(once[0], incident=n) for n in range(6)], 20, span_us) == ()  # one camera
    opposite = [replace(event, after=event.before + (-1) ** n) for n, event in enumerate(once[:4])]
    assert fleet_incidents(opposite, 20, span_us) == ()


def test_wide_intervals_that_meet_by_chance_are_no_incident_of_the_fleet() -> None:
    rng = np.random.default_rng(3)
    span_us = (BEGIN_US, BEGIN_US + 240 * HOUR_US)
    found = 0
    for _ in range(40):
        events = [an_event(f"cam-{n}", "alpha", "step", at, incident=n) for n, at in enumerate(rng.uniform(0, 240, 30))]
        wide = [replace(e, earliest_us=e.since_us - 8 * HOUR_US, latest_us=e.since_us + 8 * HOUR_US) for e in events]
        found += bool(fleet_incidents(wide, 30, span_us))
    assert found <= 2
