"""Several roots that are read as one: no row may occur twice, and rows of the same name are distinguished."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import combinations

from adawise.errors import ChainError, SettingsError
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import chains, footer_of
from adawise.store.documents import Document, Text, parse
from adawise.store.store import Store, open_store


class _Root:
    """The first and the last key of each chain of a root, and the footers that are asked for."""

    def __init__(self, name: str) -> None:
        self.name, self.store = name, open_store(name)
        self.chains = {tp: (keys[0], keys[-1]) for tp, keys in chains(self.store).items()}
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

    A footer is read only for partitions that two roots have in common.

    Raises:
        SettingsError: two of them have the same rows: both have served the same messages of the same streams.
        ChainError: a root is damaged.
        StoreUnavailable: a store does not answer.
    """
    clashing: set[str] = set()
    for one, other in combinations(map(_Root, roots) if len(roots) > 1 else (), 2):
        ids = [claims.read_sink_id(root.store) for root in (one, other)]
        if ids[0] is not None and ids[0] == ids[1]:
            raise _same(one, other, "one of them is a copy of the other, since both have the same id")
        are_disjoint = _are_disjoint(*map(_streams, (one.store, other.store)))
        for tp in sorted(one.chains.keys() & other.chains.keys()):
            a, b = one.span(tp), other.span(tp)
            both = range(max(a.start, b.start), min(a.stop, b.stop))
            if not both or are_disjoint:
                continue
            if not _is_another_topic(one.newest(tp), other.newest(tp)):
                raise _same(one, other, f"both have served offsets {both.start} to {both.stop - 1} of {tp}")
            clashing.add(tp.topic)
    return frozenset(clashing)


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


def _streams(store: Store) -> Collection[str] | None:
    """Return the streams that a replay was of; None for all."""
    data = store.get(layout.REPLAY)
    if data is None:
        return None
    with suppress(ChainError):  # a resumed replay reports the damage
        return parse(_Replay, store, layout.REPLAY, data).streams
    return None


def _are_disjoint(one: Collection[str] | None, other: Collection[str] | None) -> bool:
    """Return True if two replays were of different streams; names with wildcards may match any stream."""
    if one is None or other is None or any(set(name) & set("*?[") for name in (*one, *other)):
        return False
    return not set(one) & set(other)
