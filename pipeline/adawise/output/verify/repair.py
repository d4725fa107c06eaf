"""Repair of a root whose files were lost or moved: a plan of steps, as sentences, which run if the operator agrees.

Nothing is overwritten, and nothing is deleted without a copy under `_set_aside/`. A worker may run meanwhile: the end
of a chain, which it extends, is never touched.

- A claim that was removed (`_sink.json`, an origin) is restored from the segments, which all carry it.
- Lost segments are bridged: those whose names are known, the first (it follows from the segment before) and the last
  (the segment after names it), are created without rows. So links hold again, and no suspended worker can create the
  first of these names. Offsets that the segment after does not account for become a gap, which records the reason.
- Traces without a segment are set aside, and missing traces are derived again.

The lost results are gone: `RepairStep.again` explains how to compute them again, into another folder.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from uuid import uuid4

import pyarrow.compute as pc

from adawise.errors import ChainError, Lost
from adawise.output.verify.findings import joined
from adawise.records import Gap, TopicPartition
from adawise.sink import claims, columns, holes, layout, schemas, segment
from adawise.sink.claims import Beginning, beginnings
from adawise.sink.files import begun_partitions, compacted_names, is_removed, read_bytes
from adawise.sink.layout import Lineage, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import ChainPlace, Link, chains, reader, walk
from adawise.store.answers import AlreadyExists
from adawise.store.store import Store

SET_ASIDE = "_set_aside"


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One step of the repair, in a sentence, and how to compute again what was lost ("" if nothing was)."""

    what: str
    do: Callable[[], object]
    again: str = ""


@dataclass(slots=True)
class RepairPlan:
    """The steps in their order, and the damage that no step can repair, with what to do instead.

    `begun` are the chains without a segment, with their origins: the root does not say whether they ever had one.
    """

    steps: list[RepairStep] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    begun: dict[TopicPartition, int] = field(default_factory=dict)


def plan(store: Store) -> RepairPlan:
    """Return what is to be done under a root, without a change. Every footer is read once. Raises StoreUnavailable."""
    made = RepairPlan()
    traced = store.list(layout.TRACES)  # listed before the segments, because a worker writes traces after their segment
    found = chains(store)
    sinks: set[str] = set()
    for tp in sorted(found.keys() | begun_partitions(store)):
        try:
            if keys := found.get(tp, []):
                chain = _Chain(store, tp, keys, {*traced}, made)
                chain.follow()
                sinks |= chain.sinks
            else:
                _without_segments(store, tp, made)
        except ChainError as error:  # of its claims
            made.beyond.append(str(error))
    known = {layout.traces_key(key) for keys in found.values() for key in keys}
    begins = beginnings(store) if traced else {}
    stale = [key for key in traced if key not in known and not is_removed(key, begins)]
    made.steps[:0] = [  # before a bridge takes the name of a segment whose traces still exist
        *_sink(store, sinks, made),
        *(
            RepairStep(f"move {key}, whose segment is missing, to {SET_ASIDE}/{key}", partial(_set_aside, store, key))
            for key in stale
        ),
    ]
    return made


def _without_segments(store: Store, tp: TopicPartition, made: RepairPlan) -> None:
    """Note a chain of which there is no segment: it lost them, or never had one. Raises ChainError by its claims."""
    cut, origin = claims.read_beginning(store, tp), claims.read_origin(store, tp)
    if compacted_names(store, layout.PREDICTIONS, tp):
        return
    if cut is not None or store.list(layout.compacted_folder("plans", tp)):
        made.beyond.append(f"{tp}: every segment is gone: restore them from a backup, see `adawise verify`")
    elif origin is not None:
        made.begun[tp] = origin.offset


def _sink(store: Store, sinks: set[str], made: RepairPlan) -> Iterator[RepairStep]:
    if not sinks or claims.read_sink_id(store) is not None:
        return
    if len(sinks) > 1:
        made.beyond.append(f"{layout.SINK} is gone, and the segments name {len(sinks)} roots: restore it from a backup")
        return
    document = {"layout": claims.LAYOUT, "sink": min(sinks), "created_at": datetime.now(UTC).isoformat()}
    yield _claim(store, layout.SINK, document, f"with the id {min(sinks)}, which every segment names")


def _claim(store: Store, key: str, document: Mapping[str, object], place: str) -> RepairStep:
    return RepairStep(f"create {key} again, {place}", partial(claims.claim, store, key, document))


