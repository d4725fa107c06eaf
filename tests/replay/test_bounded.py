from __future__ import annotations

from adawise.errors import Lost
from adawise.records import Message, Missing, TopicPartition
from adawise.replay.bounded import BoundedSource
from tests.fakes import FakeSource

TP = TopicPartition("frames", 0)


def missing(first: int, last: int) -> Message:
    return Message("frames", 0, last, None, None, missing=Missing(first, Lost.BATCH_TOO_LARGE))


def read(until: int, *messages: Message) -> list[Message]:
    source = BoundedSource(FakeSource(messages), {TP: (0, until)}, wants=lambda message: message.key is not None)
    source.poll(0.0)
    source.seek(TP, 0)
    source.resume([TP])
    found = list(source.poll(0.0).messages)
    assert source.exhausted
    return found


def test_of_what_nobody_can_read_the_part_within_the_range_is_told_whatever_streams_are_wanted() -> None:
    frame = Message("frames", 0, 0, b"cam", b"x")
    assert read(5, frame, missing(2, 9)) == [frame, missing(2, 4)]
    assert read(10, frame, missing(2, 9)) == [frame, missing(2, 9)]
    assert read(2, frame, missing(2, 9)) == [frame]
