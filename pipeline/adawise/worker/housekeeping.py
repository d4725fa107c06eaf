"""Housekeeping beside the worker's loop: removes old output of the worker's partitions (`sink.keep`)."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from adawise.errors import AdawiseError
from adawise.records import TopicPartition
from adawise.worker.events import Event, PartitionLost, PartitionRecovered, Stepped, Stopped
from adawise.worker.passes import Passes

EVERY_S, FIRST_S = 3_600.0, 60.0  # between two passes; from the start of the worker to the first


class Housekeeping:
    """An observer that makes a pass over the worker's partitions once an hour, in a thread.

    Args:
        remove: removes the old files of a partition, and returns their number. Its second argument returns True once
            the call should end soon.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        remove: Callable[[TopicPartition, Callable[[], bool]], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remove, self._clock = remove, clock
        self._owned: set[TopicPartition] = set()
        self._log = structlog.get_logger("worker")
        self._passes = Passes[TopicPartition, int](
            self._pass,
            finished=self._log_removed,
            failed=self._failed,
            every_s=EVERY_S,
            first_s=FIRST_S,
            name="retention",
        )

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        match event:
            case PartitionRecovered():
                self._owned.add(event.tp)
            case PartitionLost():
                self._owned.discard(event.tp)
            case Stepped():
                self._passes.turn(self._owned, self._clock())
            case Stopped():
                self._passes.close()
            case _:
                pass

    def _pass(self, tps: list[TopicPartition], ends: Callable[[], bool]) -> int:
        removed, failed = 0, list[str]()
        for tp in sorted(tps):
            if ends():
                break
            try:
                removed += self._remove(tp, ends)
            except AdawiseError as error:  # a damaged partition must not let the others fill the disk
                failed.append(str(error))
        for each in failed:
            self._failed(each)
        return removed

    def _log_removed(self, files: int) -> None:
        if files:
            self._log.info(
                "files_retained", removed=files, note="sink.keep: output that was committed before is removed"
            )

    def _failed(self, error: str) -> None:
        self._log.warning("retention_failed", error=error, again_s=EVERY_S)
