"""Whose root it is: the first to start, and nobody who would write something else there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adawise.errors import ChainError, SettingsError
from adawise.ports import ServedBy, TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.chain import SegmentChain
from adawise.sink.owner import Owner, check_commits, check_owner, claim_owner, read_owner
from tests.sink.building import CLASSES, IDENTITY, TP, DictStore, draft, open_chain

LIVE = Owner("cluster", TP.topic, "yard", "run")
REPLAY = Owner("cluster", TP.topic, "", "replay")


def written_by_0_1_0() -> DictStore:
    """A root without the claim, in which a chain has begun."""
    store = DictStore()
    chain = open_chain(store)
    chain.check()
    chain.began(TP.topic, IDENTITY)
    assert read_owner(store) is None
    return store


def test_the_first_owns_the_root_and_its_like_may_go_on() -> None:
    store = DictStore()
    check_owner(store, LIVE)
    assert store.objects == {}
    for _ in range(2):
        claim_owner(store, LIVE)
    claim_owner(store, replace(LIVE, cluster_id=""))  # the broker does not say
    assert read_owner(store) == LIVE


@pytest.mark.parametrize(
    ("other", "remedy"),
    [
        (replace(LIVE, group="plain"), "If group 'yard' is gone for good"),
        (replace(LIVE, topic="street"), "`adawise replay --topic street -o FOLDER`."),
        (replace(LIVE, cluster_id="another"), "Set --sink.root to a separate folder"),
        (REPLAY, "use a new folder"),
    ],
)
def test_another_is_refused_and_told_the_owner_and_the_remedy(other: Owner, remedy: str) -> None:
    store = DictStore()
    claim_owner(store, LIVE)
    for refuse in (check_owner, claim_owner):
        with pytest.raises(SettingsError) as error:
            refuse(store, other)
        assert f"belongs to the workers of group 'yard' on topic {TP.topic!r} of cluster cluster" in str(error.value)
        assert remedy in str(error.value)
    assert read_owner(store) == LIVE


def test_a_root_of_0_1_0_is_adopted_by_the_first_on_its_topic_alone() -> None:
    store = written_by_0_1_0()
    for other in (replace(LIVE, topic="street"), REPLAY):
        with pytest.raises(SettingsError, match=f"on topic {TP.topic!r}"):
            claim_owner(store, other)
    claim_owner(store, LIVE)
    with pytest.raises(SettingsError, match="group 'yard'"):
        claim_owner(store, replace(LIVE, group="plain"))


def test_a_replay_of_0_1_0_is_adopted_by_a_replay_alone() -> None:
    store = written_by_0_1_0()
    store.objects["_replay.json"] = b"{}"
    with pytest.raises(SettingsError, match="belongs to a replay"):
        claim_owner(store, LIVE)
    claim_owner(store, REPLAY)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", json.dumps({"purpose": "rent"}).encode()])
def test_a_damaged_claim_is_told(document: bytes) -> None:
    store = DictStore()
    store.objects["_owner.json"] = document
    with pytest.raises(ChainError, match=r"_owner.json: expected a claim written by this program"):
        claim_owner(store, LIVE)


def test_a_chain_claims_its_root_with_the_check_before_the_first_poll() -> None:
    store = DictStore()
    open_chain(store, owner=LIVE).check()
    assert read_owner(store) == LIVE
    with pytest.raises(SettingsError, match="group 'yard'"):
        open_chain(store, owner=replace(LIVE, group="plain")).check()


NOTHING: dict[TopicPartition, tuple[int, str]] = {}


def committed(note: str, partition: int = 0, offset: int = 7) -> dict[TopicPartition, tuple[int, str]]:
    return {TopicPartition(LIVE.topic, partition): (offset, note)}


def test_a_groups_offsets_go_with_their_root_with_one_that_says_nothing_and_with_none() -> None:
    store = DictStore()
    for commits in (NOTHING, committed(""), committed("ours"), committed("ours") | committed("", 1)):
        check_commits(store, LIVE, "ours", commits)
    check_commits(store, LIVE, None, NOTHING)


def test_another_root_is_refused_with_both_ids_and_the_remedy() -> None:
    with pytest.raises(SettingsError) as refused:
        check_commits(DictStore(), LIVE, "ours", committed("ours") | committed("theirs", 1))
    output = str(refused.value)
    assert (
        f"group {LIVE.group!r} writes to the output with the id theirs ({LIVE.topic}/1 is committed for it)" in output
    )
    assert "has the id ours" in output
    assert "set --kafka.group to another group" in output
    assert "--sink.begin-anew" in output


@pytest.mark.parametrize("note", ["", "theirs"])
def test_an_empty_root_of_a_group_that_has_committed_is_refused(note: str) -> None:
    with pytest.raises(SettingsError, match=r"is empty.*--sink\.begin-anew"):
        check_commits(DictStore(), LIVE, None, committed(note))


def test_a_chain_looks_at_the_offsets_before_it_writes_and_at_each_recovery_unless_it_begins_anew() -> None:
    store, found = DictStore(), committed("theirs")

    def chain(*, begin_anew: bool = False) -> SegmentChain:
        return SegmentChain(
            store=store,
            by=ServedBy(CLASSES, "model", "config"),
            writer="worker-0",
            owner=LIVE,
            commits=lambda: found,
            begin_anew=begin_anew,
        )

    with pytest.raises(SettingsError, match="theirs"):
        chain().check()
    assert store.objects == {}
    anew = chain(begin_anew=True)
    anew.check()
    identity = TopicIdentity(LIVE.cluster_id, "topic-id", 4)
    for partition in (0, 1):
        anew.recover(TopicPartition(LIVE.topic, partition), identity, 0)

    found = committed(anew.root_id)
    other = chain()
    other.check()
    found = committed("theirs") | committed(anew.root_id, 1)  # in the meantime
    other.recover(TopicPartition(LIVE.topic, 1), identity, 0)
    with pytest.raises(SettingsError, match="theirs"):
        other.recover(TopicPartition(LIVE.topic, 0), identity, 0)


def test_a_root_whose_document_was_removed_is_not_given_a_new_id() -> None:
    store = DictStore()
    chain = open_chain(store)
    chain.check()
    chain.recover(TP, IDENTITY, 0)
    chain.commit(draft(0, 3))
    del store.objects[layout.SINK]
    before = dict(store.objects)
    for attempt in (open_chain(store).check, lambda: open_chain(store).recover(TP, IDENTITY, 0)):
        with pytest.raises(ChainError, match=r"expected _sink\.json beside predictions/.*adawise repair"):
            attempt()
    assert store.objects == before
