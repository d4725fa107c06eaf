"""Removal of the old files of a partition: the new beginning is claimed, then what comes before it is removed.

A unit is what compaction makes, or would make, one file of. Cuts are where compacted files begin or will begin, because
a cut uses the same plans. So a compaction that runs at the same time makes no file on both sides of a cut. The newest
two segments stay: a worker that goes on from the head may have to read the one before.

From the moment in which the claim is created, readers ignore what comes before it, whether it still exists or not. So a
pass may die anywhere, and the next one removes what is left. No file is removed that the store has had for less than a
day by its own clock: otherwise a worker whose clock is years behind would lose its rows, and the chain relies on it.
Nor is any file removed by a claim that cannot be read, or that does not fit the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from adawise.errors import ChainError
from adawise.output.compaction import compact
from adawise.output.compaction.compact import CompactionPlan, FileLimits
from adawise.output.compaction.delete import now_of
from adawise.output.compaction.merged import read_facts
from adawise.records import TopicPartition
from adawise.sink import claims, layout
from adawise.sink.claims import Beginning, beginning_name
from adawise.sink.files import begun_partitions, compacted_names, read_bytes, segment_names
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.walk import chains, footer_of
from adawise.store.store import Failpoint, Store

FAILPOINTS = ("retain.planned", "retain.begun", "retain.removed", "retain.forgotten")
"""The points at which it can die: after a plan, the new beginning, each removed file, and each removed older beginning.
"""

LEAST = timedelta(days=1)
"""The least age of a file that is removed."""

_LEFT = 2  # segments that stay: going on from the head may need the one before
_MAX_ROWS, _MAX_BYTES = 262_144, 1 << 30  # limits of a plan that no compaction has made, as in `adawise compact`


@dataclass(frozen=True, slots=True)
class Removal:
    """Files of one partition that are old enough: everything before `name`, with which the chain then begins."""

    tp: TopicPartition
    name: SegmentName
    last: str  # the segment before `name`
    rows: int
    files: int
    size_bytes: int
    since_day: str
    until_day: str
    now: datetime  # by the store's clock, when the files were listed
    plans: tuple[CompactionPlan, ...] = ()  # claimed before the removal


@dataclass(slots=True)
class RetentionPass:
    """The outcome over all partitions: what was committed before a day (UTC), and chains that are damaged."""

    before: date
    found: list[Removal] = field(default_factory=list)
    damaged: list[ChainError] = field(default_factory=list)


def retain(store: Store, keep_s: float, *, removes: bool, advance: Callable[[int], object]) -> RetentionPass:
    """Find what of every partition is old enough, and remove it if it `removes`. `advance` is called with the files.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    now = now_of(store)
    done = RetentionPass((now - timedelta(seconds=keep_s)).astimezone(UTC).date())
    for tp in sorted(chains(store).keys() | begun_partitions(store)):
        try:
            what = removal(store, tp, before=done.before, now=now)
            if what is not None:
                done.found.append(what)
            if not removes:
                advance(0 if what is None else what.files)
                continue
            for _ in sweep(store, tp, now=now) if what is None else remove(store, what):
                advance(1)
        except ChainError as error:
            done.damaged.append(error)
    return done


