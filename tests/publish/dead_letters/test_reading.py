"""Letters are read back whole, whatever the record is, and know what is sent when they are replayed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from adawise.errors import Reason
from adawise.publish.dead_letters.reading import DeadLetter, read_dead_letter, receipt_for
from adawise.publish.dead_letters.record import dead_letter_record
from adawise.records import Frame, Message, RowId

FRAME = Frame(RowId("frames", 3, 17, 0), -1, "north", reason=Reason.BAD_ARROW, detail="expected a stream")
ORIGINAL = Message("frames", 3, 17, b"north", b"\x00garbage", (("content-type", b"x/y"),), 1_700_000_000_123)


def in_the_topic(message: Message, frame: Frame = FRAME, offset: int = 5) -> DeadLetter:
    """The letter for a message, as it is read back."""
    sent = dead_letter_record(message, frame, topic=None, worker="w")
    return read_dead_letter(Message(sent.topic, 0, offset, sent.key, sent.value, sent.headers, 1_800_000_000_000))


def test_a_letter_is_read_back_as_it_was_written() -> None:
    dead_letter = in_the_topic(ORIGINAL)
    assert (dead_letter.place, dead_letter.source, dead_letter.reason) == ("0/5", "frames/3/17", "bad_arrow")
    assert (dead_letter.detail, dead_letter.stream, dead_letter.size_bytes) == ("expected a stream", "north", 8)
    assert (dead_letter.headers, dead_letter.replays, dead_letter.is_whole) == (ORIGINAL.headers, 0, True)
    assert dead_letter.timestamp_ms == ORIGINAL.timestamp_ms
    assert dead_letter.without_value().size_bytes == 8
    assert dead_letter.without_value().record.value is None


def test_the_time_is_the_originals_in_a_header_or_the_letters_own_where_an_earlier_version_wrote_it() -> None:
    assert in_the_topic(replace(ORIGINAL, timestamp_ms=-1)).timestamp_ms == -1
    assert (
        read_dead_letter(Message("frames.dlq", 0, 5, b"k", b"x", (), 1_700_000_000_456)).timestamp_ms
        == 1_700_000_000_456
    )


def test_two_letters_are_of_one_message_if_place_and_bytes_are_the_same() -> None:
    one, other = in_the_topic(ORIGINAL), in_the_topic(ORIGINAL, offset=9)
    assert one.place != other.place
    assert one.message == other.message
    assert one.message != in_the_topic(replace(ORIGINAL, value=b"of the topic's successor")).message


def test_what_is_sent_back_has_the_original_headers_and_says_how_often_and_from_where() -> None:
    assert in_the_topic(ORIGINAL).to_send() == (
        ("content-type", b"x/y"),
        ("dlq.replays", b"1"),
        ("dlq.origin", b"frames/3/17"),
    )


def test_a_message_that_is_rejected_again_counts_on_and_keeps_its_first_place() -> None:
    once = in_the_topic(ORIGINAL)
    back = Message("frames", 3, 99, ORIGINAL.key, ORIGINAL.value, once.to_send())
    again = in_the_topic(back, Frame(RowId("frames", 3, 99, 0), -1, None, reason=Reason.BAD_ARROW, detail="still"), 8)
    assert (again.replays, again.source, again.headers) == (1, "frames/3/99", ORIGINAL.headers)
    assert again.to_send()[-2:] == (("dlq.replays", b"2"), ("dlq.origin", b"frames/3/17"))
    assert len(again.to_send()) == len(once.to_send()), "or a message would grow with each replay"


def test_a_receipt_names_its_letter_and_a_letter_is_none() -> None:
    dead_letter = in_the_topic(ORIGINAL)
    assert receipt_for(Message("frames.dlq", 0, 9, None, b"", dead_letter.receipt())) == "0/5"
    assert receipt_for(dead_letter.record) is None
    for forged in (b"", b"0", b"0/", b"/5", b"-1/5", b"0/x", "0/\N{SUPERSCRIPT TWO}".encode()):
        assert receipt_for(Message("frames.dlq", 0, 9, None, b"", (("dlq.replayed", forged),))) is None
    assert receipt_for(Message("frames.dlq", 0, 9, None, b"image", dead_letter.receipt())) is None


def test_a_letter_without_its_original_says_so() -> None:
    sent = dead_letter_record(ORIGINAL, FRAME, topic=None, worker="w").without_original()
    dead_letter = read_dead_letter(Message(sent.topic, 0, 5, sent.key, sent.value, sent.headers))
    assert not dead_letter.is_whole
    assert dead_letter.source == "frames/3/17"


@example(b"\xff", None, [("dlq.reason", b"\xff"), ("dlq.replays", b"-1"), ("__connect.errors.partition", b"x")])
@example(None, b"", [("dlq.reason", None), ("dlq.replays", b"9" * 30), ("Stream-Id", b"\xff"), ("", b"")])
@given(
    st.none() | st.binary(max_size=9),
    st.none() | st.binary(max_size=9),
    st.lists(
        st.tuples(
            st.sampled_from(["dlq.reason", "dlq.replays", "__connect.errors.partition", "Stream-Id"]) | st.text(),
            st.none() | st.binary(max_size=30),
        ),
        max_size=5,
    ),
)
def test_any_record_at_all_can_be_read(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    dead_letter = read_dead_letter(Message("frames.dlq", 0, 1, key, value, tuple(headers)))
    assert dead_letter.reason
    assert dead_letter.source.count("/") >= 2
    assert dead_letter.replays >= 0
    assert dead_letter.to_send()
    assert dead_letter.stream is None or dead_letter.stream.encode()
    receipt_for(dead_letter.record)
