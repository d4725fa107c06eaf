"""Compaction: the many small segments of past days are copied into few large files, without touching the chain.

Names alone decide which files readers open (`read.data_keys`): a compacted file replaces the segments that its name
covers. So it becomes visible, and they invisible, at the moment in which it is created. Create-if-absent makes it whole
and once, or not at all, as it does for segments. The steps for one file:

    claim a plan     the segments; the first claim holds, so that two compactions make the same file
    predictions      created: from now on readers take these rows from the file
    traces           created: the same for traces

A compaction that dies in between leaves a root that reads correctly, and the next one goes on from there. Segments stay
until an operator has them deleted (`delete`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from adawise.errors import ChainError
from adawise.output.compaction import choice
from adawise.output.compaction.choice import CompactionPlan, FileLimits
from adawise.output.compaction.merged import encode
from adawise.output.compaction.segments import ChainIdentity, gather
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.files import beginning_name, compacted_names, segment_names
from adawise.sink.layout import CompactedName, SegmentName
from adawise.store.store import AlreadyExists, Failpoint, Store

FAILPOINTS = (
    "compact.planned",
    "compact.predictions_encoded",
    "compact.predictions_created",
    "compact.traces_encoded",
    "compact.traces_created",
)
"""The points at which a compaction can die; `failpoint` is called with each of them, in order, for every file."""

_DATASETS = (layout.PREDICTIONS, layout.TRACES)


@dataclass(frozen=True, slots=True)
class CompactedFile:
    """A compacted file that was made, with the bytes of the segments that it replaces and of it with its traces."""

    tp: TopicPartition
    name: CompactedName
    segments: int
    rows: int
    bytes_before: int
    bytes_after: int


def planned(store: Store, tp: TopicPartition, limits: FileLimits) -> Iterator[CompactedFile]:
    """Yield what `compact` would make of a partition now, in 0 bytes, without a change.

    Raises:
        ChainError: a segment is damaged.
    """
    partition = _Partition.of(store, tp)
    start = partition.chain.origin
    while plan := partition.next_plan(store, start, limits):
        yield CompactedFile(tp, plan.name, plan.segments, plan.rows, 0, 0)
        start = plan.name.until


def compact(
    store: Store,
    tp: TopicPartition,
    limits: FileLimits,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    failpoint: Failpoint = lambda _: None,
) -> Iterator[CompactedFile]:
    """Make the compacted files of a partition; yield each one when it and its traces exist.

    The rows of one file at a time are held in memory. Workers may extend the chain meanwhile, and other compactions may
    do the same work. After an error the files that were made stay, and another call goes on from there.

    Raises:
        ChainError: the chain is not whole.
        StoreUnavailable: the store does not answer.
    """
    for dataset in ("plans", *_DATASETS):
        store.sweep(layout.compacted_folder(dataset, tp))
    partition = _Partition.of(store, tp)
    start = partition.chain.origin
    while True:
        try:
            chosen = partition.next_plan(store, start, limits)
            if chosen is None:
                return
            plan = choice.claim(store, tp, chosen)
            failpoint("compact.planned")
            made = partition.make(store, plan.name, now(), failpoint)
        except ChainError:
            if beginning_name(store, tp) <= partition.chain.origin:
                raise
            partition = _Partition.of(store, tp)  # meanwhile retention has removed segments that were to be compacted
            start = partition.chain.origin
            continue
        yield made
        start = plan.name.until


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition as it was listed: its segments, and the compacted files by the segment that they begin with."""

    tp: TopicPartition
    chain: ChainIdentity
    names: Sequence[SegmentName]
    made: Mapping[str, Mapping[SegmentName, CompactedName]]

    @staticmethod
    def of(store: Store, tp: TopicPartition) -> _Partition:
        """List the partition. Raises ChainError if it has no claims."""
        made = {dataset: {name.first: name for name in compacted_names(store, dataset, tp)} for dataset in _DATASETS}
        return _Partition(tp, ChainIdentity.of(store, tp), segment_names(store, tp), made)

    def next_plan(self, store: Store, start: SegmentName, limits: FileLimits) -> CompactionPlan | None:
        """Return the first plan from `start` on whose file or traces are missing; None if there is nothing to do."""
        while start in self.made[layout.PREDICTIONS] and start in self.made[layout.TRACES]:
            start = self.made[layout.PREDICTIONS][start].until
        names = [name for name in self.names if name >= start]
        if names and names[0] != start:
            key = layout.segment_key(self.tp, start)
            raise ChainError(
                f"{store}: {key}: expected the chain to go on here, but it goes on with {names[0]}; restore the file"
            )
        return choice.read(store, self.tp, start) or choice.choose(store, self.tp, names, limits)

    def make(self, store: Store, name: CompactedName, now: datetime, failpoint: Failpoint) -> CompactedFile:
        """Create the file and its traces, unless another compaction does so first."""
        gathered = gather(store, self.tp, self.chain, name, self.names)
        bytes_after = 0
        for dataset, tables in ((layout.PREDICTIONS, gathered.rows), (layout.TRACES, gathered.batches)):
            data = encode(dataset, tables, gathered.facts(dataset, now.isoformat()))
            failpoint(f"compact.{dataset}_encoded")
            with suppress(AlreadyExists):
                store.create(layout.compacted_key(dataset, self.tp, name), data)
            failpoint(f"compact.{dataset}_created")
            bytes_after += len(data)
        rows = sum(table.num_rows for table in gathered.rows)
        return CompactedFile(self.tp, name, len(gathered.keys), rows, gathered.size_bytes, bytes_after)
