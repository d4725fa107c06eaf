"""Names that compaction or retention has set free: a worker that stood still for hours must not build on one.

`compact --delete-after` deletes segments that a compacted file stands for, and a deleted name could be created again by
a worker that takes an old segment for the head. It would win a race that was over long ago. Three facts prevent that:

- What is deleted is covered, before and ever after, by a compacted file, whose name says so. So whoever has created a
  segment can ask whether the name is a covered one, and has then lost.
- `retain` removes nothing that is not a day old, and leaves a name that says before which one it removed.
- A segment is compacted after it was created, and deleted an hour after that at the earliest. So a name that nothing
  had less than `FRESH_S` ago was never deleted, and the question, which costs a request, need not be asked.

The last one trusts clocks: that of two the one or the other goes on while the process or its machine stands still.
"""

from __future__ import annotations

import time

from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.layout import SegmentName
from adawise.sink.read.files import beginning_name, compacted_names, is_covered
from adawise.store.store import Store

FRESH_S = 900.0
"""Far below the hour of `compact --delete-after`: the rest is for the clocks of hosts that differ."""

Instant = tuple[float, ...]
"""One moment by several clocks, seconds."""


def instant() -> Instant:
    """Now, by the wall clock, which is corrected after a standstill, and by one that counts the machine's sleep."""
    awake = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return time.time(), awake


def is_fresh(since: Instant, now: Instant) -> bool:
    """True if by every clock less than `FRESH_S` have passed; one that was set back does not tell."""
    return all(0.0 <= after - before < FRESH_S for before, after in zip(since, now, strict=True))


def was_deleted(store: Store, tp: TopicPartition, name: SegmentName) -> bool:
    """True if what is created under this name counts for nobody: a compacted file stands for it, or it was removed."""
    return name < beginning_name(store, tp) or is_covered(name, compacted_names(store, layout.PREDICTIONS, tp))
