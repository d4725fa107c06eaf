"""Settings -> the housekeeping that removes old files beside the worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta

from adawise.output.compaction.delete import now_of
from adawise.output.compaction.retain import removal, remove, sweep
from adawise.records import TopicPartition
from adawise.settings import Settings
from adawise.store.store import Failpoint, open_store
from adawise.worker.housekeeping import Housekeeping

_ROWS = 1_000_000  # of a partition in a pass: the rows of past years are removed in the course of days


def housekeeping(settings: Settings, *, failpoint: Failpoint = lambda _: None) -> Housekeeping | None:
    """Return the housekeeping that `sink.keep` asks for; None if it is not set."""
    if settings.sink.keep is None:
        return None
    store, keep = open_store(settings.sink.root), timedelta(seconds=settings.sink.keep)

    def tidy(tp: TopicPartition, ends: Callable[[], bool]) -> int:
        now, files = now_of(store), 0
        what = removal(store, tp, before=(now - keep).astimezone(UTC).date(), now=now, most_rows=_ROWS, ends=ends)
        if ends():
            return 0
        for _ in sweep(store, tp, now=now) if what is None else remove(store, what, failpoint=failpoint):
            files += 1
            if ends():
                break
        return files

    return Housekeeping(tidy)
