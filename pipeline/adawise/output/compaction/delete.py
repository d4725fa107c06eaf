"""Deletion of the segments that compacted files replace, some time after readers stopped opening them.

The last segment of every compacted file stays: its footer has the state of the streams at that point, from which a
replay can begin, and it ties the file to the chain. The head is never deleted.

A deleted name is free, and a worker that was suspended since before the deletion may create it again. The worker
detects this at once. The segment that it wrote is covered: no reader opens it, and the next call removes
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from adawise.errors import ChainError, StoreUnavailable
from adawise.output.compaction.merged import read_proven
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.files import compacted_names, is_covered, read_bytes, segment_names
from adawise.sink.layout import CompactedName
from adawise.store.store import Failpoint, Store

FAILPOINTS = ("compact.traces_deleted", "compact.segment_deleted")
"""The points at which a deletion can die, for each segment; `failpoint` is called with them in order."""


@dataclass(frozen=True, slots=True)
class Deletable:
    """A compacted file, and the keys of the segments that exist beside it, without the last one."""

    tp: TopicPartition
    name: CompactedName
    keys: tuple[str, ...]


def now_of(store: Store) -> datetime:
    """Return the time on the store's clock.

    The local clock may be hours ahead; segments would then be deleted before readers and workers are done with them.
    """
    key = f"_clock-{uuid4().hex}"
    store.put(key, b"")
    try:
        now = store.modified(key)
    finally:
        store.delete(key)
    if now is None:
        raise StoreUnavailable(f"{store}: {key} was written, but cannot be found; {StoreUnavailable.REMEDY}")
    return now


def deletable(store: Store, tp: TopicPartition, *, made_before: datetime) -> Iterator[Deletable]:
    """Yield what `delete` may remove: the segments of files that were made, with their traces, before `made_before`.

    Each of these files is read and proven first.

    Args:
        store: where the files are.
        tp: the partition.
        made_before: a moment by the store's clock (`now_of`).

    Raises:
        ChainError: a file is damaged, or its last segment is gone.
    """
    traced = set(compacted_names(store, layout.TRACES, tp))
    names = segment_names(store, tp)
    for name in compacted_names(store, layout.PREDICTIONS, tp):
        inside = [layout.segment_key(tp, found) for found in names if is_covered(found, [name])]
        if len(inside) < 2 or name not in traced:
            continue
        key = layout.compacted_key(layout.PREDICTIONS, tp, name)
        traces_key = layout.compacted_key(layout.TRACES, tp, name)
        if any((made := store.modified(each)) is None or made >= made_before for each in (key, traces_key)):
            continue
        facts, _ = read_proven(layout.PREDICTIONS, read_bytes(store, key), key)
        read_proven(layout.TRACES, read_bytes(store, traces_key), traces_key)
        if facts.last not in inside:
            raise ChainError(
                f"{store}: {facts.last}: expected the last segment of {key}, which is never deleted; restore it"
            )
        yield Deletable(tp, name, tuple(key for key in inside if key != facts.last))


def delete_older(store: Store, tps: Iterable[TopicPartition], age: timedelta, *, dry_run: bool) -> Iterator[str]:
    """Delete segments of these partitions that were compacted longer ago than `age`; yield each key.

    With `dry_run` only yield them. `now_of` writes a file, which a dry run must not do; it uses the local clock.
    """
    made_before = (datetime.now(UTC) if dry_run else now_of(store)) - age
    for tp in tps:
        for covered in deletable(store, tp, made_before=made_before):
            yield from covered.keys if dry_run else delete(store, covered)


def delete(store: Store, covered: Deletable, *, failpoint: Failpoint = lambda _: None) -> Iterator[str]:
    """Delete these segments and their traces; yield each key when both are gone. It can be repeated after a crash."""
    for key in covered.keys:
        # Traces go first: a later call finds what is left by the segments.
        store.delete(layout.traces_key(key))
        failpoint("compact.traces_deleted")
        store.delete(key)
        failpoint("compact.segment_deleted")
        yield key
