"""Names that compaction or retention has set free: a worker that was suspended for hours must not build on one.

`compact --delete-after` deletes segments that a compacted file replaces, and a worker that takes an old segment for the
head could create a deleted name again. It would win a race that was over long ago. Three facts prevent that:

- A deleted segment is covered, before and ever after, by a compacted file, whose name shows it. So a worker that has
  created a segment can check whether its name is covered; if it is, the worker has lost the race.
- `retain` removes nothing that is not a day old, and leaves a name that shows before which segment it removed.
- A segment is compacted after it was created, and deleted an hour after that at the earliest. So a name that did not
  exist less than `FRESH_S` ago was never deleted, and the check, which costs a request, can be left out.

The last one relies on clocks: at least one of the two goes on while the process or its machine is suspended.
"""

from __future__ import annotations

import time

from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.files import beginning_name, compacted_names, is_covered
from adawise.sink.layout import SegmentName
from adawise.store.store import Store

FRESH_S = 900.0
"""Seconds; far below the hour of `compact --delete-after`, because the clocks of hosts differ."""

Instant = tuple[float, ...]
"""One moment by several clocks, in seconds."""


def instant() -> Instant:
    """Return the present moment by two clocks.

    The wall clock is corrected after the machine was suspended; the other counts the time of the suspension.
    """
    awake = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return time.time(), awake


def is_fresh(since: Instant, now: Instant) -> bool:
    """Return True if less than `FRESH_S` have passed by every clock; a clock that was set back counts as not fresh."""
    return all(0.0 <= after - before < FRESH_S for before, after in zip(since, now, strict=True))


def was_deleted(store: Store, tp: TopicPartition, name: SegmentName) -> bool:
    """Return True if a segment of this name does not count: a compacted file replaces it, or retention removed it."""
    return name < beginning_name(store, tp) or is_covered(name, compacted_names(store, layout.PREDICTIONS, tp))
