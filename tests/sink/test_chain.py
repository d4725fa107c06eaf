from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from adawise.errors import ChainError, FatalError, SettingsError, StoreUnavailable
from adawise.output.verify.root import verify
from adawise.ports import Head, SegmentDraft, TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import layout, segment
from adawise.sink.chain import SegmentChain
from adawise.sink.layout import SegmentName
from tests.sink.building import (
    IDENTITY,
    TP,
    DictStore,
    OverwritingStore,
    damaged_page,
    draft,
    frame,
    open_chain,
    served,
)
from tests.sink.footers import read_segment_footers


def key(first: int, sequence: int = 0) -> str:
    return layout.segment_key(TP, SegmentName(first, sequence))


def extended(store: DictStore, *cuts: int) -> SegmentChain:
    """A chain from 0 with segments that end at these offsets."""
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    for number, (first, until) in enumerate(zip((0, *cuts), cuts, strict=False)):
        assert chain.commit(draft(first, until, number=number)).won
    return chain


def test_check_accepts_a_store_that_refuses_and_leaves_one_document() -> None:
    store = DictStore()
    open_chain(store).check()
    open_chain(store).check()
    assert list(store.objects) == ["_sink.json"]


def test_check_refuses_a_store_that_overwrites_without_harming_what_is_there() -> None:
    store = OverwritingStore()
    with pytest.raises(SettingsError, match="refuses to create a key that exists"):
        open_chain(store).check()
    before = dict(store.objects)
    with pytest.raises(SettingsError, match=r"sink\.root"):
        open_chain(store).check()
    assert store.objects == before


@pytest.mark.parametrize("document", [b"", b"[]", b"\xff", b'{"layout": 2, "sink": "a"}', b'{"layout": 1}'])
def test_check_refuses_a_root_of_another_layout_or_a_damaged_one(document: bytes) -> None:
    store = DictStore()
    store.objects["_sink.json"] = document
    with pytest.raises(ChainError, match=r"_sink\.json"):
        open_chain(store).check()


def test_a_partition_without_a_chain_begins_at_the_origin_that_was_claimed_first() -> None:
    store = DictStore()
    assert open_chain(store).recover(TP, IDENTITY, 40) == Head(40)
    assert open_chain(store).recover(TP, IDENTITY, 55) == Head(40)


def test_what_is_held_of_a_partition_is_freed_once_it_is_another_workers() -> None:
    store = DictStore()
    chain = extended(store, 4, 8)
    for _ in range(2):
        chain.forget(TP)
    assert [*chain._tips, *chain._attempts, *chain._blocks] == []
    with pytest.raises(ValueError, match="expected `recover` before `commit`"):
        chain.commit(draft(8, 12))
    assert chain.recover(TP, IDENTITY, 0).next_offset == 8
    assert chain.commit(draft(8, 12, number=2)).won


def test_a_committed_head_is_what_another_worker_recovers() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    draft_ = SegmentDraft(TP, 9, (4, 6), {"north": b"state"}, [served([frame(o) for o in (0, 1, 2, 3, 5, 7, 8)])], ())
    done = chain.commit(draft_)
    assert done.won
    assert (done.rows, done.size_bytes) == (7, len(store.objects[key(0)]))
    assert done.head == Head(9, (4, 6), {"north": b"state"}, key(0))
    assert done.head.low_water == 4
    assert open_chain(store).recover(TP, IDENTITY, 0) == done.head


def test_recovery_reads_the_newest_segment_whatever_the_length_of_the_chain() -> None:
    store = DictStore()
    extended(store, *range(1, 30))
    read: list[str] = []

    class Counting(DictStore):
        def get(self, key: str) -> bytes | None:
            read.append(key)
            return super().get(key)

    counting = Counting()
    counting.objects = store.objects
    assert open_chain(counting).recover(TP, IDENTITY, 0).next_offset == 29
    assert read == ["_sink.json", key(28), key(29)]


