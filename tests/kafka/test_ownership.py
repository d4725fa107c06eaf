from __future__ import annotations

import threading

import pytest

from adawise.kafka.ownership import Ownership
from adawise.records import TopicPartition

A, B = TopicPartition("frames", 0), TopicPartition("frames", 1)


def test_notes_change_nothing_until_they_are_settled() -> None:
    owned = Ownership()
    owned.note_assigned([A])
    assert A not in owned
    assert owned.settle() == ([A], [])
    owned.note_lost([A])
    assert A in owned
    assert owned.settle() == ([], [A])
    assert not owned


def test_a_partition_that_was_lost_and_came_back_is_in_both_and_must_be_sought_anew() -> None:
    owned = Ownership()
    owned.note_assigned([A, B])
    owned.settle()
    owned.seek(A)
    owned.note_lost([A])
    owned.note_assigned([A])
    assert owned.settle() == ([A], [A])
    assert not owned.is_sought(A)


def test_an_assignment_of_what_is_owned_already_is_a_loss_too() -> None:
    owned = Ownership()
    owned.note_assigned([A])
    owned.settle()
    owned.note_assigned([A])
    assert owned.settle() == ([A], [A])


def test_what_came_and_went_between_two_polls_is_in_neither() -> None:
    owned = Ownership()
    owned.note_assigned([A])
    owned.note_lost([A])
    assert owned.settle() == ([], [])


def test_a_loss_is_reported_once_however_often_it_is_noted() -> None:
    owned = Ownership()
    owned.note_assigned([A])
    owned.settle()
    owned.note_all_lost()
    owned.note_lost([A, B])
    assert owned.settle() == ([], [A])


def test_notes_of_many_threads_all_arrive() -> None:
    owned = Ownership()
    tps = [TopicPartition("frames", n) for n in range(400)]
    threads = [threading.Thread(target=owned.note_assigned, args=(tps[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(owned.settle()[0]) == tps


def test_the_error_for_a_foreign_partition_names_the_owned_ones() -> None:
    owned = Ownership()
    owned.note_assigned([A])
    owned.settle()
    with pytest.raises(ValueError, match=r"cannot seek frames/1: the owned partitions are frames/0"):
        owned.seek(B)


def test_how_partitions_went_is_known_until_it_is_settled() -> None:
    owned = Ownership()
    owned.note_assigned([A, B])
    owned.settle()
    assert (owned.is_revoking, owned.is_expelled) == (False, False)
    owned.note_revoked([A])
    assert (owned.is_revoking, owned.is_expelled) == (True, False)
    assert owned.settle() == ([], [A])
    owned.note_all_lost()
    assert (owned.is_revoking, owned.is_expelled) == (False, True)
    assert owned.settle() == ([], [B])
    assert (owned.is_revoking, owned.is_expelled) == (False, False)
