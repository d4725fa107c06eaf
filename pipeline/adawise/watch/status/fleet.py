"""The `FleetStatus`, combined from the root and the broker. Either may be missing; the status then says why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adawise.output.verify.findings import joined
from adawise.records import TopicPartition, label_column
from adawise.watch.backlog import RATE_S, PartitionLag
from adawise.watch.status.cameras import cameras, counts, moment, rejects
from adawise.watch.status.facts import FleetStatus, MemberStatus, PartitionStatus
from adawise.watch.status.root import ChainFacts, RootFacts
from adawise.watch.status.troubles import troubles

if TYPE_CHECKING:  # with the broker's client, which a look at the root alone does without
    from adawise.watch.status.broker import BrokerFacts


@dataclass(frozen=True, slots=True)
class FleetQuestion:
    """The fleet that is asked about, the time window, and whether the broker is to be asked."""

    root: str
    topic: str
    group: str
    window_s: float
    wants_broker: bool


def fleet_status(
    question: FleetQuestion,
    root: RootFacts | None,
    broker: BrokerFacts | None,
    not_asked: Mapping[str, str],
    *,
    now_s: float,
) -> FleetStatus:
    """Return the present status of the fleet.

    Args:
        question: the fleet and the window.
        root: facts of the output; None if it was not read, and `not_asked` says why.
        broker: facts of the broker; None if it was not read, and `not_asked` says why.
        not_asked: reasons, by `root` and `broker`.
        now_s: seconds since the epoch.
    """
    chains = {} if root is None else root.chains
    tps = sorted({*chains, *({} if broker is None else broker.bounds)})
    owners = _owners(broker)
    partitions = [_partition(tp, chains.get(tp), broker, owners.get(tp), question, now_s) for tp in tps]
    since_s = now_s - question.window_s
    rows = cameras(chains.values(), partitions, since_s=since_s, now_s=now_s)
    found = FleetStatus(
        at=moment(now_s),
        root=question.root,
        root_id=None if root is None else root.root_id,
        topic=question.topic,
        group=question.group,
        purpose="replay" if root is not None and root.is_replay else "run",
        window_s=question.window_s,
        not_asked=dict(not_asked),
        group_state=None if broker is None else broker.group.state,
        troubles=(),
        members=_members(broker, chains),
        workers=() if root is None else root.workers,
        free_bytes=None if root is None else root.free_bytes,
        partitions=partitions,
        camera_states=counts(rows),
        cameras=rows,
        rejects=rejects(chains.values(), since_s=since_s),
    )
    faults = {str(tp): chain.fault for tp, chain in chains.items() if chain.fault is not None}
    others = _others(root, broker)
    return replace(found, troubles=troubles(found, wanted_broker=question.wants_broker, others=others, faults=faults))


def low_waters(root: RootFacts | None, broker: BrokerFacts) -> dict[TopicPartition, tuple[int, int]]:
    """Return (first offset without a row, log end) of every partition that the broker has."""
    found = {}
    for tp, (start, end) in broker.bounds.items():
        head = None if root is None or tp not in root.chains else root.chains[tp].head
        committed = broker.committed[tp][0] if tp in broker.committed else start
        at = committed if head is None else head.low_water if head.pending else max(head.next_offset, committed)
        found[tp] = max(at, start), end
    return found


def _partition(
    tp: TopicPartition,
    chain: ChainFacts | None,
    broker: BrokerFacts | None,
    member: str | None,
    question: FleetQuestion,
    now_s: float,
) -> PartitionStatus:
    head = None if chain is None else chain.head
    start, end = (None, None) if broker is None else broker.bounds.get(tp, (None, None))
    committed = None if broker is None or tp not in broker.committed else broker.committed[tp][0]
    lag, lag_s, arriving = None, None, None
    if broker is not None and start is not None and end is not None:
        next_offset = head.next_offset if head is not None else start if chain is None else chain.origin
        lag = max(0, end - max(next_offset, committed or 0, start)) + len(head.pending if head is not None else ())
        lag_s = max(0.0, now_s - broker.waiting_ms[tp] / 1e3) if tp in broker.waiting_ms else None if lag else 0.0
        if tp in broker.ended:
            arriving = max(0, end - max(broker.ended[tp], start)) / RATE_S
    served = None if chain is None else _served_per_s(chain, now_s)
    catch_up_s = PartitionLag(lag, lag_s, arriving, served).catch_up_s
    within = [] if chain is None else [each for each in chain.segments if each.created_s >= now_s - question.window_s]
    reads_s = question.window_s
    if chain is not None and chain.segments and within and len(within) == len(chain.segments):
        reads_s = min(reads_s, now_s - within[0].created_s) if within[0].previous is not None else reads_s
    noted = None if chain is None else chain.served
    return PartitionStatus(
        topic=tp.topic,
        partition=tp.partition,
        member=member,
        writer=None if head is None else head.writer,
        log_start=start,
        log_end=end,
        committed=committed,
        next_offset=None if head is None else head.next_offset,
        pending=None if head is None else len(head.pending),
        lag=lag,
        lag_s=lag_s,
        arriving_per_s=arriving,
        served_per_s=served,
        catch_up_s=None if catch_up_s is None or math.isinf(catch_up_s) else catch_up_s,
        segment=None if head is None else head.key,
        committed_at=None if head is None else moment(head.created_s),
        commit_age_s=None if head is None else max(0.0, now_s - head.created_s),
        method=(noted.method or None) if noted is not None else None,
        tail_share=noted.tail_share if noted is not None else None,
        label_column=label_column(noted.settings) if noted is not None else None,
        streams=None if head is None else len(head.states),
        rows=sum(each.rows for each in within),
        reads_s=reads_s,
        gaps=[
            {"first": gap.first, "last": gap.until - 1, "offsets": gap.until - gap.first, "reason": str(gap.reason)}
            for gap in joined(gap for each in within for gap in each.gaps)
        ],
        holes=[] if chain is None or chain.holes is None else list(chain.holes),
        holes_looked_for=chain is not None and chain.holes is not None,
        unclean_starts=0 if chain is None else max(0, chain.starts - 1),
    )


def _served_per_s(chain: ChainFacts, now_s: float) -> float | None:
    """Return the messages per second that got durable rows over the last `RATE_S`.

    If the segments that were read cover less time, the rate is over that time. None with fewer than two segments.
    """
    if len(chain.segments) < 2:
        return None
    then = chain.segments[0]
    for facts in chain.segments[1:]:
        if facts.created_s > now_s - RATE_S:
            break
        then = facts
    over_s = min(RATE_S, now_s - then.created_s)
    return max(0, chain.segments[-1].durable - then.durable) / over_s if over_s > 0.0 else None


def _others(root: RootFacts | None, broker: BrokerFacts | None) -> dict[str, str]:
    """Return the id of the broker's cluster and of the group's root where they differ from ours, by kind of trouble."""
    if root is None or broker is None or root.owner is None:
        return {}
    found = {}
    if root.owner.cluster_id and broker.cluster_id and root.owner.cluster_id != broker.cluster_id:
        found["other_cluster"] = broker.cluster_id
    notes = {note for _, note in broker.committed.values()} - {"", root.root_id}
    if notes:
        found["other_root"] = min(notes)
    return found


def _owners(broker: BrokerFacts | None) -> dict[TopicPartition, str]:
    members = () if broker is None else broker.group.members
    return {tp: member.member_id for member in members for tp in member.partitions}


def _members(broker: BrokerFacts | None, chains: Mapping[TopicPartition, ChainFacts]) -> list[MemberStatus]:
    if broker is not None:
        found = [
            MemberStatus(each.client_id, each.host, each.member_id, [tp.partition for tp in each.partitions])
            for each in broker.group.members
        ]
        return sorted(found, key=lambda member: (member.partitions[:1], member.member))
    wrote: dict[str, list[int]] = {}
    for tp, chain in chains.items():
        if chain.head is not None:
            wrote.setdefault(chain.head.writer, []).append(tp.partition)
    return [MemberStatus("", who.rpartition(":")[0], who, numbers) for who, numbers in wrote.items()]
