"""The invariant of every segment, as one pure function: the chain refuses to write, and `verify` reports, the same.

    rows ∪ pending = pending before ∪ delivered offsets of [first, next), every (offset, index) once

An offset is delivered unless the log has a hole there (compaction, a transaction's marker), which only the broker
knows; `contiguous` means that the log has none. In the root of a shard the chain is `divided`: of a message that holds
images of several cameras it has those of its own, so that indices have holes, and none of a message that was pending
until it was decoded and proved to be of others. Only the writer knows which these are (`SegmentDraft.others`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from adawise.ports import Head, SegmentDraft
from adawise.records import Gap

Offsets = npt.NDArray[np.int64]


def breaches(
    *,
    first: int,
    next_offset: int,
    before: Sequence[int],
    pending: Sequence[int],
    gaps: Sequence[Gap],
    offsets: Offsets,
    indices: npt.NDArray[np.int32],
    contiguous: bool = False,
    divided: bool = False,
) -> list[str]:
    """Return the ways in which a segment breaks the invariant, each a clause with the offsets in question.

    Args:
        first: the first offset of the segment.
        next_offset: the offset after its last.
        before: the offsets that were pending before it.
        pending: the offsets that are pending after it.
        gaps: the ranges of offsets that it records as lost.
        offsets: `[rows]`, the offsets of its rows in the order of the file.
        indices: `[rows]`, their indices within the message.
        contiguous: the log has no holes, so that every offset was delivered.
        divided: other roots have the other rows of a message.
    """
    was, now = (_distinct(np.asarray(sorted(some), np.int64)) for some in (before, pending))
    rows = _distinct(offsets if bool(np.all(offsets[1:] >= offsets[:-1])) else np.sort(offsets))
    due = np.union1d(was, np.arange(first, next_offset)) if contiguous else was[:0] if divided else was
    unaccounted = due[~(_in(due, rows) | _in(due, now))]
    for gap in gaps:
        unaccounted = unaccounted[(unaccounted < gap.first) | (unaccounted >= gap.until)]
    found = {
        f"rows of offsets that are neither pending nor in [{first}, {next_offset})": _foreign(
            rows, was, first, next_offset
        ),
        f"pending offsets that are neither pending before nor in [{first}, {next_offset})": _foreign(
            now, was, first, next_offset
        ),
        "offsets that are both rows and pending": now[_in(now, rows)],
        "offsets that are neither rows nor pending": unaccounted,
        "offsets whose rows are not index 0, 1, 2 ... in order": offsets[_disordered(offsets, indices, divided)],
    }
    found_breaches = [f"{what}: {some(which)}" for what, which in found.items() if len(which)]
    return (
        found_breaches if next_offset >= first else [f"next {next_offset} lies before first {first}", *found_breaches]
    )


# With a million rows, numpy's own set operations, which hash, take longer than writing the file.
def _distinct(ascending: Offsets) -> Offsets:
    return ascending[np.append(True, ascending[1:] != ascending[:-1])] if len(ascending) else ascending


def _in(offsets: Offsets, ascending: Offsets) -> npt.NDArray[np.bool_]:
    """Return which of `offsets` are among `ascending`."""
    if not len(ascending):
        return np.zeros(len(offsets), np.bool_)
    at = np.minimum(np.searchsorted(ascending, offsets), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[at] == offsets
    return found


def _foreign(offsets: Offsets, before: Offsets, first: int, next_offset: int) -> Offsets:
    outside = offsets[(offsets < first) | (offsets >= next_offset)]
    return outside[~_in(outside, before)]


def _disordered(offsets: Offsets, indices: npt.NDArray[np.int32], divided: bool) -> npt.NDArray[np.bool_]:
    """Return `[rows]`, True where a row follows neither as the same offset's next index nor as a later offset's 0.

    If the chain is divided, a later index will do.
    """
    steps = np.diff(offsets, prepend=-1)
    follows = np.where(steps == 0, np.concatenate([[0], indices[:-1] + 1])[: len(indices)], 0)
    is_wrong = indices < follows if divided else indices != follows
    disordered: npt.NDArray[np.bool_] = (steps < 0) | is_wrong
    return disordered


def some(offsets: Offsets) -> str:
    """Return the first five distinct offsets for a message, and how many there are."""
    shown = ", ".join(str(offset) for offset in np.unique(offsets)[:5])
    return shown if len(offsets) <= 5 else f"{shown} and others ({len(np.unique(offsets))} in all)"


def check(draft: SegmentDraft, head: Head, rows: pa.Table, *, divided: bool = False) -> None:
    """Raise ValueError if the draft, whose images are `rows`, is no successor of `head`; `divided` as in `breaches`."""
    found_breaches = breaches(
        first=head.next_offset,
        next_offset=draft.next_offset,
        before=head.pending,
        pending=draft.pending,
        gaps=draft.gaps,
        offsets=rows["offset"].to_numpy(),
        indices=rows["index"].to_numpy(),
        divided=divided,
    )
    if divided:
        known = {*rows["offset"].to_pylist(), *draft.pending, *draft.others}
        lost = [o for o in head.pending if o not in known and not any(g.first <= o < g.until for g in draft.gaps)]
        found_breaches += [f"offsets that are neither rows nor pending: {some(np.asarray(lost))}"] if lost else []
    if draft.next_offset == head.next_offset and not rows.num_rows and draft.alerts == head.alerts:
        found_breaches.append(
            f"nothing to write: no offset after {head.next_offset}, no row and no other state of alerts"
        )
    if found_breaches:
        raise ValueError(f"{draft.tp}: the draft is no successor of {head.segment}: {'; '.join(found_breaches)}")
