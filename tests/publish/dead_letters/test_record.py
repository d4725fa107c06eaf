from __future__ import annotations

import pytest

from adawise.errors import Lost, Reason
from adawise.publish.dead_letters.record import dead_letter_record
from adawise.records import Frame, Message, Missing, RowId

FRAME = Frame(RowId("frames", 3, 17, 0), -1, "north", reason=Reason.BAD_ARROW, detail="expected a stream")


def test_a_letter_keeps_key_value_headers_and_timestamp_as_they_came() -> None:
    message = Message("frames", 3, 17, b"north", b"\x00garbage", (("content-type", b"image/jpeg"),), 1_700_000_000_123)
    dead_letter = dead_letter_record(message, FRAME, topic=None, worker="worker-0")
    assert (dead_letter.topic, dead_letter.key, dead_letter.value) == ("frames.dlq", b"north", b"\x00garbage")
    assert dead_letter.headers[0] == ("content-type", b"image/jpeg")
    assert dict(dead_letter.headers)["dlq.timestamp"] == b"1700000000123"


def test_a_letter_says_where_it_is_from_and_why_in_connects_headers_and_ours() -> None:
    headers = dict(
        dead_letter_record(Message("frames", 3, 17, b"north", b"x"), FRAME, topic="dead", worker="w").headers
    )
    assert headers["__connect.errors.topic"] == b"frames"
    assert headers["__connect.errors.partition"] == b"3"
    assert headers["__connect.errors.offset"] == b"17"
    assert headers["__connect.errors.exception.message"] == b"bad_arrow: expected a stream"
    assert headers["dlq.reason"] == b"bad_arrow"


def test_headers_of_an_earlier_rejection_are_replaced() -> None:
    once = dead_letter_record(Message("frames", 3, 17, b"k", b"x", (("a", b"1"),)), FRAME, topic=None, worker="w")
    again = dead_letter_record(Message("frames", 3, 99, b"k", b"x", once.headers), FRAME, topic=None, worker="w")
    assert len(again.headers) == len(once.headers)
    assert dict(again.headers)["__connect.errors.offset"] == b"99"


@pytest.mark.parametrize(
    "forged",
    [
        (("dlq.replays", b"2"),),
        (("dlq.origin", b"frames/3/4"),),
        (("dlq.replays", b"2"), ("dlq.origin", b"frames/3/17")),
        (("dlq.replays", b"2"), ("dlq.origin", b"frames/3/18")),
        (("dlq.replays", b"2"), ("dlq.origin", b"other/3/4")),
        (("dlq.replays", b"2"), ("dlq.origin", b"frames/3/4" * 9_000)),
        (("dlq.replays", b"0"), ("dlq.origin", b"frames/3/4")),
        (("dlq.replays", b"9" * 20), ("dlq.origin", b"frames/3/4")),
        (("dlq.replays", b"2"), ("dlq.replays", b"1"), ("dlq.origin", b"frames/3/4")),
        (("dlq.replays", None), ("dlq.origin", None)),
        (("dlq.replayed", b"0/5"), ("dlq.reason", b"none"), ("dlq.omitted", b""), ("__connect.errors.topic", b"x")),
    ],
)
def test_what_no_replay_can_have_written_is_dropped(forged: tuple[tuple[str, bytes | None], ...]) -> None:
    """Whoever may write to the topic could otherwise state how often and from where for whom it likes."""
    plain = dead_letter_record(Message("frames", 3, 17, b"k", b"x"), FRAME, topic=None, worker="w")
    assert dead_letter_record(Message("frames", 3, 17, b"k", b"x", forged), FRAME, topic=None, worker="w") == plain


def test_what_kafka_python_cannot_send_is_made_sendable() -> None:
    dead_letter = dead_letter_record(
        Message("frames", 3, 17, None, None, (("a", None),)), FRAME, topic=None, worker="w"
    )
    assert dead_letter.value == b""
    assert dead_letter.headers[0] == ("a", b"")
    assert dict(dead_letter.headers)["dlq.timestamp"] == b""


def test_a_letter_without_the_original_is_small_and_still_says_where_it_is() -> None:
    message = Message("frames", 3, 17, b"k" * 1000, b"x" * 100_000, (("huge", b"h" * 1000),))
    dead_letter = dead_letter_record(message, FRAME, topic=None, worker="w")
    stripped = dead_letter.without_original()
    assert dead_letter.holds_original
    assert not stripped.holds_original
    assert stripped.size_bytes < 1000
    assert dict(stripped.headers)["__connect.errors.offset"] == b"17"
    assert str(dead_letter.size_bytes).encode() in dict(stripped.headers)["dlq.omitted"]


def test_a_letter_for_what_nobody_can_read_names_the_first_offset_and_has_no_original() -> None:
    message = Message("frames", 3, 99, None, None, missing=Missing(17, Lost.BATCH_TOO_LARGE))
    frame = Frame(RowId("frames", 3, 17, 0), -1, None, reason=Lost.BATCH_TOO_LARGE, detail="offsets 17 to 99: it ...")
    dead_letter = dead_letter_record(message, frame, topic=None, worker="w")
    assert (dead_letter.key, dead_letter.value, dead_letter.holds_original) == (None, b"", False)
    headers = dict(dead_letter.headers)
    assert headers["__connect.errors.offset"] == b"17"
    assert headers["dlq.reason"] == b"batch_too_large"
    assert headers["dlq.detail"] == b"offsets 17 to 99: it ..."
