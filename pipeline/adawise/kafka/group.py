"""The consumer group: a check that it can be joined, what a rebalance does, its members and committed offsets.

A cooperative rebalance takes partitions in two steps: a member learns what is revoked, and only when it joins again can
others get those partitions. kafka-python joins again in the same poll if there is time left. Here it waits until the
worker has handled the revocation, so that there is a moment in which no other member owns the partition and its work
can be written.

Lag tools show the group's committed offsets; in this project, only a starting worker reads them. A log can end in
offsets that hold no message: transaction markers, aborted records, compacted records. Once the chain has every
delivered message, the client's position is committed, not the offset after the last message. Otherwise tools would show
a lag that never goes away.

The metadata of each committed offset is the id of the output root that has everything before it. Two workers of one
group with different roots would take partitions from each other, and each output would lack what the other has
(`sink.owner`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, errors
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import MemberState, OffsetAndMetadata

from adawise.kafka.client import REQUEST_TIMEOUT_MS, kafka_errors, open_client
from adawise.kafka.ownership import Ownership
from adawise.records import Message, TopicPartition

_CLOSE_MS, _AGAIN_S = 5_000, 0.1


def check_group(
    *,
    bootstrap_servers: str,
    topic: str,
    group: str,
    client_id: str,
    session_timeout_ms: int,
    security: Mapping[str, object],
) -> None:
    """Ask to join as a worker does, and leave once the broker has assigned a member id: no other member notices.

    Raises:
        FatalError, SettingsError: the group may not be read, or not with this session timeout or assignor.
        BrokerUnavailable: no broker answered.
    """
    consumer: Any = open_client(
        KafkaConsumer,
        bootstrap_servers,
        security,
        client_id=f"{client_id}-check",
        group_id=group,
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
        allow_auto_create_topics=False,
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=min(3_000, session_timeout_ms // 3),
    )
    try:
        with kafka_errors(bootstrap_servers, f"join group {group!r}"):
            consumer.subscribe([topic])
            _request_join(consumer._coordinator, consumer._client._net)
    finally:
        consumer.close(timeout_ms=_CLOSE_MS)


def _request_join(coordinator: Any, net: Any) -> None:
    """Ask to join until the broker assigns a member id.

    Raises:
        KafkaError: at once if it is final; a passing one, as from a broker that has just started, after 10 s.
    """
    give_up_s = time.monotonic() + REQUEST_TIMEOUT_MS / 1000
    while True:
        try:
            if not coordinator.ensure_coordinator_ready(timeout_ms=REQUEST_TIMEOUT_MS):
                raise errors.CoordinatorNotAvailableError()
            net.run(coordinator._do_join_and_sync_async)
        except errors.MemberIdRequiredError:  # the broker has checked by then all that it can refuse
            # The embedded broker counts each client with an id as a member. `close` gives the id back, but not in state
            # UNJOINED.
            coordinator.state = MemberState.REBALANCING
            return
        except errors.RetriableError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


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
        except Exception as error:  # noqa: BLE001  # a hint must not end the work, whatever the client raises
            _log_commit(hints, error)

    def _past(self, tp: TopicPartition, at: int) -> int:
        """Return `at`, or the client's position behind it if no delivered message lies between the two."""
        if at < self._delivered.get(tp, at + 1):
            return at
        try:
            position = self._consumer.position(KafkaPartition(*tp), timeout_ms=0)
        except Exception:  # noqa: BLE001  # as in `commit`
            return at
        return max(at, position or 0)


def _log_commit(offsets: Mapping[Any, Any], outcome: object) -> None:
    if isinstance(outcome, Exception):
        log.warning("offset hint %s was not committed: %s", {str(tp): o.offset for tp, o in offsets.items()}, outcome)


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group. `host` is its address as the broker sees it."""

    member_id: str
    client_id: str
    host: str
    partitions: Sequence[TopicPartition]


@dataclass(frozen=True, slots=True)
class Membership:
    """The state of a group as the broker names it (Stable, PreparingRebalance, Empty, Dead, ...), and its members."""

    state: str
    members: Sequence[GroupMember]


_NOBODY = (errors.GroupIdNotFoundError, errors.CoordinatorNotAvailableError)


def members_of(admin: Any, group: str) -> Membership:
    """Ask the group's coordinator for its members; raise KafkaError.

    kafka-python's own describe call also asks for the caller's rights, and cannot read what the embedded broker answers
    about them. A group that never existed has the state Dead and no members.
    """

    async def request() -> Any:
        # The client never forgets which broker coordinates a group (see `KafkaTopics.committed`).
        admin._manager.cluster._coordinators.clear()
        coordinators: Mapping[str, int] = await admin._find_coordinator_ids([group])
        request = DescribeGroupsRequest(groups=[group], include_authorized_operations=False)
        return await admin._manager.send(request, node_id=coordinators[group])

    try:
        [described] = admin._manager.run(request).groups
    except _NOBODY:
        return Membership("Dead", ())
    refused = errors.for_code(described.error_code)
    if refused in _NOBODY:
        return Membership("Dead", ())
    if refused is not errors.NoError:
        raise refused()
    return Membership(str(described.group_state), [_member(each) for each in described.members])


def _member(member: Any) -> GroupMember:
    assigned = ConsumerProtocolAssignment.decode(member.member_assignment) if member.member_assignment else None
    partitions = [
        TopicPartition(each.topic, number)
        for each in (assigned.assigned_partitions if assigned is not None else ())
        for number in each.partitions
    ]
    return GroupMember(member.member_id, member.client_id, str(member.client_host).lstrip("/"), sorted(partitions))
