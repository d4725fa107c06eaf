"""Whose root it is: the first to start, and nobody who would write something else there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.errors import ChainError, SettingsError
from pipeline.sink.owner import Owner, check_owner, claim_owner, read_owner
from tests.sink.building import IDENTITY, TP, DictStore, open_chain

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
        (replace(LIVE, cluster_id="another"), "Set --sink.root to a folder of its own"),
        (REPLAY, "take a new folder"),
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
