"""The immediate reaction, on kafka-python's IO thread, when a rebalance gives or takes partitions.

A cooperative rebalance takes partitions in two steps: a member learns what is revoked, and only when it joins again can
others get those partitions. kafka-python joins again in the same poll if there is time left. Here it waits until the
worker has handled the revocation, so that there is a moment in which no other member owns the partition and its work
can be written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import TopicPartition as KafkaPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener

from adawise.kafka.ownership import Ownership
from adawise.records import TopicPartition


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """A listener on kafka-python's IO thread that pauses new partitions and leaves a note for `poll`."""

    def __init__(self, consumer: Any, owned: Ownership) -> None:
        self._consumer = consumer
        self._owned = owned

    def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Pause new partitions: nothing is fetched until the worker seeks and resumes."""
        partitions = sorted(assigned)
        for partition in partitions:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)  # any position: without one the client asks for the committed offset
        self._owned.note_assigned(TopicPartition(*partition) for partition in partitions)

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Note an orderly revocation: the partitions stay ours until this member joins again."""
        self._owned.note_revoked(TopicPartition(*partition) for partition in revoked)

    def on_partitions_lost(self, lost: Iterable[KafkaPartition]) -> None:
        """Note that this member was expelled: other members may own the partitions by now."""
        self._owned.note_lost(TopicPartition(*partition) for partition in lost)


def join_after_settling(coordinator: Any, owned: Ownership) -> None:
    """Keep this member from joining again before it has handled what was revoked (`Ownership.settle`)."""
    needs_to_join = coordinator.need_rejoin
    coordinator.need_rejoin = lambda: not owned.is_revoking and needs_to_join()


def why_expelled(*, busy_s: float, max_poll_interval_s: float) -> str:
    """Return cause and remedy, by the seconds between the last two polls; kafka-python's line names other settings."""
    if busy_s >= max_poll_interval_s:
        return (
            f"{busy_s:.1f} s passed between two polls, but kafka.max_poll_interval_ms allows "
            f"{max_poll_interval_s:g} s: raise it, or shorten a round with a lower batch.images or search.budget"
        )
    return (
        "no heartbeat reached the broker within kafka.session_timeout_ms: if this process was not paused, and "
        "broker and network worked, the machine is overloaded, or the setting is too low"
    )
