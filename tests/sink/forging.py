"""A sink with honest states, and segments altered so that every checksum still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from adawise.adapt.last_seen import LastSeen
from adawise.adapt.state import StreamState
from adawise.errors import Reason
from adawise.ports import SegmentDraft
from adawise.sink import columns, layout, segment
from adawise.sink.chain import SegmentChain
from adawise.sink.layout import SegmentName
from adawise.store.store import Store
from tests.sink.building import IDENTITY, TP, DictStore, frame, open_chain, served

ALPHA, ALPHA_INDEX = 0.35, 7


def key(first: int, sequence: int = 0) -> str:
    """Of the segment that begins there."""
    return layout.segment_key(TP, SegmentName(first, sequence))


def state(batches: int, *, index: int = ALPHA_INDEX, at_ms: int = 0) -> bytes:
    """What a search leaves after so many batches, heard when the partition's clock showed `at_ms`."""
    return StreamState(
        "k", index, batches=batches, last_seen=LastSeen(1_700_000_000_000 + at_ms, at_ms, at_ms)
    ).to_bytes()


class History:
    """A chain as a worker writes it: batches of one image or more, states that count them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.chain: SegmentChain = open_chain(store)
        self.chain.check()
        self.head = self.chain.recover(TP, IDENTITY, 0)
        self.states: dict[str, bytes] = {}

    def write(
        self,
        until: int,
        *batches: tuple[str, Sequence[int]],
        pending: Sequence[int] = (),
        rejected: Sequence[int] = (),
        reset: str | None = None,
        at_ms: int = 0,
        drop: Sequence[str] = (),
        table: bytes = b"",
    ) -> None:
        """A segment up to `until` of these batches (stream, offsets); the last one's trace has the reset."""
        accepted = []
        for stream, offsets in batches:
            known = StreamState.from_bytes(self.states[stream]).batches if stream in self.states else 0
            number = 0 if reset is not None else known
            images, predictions, trace = served([frame(o, stream=stream) for o in offsets], number=number, alpha=ALPHA)
            accepted.append((images, predictions, replace(trace, reset=reset)))
            self.states[stream] = state(number + 1, at_ms=at_ms)
        for stream in drop:
            del self.states[stream]
        bad = [frame(offset, stream="north", reason=Reason.EMPTY) for offset in rejected]
        draft = SegmentDraft(TP, until, tuple(pending), dict(self.states), accepted, bad, stream_table=table)
        self.head = self.chain.commit(draft).head


def an_honest_sink() -> DictStore:
    """[0, 4), [4, 9) and [9, 12): two cameras, a rejected row, an offset that is pending for a while."""
    store = DictStore()
    history = History(store)
    history.write(4, ("north", [0, 1]), ("south", [2]), pending=[3])
    history.write(9, ("north", [3, 4, 5]), ("north", [6, 8]), rejected=[7])
    history.write(12, ("south", [9, 10]), ("north", [11]))
    return store


def forge(store: Store, where: str, rows: Callable[[pa.Table], pa.Table] = lambda table: table, **changes: Any) -> None:
    """Alter a segment's rows and footer fields, its traces with it, as a program would that has a fault."""
    data = store.get(where)
    assert data is not None
    footer = replace(segment.read_footer(data, where), **changes)
    store.put(where, segment.encode(rows(segment.read_rows(data, where)), footer))
    columns.write_traces(store, footer, where)


def footer_of(store: Store, where: str) -> segment.SegmentFooter:
    """What a segment says of itself."""
    data = store.get(where)
    assert data is not None
    return segment.read_footer(data, where)


def changed(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """The table with one cell of another value."""
    cells = table[name].to_pylist()
    cells[row] = value
    column = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), column, pa.array(cells, column.type))
