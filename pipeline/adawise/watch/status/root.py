"""The output's part of the status: the newest segments of every partition, however long the chains are.

The store is read in several threads, since an object store answers slowly. What was read is kept: a second look follows
each chain from its last known head, reads only newer segments and does not list the segments again.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from adawise.errors import ChainError
from adawise.pairs.reports import read_reports
from adawise.records import TopicPartition
from adawise.sink import claims, holes, layout, owner
from adawise.sink.files import newest_names
from adawise.sink.owner import Owner
from adawise.sink.served_by import ServedSettings, read_noted
from adawise.sink.starts import open_marks
from adawise.sink.walk import ChainPlace, refuse, walk
from adawise.store.store import Store, free_bytes
from adawise.watch.status import segments
from adawise.watch.status.facts import WorkerStatus
from adawise.watch.status.segments import SegmentFacts

_THREADS = 16
_AHEAD = 8, 32  # segments of a partition that are read at once: at first, and at most; doubled each time
_SEGMENTS = 1_440  # read in all, some 2 ms each: an hour of four partitions at the default flush
_LEAST = 12  # segments read of each partition, if the window has as many
_BYTES = 256 * 2**20  # read in all


@dataclass(slots=True)
class ChainFacts:
    """A partition's chain.

    Attributes:
        tp: the partition.
        origin: the offset where the chain begins; read only if there is no segment yet, else 0.
        segments: its newest segments in order; the last one is the head.
        holes: missing segments, a sentence each; None if they were not looked for.
        starts: number of marks left by workers that have the partition, or had it and were killed.
        served: the settings with which the head's rows were served; None if they were not recorded.
        fault: why the chain could not be read; None if it could.
    """

    tp: TopicPartition
    origin: int = 0
    segments: list[SegmentFacts] = field(default_factory=list)
    holes: Sequence[str] | None = None
    starts: int = 0
    served: ServedSettings | None = None
    fault: str | None = None

    @property
    def head(self) -> SegmentFacts | None:
        """The newest segment; None if there is none."""
        return self.segments[-1] if self.segments else None


@dataclass(frozen=True, slots=True)
class RootFacts:
    """The facts about an output: its owner, its chains, its workers' health reports, and its free bytes."""

    root_id: str | None
    owner: Owner | None
    is_replay: bool
    chains: dict[TopicPartition, ChainFacts]
    workers: Sequence[WorkerStatus] = ()
    free_bytes: int | None = None


