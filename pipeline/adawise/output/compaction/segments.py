"""The segments that a compacted file is made of, read one after the other, each checked as a link of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from adawise.errors import ChainError
from adawise.output import consistency
from adawise.output.compaction.merged import Facts, Replaced, digest_of
from adawise.output.read.several import is_divided
from adawise.ports import TopicIdentity
from adawise.records import TopicPartition
from adawise.sink import claims, columns, layout, segment
from adawise.sink.claims import Beginning
from adawise.sink.layout import CompactedName, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.sink.walk import ChainPlace, Link, footer_of, reader, walk
from adawise.store.store import Store


@dataclass(frozen=True, slots=True)
class ChainIdentity:
    """The identity that all segments of a partition share: the root's id, the chain's first segment, and the topic.

    If retention has cut the chain, `retained` records what came before the cut. In the root of a shard it is `divided`
    (`adawise.sink.invariant`).
    """

    sink: str
    origin: SegmentName
    identity: TopicIdentity
    retained: Beginning | None = None
    divided: bool = False

    @property
    def previous(self) -> str | None:
        """The key of the segment before the first, which is removed; None if there was none."""
        return None if self.retained is None else self.retained.previous

    @property
    def pending(self) -> tuple[int, ...]:
        """The offsets that are pending where the chain begins."""
        return () if self.retained is None else self.retained.pending

    @staticmethod
    def of(store: Store, tp: TopicPartition) -> ChainIdentity:
        """Read the claims. Raises ChainError if one is missing or damaged."""
        sink, origin = claims.read_sink_id(store), claims.read_origin(store, tp)
        if sink is None or origin is None:
            missing = layout.SINK if sink is None else layout.origin_key(tp)
            raise ChainError(f"{store}: {missing}: expected this claim beside the segments, but it is gone; restore it")
        identity = TopicIdentity(origin.cluster_id, origin.topic_id, origin.partitions)
        divided = is_divided(store)
        if (cut := claims.read_beginning(store, tp)) is not None:
            return ChainIdentity(sink, cut[0], identity, cut[1], divided)
        return ChainIdentity(sink, SegmentName(origin.offset), identity, divided=divided)


@dataclass(slots=True)
class Gathered:
    """The contents of the segments of one compacted file: rows, batches, and the facts in their footers."""

    rows: list[pa.Table] = field(default_factory=list)
    batches: list[pa.Table] = field(default_factory=list)
    footers: list[SegmentFooter] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    before: tuple[int, ...] = ()
    size_bytes: int = 0

    def facts(self, dataset: str, created_at: str) -> Facts:
        """Return the facts for the file of this dataset."""
        first, last = self.footers[0], self.footers[-1]
        tables = self.rows if dataset == layout.PREDICTIONS else self.batches
        table = pa.concat_tables(tables)
        return Facts(
            sink=first.sink,
            cluster_id=first.cluster_id,
            topic_id=first.topic_id,
            topic=first.topic,
            partition=first.partition,
            partitions=first.partitions,
            previous=first.previous,
            last=self.keys[-1],
            first=first.first,
            next=last.next,
            before=self.before,
            pending=last.pending,
            gaps=tuple(gap for footer in self.footers for gap in footer.gaps),
            segments=tuple(
                Replaced(footer.name.stem, footer.attempt, rows.num_rows)
                for footer, rows in zip(self.footers, self.rows, strict=True)
            ),
            rows=table.num_rows,
            digest=digest_of(dataset, table),
            created_at=created_at,
        )


def gather(
    store: Store, tp: TopicPartition, chain: ChainIdentity, name: CompactedName, names: Sequence[SegmentName]
) -> Gathered:
    """Read the segments of [name.first, name.until), which are among `names`.

    Raises:
        ChainError: a segment is damaged or missing, or breaks what holds of every segment.
    """

    def refuse(link: Link[SegmentFooter]) -> None:
        raise _broken(store, link.key, f"expected the chain to go on with {link.place.name}")

    gathered, place = Gathered(), ChainPlace(name.first)
    pending: tuple[int, ...] = ()
    inside = [layout.segment_key(tp, found) for found in names if name.first <= found < name.until]
    for link in walk(reader(store, chain.identity), tp, place, inside, on_break=refuse):
        key, footer = link.key, link.footer
        if not gathered.keys:
            pending = gathered.before = _pending_after(store, chain, footer.previous)
        rows = segment.read_rows(link.data, key)
        if breaches := _breaches(chain, footer, rows, pending):
            raise _broken(store, key, "; ".join(breaches))
        gathered.rows.append(rows)
        gathered.batches.append(columns.traces_of(footer, key))
        gathered.footers.append(footer)
        gathered.keys.append(key)
        gathered.size_bytes += len(link.data)
        pending, place = footer.pending, link.after
    if place.name != name.until:
        key = layout.segment_key(tp, place.name)
        raise _broken(store, key, f"expected the segments up to {name.until}, but it is absent")
    return gathered


def _pending_after(store: Store, chain: ChainIdentity, key: str | None) -> tuple[int, ...]:
    if key == chain.previous:
        return chain.pending
    return () if key is None else footer_of(store, key).pending


def _breaches(chain: ChainIdentity, footer: SegmentFooter, rows: pa.Table, pending: Sequence[int]) -> list[str]:
    if footer.sink != chain.sink:
        return [f"expected a segment of sink {chain.sink}, but it was written to {footer.sink}"]
    return [*consistency.inconsistencies(rows, footer, pending, divided=chain.divided)]


def _broken(store: Store, key: str, what: str) -> ChainError:
    return ChainError(f"{store}: {key}: {what}; nothing was compacted here: see `adawise verify`, and restore the file")
