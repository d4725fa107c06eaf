"""What is left out and what stands, by a clock of the test's own; and the lines that say so."""

from __future__ import annotations

import logging

import pytest

from adawise.errors import Lost
from adawise.kafka.batches import Unread
from adawise.kafka.unreadable import AGAIN_S, SURE_S, Unreadable
from adawise.records import Missing, TopicPartition

TP, OTHER = TopicPartition("frames", 0), TopicPartition("frames", 1)
BOMB = Unread(3, 9, Lost.BATCH_TOO_LARGE, "unpacks to more than kafka.max_batch_bytes allows")
DAMAGED = Unread(3, 9, Lost.BATCH_DAMAGED, "cannot be read: its CRC")
UNKNOWN = Unread(3, 9, Lost.BATCH_UNREADABLE, "cannot be read: codec number 6")


class Now:
    s = 0.0

    def __call__(self) -> float:
        return self.s


def subject(*, leaves_out: bool = False) -> tuple[Unreadable, Now]:
    now = Now()
    return Unreadable(leaves_out=leaves_out, clock=now), now


@pytest.mark.parametrize("leaves_out", [False, True])
def test_what_is_beyond_the_limits_is_left_out_at_once_in_one_line(
    leaves_out: bool, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable, _ = subject(leaves_out=leaves_out)
    missing = unreadable.resolve(TP, BOMB)
    assert missing == Missing(3, Lost.BATCH_TOO_LARGE, f"offsets 3 to 9: it {BOMB.detail}")
    assert TP not in unreadable
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert "frames/0: offsets 3 to 9 are left out and become a gap of the output (batch_too_large)" in line.message
    assert "raise that setting and replay" in line.message


@pytest.mark.parametrize("unread", [DAMAGED, UNKNOWN])
def test_what_cannot_be_unpacked_makes_its_partition_stand_and_is_said_again_each_time_it_is_tried(
    unread: Unread, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable, now = subject()
    for _ in range(3):
        assert unreadable.resolve(TP, unread) is None
        assert TP in unreadable
        assert OTHER not in unreadable
        assert unreadable.blocked(TP)
        now.s += AGAIN_S - 1.0
        assert unreadable.due() == []
        now.s += 1.0
        assert unreadable.due() == [TP]
        assert TP not in unreadable, "it may be read now"
        assert unreadable.blocked(TP), "until it was"
    assert [line.levelno for line in caplog.records] == [logging.ERROR] * 3
    text = caplog.records[0].message
    assert (
        f"frames/0: the partition is blocked at offset 3, others go on; the worker tries again every {AGAIN_S:g} s"
    ) in text
    assert f"({unread.reason}): the batch up to offset 9 {unread.detail}" in text
    assert "kafka.on_unreadable=skip" in text


def test_a_partition_that_can_be_read_again_goes_on_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    unreadable, now = subject()
    unreadable.resolve(TP, DAMAGED)
    now.s += AGAIN_S
    unreadable.due()
    unreadable.read(TP, 2)
    assert unreadable.blocked(TP)
    with caplog.at_level(logging.INFO):
        unreadable.read(TP, 3)
    assert not unreadable.blocked(TP)
    assert "frames/0: offset 3 can be read now" in caplog.records[-1].message


def test_one_that_is_lost_or_sought_elsewhere_stands_no_more() -> None:
    unreadable, _ = subject()
    unreadable.resolve(TP, DAMAGED)
    unreadable.forget(TP)
    assert TP not in unreadable
    assert not unreadable.blocked(TP)


def test_if_so_set_an_unknown_codec_is_left_out_at_once(caplog: pytest.LogCaptureFixture) -> None:
    unreadable, _ = subject(leaves_out=True)
    assert unreadable.resolve(TP, UNKNOWN) == Missing(3, Lost.BATCH_UNREADABLE, f"offsets 3 to 9: it {UNKNOWN.detail}")
    assert "kafka.on_unreadable=skip goes on" in caplog.records[0].message


def test_if_so_set_damage_is_left_out_once_it_was_seen_twice(caplog: pytest.LogCaptureFixture) -> None:
    unreadable, now = subject(leaves_out=True)
    assert unreadable.resolve(TP, DAMAGED) is None
    assert not unreadable.blocked(TP), "it goes on by itself"
    assert caplog.records == []
    now.s += SURE_S
    assert unreadable.due() == [TP]
    assert unreadable.resolve(TP, DAMAGED) is not None
    assert TP not in unreadable
    later = Unread(20, 21, Lost.BATCH_DAMAGED, "")
    assert unreadable.resolve(TP, later) is None, "another batch is another matter"
