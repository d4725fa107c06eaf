from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tools.chaos.schedule import FAULTS, OF_FOLDERS, OPERATIONS, POINTS, Kind, schedule


def test_a_seed_gives_the_same_faults_again_and_another_gives_others() -> None:
    assert schedule(7, 65) == schedule(7, 65)
    assert schedule(7, 65) != schedule(8, 65)


def test_faults_are_spread_over_the_stream_in_their_order() -> None:
    shares = [fault.at for fault in schedule(3, 65)]
    assert shares == sorted(shares)
    assert all(0.02 <= share <= 0.95 for share in shares)
    assert all(later - earlier < 2 * 0.93 / 65 for earlier, later in pairwise(shares))


def test_the_long_form_has_every_kind_and_an_exit_at_every_point() -> None:
    faults = schedule(0, 65)
    assert set(Counter(fault.kind for fault in faults)) == set(FAULTS)
    assert {fault.point for fault in faults if fault.kind is Kind.EXIT} == set(POINTS)


def test_kinds_that_cannot_be_had_are_left_out() -> None:
    kinds = [kind for kind in FAULTS if kind is not Kind.BROKER]
    faults = schedule(0, 30, kinds)
    assert len(faults) == 30
    assert {fault.kind for fault in faults} == set(kinds)


def test_nobody_is_sent_to_a_point_that_its_store_does_not_have() -> None:
    points = {fault.point for fault in schedule(0, 65, in_folder=False)}
    assert points == {"", *POINTS} - OF_FOLDERS
    assert len(POINTS) > len(OF_FOLDERS) > 0


def test_with_operators_half_of_what_happens_are_operations_of_every_kind() -> None:
    kinds = [fault.kind for fault in schedule(0, 30, tuple(Kind))]
    assert sum(kind in OPERATIONS for kind in kinds) == 15
    assert set(kinds) >= OPERATIONS
    assert schedule(7, 30, tuple(Kind)) == schedule(7, 30, tuple(Kind))


def test_operations_alone_are_no_faults() -> None:
    assert {fault.kind for fault in schedule(0, 12, tuple(OPERATIONS))} == OPERATIONS
