"""The proof that a sink is whole: chains, rows, offsets, traces. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ChainError
from pipeline.ports import TopicIdentity
from pipeline.records import TopicPartition
from pipeline.sink import claims, invariant, layout, schemas, segment, traces
from pipeline.sink.chain import read_link
from pipeline.sink.layout import SegmentName
from pipeline.sink.read import read_bytes, segment_keys
from pipeline.sink.segment import SegmentFooter
from pipeline.sink.store import Store


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a sink that is not as this program writes it."""

    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


def verify(store: Store, *, contiguous: bool = False) -> list[Fault]:
    """All faults of all chains: gaps, overlaps, doubled rows, names that lie, damage, missing traces. [] if none.

    With `contiguous` (the topic is neither compacted nor transactional) every offset must be accounted for; without,
    one that nothing mentions is taken for a hole of the log. The newest segment's traces may be missing, because
    recovery writes them.
    """
    faults = [
        Fault(key, "expected only segments here, but this is none; move it away")
        for key in store.list(layout.PREDICTIONS)
        if layout.parse_key(key) is None
    ]
    known = set(store.list(layout.TRACES))
    for tp, entries in groupby(segment_keys(store), key=lambda entry: entry[0]):
        keys = [key for _, key in entries]
        faults += _verify_chain(store, tp, keys, contiguous)
        faults += [
            Fault(layout.traces_key(key), "expected the traces of a segment that has a successor, but there are none")
            for key in keys[:-1]
            if layout.traces_key(key) not in known
        ]
        known -= {layout.traces_key(key) for key in keys}
    return faults + [Fault(key, "expected a segment of this name, but there is none") for key in sorted(known)]


@dataclass(frozen=True, slots=True)
class _Link:
    """What the next segment has to agree with."""

    name: SegmentName
    previous: str | None
    pending: tuple[int, ...]
    identity: TopicIdentity
    sink: str


def _verify_chain(store: Store, tp: TopicPartition, keys: list[str], contiguous: bool) -> list[Fault]:
    faults: list[Fault] = []
    try:
        origin = claims.read_origin(store, tp)
        sink = claims.read_sink_id(store)
    except ChainError as error:
        return [Fault(layout.origin_key(tp), str(error))]
    if origin is None or sink is None:
        return [Fault(layout.SINK if sink is None else layout.origin_key(tp), "expected this claim, but there is none")]
    identity = TopicIdentity(origin.cluster_id, origin.topic_id, origin.partitions)
    link = _Link(SegmentName(origin.offset), None, (), identity, sink)
    for key in keys:
        try:
            data = read_bytes(store, key)
            footer = read_link(data, key, link.identity)
            said = [*_verify_link(footer, link), *_verify_rows(data, key, footer, link, contiguous)]
            said += _verify_traces(store, key, footer)
        except ChainError as error:
            # What comes after it has nothing to agree with.
            return [*faults, Fault(key, str(error))]
        faults += [Fault(key, what) for what in said]
        name = SegmentName(footer.first, footer.sequence).successor(footer.next)
        link = _Link(name, key, footer.pending, identity, sink)
    return faults


def _verify_link(footer: SegmentFooter, link: _Link) -> Iterator[str]:
    name = SegmentName(footer.first, footer.sequence)
    if name != link.name:
        kind = "a gap" if name > link.name else "an overlap"
        yield f"expected the chain to go on with {link.name}: there is {kind}"
    if footer.previous != link.previous:
        yield f"expected the successor of {link.previous}, but it was written after {footer.previous}"
    if footer.sink != link.sink:
        yield f"expected a segment of sink {link.sink}, but it was written to {footer.sink}"


def _verify_rows(data: bytes, key: str, footer: SegmentFooter, link: _Link, contiguous: bool) -> Iterator[str]:
    rows = segment.read_rows(data, key)
    if not rows.schema.equals(schemas.PREDICTIONS):
        yield f"expected the columns {schemas.PREDICTIONS.names}, but they are {rows.schema.names}"
        return
    yield from invariant.breaches(
        first=footer.first,
        next_offset=footer.next,
        before=link.pending,
        pending=footer.pending,
        gaps=footer.gaps,
        offsets=rows["offset"].to_numpy(),
        indices=rows["index"].to_numpy(),
        contiguous=contiguous,
    )
    accepted = rows["status"].to_pylist().count("accepted")
    traced = sum(footer.trace["images"].to_pylist())
    if accepted != traced:
        yield f"expected as many accepted rows as images in batches, but there are {accepted} rows and {traced} images"


def _verify_traces(store: Store, key: str, footer: SegmentFooter) -> Iterator[str]:
    where = layout.traces_key(key)
    data = store.get(where)
    if data is not None and not _holds(data, traces.derive(footer, key)):
        yield f"expected {where} to hold this segment's traces, but it does not"


def _holds(data: bytes, table: pa.Table) -> bool:
    """True if the Parquet file `data` is undamaged and holds `table`; nan equals nan."""
    try:
        found = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError):
        return False
    return repr(found.to_pylist()) == repr(table.to_pylist())
