"""Counts of cameras from segments. Each segment is counted once, and its counts are kept while it is in the window.

Many small segments are counted as one Arrow table, which takes hardly longer than a single segment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adawise.records import Gap
from adawise.sink import holes, segment
from adawise.sink.layout import Lineage, SegmentName
from adawise.sink.segment import SegmentFooter
from adawise.watch.state import RESETS

_COLUMNS = [
    *("stream_id", "status", "reason", "label", "zero_shot_label", "fine_tuned_label", "batch_number"),
    "predicted_at",
]


@dataclass(slots=True)
class Listed:
    """The images of a camera under one shortlist."""

    images: int = 0
    off_list: dict[str, int] = field(default_factory=dict)  # those that surely show another class, by that class


class SeenBatch(NamedTuple):
    """One batch of a camera. `condition` and `returned` are as in the trace, None in segments of earlier versions."""

    at_s: float  # when it was served, in seconds since the epoch
    alpha: float
    images: int
    condition: int | None = None
    returned: bool | None = None


@dataclass(slots=True)
class Sight:
    """The counts of a camera within one segment. Times are seconds since the epoch, by the worker's clock."""

    images: int = 0  # accepted
    rejected: dict[str, int] = field(default_factory=dict)  # images by reason
    labels: dict[str, int] = field(default_factory=dict)  # images by served label
    agree: int = 0  # images of `compared` to which both endpoints gave the same label
    compared: int = 0  # images that both endpoints labelled
    batches: list[SeenBatch] = field(default_factory=list)  # in order
    forwards: float = 0.0  # images through the image tower
    last_s: float = 0.0  # time of its last image
    changed_s: float | None = None  # time of its last reset that means changed conditions (`RESETS`)
    reset: str = ""  # the reason of that reset
    shortlist: str | None = None  # digest of its last batch's shortlist; None without one
    listed: dict[str, Listed] = field(default_factory=dict)  # images by digest of their shortlist


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """The facts of a segment.

    Attributes:
        name: name of the segment.
        key: key of the segment in the store.
        next_offset: offset after the last one that was read for it.
        pending: offsets below `next_offset` that have no row yet.
        gaps: offsets that will have no rows; empty for the segment that continues another root.
        previous: reference to the segment before it; None for the first.
        writer: HOST:PID of the process that wrote it.
        created_s: when it was written, in seconds since the epoch.
        prints: fingerprints of the model and of the settings.
        lineage: the segments that it follows.
        rows: number of its rows.
        states: state of each stream that has one; empty if states were not asked for.
        sights: counts by stream; None is the key of images without a stream's name.
    """

    name: SegmentName
    key: str
    next_offset: int
    pending: tuple[int, ...]
    gaps: tuple[Gap, ...]
    previous: str | None
    writer: str
    created_s: float
    prints: tuple[str, str]
    lineage: Lineage
    rows: int
    states: Mapping[str, bytes]
    sights: Mapping[str | None, Sight]

    @property
    def successor(self) -> SegmentName:
        """The name of the next segment."""
        return self.name.successor(self.next_offset)

    @property
    def low_water(self) -> int:
        """The first offset without a row."""
        return min(self.pending, default=self.next_offset)

    @property
    def durable(self) -> int:
        """The offset up to which messages were read, less those pending; only differences of it are meaningful."""
        return self.next_offset - len(self.pending)


def read(found: Sequence[tuple[bytes, str]], *, keeps_states: bool) -> list[SegmentFacts]:
    """Return the facts of segments, each given as its bytes and its key.

    Args:
        found: (bytes, key) of each segment.
        keeps_states: True to read the streams' states as well.

    Raises:
        ChainError: a segment is damaged.
    """
    outlines = [segment.read_outline(data, key, _COLUMNS, keeps_states=keeps_states) for data, key in found]
    footers, rows = [footer for footer, _ in outlines], [rows for _, rows in outlines]
    created_s = [datetime.fromisoformat(footer.created_at).timestamp() for footer in footers]
    sights = _sights(rows, [footer.trace for footer in footers], created_s)
    return [
        _facts(footer, key, at, table.num_rows, sights_of)
        for (_, key), footer, table, at, sights_of in zip(found, footers, rows, created_s, sights, strict=True)
    ]


def _facts(
    footer: SegmentFooter, key: str, created_s: float, rows: int, sights: Mapping[str | None, Sight]
) -> SegmentFacts:
    return SegmentFacts(
        name=footer.name,
        key=key,
        next_offset=footer.next,
        pending=footer.pending,
        # The chain of a root that continues another one begins with a gap: the other root has those rows.
        gaps=footer.gaps if footer.states_of is None else (),
        previous=footer.previous,
        writer=footer.writer,
        created_s=created_s,
        prints=(footer.model_fingerprint, footer.config_fingerprint),
        lineage=holes.after(footer),
        rows=rows,
        states=footer.states,
        sights=sights,
    )