def removal(
    store: Store,
    tp: TopicPartition,
    *,
    before: date,
    now: datetime,
    most_rows: int | None = None,
    ends: Callable[[], bool] = lambda: False,
) -> Removal | None:
    """Return what of a partition was committed before the day `before` (UTC); None if nothing was. Nothing is changed.

    Args:
        store: where the files are.
        tp: the partition.
        before: the day (UTC) before which files were committed.
        now: the time by the store's clock.
        most_rows: stop at the unit with which so many rows are reached; None for all.
        ends: asked before each unit; True to stop there.

    Raises:
        ChainError: the chain is not whole.
        StoreUnavailable: the store does not answer.
    """
    covers = {name.first: name for name in compacted_names(store, layout.PREDICTIONS, tp)}
    names = segment_names(store, tp)
    if len(names) < 3:
        return None
    start = _begins(store, tp, names[0])
    units: list[_Unit] = []
    rows = 0
    while not ends() and (most_rows is None or rows < most_rows):
        found = _next(store, tp, start, covers, names, before)
        if found is None or found.name.until > names[-2] or _is_new(store, tp, found, names, now):
            break
        units.append(found)
        rows += found.rows
        start = found.name.until
    if not units:
        return None
    plans = layout.compacted_folder("plans", tp)
    sizes = {key: size for key, size in _sizes(store, tp, start).items() if not key.startswith(plans)}
    return Removal(
        tp,
        start,
        layout.segment_key(tp, max(name for name in names if name < start)),
        sum(found.rows for found in units),
        len(sizes),
        sum(sizes.values()),
        units[0].name.day,
        units[-1].name.day,
        now,
        tuple(CompactionPlan(found.name, found.segments, found.rows) for found in units if found.is_planned),
    )


def _begins(store: Store, tp: TopicPartition, first: SegmentName) -> SegmentName:
    """Return the segment with which the chain begins."""
    origin = claims.read_origin(store, tp)
    return max(first if origin is None else SegmentName(origin.offset), beginning_name(store, tp))


@dataclass(frozen=True, slots=True)
class _Unit:
    """The segments of one compacted file, made or planned."""

    name: CompactedName
    segments: int
    rows: int
    is_planned: bool


def _next(
    store: Store,
    tp: TopicPartition,
    start: SegmentName,
    covers: dict[SegmentName, CompactedName],
    names: Sequence[SegmentName],
    before: date,
) -> _Unit | None:
    """Return the unit that begins with `start`, if all of it was committed before the day."""
    if (cover := covers.get(start)) is not None:
        if cover.day >= before.isoformat():
            return None
        key = layout.compacted_key(layout.PREDICTIONS, tp, cover)
        facts = read_facts(read_bytes(store, key), key)
        return _Unit(cover, len(facts.segments), facts.rows, is_planned=False)
    left = [name for name in names if name >= start]
    if not left or left[0] != start:
        raise ChainError(
            f"{store}: {layout.segment_key(tp, start)}: expected the chain to go on here; nothing is removed from "
            "a chain with a hole: see `adawise verify`"
        )
    plan = compact.read_plan(store, tp, start) or compact.choose_plan(
        store, tp, left[:-1], FileLimits(max_rows=_MAX_ROWS, max_bytes=_MAX_BYTES, before=before)
    )
    if plan is None or plan.name.day >= before.isoformat():
        return None
    return _Unit(plan.name, plan.segments, plan.rows, is_planned=True)


def _is_new(store: Store, tp: TopicPartition, found: _Unit, names: Sequence[SegmentName], now: datetime) -> bool:
    """Return True if the store has had the last segment of the unit for less than a day."""
    last = max((name for name in names if name < found.name.until), default=found.name.first)
    written = store.modified(layout.segment_key(tp, last))
    return written is None or now - written < LEAST


def remove(store: Store, what: Removal, *, failpoint: Failpoint = lambda _: None) -> Iterator[str]:
    """Remove the files; yield each key when it is gone. The call can be repeated after a crash.

    Raises:
        ChainError: the chain is not whole, or another cut or compaction was quicker.
        StoreUnavailable: the store does not answer.
    """
    for plan in what.plans:
        claimed = compact.claim_plan(store, what.tp, plan)
        if claimed.name != plan.name:
            raise ChainError(f"{what.tp}: a compaction has planned {claimed.name} meanwhile; start again")
        failpoint("retain.planned")
    if beginning_name(store, what.tp) < what.name:
        claims.claim(store, layout.retained_key(what.tp, what.name), _beginning(store, what).model_dump())
        failpoint("retain.begun")
    yield from sweep(store, what.tp, now=what.now, failpoint=failpoint)


