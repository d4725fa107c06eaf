"""A round: one batch of each of many streams, adapted together, so that their trials share forwards."""

from __future__ import annotations

from collections.abc import Iterable

from adawise.records import ImageBatch
from adawise.worker.partition import PartitionWork


def next_round(works: Iterable[PartitionWork]) -> list[tuple[PartitionWork, ImageBatch]]:
    """Take the first ready batch of each stream of each partition: one batch of a stream is in flight at a time."""
    taken = []
    for work in works:
        streams: set[str] = set()
        for batch in list(work.ready):
            if batch.stream_id not in streams:
                streams.add(batch.stream_id)
                work.ready.remove(batch)
                taken.append((work, batch))
    return taken
