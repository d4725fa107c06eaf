"""The newest segments of an output: which are read, how many requests that takes, what is said of what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from adawise.errors import Reason
from adawise.records import Gap, TopicPartition
from adawise.sink import layout
from adawise.store.store import LocalStore
from adawise.watch.status import root
from adawise.watch.status.root import RootReader
from adawise.watch.status.segments import SeenBatch
from tests.sink.building import DictStore
from tests.watch.status.yard import NOW_S, OWNER, Yard

TP = TopicPartition("frames", 0)
HOUR_AGO_S = NOW_S - 3_600


class KeyLog(DictStore):
    """Notes which keys were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.got.append(key)
        return super().get(key)

    def segments_got(self) -> list[str]:
        found = [key for key in self.got if key.startswith("predictions/") and key in self.objects]
        self.got.clear()
        return found


def test_segments_are_read_back_to_the_first_that_is_too_old_and_a_second_look_reads_what_came_since() -> None:
    store = KeyLog()
    yard = Yard(store)
    for minutes in range(200, 0, -10):
        yard.write(ago_s=60 * minutes, batches=[("north", 4, 0.5)])
    store.got.clear()
    reader = RootReader(store)
    facts = reader.read(HOUR_AGO_S)
    assert (facts.root_id, facts.owner, facts.is_replay) == (yard._chain.root_id, OWNER, False)
    chain = facts.chains[TP]
    within = [each for each in chain.segments if each.created_s >= HOUR_AGO_S]
    assert [round(NOW_S - each.created_s) for each in within] == [3600, 3000, 2400, 1800, 1200, 600]
    assert len(store.segments_got()) <= 1 + 8  # the head, and one wave of others
    assert chain.holes == []
    new = yard.write(ago_s=0, batches=[("south", 4, 0.5)])
    again = reader.read(HOUR_AGO_S + 600).chains[TP]
    assert store.segments_got() == [new]
    assert [round(NOW_S - each.created_s) for each in again.segments] == [3600, 3000, 2400, 1800, 1200, 600, 0]
    assert set(again.segments[-1].states) == {"north", "south"}
    assert not any(each.states for each in again.segments[:-1])  # of a day of looks, nothing piles up


def test_of_very_many_segments_only_some_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_SEGMENTS", 20)
    monkeypatch.setattr(root, "_LEAST", 5)
    store = KeyLog()
    yard = Yard(store)
    for seconds in range(100, 0, -1):
        yard.write(ago_s=seconds, batches=[("north", 1, 0.5)])
    store.got.clear()
    chain = RootReader(store).read(HOUR_AGO_S).chains[TP]
    assert 20 <= len(chain.segments) <= 20 + 8
    assert len(store.segments_got()) == len(chain.segments)


def test_a_chain_too_long_to_be_listed_is_read_at_its_end_and_is_not_searched_for_holes() -> None:
    store = KeyLog()
    store.page_keys = 10
    yard = Yard(store)
    for seconds in range(40, 0, -1):
        yard.write(ago_s=seconds, batches=[("north", 1, 0.5)])
    chain = RootReader(store).read(HOUR_AGO_S).chains[TP]
    assert chain.head is not None
    assert chain.head.next_offset == 40
    assert chain.holes is None


def test_a_hole_in_a_chain_is_told() -> None:
    store = DictStore()
    yard = Yard(store)
    keys = [yard.write(ago_s=100_000 - 10_000 * n, batches=[("north", 1, 0.5)]) for n in range(6)]
    store.delete(keys[2])
    [hole] = RootReader(store).read(HOUR_AGO_S).chains[TP].holes or ()
    assert "1 segment is missing" in hole


def test_a_chain_that_cannot_be_read_hides_no_other_and_one_without_a_segment_begins_where_its_claim_says() -> None:
    store = DictStore()
    yard = Yard(store)
    yard.write(0, ago_s=5, batches=[("north", 4, 0.5)])
    head = yard.write(1, ago_s=5, batches=[("south", 4, 0.5)])
    yard.begin(2, origin=77)
    store.objects[head] = store.objects[head][:-9]
    reader = RootReader(store)
    for _ in range(2):  # it is tried anew
        chains = reader.read(HOUR_AGO_S).chains
        assert head in str(chains[TopicPartition("frames", 1)].fault)
        assert chains[TP].fault is None
        assert (chains[TopicPartition("frames", 2)].head, chains[TopicPartition("frames", 2)].origin) == (None, 77)


def test_a_segment_that_is_no_successor_is_a_fault() -> None:
    store = DictStore()
    yard = Yard(store)
    yard.write(ago_s=9, batches=[("north", 4, 0.5)])
    reader = RootReader(store)
    reader.read(HOUR_AGO_S)
    other = DictStore()
    foreign = Yard(other)
    foreign.write(ago_s=9, batches=[("north", 2, 0.5)])
    foreign.write(ago_s=9, batches=[("north", 2, 0.5)])
    key = foreign.write(ago_s=9, batches=[("north", 2, 0.5)])
    store.objects[key] = other.objects[key]
    assert "expected a successor of" in str(reader.read(HOUR_AGO_S).chains[TP].fault)


def test_marks_of_workers_that_still_say_something_are_counted() -> None:
    store = DictStore()
    yard = Yard(store)
    yard.write(ago_s=5, batches=[("north", 4, 0.5)])
    for n, until in enumerate([3, 4, 9, 9, 9]):  # everything before offset 4 is in rows
        store.objects[layout.start_key(TP, f"start-{n}")] = b'{"layout": 1, "until": %d}' % until
    assert RootReader(store).read(HOUR_AGO_S).chains[TP].starts == 3


def test_what_a_segment_holds_is_counted_by_camera() -> None:
    store = DictStore()
    yard = Yard(store)
    yard.write(
        ago_s=5,
        batches=[("north", 4, 0.25), ("south", 3, 0.5), ("north", 2, 0.75)],
        rejected={
            "south": [Reason.EMPTY, Reason.TOO_LARGE],
            None: [Reason.MISSING_STREAM_ID],
            "gate": [Reason.TOMBSTONE],
        },
        pending=2,
        gap=Gap(20, 30),
        reset="jump",
    )
    head = RootReader(store).read(HOUR_AGO_S).chains[TP].head
    assert head is not None
    assert (head.rows, head.next_offset, len(head.pending), head.low_water, head.gaps) == (
        13,
        32,
        2,
        30,
        (Gap(20, 30),),
    )
    north, south = head.sights["north"], head.sights["south"]
    at = NOW_S - 5
    assert (north.images, north.batches, north.last_s) == (6, [SeenBatch(at, 0.25, 4), SeenBatch(at, 0.75, 2)], at)
    assert (north.compared, north.agree, north.forwards) == (3, 0, 12.0)
    assert north.labels == {"car": 3, "bus": 2, "empty street": 1}
    assert north.changed_s == at
    assert (south.images, dict(south.rejected)) == (3, {"empty": 1, "too_large": 1})
    assert dict(head.sights[None].rejected) == {"missing_stream_id": 1}
    assert "gate" not in head.sights  # a tombstone is no reject


@pytest.mark.parametrize("fixture", ["root_0_1_0", "before_0_2"])
def test_outputs_of_earlier_versions_are_read(fixture: str) -> None:
    folder = Path(__file__).parents[2] / "fixtures" / fixture / "root"
    facts = RootReader(LocalStore(folder)).read(0.0)
    assert facts.chains
    for chain in facts.chains.values():
        assert chain.fault is None
        assert chain.head is not None
        assert sum(sight.images for each in chain.segments for sight in each.sights.values()) > 0
