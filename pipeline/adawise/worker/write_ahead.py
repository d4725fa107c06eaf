"""The interface of a recording of the messages, which has to be durable before the chain. By default, none is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from adawise.records import Message, TopicPartition


class WriteAheadRecorder(Protocol):
    """A recorder, which takes every delivered message and makes it durable. Called from the main thread."""

    @property
    def share(self) -> float:
        """The share of its memory that is in use; above 1 the source is to be paused."""

    def begin(self, tp: TopicPartition, offset: int, log: tuple[int, int]) -> int:
        """Return the offset to read from, for a chain that needs `offset` next and a broker's log of [start, end).

        It is not above `offset`: messages before `offset` are for the recording alone. To be called again whenever the
        partition is recovered.

        Raises:
            SourceError: the log and the recording do not belong together.
            StoreUnavailable: the store does not answer.
        """

    def take(self, message: Message) -> None:
        """Take a message; messages come in offset order.

        A message of a partition that was not begun is ignored, as is one that the recording has already.
        """

    def ensure_durable(self, tp: TopicPartition, until: int, *, wait: bool) -> bool:
        """Return True if everything that was taken below `until` is durable; if not, begin to write it.

        With `wait`, return once it is durable.

        Raises:
            StoreUnavailable: the store does not answer.
            BrokerUnavailable: the broker does not answer.
            SourceError: the topic is another one.
        """

    def turn(self, now_s: float) -> None:
        """Do what is due, without waiting; to be called once a step.

        Raises:
            SourceError: the topic and the recording do not belong together.
            SettingsError: the recording cannot be written as it is set.
        """

    def forget(self, tps: Iterable[TopicPartition]) -> None:
        """Forget partitions that this worker no longer owns: their new owner reads again what is not durable."""

    def close(self) -> None:
        """Free everything. May be called twice."""


class NoRecorder:
    """A recorder that records nothing."""

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
