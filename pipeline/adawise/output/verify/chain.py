"""The check of one chain from its origin: each segment must agree with those before it, its own parts and the topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from adawise.errors import ChainError, Lost, SourceError
from adawise.output import consistency
from adawise.output.compaction import check
from adawise.output.compaction.check import Covered
from adawise.output.compaction.segments import ChainIdentity
from adawise.output.consistency import ReadState, StateAccounts
from adawise.output.read.several import is_divided
from adawise.output.verify.findings import (
    DERIVE,
    KEEP,
    LOST_END,
    REPLAYED,
    RESTORE,
    RESTORE_OR_REPAIR,
    Broken,
    BrokerLog,
    ChainReport,
    Finding,
    damage,
)
from adawise.ports import TopicIdentity
from adawise.records import Gap, TopicPartition, stated_ms, time_text
from adawise.sink import claims, columns, holes, invariant, layout, schemas, segment
from adawise.sink.layout import SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import ChainPlace, Link, reader, walk
from adawise.store.parquet import open_parquet, read_whole
from adawise.store.store import Store

_ANY = 2**31


class ChainCheck:
    """One partition's chain, as far as it was followed; for the arguments see `verify.walk`.

    Its methods raise `Broken` if there is nothing to go on from, and the errors of `BrokerLog`.
    """

    def __init__(
        self,
        store: Store,
        tp: TopicPartition,
        contiguous: bool,
        read_state: ReadState | None,
        log: BrokerLog | None,
        is_replay: bool,
    ) -> None:
        self.report = ChainReport(tp)
        self._store, self._contiguous, self._log, self._is_replay = store, contiguous, log, is_replay
        self._divided = is_divided(store)
        self._states = None if read_state is None else StateAccounts(read_state)
        self._traces = set(store.list(layout.folder(layout.TRACES, tp)))
        self._identity = TopicIdentity("", "", 0)
        self._sink = ""
        self._log_start = self._log_end = 0
        self._is_same_topic = False  # by the ids of both
        self._ends_early = False
        self._unserved: dict[int, int] = {}  # messages of the log that are pending: offset to timestamp
        # What the next segment has to agree with.
        self._place = ChainPlace(SegmentName(0))
        self._pending: tuple[int, ...] = ()
        self._knows_before = True
        self._skipped: SegmentName | None = None

    def begin(self) -> None:
        """Read the claims, what compacted files cover and, if there is a log, the topic's identity."""
        tp, key = self.report.tp, layout.origin_key(self.report.tp)
        try:
            if claims.read_sink_id(self._store) is None or claims.read_origin(self._store, tp) is None:
                lost = layout.SINK if claims.read_sink_id(self._store) is None else key
                raise Broken(damage(lost, "expected this claim, but there is none", RESTORE_OR_REPAIR))
            chain = ChainIdentity.of(self._store, tp)
            covered, problems = check.check(self._store, tp, chain, contiguous=self._contiguous)
        except ChainError as error:
            raise Broken(damage(key, str(error))) from error
        self.report.faults += [damage(*each) for each in problems]
        self._sink, self._place, self._pending = chain.sink, ChainPlace(chain.origin, chain.previous), chain.pending
        self.report.retained, self._knows_before = chain.retained, chain.retained is None
        self.report.next_offset = chain.origin.first
        # A topic may have got more partitions since: their number at the time proves nothing about a segment.
        self._identity = replace(chain.identity, partitions=_ANY)
        if self._log is not None:
            self._compare_identity(self._log, chain.identity, key)
        if covered.deleted:  # segments that are left before that were compared with the compacted files
            self._skipped, self._place = covered.until, ChainPlace(covered.until, covered.previous)
            self._pending, self._knows_before = covered.pending, False
            self.report.compacted, self.report.rows, self.report.gaps = covered.files, covered.rows, [*covered.gaps]
            self.report.next_offset, self.report.pending = covered.next, len(covered.pending)
            if self._log is not None:
                self.report.faults += self._compacted_disagree(self._log, covered)

    def follow(self, keys: Sequence[str]) -> Iterator[None]:
        """Compare each segment with all before it; yield after each."""
        for link in walk(self._read, self.report.tp, self._place, keys):
            self._compare(link, is_newest=link.key == keys[-1])
            yield

    def _read(self, key: str) -> tuple[bytes, SegmentFooter]:
        try:
            return reader(self._store, self._identity)(key)
        except ChainError as error:
            raise Broken(damage(key, str(error))) from error

    def _compare(self, link: Link[SegmentFooter], *, is_newest: bool) -> None:
        key, footer = link.key, link.footer
        if self._skipped is not None and footer.name < self._skipped:
            return
        self.report.faults += [damage(key, *clause) for clause in self._link_disagrees(link)]
        if link.broken == "overlap":
            return
        try:
            rows = segment.read_rows(link.data, key, strictly=True)
            # After a gap it is unknown what was pending, and what states there were.
            problems: list[str] = []
            if link.broken != "gap":
                problems += consistency.inconsistencies(
                    rows, footer, self._pending, contiguous=self._contiguous, divided=self._divided
                )
            if self._states is not None:
                knows = self._knows_before and link.broken != "gap" and footer.states_of is None
                problems += self._states.inconsistencies(footer, rows, knows_before=knows)
        except ChainError as error:
            raise Broken(damage(key, str(error))) from error
        faults = [damage(key, what, KEEP) for what in problems]
        faults += self._traces_disagree(key, footer, may_be_missing=is_newest)
        if self._log is not None:
            faults += [
                damage(key, *clause) for clause in self._log_disagrees(self._log, footer, rows, is_newest=is_newest)
            ]
        found = self.report
        found.faults += faults
        found.segments, found.rows = found.segments + 1, found.rows + rows.num_rows
        found.next_offset, found.pending = footer.next, len(footer.pending)
        found.gaps += footer.gaps if footer.states_of is None else ()  # else they are those of the other root
        self._place, self._pending = link.after, footer.pending
        self._knows_before = not holes.is_bridge(footer)  # the states of lost segments are unknown

    def end(self, committed: int | None) -> None:
        """Compare the head with what is known beside the chain: the group's `committed` offset, the claim of a cut."""
        report, key = self.report, layout.segment_key(self.report.tp, self._place.name)
        plans = self._store.list(layout.compacted_folder("plans", report.tp)) if report.is_empty else []
        if report.is_empty and (report.retained is not None or plans):
            text = f"{plans[0]} was made of segments" if plans else "retention keeps the newest segments"
            report.faults.append(
                damage(key, f"expected the chain to go on here, for {text}, but there is none", RESTORE)
            )
        elif committed is not None and committed > report.next_offset:
            text = f"expected the chain to reach offset {committed}, which its group has committed, but it ends at"
            report.faults.append(damage(key, f"{text} {report.next_offset}", LOST_END))
        if report.is_empty and self._log is not None:
            report.lag = self._unread(self._log, report.next_offset)
            # A log that ends before the chain begins has lost messages, and these may have been served. Without ids it
            # may be that of a topic of the same name elsewhere.
            report.had_nothing = self._is_same_topic and self._log_end == report.next_offset and not self._is_replay

    def _link_disagrees(self, link: Link[SegmentFooter]) -> Iterator[tuple[str, str]]:
        expected, footer = layout.segment_key(self.report.tp, link.place.name), link.footer
        if link.broken == "gap":
            yield f"expected the chain to go on with {expected}: there is a gap", RESTORE_OR_REPAIR
        elif link.broken == "overlap":
            yield f"expected the chain to go on with {expected}: there is an overlap", "move the foreign file away"
        elif link.broken:
            previous = link.place.previous
            yield f"expected the successor of {previous}, but it was written after {footer.previous}", RESTORE
        if footer.sink != self._sink:
            yield f"expected a segment of sink {self._sink}, but it was written to {footer.sink}", RESTORE

    def _traces_disagree(self, key: str, footer: SegmentFooter, *, may_be_missing: bool) -> Iterator[Finding]:
        """Yield how the traces differ; those of the newest segment may be missing, because recovery writes them."""
        where = layout.traces_key(key)
        try:
            data = self._store.get(where) if where in self._traces else None
        except ChainError as error:  # no regular file
            yield damage(where, str(error), DERIVE)
            return
        if data is None:
            if not may_be_missing:
                yield damage(where, "expected the traces of a segment that has a successor, but there are none", DERIVE)
        elif not _holds(data, columns.traces_of(footer, key)):
            yield damage(key, f"expected {where} to hold this segment's traces, but it does not", RESTORE)

    # -- the topic

    def _compare_identity(self, log: BrokerLog, written: TopicIdentity, key: str) -> None:
        tp = self.report.tp
        try:
            identity = log.identity(tp.topic)
        except SourceError as error:
            if not self._is_replay:
                raise
            raise SourceError(f"{self._store}: {error.cause_and_remedy[0]}; {REPLAYED}") from error
        try:
            claims.check_identity(
                f"{self._store}: {tp}",
                topic_id=written.topic_id,
                partitions=written.partitions,
                identity=identity,
            )
        except ChainError as error:
            other = (error.cause_and_remedy[0], REPLAYED) if self._is_replay else (str(error),)
            raise Broken(damage(key, *other)) from error
        self._is_same_topic = bool(written.topic_id and identity.topic_id)
        (self._log_start, self._log_end), self.report.messages = log.bounds(tp), 0

    def _log_disagrees(
        self, log: BrokerLog, footer: SegmentFooter, rows: pa.Table, *, is_newest: bool
    ) -> Iterator[tuple[str, str]]:
        """Yield the messages that the broker still has, up to the head, and that no row, pending offset or gap has."""
        if footer.next > self._log_end:  # a worker may have gone on since the end was read
            self._log_end = log.bounds(self.report.tp)[1]
        if footer.next > self._log_end and not self._ends_early:
            self._ends_early = True
            yield (
                f"expected the broker's log to reach offset {footer.next}, but it ends at {self._log_end}",
                "the broker lost data, or this is another cluster: restore the broker (one that has just restarted "
                "may need half a minute to load its log)",
            )
        yield from self._unaccounted(log, footer.first, footer.next, rows, footer.pending, footer.gaps)
        if is_newest:  # by messages, because offsets would count markers of transactions, which are never served
            self.report.lag = self._unread(log, footer.next)

    def _unread(self, log: BrokerLog, first: int) -> int:
        """Return the number of messages that the broker has from this offset on."""
        first = max(first, self._log_start)
        return len(log.messages(self.report.tp, first, self._log_end)[0]) if first < self._log_end else 0

    def _compacted_disagree(self, log: BrokerLog, covered: Covered) -> Iterator[Finding]:
        """Yield how files that replace deleted segments differ from what the broker still has of them."""
        for file in check.accounted(self._store, self.report.tp, covered, since=self._log_start):
            # If the log ends before them, the first segment that still exists reports it.
            yield from (
                damage(file.key, *fault)
                for fault in self._unaccounted(log, file.first, file.next, file.rows, file.pending, file.gaps)
            )

    def _unaccounted(
        self, log: BrokerLog, first: int, until: int, rows: pa.Table, pending: Sequence[int], gaps: Sequence[Gap]
    ) -> Iterator[tuple[str, str]]:
        first, until = max(first, self._log_start), min(until, self._log_end)
        delivered, timestamps = np.empty(0, np.int64), np.empty(0, np.int64)
        if first < until:
            delivered, timestamps = log.messages(self.report.tp, first, until)
        missing = np.setdiff1d(delivered, np.union1d(rows["offset"].to_numpy(), np.asarray(pending, np.int64)))
        compared = len(delivered)
        if self._divided:  # one shard does not show which of them are of cameras of the others
            compared, missing = compared - len(missing), missing[:0]
        self.report.messages = (self.report.messages or 0) + compared
        for gap in gaps:
            if gap.reason != Lost.DELETED:  # the broker has these messages, and with other settings they can be read
                missing = missing[(missing < gap.first) | (missing >= gap.until)]
        if len(missing):
            offsets = invariant.some(missing)
            yield (
                f"expected a row for each message that the broker has, but there is none for the offsets {offsets}",
                KEEP,
            )
        has = self._unserved | dict(zip(delivered.tolist(), timestamps.tolist(), strict=True))
        self._unserved = {offset: has[offset] for offset in pending if offset in has}
        yield from self._others(rows, has)

    def _others(self, rows: pa.Table, has: Mapping[int, int]) -> Iterator[tuple[str, str]]:
        """Yield rows whose messages the log does not have any more, though it has others at their offsets."""
        dated = rows.select(["offset", "kafka_timestamp"]).drop_null()
        known = zip(dated["offset"].to_pylist(), dated["kafka_timestamp"].cast(pa.int64()).to_pylist(), strict=True)
        stated = ((offset, stated_ms(at)) for offset, at in known)  # earlier versions stored any number
        others = {offset: at for offset, at in stated if has.get(offset, at) != at}
        if others:
            first = min(others)
            yield (
                f"expected the messages of the rows, but the broker has others at {len(others)} of these offsets: "
                f"at {first} one of {time_text(has[first])}, the row is of {time_text(others[first])}",
                "its log was rewritten (an unclean leader election, a restored disk), and the messages there now "
                "were never served: restore the broker's log, or start a new output (sink.root) where they differ "
                "(kafka.origin)",
            )


def _holds(data: bytes, table: pa.Table) -> bool:
    """Return True if the Parquet file `data` is undamaged and holds `table`; nan equals nan.

    An earlier version wrote no later columns, not even for a segment that has them, which it adopted; and it wrote nan
    where audit regret is null.
    """
    try:
        found = read_whole(open_parquet(pa.BufferReader(data), page_checksum_verification=True))
    except (pa.ArrowException, OSError):
        return False
    table = table.select([name for name in table.column_names if name not in {*schemas.LATER} - {*found.column_names}])
    try:
        found.validate(full=True)
    except pa.ArrowException:
        return False
    found = schemas.regret_or_null(found)
    return found.schema.equals(table.schema) and all(map(_same, found.columns, table.columns))


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    # Numbers as Python has them, for times may be outside what it can express.
    if one.equals(other):
        return True
    try:
        return repr(one.to_pylist()) == repr(other.to_pylist())
    except (OverflowError, ValueError):  # a time that Python cannot express
        return False