def test_recovery_goes_on_from_a_listing_that_is_behind() -> None:
    store = DictStore()
    extended(store, 4, 8, 12)

    class Behind(DictStore):
        def list(self, prefix: str) -> list[str]:
            return super().list(prefix)[:1]

    behind = Behind()
    behind.objects = store.objects
    assert open_chain(behind).recover(TP, IDENTITY, 0).next_offset == 12
    Behind.list = lambda self, prefix: []  # type: ignore[method-assign]
    assert open_chain(behind).recover(TP, IDENTITY, 0).next_offset == 12


def test_recovery_writes_the_traces_that_a_dead_worker_left_out() -> None:
    store = DictStore()
    extended(store, 4, 8)
    traces = store.objects.pop(layout.traces_key(key(4)))
    open_chain(store).recover(TP, IDENTITY, 0)
    assert store.objects[layout.traces_key(key(4))] == traces


def test_the_loser_of_a_race_writes_the_traces_of_a_winner_that_died() -> None:
    store = DictStore()
    loser, winner = open_chain(store), open_chain(store)
    for chain in (loser, winner):
        chain.recover(TP, IDENTITY, 0)
    winner.commit(draft(0, 4))
    del store.objects[layout.traces_key(key(0))]
    assert not loser.commit(draft(0, 5)).won
    assert loser.commit(draft(4, 6, number=1)).won
    assert verify(store) == []


def test_a_loser_that_slept_through_many_commits_adopts_the_newest() -> None:
    store = DictStore()
    zombie = open_chain(store)
    zombie.recover(TP, IDENTITY, 0)
    extended(store, 3, 5, 5 + 3, 20)
    lost = zombie.commit(draft(0, 10))
    assert (lost.won, lost.rows, lost.size_bytes) == (False, 0, 0)
    assert lost.head == open_chain(store).recover(TP, IDENTITY, 0)


@pytest.mark.parametrize("failure", ["before", "after", "before put"])
def test_the_same_draft_again_after_a_failure_is_one_segment(failure: str) -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    once = draft(0, 4)
    store.refuse = [failure]
    with pytest.raises(StoreUnavailable):
        chain.commit(once)
    done = chain.commit(once)
    assert (done.won, done.rows, done.head.next_offset) == (True, 4, 4)
    assert chain.commit(draft(4, 5, number=1)).won
    assert verify(store, contiguous=True) == []


def test_another_draft_after_an_answer_that_was_lost_adopts_what_was_written() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    store.refuse = ["after"]
    with pytest.raises(StoreUnavailable):
        chain.commit(draft(0, 4))
    done = chain.commit(draft(0, 6))
    assert (done.won, done.head.next_offset) == (False, 4)


def test_partitions_have_chains_of_their_own() -> None:
    store = DictStore()
    chain = extended(store, 4)
    other = TopicPartition("frames", 0)
    assert chain.recover(other, IDENTITY, 7) == Head(7)
    empty = SegmentDraft(other, 9, (), {}, (), ())
    assert chain.commit(empty).head.next_offset == 9
    assert chain.commit(draft(4, 5, number=1)).won
    assert verify(store) == []


def test_a_segment_without_rows_moves_the_chain_over_a_hole_of_the_log() -> None:
    store = DictStore()
    chain = extended(store, 4)
    done = chain.commit(replace(draft(4, 4), next_offset=9))
    assert (done.rows, done.head.next_offset) == (0, 9)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: replace(d, next_offset=3), "rows of offsets that are neither"),
        (lambda d: replace(d, pending=(2,)), "both rows and pending: 2"),
        (lambda d: replace(d, pending=(77,)), "pending offsets"),
        (lambda d: replace(d, accepted=[served([frame(0), frame(0)])]), "not index 0, 1, 2"),
        (lambda d: replace(d, accepted=(), next_offset=0), "nothing to write"),
    ],
)
def test_a_draft_that_breaks_the_invariant_is_refused_and_nothing_is_written(
    change: Callable[[SegmentDraft], SegmentDraft], what: str
) -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    with pytest.raises(ValueError, match=f"frames/3.*{what}"):
        chain.commit(change(draft(0, 4)))
    assert store.list(layout.PREDICTIONS) == []


