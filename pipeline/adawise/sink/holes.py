"""Segments that are missing from a chain, found by what its head counts (`lineage`) and a listing of names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from adawise.errors import ChainError
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.files import compacted_names
from adawise.sink.layout import Lineage, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import chains, footer_of
from adawise.store.store import Store

BRIDGE = "adawise repair"
"""The writer of a segment that replaces lost ones."""


def after(footer: SegmentFooter) -> Lineage:
    """Return the lineage up to and with the segment of this footer; of it alone, if the footer has none."""
    name = footer.name
    return (footer.lineage or Lineage(name)).extended(name)


def holes(store: Store, tp: TopicPartition, names: Sequence[SegmentName], head: Lineage) -> list[str]:
    """Return what is missing from the listing of a partition's segments.

    Segments are opened only where one is missing, as many as it takes to find the place. Holes that `adawise repair`
    has bridged are not reported again.

    Args:
        store: where the segments are.
        tp: the partition.
        names: the listed segments, in order; the last is the head.
        head: the lineage up to and with the head.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    try:
        return list(_holes(store, tp, names, head))
    except ChainError as error:
        return [str(error)]


def _holes(store: Store, tp: TopicPartition, names: Sequence[SegmentName], head: Lineage) -> Iterator[str]:
    def footer_at(name: SegmentName) -> SegmentFooter:
        return footer_of(store, layout.segment_key(tp, name))

    cut = claims.read_beginning(store, tp)
    begins = SegmentName(0) if cut is None else cut[0]
    names = [name for name in names if name >= begins]
    covers = compacted_names(store, layout.PREDICTIONS, tp)
    base = Lineage(head.since)
    if cut is not None and (counted_there := cut[1].after_previous()) is not None:
        base = counted_there if counted_there.since == head.since else base
    if covers:
        origin = claims.read_origin(store, tp)
        due = begins if cut is not None else covers[0].first if origin is None else SegmentName(origin.offset)
        for cover in covers:
            if cover.first != due:
                yield f"{layout.compacted_folder(layout.PREDICTIONS, tp)}: no file begins with {due.stem}"
            due = cover.until
        kept = [name for name in names if name < due]
        if not kept:
            yield f"the last segment before {due}, which is never deleted, is gone"
            return
        if (lineage := footer_at(kept[-1]).lineage) is not None and lineage.since == head.since:
            base = lineage
        start = max(kept[-1], head.since)
    else:
        start = max(head.since, begins)
    left = [name for name in names if name >= start]
    while left:
        counted = [base]
        for name in left:
            counted.append(counted[-1].extended(name))
        if counted[-1] == head:
            return
        # Footers agree with the listing up to the first hole, and differ from there on.
        at = bisect_left(range(len(left)), True, key=lambda i: (footer_at(left[i]).lineage or base) != counted[i])
        if at == len(left):  # the head was replaced a moment ago, and its lineage is another
            return
        base = footer_at(left[at]).lineage or counted[at]
        before = footer_at(left[at - 1]) if at else None
        if before is None or not is_bridge(before):
            first = "the beginning" if before is None else left[at - 1].stem
            missing = base.count - counted[at].count
            gone = "1 segment is" if missing == 1 else f"{missing} segments are"
            kind = f"{gone} missing" if missing > 0 else "segments that do not belong to the chain are"
            yield f"between {first} and {left[at].stem} {kind}"
        left = left[at:]
        if base == counted[at]:
            return


def of_root(store: Store) -> Iterator[tuple[TopicPartition, str]]:
    """Yield the holes of all chains under a root, by what their newest segments record. Raises StoreUnavailable."""
    for tp, keys in chains(store).items():
        names = [named[1] for key in keys if (named := layout.parse_key(key))]
        try:
            head = after(footer_of(store, keys[-1]))
        except ChainError as error:
            yield tp, str(error)
        else:
            yield from ((tp, hole) for hole in holes(store, tp, names, head) if head.count > 1)


def is_bridge(footer: SegmentFooter) -> bool:
    """Return True if `adawise repair` wrote the segment in the place of lost ones."""
    return footer.writer == BRIDGE