class RootReader:
    """A reader that looks at a root repeatedly, and keeps what it has read.

    Args:
        store: the store of the root.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[TopicPartition, ChainFacts] = {}
        self._noted: dict[tuple[str, str], ServedSettings | None] = {}

    def read(self, since_s: float, now_s: float | None = None) -> RootFacts:
        """Return each chain's head and its segments written after `since_s`; fewer segments if there are very many.

        A chain that cannot be read has its `fault` set; the other chains are still returned.

        Args:
            since_s: seconds since the epoch.
            now_s: the present time, in seconds since the epoch, to read the workers' health reports; None to skip them.

        Raises:
            ChainError: the root's own documents cannot be read.
            StoreUnavailable, SettingsError: from the store.
        """
        with ThreadPoolExecutor(_THREADS, "status") as pool, ThreadPoolExecutor(_THREADS, "status-segment") as readers:
            # Claims are read first: they are few, and name the chains.
            root_id, owned = claims.known_sink_id(self._store), owner.read_owner(self._store)
            is_replay = owned is not None and owned.purpose == "replay"
            tps = sorted(filter(None, map(layout.parse_origin_key, self._store.list(layout.ORIGINS))))
            most = max(_LEAST, _SEGMENTS // max(1, len(tps))), _BYTES // max(1, len(tps))
            chains = pool.map(lambda tp: self._chain(tp, since_s, most, readers), tps)
            self._known = {chain.tp: chain for chain in chains}
        workers = () if now_s is None else _ill_workers(self._store, now_s)
        return RootFacts(root_id, owned, is_replay, self._known, workers, free_bytes(self._store))

    def _chain(
        self, tp: TopicPartition, since_s: float, most: tuple[int, int], readers: ThreadPoolExecutor
    ) -> ChainFacts:
        chain = self._known.get(tp)
        try:
            if chain is None or chain.head is None or chain.fault is not None:
                chain = self._begun(tp, since_s, most, readers)
            else:
                self._follow(chain, since_s)
            low_water = chain.origin if chain.head is None else chain.head.low_water
            chain.starts = open_marks(self._store, tp, low_water)
            if chain.head is not None:
                chain.served = self._served(chain.head.prints)
        except ChainError as error:
            chain = ChainFacts(tp, fault=str(error))
        return chain

    def _served(self, prints: tuple[str, str]) -> ServedSettings | None:
        """Return the settings of these fingerprints, which are read once for each; None if the document is damaged."""
        if prints not in self._noted:
            noted = None
            with suppress(ChainError):
                noted = read_noted(self._store, *prints)
            self._noted[prints] = noted
        return self._noted[prints]

    def _begun(
        self, tp: TopicPartition, since_s: float, most: tuple[int, int], readers: ThreadPoolExecutor
    ) -> ChainFacts:
        # Read backwards from the head in growing waves, until the window or one of the two limits is passed.
        names, are_all = newest_names(self._store, tp)
        origin = None if names else claims.read_origin(self._store, tp)
        chain, (segments_left, bytes_left) = ChainFacts(tp, 0 if origin is None else origin.offset), most
        found: list[SegmentFacts] = []
        left, (ahead, at_most) = names[::-1], _AHEAD
        while left and segments_left > 0 and bytes_left > 0 and (not found or found[-1].created_s >= since_s):
            wave, is_head = (ahead, False) if found else (1, True)
            keys, left = [layout.segment_key(tp, name) for name in left[:wave]], left[wave:]
            there: list[tuple[bytes, str]] = []
            for key, data in zip(keys, readers.map(self._store.get, keys), strict=True):
                if data is None and not is_head:  # it and its predecessors were compacted and deleted since the listing
                    left = []
                    break
                there.append((_expected(data, key), key))
            found += segments.read(there, keeps_states=is_head)
            ahead = ahead if is_head else min(at_most, 2 * ahead)
            segments_left, bytes_left = segments_left - len(keys), bytes_left - sum(len(data) for data, _ in there)
        chain.segments = found[::-1]
        if chain.head is not None:
            self._follow(chain, since_s)
            if are_all and chain.head.lineage.count > 1:
                chain.holes = holes.holes(self._store, tp, names, found[0].lineage)
            elif are_all:
                chain.holes = ()
        return chain

    def _follow(self, chain: ChainFacts, since_s: float) -> None:
        """Add the segments written since the last look, and drop those that are too old."""
        if (head := chain.head) is not None:
            place = ChainPlace(head.successor, head.key)
            for link in walk(self._read, chain.tp, place, on_break=partial(refuse, str(self._store))):
                chain.segments[-1] = replace(chain.segments[-1], states={})
                chain.segments.append(link.footer)
        # One segment from before the window stays: rates are computed from it on.
        while len(chain.segments) > 1 and chain.segments[1].created_s < since_s:
            del chain.segments[0]

    def _read(self, key: str) -> tuple[bytes, SegmentFacts] | None:
        data = self._store.get(key)
        return None if data is None else (data, segments.read([(data, key)], keeps_states=True)[0])


def _expected(data: bytes | None, key: str) -> bytes:
    if data is None:
        raise ChainError(f"{key}: expected the segment that was listed, but it is gone; restore it")
    return data


def _ill_workers(store: Store, now_s: float) -> list[WorkerStatus]:
    """Return the workers that have reported a problem lately, sorted by name.

    Ages are by the local clock, so that nothing is written. `adawise pair list` names damaged reports.
    """
    return [
        WorkerStatus(
            worker=found.worker,
            age_s=found.age_s,
            status=found.report.status,
            reasons=found.report.reasons,
            waits_for={party: wait.seconds for party, wait in found.report.waits_for.items()},
            is_store_full=any(wait.full for wait in found.report.waits_for.values()),
        )
        for found in read_reports(store, datetime.fromtimestamp(now_s, UTC))[0]
        if found.report.status and found.is_here
    ]
