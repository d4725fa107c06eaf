"""Every event that is logged is in the one table, and everything in the table is logged."""

from __future__ import annotations

import re

import pytest

from tools.events import logged
from tools.log_events import EVENTS

CALLS = logged()
IRREGULAR = {
    *(
        "began",
        "begun",
        "chosen",
        "fell",
        "found",
        "kept",
        "left",
        "lost",
        "made",
        "mistaken",
        "read",
        "set",
        "shrunk",
        "taken",
    ),
    "written",
}


def test_the_table_has_every_event_that_is_logged_and_no_other() -> None:
    assert set(CALLS) == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_named_in_the_past_tense(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
    assert [word for word in name.split("_") if word.endswith("ed") or word in IRREGULAR]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_says_what_it_means_and_a_warning_what_to_do_or_why_nothing(name: str) -> None:
    assert EVENTS[name].meaning
    assert CALLS[name].levels


def test_the_scan_sees_names_that_are_chosen_or_passed_on() -> None:
    assert {"segment_committed", "race_lost", "frames_rejected", "card_made_otherwise"} <= set(CALLS)
    assert CALLS["race_lost"].levels == {"info"}
    assert "lag" in CALLS["race_lost"].keys
    assert CALLS["frame_rejected"].more