def test_a_draft_that_forgets_what_was_pending_is_refused() -> None:
    chain = open_chain(DictStore())
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 4, (1, 2), {}, [served([frame(0), frame(3)])], ()))
    with pytest.raises(ValueError, match="neither rows nor pending: 2"):
        chain.commit(SegmentDraft(TP, 5, (), {}, [served([frame(1), frame(4)])], ()))


def test_a_partition_that_was_not_recovered_is_refused() -> None:
    with pytest.raises(ValueError, match="expected `recover` before `commit`"):
        open_chain(DictStore()).commit(draft(0, 4))


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (replace(IDENTITY, topic_id="another"), "deleted and created again"),
        (replace(IDENTITY, topic_id="", partitions=3), "topic of 4 partitions or more, but it has 3"),
    ],
)
def test_a_chain_of_another_topic_is_refused_with_the_remedy(begun: bool, identity: TopicIdentity, what: str) -> None:
    store = DictStore()
    extended(store, *([4] if begun else []))
    with pytest.raises(ChainError, match=f"{what}.*sink.root"):
        open_chain(store).recover(TP, identity, 0)


def test_a_chain_goes_on_when_its_topic_has_got_more_partitions() -> None:
    store = DictStore()
    extended(store, 4)
    grown = replace(IDENTITY, partitions=8)
    chain = open_chain(store)
    assert chain.recover(TP, grown, 0).next_offset == 4
    chain.commit(draft(4, 8))
    assert [footer.partitions for _, footer in read_segment_footers(store)] == [4, 8]
    assert verify(store) == []


def test_what_the_topic_was_when_its_first_chain_began_is_kept() -> None:
    store = DictStore()
    assert open_chain(store).began(TP.topic, IDENTITY) == IDENTITY
    grown = replace(IDENTITY, partitions=8)
    assert open_chain(store).began(TP.topic, grown) == IDENTITY
    assert open_chain(store).began("another", grown) == grown
    with pytest.raises(ChainError, match="deleted and created again"):
        open_chain(store).began(TP.topic, replace(grown, topic_id="another"))


@pytest.mark.parametrize("known", [True, False])
def test_a_broker_without_topic_ids_is_taken_at_its_word(known: bool) -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY if known else replace(IDENTITY, topic_id=""), 0)
    chain.commit(draft(0, 4))
    assert open_chain(store).recover(TP, replace(IDENTITY, topic_id="" if known else "id"), 0).next_offset == 4


def test_a_damaged_head_is_refused_and_not_overwritten() -> None:
    store = DictStore()
    extended(store, 4, 8)
    store.objects[key(4)] = damaged = store.objects[key(4)][:-50]
    with pytest.raises(ChainError, match=f"{key(4)}.*restore"):
        open_chain(store).recover(TP, IDENTITY, 0)
    assert store.objects[key(4)] == damaged


def test_a_head_with_a_page_that_differs_from_its_checksum_is_refused_with_the_remedy() -> None:
    store = DictStore()
    extended(store, 4, 8)
    store.objects[key(4)] = damaged = damaged_page(store.objects[key(4)])
    with pytest.raises(ChainError, match=f"{key(4)}.*checksum.*restore the file.*move it away"):
        open_chain(store).recover(TP, IDENTITY, 0)
    assert store.objects[key(4)] == damaged
    del store.objects[key(4)]
    assert open_chain(store).recover(TP, IDENTITY, 0).next_offset == 4


