"""What remembers that workers were killed while they had a partition, so that others take care. By default, nothing."""

from __future__ import annotations

from typing import Protocol

from adawise.records import TopicPartition


class Starts(Protocol):
    """Knows which workers had a partition and did not end in order, and what they may have read.

    Called from the main thread.
    """

    def begin(self, tp: TopicPartition, low_water: int) -> int:
        """The partition is ours, and all before `low_water` in rows; what is below the result may have killed others.

        Raises StoreUnavailable.
        """

    def reads(self, tp: TopicPartition, offset: int) -> None:
        """A message of a partition that was begun is about to be decoded. Never raises."""

    def end(self, tp: TopicPartition) -> None:
        """The partition was let go, in order. Never raises."""

    def close(self) -> None:
        """The worker ends, in order. Never raises."""


class NoStarts:
    """Nothing is remembered."""

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
