from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from adawise.errors import ChainError
from adawise.sink import layout
from adawise.sink.layout import SegmentName
from adawise.sink.walk import ChainPlace, chains, footer_of, newest, reader, refuse, walk
from tests.output.compaction.building import Days, key_of
from tests.sink.building import TP, DictStore


@dataclass(frozen=True)
class Segment:
    name: SegmentName
    next: int
    previous: str | None

    @property
    def successor(self) -> SegmentName:
        return self.name.successor(self.next)


def chain(*ends: int) -> dict[str, Segment]:
    """Segments from 0 to the first of these offsets, from there to the second, and so on."""
    found: dict[str, Segment] = {}
    name, previous = SegmentName(0), None
    for end in ends:
        segment = Segment(name, end, previous)
        name, previous = segment.successor, layout.segment_key(TP, name)
        found[previous] = segment
    return found


def read_from(segments: dict[str, Segment]) -> Callable[[str], tuple[bytes, Segment] | None]:
    return lambda key: (b"", segments[key]) if key in segments else None


def test_without_a_list_the_walk_stops_at_the_head() -> None:
    segments = chain(3, 3, 3, 8)
    found = [link.key for link in walk(read_from(segments), TP, ChainPlace(SegmentName(0)))]
    assert found == [key_of(0), key_of(3), key_of(3, 1), key_of(3, 2)] == [*segments]
    assert [*walk(read_from(segments), TP, ChainPlace(SegmentName(8)))] == []


def test_a_segment_is_read_when_it_is_asked_for_and_no_other() -> None:
    segments = chain(3, 6, 9)
    requests: list[str] = []

    def read(key: str) -> tuple[bytes, Segment] | None:
        requests.append(key)
        return read_from(segments)(key)

    links = walk(read, TP, ChainPlace(SegmentName(0)))
    next(links)
    assert requests == [key_of(0)]
    assert len([*links]) == 2
    assert requests == [key_of(0), key_of(3), key_of(6), key_of(9)]


def test_a_listed_walk_reports_gaps_overlaps_and_foreign_segments_and_goes_on_from_each() -> None:
    segments = chain(3, 6, 9, 12)
    del segments[key_of(3)]
    segments[key_of(7)] = Segment(SegmentName(7), 8, key_of(6))
    segments[key_of(9)] = Segment(SegmentName(9), 12, key_of(5))
    links = [*walk(read_from(segments), TP, ChainPlace(SegmentName(0), None), sorted(segments))]
    assert [(link.footer.name.first, link.broken, link.place.name.first) for link in links] == [
        (0, None, 0),
        (6, "gap", 3),
        (7, "overlap", 9),
        (9, "foreign", 9),
    ]
    assert links[-1].after == ChainPlace(SegmentName(12), key_of(9))


def test_a_first_segment_that_nothing_is_known_of_is_taken_as_it_is() -> None:
    segments = chain(3, 6, 9)
    (first, second) = walk(read_from(segments), TP, None, [key_of(3), key_of(6)])
    assert (first.broken, second.broken) == (None, None)
    (first,) = walk(read_from(segments), TP, ChainPlace(SegmentName(3)), [key_of(3)])
    assert first.broken is None
    (first,) = walk(read_from(segments), TP, ChainPlace(SegmentName(3), None), [key_of(3)])
    assert first.broken == "foreign"


def test_a_policy_may_raise() -> None:
    segments = chain(3, 6)
    segments[key_of(3)] = Segment(SegmentName(3), 6, key_of(2))
    links = walk(read_from(segments), TP, ChainPlace(SegmentName(0)), on_break=partial(refuse, "root"))
    assert next(links).key == key_of(0)
    with pytest.raises(ChainError, match=f"root: {key_of(3)}: expected a successor of {key_of(0)}.*{key_of(2)}"):
        next(links)


def test_listed_segments_are_read_as_links() -> None:
    store = DictStore()
    Days(store).commit(5)
    keys = chains(store)[TP]
    links = [*walk(reader(store), TP, ChainPlace(SegmentName(0), None), keys)]
    assert [link.key for link in links] == keys
    assert [link.data for link in links] == [store.objects[key] for key in keys]
    assert not any(link.broken for link in links)
    assert links[-1].footer.attempt == footer_of(store, keys[-1]).attempt
    store.objects[keys[2]] = store.objects[keys[1]]
    with pytest.raises(ChainError, match="restore its name"):
        [*walk(reader(store), TP, None, keys)]
    del store.objects[keys[2]]
    with pytest.raises(ChainError, match=f"{keys[2]}: expected the segment that was listed, but it is gone"):
        [*walk(reader(store), TP, None, keys)]


def test_the_newest_segment_of_a_partition_is_the_head() -> None:
    store = DictStore()
    assert newest(store, TP) is None
    assert chains(store) == {}
    days = Days(store)
    days.commit(3)
    footer = newest(store, TP)
    assert footer is not None
    assert (footer.next, footer.pending) == (days.head.next_offset, days.head.pending)
