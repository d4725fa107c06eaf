"""Which streams of a partition keep a state once more names have come than there may be states. Pure.

A name costs its sender nothing, a state is kilobytes in each footer. So a partition has places. A stream takes one with
its first message; when none is left, one leaves. Seven eighths of the places are safe: they belong to the streams that
were heard in the most messages. The others, newcomers among them, compete: of these the one that was heard longest ago
leaves, so that a new camera comes in between strangers. Whoever would take the place of a camera that was heard a
thousand times has to be heard as often, under as many names as there are safe places.

A stream that takes a place while others wait for one begins anew, and its trace says so (`CROWDED`): it may have been
here before. All of that follows from the messages in the order of their offsets, never from where segments were cut or
what was served when, so that a replay finds the same. The table is part of the footer, beside the states.

It also counts the images of each stream that were rejected since its last batch, by offset: a batch counts those up to
its last image, whatever was decoded behind it before it was served.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Container, Mapping
from typing import Any

from adawise.adapt.heard import batches_in
from adawise.records import ImageBatch

CROWDED = "crowded"
"""The reset of a stream that took its place when all were taken."""

_CONTESTED = 8  # one in so many places is


class StreamTable:
    """The streams of a partition that have a place.

    Args:
        limit: places, at least 8.
        stored: as `stored` gave it; empty if whoever wrote the states had no table.
        states: of the partition's head, serialised: they say how often a stream was heard, if there was no table.

    Raises:
        ChainError: a state cannot be read.
    """

    def __init__(self, limit: int, stored: bytes, states: Mapping[str, bytes]) -> None:
        self._limit, self._safe = limit, limit - limit // _CONTESTED
        parts: dict[str, Any] = json.loads(stored) if stored else {}
        heard = parts["heard"] if stored else {name: (batches_in(data), -1) for name, data in states.items()}
        self._heard: dict[str, tuple[int, int]] = {stream: (count, last) for stream, (count, last) in heard.items()}
        self._ranks = sorted((count, last, stream) for stream, (count, last) in self._heard.items())
        self._entered: dict[str, list[int]] = parts.get("entered", {})  # when all were taken; not served yet
        # Groups of rejected images that no batch parts, not counted yet: the first one's offset, and how many; None for
        # those that an earlier version passed over.
        unknown: dict[str, list[list[Any]]] = {stream: [[-1, None]] for stream in self._heard}
        self._rejected: dict[str, list[list[Any]]] = parts.get("rejected", unknown)
        self._images: dict[str, int] = {}  # the last offset of a stream's images that are not served
        self.evicted = 0  # since the table was made
        while len(self._heard) > limit:
            self._evict()

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._heard

    def last_offsets(self) -> dict[str, int]:
        """Return the offset of each stream's last message; -1 where that is not known."""
        return {stream: last for stream, (_, last) in self._heard.items()}

    def hear(self, stream_id: str, offset: int) -> None:
        """A message may have images of the stream; to be called once, in the order of offsets."""
        count, last = self._heard.get(stream_id, (0, offset))
        if count:
            del self._ranks[bisect_left(self._ranks, (count, last, stream_id))]
        self._heard[stream_id] = count + 1, offset
        insort(self._ranks, (count + 1, offset, stream_id))
        if len(self._heard) > self._limit:
            self._entered.setdefault(stream_id, []).append(offset)
            self._evict()

    def reject(self, stream_id: str, offset: int) -> None:
        """An image of a stream that was heard there is rejected; before `accept` of the others of its message."""
        groups = self._rejected.setdefault(stream_id, [])
        if groups and not self._parts(stream_id, groups[-1], offset):
            groups[-1][1] += 1
        else:
            groups.append([offset, 1])

    def _parts(self, stream_id: str, group: list[Any], offset: int) -> bool:
        """True if a batch may end, or the stream take a place, between a group and what is rejected at an offset."""
        first, count = group
        entered = any(first < at <= offset for at in self._entered.get(stream_id, ()))
        return count is None or entered or (first < offset and self._images.get(stream_id, -1) >= first)

    def accept(self, stream_id: str, offset: int) -> None:
        """A message has images of the stream, which are to be served; in the order of the stream's offsets."""
        self._images[stream_id] = max(offset, self._images.get(stream_id, -1))

    def begins_anew(self, batch: ImageBatch) -> bool:
        """True if the stream took its place, when all were taken, after its last batch and not after this one."""
        entered = self._entered.get(batch.stream_id)
        return entered is not None and entered[0] <= batch.frames[-1].row_id.offset

    def served(self, batch: ImageBatch) -> int | None:
        """The batch is done. How many images of its stream were rejected since its last one; None if nobody knows.

        Of a stream that takes its place when all were taken: since it took that.
        """
        stream_id, last = batch.stream_id, batch.frames[-1].row_id.offset
        entered, groups = self._entered.pop(stream_id, []), self._rejected.pop(stream_id, [])
        since = max((offset for offset in entered if offset <= last), default=-1)
        counts = [count for first, count in groups if since <= first <= last]
        if later := [offset for offset in entered if offset > last]:
            self._entered[stream_id] = later
        if uncounted := [group for group in groups if group[0] > last]:
            self._rejected[stream_id] = uncounted
        if self._images.get(stream_id, -1) <= last:
            self._images.pop(stream_id, None)
        return None if None in counts else sum(counts)

    def stored(self, waiting: Container[str] | None) -> bytes:
        """The table as JSON. `waiting` are streams with images that were heard of and are not served; None: any may."""
        if waiting is not None:
            self._entered = {s: offsets for s, offsets in self._entered.items() if s in self._heard or s in waiting}
            left = {s: groups if s in waiting else self._left(s, groups) for s, groups in self._rejected.items()}
            self._rejected = {stream: groups for stream, groups in left.items() if groups}
        parts = {
            "limit": self._limit,
            "heard": self._heard,
            "entered": dict(sorted(self._entered.items())),
            "rejected": dict(sorted(self._rejected.items())),
        }
        return json.dumps(parts, separators=(",", ":")).encode()

    def _left(self, stream_id: str, groups: list[list[Any]]) -> list[list[Any]]:
        """Of rejected images, those that a batch counts of which nothing was heard yet."""
        since = self._entered.get(stream_id, [-1])[-1]
        return [group for group in groups if group[0] >= since] if stream_id in self._heard else []

    def _evict(self) -> None:
        contested = range(len(self._ranks) - self._safe)
        _, _, stream = self._ranks.pop(min(contested, key=lambda rank: self._ranks[rank][1]))
        del self._heard[stream]
        self.evicted += 1
