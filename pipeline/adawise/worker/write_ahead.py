"""What sees each message beside the worker: a recording that has to be ahead of the chain. By default, nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from adawise.records import Message, TopicPartition


class WriteAheadRecorder(Protocol):
    """Takes every message that is delivered, and says whether it has it for good. Called from the main thread."""

    @property
    def share(self) -> float:
        """Of the memory that it may take, what is in use; above 1 the source is to be paused."""

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """The offset to read from, for a chain that needs `offset` next and a broker's log of [start, end).

        It is not above `offset`: what comes before is for the recording alone. To be called again whenever the
        partition is recovered. Raises SourceError if log and recording do not go together, StoreUnavailable.
        """

    def take(self, message: Message) -> None:
        """A message, in offset order; of a partition that was not begun, or one that it has already, it is ignored."""

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """True if everything that was taken below `until` is durable; it begins to be, or `wait` for it.

        Raises StoreUnavailable, BrokerUnavailable; SourceError if the topic is another one.
        """

    def turn(self, now_s: float) -> None:
        """Do what is due, without waiting; to be called once a step. Raises SourceError, SettingsError."""

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """These are no longer ours: whoever has them now reads again what is not durable."""

    def close(self) -> None:
        """Free everything. May be called twice."""


class NoRecorder:
    """Nothing is recorded."""

    share = 0.0

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """See `WriteAheadRecorder`."""
        del tp, log
        return offset

    def take(self, message: Message) -> None:
        """See `WriteAheadRecorder`."""

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """See `WriteAheadRecorder`."""
        del tp, until, wait
        return True

    def turn(self, now_s: float) -> None:
        """See `WriteAheadRecorder`."""

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """See `WriteAheadRecorder`."""

    def close(self) -> None:
        """See `WriteAheadRecorder`."""
