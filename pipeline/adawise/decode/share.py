"""The cameras that one shard of a replay serves, and which rows of a message are its own. Pure.

Every row has one shard. A row belongs to the shard of its camera, if the message names that camera outside its images
(`Decoder.streams`). All other rows of a partition, and its messages without a value, belong to one shard, the `rest`.
Cameras that were not known when the plan was made, because only Arrow batches name them, are divided by their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from adawise.decode.headers import read_stream
from adawise.records import Message, TopicPartition


@dataclass(frozen=True, slots=True)
class Owners:
    """The shards that serve the cameras of a partition.

    Attributes:
        cameras: the shard of each camera that the plan knows.
        readers: the shards that read the partition, ascending.
        rest: the shard of messages and rows without a camera.
    """

    cameras: Mapping[str, int]
    readers: tuple[int, ...]
    rest: int

    def of(self, camera: str | None) -> int:
        """Return the shard of a camera; None is for rows without one."""
        if camera is None:
            return self.rest
        known = self.cameras.get(camera)
        # Python's own hash differs between processes.
        return self.readers[zlib.crc32(camera.encode()) % len(self.readers)] if known is None else known


@dataclass(frozen=True, slots=True)
class CameraShare:
    """The share of one shard: what it serves of each partition that it reads."""

    shard: int
    owners: Mapping[TopicPartition, Owners]

    def takes(self, message: Message, streams: frozenset[str]) -> frozenset[str] | None:
        """Return the streams of a message that are of this shard; None if no row of the message is.

        `streams` are all of which the message may have images. The result is empty for a message that may have rows
        without a camera, which are of this shard.
        """
        owners = self.owners[message.topic_partition]
        if ours := frozenset(stream for stream in streams if owners.of(stream) == self.shard):
            return ours if message.value is not None or owners.rest == self.shard else None
        if owners.rest != self.shard:
            return None
        # A key or a header names the camera of every row. Without them, each row of an Arrow batch may name one or not.
        names_all = streams and message.value is not None and read_stream(message.key, message.headers).stated
        return None if names_all else frozenset()

    def keeps(self, message: Message, streams: frozenset[str], camera: str | None) -> bool:
        """Return True if a row of the message, reported as of `camera`, is of this shard."""
        owner = camera if message.value is not None and camera in streams else None
        return self.owners[message.topic_partition].of(owner) == self.shard