def test_whatever_bit_of_a_head_flips_recovery_reads_the_same_rows_or_says_which_file_is_damaged() -> None:
    store, received = DictStore(), []
    extended(store, 40)
    good = store.objects[key(0)]
    rows = [column.to_pylist() for column in segment.opened(good).read().columns]
    for at in range(0, len(good), 41):
        store.objects[key(0)] = good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]
        try:
            open_chain(store).recover(TP, IDENTITY, 0)
        except ChainError as error:
            received.append(str(error))
        else:  # what Parquet's own footer says beside the rows has no checksum: a column's name, its extremes
            found = segment.opened(store.objects[key(0)]).read().columns
            assert [column.to_pylist() for column in found] == rows
    assert len(received) > 100
    assert all(key(0) in message for message in received)


def test_the_loser_of_a_race_does_not_build_on_a_damaged_winner() -> None:
    store = DictStore()
    loser = open_chain(store)
    loser.recover(TP, IDENTITY, 0)
    extended(store, 4)
    store.objects[key(0)] = damaged_page(store.objects[key(0)])
    with pytest.raises(ChainError, match=f"{key(0)}.*checksum"):
        loser.commit(draft(0, 5))


def test_a_segment_without_rows_is_a_head_like_any_other() -> None:
    store = DictStore()
    chain = extended(store, 4)
    chain.commit(replace(draft(4, 4), next_offset=9))
    assert open_chain(store).recover(TP, IDENTITY, 0).next_offset == 9


def test_a_segment_under_another_name_is_refused() -> None:
    store = DictStore()
    extended(store, 4, 8)
    store.objects[key(6)] = store.objects.pop(key(4))
    with pytest.raises(ChainError, match="restore its name"):
        open_chain(store).recover(TP, IDENTITY, 0)


def test_a_successor_of_another_segment_is_refused() -> None:
    store, other = DictStore(), DictStore()
    zombie = open_chain(store)
    zombie.recover(TP, IDENTITY, 0)
    extended(store, 2, 8)
    extended(other, 1, 2, 4)
    store.objects[key(2)] = other.objects[key(2)]
    with pytest.raises(ChainError, match="a segment was removed or replaced"):
        zombie.commit(draft(0, 1))


@pytest.mark.parametrize("claim", [b"", b"{}", b"[1]", b'{"offset": "x"}'])
def test_a_damaged_origin_is_refused(claim: bytes) -> None:
    store = DictStore()
    store.objects[layout.origin_key(TP)] = claim
    with pytest.raises(ChainError, match="_origin/topic-frames/partition-00003"):
        open_chain(store).recover(TP, IDENTITY, 0)


def test_the_footer_says_who_wrote_what_from_where() -> None:
    store = DictStore()
    extended(store, 4, 8)
    footer = segment.read_footer(store.objects[key(4)], key(4))
    assert (footer.first, footer.next, footer.previous) == (4, 8, key(0))
    assert (footer.topic_id, footer.cluster_id, footer.partitions) == ("topic-id", "cluster", 4)
    assert (footer.writer, footer.model_fingerprint, footer.config_fingerprint) == ("worker-0", "model", "config")
    assert footer.sink == json.loads(store.objects["_sink.json"])["sink"]
    assert footer.attempt != segment.read_footer(store.objects[key(0)], key(0)).attempt


def test_the_chain_stops_at_each_of_its_crash_points_in_order() -> None:
    passed: list[str] = []
    chain = open_chain(DictStore(), at=passed.append)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 4))
    assert passed == ["segment.encoded", "segment.created", "traces.written"]


def test_every_error_of_the_chain_stops_the_worker() -> None:
    assert issubclass(ChainError, FatalError)


def test_the_newest_messages_are_those_of_the_segment_before_where_the_head_has_only_what_was_pending() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.recover(TP, IDENTITY, 0)
    chain.commit(SegmentDraft(TP, 9, (4,), {}, [served([frame(o) for o in (0, 1, 2, 3, 5, 6, 7, 8)])], ()))
    chain.commit(SegmentDraft(TP, 9, (), {}, [served([frame(4)], number=1)], ()))
    newest = open_chain(store).recover(TP, IDENTITY, 0).newest
    assert newest == {offset: 1_700_000_000_000 + offset for offset in range(9)}
