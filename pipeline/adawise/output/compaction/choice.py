"""The choice of segments for each compacted file, made once for all compactions by create-if-absent.

The cut depends on the limits and on the day, and two compactions may see different ones. So the first claim of a plan
holds, as with the origin of a chain, and another compaction, or the next one after a crash, makes the file that was
planned. The plan of a file is named after the segment that it begins with, which follows from the file before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from adawise.errors import ChainError, StoreUnavailable
from adawise.records import TopicPartition
from adawise.sink import layout, segment
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import Link, reader, walk
from adawise.store.documents import Count, Document, Text, parse
from adawise.store.store import AlreadyExists, Store

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


def choose(store: Store, tp: TopicPartition, names: Iterable[SegmentName], limits: FileLimits) -> CompactionPlan | None:
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


def read(store: Store, tp: TopicPartition, first: SegmentName) -> CompactionPlan | None:
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


def claim(store: Store, tp: TopicPartition, plan: CompactionPlan) -> CompactionPlan:
    """Return the plan of the file that begins where `plan` begins: `plan`, unless another was claimed first."""
    document = {"format": FORMAT, "file": str(plan.name), "segments": plan.segments, "rows": plan.rows}
    try:
        store.create(layout.plan_key(tp, plan.name.first), json.dumps(document).encode())
    except AlreadyExists:
        claimed = read(store, tp, plan.name.first)
        if claimed is None:
            key = layout.plan_key(tp, plan.name.first)
            raise StoreUnavailable(f"{store}: {key} exists but cannot be read back; try again") from None
        return claimed
    return plan
