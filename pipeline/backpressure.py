"""Bounded memory: the source is paused while too much is in hand, and resumed at half of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from pipeline.partition import PartitionWork
from pipeline.ports import Source
from pipeline.prefetch import Prefetch
from pipeline.records import TopicPartition
from pipeline.tap import Tap

_log = structlog.get_logger("worker")

_FULL = (
    "more streams than limits.streams: those heard least begin anew when they come back; raise it, spread streams over "
    "more partitions, or look who sends under new names"
)


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
    """Holds the source back by the limits. `paused`: nothing is delivered for now, of any partition."""

    limits: Limits
    source: Source
    prefetch: Prefetch
    tap: Tap
    paused: bool = False
    _evicted: dict[TopicPartition, int] = field(default_factory=dict)  # as was told last

    def apply(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Pause or resume by what is in hand now; to be called once a step."""
        for tp, work in owned.items():
            if work.evicted > 2 * self._evicted.get(tp, 0):  # a flood is told in a few lines
                self._evicted[tp] = work.evicted
                _log.warning(
                    "streams_evicted", topic=tp.topic, partition=tp.partition, evicted=work.evicted, note=_FULL
                )
        in_hand = self.prefetch.bytes + sum(work.bytes for work in owned.values())
        rows = sum(work.rows for work in owned.values())
        share = max(in_hand / self.limits.inflight_bytes, rows / self.limits.uncommitted_rows, self.tap.share)
        if not self.paused and share > 1.0:
            self.source.pause(list(owned))
            self.paused = True
        elif self.paused and share < 0.5:
            self.source.resume(list(owned))
            self.paused = False
        elif self.paused and self.prefetch.is_empty and not any(work.ready for work in owned.values()):
            self._make_room(owned)

    def _make_room(self, owned: Mapping[TopicPartition, PartitionWork]) -> None:
        """Close batches early if they are what keeps us paused: nothing more would ever come to complete them."""
        open_bytes = sum(work.image_bytes for work in owned.values())
        if open_bytes < self.limits.inflight_bytes // 2:
            return  # it is rows or letters that wait, for the store or the broker
        closed = sum(work.close_oldest(work.image_bytes // 2 + 1) for work in owned.values())
        _log.warning(
            "batches_closed_early",
            batches=closed,
            open_bytes=open_bytes,
            remedy="the open batches of all streams do not fit: raise limits.inflight_mib, or lower batch.images",
        )
