"""The group's committed offsets, which lag tools show. In this project, only a starting worker reads them.

A log can end in offsets that hold no message: transaction markers, aborted records, compacted records. Once the chain
has every delivered message, the client's position is committed, not the offset after the last message. Otherwise tools
would show a lag that never goes away.

The metadata of each committed offset is the id of the output root that has everything before it. Two workers of one
group with different roots would take partitions from each other, and each output would lack what the other has
(`sink.owner`).
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
        consumer: kafka-python's consumer, a member of the group.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._delivered: dict[TopicPartition, int] = {}  # offset after the last message, or where reading began

    def began(self, tp: TopicPartition, offset: int) -> None:
        """Note that messages of the partition are delivered from `offset` on."""
        self._delivered[tp] = offset

    def delivered(self, messages: Iterable[Message]) -> None:
        """Note that these messages were delivered."""
        for message in messages:
            self._delivered[message.topic_partition] = message.next_offset

    def commit(self, offsets: Mapping[TopicPartition, int], note: str = "") -> None:
        """Commit, without waiting, the offsets reached in partitions that the consumer has; never raise.

        `note` becomes their metadata, for the worker that begins on these partitions next.
        """
        hints = {KafkaPartition(*tp): OffsetAndMetadata(self._past(tp, at), note, -1) for tp, at in offsets.items()}
        try:
            self._consumer.commit_async(hints, callback=_log_commit)
        except errors.KafkaError as error:
            _log_commit(hints, error)

    def _past(self, tp: TopicPartition, at: int) -> int:
        """Return `at`, or the client's position behind it if no delivered message lies between the two."""
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
