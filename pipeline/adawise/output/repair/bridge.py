"""Segments without rows in the place of lost ones, so that the links of a chain hold again (`repair`).

Two of the lost names are known: the first follows from the segment before, and the segment after names the last. The
offsets that were pending at the end of the lost segments are those that the segment after accounts for; all other
offsets are a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

import pyarrow.compute as pc

from adawise.errors import ChainError, Lost
from adawise.output.verify.findings import joined
from adawise.records import Gap, TopicPartition
from adawise.sink import holes, layout, schemas, segment
from adawise.sink.files import read_bytes
from adawise.sink.layout import SegmentName
from adawise.sink.lineage import Lineage
from adawise.sink.segment import SegmentFooter
from adawise.store.store import Store


def bridge(
    store: Store, before: SegmentFooter | None, after: SegmentFooter, key: str, due: SegmentName
) -> list[SegmentFooter]:
    """Return footers for the names between `before` and `after`, the first of which is `due`.

    Raises:
        ChainError: the segment `after`, found at `key`, is foreign to the chain.
    """
    previous = layout.parse_key(after.previous or "")
    names = _names(due, previous[1]) if previous is not None and previous[1] >= due else []
    if not names or names[-1].successor(after.first) != after.name:
        raise ChainError(
            f"{key}: expected a segment that follows {due.stem} or later, but it was written after "
            f"{after.previous}: it is foreign; move it away"
        )
    known = _accounted(store, after, key)
    pending = before.pending if before is not None else ()
    if foreign := sorted({o for o in known if o < due.first} - {*pending}):
        raise ChainError(f"{key}: it has the offsets {foreign[:5]}, which were neither pending nor lost: it is foreign")
    lineage = holes.after(before) if before is not None else Lineage(due)
    made: list[SegmentFooter] = []
    for name, until in zip(names, [*(each.first for each in names[1:]), after.first], strict=True):
        gone = joined([*_without(pending, known), *_between(name.first, until, known)])
        open_ = {*pending}
        pending = tuple(o for o in known if o in open_ or name.first <= o < until)
        made.append(
            replace(
                after,
                first=name.first,
                sequence=name.sequence,
                next=until,
                previous=key_of(made[-1]) if made else (None if before is None else key_of(before)),
                attempt=uuid4().hex,
                writer=holes.BRIDGE,
                states_of=None,
                pending=pending,
                gaps=tuple(gone),
                states={} if before is None else before.states,
                alerts=b"" if before is None else before.alerts,
                trace=schemas.BATCH_TRACE.empty_table(),
                lineage=lineage,
            )
        )
        lineage = lineage.extended(name)
    return made


def _names(first: SegmentName, last: SegmentName) -> list[SegmentName]:
    """Return names that link one name to the other, in as few segments as possible."""
    start = first.sequence if first.first == last.first else 0
    way = [SegmentName(last.first, sequence) for sequence in range(start, last.sequence + 1)]
    return way if first.first == last.first else [first, *way]


def _accounted(store: Store, footer: SegmentFooter, key: str) -> list[int]:
    """Return the offsets before the segment that it accounts for, ascending: they were pending."""
    offsets = segment.read_rows(read_bytes(store, key), key, ["offset"])["offset"]
    return sorted(o for o in {*pc.unique(offsets).to_pylist(), *footer.pending} if o < footer.first)


def _without(pending: Sequence[int], known: Sequence[int]) -> Iterator[Gap]:
    for offset in sorted({*pending} - {*known}):
        yield Gap(offset, offset + 1, Lost.SEGMENT_LOST)


def _between(first: int, until: int, known: Sequence[int]) -> Iterator[Gap]:
    """Yield the gaps of [first, until): the offsets that are not in `known`, which ascends."""
    for offset in (*(o for o in known if first <= o < until), until):
        if first < offset:
            yield Gap(first, offset, Lost.SEGMENT_LOST)
        first = offset + 1


def key_of(footer: SegmentFooter) -> str:
    """Return the key of the segment with this footer."""
    return layout.segment_key(TopicPartition(footer.topic, footer.partition), footer.name)
