"""The memory of workers that were killed while they had a partition, so that later workers isolate what they read.

By default nothing is remembered.
"""

from __future__ import annotations

from typing import Protocol

from adawise.records import TopicPartition


class Starts(Protocol):
    """A record of the workers that had a partition and did not end in order, and of what they may have read.

    Called from the main thread.
    """

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """Note that this worker reads a partition, whose offsets before `low_water` are in rows.

        Returns:
            The offset below which messages may have killed earlier workers; they are to be decoded in isolation.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """Note that a message of a partition that was begun is about to be decoded. Never raises."""

    def end(self, tp: TopicPartition) -> None:
        """Note that this worker let the partition go in order. Never raises."""

    def close(self) -> None:
        """Note that this worker ends in order. Never raises."""


class NoStarts:
    """A record that remembers nothing."""

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """See `Starts`."""
        del tp, low_water
        return 0

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """See `Starts`."""

    def end(self, tp: TopicPartition) -> None:
        """See `Starts`."""

    def close(self) -> None:
        """See `Starts`."""