class _Chain:
    """One partition's segments that no compacted file covers, and the last one before them, in order."""

    def __init__(
        self, store: Store, tp: TopicPartition, keys: Sequence[str], traced: set[str], made: RepairPlan
    ) -> None:
        self._store, self._tp, self._made, self._traced = store, tp, made, traced
        covers = compacted_names(store, layout.PREDICTIONS, tp)
        # Traces are written after their predictions, so predictions that are missing beside them were lost.
        self._orphans = [name for name in compacted_names(store, layout.TRACES, tp) if name not in covers]
        self._cut = claims.read_beginning(store, tp)
        self._origin = claims.read_origin(store, tp)
        begins = None if self._origin is None else SegmentName(self._origin.offset)
        begins = begins if self._cut is None else self._cut[0]
        for name in self._orphans:
            key = layout.compacted_key(layout.PREDICTIONS, tp, name)
            made.beyond.append(f"{key} is gone, but its traces are there: restore it from a backup")
        if not self._orphans and any(one.until != other.first for one, other in pairwise(covers)):
            made.beyond.append(f"{tp}: a compacted file between others is gone: restore it, see `adawise verify`")
        elif covers and not self._orphans and begins is not None and covers[0].first != begins:
            made.beyond.append(f"{tp}: the compacted files before {covers[0]} are gone: restore them from a backup")
        self._until = covers[-1].until if covers else None
        first = self._until or begins
        self._first = None if first is None else ChainPlace(first)
        self._keys = keys
        self.sinks: set[str] = set()

    def follow(self) -> None:
        """Add the steps for what is missing between the segments and beside them."""
        try:
            self._follow()
        except ChainError as error:
            self._made.beyond.append(str(error))

    def _follow(self) -> None:
        read, before = reader(self._store), None
        first = 0 if self._until is None else bisect_left(self._keys, layout.segment_key(self._tp, self._until))
        for link in walk(read, self._tp, None, self._keys[:first]):
            self.sinks.add(link.footer.sink)
            before = link.footer  # the last of these is the one that is kept
        for link in walk(read, self._tp, self._first, self._keys[first:]):
            key, footer = link.key, link.footer
            self.sinks.add(footer.sink)
            if key == self._keys[first] and not self._begun(before, footer, key):
                return
            if link.broken in ("gap", "overlap") and not self._joined(before, link):
                return
            if key != self._keys[-1] and layout.traces_key(key) not in self._traced:
                what = f"write the traces of {key} again, which are gone"
                self._made.steps.append(RepairStep(what, partial(columns.write_traces, self._store, footer, key)))
            before = footer

    def _begun(self, before: SegmentFooter | None, first: SegmentFooter, key: str) -> bool:
        """Return True if the first name of the chain, or of what follows the compacted files, is known.

        If the claim of the origin is gone, it is restored from the first segment.
        """
        where = layout.origin_key(self._tp)
        if self._until is not None:
            kept = before is not None and before.successor == self._until
            if not kept:
                self._made.beyond.append(f"{self._tp}: the last segment before {self._until.stem} is gone: restore it")
            return kept
        if self._origin is not None:
            return True
        if first.previous is not None:
            self._made.beyond.append(f"{where} is gone, and so is the segment that {key} follows: restore one of them")
            return False
        origin = claims.ChainOrigin(first.first, first.cluster_id, first.topic_id, first.partitions)
        place = f"at offset {first.first}, where the first segment begins"
        self._made.steps.append(_claim(self._store, where, {"layout": claims.LAYOUT, **asdict(origin)}, place))
        return True

    def _joined(self, before: SegmentFooter | None, link: Link[SegmentFooter]) -> bool:
        """Return True if the segment, which does not follow, will do so with the bridge that is added to the steps."""
        key, due = link.key, link.place.name
        if link.broken == "overlap":
            self._made.beyond.append(
                f"{key} overlaps the segments before {due.stem}: move the foreign one of them away"
            )
            return False
        if self._orphans:
            return False  # the missing rows are in a file that was reported, and a bridge would take its place
        known = before
        if before is None and self._cut is not None:
            known = _removed(self._cut[0], self._cut[1], link.footer)
        bridged = bridge(self._store, known, link.footer, key, due)
        last = bridged[-1]
        lost = [gap for each in bridged for gap in each.gaps]
        offsets = ", ".join(f"{gap.first} to {gap.until - 1}" for gap in lost[:3]) + (" and more" if lost[3:] else "")
        what = (
            f"create {' and '.join(each.key for each in bridged)} without rows, so that {key} follows again: of "
            f"{sum(gap.until - gap.first for gap in lost)} offsets ({offsets or 'none'}) the rows are lost"
        )
        self._made.steps.append(RepairStep(what, lambda: self._create(bridged), again=self._again(before, last)))
        return True

    def _create(self, footers: Sequence[SegmentFooter]) -> None:
        for footer in footers:
            data = segment.encode(schemas.as_stored(schemas.PREDICTIONS.empty_table()), footer)
            try:
                self._store.create(footer.key, data)
            except AlreadyExists:
                if self._store.get(footer.key) != data:  # if equal, an earlier try made it, and the answer was lost
                    raise ChainError(
                        f"{self._store}: {footer.key} is there again; start `adawise repair` again"
                    ) from None
            columns.write_traces(self._store, footer, footer.key)

    def _again(self, before: SegmentFooter | None, last: SegmentFooter) -> str:
        since = "" if before is None else f" --state-of {self._store}/{before.key}"
        return (
            f"`adawise replay --topic {self._tp.topic}{since} -o FOLDER` computes partition {self._tp.partition} "
            f"again, as it was, from there to its end (the loss ends at offset {last.next - 1}), if the broker "
            "still has it (or a recording, named instead of --topic)"
        )


def _removed(name: SegmentName, cut: Beginning, footer: SegmentFooter) -> SegmentFooter:
    """Return what is known of the last segment that retention removed, before `name`, with all else as in `footer`."""
    named = layout.parse_key(cut.previous)
    if named is None:
        raise ChainError(f"{layout.RETAINED}: {name.stem}: expected the name of a segment, but found {cut.previous!r}")
    return replace(
        footer,
        first=named[1].first,
        sequence=named[1].sequence,
        next=name.first,
        previous=None,
        pending=cut.pending,
        gaps=(),
        states={},
        stream_table=b"",
        lineage=Lineage.of(cut.lineage.encode()) if cut.lineage else None,
    )


def _set_aside(store: Store, key: str) -> None:
    data = store.get(key)
    if data is None:
        return
    try:
        store.create(f"{SET_ASIDE}/{key}", data)
    except AlreadyExists:  # by an earlier try, or another file of that name: both are kept
        if store.get(f"{SET_ASIDE}/{key}") != data:
            store.create(f"{SET_ASIDE}/{uuid4().hex}/{key}", data)
    store.delete(key)


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
                previous=made[-1].key if made else (None if before is None else before.key),
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
