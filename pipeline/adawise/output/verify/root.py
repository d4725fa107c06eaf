"""The proof that a sink is whole: chains, rows, offsets, states, traces, and the topic beside them. It changes nothing.

A chain is walked once, a segment at a time, and each segment is compared with the one before it. That there is no gap
and no overlap, and that every offset is in rows once, follows from each step (`chain`). The walk holds one segment, the
states of one partition's streams, and the names of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from adawise.errors import ChainError, FatalError, SettingsError
from adawise.output.compaction.check import compacted_partitions, foreign_keys
from adawise.output.consistency import ReadState
from adawise.output.read.several import check_replay_claim, is_divided, replayed_parts, shard_of
from adawise.output.verify.chain import ChainCheck
from adawise.output.verify.findings import (
    STALE,
    Broken,
    BrokerLog,
    ChainReport,
    Finding,
    RootReport,
    UnreadPartition,
    damage,
)
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.claims import beginnings, read_origin, read_sink_id
from adawise.sink.files import begun_partitions, is_removed, segment_names
from adawise.sink.owner import is_replay, read_owner
from adawise.sink.served_by import read_precision
from adawise.sink.walk import chains
from adawise.store.store import Store

_STEP = 1_000  # offsets that are searched for a message at a time


def verify(store: Store, *, contiguous: bool = False, read_state: ReadState | None = None) -> list[Finding]:
    """Return all faults of all chains and of the files beside them; [] if none. See `walk` for the arguments."""
    return verify_root(store, contiguous=contiguous, read_state=read_state).faults


def verify_root(
    store: Store,
    *,
    contiguous: bool = False,
    read_state: ReadState | None = None,
    log: BrokerLog | None = None,
    expects_all: bool = False,
    on_segment: Callable[[], object] = lambda: None,
    note: Callable[[str], object] = lambda _: None,
) -> RootReport:
    """Return the report on all chains of a root and the files beside them, and on its topic.

    Args:
        store: the store of the root.
        contiguous: see `walk`.
        read_state: see `walk`.
        log: the topic to compare with, if any.
        expects_all: the workers begin at the log's start, so that they leave out no partition that holds messages.
        on_segment: called after each segment.
        note: called after each chain if there are faults, with their number so far in words.

    Raises:
        SourceError, BrokerUnavailable: by `log`.
        StoreUnavailable: the store does not answer.
    """
    report = RootReport(faults=damaged_claims(store))
    owner = None if report.has_damaged_owner else read_owner(store)
    with suppress(SettingsError):  # a folder is in its place, or this user may not read it
        report.is_replay = is_replay(store, owner)
    report.is_shard = is_divided(store)
    report.shard = None if (shard := shard_of(store)) is None else shard.number
    if log is not None and report.has_damaged_owner and not report.is_replay:
        report.commits_unknown = (
            f"{store}: the group's committed offsets and the partitions that were never read are not known: "
            f"{layout.OWNER}, which names the group and the topic, cannot be read"
        )
    if report.is_replay:  # it has no group, and may be of a part
        owner = None
    if log is not None and owner is not None:  # before the walk: meanwhile chains only grow
        try:
            commits, root_id = log.committed(owner.group, owner.topic), read_sink_id(store)
            # The note of an offset names the root that it is of.
            report.committed = {tp: offset for tp, (offset, note) in commits.items() if note in ("", root_id)}
        except FatalError as error:  # only the group's own users may have the right
            report.commits_unknown = f"{store}: the committed offsets of group {owner.group!r} are not known: {error}"
    parts = replayed_parts(store) if report.is_replay else {}
    left_out = {tp: part.start for tp, part in parts.items() if not part}  # where the part is empty
    for chain in walk(
        store,
        contiguous=contiguous,
        read_state=read_state,
        log=log,
        committed=report.committed,
        is_replay=report.is_replay,
        on_segment=on_segment,
    ):
        if report.is_replay:
            chain.had_nothing = chain.is_empty and left_out.get(chain.tp) == chain.next_offset
        elif report.commits_unknown:  # the group may have committed more than a log that lost messages has
            chain.had_nothing = False
        report.chains.append(chain)
        report.faults += chain.faults
        if report.faults:
            note(f"{len(report.faults)} faults")
    report.faults += strays(store)
    if log is not None and owner is not None and expects_all:
        report.unread = [*_unread(store, log, owner.topic, {chain.tp for chain in report.chains})]
    return report


def _unread(store: Store, log: BrokerLog, topic: str, known: set[TopicPartition]) -> Iterator[UnreadPartition]:
    """Yield the partitions of the topic that no worker has begun, although there is a message in them."""
    tps = {TopicPartition(topic, number) for number in range(log.identity(topic).partitions)}
    for tp in sorted(tps - known):
        first, until = log.bounds(tp)
        starts = range(first, until, _STEP)
        if read_origin(store, tp) is None and any(
            len(log.messages(tp, at, min(at + _STEP, until))[0]) for at in starts
        ):
            yield UnreadPartition(tp, first, until)


def damaged_claims(store: Store) -> list[Finding]:
    """Return the claims of the whole root that cannot be read. One that is missing is made by the next worker."""
    found = []
    for key, read, whose in ((layout.OWNER, read_owner, " of the same group"), (layout.NUMERICS, read_precision, "")):
        anew = f"remove it: the next worker{whose} that starts writes it again"
        try:
            read(store)
        except ChainError:
            remedy = f"restore it from a copy, or {anew}"
            found.append(damage(key, "expected a claim written by this program, but it is damaged", remedy))
        except SettingsError:  # no right to read it, or a folder in its place
            remedy = f"give this user the right to read it; if it is no file, {anew}"
            found.append(damage(key, "expected a claim that this user can read", remedy))
    with suppress(ChainError, SettingsError):  # that of the owner is among those above
        owner = read_owner(store)
        if owner is None or owner.purpose == "replay":
            found += _damaged_replay(store)
    return found


def _damaged_replay(store: Store) -> Iterator[Finding]:
    try:
        check_replay_claim(store)
    except ChainError:
        remedy = "restore it from a copy: only with it can the same `adawise replay` go on"
        yield damage(layout.REPLAY, "expected the claim of a replay, but it is damaged", remedy)


def strays(store: Store) -> list[Finding]:
    """Return the files among the segments, the traces and the compacted files that no chain accounts for."""
    traces = store.list(layout.TRACES)  # listed before the segments, because a worker writes traces after them
    segments = store.list(layout.PREDICTIONS)
    known = {layout.traces_key(key) for key in segments}
    if not known.issuperset(traces):  # traces that were removed meanwhile with their segments are no strays
        traces = sorted(set(traces) & set(store.list(layout.TRACES)))
    begins = beginnings(store) if traces else {}
    return [
        *(
            damage(key, "expected only segments here, but this is another file", "move it away")
            for key in segments
            if layout.parse_key(key) is None
        ),
        *(damage(*fault) for fault in foreign_keys(store)),
        *(
            damage(key, "expected only claims of partitions here, but this is another file", "move it away")
            for key in (*store.list(layout.ORIGINS), *store.list(layout.RETAINED))
            if layout.parse_origin_key(key) is None and layout.parse_retained_key(key) is None
        ),
        *(
            damage(key, "expected a segment of this name, but there is none", STALE)
            for key in traces
            if key not in known and not is_removed(key, begins)
        ),
    ]


def walk(
    store: Store,
    *,
    contiguous: bool = False,
    read_state: ReadState | None = None,
    log: BrokerLog | None = None,
    committed: Mapping[TopicPartition, int] | None = None,
    is_replay: bool = False,
    on_segment: Callable[[], object] = lambda: None,
) -> Iterator[ChainReport]:
    """Walk every chain that ever began, from its origin to its head; yield one report for each.

    Args:
        store: the store of the root.
        contiguous: every offset must be accounted for, because the topic is neither compacted nor transactional;
            without it, an offset that nothing mentions is taken for a hole of the log.
        read_state: reads a state; None leaves states unchecked.
        log: the topic to compare with, if any.
        committed: the offsets that the root's group had committed before: no chain may end before its own.
        is_replay: the root is the output of a replay, of which the remedies speak.
        on_segment: called after each segment.

    Raises:
        SourceError, BrokerUnavailable: by `log`.
        StoreUnavailable: the store does not answer.
    """
    found = chains(store)
    for tp in {*compacted_partitions(store), *begun_partitions(store)}:  # also one of which every segment was lost
        found.setdefault(tp, [])

    def walked(tp: TopicPartition, keys: Sequence[str]) -> ChainReport:
        chain = ChainCheck(store, tp, contiguous, read_state, log, is_replay)
        return _walked(chain, keys, (committed or {}).get(tp), on_segment)

    for tp, keys in sorted(found.items()):
        report = walked(tp, keys)
        while report.faults and set(keys) - set(left := _keys(store, tp)):
            # Retention or a compaction has removed listed files; the chain that is left now is whole by itself.
            keys, report = left, walked(tp, left)
        yield report


def _walked(
    chain: ChainCheck, keys: Sequence[str], committed: int | None, on_segment: Callable[[], object]
) -> ChainReport:
    try:
        chain.begin()
        for _ in chain.follow(keys):
            on_segment()
        chain.end(committed)
    except Broken as broken:  # the segments after it have nothing to agree with
        chain.report.faults.append(broken.fault)
    return chain.report


def _keys(store: Store, tp: TopicPartition) -> list[str]:
    return [layout.segment_key(tp, name) for name in segment_names(store, tp)]
