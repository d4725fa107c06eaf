"""A rebalance gives or takes partitions: what is done at once, on kafka-python's IO thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import TopicPartition as KafkaPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from pipeline.records import TopicPartition
from pipeline.source.ownership import Ownership


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on kafka-python's IO thread: holds new partitions back and leaves a note for `poll`."""

    def __init__(self, consumer: Any, owned: Ownership) -> None:
        self._consumer = consumer
        self._owned = owned

    def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Hold back: nothing is fetched until someone seeks and resumes."""
        partitions = sorted(assigned)
        for partition in partitions:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)  # any position: without one the client asks for the committed offset
        self._owned.note_assigned(TopicPartition(*partition) for partition in partitions)

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Revoked or, as kafka-python passes that on to here, lost."""
        self._owned.note_lost(TopicPartition(*partition) for partition in revoked)
