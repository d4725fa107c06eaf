"""The members of a consumer group and the partitions that each has.

It uses the parts below kafka-python's own describe call. That call also asks for the caller's rights, and cannot read
what the embedded broker answers about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import errors
from kafka.protocol.admin import DescribeGroupsRequest
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from adawise.records import TopicPartition


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


def members(admin: Any, group: str) -> Membership:
    """Ask the group's coordinator for its members; raise KafkaError.

    A group that never existed has the state Dead and no members.
    """

    async def ask() -> Any:
        # The client never forgets which broker coordinates a group (see `KafkaTopics.committed`).
        admin._manager.cluster._coordinators.clear()
        coordinators: Mapping[str, int] = await admin._find_coordinator_ids([group])
        request = DescribeGroupsRequest(groups=[group], include_authorized_operations=False)
        return await admin._manager.send(request, node_id=coordinators[group])

    try:
        [told] = admin._manager.run(ask).groups
    except _NOBODY:
        return Membership("Dead", ())
    refused = errors.for_code(told.error_code)
    if refused in _NOBODY:
        return Membership("Dead", ())
    if refused is not errors.NoError:
        raise refused()
    return Membership(str(told.group_state), [_member(each) for each in told.members])


def _member(told: Any) -> GroupMember:
    assigned = ConsumerProtocolAssignment.decode(told.member_assignment) if told.member_assignment else None
    partitions = [
        TopicPartition(each.topic, number)
        for each in (assigned.assigned_partitions if assigned is not None else ())
        for number in each.partitions
    ]
    return GroupMember(told.member_id, told.client_id, str(told.client_host).lstrip("/"), sorted(partitions))
