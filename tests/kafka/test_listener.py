from __future__ import annotations

import re

import pytest

from adawise.kafka.group import join_after_settling, why_expelled
from adawise.kafka.ownership import Ownership
from adawise.records import TopicPartition

TP = TopicPartition("frames", 0)


class Coordinator:
    """Of a member that has a reason to join again."""

    def need_rejoin(self) -> bool:
        return True


def test_a_member_joins_again_only_after_its_worker_has_heard_of_what_was_revoked() -> None:
    coordinator, owned = Coordinator(), Ownership()
    join_after_settling(coordinator, owned)
    assert coordinator.need_rejoin()
    owned.note_assigned([TP])
    owned.settle()
    owned.note_revoked([TP])
    assert not coordinator.need_rejoin()
    assert owned.settle() == ([], [TP])
    assert coordinator.need_rejoin()


def test_an_expelled_member_joins_again_at_once() -> None:
    coordinator, owned = Coordinator(), Ownership()
    join_after_settling(coordinator, owned)
    owned.note_assigned([TP])
    owned.settle()
    owned.note_lost([TP])
    assert coordinator.need_rejoin()


@pytest.mark.parametrize(
    ("busy_s", "remedy"),
    [
        (301.0, r"301\.0 s passed between two polls, but kafka\.max_poll_interval_ms allows 300 s: raise it, or"),
        (2.0, r"no heartbeat .* kafka\.session_timeout_ms: .* the setting is too low"),
    ],
)
def test_the_cause_of_an_expulsion_is_told_by_the_time_between_two_polls(busy_s: float, remedy: str) -> None:
    assert re.match(remedy, why_expelled(busy_s=busy_s, max_poll_interval_s=300.0))
