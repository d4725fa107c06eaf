"""The broker's part of the status: bounds of each partition's log, committed offsets, and members of the group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from adawise.errors import AdawiseError, RetryableError
from adawise.kafka.client import EMBEDDED
from adawise.kafka.group import Membership
from adawise.kafka.log import KafkaLog
from adawise.kafka.topic import KafkaTopics
from adawise.records import TopicPartition
from adawise.watch.backlog import RATE_S

_PATIENCE_S = 5.0  # for reading the timestamps of waiting messages, for all partitions together


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The facts about the topic and the group. `cluster_id` is "" if the broker has none."""

    cluster_id: str
    bounds: Mapping[TopicPartition, tuple[int, int]]  # (log start, log end)
    committed: Mapping[TopicPartition, tuple[int, str]]  # (offset, id of the root)
    group: Membership
    waiting_ms: Mapping[TopicPartition, int] = field(default_factory=dict)  # timestamp of the first message not served
    ended: Mapping[TopicPartition, int] = field(default_factory=dict)  # log end `RATE_S` ago, by Kafka timestamps


def query(topics: KafkaTopics, topic: str, group: str, *, now_s: float) -> BrokerFacts:
    """Ask the broker for all facts but `waiting_ms`; `now_s` is in seconds since the epoch.

    Raises:
        SourceError: there is no such topic.
        FatalError, BrokerUnavailable: from the broker.
    """
    bounds, ended, cluster = topics.all_bounds(topic), dict[TopicPartition, int](), topics.identity(topic).cluster_id
    with suppress(RetryableError):  # without the rates, the other facts are still worth showing
        # The embedded broker ignores the time and always answers with the log's start.
        at = dict[TopicPartition, int | None]()
        if cluster != EMBEDDED:
            at.update(topics.offsets_at(bounds, int(1e3 * (now_s - RATE_S))))
        ended = {tp: end if at[tp] is None else int(at[tp] or 0) for tp, (_, end) in bounds.items() if tp in at}
    return BrokerFacts(
        cluster,
        bounds,
        topics.committed(group, topic),
        topics.members(group),
        ended=ended,
    )


def waiting(
    log: KafkaLog, offsets: Mapping[TopicPartition, tuple[int, int]], clock: Callable[[], float] = time.monotonic
) -> dict[TopicPartition, int]:
    """Return the timestamp, in milliseconds, of the message at each partition's offset, as far as the broker answers.

    A partition is left out if no message waits, if the message has no timestamp or cannot be read, or if five seconds
    have passed before its turn. If the broker does not answer, all remaining partitions are left out.

    Args:
        log: reads the messages.
        offsets: (offset, log end) of each partition.
        clock: seconds that never go back.
    """
    found: dict[TopicPartition, int] = {}
    give_up_s = clock() + _PATIENCE_S
    for tp, (offset, end) in offsets.items():
        if offset < end and clock() < give_up_s:
            try:
                _, times = log.messages(tp, offset, offset + 1)
            except RetryableError:
                return found
            except AdawiseError:
                continue
            if len(times) and times[0] >= 0:
                found[tp] = int(times[0])
    return found
