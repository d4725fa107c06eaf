"""Bounded memory: the source is paused while too much is in hand, and resumed at half of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from adawise.ports import Source
from adawise.records import TopicPartition
from adawise.worker.decode_pool import Prefetch
from adawise.worker.partition import PartitionWork
from adawise.worker.write_ahead import WriteAheadRecorder

_log = structlog.get_logger("worker")

_FULL = (
    "more streams than limits.streams: those heard least begin anew when they come back; raise it, spread streams over "
    "more partitions, or look who sends under new names"
)
_MESSAGES = 0.25  # of the bytes: what is not decoded and waits in a fair order; the rest is for images


@dataclass(frozen=True)
class Limits:
    """What the worker holds at most: bytes under decode or waiting for the model, rows not yet committed.

    `round_images`: images gathered before the model runs, so that forwards are full.
    """

    inflight_bytes: int
    uncommitted_rows: int
    round_images: int


@dataclass
class Backpressure:
    """Holds the source back by the limits.

    A partition is paused for its own messages that are not decoded. Those that have more than half of an equal share
    are, once less than that is left for each of the others: so one alone may have it all, and no backlog takes the
    room of another. All are paused for what is nobody's own: rows that the store does not take, and the recording.
    Images pause nobody: where there is no room for them, nothing is decoded, and messages wait.
    """

    limits: Limits
    source: Source
    prefetch: Prefetch
    recorder: WriteAheadRecorder
    _paused: set[TopicPartition] = field(default_factory=set)
    _all: bool = False
    _evicted: dict[TopicPartition, int] = field(default_factory=dict)  # as was told last

    def begin(self, tp: TopicPartition) -> None:
        """It is read from now on, as soon as there is room; the source has paused it."""
        self._paused.add(tp)

    def apply(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Pause or resume by what is in hand now; to be called once a step."""
        for tp, work in owned.items():
            if work.evicted > 2 * self._evicted.get(tp, 0):  # a flood is told in a few lines
                self._evicted[tp] = work.evicted
                _log.warning(
                    "streams_evicted", topic=tp.topic, partition=tp.partition, evicted=work.evicted, note=_FULL
                )
        waiting = {tp: self.prefetch.waiting_bytes(tp) + work.letter_bytes for tp, work in owned.items()}
        most, total = _MESSAGES * self.limits.inflight_bytes, sum(waiting.values())
        fair = most / (2 * max(1, len(owned)))
        room = most - (len(owned) - 1) * fair
        rows = sum(work.rows for work in owned.values())
        share = max(rows / self.limits.uncommitted_rows, self.recorder.share)
        self._all = share >= 0.5 if self._all else share > 1.0
        self._paused &= owned.keys()
        pause = {tp for tp, size in waiting.items() if self._all or (total > room and size > fair)} - self._paused
        resume = {tp for tp in self._paused if not self._all and (total < room / 2 or waiting[tp] < fair / 2)}
        if pause:
            self.source.pause(list(pause))
        if resume:
            self.source.resume(list(resume))
        self._paused = (self._paused | pause) - resume
        self._make_room(owned.values())

    def is_full(self, works: Iterable[PartitionWork]) -> bool:
        """True if no more images are to be taken; where there is room, it is for those that are decoded next."""
        room = int((1.0 - _MESSAGES) * self.limits.inflight_bytes) - sum(work.image_bytes for work in works)
        self.prefetch.make_room(room)
        return room <= 0

    def _make_room(self, works: Collection[PartitionWork]) -> None:
        """Close batches early if they take all room for images: nothing more would ever come to complete them.

        Of the partition that has the most, so that none has to suffer for the names of another.
        """
        if self.is_full(works) and not any(work.ready for work in works):
            fullest = max(works, key=lambda work: work.image_bytes)
            _log.warning(
                "batches_closed_early",
                partition=fullest.tp.partition,
                open_bytes=fullest.image_bytes,
                batches=fullest.close_oldest(fullest.image_bytes // 2 + 1),
                remedy="the open batches of all streams do not fit: raise limits.inflight_mib, or lower batch.images",
            )
