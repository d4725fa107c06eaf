from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.layout import CompactedName, SegmentName

OFFSETS = st.integers(0, 2**63 - 1)
NAMES = st.builds(SegmentName, OFFSETS, st.integers(0, 999_999))
PLACES = st.builds(TopicPartition, st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True), st.integers(0, 2**31 - 1))


@given(NAMES)
def test_a_name_is_read_back_as_it_was_written(name: SegmentName) -> None:
    assert SegmentName.parse(str(name)) == name


@given(NAMES, NAMES)
def test_names_sort_in_the_order_of_the_chain(one: SegmentName, other: SegmentName) -> None:
    assert (str(one) < str(other)) == (one < other)


@given(NAMES, st.integers(0, 1000))
def test_a_successor_comes_after_and_never_has_the_same_name(name: SegmentName, offsets: int) -> None:
    assert name.successor(name.first + offsets) > name


@given(PLACES.filter(lambda tp: tp.topic not in {".", ".."}), NAMES)
def test_a_key_is_read_back_as_it_was_written(tp: TopicPartition, name: SegmentName) -> None:
    key = layout.segment_key(tp, name)
    assert layout.parse_key(key) == (tp, name)
    assert layout.parse_key(layout.traces_key(key)) == (tp, name)


@given(PLACES.filter(lambda tp: tp.topic not in {".", ".."}), NAMES, NAMES, st.dates())
def test_a_compacted_key_is_read_back_as_it_was_written(
    tp: TopicPartition, one: SegmentName, other: SegmentName, day: date
) -> None:
    name = CompactedName(min(one, other), max(one, other), day.isoformat())
    for dataset in (layout.PREDICTIONS, layout.TRACES):
        key = layout.compacted_key(dataset, tp, name)
        assert layout.parse_compacted_key(key) == ((tp, name) if one != other else None)
        assert layout.parse_key(key) is None
        assert layout.parse_compacted_key(layout.segment_key(tp, one)) is None


def test_keys_are_as_documented() -> None:
    tp = TopicPartition("frames", 3)
    key = "predictions/topic-frames/partition-00003/00000000000000000017.parquet"
    assert layout.segment_key(tp, SegmentName(17)) == key
    assert layout.segment_key(tp, SegmentName(17, 2)).endswith("/00000000000000000017_000002.parquet")
    assert layout.traces_key(key) == "traces/topic-frames/partition-00003/00000000000000000017.parquet"
    assert layout.origin_key(tp) == "_origin/topic-frames/partition-00003.json"


@pytest.mark.parametrize("topic", ["", ".", "..", "a/b", "../a", "a b", "ä", "x" * 250, "a\n"])
def test_what_cannot_be_a_topic_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="a Kafka topic has"):
        layout.folder(layout.PREDICTIONS, TopicPartition(topic, 0))


@pytest.mark.parametrize(
    "name", ["17.parquet", "00000000000000000017_000000.parquet", "00000000000000000017.parquet.bak", ".tmp-1", "x"]
)
def test_other_files_are_no_segments(name: str) -> None:
    assert SegmentName.parse(name) is None
    assert layout.parse_key(f"predictions/topic-frames/partition-00003/{name}") is None
