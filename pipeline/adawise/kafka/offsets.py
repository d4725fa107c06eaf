"""What lag tools see: the group's committed offsets. Of ours, only a start reads them.

A log can end in offsets that hold no message: markers of transactions, what was aborted, what compaction removed. Once
the chain has every message that was delivered, what is committed is how far the client has read, and not the offset
after the last message; else tools would show a lag that never goes away.

Beside each stands the id of the root that has what comes before it: two workers of one group with different roots would
take partitions from each other, and each output would lack what the other has (`sink.owner`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import errors
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as KafkaPartition

from adawise.records import Message, TopicPartition

log = logging.getLogger(__name__)


class OffsetHints:
    """The offsets of one group.

    Args:
        consumer: kafka-python's, a member of the group.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._delivered: dict[TopicPartition, int] = {}  # the offset after the last message, or where reading began

    def began(self, tp: TopicPartition, offset: int) -> None:
        """Messages of the partition come from `offset` on."""
        self._delivered[tp] = offset

    def delivered(self, messages: Iterable[Message]) -> None:
        """These were handed out."""
        for message in messages:
            self._delivered[message.topic_partition] = message.next_offset

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Tell the broker, without waiting, what is done of partitions that the consumer has, with a note for whoever
        begins on these partitions next. Never raises.
        """
        hints = {KafkaPartition(*tp): OffsetAndMetadata(self._past(tp, at), note, -1) for tp, at in offsets.items()}
        try:
            self._consumer.commit_async(hints, callback=_log_commit)
        except errors.KafkaError as error:
            _log_commit(hints, error)

    def _past(self, tp: TopicPartition, at: int) -> int:
        """`at`, or the position behind it if no message lies between the two."""
        if at < self._delivered.get(tp, at + 1):
            return at
        try:
            position = self._consumer.position(KafkaPartition(*tp), timeout_ms=0)
        except errors.KafkaError:
            return at
        return max(at, position or 0)


def _log_commit(offsets: Mapping[Any, Any], outcome: object) -> None:
    if isinstance(outcome, Exception):
        log.warning("offset hint %s was not committed: %s", {str(tp): o.offset for tp, o in offsets.items()}, outcome)
