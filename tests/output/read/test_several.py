"""Several roots are read as one only if no row would be there twice."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from adawise.errors import SettingsError
from adawise.output.read.duckdb_rows import union
from adawise.output.read.several import check_disjoint, is_divided
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.store.store import LocalStore
from tests.sink.building import IDENTITY, TP, DictStore, draft, open_chain


def write(
    root: Path, first: int = 0, *ends: int, identity: TopicIdentity = IDENTITY, streams: list[str] | None = None
) -> str:
    """A root whose segments end at these offsets."""
    chain = open_chain(LocalStore(root))
    chain.check()
    chain.recover(TP, identity, first)
    for end in ends:
        chain.commit(draft(first, end))
        first = end
    if streams is not None:
        (root / "_replay.json").write_text(json.dumps({"streams": streams}))
    return str(root)


def test_one_root_and_roots_without_a_partition_in_common_are_apart_and_no_footer_is_read(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 0, 4, 8), write(tmp_path / "b", 0, 4, 8)
    for path in (tmp_path / "b").rglob("*.parquet"):
        path.write_bytes(b"damaged")
    (tmp_path / "b/predictions/topic-frames").rename(tmp_path / "b/predictions/topic-other")
    assert check_disjoint([a]) == check_disjoint([a, b]) == frozenset()


def test_a_root_that_goes_on_where_another_one_ends_is_apart(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 0, 4, 8), write(tmp_path / "b", 8, 12)
    assert check_disjoint([a, b]) == check_disjoint([b, a]) == frozenset()


@pytest.mark.parametrize(("first", "offsets"), [(0, "0 to 7"), (6, "6 to 7")])
def test_roots_of_the_same_messages_are_refused_with_where_and_what_to_do(
    tmp_path: Path, first: int, offsets: str
) -> None:
    a, b = write(tmp_path / "a", 0, 4, 8), write(tmp_path / "b", first, 12)
    with pytest.raises(SettingsError) as refused:
        check_disjoint([write(tmp_path / "c", 20, 24), a, b])
    output = str(refused.value)
    assert f"{a} and {b} have the same rows: both have served offsets {offsets} of {TP}" in output
    assert output.endswith(f"`adawise diff {a} {b}`")


def test_a_copy_is_refused_even_if_it_has_no_rows(tmp_path: Path) -> None:
    a = write(tmp_path / "a")
    b = str(shutil.copytree(a, tmp_path / "b"))
    with pytest.raises(SettingsError, match="one of them is a copy of the other"):
        check_disjoint([a, b])


@pytest.mark.parametrize(
    ("theirs", "is_another"),
    [
        (TopicIdentity("cluster", "other-id", 4), True),
        (TopicIdentity("other", "topic-id", 4), False),  # a cluster that was renamed
        (TopicIdentity("other", "", 4), True),
        (TopicIdentity("cluster", "", 4), False),
        (TopicIdentity("", "", 4), False),
    ],
)
def test_topics_of_one_name_are_told_apart_by_their_ids_or_else_by_their_clusters(
    tmp_path: Path, theirs: TopicIdentity, is_another: bool
) -> None:
    a, b = write(tmp_path / "a", 0, 8), write(tmp_path / "b", 4, 8, identity=theirs)
    if is_another:
        assert check_disjoint([a, b]) == {"frames"}
    else:
        with pytest.raises(SettingsError, match="have the same rows"):
            check_disjoint([a, b])


@pytest.mark.parametrize(
    ("one", "other", "are_disjoint"),
    [
        (["north"], ["south", "west"], True),
        (["north", "south"], ["south"], False),
        (["north"], ["s*"], False),
        (["north"], None, False),
    ],
)
def test_replays_of_other_streams_are_apart(
    tmp_path: Path, one: list[str], other: list[str] | None, are_disjoint: bool
) -> None:
    a, b = write(tmp_path / "a", 0, 8, streams=one), write(tmp_path / "b", 0, 8, streams=other)
    if are_disjoint:
        assert check_disjoint([a, b]) == frozenset()
    else:
        with pytest.raises(SettingsError, match="have the same rows"):
            check_disjoint([a, b])


def test_partitions_are_compared_each_with_itself(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 0, 8), write(tmp_path / "b")
    chain = open_chain(LocalStore(tmp_path / "b"))
    chain.recover(TopicPartition(TP.topic, 1), IDENTITY, 0)
    assert check_disjoint([a, b]) == frozenset()


@pytest.mark.parametrize(
    ("claim", "divided"),
    [
        (b'{"plan": "p", "shard": 1, "shards": 2}', True),
        (b'{"streams": ["a"]}', False),
        (b"damaged", True),
        (None, False),
        (SettingsError("not allowed to read it"), False),
    ],
)
def test_a_damaged_claim_may_be_that_of_a_shard_and_one_that_may_not_be_read_keeps_the_check_strict(
    claim: bytes | SettingsError | None, divided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DictStore()
    if isinstance(claim, bytes):
        store.put(layout.REPLAY, claim)
    get = store.get

    def refuse(key: str) -> bytes | None:
        if key == layout.REPLAY and isinstance(claim, SettingsError):
            raise claim
        return get(key)

    monkeypatch.setattr(store, "get", refuse)
    assert is_divided(store) is divided


def test_a_union_of_a_thousand_outputs_is_within_the_depth_that_the_database_allows() -> None:
    with closing(duckdb.connect()) as connection:
        parts = [connection.sql(f"SELECT {number} AS n") for number in range(1_001)]
        assert union(connection, "part", parts).aggregate("count(*), sum(n)").fetchall() == [(1_001, 500_500)]