def _sights(
    tables: Sequence[pa.Table], traces: Sequence[pa.Table], created_s: Sequence[float]
) -> list[dict[str | None, Sight]]:
    """Return the counts by stream of each segment, from its rows (`tables`) and its batches (`traces`)."""
    sights = [defaultdict[str | None, Sight](Sight) for _ in tables]
    rows = _together(tables)
    accepted = rows.filter(pc.equal(rows["status"], "accepted"))
    served = _served_at(accepted)
    for number, stream, label, images in _counted(accepted, "label"):
        sight = sights[number][stream]
        sight.images += images
        sight.labels[label] = images
    both = accepted.filter(pc.and_(accepted["zero_shot_label"].is_valid(), accepted["fine_tuned_label"].is_valid()))
    same = both.append_column("same", pc.equal(both["zero_shot_label"], both["fine_tuned_label"]))
    for number, stream, is_same, images in _counted(same, "same"):
        sight = sights[number][stream]
        sight.compared += images
        sight.agree += images if is_same else 0
    for number, stream, batch, alpha, images, forward_equivalents, reset, condition, returned, *listed in _listed(
        _traced(traces), [*_TRACED, *_TRACED_LATER]
    ):
        sight, at = sights[number][stream], served.get((number, stream, batch), created_s[number])
        _count_listed(sight, images, *listed)
        sight.batches.append(SeenBatch(at, alpha, images, condition, returned))
        sight.forwards += forward_equivalents * images
        sight.last_s = max(sight.last_s, at)
        if reset in RESETS:
            sight.changed_s, sight.reset = at, reset
    for number, stream, reason, images in _counted(rows.filter(pc.equal(rows["status"], "rejected")), "reason"):
        sight = sights[number][stream]
        sight.rejected[reason] = images
        sight.last_s = max(sight.last_s, created_s[number])
    return [dict(each) for each in sights]


def _count_listed(sight: Sight, images: int, shortlist: str | None, off_list: Sequence[tuple[str, int]] | None) -> None:
    """Count the images of a batch under its shortlist, and those of them that it lacks."""
    sight.shortlist = shortlist
    if shortlist is None or off_list is None:
        return
    listed = sight.listed.setdefault(shortlist, Listed())
    listed.images += images
    for label, count in off_list:
        listed.off_list[label] = listed.off_list.get(label, 0) + count


_SEGMENT = "segment"  # the column with the number of a row's segment
_TRACED = ["stream_id", "batch_number", "alpha", "images", "forward_equivalents", "reset"]
_TRACED_LATER = ["condition", "returned", "shortlist", "off_list"]  # not in segments of earlier versions


def _traced(traces: Sequence[pa.Table]) -> pa.Table:
    """Return the batches of all segments, with null in the columns that a segment lacks."""
    batches = _together(
        [trace.select([*_TRACED, *(name for name in _TRACED_LATER if name in trace.column_names)]) for trace in traces]
    )
    for name in _TRACED_LATER:
        if name not in batches.column_names:
            batches = batches.append_column(name, pa.nulls(batches.num_rows))
    return batches


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate the segments' tables, with a column of the segment's number."""
    numbers = np.repeat(np.arange(len(tables), dtype=np.int32), [table.num_rows for table in tables])
    whole = pa.concat_tables(tables, promote_options="default")  # segments of earlier versions lack columns
    return whole.append_column(_SEGMENT, pa.array(numbers))


def _listed(rows: pa.Table, columns: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    """Return (segment, *columns) of each row."""
    return zip(*(rows[name].to_pylist() for name in (_SEGMENT, *columns)), strict=True)


def _counted(rows: pa.Table, by: str) -> Iterable[tuple[Any, ...]]:
    """Return (segment, stream, value, number of rows) for each value of the column `by`."""
    keys = [_SEGMENT, "stream_id", by]
    found = rows.select(keys).group_by(keys, use_threads=False).aggregate([([], "count_all")])
    return _listed(found, ["stream_id", by, "count_all"])


def _served_at(accepted: pa.Table) -> dict[tuple[int, str, int], float]:
    """Return the time of each batch by segment, stream and batch number, in seconds since the epoch.

    Batches of versions that did not record it are left out.
    """
    if "predicted_at" not in accepted.column_names:
        return {}
    keys = [_SEGMENT, "stream_id", "batch_number"]
    found = accepted.group_by(keys, use_threads=False).aggregate([("predicted_at", "max")])
    found = found.append_column("us", found["predicted_at_max"].cast(pa.int64()))
    return {tuple(key): us / 1e6 for *key, us in _listed(found, [*keys[1:], "us"]) if us is not None}
