"""What one segment tells of its cameras: counted once, kept for as long as it is within the window."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from adawise.records import Gap
from adawise.sink import holes, segment
from adawise.sink.layout import SegmentName
from adawise.sink.lineage import Lineage

CHANGES = ("jump", "disagreement", "regret")
"""The resets by which the method says that conditions are others now."""

_COLUMNS = [
    *("stream_id", "status", "reason", "label", "zero_shot_label", "fine_tuned_label", "batch_number"),
    "predicted_at",
]


@dataclass(slots=True)
class Sight:
    """A camera within one segment. Times are seconds since the epoch, by the worker's clock."""

    images: int = 0  # accepted
    rejected: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    agree: int = 0
    compared: int = 0
    batches: list[tuple[float, float, int]] = field(default_factory=list)  # (served at, alpha, images), in order
    forwards: float = 0.0  # images through the image tower
    last_s: float = 0.0
    changed_s: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """A segment. `states` and `heard` are of all streams that have a state there."""

    name: SegmentName
    key: str
    next_offset: int
    pending: tuple[int, ...]
    gaps: tuple[Gap, ...]
    previous: str | None
    writer: str
    created_s: float
    lineage: Lineage
    rows: int
    states: Mapping[str, bytes]
    sights: Mapping[str | None, Sight]

    @property
    def low_water(self) -> int:
        """The first offset without a row."""
        return min(self.pending, default=self.next_offset)


def read(data: bytes, key: str, *, keeps_states: bool) -> SegmentFacts:
    """The facts of the segment `data`, found at `key`; states only where they are asked for.

    Raises ChainError if it is damaged.
    """
    footer = segment.read_footer(data, key)
    rows = segment.read_rows(data, key, _COLUMNS)  # of those that it has
    created_s = datetime.fromisoformat(footer.created_at).timestamp()
    return SegmentFacts(
        name=footer.name,
        key=key,
        next_offset=footer.next,
        pending=footer.pending,
        gaps=footer.gaps if footer.states_of is None else (),  # else they are what another root has
        previous=footer.previous,
        writer=footer.writer,
        created_s=created_s,
        lineage=holes.after(footer),
        rows=rows.num_rows,
        states=footer.states if keeps_states else {},
        sights=_sights(rows, footer.trace, created_s),
    )


def _sights(rows: pa.Table, trace: pa.Table, created_s: float) -> dict[str | None, Sight]:
    sights = defaultdict[str | None, Sight](Sight)
    accepted = rows.filter(pc.equal(rows["status"], "accepted"))
    served = _served_at(accepted)
    for stream, label, images in _counted(accepted, "label"):
        sight = sights[stream]
        sight.images += images
        sight.labels[label] += images
    both = accepted.filter(pc.and_(accepted["zero_shot_label"].is_valid(), accepted["fine_tuned_label"].is_valid()))
    same = both.append_column("same", pc.equal(both["zero_shot_label"], both["fine_tuned_label"]))
    for stream, is_same, images in _counted(same, "same"):
        sight = sights[stream]
        sight.compared += images
        sight.agree += images if is_same else 0
    for batch in trace.select(_TRACED).to_pylist():
        sight, at = sights[batch["stream_id"]], served.get((batch["stream_id"], batch["batch_number"]), created_s)
        sight.batches.append((at, batch["alpha"], batch["images"]))
        sight.forwards += batch["forward_equivalents"] * batch["images"]
        sight.last_s = max(sight.last_s, at)
        if batch["reset"] in CHANGES:
            sight.changed_s = at
    for stream, reason, images in _counted(rows.filter(pc.equal(rows["status"], "rejected")), "reason"):
        sight = sights[stream]
        sight.rejected[reason] += images
        sight.last_s = max(sight.last_s, created_s)
    return sights


_TRACED = ["stream_id", "batch_number", "alpha", "images", "forward_equivalents", "reset"]


def _counted(rows: pa.Table, by: str) -> list[tuple[str | None, str, int]]:
    """(stream, value, rows) of each that there is."""
    found = rows.select(["stream_id", by]).group_by(["stream_id", by], use_threads=False).aggregate([([], "count_all")])
    return list(zip(*(found[name].to_pylist() for name in ("stream_id", by, "count_all")), strict=True))


def _served_at(accepted: pa.Table) -> dict[tuple[str, int], float]:
    """When each batch was, seconds; empty for segments of versions that did not write it down."""
    if "predicted_at" not in accepted.column_names:
        return {}
    found = accepted.group_by(["stream_id", "batch_number"], use_threads=False).aggregate([("predicted_at", "max")])
    at = found["predicted_at_max"].cast(pa.int64()).to_pylist()
    keys = zip(found["stream_id"].to_pylist(), found["batch_number"].to_pylist(), strict=True)
    return {key: us / 1e6 for key, us in zip(keys, at, strict=True) if us is not None}
