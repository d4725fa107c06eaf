"""The proof that compacted files hold the same rows as the segments that they replace. It changes nothing.

Each row's identity occurs once and every offset is accounted for, by the same invariant as for a segment. The rows have
the checksum that was taken of the segments' rows, and segments that still exist agree row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adawise.errors import ChainError
from adawise.output.compaction import compact
from adawise.output.compaction.merged import Facts, digest_of, read_facts, read_proven, read_rows
from adawise.output.compaction.segments import ChainIdentity
from adawise.records import Gap, TopicPartition
from adawise.sink import claims, invariant, layout, segment
from adawise.sink.files import compacted_names, is_covered, read_bytes, segment_names
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.walk import reader, walk
from adawise.store.store import Store

KeyedFault = tuple[str, str]
"""A key, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The part of a chain that compacted files replace, and the state that the segment `until` has to continue.

    Attributes:
        until: the first segment that no compacted file covers.
        previous: the key of the segment before `until`, which is never deleted; None if there is none.
        next: the next offset after that segment.
        pending: the offsets that are pending after it.
        deleted: the number of covered segments of which the file or its traces are gone.
        files: the number of compacted files.
        rows: the number of their rows.
        gaps: the gaps that they record.
    """

    until: SegmentName
    previous: str | None
    next: int
    pending: tuple[int, ...]
    deleted: int = 0
    files: int = 0
    rows: int = 0
    gaps: tuple[Gap, ...] = ()


def check(
    store: Store, tp: TopicPartition, chain: ChainIdentity, *, contiguous: bool = False
) -> tuple[Covered, list[KeyedFault]]:
    """Check the compacted files of a partition. The rows of one file at a time are held in memory.

    Segments before `Covered.until` need no further check. Without compacted files, that is the segment at which the
    chain begins. `contiguous` is as in `invariant.breaches`.

    Returns:
        What the compacted files cover, and what is wrong with them.
    """
    covered = Covered(chain.origin, chain.previous, chain.origin.first, chain.pending)
    faults: list[KeyedFault] = []
    names, traced = compacted_names(store, layout.PREDICTIONS, tp), compacted_names(store, layout.TRACES, tp)
    segments = segment_names(store, tp)
    there = {found.stem for found in {*segments} & {*segment_names(store, tp, layout.TRACES)}}
    for name in names:
        key = layout.compacted_key(layout.PREDICTIONS, tp, name)
        try:
            facts, rows = read_proven(layout.PREDICTIONS, read_bytes(store, key), key)
            faults += [(key, what) for what in _of_links(store, key, chain, name, facts, covered)]
            faults += [(key, what) for what in _of_rows(facts, rows, contiguous, chain.divided)]
            faults += _of_plan(store, tp, name)
            if name in traced:
                faults += _of_traces(store, tp, name, rows)
            elif any(replaced.name not in there for replaced in facts.segments):
                faults.append(
                    (key, "expected its traces beside it, without which its segments are not deleted; restore them")
                )
            elif name != names[-1]:  # the newest may still get its traces, unless the compaction died in between
                faults.append((key, "expected its traces beside it; run `adawise compact` to make them"))
            inside = [layout.segment_key(tp, found) for found in segments if is_covered(found, [name])]
            faults += _of_segments(store, tp, chain, inside, facts, rows)
        except ChainError as error:
            # The files after it have no state to agree with.
            return covered, [*faults, (key, str(error))]
        deleted = covered.deleted + sum(replaced.name not in there for replaced in facts.segments)
        total = (covered.files + 1, covered.rows + facts.rows, covered.gaps + facts.gaps)
        covered = Covered(name.until, facts.last, facts.next, facts.pending, deleted, *total)
    extra = sorted(set(traced) - set(names))
    faults += [
        (layout.compacted_key(layout.TRACES, tp, name), "expected predictions of this name, but there are none")
        for name in extra
    ]
    return covered, faults


@dataclass(frozen=True, slots=True)
class Accounted:
    """A compacted file: the offsets [first, next) that it covers, rows (offset, kafka_timestamp), pending and gaps."""

    key: str
    first: int
    next: int
    rows: pa.Table
    pending: tuple[int, ...]
    gaps: tuple[Gap, ...]


def accounted(store: Store, tp: TopicPartition, covered: Covered, *, since: int) -> Iterator[Accounted]:
    """Yield the checked files that reach beyond the offset `since`, in order, with the rows of one in memory."""
    for name in compacted_names(store, layout.PREDICTIONS, tp):
        if name.until > covered.until or name.until.first <= since:
            continue
        key = layout.compacted_key(layout.PREDICTIONS, tp, name)
        data = read_bytes(store, key)
        facts, rows = read_facts(data, key), read_rows(layout.PREDICTIONS, data, key, ["offset", "kafka_timestamp"])
        yield Accounted(key, facts.first, facts.next, rows, facts.pending, facts.gaps)


def compacted_partitions(store: Store) -> set[TopicPartition]:
    """Return the partitions that have compacted files."""
    parsed = map(layout.parse_compacted_key, store.list(f"{layout.COMPACTED}/{layout.PREDICTIONS}"))
    return {found[0] for found in parsed if found is not None}


def foreign_keys(store: Store) -> list[KeyedFault]:
    """Return the keys under `compacted/` that are neither compacted files nor plans."""
    return [
        (key, "expected only compacted files and their plans here, but this is another file; move it away")
        for key in store.list(layout.COMPACTED)
        if layout.parse_compacted_key(key) is None and layout.parse_plan_key(key) is None
    ]


def _of_links(
    store: Store, key: str, chain: ChainIdentity, name: CompactedName, facts: Facts, covered: Covered
) -> Iterator[str]:
    tp = TopicPartition(facts.topic, facts.partition)
    if layout.compacted_key(layout.PREDICTIONS, tp, name) != key or facts.segments[0].name != name.first.stem:
        yield f"expected its footer to name it, but the footer is of {tp} from {facts.segments[0].name} on"
    last = SegmentName.parse(f"{facts.segments[-1].name}.parquet")
    if last is None or last.successor(facts.next) != name.until:
        yield f"expected it to end before {name.until}, but its last segment is {last} and ends at {facts.next}"
    if name.first != covered.until:
        kind = "a gap" if name.first > covered.until else "an overlap"
        yield f"expected compacted files to go on with {covered.until}: there is {kind}"
    if (facts.previous, facts.before, facts.first) != (covered.previous, covered.pending, covered.next):
        yield f"expected the successor of {covered.previous}, but it was made from segments after {facts.previous}"
    if facts.sink != chain.sink:
        yield f"expected a file of sink {chain.sink}, but it was written to {facts.sink}"
    claims.check_identity(
        f"{store}: {key}", topic_id=facts.topic_id, partitions=facts.partitions, identity=chain.identity
    )


def _of_rows(facts: Facts, rows: pa.Table, contiguous: bool, divided: bool) -> Iterator[str]:
    if (counted := sum(replaced.rows for replaced in facts.segments)) != facts.rows:
        yield f"expected the {counted} rows of its segments, but it has {facts.rows}"
    offsets, indices = rows["offset"].to_numpy(), rows["index"].to_numpy()
    order = np.lexsort((indices, offsets))
    yield from invariant.breaches(
        first=facts.first,
        next_offset=facts.next,
        before=facts.before,
        pending=facts.pending,
        gaps=facts.gaps,
        offsets=offsets[order],
        indices=indices[order],
        contiguous=contiguous,
        divided=divided,
    )


def _of_plan(store: Store, tp: TopicPartition, name: CompactedName) -> Iterator[KeyedFault]:
    plan = compact.read_plan(store, tp, name.first)
    if plan is None or plan.name != name:
        yield layout.plan_key(tp, name.first), f"expected the plan of {name}, but it is {plan}; restore it"


def _of_traces(store: Store, tp: TopicPartition, name: CompactedName, rows: pa.Table) -> Iterator[KeyedFault]:
    key = layout.compacted_key(layout.TRACES, tp, name)
    _, batches = read_proven(layout.TRACES, read_bytes(store, key), key)
    accepted = pc.sum(pc.equal(rows["status"], "accepted")).as_py() or 0
    traced = pc.sum(batches["images"]).as_py() or 0
    if accepted != traced:
        yield key, f"expected as many images as accepted rows, but there are {traced} images and {accepted} rows"


def _of_segments(
    store: Store, tp: TopicPartition, chain: ChainIdentity, keys: list[str], facts: Facts, rows: pa.Table
) -> Iterator[KeyedFault]:
    """Yield how segments that still exist differ from the compacted file that replaces them."""
    attempts = {replaced.name: replaced.attempt for replaced in facts.segments}
    ordered = rows.sort_by([("offset", "ascending"), ("index", "ascending")])
    offsets = ordered["offset"].to_numpy()
    last = None
    for link in walk(reader(store, chain.identity), tp, None, keys):  # some may have been deleted
        key, last = link.key, link.footer
        if attempts.get(last.name.stem) != last.attempt:
            yield key, "expected a segment that was compacted, but it was added later; readers skip it: move it away"
            continue
        theirs = segment.read_rows(link.data, key)
        wanted = theirs["offset"].to_numpy()
        low, high = np.searchsorted(offsets, [wanted.min(), wanted.max() + 1]) if len(wanted) else (0, 0)
        ours = ordered.slice(low, high - low).filter(
            pc.is_in(ordered["offset"].slice(low, high - low), theirs["offset"])
        )
        if digest_of(layout.PREDICTIONS, ours) != digest_of(layout.PREDICTIONS, theirs):
            yield key, f"expected its {len(wanted)} rows in the compacted file, but the rows there differ"
    if last is None or (last.next, last.pending) != (facts.next, facts.pending):
        yield facts.last, "expected the last segment of a compacted file, which is never deleted; restore it"
