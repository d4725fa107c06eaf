"""Compaction: the many small segments of past days are copied into few large files, without touching the chain.

Names alone decide which files readers open (`read.data_keys`): a compacted file replaces the segments that its name
covers. So it becomes visible, and they invisible, at the moment in which it is created. Create-if-absent makes it whole
and once, or not at all, as it does for segments. The steps for one file:

    claim a plan     the segments; the first claim holds, so that two compactions make the same file
    predictions      created: from now on readers take these rows from the file
    traces           created: the same for traces

A compaction that dies in between leaves a root that reads correctly, and the next one goes on from there. Segments stay
until an operator has them deleted (`delete`).

The choice of segments depends on the limits and on the day, and two compactions may see different ones. So the first
claim of a plan holds, as with the origin of a chain, and another compaction, or the next one after a crash, makes the
file that was planned. A plan is named after the segment that it begins with, which follows from the file before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from adawise.errors import ChainError, StoreUnavailable
from adawise.output.compaction.merged import encode
from adawise.output.compaction.segments import ChainIdentity, gather
from adawise.records import TopicPartition
from adawise.sink import layout, segment
from adawise.sink.claims import beginning_name
from adawise.sink.files import compacted_names, segment_names
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import Link, reader, walk
from adawise.store.answers import AlreadyExists
from adawise.store.documents import Count, Document, Text, parse
from adawise.store.store import Failpoint, Store

FORMAT = 1


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The limits of one compacted file.

    Attributes:
        max_rows: the most rows, unless a single segment has more.
        max_bytes: the most bytes of rows before compression, as the segments hold them, unless a single segment has
            more.
        before: only segments that were committed before this day (UTC) are compacted.
    """

    max_rows: int
    max_bytes: int
    before: date


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    """A compacted file to be made: its name, and how many segments and rows go into it."""

    name: CompactedName
    segments: int
    rows: int


def choose_plan(
    store: Store, tp: TopicPartition, names: Iterable[SegmentName], limits: FileLimits
) -> CompactionPlan | None:
    """Return the plan for the next file, None if there is nothing to compact.

    A file holds the segments of one day, or of a part of it. The head is never taken, because the chain is extended
    from it.

    Args:
        store: where the segments are.
        tp: the partition.
        names: the segments in the order of the chain, from the first that no file covers to the head.
        limits: the limits of the file.

    Raises:
        ChainError: a segment is damaged.
    """
    taken: list[SegmentName] = []
    day, rows, size_bytes = "", 0, 0
    keys = (layout.segment_key(tp, name) for name in names)
    for link in walk(reader(store), tp, None, keys):  # links are checked when the file is made (`segments.gather`)
        name = link.footer.name
        found, count, nbytes = _facts(link)
        # Workers' clocks differ: a segment whose clock shows the day before still belongs to the file.
        committed = max(found, day)
        full = rows + count > limits.max_rows or size_bytes + nbytes > limits.max_bytes
        if taken and (committed > day or full):
            return _plan(taken, name, day, rows)
        if committed >= limits.before.isoformat():
            return None
        taken, day, rows, size_bytes = [*taken, name], committed, rows + count, size_bytes + nbytes
    return _plan(taken[:-1], taken[-1], day, rows - count) if len(taken) > 1 else None


def _plan(taken: list[SegmentName], until: SegmentName, day: str, rows: int) -> CompactionPlan:
    return CompactionPlan(CompactedName(taken[0], until, day), len(taken), rows)


def _facts(link: Link[SegmentFooter]) -> tuple[str, int, int]:
    """Return the day (UTC) of a segment, the number of its rows, and their bytes before compression."""
    created_at = datetime.fromisoformat(link.footer.created_at)
    metadata = segment.opened(link.data).metadata
    nbytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return created_at.astimezone(UTC).date().isoformat(), metadata.num_rows, nbytes


class _Plan(Document):
    format: int
    file: Text
    segments: Count
    rows: Count


def read_plan(store: Store, tp: TopicPartition, first: SegmentName) -> CompactionPlan | None:
    """Return the plan that was claimed for the file that begins with `first`; None if there is none.

    Raises:
        ChainError: the plan cannot be read.
    """
    key = layout.plan_key(tp, first)
    data = store.get(key)
    if data is None:
        return None
    with suppress(ChainError):
        plan = parse(_Plan, store, key, data)
        name = CompactedName.parse(plan.file)
        if plan.format == FORMAT and name is not None and name.first == first:
            return CompactionPlan(name, plan.segments, plan.rows)
    raise ChainError(
        f"{store}: {key}: expected a plan of format {FORMAT} for the file that begins with {first}, but it holds "
        f"{data[:80]!r}; if no compacted file begins there, remove it, else restore it or upgrade this program"
    )


def claim_plan(store: Store, tp: TopicPartition, plan: CompactionPlan) -> CompactionPlan:
    """Return the plan of the file that begins where `plan` begins: `plan`, unless another was claimed first."""
    document = {"format": FORMAT, "file": str(plan.name), "segments": plan.segments, "rows": plan.rows}
    try:
        store.create(layout.plan_key(tp, plan.name.first), json.dumps(document).encode())
    except AlreadyExists:
        claimed = read_plan(store, tp, plan.name.first)
        if claimed is None:
            key = layout.plan_key(tp, plan.name.first)
            raise StoreUnavailable(
                f"{store}: {key} exists but cannot be read back; {StoreUnavailable.REMEDY}"
            ) from None
        return claimed
    return plan


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
            plan = claim_plan(store, tp, chosen)
            if plan.name.until not in partition.names:  # of another compaction, which listed the partition later
                before, partition = partition.chain.origin, _Partition.of(store, tp)
                if partition.chain.origin > before:  # and retention has removed segments since
                    start = partition.chain.origin
                    continue
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
        return read_plan(store, self.tp, start) or choose_plan(store, self.tp, names, limits)

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
