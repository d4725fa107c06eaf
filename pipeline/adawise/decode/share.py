"""The cameras that one shard of a replay serves, and which rows of a message are its own. Pure.

Every row has one shard. A row belongs to the shard of its camera, if the message names that camera outside its images
(`Decoder.streams`). All other rows of a partition, and its messages without a value, belong to one shard, the `rest`.
Cameras that were not known when the plan was made, because only Arrow batches name them, are divided by their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from adawise.decode.headers import read_headers, read_stream
from adawise.records import Message, TopicPartition


def may_name_by_row(message: Message) -> bool:
    """Return True if each row of a message may name a camera, or none: an Arrow batch without key and `stream-id`.

    False for a message that names one camera outside its value, and for a picture. By its first bytes, what is neither
    counts as a batch.
    """
    from adawise.decode.arrow_batch import ARROW_STREAM  # a plan needs no library that reads images
    from adawise.decode.codec import sniff

    if message.value is None or read_stream(message.key, message.headers).stated:
        return False
    # A batch may begin with the bytes of a picture, if its type is declared.
    is_declared = read_headers(message.key, message.headers).content_type == ARROW_STREAM
    return is_declared or sniff(message.value) is None


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

    def ours(self, message: Message, streams: frozenset[str]) -> frozenset[str]:
        """Return those of a message's streams that are of this shard."""
        owners = self.owners[message.topic_partition]
        return frozenset(stream for stream in streams if owners.of(stream) == self.shard)

    def takes(self, message: Message, streams: frozenset[str]) -> bool:
        """Return True if rows of a message may be of this shard; `streams` are all of which it may have images.

        A batch in which no stream was found may be of any shard: what read its column may have been killed.
        """
        is_rest = self.owners[message.topic_partition].rest == self.shard
        if message.value is None:
            return is_rest
        if self.ours(message, streams):
            return True
        by_row = may_name_by_row(message)
        return (is_rest and by_row) if streams else (is_rest or by_row)

    def keeps(self, message: Message, streams: frozenset[str], camera: str | None) -> bool:
        """Return True if a row of the message, reported as of `camera`, is of this shard."""
        owner = camera if message.value is not None and camera in streams else None
        return self.owners[message.topic_partition].of(owner) == self.shard
