"""The beginnings and ends of the batches of an earlier run, read from the traces of its root."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256

from adawise.errors import SettingsError
from adawise.output.read.rows import read_traces
from adawise.ports import TopicIdentity
from adawise.records import BatchEnds, TopicPartition
from adawise.sink import layout
from adawise.sink.files import compacted_names, segment_names
from adawise.sink.walk import newest
from adawise.store.store import Store, open_store

_COLUMNS = ["topic", "partition", "stream_id", "first_offset", "last_offset"]


def read_batch_ends(
    root: str, ranges: Mapping[TopicPartition, tuple[int, int]], identity: TopicIdentity
) -> tuple[BatchEnds, tuple[TopicPartition, ...]]:
    """Return the ends of the batches within [begin, end) of these partitions in the run that wrote `root`.

    They take 16 bytes a batch. Also return the partitions whose chain in the root begins after `begin`, or is missing.

    Raises:
        SettingsError: the root is of another topic than `identity`, or has no batches of any of these partitions.
        ChainError: a file of the root is damaged.
        StoreUnavailable: the store does not answer.
    """
    rows = read_traces(root, columns=_COLUMNS)
    store = open_store(root)
    for tp in ranges:
        _expect_same_topic(store, root, tp, identity)
    found: dict[TopicPartition, dict[str, list[tuple[int, int]]]] = {tp: defaultdict(list) for tp in ranges}
    for batch in rows.batches():
        for topic, partition, stream, first, last in zip(
            *(column.to_pylist() for column in batch.columns), strict=True
        ):
            tp = TopicPartition(topic, partition)
            begin, end = ranges.get(tp, (0, 0))
            if None not in (stream, first, last) and begin <= last < end:
                found[tp][stream].append((first, last))
    if not any(found.values()):
        named = ", ".join(map(str, sorted(ranges)))
        raise SettingsError(
            f"--batches-of {root}: expected batches of {named}, but there are none; name the root of sink.root or "
            "-o with which these messages were classified"
        )
    lacking = tuple(tp for tp, (begin, _) in sorted(ranges.items()) if not _covers(store, tp, begin))
    return {tp: {name: _columns(ends) for name, ends in streams.items()} for tp, streams in found.items()}, lacking


def _covers(store: Store, tp: TopicPartition, begin: int) -> bool:
    segments, files = segment_names(store, tp), compacted_names(store, layout.TRACES, tp)
    firsts = [*(name.first for name in segments[:1]), *(name.first.first for name in files[:1])]
    return min(firsts, default=begin + 1) <= begin


def _columns(ends: list[tuple[int, int]]) -> tuple[array[int], array[int]]:
    ends.sort(key=lambda each: each[1])
    return array("q", [first for first, _ in ends]), array("q", [last for _, last in ends])


def digest_of(ends: BatchEnds) -> str:
    """Return a hash of these ends: 16 hex digits."""
    found = sha256()
    for tp, streams in sorted(ends.items()):
        for name, columns in sorted(streams.items()):
            found.update(f"{tp}\0{name}\0".encode())
            for column in columns:
                found.update(array("q", column).tobytes())
    return found.hexdigest()[:16]


def _expect_same_topic(store: Store, root: str, tp: TopicPartition, identity: TopicIdentity) -> None:
    if (footer := newest(store, tp)) is None:
        return
    for what, theirs, ours in (
        ("topic id", footer.topic_id, identity.topic_id),
        ("cluster id", footer.cluster_id, identity.cluster_id),
    ):
        if theirs and ours and theirs != ours:
            raise SettingsError(
                f"--batches-of {root}: expected output of this topic ({what} {ours}), but {tp} there is from "
                f"another topic of that name ({theirs}), whose offsets are other messages; name the root of this "
                "topic"
            )
