"""Several roots that are read as one: no row may occur twice, and rows of the same name are distinguished."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import combinations
from typing import NamedTuple

from adawise.errors import ChainError, SettingsError
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.owner import read_owner
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import chains, footer_of
from adawise.store.documents import Count, Document, Text, parse
from adawise.store.store import Store, open_store
from adawise.text import some


class ShardOf(NamedTuple):
    """The shard of a plan that a root is: the plan's digest, and the shard's number."""

    plan: str
    number: int


class _Root:
    """The first and the last key of each chain of a root, its claims, and the footers that are asked for."""

    def __init__(self, name: str) -> None:
        self.name, self.store = name, open_store(name)
        self.chains = {tp: (keys[0], keys[-1]) for tp, keys in chains(self.store).items()}
        self.id, self.claim = claims.read_sink_id(self.store), _claim(self.store)
        self.shard = None if self.claim is None else self.claim.of
        self._newest: dict[TopicPartition, SegmentFooter] = {}

    def newest(self, tp: TopicPartition) -> SegmentFooter:
        """Return the footer of the partition's newest segment."""
        if tp not in self._newest:
            self._newest[tp] = footer_of(self.store, self.chains[tp][-1])
        return self._newest[tp]

    def span(self, tp: TopicPartition) -> range:
        """Return the offsets of the partition's chain."""
        named = layout.parse_key(self.chains[tp][0])
        assert named is not None  # it is one of the segments
        return range(named[1].first, self.newest(tp).next)


def check_disjoint(roots: Sequence[str]) -> frozenset[str]:
    """Return the topics for which two roots have different messages at the same offsets: two topics of one name.

    A footer is read only for partitions that two roots have in common, and that are not of shards of one plan.

    Raises:
        SettingsError: two of them have the same rows: both have served the same messages of the same streams.
        ChainError: a root is damaged.
        StoreUnavailable: a store does not answer.
    """
    clashing: set[str] = set()
    for one, other in combinations(map(_Root, roots) if len(roots) > 1 else (), 2):
        if one.id is not None and one.id == other.id:
            raise _same(one, other, "one of them is a copy of the other, since both have the same id")
        if one.shard is not None and one.shard == other.shard:
            raise _same(one, other, f"both are shard {one.shard.number} of one plan")
        if one.shard is not None and other.shard is not None and one.shard.plan == other.shard.plan:
            continue
        are_disjoint = _are_disjoint(*(None if root.claim is None else root.claim.streams for root in (one, other)))
        for tp in sorted(one.chains.keys() & other.chains.keys()):
            a, b = one.span(tp), other.span(tp)
            both = range(max(a.start, b.start), min(a.stop, b.stop))
            if not both or are_disjoint:
                continue
            if not _is_another_topic(one.newest(tp), other.newest(tp)):
                raise _same(one, other, f"both have served offsets {both.start} to {both.stop - 1} of {tp}")
            clashing.add(tp.topic)
    return frozenset(clashing)


def shard_of(store: Store) -> ShardOf | None:
    """Return the shard that a root is; None for any other root."""
    claim = _claim(store)
    return None if claim is None else claim.of


def is_divided(store: Store) -> bool:
    """Return True if a root is, or may be, that of a shard, whose chains are divided (`adawise.sink.invariant`).

    A damaged claim may be a shard's; in a root of workers it counts for nothing. One that may not be read leaves the
    check of the chains strict.
    """
    with suppress(ChainError, SettingsError):  # `verify` reports the damage of both claims
        owner = read_owner(store)
        if owner is not None and owner.purpose != "replay":
            return False
    try:
        data = store.get(layout.REPLAY)
        return data is not None and parse(_Replay, store, layout.REPLAY, data).of is not None
    except ChainError:
        return True
    except SettingsError:
        return False


def check_replay_claim(store: Store) -> None:
    """Raise ChainError if a root has the claim of a replay, and it is damaged."""
    if (data := store.get(layout.REPLAY)) is not None:
        parse(_Replay, store, layout.REPLAY, data)


class _ReplayedParts(Document):
    topic: Text
    ranges: dict[Text, tuple[Count, Count]]


def replayed_parts(store: Store) -> dict[TopicPartition, range]:
    """Return the offsets of each partition that a replay reads; {} for any other root, and if they cannot be read."""
    with suppress(ChainError, SettingsError, ValueError):  # a resumed replay reports the damage
        if (data := store.get(layout.REPLAY)) is not None:
            claim = parse(_ReplayedParts, store, layout.REPLAY, data)
            return {TopicPartition(claim.topic, int(number)): range(a, b) for number, (a, b) in claim.ranges.items()}
    return {}


def check_complete(roots: Sequence[str]) -> None:
    """Raise SettingsError if shards of a plan are among the roots, and not all shards of that plan."""
    found: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for claim in filter(None, (_claim(open_store(root)) for root in roots)):
        if (shard := claim.of) is not None and claim.shards is not None:
            found.setdefault(shard.plan, set()).add(shard.number)
            counts[shard.plan] = claim.shards
    for plan, numbers in found.items():
        if lacking := sorted({*range(counts[plan])} - numbers):
            raise SettingsError(
                f"{some(roots)}: expected all {counts[plan]} shards of a plan, but these are missing: {some(lacking)}; "
                "name the roots of all shards, or the folder of the plan"
            )


def ids_of(roots: Sequence[str]) -> frozenset[str]:
    """Return the ids of the roots that have one; a copy has the same id. Raises ChainError and StoreUnavailable."""
    return frozenset(id_ for root in roots if (id_ := claims.read_sink_id(open_store(root))) is not None)


def _same(one: _Root, other: _Root, why: str) -> SettingsError:
    return SettingsError(
        f"{one.name} and {other.name} have the same rows: {why}. Expected outputs of different messages, such as "
        "those of cameras before and after they moved; compare two runs over the same messages with `adawise diff "
        f"{one.name} {other.name}`"
    )


def _is_another_topic(one: SegmentFooter, other: SegmentFooter) -> bool:
    if one.topic_id and other.topic_id:
        return one.topic_id != other.topic_id
    return bool(one.cluster_id and other.cluster_id and one.cluster_id != other.cluster_id)


class _Replay(Document):
    streams: list[Text] | None = None
    plan: Text = ""
    shard: Count | None = None
    shards: Count | None = None

    @property
    def of(self) -> ShardOf | None:
        """The shard that was replayed; None for a whole replay."""
        return None if self.shard is None else ShardOf(self.plan, self.shard)


def _claim(store: Store) -> _Replay | None:
    """Return the claim of a replay; None if the root is none of a replay, or the claim cannot be read."""
    with suppress(ChainError, SettingsError):  # a resumed replay reports the damage
        data = store.get(layout.REPLAY)
        return None if data is None else parse(_Replay, store, layout.REPLAY, data)
    return None


def _are_disjoint(one: Collection[str] | None, other: Collection[str] | None) -> bool:
    """Return True if two replays were of different streams; names with wildcards may match any stream."""
    if one is None or other is None or any(set(name) & set("*?[") for name in (*one, *other)):
        return False
    return not set(one) & set(other)
