"""How far behind a partition is, and when it will have caught up, by what came and what was served."""

from __future__ import annotations

import math

import pytest

from adawise.watch.backlog import RATE_S, PartitionLag, Rates, backlog_facts


@pytest.mark.parametrize(
    ("backlog", "is_behind", "catch_up_s"),
    [
        (PartitionLag(0, 0.0), False, 0.0),
        (PartitionLag(12, 20.0, 5.0, 5.0), False, 0.0),  # what a batch and a segment take
        (PartitionLag(600, 90.0, 5.0, 8.0), True, 200.0),
        (PartitionLag(600, 90.0, 8.0, 8.0), True, math.inf),
        (PartitionLag(600, 90.0, 16.0, 8.0), True, math.inf),
        (PartitionLag(600, 90.0), True, None),
        (PartitionLag(None, None, 5.0, 8.0), False, None),
        (PartitionLag(600, None, 5.0, 8.0), False, None),
    ],
)
def test_time_to_catch_up_is_what_waits_over_what_is_gained(
    backlog: PartitionLag, is_behind: bool, catch_up_s: float | None
) -> None:
    assert (backlog.is_behind, backlog.catch_up_s) == (is_behind, catch_up_s)


def test_rates_are_of_the_last_minutes_and_of_what_is_durable() -> None:
    rates = Rates()
    assert rates.add(0.0, 0, 0) == (None, None)
    assert rates.add(9.0, 90, 90) == (None, None), "one flush says little"
    assert rates.add(20.0, 100, 300) == (20.0, 5.0)
    assert rates.add(25.0, 100, None) == (None, None)
    found = [rates.add(float(now), 100 + 4 * now, 300) for now in range(30, 1_200)]  # it keeps up from now on
    assert found[-1] == (4.0, 4.0)
    assert len(rates._marks) <= RATE_S / 5.0 + 2


def test_a_partition_that_is_read_anew_has_no_negative_rate() -> None:
    rates = Rates()
    rates.add(0.0, 100, 50)
    assert rates.add(20.0, 90, 40) == (0.0, 0.0)


def test_a_page_sums_what_is_known_and_says_the_worst() -> None:
    assert backlog_facts([PartitionLag(None, None)]) == []
    assert backlog_facts([PartitionLag(0, 0.0), PartitionLag(0, 0.0)]) == [("lag", "0")]
    behind = [PartitionLag(40, 30.0, 2.0, 2.0), PartitionLag(700, 300.0, 5.0, 7.0)]
    assert backlog_facts(behind) == [
        ("lag", "740"),
        ("oldest", "5 min"),
        ("arriving/s", "7.0"),
        ("served/s", "9.0"),
        ("caught up in", "6 min"),
    ]
    assert ("caught up in", "never") in backlog_facts([*behind, PartitionLag(70, 90.0, 2.0, 1.0)])
