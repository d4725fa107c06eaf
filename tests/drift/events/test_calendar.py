"""Which condition was when: a night that comes again is one condition, with its hours."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

import adawise
from adawise.text import percent
from adawise_drift.events.calendar import calendar, hours, name_of, visits_before
from adawise_drift.events.result import NO_CALENDAR, NO_STAYS, Stays
from adawise_drift.words import alarms, conditions
from tests.drift.worlds import BEGIN_US, DAY_US, HOUR_US, camera, with_conditions, write


def stays(*rows: tuple[float, float, int], states: tuple[int, ...] = (), batches: int = 10) -> Stays:
    """Of (since, until, condition), hours after a midnight; each begins anew, and returns if it was there before."""
    since, until, condition = (np.array(column) for column in zip(*rows, strict=True))
    state = np.array(states or (0,) * len(rows))
    keys = list(zip(state, condition, strict=True))
    n, returned = len(rows), np.array([key in keys[:i] for i, key in enumerate(keys)])
    since_us, until_us = ((BEGIN_US + each * HOUR_US).astype(np.int64) for each in (since, until))
    alpha = np.where(condition == 1, 0.2, 0.8)
    counts, alarms = np.full(n, batches), np.where(condition == 1, batches // 2, 0)
    return Stays(
        *(since_us, until_us, state, condition, counts, alpha, np.full(n, np.nan), returned | True, returned, alarms)
    )


def nights(days: int) -> Stays:
    """Condition 1 from 18 h to 6 h, 0 by day; batches up to a minute before each switch."""
    rows = [(0.0, 5.99, 1)]
    for day in range(days):
        rows += [(24 * day + 6, 24 * day + 17.99, 0), (24 * day + 18, 24 * day + 29.99, 1)]
    return stays(*rows)


def test_a_night_has_its_hours_and_its_returns() -> None:
    found = calendar(nights(6))
    night, day = found.conditions
    assert (night.name, day.name) == ("1", "0")
    assert (hours(night), hours(day)) == ("from 18 h to 6 h", "from 6 h to 18 h")
    assert (night.visits, night.returns, day.visits, day.returns) == (7, 6, 6, 5)
    assert found.returns == 11
    assert (night.batches, night.alpha) == (70, 0.2)
    assert np.isnan(night.objective)
    assert night.share + day.share == 1.0


def test_hours_are_by_the_clocks_of_the_camera() -> None:
    found = calendar(nights(6), ZoneInfo("Asia/Tokyo"))
    assert hours(found.conditions[0]) == "from 3 h to 15 h"
    assert found.runs[0, 3] == 9 * 60


def test_what_is_there_at_any_hour_or_was_there_twice_has_none() -> None:
    shifting = stays(*((n * 7.0, n * 7.0 + 6.9, n % 2) for n in range(60)))
    assert [each.hours for each in calendar(shifting).conditions] == [(), ()]
    twice = stays((0, 47.9, 0), (48, 50, 1), (50.1, 95.9, 0), (96, 98, 1), (98.1, 120, 0))
    assert [each.hours for each in calendar(twice).conditions] == [(), ()]


def test_by_days_a_run_ends_with_its_day_and_cells_are_of_what_they_had_most_of() -> None:
    found = calendar(nights(3))
    assert (found.is_daily, found.cell_us, found.begin_us) == (True, HOUR_US // 4, BEGIN_US)
    assert found.runs[:4].tolist() == [[0, 24, 0, 0], [24, 48, 1, 360], [72, 24, 0, 1080], [96, 24, 0, 0]]


def test_a_pause_is_empty_and_a_short_time_is_one_strip() -> None:
    shop = calendar(stays((9, 17, 0), (33, 41, 0)))
    assert shop.runs[:, 1].tolist() == [8 * 3600 // (shop.cell_us // 1_000_000) + 1] * 2
    assert not shop.is_daily
    assert shop.runs[:, 3].tolist() == [0, 0]


def test_of_hundreds_of_numbers_a_dozen_are_shown_and_every_one_is_counted() -> None:
    rows = [(n / 4, n / 4 + 0.2, n if n % 3 else n % 60) for n in range(900)]
    found = calendar(stays(*rows))
    assert (found.count > 600, len(found.conditions)) == (True, 13)
    assert found.conditions[12].name == f"{found.count - 12} others"
    assert found.shown == 12
    assert found.runs[:, 2].max() == 12
    assert sum(each.batches for each in found.conditions) == 9_000
    one = calendar(stays((0, 100, 0)))
    assert (one.count, one.shown, len(one.conditions), len(one.runs)) == (1, 1, 1, 5)


def test_numbers_of_a_state_that_began_anew_are_others() -> None:
    both = stays((0, 1, 0), (1, 2, 1), (2, 3, 0), (3, 4, 1), (4, 5, 0), states=(3, 3, 4, 4, 4))
    assert {each.name: each.visits for each in calendar(both).conditions} == {"1.0": 1, "1.1": 1, "2.0": 2, "2.1": 1}
    assert name_of(both, 4) == "2.0"
    assert visits_before(both, 4) == 1


def test_what_was_shorter_than_what_the_search_remembers_is_told_as_brief() -> None:
    rows = [(float(hour), hour + 0.99, hour) for hour in range(4)]
    result = stays(*rows)
    found = calendar(replace(result, batches=np.array([10, 2, 30, 1]), alarms=np.zeros(4, np.int64)))
    assert [each.name for each in found.conditions] == ["2", "0", "2 others"]
    assert conditions(found) == "2 conditions and 2 brief or rare ones, 0 returns"
    assert len(calendar(stays((0, 1, 0), (1, 2, 1), batches=2)).conditions) == 2, "where all are"


def test_an_alarm_is_told_with_where_it_was_and_what_to_do() -> None:
    found = calendar(nights(6))
    assert {each.number: each.alarms for each in found.conditions} == {0: 0.0, 1: 0.5}
    assert alarms(found).startswith(f"alarm in {percent(found.alarms)} of its batches, most of them in condition 1: ")
    assert "card correct" in alarms(found)
    assert alarms(calendar(stays((0, 6, 0), (6, 12, 2)))) == ""


def test_without_conditions_there_is_no_calendar() -> None:
    assert calendar(NO_STAYS) is NO_CALENDAR


def test_traces_of_a_root_are_read_to_the_batch_and_those_of_an_earlier_version_have_none(tmp_path: Path) -> None:
    plain, knowing = camera(5, 0, days=4, searched=False), camera(5, 1, days=4, searched=False)
    at_us = knowing.columns["captured_at"]
    hour = (at_us - BEGIN_US) % DAY_US // HOUR_US
    condition = np.where((hour < 6) | (hour >= 18), 1, 0)
    condition[40:43] = 2
    root = write(tmp_path / "yard", [plain, with_conditions(knowing, condition)])
    found = adawise.analyse(str(root)).conditions.arrow.to_pylist()
    assert {row["stream_id"] for row in found} == {knowing.name}
    runs = [(int(value), len(list(those))) for value, those in groupby(condition)]
    for row in found:
        mine = condition == row["number"]
        assert row["batches"] == mine.sum()
        assert row["visits"] == sum(value == row["number"] for value, _ in runs)
        assert row["returns"] == max(0, row["visits"] - 1)
        assert row["alarms"] == (row["number"] == 1)
        assert np.isclose(row["alpha"], knowing.columns["alpha"][mine].mean())
        assert np.isclose(row["objective"], np.nanmean(knowing.columns["objective"][mine]))
        assert row["first"].timestamp() * 1e6 == at_us[mine][0]
        assert row["last"].timestamp() * 1e6 == at_us[mine][-1]
    assert {row["name"]: row["hours"] for row in found} == {
        "0": "from 6 h to 18 h",
        "1": "from 18 h to 6 h",
        "2": "",
    }
