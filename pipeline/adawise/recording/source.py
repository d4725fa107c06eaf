"""A recording as a source, by the same contract as a topic: a replay is the same worker on this source.

Within a partition the order is the recording's. The interleaving of partitions is a choice, because no result may
depend on it: by the broker's timestamps, by offset, or shuffled by a seed, which is how tests prove it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from adawise.errors import SourceError
from adawise.kafka.ownership import Ownership
from adawise.ports import Poll, TopicIdentity
from adawise.recording import format as layout
from adawise.recording.files import Forgotten, RecordedPartition, listing_of
from adawise.recording.format import read_manifest
from adawise.records import Message, TopicPartition
from adawise.store.store import open_store

Order = Literal["timestamp", "offset", "shuffled"]

_MAX_POLL_BYTES = 64 << 20  # of values in one poll
_IDLE_S = 0.01


class RecordedLog:
    """The log of a recording, as `adawise.ports.SourceLog`. Raises SourceError if there is none, or it is damaged."""

    def __init__(self, root: str, forgotten: Forgotten) -> None:
        self._root = root
        store = open_store(root)
        self._manifest = read_manifest(store, root, "Make one with `adawise record`.")
        named = [name for key in store.list(f"topic-{self._manifest.topic}/") if (name := layout.named(key))]
        # The topic may have got more partitions since.
        count = max([self._manifest.partitions, *(name.tp.partition + 1 for name in named)])
        self._identity = replace(self._manifest.identity, partitions=count)
        tps = [TopicPartition(self._manifest.topic, number) for number in range(count)]
        self.partitions = {tp: RecordedPartition(listing_of(root, store, tp), forgotten) for tp in tps}

    @property
    def topic(self) -> str:
        """The topic that was recorded."""
        return self._manifest.topic

    def identity(self, topic: str) -> TopicIdentity:
        """See `SourceLog.identity`: the topic's identity when it was recorded."""
        if topic != self._manifest.topic:
            raise SourceError(f"{self._root} is a recording of topic {self._manifest.topic!r}, not of {topic!r}")
        return self._identity

    def check(self) -> None:
        """See `SourceLog.check`: a recording is of one topic, so nothing can differ."""

    def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        """See `SourceLog.bounds`; (0, 0) for a partition of which nothing was recorded."""
        return self.partition(tp).bounds

    def timestamps(self, tp: TopicPartition, first: int, until: int) -> Mapping[int, int]:
        """See `SourceLog.timestamps`; empty, as a recording cannot change."""
        del tp, first, until
        return {}

    def origin(self, tp: TopicPartition) -> int:
        """See `SourceLog.origin`: where the recording begins."""
        return self.bounds(tp)[0]

    def offset_at(self, tp: TopicPartition, timestamp_ms: int) -> int | None:
        """Return the first offset that is not older than `timestamp_ms`; None if every message is older."""
        return self.partition(tp).first_at(timestamp_ms)

    def partition(self, tp: TopicPartition) -> RecordedPartition:
        """Return the files of a partition; raise SourceError if the recording has no such partition."""
        try:
            return self.partitions[tp]
        except KeyError:
            names = f"{self._manifest.topic}/0 to {self._manifest.topic}/{self._identity.partitions - 1}"
            raise SourceError(f"{self._root} is a recording of {names}, not of {tp}") from None


class RecordingSource:
    """A recorded topic, as `adawise.ports.Source`; all its partitions are assigned by the first poll.

    It holds in memory one row group of each partition that is being read, and one poll.

    Args:
        root: the folder of the recording, or the URL of one.
        order: how partitions interleave; "timestamp" is the order in which the messages came to the broker.
        seed: for "shuffled", which also varies how many messages a poll delivers.
        max_poll_records: the most messages that one poll delivers.
        forgotten: "fail" if messages without images are an error, "skip" to leave a hole.

    Raises:
        SourceError: there is no recording, or it is damaged.
    """

    def __init__(
        self, root: str, *, order: Order, seed: int, max_poll_records: int, forgotten: Forgotten = "fail"
    ) -> None:
        self.log = RecordedLog(root, forgotten)
        self._order: Order = order
        self._random = random.Random(seed)
        self._max_poll_records = max_poll_records
        self._partitions = self.log.partitions
        self._owned = Ownership()
        self._owned.note_assigned(self._partitions)
        self._paused: set[TopicPartition] = set()

    @property
    def topic(self) -> str:
        """The topic that was recorded."""
        return self.log.topic

    @property
    def exhausted(self) -> bool:
        """True once everything was delivered."""
        return bool(self._owned) and all(self.drained(tp) for tp in self._partitions)

    def poll(self, timeout_s: float) -> Poll:
        """See `Source.poll`. Raise SourceError where the recording is damaged."""
        assigned, lost = self._owned.settle()
        self._paused.update(assigned)
        limit = self._random.randint(1, self._max_poll_records) if self._order == "shuffled" else self._max_poll_records
        messages: list[Message] = []
        size_bytes = 0
        while len(messages) < limit and size_bytes < _MAX_POLL_BYTES:
            heads = {
                tp: partition
                for tp, partition in self._partitions.items()
                if self._owned.is_sought(tp) and tp not in self._paused and partition.head is not None
            }
            if not heads:
                break
            messages.append(heads[self._next(heads)].take())
            size_bytes += len(messages[-1].value or b"")
        if not (messages or assigned or lost):
            time.sleep(min(timeout_s, _IDLE_S))  # everything is paused or over: waiting longer would bring nothing
        return Poll(messages, assigned, lost)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `Source.seek`. Raise ValueError if the partition is not owned."""
        self._owned.seek(tp)
        self.log.partition(tp).seek(offset)

    def pause(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.pause`."""
        self._paused.update(tps)

    def resume(self, tps: Sequence[TopicPartition]) -> None:
        """See `Source.resume`. Raise ValueError for a partition that was assigned and not sought yet."""
        self._owned.expect_sought(tps)
        self._paused.difference_update(tps)

    def drained(self, tp: TopicPartition) -> bool:
        """See `Source.drained`."""
        return self.lag(tp) == 0

    def blocked(self, tp: TopicPartition) -> bool:  # noqa: ARG002 - the port's
        """See `Source.blocked`: what could not be read is a gap of the recording."""
        return False

    def lag(self, tp: TopicPartition, since: int = 0) -> int | None:
        """See `Source.lag`."""
        if not self._owned.is_sought(tp):
            return None
        partition = self.log.partition(tp)
        return max(0, partition.bounds[1] - max(since, partition.position))

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """See `Source.commit`; a recording has no committed offsets."""

    def close(self) -> None:
        """See `Source.close`."""
        for partition in self._partitions.values():
            partition.close()
        self._owned.clear()

    def _next(self, heads: Mapping[TopicPartition, RecordedPartition]) -> TopicPartition:
        if self._order == "shuffled":
            return self._random.choice(sorted(heads))
        if self._order == "offset":
            return min(heads, key=lambda tp: (heads[tp].position, tp))
        return min(heads, key=lambda tp: (heads[tp].time_ms, tp))
