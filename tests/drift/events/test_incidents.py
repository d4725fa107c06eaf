"""What is one incident, and what happened besides."""

from __future__ import annotations

from adawise_drift.events.together import numbered
from tests.drift.page.building import an_event


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