def _beginning(store: Store, what: Removal) -> Beginning:
    footer = footer_of(store, what.last)
    known = layout.parse_key(what.last)
    if known is None or known[1].successor(footer.next) != what.name:
        raise ChainError(f"{store}: {what.last}: expected the segment before {what.name.stem}, but it ends elsewhere")
    before = claims.read_beginning(store, what.tp)
    was = before[1] if before is not None else None
    return Beginning(
        layout=claims.LAYOUT,
        previous=what.last,
        pending=footer.pending,
        lineage="" if footer.lineage is None else footer.lineage.stored().decode(),
        rows=what.rows + (0 if was is None else was.rows),
        files=what.files + (0 if was is None else was.files),
        size_bytes=what.size_bytes + (0 if was is None else was.size_bytes),
        until_day=what.until_day,
        removed_at=what.now.isoformat(),
    )


def sweep(store: Store, tp: TopicPartition, *, now: datetime, failpoint: Failpoint = lambda _: None) -> Iterator[str]:
    """Remove what comes before the beginning: files of this pass, of one that died, of a worker suspended for days.

    A file that the store has had for less than a day by its clock, where it is `now`, stays for a later pass.

    Raises:
        ChainError: the claim that names the beginning is damaged or does not fit the chain; nothing is removed.
    """
    begins = _checked_beginning(store, tp)
    if begins is None:
        return
    for key in _sizes(store, tp, begins):
        written = store.modified(key)
        if written is None or now - written < LEAST:
            continue
        store.delete(key)
        failpoint("retain.removed")
        yield key
    for key in store.list(layout.retained_folder(tp)):
        named = layout.parse_retained_key(key)
        if named is not None and named[1] < begins:
            store.delete(key)
            failpoint("retain.forgotten")


def _checked_beginning(store: Store, tp: TopicPartition) -> SegmentName | None:
    """Return the segment that the chain begins with, by a claim that fits the files; None if retention never cut it."""
    cut = claims.read_beginning(store, tp)
    if cut is None:
        return None
    begins, claim = cut
    key = layout.retained_key(tp, begins)
    names = segment_names(store, tp)
    cover = next((each for each in compacted_names(store, layout.PREDICTIONS, tp) if each.first == begins), None)
    if begins not in names and cover is None:
        raise ChainError(
            f"{store}: {key}: expected a file that begins with {begins.stem}, where the chain begins by this claim, "
            "but there is none; nothing is removed: see `adawise verify`"
        )
    if len(names) < _LEFT:
        raise ChainError(
            f"{store}: {key}: expected {_LEFT} segments from {begins.stem} on, since retention keeps the newest, "
            f"but there are {len(names)}; nothing is removed: see `adawise verify`"
        )
    first = layout.segment_key(tp, begins)
    if begins in names:
        before = footer_of(store, first).previous
    else:
        assert cover is not None
        first = layout.compacted_key(layout.PREDICTIONS, tp, cover)
        before = read_facts(read_bytes(store, first), first).previous
    if before != claim.previous:
        raise ChainError(
            f"{store}: {key}: expected the segment before {first}, which is {before}, but it names "
            f"{claim.previous}; nothing is removed: see `adawise verify`"
        )
    return begins


def _sizes(store: Store, tp: TopicPartition, begins: SegmentName) -> dict[str, int]:
    """Return the bytes of every file of the partition before its beginning, traces before their predictions."""
    found: dict[str, int] = {}
    for dataset in (layout.TRACES, layout.PREDICTIONS):
        for key, size in store.sizes(layout.folder(dataset, tp)).items():
            named = layout.parse_key(key)
            if named is not None and named[1] < begins:
                found[key] = size
    for dataset in (layout.TRACES, layout.PREDICTIONS):
        for key, size in store.sizes(layout.compacted_folder(dataset, tp)).items():
            made = layout.parse_compacted_key(key)
            if made is not None and made[1].first < begins:
                found[key] = size
    folder = layout.compacted_folder("plans", tp)
    for key, size in store.sizes(folder).items():
        first = SegmentName.parse(f"{key.removeprefix(folder).removesuffix('.json')}.parquet")
        if first is not None and first < begins:
            found[key] = size
    return found
