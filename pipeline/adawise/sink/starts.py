"""Starts of workers that may have been killed by a message: one small file for each, beside the chain.

Before a worker decodes anything of a partition, it writes a mark with the offset up to which it may read. It raises the
mark before it reads further, and removes it when it gives up the partition or ends in order. So a mark that remains is
of a worker that was killed or is unreachable, and the message that killed it comes before the end of the mark. Once
everything before a mark's end is in rows, the mark has no meaning any more.

Once `DEATHS` marks are found, messages before the last one's end are decoded in an isolated decoder process
(`adawise.decode.child`). Marks are for the whole group: the partition goes from one worker that dies to the next. Other
deaths (a host that fails, an operator's kill -9) count, too; then a thousand messages or some more are decoded a little
slower.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import structlog

from adawise.errors import AdawiseError, FatalError, RetryableError
from adawise.records import TopicPartition
from adawise.sink import layout
from adawise.sink.claims import LAYOUT
from adawise.store.documents import Count, Document, read_document
from adawise.store.store import Store

DEATHS = 3
_FIRST, _MOST = 1_024, 16_384  # offsets announced at once: few at first, they may need isolation
_RETRY_S = 30.0

_log = structlog.get_logger("worker")


class _Stored(Document):
    layout: Literal[1]
    until: Count


@dataclass(slots=True)
class _Mark:
    until: int  # offsets below this may be read
    size: int = _FIRST
    is_written: bool = False


class StoredStarts:
    """The marks of one worker; implements `adawise.worker.recovery.Starts`.

    Args:
        store: the store of the chain.
        start: the unique name of this start of a worker.
        clock: returns monotonic seconds.
    """

    def __init__(self, store: Store, start: str, clock: Callable[[], float]) -> None:
        self._store, self._start, self._clock = store, start, clock
        self._marks: dict[TopicPartition, _Mark] = {}
        self._again_s = 0.0

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """Begin a mark, and return the offset below which messages are to be decoded in the isolated decoder process.

        Args:
            tp: a partition that this worker has got.
            low_water: everything before this offset is in rows.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        ends = []
        for key in self._store.list(layout.starts_folder(tp)):
            until = _until(self._store, key)
            if until is None:
                continue
            if until <= low_water:
                with suppress(AdawiseError):  # the worker may lack the permission
                    self._store.delete(key)
            elif not key.endswith(f"/{self._start}.json"):
                ends.append(until)
        self._marks[tp] = _Mark(low_water)
        if len(ends) < DEATHS:
            return 0
        _log.warning(
            "decoding_set_apart",
            topic=tp.topic,
            partition=tp.partition,
            until=max(ends),
            note=f"{len(ends)} workers of this partition were killed before its messages had rows; in case a "
            "message was the cause, each message up to there is decoded in an isolated process, which "
            "is slower",
        )
        return max(ends)

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """Raise the mark if needed, before a message is decoded; while the store does not answer, do without."""
        mark = self._marks[tp]
        if offset < mark.until or self._clock() < self._again_s:
            return
        try:
            self._write(tp, offset + mark.size)
        except AdawiseError as error:
            self._again_s = self._clock() + _RETRY_S
            _log.warning("start_not_marked", topic=tp.topic, partition=tp.partition, error=str(error))
            return
        mark.until, mark.size, mark.is_written = offset + mark.size, min(2 * mark.size, _MOST), True

    def end(self, tp: TopicPartition) -> None:
        """Remove the mark when the partition is given up or the worker ends. One that remains counts as a death."""
        mark = self._marks.pop(tp, None)
        if mark is None or not mark.is_written:
            return
        try:
            self._store.delete(layout.start_key(tp, self._start))
        except RetryableError as error:
            _log.warning("start_not_unmarked", topic=tp.topic, partition=tp.partition, error=str(error))
        except AdawiseError:  # the worker may have permission to write, and not to delete
            with suppress(AdawiseError):
                self._write(tp, 0)

    def close(self) -> None:
        """Remove all marks."""
        for tp in list(self._marks):
            self.end(tp)

    def _write(self, tp: TopicPartition, until: int) -> None:
        document = {"layout": LAYOUT, "start": self._start, "until": until}
        self._store.put(layout.start_key(tp, self._start), json.dumps(document).encode())


def open_marks(store: Store, tp: TopicPartition, low_water: int) -> int:
    """Return the number of workers whose marks still mean something, with everything before `low_water` in rows.

    A worker that has the partition is among them. Fewer than `DEATHS` marks are counted unread. Raises
    StoreUnavailable.
    """
    keys = store.list(layout.starts_folder(tp))
    if len(keys) < DEATHS:
        return len(keys)
    return sum((until := _until(store, key)) is not None and until > low_water for key in keys)


def _until(store: Store, key: str) -> int | None:
    """Return the end of a mark; None if it is gone or cannot be read. It is only a hint, so the work goes on."""
    with suppress(ValueError, FatalError):
        if (data := store.get(key)) is not None:
            return read_document(_Stored, data).until
    return None
