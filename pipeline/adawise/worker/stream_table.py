"""The table of streams that keep a state when a partition has more stream names than places for states. Pure.

A name costs its sender nothing, but a state is kilobytes in each footer. So a partition has a bounded number of places.
A stream takes one with its first message; when none is left, another stream is evicted. Seven eighths of the places are
safe: they belong to the streams that were seen in the most messages. The other streams, newcomers among them, compete:
the one that was seen longest ago is evicted, so that a new camera gets a place between made-up names. A sender that
wants the place of a camera that was seen a thousand times must send as many messages under each of as many names as
there are safe places.

A stream that takes a place when all are taken begins anew, and its trace says so (`CROWDED`), because it may have had a
place before. All of this follows from the messages in the order of their offsets, never from where segments were cut or
what was served when, so that a replay finds the same. The table is part of the footer, beside the states.

The table also counts, by offset, the images of each stream that were rejected since its last batch. A batch counts
those up to its last image, whatever was decoded behind it before it was served.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Container, Mapping
from typing import Any

from adawise.adapt.last_seen import batches_in
from adawise.records import ImageBatch

CROWDED = "crowded"
"""The reason of the reset of a stream that took its place when all were taken."""

_CONTESTED = 8  # one in so many places is contested, the others are safe


class StreamTable:
    """The streams of a partition that have a place.

    Args:
        limit: the number of places, at least 8.
        stored: the table as `stored` returned it; empty if the states were written by a version without a table.
        states: the serialised states of the partition's head. Without a table, they say how often a stream was seen.

    Attributes:
        evicted: streams that were evicted since the table was made.

    Raises:
        ChainError: a state cannot be read.
    """

    def __init__(self, limit: int, stored: bytes, states: Mapping[str, bytes]) -> None:
        self._limit, self._safe = limit, limit - limit // _CONTESTED
        parts: dict[str, Any] = json.loads(stored) if stored else {}
        received = parts["heard"] if stored else {name: (batches_in(data), -1) for name, data in states.items()}
        self._received: dict[str, tuple[int, int]] = {
            stream: (count, last) for stream, (count, last) in received.items()
        }
        self._ranks = sorted((count, last, stream) for stream, (count, last) in self._received.items())
        # Offsets at which a stream took a place when all were taken, and after which no batch of it was served yet.
        self._entered: dict[str, list[int]] = parts.get("entered", {})
        # Rejected images that are not counted yet, in groups with no end of a batch within: the offset of the first,
        # and how many; None for those of an earlier version, which did not count them.
        unknown: dict[str, list[list[Any]]] = {stream: [[-1, None]] for stream in self._received}
        self._rejected: dict[str, list[list[Any]]] = parts.get("rejected", unknown)
        self._images: dict[str, int] = {}  # the last offset of a stream's images that are not served
        self.evicted = 0
        while len(self._received) > limit:
            self._evict()

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._received

    def last_offsets(self) -> dict[str, int]:
        """Return the offset of each stream's last message; -1 where that is not known."""
        return {stream: last for stream, (_, last) in self._received.items()}

    def receive(self, stream_id: str, offset: int, *, is_served: bool = True) -> None:
        """Note that a message may have images of the stream; to be called once for each, in the order of offsets.

        `is_served` is False for a stream that another worker serves: it has a place as any other, and no batches.
        """
        count, last = self._received.get(stream_id, (0, offset))
        if count:
            del self._ranks[bisect_left(self._ranks, (count, last, stream_id))]
        self._received[stream_id] = count + 1, offset
        insort(self._ranks, (count + 1, offset, stream_id))
        if len(self._received) > self._limit:
            if is_served:
                self._entered.setdefault(stream_id, []).append(offset)
            self._evict()

    def reject(self, stream_id: str, offset: int) -> None:
        """Note that an image of a stream was rejected, whose message was noted by `receive`.

        To be called before `accept` of the other images of the message.
        """
        groups = self._rejected.setdefault(stream_id, [])
        if groups and not self._parts(stream_id, groups[-1], offset):
            groups[-1][1] += 1
        else:
            groups.append([offset, 1])

    def _parts(self, stream_id: str, group: list[Any], offset: int) -> bool:
        """Return True if a batch may end, or the stream takes a place, between a group and an image rejected there."""
        first, count = group
        entered = any(first < at <= offset for at in self._entered.get(stream_id, ()))
        return count is None or entered or (first < offset and self._images.get(stream_id, -1) >= first)

    def accept(self, stream_id: str, offset: int) -> None:
        """Note that a message has accepted images of the stream; to be called in the order of the stream's offsets."""
        self._images[stream_id] = max(offset, self._images.get(stream_id, -1))

    def begins_anew(self, batch: ImageBatch) -> bool:
        """Return True if the stream took its place, when all were taken, after its last batch and not after this."""
        entered = self._entered.get(batch.stream_id)
        return entered is not None and entered[0] <= batch.frames[-1].row_id.offset

    def served(self, batch: ImageBatch) -> int | None:
        """Note that the batch is done, and return how many images of its stream were rejected since the batch before.

        For a stream that took its place when all were taken, they are counted since it took the place. None if the
        number is not known, because an earlier version read some of them.
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
        """Return the table as JSON.

        Args:
            waiting: the streams with images that were read and are not served; None: any stream may have some.
        """
        if waiting is not None:
            self._entered = {s: offsets for s, offsets in self._entered.items() if s in self._received or s in waiting}
            left = {s: groups if s in waiting else self._left(s, groups) for s, groups in self._rejected.items()}
            self._rejected = {stream: groups for stream, groups in left.items() if groups}
        parts = {
            "limit": self._limit,
            "heard": self._received,
            "entered": dict(sorted(self._entered.items())),
            "rejected": dict(sorted(self._rejected.items())),
        }
        return json.dumps(parts, separators=(",", ":")).encode()

    def _left(self, stream_id: str, groups: list[list[Any]]) -> list[list[Any]]:
        """Return those groups of rejected images that a batch of which no message was read yet will count."""
        since = self._entered.get(stream_id, [-1])[-1]
        return [group for group in groups if group[0] >= since] if stream_id in self._received else []

    def _evict(self) -> None:
        contested = range(len(self._ranks) - self._safe)
        _, _, stream = self._ranks.pop(min(contested, key=lambda rank: self._ranks[rank][1]))
        del self._received[stream]
        self.evicted += 1
